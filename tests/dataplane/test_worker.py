"""The worker through its control channel, with a peer on the loopback. Needs no rights."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP

from ikeway.address import Address
from ikeway.dataplane.interface import (
    DataPlaneDied,
    DataPlaneRestarted,
    HardExpired,
    IkeReceived,
    PeerMoved,
    SaEnded,
    SoftExpired,
    UnknownSpi,
    Unreachable,
)
from ikeway.dataplane.userspace import process
from ikeway.dataplane.userspace.launch import Launched, launch
from ikeway.dataplane.userspace.messages import Reply
from ikeway.dataplane.userspace.process import WorkerProcess
from ikeway.errors import HostError
from ikeway.esp.inbound import InboundSa
from ikeway.esp.parameters import Encapsulation, EspLimits
from tests.dataplane.rig import PATIENCE, Rig, inner, opened, peer_socket, process_exists, rig, sealed
from tests.esp.material import network

BEGIN = 3  # the number of this request at a worker that takes one SA over: after Configure and the SA
BACK = {"source": "10.78.0.2", "destination": "10.78.0.1"}


async def test_packets_pass_in_both_directions() -> None:
    async with rig() as r:
        receiver, sender = await r.outbound(), await r.inbound()
        await r.send(inner())
        assert opened(receiver, await r.at_peer()) == inner()
        await r.to_worker(sealed(sender, inner(**BACK)))
        assert await r.delivered() == inner(**BACK)
        for spi, inbound in ((0x2001, False), (0x1001, True)):
            counters = await r.counters(spi, inbound)
            assert (counters.packets, counters.octets, counters.dropped) == (1, len(inner()), {})
            assert counters.last_used > 0


async def test_ike_goes_to_the_daemon_and_leaves_through_the_same_port() -> None:
    async with rig() as r:
        await r.to_worker(bytes(4) + b"an IKE message")
        await r.until(lambda: bool(r.events))
        assert r.events == [IkeReceived(b"an IKE message", r.local, r.remote)]
        assert r.plane.send_ike(b"an answer", r.local, r.remote)
        octets, source = await asyncio.get_running_loop().sock_recvfrom(r.peer, 100)
        assert (octets, Address(*source)) == (bytes(4) + b"an answer", r.local)
        assert r.plane.send_keepalive(r.local, r.remote)
        assert await r.at_peer() == b"\xff"
        assert not r.plane.send_ike(b"nowhere", Address("127.0.0.1", 1), r.remote)
        assert not r.plane.send_ike(b"nowhere", Address("::1", 4500), Address("::1", 4500))


async def test_the_longest_ike_message_comes_through() -> None:
    async with rig() as r:
        message = os.urandom(65507 - 4)
        await r.to_worker(bytes(4) + message)
        await r.until(lambda: bool(r.events))
        assert r.events[0].octets == message


@pytest.mark.parametrize(
    ("octets", "reason"),
    [(b"\xff", "keepalive"), (b"\xfe", "too-short"), (b"\0\0\0", "too-short"), (b"\0\0\0\1abc", "too-short")],
)
async def test_what_is_neither_ike_nor_esp_is_counted(octets: bytes, reason: str) -> None:
    async with rig() as r:
        await r.to_worker(octets)
        assert await r.dropped(0, True, reason) == 1
        assert r.events == []


async def test_unknown_spis_are_told_at_a_bounded_rate() -> None:
    async with rig() as r:
        began = time.monotonic()
        for _ in range(100):
            await r.to_worker(b"\0\0\x99\x99" + bytes(60))
        await r.until(lambda: bool(r.events))
        while await r.dropped(0, True, "unknown-spi") < 100:
            await asyncio.sleep(0.01)
        assert set(r.events) == {UnknownSpi(0x9999, r.remote)}
        assert len(r.events) <= most_told(began)


def most_told(began: float) -> int:
    """Ten a second; the first and the last one may be parts of seconds."""
    return 10 * (int(time.monotonic() - began) + 2)


async def test_a_closed_port_is_told_to_the_daemon_at_a_bounded_rate() -> None:
    async with rig() as r:
        began = time.monotonic()
        r.peer.close()
        for _ in range(50):
            r.plane.send_ike(b"anybody?", r.local, r.remote)
            await asyncio.sleep(0.005)
        await r.until(lambda: bool(r.events))
        assert set(r.events) == {Unreachable(r.remote, errno.ECONNREFUSED)}
        assert len(r.events) <= most_told(began)
        with peer_socket() as other:
            await r.to_worker(bytes(4) + b"still read", other)
        await r.until(lambda: isinstance(r.events[-1], IkeReceived))


@pytest.mark.parametrize("packet_first", [False, True])
async def test_a_packet_that_comes_with_its_sa_is_not_lost(packet_first: bool) -> None:
    async with rig() as r:
        assert r.plane.pid
        sa = r.sa(0x1001)
        from ikeway.esp.outbound import OutboundSa

        packet = sealed(OutboundSa(sa), inner(**BACK))
        os.kill(r.plane.pid, signal.SIGSTOP)  # both wait when it goes on
        if packet_first:
            await r.to_worker(packet)
        adding = asyncio.create_task(r.plane.add_inbound(sa))
        await asyncio.sleep(0.05)
        if not packet_first:
            await r.to_worker(packet)
        os.kill(r.plane.pid, signal.SIGCONT)
        await adding
        assert await r.delivered() == inner(**BACK)


async def test_drops_of_an_sa_are_counted_under_it() -> None:
    async with rig() as r:
        sender = await r.inbound()
        packet = sealed(sender, inner(**BACK))
        for octets in (packet, packet, packet[:-1] + bytes((packet[-1] ^ 1,)), packet[:20]):
            await r.to_worker(octets)
        await r.to_worker(sealed(sender, bytes(40), 59))
        await r.to_worker(sealed(sender, inner(source="10.99.0.1", destination="10.78.0.1")))
        await r.to_worker(sealed(sender, b"no packet"))
        await r.dropped(0x1001, True, "malformed")
        dropped = (await r.counters(0x1001, True)).dropped
        assert dropped == {"replayed": 2, "too-short": 1, "dummy": 1, "selectors": 1, "malformed": 1}
        used = (await r.counters(0x1001, True)).last_used
        await r.to_worker(packet[:7] + b"\x63" + packet[8:])
        assert await r.dropped(0x1001, True, "integrity") == 1
        assert (await r.counters(0x1001, True)).last_used == used  # a forged packet is no sign of life
        assert await r.delivered() == inner(**BACK)


async def test_nothing_leaves_without_a_policy() -> None:
    async with rig() as r:
        receiver = await r.outbound()
        await r.send(inner(destination="10.99.0.1"))
        await r.send(inner(source="10.99.0.1"))
        await r.send(b"\x45junk")
        await r.send(inner())
        assert opened(receiver, await r.at_peer()) == inner()
        assert (await r.counters(0, False)).dropped == {"no-policy": 1, "selectors": 1, "malformed": 1}


async def test_the_most_special_destination_wins_and_the_newest_of_equals() -> None:
    async with rig() as r:
        selectors = ("10.78.0.0/16", "10.78.0.0/24", "10.78.0.2/32", "10.78.0.0/24")
        receivers = [
            await r.outbound(0x3000 + number, child_id=number, remote_selectors=(network(text),))
            for number, text in enumerate(selectors)
        ]
        for destination, chosen in (("10.78.0.2", 2), ("10.78.0.3", 3), ("10.78.9.9", 0)):
            await r.send(inner(destination=destination))
            assert opened(receivers[chosen], await r.at_peer()) == inner(destination=destination)


async def test_rekeying_takes_the_newest_and_falls_back() -> None:
    async with rig() as r:
        old = await r.outbound(0x3001)
        await r.send(inner())
        assert opened(old, await r.at_peer())
        new = await r.outbound(0x3002)
        await r.send(inner())
        assert opened(new, await r.at_peer())
        await r.plane.remove_outbound(0x3002, Address("127.0.0.9", 4500))  # another peer's
        await r.send(inner())
        assert opened(new, await r.at_peer())
        await r.plane.remove_outbound(0x3002, r.remote)
        await r.send(inner())
        assert opened(old, await r.at_peer())
        await r.plane.remove_outbound(0x3001, r.remote)
        await r.plane.remove_outbound(0x3001, r.remote)
        await r.send(inner())
        assert await r.dropped(0, False, "no-policy") == 1


async def test_a_rekeyed_sa_may_have_other_selectors() -> None:
    async with rig() as r:
        await r.outbound(0x3001)
        new = await r.outbound(0x3002, remote_selectors=(network("10.79.0.0/16"), network("10.80.0.1/32")))
        for destination in ("10.79.1.1", "10.80.0.1"):
            await r.send(inner(destination=destination))
            assert opened(new, await r.at_peer())
        await r.send(inner())
        assert await r.dropped(0, False, "no-policy") == 1


@pytest.mark.parametrize("packets", [1, 40])
async def test_a_removed_sa_says_what_it_has_carried(packets: int) -> None:
    async with rig() as r:
        receiver, sender = await r.outbound(), await r.inbound()
        for _ in range(packets):
            await r.send(inner())
            assert opened(receiver, await r.at_peer()) == inner()
            await r.to_worker(sealed(sender, inner(**BACK)))
            assert await r.delivered() == inner(**BACK)
        await r.plane.remove_inbound(0x1001)
        await r.plane.remove_outbound(0x2001, r.remote)
        inbound, outbound = (each for each in r.events if isinstance(each, SaEnded))
        for ended, way in ((inbound, True), (outbound, False)):
            assert (ended.connection_id, ended.inbound) == (1, way)
            assert (ended.packets, ended.octets) == (packets, packets * len(inner())) and ended.last_used > 0


async def test_removed_inbound_sas_accept_nothing() -> None:
    async with rig() as r:
        sender = await r.inbound()
        await r.plane.remove_inbound(0x1001)
        await r.plane.remove_inbound(0x1001)
        await r.to_worker(sealed(sender, inner(**BACK)))
        assert await r.dropped(0, True, "unknown-spi") == 1


async def test_limits_are_told_once() -> None:
    async with rig() as r:
        limits = EspLimits(soft_packets=2, hard_packets=4)
        receiver, sender = await r.outbound(limits=limits), await r.inbound(limits=limits)
        for _ in range(6):
            await r.send(inner())
            await r.to_worker(sealed(replace_limits(sender), inner(**BACK)))
        await r.until(lambda: len(r.events) >= 4)
        assert await r.dropped(0x2001, False, "expired") == 2
        assert await r.dropped(0x1001, True, "expired") == 2
        expected = [
            kind(spi, inbound)
            for kind in (SoftExpired, HardExpired)
            for spi, inbound in ((0x2001, False), (0x1001, True))
        ]
        assert sorted(map(repr, r.events)) == sorted(map(repr, expected))
        assert receiver.parameters.limits == limits


def replace_limits(sender):
    """The peer counts for itself; here it does not."""
    sender._last_sequence = 1 << 32
    return sender


async def test_a_peer_that_moves_is_told_by_its_newest_packets_only() -> None:
    async with rig() as r:
        sender = await r.inbound(follow_peer=True)
        first, second, third = (sealed(sender, inner(**BACK)) for _ in range(3))
        with peer_socket() as elsewhere:
            there = Address(*elsewhere.getsockname())
            await r.to_worker(second)
            assert await r.delivered()
            await r.to_worker(first, elsewhere)  # authentic, but old: it may have been held back by an attacker
            assert await r.delivered()
            forged = third[:-1] + bytes((third[-1] ^ 1,))
            await r.to_worker(forged, elsewhere)
            assert await r.dropped(0x1001, True, "integrity")
            assert r.events == []
            await r.to_worker(third, elsewhere)
            await r.to_worker(sealed(sender, inner(**BACK)), elsewhere)
            for _ in range(2):
                assert await r.delivered()
            await r.until(lambda: bool(r.events))
            assert r.events == [PeerMoved(0x1001, there)]
            receiver = await r.outbound()
            await r.plane.move(1, r.local, there, True)
            await r.send(inner())
            octets = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(elsewhere, 65536), PATIENCE)
            assert opened(receiver, octets) == inner()
            await r.plane.remove_outbound(0x2001, there)
            assert (0x2001, False) not in await r.plane.counters()


async def test_mistakes_of_the_daemon_are_answered() -> None:
    async with rig() as r:
        sa = r.sa(0x1001)
        for wrong in (replace(sa, encryption_key=b"short"), replace(sa, replay_window=1 << 30)):
            with pytest.raises(HostError):
                await r.plane.add_inbound(wrong)
        with pytest.raises(HostError, match="no socket"):
            await r.plane.add_outbound(replace(sa, encapsulation=Encapsulation.ESP))
        with pytest.raises(HostError, match="not an IP address"):
            await r.plane.add_outbound(replace(sa, remote=Address("gateway.example", 4500)))
        await r.outbound()
        with pytest.raises(HostError, match="no socket"):
            await r.plane.move(1, Address("127.0.0.1", 1), r.remote, True)
        await r.plane.move(77, r.local, r.remote, True)  # an unknown connection has no SAs
        await r.send(inner())
        assert await r.at_peer()


async def test_counters_of_many_sas() -> None:
    async with rig() as r:
        await asyncio.gather(*(r.plane.add_inbound(r.sa(spi, replay_window=64)) for spi in range(256, 1256)))
        assert len(await r.plane.counters()) == 1002


async def test_mss_is_clamped_in_both_directions() -> None:
    async with rig(mtu=1300) as r:
        receiver, sender = await r.outbound(), await r.inbound()
        syn = bytes(IP(src="10.78.0.1", dst="10.78.0.2") / TCP(flags="S", options=[("MSS", 1460)]))
        back = bytes(IP(src="10.78.0.2", dst="10.78.0.1") / TCP(flags="SA", options=[("MSS", 1460)]))
        await r.send(syn)
        await r.to_worker(sealed(sender, back))
        for packet in (opened(receiver, await r.at_peer()), await r.delivered()):
            assert dict(IP(packet)[TCP].options)["MSS"] == 1260
        await r.plane.set_mtu(1200)
        await r.send(syn)
        assert dict(IP(opened(receiver, await r.at_peer()))[TCP].options)["MSS"] == 1160


async def test_the_worker_has_given_up_its_rights() -> None:
    async with rig() as r:
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{r.plane.pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapInh"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        if os.geteuid() == 0:
            assert status["Uid"].split() == ["65534"] * 4


async def killed(r: Rig) -> None:
    """Kill the worker, and wait for the next one."""
    pid, told = r.plane.pid, len(r.events)
    assert pid
    os.kill(pid, signal.SIGKILL)
    await r.until(lambda: len(r.events) > told, 10)
    assert r.events[told:] == [DataPlaneRestarted("it was killed by SIGKILL")]
    assert r.plane.pid not in {None, pid}
    assert not process_exists(pid)


@pytest.mark.parametrize("suite", ["aes128gcm16", "aes256-sha256"])
@pytest.mark.parametrize("esn", [False, True])
async def test_another_worker_goes_on_where_one_died(suite: str, esn: bool) -> None:
    """With the same SAs: nothing is sent twice under one number, and nothing that was received is taken again."""
    async with rig() as r:
        receiver, sender = await r.outbound(suite=suite, esn=esn), await r.inbound(suite=suite, esn=esn)
        numbers, ivs, replayed, refused = [], [], [], []
        for times in range(1, 4):
            for _ in range(3):
                await r.send(inner())
                octets = await r.at_peer()
                assert opened(receiver, octets) == inner()
                numbers.append(receiver.window.highest)
                ivs.append(octets[8:16])
                replayed.append(sealed(sender, inner(**BACK)))
                await r.to_worker(replayed[-1])
                assert await r.delivered() == inner(**BACK)
            await killed(r)
            assert r.plane.restarts == times
            for octets in replayed:
                await r.to_worker(octets)
            refused.append(await r.dropped(0x1001, True, "replayed"))
        assert refused[0] > 0
        assert numbers == sorted(set(numbers))
        assert len(set(ivs)) == len(ivs)
        out, into = await r.counters(0x2001, False), await r.counters(0x1001, True)
        assert (out.packets, into.packets) == (9, 9)
        assert out.octets == into.octets == 9 * len(inner())
        assert out.last_used and into.last_used


async def test_limits_go_on_in_another_worker() -> None:
    async with rig() as r:
        limits = EspLimits(soft_packets=4, hard_packets=6)
        receiver = await r.outbound(limits=limits)
        for _ in range(3):
            await r.send(inner())
            opened(receiver, await r.at_peer())
        await killed(r)
        for _ in range(3):
            await r.send(inner())
            opened(receiver, await r.at_peer())
        await r.until(lambda: HardExpired(0x2001, False) in r.events)
        assert SoftExpired(0x2001, False) in r.events
        await r.send(inner())
        assert await r.dropped(0x2001, False, "expired") == 1


async def test_a_limit_in_the_middle_of_a_batch_is_told() -> None:
    """Of a flow that was seen before; what comes in one batch goes over the limit."""
    async with rig() as r:
        receiver = await r.outbound(limits=EspLimits(hard_packets=6))
        for _ in range(2):
            await r.send(inner())
            opened(receiver, await r.at_peer())
        assert r.plane.pid
        os.kill(r.plane.pid, signal.SIGSTOP)
        for _ in range(10):
            await r.send(inner())
        os.kill(r.plane.pid, signal.SIGCONT)
        await r.until(lambda: bool(r.events))
        assert r.events == [HardExpired(0x2001, False)]
        counted = await r.counters(0x2001, False)
        assert (counted.packets, counted.dropped) == (6, {"expired": 6})


async def test_counters_without_an_sa_go_on_too() -> None:
    async with rig() as r:
        await r.to_worker(b"\0\0\1\2" + bytes(40))
        assert await r.dropped(0, True, "unknown-spi") == 1
        await killed(r)
        await r.to_worker(b"\0\0\1\2" + bytes(40))
        await r.until(lambda: r.events.count(UnknownSpi(0x102, r.remote)) == 2)
        assert (await r.counters(0, True)).dropped["unknown-spi"] == 2


async def test_what_is_asked_meanwhile_waits() -> None:
    """SAs that come, move and go while there is no worker are there, have moved, and are gone when there is one."""
    async with rig() as r:
        gone = await r.inbound(0x1002)
        with peer_socket() as other:
            await r.outbound(0x2001)
            receiver = InboundSa(sa := r.sa(0x2002, connection_id=2, child_id=2))
            assert r.plane.pid
            os.kill(r.plane.pid, signal.SIGSTOP)
            under_way = [
                asyncio.create_task(each)
                for each in (
                    r.plane.add_outbound(sa),
                    r.plane.remove_inbound(0x1002),
                    r.plane.move(2, r.local, Address(*other.getsockname()), True),
                    r.plane.counters(),
                )
            ]
            await asyncio.sleep(0.05)
            os.kill(r.plane.pid, signal.SIGKILL)
            await asyncio.gather(*under_way)
            assert [each for each in r.events if not isinstance(each, SaEnded)] == [
                DataPlaneRestarted("it was killed by SIGKILL")
            ]
            await r.plane.remove_outbound(0x2001, r.remote)
            await r.send(inner())
            assert opened(receiver, await asyncio.get_running_loop().sock_recv(other, 65536))
            await r.to_worker(sealed(gone, inner(**BACK)))
            assert await r.dropped(0, True, "unknown-spi") == 1
            assert r.plane.sas == 1


async def test_what_is_removed_and_moved_while_nobody_waits_any_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon gives up before a busy host has started another worker. That one must not go on with what is gone."""
    started: list[int] = []

    def slowly() -> Launched:
        launched = launch()
        os.kill(launched.process.pid, signal.SIGSTOP)
        started.append(launched.process.pid)
        return launched

    async with rig() as r:
        gone = await r.inbound(0x1002)
        await r.outbound(0x2001)
        receiver = await r.outbound(0x2002, connection_id=2, child_id=2)
        monkeypatch.setattr(process, "launch", slowly)
        assert r.plane.pid
        os.kill(r.plane.pid, signal.SIGKILL)
        await r.until(lambda: bool(started))
        with peer_socket() as other:
            for each in (
                r.plane.remove_inbound(0x1002),
                r.plane.remove_outbound(0x2001, r.remote),
                r.plane.move(2, r.local, Address(*other.getsockname()), True),
            ):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await each
            os.kill(started[0], signal.SIGCONT)
            await r.until(lambda: DataPlaneRestarted("it was killed by SIGKILL") in r.events, 20)
            await r.until(lambda: sum(isinstance(each, SaEnded) for each in r.events) == 2)
            assert r.plane.sas == 1
            await r.send(inner())
            sent = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(other, 65536), PATIENCE)
            assert opened(receiver, sent) == inner()
            await r.to_worker(sealed(gone, inner(**BACK)))
            assert await r.dropped(0, True, "unknown-spi") == 1


async def test_a_worker_that_hangs_is_replaced() -> None:
    async with rig() as r:
        await r.outbound()
        assert r.plane.pid
        os.kill(r.plane.pid, signal.SIGSTOP)
        assert (0x2001, False) in await r.plane.counters()
        assert r.events == [DataPlaneRestarted("it was killed by SIGKILL")]


async def test_a_worker_is_replaced_while_somebody_holds_its_standard_error() -> None:
    async with rig() as r:
        await r.outbound()
        held = os.open(f"/proc/{r.plane.pid}/fd/2", os.O_WRONLY)
        try:
            async with asyncio.timeout(20):
                await killed(r)
        finally:
            os.close(held)


async def test_a_worker_that_dies_as_soon_as_it_has_begun_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is heard in the same turn as its answer: nobody has taken it over yet."""
    settle, deaths = WorkerProcess._settle, []

    def settle_and_die(self: WorkerProcess, message: Reply) -> None:
        settle(self, message)
        if len(deaths) == 1 and self._requests == BEGIN:
            deaths.append(self.pid)
            self._died()

    async with rig() as r:
        await r.outbound()
        monkeypatch.setattr(WorkerProcess, "_settle", settle_and_die)
        deaths.append(r.plane.pid)
        await killed(r)
        assert len(deaths) == 2 and r.plane.pid not in deaths
        assert (0x2001, False) in await r.plane.counters()


async def test_a_worker_that_dies_again_and_again_is_given_up() -> None:
    async with rig() as r:
        await r.outbound()
        for _ in range(4):
            await killed(r)
        assert r.plane.pid
        os.kill(r.plane.pid, signal.SIGKILL)
        await r.until(lambda: len(r.events) == 5)
        assert r.events[-1] == DataPlaneDied(
            "it was killed by SIGKILL; it died 5 times within a minute", repeatedly=True
        )
        with pytest.raises(HostError):
            await r.plane.add_inbound(r.sa(0x1001))
        assert r.plane.pid is None
        await r.plane.restart()
        first = r.plane.pid
        assert first
        await r.plane.restart()  # something else had failed: there are never two on the same device
        assert r.plane.pid != first and not process_exists(first)
        assert r.plane.sas == 0
        receiver = await r.outbound()
        await r.send(inner())
        assert opened(receiver, await r.at_peer()) == inner()


async def test_stopping_gives_everything_back() -> None:
    async with rig() as r:
        pid = r.plane.pid
        assert pid
        await r.plane.stop()
        await r.plane.stop()
        assert not process_exists(pid)
        assert r.events == []
        assert not r.plane.send_ike(b"", r.local, r.remote)
        with pytest.raises(HostError, match="does not run"):
            await r.plane.counters()
        assert r.tun.recv(10) == b""  # the other end of the device is closed


async def test_no_worker_outlives_its_daemon(tmp_path: Path) -> None:
    """kill -9 of the daemon closes the control socket, and that ends the worker."""
    program = textwrap.dedent("""
        import asyncio
        from tests.dataplane.rig import rig

        async def main():
            async with rig() as r:
                print(r.plane.pid, flush=True)
                await asyncio.sleep(60)

        asyncio.run(main())
    """)
    daemon = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert daemon.stdout
    with daemon.stdout:
        worker = int(await asyncio.to_thread(daemon.stdout.readline))
    assert process_exists(worker)
    daemon.kill()
    daemon.wait()
    async with asyncio.timeout(PATIENCE):
        while process_exists(worker):
            await asyncio.sleep(0.01)


async def test_signals_that_are_for_the_daemon_do_not_end_it() -> None:
    async with rig() as r:
        assert r.plane.pid
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            os.kill(r.plane.pid, number)
        await asyncio.sleep(0.05)
        assert await r.plane.counters()


async def test_merged_datagrams_are_asked_for_while_there_are_workers_only() -> None:
    async with rig() as r:
        sock = r.plane._udp[0]
        assert sock.getsockopt(socket.IPPROTO_UDP, 104) == 1
        for _ in range(4):
            await killed(r)
        assert sock.getsockopt(socket.IPPROTO_UDP, 104) == 1
        assert r.plane.pid
        os.kill(r.plane.pid, signal.SIGKILL)
        await r.until(lambda: isinstance(r.events[-1], DataPlaneDied))
        assert sock.getsockopt(socket.IPPROTO_UDP, 104) == 0


async def test_two_peers_may_choose_the_same_spi() -> None:
    async with rig() as r:
        with peer_socket() as other:
            there = Address(*other.getsockname())
            mine = await r.outbound(0x3001, child_id=1, remote_selectors=(network("10.78.1.0/24"),))
            await r.outbound(0x3001, child_id=2, remote=there, remote_selectors=(network("10.78.2.0/24"),))
            await r.plane.remove_outbound(0x3001, there)
            await r.send(inner(destination="10.78.2.1"))
            await r.send(inner(destination="10.78.1.1"))
            assert opened(mine, await r.at_peer())
            assert await r.dropped(0, False, "no-policy") == 1

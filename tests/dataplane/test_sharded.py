"""Two workers behind one data plane: real processes on the loopback, their TUN devices are socket pairs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from ikeway.address import Address
from ikeway.dataplane.interface import DataPlaneDied, DataPlaneEvent, DataPlaneRestarted
from ikeway.dataplane.userspace.messages import PathNarrowed
from ikeway.dataplane.userspace.plane import UserspaceDataPlane
from ikeway.dataplane.userspace.sharded import ShardedDataPlane
from ikeway.dataplane.userspace.steering import open_group
from ikeway.errors import HostError
from ikeway.esp.inbound import InboundSa
from ikeway.esp.outbound import OutboundSa
from ikeway.esp.parameters import EspSa
from ikeway.host.tun import TunDevice
from tests.dataplane.rig import INSIDE, PATIENCE, inner, opened, peer_socket, sealed
from tests.esp.material import esp_sa

BACK = {"source": "10.78.0.2", "destination": "10.78.0.1"}


@dataclass
class Both:
    """The data plane, the inner ends of its devices, the daemon's socket, and a peer."""

    plane: ShardedDataPlane
    tuns: list[socket.socket]
    daemon: socket.socket
    peer: socket.socket
    local: Address
    remote: Address
    events: list[DataPlaneEvent] = field(default_factory=list)

    def sa(self, spi: int, **changes: object) -> EspSa:
        defaults = {"local_selectors": INSIDE, "remote_selectors": INSIDE, "local": self.local, "remote": self.remote}
        return esp_sa(spi=spi, **{**defaults, **changes})

    async def connect(self, number: int, connection_id: int) -> tuple[OutboundSa, InboundSa]:
        """A child SA on a worker; the peer's ends of it."""
        inbound = self.sa(0x1000 + 16 * connection_id + number, connection_id=connection_id, child_id=connection_id)
        outbound = self.sa(0x2001, connection_id=connection_id, child_id=connection_id)  # the peers choose all the same
        await self.plane.add_inbound(inbound)
        await self.plane.add_outbound(outbound)
        return OutboundSa(inbound), InboundSa(outbound)

    async def delivered(self, number: int) -> bytes:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.tuns[number], 65536), PATIENCE)

    async def at_peer(self) -> bytes:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.peer, 65536), PATIENCE)

    def to_us(self, octets: bytes) -> None:
        self.peer.sendto(octets, tuple(self.local))

    async def until(self, condition, seconds: float = PATIENCE) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def both() -> AsyncIterator[Both]:
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    for pair in pairs:
        for end in pair:
            end.setblocking(False)
    *members, daemon = open_group(Address("127.0.0.1", 0), 2)
    peer = peer_socket()
    planes = [
        UserspaceDataPlane(TunDevice(outside.detach(), f"tun{number}"), [sock], number=number)
        for number, ((_, outside), sock) in enumerate(zip(pairs, members, strict=True))
    ]
    plane = ShardedDataPlane(planes)
    found = Both(
        plane,
        [inside for inside, _ in pairs],
        daemon,
        peer,
        Address(*daemon.getsockname()),
        Address(*peer.getsockname()),
    )
    try:
        await plane.start(found.events.append)
        yield found
    finally:
        await plane.stop()
        for each in (*found.tuns, daemon, peer):
            each.close()


async def test_each_has_its_own_and_ike_comes_to_the_daemon() -> None:
    async with both() as b:
        ends = [await b.connect(number, 5 + number) for number in (0, 1)]
        assert [worker.sas for worker in b.plane.workers] == [2, 2]
        for number, (sender, receiver) in enumerate(ends):
            b.to_us(sealed(sender, inner(**BACK)))
            assert await b.delivered(number) == inner(**BACK)
            await asyncio.get_running_loop().sock_sendall(b.tuns[number], inner())
            assert opened(receiver, await b.at_peer()) == inner()
        b.to_us(bytes(4) + b"an IKE message")
        assert (
            await asyncio.wait_for(asyncio.get_running_loop().sock_recv(b.daemon, 100), PATIENCE)
            == bytes(4) + b"an IKE message"
        )
        counted = await b.plane.counters()
        assert counted[0x1050, True].packets == counted[0x1061, True].packets == 1
        assert counted[0x2001, False].packets == 2  # two peers have chosen the same one
        await b.plane.remove_inbound(0x1050)
        assert [worker.sas for worker in b.plane.workers] == [1, 2]


async def test_a_connection_moves_where_it_is() -> None:
    async with both() as b:
        _, receiver = await b.connect(0, 5)
        await b.connect(1, 6)
        with peer_socket() as other:
            there = Address(*other.getsockname())
            await b.plane.move(5, b.local, there, True)
            await asyncio.get_running_loop().sock_sendall(b.tuns[0], inner())
            assert opened(receiver, await asyncio.get_running_loop().sock_recv(other, 65536)) == inner()
            await b.plane.remove_outbound(0x2001, b.remote)  # exact: that of connection 6
            assert [worker.sas for worker in b.plane.workers] == [2, 1]
            await b.plane.remove_outbound(0x2001, there)
            assert [worker.sas for worker in b.plane.workers] == [1, 1]
            await b.plane.remove_outbound(0x9999, there)
            await b.plane.move(77, b.local, there, True)


async def test_what_icmp_told_one_is_known_to_all() -> None:
    """The kernel gives an ICMP error to any member of the group."""
    async with both() as b:
        for number in (0, 1):
            await b.connect(number, 5 + number)
        b.plane._take_event(PathNarrowed("127.0.0.1", 700))
        b.plane._take_event(PathNarrowed("192.0.2.1", 600))
        for number in (0, 1):
            await asyncio.get_running_loop().sock_sendall(b.tuns[number], inner(bytes(900), flags="DF"))
            answer = await b.delivered(number)
            assert answer[9] == 1 and answer[20:22] == b"\x03\x04"  # ICMP: fragmentation needed
        assert (await b.plane.counters())[0x2001, False].dropped == {"too-big": 2}
        assert b.events == []


async def test_one_dies_and_the_other_goes_on() -> None:
    async with both() as b:
        ends = [await b.connect(number, 5 + number) for number in (0, 1)]
        before = b.plane.workers
        for times in range(1, 6):
            await b.until(lambda: b.plane.workers[1].pid is not None)
            assert b.plane.workers[1].pid
            os.kill(b.plane.workers[1].pid, signal.SIGKILL)
            b.to_us(sealed(ends[0][0], inner(**BACK)))
            assert await b.delivered(0) == inner(**BACK)
            await b.until(lambda times=times: len(b.events) == times)
        assert b.events[:4] == [DataPlaneRestarted("it was killed by SIGKILL", 1)] * 4
        assert isinstance(b.events[4], DataPlaneDied) and b.events[4].worker == 1
        assert b.plane.workers[0] == before[0]
        assert b.plane.workers[1][1:] == (None, "tun1", 0, 4)
        assert (await b.plane.counters())[0x1050, True].packets == 5
        await b.plane.set_mtu(1300)  # the next worker begins with it
        with pytest.raises(HostError):
            await b.plane.add_inbound(b.sa(0x1061))
        with pytest.raises(HostError, match="receives nothing"):
            await b.plane.add_outbound(b.sa(0x2001, connection_id=6))
        await b.plane.restart(1)
        sender, _ = await b.connect(1, 7)
        b.to_us(sealed(sender, inner(**BACK)))
        assert await b.delivered(1) == inner(**BACK)


async def test_the_start_of_the_others_is_waited_for_when_one_cannot_start() -> None:
    """Whoever is told that it failed stops them all, and one that is still starting would not notice."""
    started = []

    class Plane:
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        async def start(self, on_event: object) -> None:
            if not self.seconds:
                raise HostError("no room")
            await asyncio.sleep(self.seconds)
            started.append(self)

    planes = [Plane(0.0), Plane(0.05)]
    with pytest.raises(HostError, match="no room"):
        await ShardedDataPlane(planes).start(lambda event: None)  # type: ignore[arg-type]
    assert started == planes[1:]

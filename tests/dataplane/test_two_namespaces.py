"""Two workers in two network namespaces, static keys: real packets through real devices."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket

import pytest
from scapy.layers.inet import IP, UDP

from ikeway.address import Address
from ikeway.dataplane.interface import DataPlaneDied, DataPlaneRestarted, PeerMoved, SaEnded
from ikeway.esp.parameters import Encapsulation, Mode
from tests.dataplane.capture import Sequences, packet_socket
from tests.dataplane.namespaces import inside, ip, run_in
from tests.dataplane.rig import PATIENCE
from tests.dataplane.traffic import Numbered, ping, transfer
from tests.dataplane.tunnels import Side, connect, network, sa_pair, two_sides
from tests.esp.material import SUITES, transforms

pytestmark = [pytest.mark.root]

OFFLOAD = pytest.mark.parametrize("vnet_header", [False, True], ids=["plain", "offload"])

# Said by the kernel on any link (router solicitations, multicast reports); nobody negotiated them.
NOISE = {"no-policy", "selectors"}


async def no_drops(*sides: Side) -> None:
    """Nothing was lost in the data planes."""
    for side in sides:
        for key, counters in (await side.plane.counters()).items():
            assert not set(counters.dropped) - NOISE, (key, counters)


@OFFLOAD
@pytest.mark.parametrize("outer_ipv6", [False, True], ids=["over-ipv4", "over-ipv6"])
async def test_both_families_in_both(outer_ipv6: bool, vnet_header: bool) -> None:
    async with two_sides(vnet_header=vnet_header) as (left, right):
        await connect(left, right, ipv6=outer_ipv6)
        for address in (right.inner, right.inner_ipv6):
            assert " 0% packet loss" in await ping(left, address, "-s", "1300")
            await transfer(left, right, address)
        await transfer(right, left, left.inner)
        await transfer(right, left, left.inner_ipv6)
        await no_drops(left, right)


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
async def test_esp_as_ip_protocol(ipv6: bool) -> None:
    async with two_sides(vnet_header=True) as (left, right):
        await connect(left, right, ipv6=ipv6, encapsulation=Encapsulation.ESP)
        assert " 0% packet loss" in await ping(left, right.inner)
        await transfer(left, right, right.inner)
        await no_drops(left, right)


@pytest.mark.parametrize(
    ("suite", "esn"), [*((suite, False) for suite in SUITES), ("aes256gcm16", True), ("aes256-sha256", True)]
)
async def test_every_suite(suite: str, esn: bool) -> None:
    async with two_sides(vnet_header=True) as (left, right):
        await connect(left, right, transforms=transforms(suite, esn))
        assert " 0% packet loss" in await ping(left, right.inner)
        await transfer(left, right, right.inner, 1)
        await no_drops(left, right)


async def replaced(sender: Side, receiver: Side, spi: int) -> None:
    """Remove an SA that another one sends in place of, when what is under way on it has arrived."""
    await sender.plane.remove_outbound(spi, receiver.outer)
    sent = sender.events[-1]
    assert isinstance(sent, SaEnded) and not sent.inbound
    async with asyncio.timeout(20):
        while (await receiver.plane.counters())[spi, True].packets < sent.packets:
            await asyncio.sleep(0.01)
    await receiver.plane.remove_inbound(spi)


@OFFLOAD
async def test_rekeying_under_traffic_loses_nothing(vnet_header: bool) -> None:
    """The order of RFC 7296 section 2.8: the new inbound SA, then the new outbound one, then the old ones go."""
    async with two_sides(vnet_header=vnet_header) as (left, right):
        for side in (left, right):  # no loss because a loaded machine does not let the worker run for a while
            ip("link", "set", side.tun, "txqueuelen", "20000", namespace=side.namespace)
        await connect(left, right)
        there, back = Numbered(left, right), Numbered(right, left)

        async def rekey() -> None:
            for spi in range(0x2001, 0x2015, 2):
                await asyncio.sleep(0.15)
                await connect(left, right, spi)
                old = 0x1001 if spi == 0x2001 else spi - 2
                await replaced(left, right, old)
                await replaced(right, left, old + 1)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(there.run(3.0))
            tasks.create_task(back.run(3.0))
            tasks.create_task(rekey())
            tasks.create_task(transfer(left, right, right.inner, 8))
        assert there.sent > 500
        assert there.missing() == back.missing() == []
        await no_drops(left, right)
        assert len(await left.plane.counters()) == 4


async def test_moving_to_another_address_keeps_the_flow() -> None:
    """MOBIKE: the client gets a new address, the peers are told, the transfer goes on."""
    async with two_sides(vnet_header=True) as (left, right):
        await connect(left, right)
        moved = Address("10.77.0.99", 4500)

        async def move() -> None:
            await asyncio.sleep(0.3)
            ip("addr", "add", "10.77.0.99/24", "dev", "wan", namespace=left.namespace)
            await left.plane.move(1, moved, right.outer, True)
            await right.plane.move(1, right.outer, moved, True)
            ip("addr", "del", "10.77.0.1/24", "dev", "wan", namespace=left.namespace)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(transfer(left, right, right.inner, 16))
            tasks.create_task(move())
        assert " 0% packet loss" in await ping(right, left.inner)


async def test_a_new_address_behind_a_nat_is_noticed_and_followed() -> None:
    async with two_sides() as (left, right):
        await connect(left, right)
        assert " 0% packet loss" in await ping(left, right.inner)
        ip("addr", "add", "10.77.0.99/24", "dev", "wan", namespace=left.namespace)
        moved = Address("10.77.0.99", 4500)
        await left.plane.move(1, moved, right.outer, True)
        await ping(left, right.inner, count=1)
        async with asyncio.timeout(PATIENCE):
            while not right.events:
                await asyncio.sleep(0.01)
        assert right.events == [PeerMoved(0x1001, moved)]
        await right.plane.move(1, right.outer, moved, True)
        assert " 0% packet loss" in await ping(left, right.inner)


async def test_inner_fragments_pass() -> None:
    async with two_sides(vnet_header=True) as (left, right):
        await connect(left, right)
        for address in (right.inner, right.inner_ipv6):
            assert " 0% packet loss" in await ping(left, address, "-s", "20000")
        await no_drops(left, right)


@OFFLOAD
async def test_a_narrow_link_fragments_outside(vnet_header: bool) -> None:
    """The link itself is narrower than the tunnel thinks: nothing is lost, the outer packets are fragmented."""
    async with two_sides(vnet_header=vnet_header) as (left, right):
        for side in (left, right):
            ip("link", "set", "wan", "mtu", "1300", namespace=side.namespace)
        await connect(left, right)
        assert " 0% packet loss" in await ping(left, right.inner, "-s", "1372")
        await transfer(left, right, right.inner, 1)
        await no_drops(left, right)


@OFFLOAD
@pytest.mark.parametrize("ipv6", [False, True], ids=["over-ipv4", "over-ipv6"])
async def test_inner_senders_hear_of_a_narrow_path(ipv6: bool, vnet_header: bool) -> None:
    """A router on the way says what fits; the worker says it to the inside (RFC 4301 section 8.2)."""
    async with two_sides(vnet_header=vnet_header) as (left, right):
        remote = route_over_a_router(left, right, ipv6)
        local = left.outer_ipv6 if ipv6 else left.outer
        for spi, sender, receiver, one, other in (
            (0x1001, left, right, local, remote),
            (0x1002, right, left, remote, local),
        ):
            outbound, inbound = sa_pair(spi, one, other)
            await receiver.plane.add_inbound(inbound)
            await sender.plane.add_outbound(outbound)
        assert " 0% packet loss" in await ping(left, right.inner, "-s", "1000")
        said = await ping(left, right.inner, "-s", "1372", "-M", "do", count=20)
        # 1300 without outer headers, SPI, sequence, IV, trailer, ICV, in steps of 4.
        largest = (1300 - (40 if ipv6 else 20) - 8 - 8 - 8 - 16) // 4 * 4 - 2
        assert f"mtu={largest}" in said or f"mtu = {largest}" in said, said
        dropped = (await left.plane.counters())[0x1001, False].dropped
        assert dropped["too-big"] >= 1
        assert " 0% packet loss" in await ping(left, right.inner, "-s", str(largest - 28), "-M", "do")
        assert " 0% packet loss" in await ping(left, right.inner, "-s", "1372", "-M", "dont")
        await transfer(left, right, right.inner, 2)
        await transfer(left, right, right.inner_ipv6, 1)


def route_over_a_router(left: Side, right: Side, ipv6: bool) -> Address:
    """Put a namespace with a link of 1300 octets between both; the address of the right one there."""
    router = f"{left.namespace}-r"
    ip("netns", "add", router)
    ip("link", "set", "wan", "netns", router, namespace=right.namespace)
    ip("link", "add", "far", "netns", router, "type", "veth", "peer", "name", "wan", "netns", right.namespace)
    run_in(router, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    near, far = ("fd77::2/64", "fd88::1/64") if ipv6 else ("10.77.0.2/24", "10.88.0.1/24")
    host, network_of_far, network_of_near = (
        ("fd88::2", "fd88::/64", "fd77::/64") if ipv6 else ("10.88.0.2", "10.88.0.0/24", "10.77.0.0/24")
    )
    nodad = ("nodad",) if ipv6 else ()
    for namespace, device, address in (
        (router, "wan", near),
        (router, "far", far),
        (right.namespace, "wan", f"{host}/{far[-2:]}"),
    ):
        ip("addr", "add", address, "dev", device, *nodad, namespace=namespace)
        ip("link", "set", device, "up", namespace=namespace)
    ip("link", "set", "far", "mtu", "1300", namespace=router)
    ip("link", "set", "wan", "mtu", "1300", namespace=right.namespace)
    ip("route", "add", network_of_far, "via", near.partition("/")[0], namespace=left.namespace)
    ip("route", "add", network_of_near, "via", far.partition("/")[0], namespace=right.namespace)
    return Address(host, 4500)


@pytest.fixture(autouse=True)
def _remove_routers():
    yield
    for line in ip("netns", "list").splitlines():
        name = line.split()[0]
        if re.fullmatch(rf"ikedp-a-{os.getpid()}-r", name):
            ip("netns", "del", name)


async def test_transport_mode_between_the_hosts_themselves() -> None:
    """Packets between the outer addresses go through the device by policy routing; what ESP sends does not."""
    async with two_sides(vnet_header=True, mark=9) as (left, right):
        hosts = {
            "mode": Mode.TRANSPORT,
            "source": (network("10.77.0.1/32"),),
            "destination": (network("10.77.0.2/32"),),
        }
        await connect(left, right, **hosts)
        for side, other in ((left, right), (right, left)):
            ip("rule", "add", "not", "fwmark", "9", "lookup", "100", "pref", "50", namespace=side.namespace)
            ip(
                "route",
                "add",
                other.outer.host,
                "dev",
                side.tun,
                "src",
                side.outer.host,
                "table",
                "100",
                namespace=side.namespace,
            )
        assert " 0% packet loss" in await ping(left, right.outer.host)
        await transfer(left, right, right.outer.host)
        await no_drops(left, right)
        counters = (await right.plane.counters())[0x1001, True]
        assert counters.octets > 4 << 20


async def test_dscp_and_ecn_are_copied_to_the_outside() -> None:
    async with two_sides(vnet_header=True) as (left, right):
        await connect(left, right)
        with inside(
            right.namespace, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        ) as tap:
            tap.setblocking(False)
            await ping(left, right.inner, "-Q", "0xba", count=1)
            seen = set()
            with contextlib.suppress(BlockingIOError):
                while True:
                    octets, (device, *_) = tap.recvfrom(2000)
                    if (
                        device == "wan"
                        and octets[0] >> 4 == 4
                        and IP(octets).proto == 17
                        and IP(octets)[UDP].dport == 4500
                    ):
                        seen.add((IP(octets).src, IP(octets).tos))
        assert ("10.77.0.1", 0xBA) in seen


async def test_workers_that_are_killed_during_a_transfer() -> None:
    """kill -9 of either side: the transfer arrives as it was sent, and no sequence number was used twice."""
    async with two_sides(vnet_header=True) as (left, right):
        await connect(left, right)
        captures = [Sequences(inside(side.namespace, packet_socket), side.outer.host) for side in (left, right)]

        async def kill() -> None:
            for side in (left, right, left):
                await asyncio.sleep(0.4)
                told = len(side.events)
                assert side.plane.pid
                os.kill(side.plane.pid, 9)
                async with asyncio.timeout(10):
                    while len(side.events) == told:
                        await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(transfer(left, right, right.inner, 160))
            tasks.create_task(kill())
        assert left.events == [DataPlaneRestarted("it was killed by SIGKILL")] * 2
        assert right.events == [DataPlaneRestarted("it was killed by SIGKILL")]
        for capture in captures:
            seen = capture.stop()
            assert len(seen) > 1000
            assert len(set(seen)) == len(seen)
            assert max(number for _, number in seen) > 1 << 20  # beyond what was reserved for the first worker
        counted = (await left.plane.counters())[0x1001, False]
        assert counted.packets > 100 * 1024 * 1024 // 1400
        assert " 0% packet loss" in await ping(left, right.inner)


async def test_a_removed_device_ends_the_worker_with_a_word() -> None:
    async with two_sides() as (left, _):
        ip("link", "del", left.tun, namespace=left.namespace)
        async with asyncio.timeout(20):
            while not left.events:
                await asyncio.sleep(0.01)
        (died,) = left.events
        assert isinstance(died, DataPlaneDied)
        assert "the TUN device was removed" in died.reason

"""Two hosts in namespaces with our data plane between them, and the same two without it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path

from ikeway.address import Address
from ikeway.cli.bench.handshakes import Pair
from ikeway.dataplane.userspace.plane import UserspaceDataPlane
from ikeway.dataplane.userspace.sockets import open_udp
from ikeway.host.linux.links import add_address, set_link
from ikeway.host.linux.netlink import Netlink
from ikeway.host.namespaces import Namespace, Port, connect
from ikeway.host.tun import TunDevice, open_tun

MTU = 1400
OUTER, INNER = ("10.77.0.1", "10.77.0.2"), ("10.78.0.1", "10.78.0.2")
_NETWORKS = ((f"{INNER[0]}/32",), (f"{INNER[1]}/32",))


@dataclass(frozen=True)
class Way:
    """A way between two hosts: their namespaces, their addresses on it, and the processes that carry its packets."""

    name: str
    ends: tuple[Namespace, Namespace]
    addresses: tuple[str, str]
    processes: tuple[int, ...] = ()

    def cpu_seconds(self) -> float:
        """User and system time of these processes so far."""
        return sum(map(_cpu_seconds, self.processes))


@contextlib.asynccontextmanager
async def cable() -> AsyncIterator[Way]:
    """A veth pair: no tunnel at all."""
    with _two_hosts() as ends:
        yield Way("no tunnel", ends, OUTER)


@contextlib.asynccontextmanager
async def tunnel(suite: str) -> AsyncIterator[Way]:
    """Our data plane with this ESP suite, in UDP; the SAs are those of a handshake in memory."""
    with _two_hosts() as ends:
        planes = [_plane(end, number) for number, end in enumerate(ends)]
        try:
            for plane in planes:
                await plane.start(lambda event: None)
            pair = Pair(suite, _NETWORKS)
            pair.connect(Address(OUTER[0], 4500), Address(OUTER[1], 4500))
            for plane, side in zip(planes, pair.sides, strict=True):
                for esp in side.inbound:
                    await plane.add_inbound(esp)
            for plane, side in zip(planes, pair.sides, strict=True):
                for esp in side.outbound:
                    await plane.add_outbound(esp)
            yield Way(suite, ends, INNER, tuple(plane.pid for plane in planes if plane.pid is not None))
        finally:
            for plane in planes:
                await plane.stop()


@contextlib.contextmanager
def _two_hosts() -> Iterator[tuple[Namespace, Namespace]]:
    with Namespace("left") as left, Namespace("right") as right:
        connect(Port(left, "wan", (f"{OUTER[0]}/24",)), Port(right, "wan", (f"{OUTER[1]}/24",)))
        yield left, right


def _plane(host: Namespace, number: int) -> UserspaceDataPlane:
    def make() -> UserspaceDataPlane:
        tun = open_tun("ikeway%d")
        _configure(tun, number)
        return UserspaceDataPlane(tun, [open_udp(Address("0.0.0.0", 4500))], mtu=MTU)  # noqa: S104

    return host.call(make)


def _configure(tun: TunDevice, number: int) -> None:
    with Netlink() as nl:
        set_link(nl, tun.name, up=True, mtu=MTU)
        add_address(nl, tun.name, ip_interface(f"{INNER[number]}/24"), prefix_route=True)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

"""Ways from one namespace to the other that are measured beside each other: plain veth, our data plane, strongSwan's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tests.dataplane.namespaces import two_namespaces
from tests.dataplane.tunnels import connect, two_sides
from tests.esp.material import transforms

from bench.strongswan import libipsec_pair
from ikeway.esp.parameters import Encapsulation


@dataclass(frozen=True)
class Contestant:
    """Two ends: namespaces and inner addresses. `processes` carry the packets; none where the kernel does."""

    name: str
    ends: tuple[str, str]
    addresses: tuple[str, str]
    processes: tuple[int, ...] = ()

    def cpu_seconds(self) -> float:
        """User and system time of the processes so far."""
        return sum(map(cpu_seconds, self.processes))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with its threads."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def veth() -> AsyncIterator[Contestant]:
    """No tunnel at all."""
    with two_namespaces("ikb0") as (left, right):
        yield Contestant("plain veth", (left, right), ("10.77.0.1", "10.77.0.2"))


@contextlib.asynccontextmanager
async def ikeway(number: int, suite: str, *, vnet_header: bool = True, raw: bool = False) -> AsyncIterator[Contestant]:
    """Our data plane, keys known to both sides, no IKE. `raw`: IP protocol 50 instead of UDP."""
    async with two_sides(f"ikb{number}", vnet_header=vnet_header) as (left, right):
        encapsulation = Encapsulation.ESP if raw else Encapsulation.UDP
        await connect(left, right, transforms=transforms(suite), encapsulation=encapsulation)
        pids = tuple(pid for pid in (left.plane.pid, right.plane.pid) if pid)
        name = f"ikeway {suite}" + ("" if vnet_header else " (no offload)") + (" (protocol 50)" if raw else "")
        yield Contestant(name, (left.namespace, right.namespace), (left.inner, right.inner), pids)


@contextlib.asynccontextmanager
async def libipsec(suite: str, number: int = 0) -> AsyncIterator[Contestant]:
    """strongSwan with ESP in userspace."""
    async with libipsec_pair(suite, f"ikbsw{number}") as pair:
        ends, addresses = (pair.client, pair.server), (pair.client_inner, pair.server_inner)
        yield Contestant(f"libipsec {suite}", ends, addresses, pair.processes)

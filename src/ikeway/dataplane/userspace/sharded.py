"""Several workers that share nothing: each has a device, sockets and SAs of its own, on a core of its own.

An SA belongs to the worker whose number stands in the low bits of its inbound SPI (see `steering`); what we send on
follows what we receive on. So data never crosses from one worker to another, and the death of one is nothing to the
others. Whoever chooses SPIs and inner addresses sees to it that they lead to the same worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from ikeway.address import Address
from ikeway.dataplane.interface import Counters, DataPlaneEvent
from ikeway.dataplane.userspace.messages import PathNarrowed
from ikeway.dataplane.userspace.plane import PlaneEvent, UserspaceDataPlane
from ikeway.dataplane.userspace.steering import worker_of
from ikeway.errors import HostError
from ikeway.esp.parameters import EspSa
from ikeway.host.tun import TunDevice


class WorkerState(NamedTuple):
    """What there is to tell of a worker. `pid` None: it does not run just now."""

    number: int
    pid: int | None
    interface: str
    sas: int
    restarts: int


class ShardedDataPlane:
    """One worker or more (`ikeway.dataplane.interface.DataPlane`). Their numbers are their places in `planes`."""

    def __init__(self, planes: Sequence[UserspaceDataPlane]) -> None:
        self._planes = tuple(planes)
        self._on_event: Callable[[DataPlaneEvent], None] = _ignore

    @property
    def workers(self) -> tuple[WorkerState, ...]:
        """How each of them is."""
        return tuple(
            WorkerState(number, each.pid, each.tun.name, each.sas, each.restarts)
            for number, each in enumerate(self._planes)
        )

    async def start(self, on_event: Callable[[DataPlaneEvent], None]) -> None:
        """Start all workers. Events are delivered on the running event loop."""
        self._on_event = on_event
        await self._each(lambda plane: plane.start(self._take_event))

    async def restart(self, worker: int, tun: TunDevice | None = None) -> None:
        """Start a worker anew after its `DataPlaneDied`, on another device if there has to be one."""
        await self._planes[worker].restart(tun)

    def let_go_of_device(self, worker: int) -> None:
        """Hold the device of a worker no more that was given up; see `UserspaceDataPlane`."""
        self._planes[worker].let_go_of_device()

    async def stop(self) -> None:
        """End all workers, close their devices and sockets. Idempotent."""
        await self._each(lambda plane: plane.stop())

    async def add_inbound(self, sa: EspSa) -> None:
        """Begin to accept ESP on `sa.spi`."""
        await self._of_spi(sa.spi).add_inbound(sa)

    async def add_outbound(self, sa: EspSa) -> None:
        """Begin to send on `sa`, where its connection receives."""
        holders = [plane for plane in self._planes if plane.holds_connection(sa.connection_id)]
        if not holders:
            raise HostError("the data plane receives nothing on the connection that this SA belongs to")
        await holders[0].add_outbound(sa)

    async def remove_inbound(self, spi: int) -> None:
        """Stop accepting ESP on `spi`. Unknown: no error."""
        await self._of_spi(spi).remove_inbound(spi)

    async def remove_outbound(self, spi: int, remote: Address) -> None:
        """Stop sending on `spi`. Unknown: no error."""
        plane = max(self._planes, key=lambda each: each.holds_outbound(spi, remote))
        if plane.holds_outbound(spi, remote):
            await plane.remove_outbound(spi, remote)

    async def move(self, connection_id: int, local: Address, remote: Address, udp: bool) -> None:
        """Give all SAs of a connection new outer addresses, and UDP encapsulation or none."""
        for plane in self._planes:
            if plane.holds_connection(connection_id):
                await plane.move(connection_id, local, remote, udp)

    async def set_mtu(self, mtu: int) -> None:
        """Say that the TUN devices have another MTU."""
        await self._each(lambda plane: plane.set_mtu(mtu))

    def learn_mtu(self, host: str, mtu: int) -> None:
        """Say that a router on the way to `host` passes only so much."""
        for plane in self._planes:
            plane.learn_mtu(host, mtu)

    async def counters(self) -> dict[tuple[int, bool], Counters]:
        """Counters of all SAs by (spi, inbound), and under (0, True)/(0, False) what belongs to no SA. Of a worker that
        was given up there is nothing to tell; raises `HostError` when none is left."""
        found = await asyncio.gather(*(plane.counters() for plane in self._planes), return_exceptions=True)
        result: dict[tuple[int, bool], Counters] = {}
        refusals = []
        for each in found:
            if isinstance(each, HostError):
                refusals.append(each)
            elif isinstance(each, BaseException):
                raise each
            else:
                for key, counters in each.items():
                    result.setdefault(key, Counters()).add(counters)
        if len(refusals) == len(found):
            raise refusals[0]
        return result

    def _of_spi(self, spi: int) -> UserspaceDataPlane:
        return self._planes[worker_of(spi, len(self._planes))]

    async def _each(self, call: Callable[[UserspaceDataPlane], Coroutine[Any, Any, None]]) -> None:
        """When one fails the others are waited for all the same: nothing goes on behind the caller's back."""
        outcomes = await asyncio.gather(*(call(plane) for plane in self._planes), return_exceptions=True)
        for each in outcomes:
            if isinstance(each, BaseException):
                raise each

    def _take_event(self, event: PlaneEvent) -> None:
        if not isinstance(event, PathNarrowed):
            self._on_event(event)
        elif len(self._planes) > 1:
            # The kernel gives an ICMP error to any member of a group of sockets, whoever sent the packet.
            self.learn_mtu(event.host, event.mtu)


def _ignore(event: DataPlaneEvent) -> None:
    """Nobody listens yet."""

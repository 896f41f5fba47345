"""One engine with all that it needs around it: sockets, TUN device, data plane, driver. Opened and closed together.

The client and the gateway each run one. The sockets and the TUN device outlive the workers of the data plane, so that
ports, routes and addresses stay where they are. A worker that dies is the data plane's own affair; only when it is given
up (`on_dataplane_died`) are its SAs gone, and somebody has to close what used them and call `restart_dataplane`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ikeway.address import Address
from ikeway.daemon import clock
from ikeway.daemon.loop import Driver
from ikeway.daemon.overflow import device_overflow, socket_overflow
from ikeway.daemon.sockets import IKE_PORT, NON_ESP_MARKER, IkeSockets, Listen
from ikeway.daemon.status import WorkerStatus
from ikeway.dataplane.choice import DataPlaneKind, choose
from ikeway.dataplane.interface import (
    Counters,
    DataPlaneDied,
    DataPlaneEvent,
    HardExpired,
    IkeReceived,
    PeerMoved,
    SaEnded,
    SoftExpired,
    UnknownSpi,
    Unreachable,
)
from ikeway.dataplane.kernel.plane import KernelDataPlane
from ikeway.dataplane.kernel.support import KernelSupport
from ikeway.dataplane.userspace.launch import Launched
from ikeway.dataplane.userspace.plane import UserspaceDataPlane
from ikeway.dataplane.userspace.sharded import ShardedDataPlane
from ikeway.dataplane.userspace.steering import open_raw, spi_mask
from ikeway.errors import HostError
from ikeway.esp.drops import Drop
from ikeway.host.tun import TunDevice, open_tun
from ikeway.ike import events as ike
from ikeway.ike.child import ChildSa
from ikeway.ike.engine import Engine
from ikeway.ike.settings import EngineSettings, ResponderSettings

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa

log = logging.getLogger("ikeway.daemon")

_TRAFFIC_SECONDS = 10.0
FIRST_MTU = 1400  # until it is known what fits

OpenDevice = Callable[[str], Awaitable[TunDevice]]  # gets the wanted name


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """`interface` is the TUN device's name, `%d` in it stands for a free number. `esp_protocol`: also carry ESP as IP
    protocol 50, where this process may. `responder`: answer IKE_SA_INIT requests. `data_plane`: who carries ESP.
    `workers`: in userspace, so many share it; `steer` says which of them (0 and on) serves the child SAs of an IKE SA,
    always the same one for a connection."""

    listen: Listen = field(default_factory=Listen)
    interface: str = "ikeway%d"
    esp_protocol: bool = True
    responder: ResponderSettings | None = None
    data_plane: DataPlaneKind = "userspace"
    workers: int = 1
    steer: Callable[[IkeSa], int] = lambda sa: 0


class Runner:
    """See the module. Made and used on one running event loop."""

    def __init__(
        self, settings: RunnerSettings, open_device: OpenDevice | None = None, launched: Launched | None = None
    ) -> None:
        """Nothing is opened before `start`. `open_device` makes the TUN device somewhere else than here (an enclave).
        `launched` is a worker that was started ahead."""
        self.settings = settings
        self._launched = launched
        self._open_device = open_device
        self.sockets = IkeSockets(settings.listen)
        self.on_dataplane_died: Callable[[DataPlaneDied], None] | None = None
        self.on_sa_ended: Callable[[SaEnded], None] | None = None
        self.unknown_spis = 0
        self._tuns: list[TunDevice] = []
        self._bare: set[int] = set()  # workers whose device was made anew, and nobody has heard of it yet
        self._esp: list[tuple[socket.socket, ...]] = []  # for each address, those of the workers
        self._dataplane: ShardedDataPlane | KernelDataPlane | None = None
        self._driver: Driver | None = None
        self._engine: Engine | None = None
        self._mtu = FIRST_MTU
        self._inbound: dict[int, ChildSa] = {}
        self._outbound: dict[int, list[ChildSa]] = {}
        self._traffic: asyncio.Task[None] | None = None

    @property
    def driver(self) -> Driver:
        """The driver; only while started."""
        assert self._driver is not None, "not started"
        return self._driver

    @property
    def engine(self) -> Engine:
        """The engine; only while started."""
        assert self._engine is not None, "not started"
        return self._engine

    @property
    def dataplane(self) -> ShardedDataPlane | KernelDataPlane:
        """The data plane of now; only while started."""
        assert self._dataplane is not None, "not started"
        return self._dataplane

    @property
    def is_started(self) -> bool:
        """True from a successful `start` on."""
        return self._driver is not None

    @property
    def carries_esp_protocol(self) -> bool:
        """True when ESP can travel without UDP; False before `start`, and where this process may not have it."""
        return bool(self._esp) or (self.in_kernel and self.settings.esp_protocol)

    @property
    def in_kernel(self) -> bool:
        """True when the kernel carries ESP."""
        return isinstance(self._dataplane, KernelDataPlane)

    @property
    def mark(self) -> int:
        """The firewall mark of ESP that the kernel sends for us; 0 when that has none."""
        return self._dataplane.mark if isinstance(self._dataplane, KernelDataPlane) else 0

    @property
    def workers(self) -> int:
        """How many processes carry ESP; 0 when the kernel does."""
        return 0 if self.in_kernel else self.settings.workers

    @property
    def interface(self) -> str:
        """The name that the tunnel interface got; that of the first worker where there are several."""
        return self.interfaces[0]

    @property
    def interfaces(self) -> tuple[str, ...]:
        """The names of the tunnel interfaces, in the order of the workers."""
        if isinstance(self._dataplane, KernelDataPlane):
            return (self._dataplane.interface,)
        assert self._tuns, "not started"
        return tuple(tun.name for tun in self._tuns)

    async def start(self) -> None:
        """Open everything. Raises HostError, and leaves nothing open then."""
        try:
            # What happens in an enclave is none of this namespace's kernel's business.
            support = choose(self.settings.data_plane) if self._open_device is None else None
            if support is not None:
                if self._launched is not None:
                    self._launched.discard()
                self.sockets.open()
                self._dataplane = await self._new_kernel_dataplane(support)
            else:
                self.sockets.open(self.settings.workers)
                self._open_esp()
                for number in range(self.settings.workers):
                    self._tuns.append(await self._make_device(number))
                self._dataplane = await self._new_dataplane()
        except BaseException:
            await self.stop()
            raise
        self._engine = Engine(
            EngineSettings(
                responder=self.responder(self.settings.responder),
                epoch=clock.epoch(),
                local_nat_port=self.sockets.nat_sockets[0].port,
                steer=self._steer,
            )
        )
        self._driver = Driver(self._engine, self.sockets, self._dataplane)
        self._driver.listen(self._on_event)
        self._traffic = asyncio.create_task(self._tell_of_traffic())
        self.sockets.on_datagram = self._driver.receive
        if isinstance(self._dataplane, ShardedDataPlane):
            self.sockets.on_path_mtu = self._dataplane.learn_mtu
        self.sockets.start(nat_too=self.workers != 1)

    async def restart_dataplane(self, worker: int = 0) -> bool:
        """Start a new worker in place of one that was given up. Its SAs must have been closed. Raises HostError.

        True when the TUN device had to be made anew, as somebody has removed it: without addresses and routes then.
        """
        if isinstance(self._dataplane, KernelDataPlane):
            await self._dataplane.restart()
            return True
        assert self._dataplane is not None
        tun = self._tuns[worker]
        # Of a device that is elsewhere we cannot know: made anew, it is there in any case.
        there = {name for _, name in socket.if_nameindex()}
        missing = self._open_device is not None or tun.fd < 0 or tun.name not in there
        if missing:
            self._dataplane.let_go_of_device(worker)
            tun.close()
            tun = self._tuns[worker] = await self._make_device(worker)
            self._bare.add(worker)
        await self._dataplane.restart(worker, _duplicate(tun) if missing else None)
        self.sockets.start(nat_too=self.workers != 1)
        is_new = worker in self._bare
        self._bare.discard(worker)
        return is_new

    def responder(self, wanted: ResponderSettings | None) -> ResponderSettings | None:
        """What `wanted` comes to here: where ESP cannot travel as such, it has to go in UDP."""
        if wanted is None or self.carries_esp_protocol:
            return wanted
        return dataclasses.replace(wanted, force_udp_encapsulation=True)

    async def set_mtu(self, mtu: int) -> None:
        """The TUN device has another MTU now."""
        self._mtu = mtu
        await self.dataplane.set_mtu(mtu)

    async def counters(self) -> dict[tuple[int, bool], Counters]:
        """The counters of all SAs, and of what belongs to none; nothing while there is no data plane."""
        try:
            found = await self.dataplane.counters()
        except HostError:
            return {}
        if not self.in_kernel:
            sockets = [sock for each in self.sockets.nat_sockets for sock in (each.socket, *each.members)]
            sockets += [sock for several in self._esp for sock in several]
            _count(found, True, Drop.RECEIVE_QUEUE, socket_overflow(sockets))
            _count(found, False, Drop.DEVICE_QUEUE, device_overflow(self.interfaces))
        return found

    def totals(self) -> dict[str, int]:
        """What became of datagrams that belong to no SA, by name."""
        sockets = self.sockets.counters
        return {
            "received": sockets.received,
            "sent": sockets.sent,
            "lost": sockets.lost,
            "unknown_esp_spi": self.unknown_spis,
            **{f"dropped_{reason.replace(' ', '_')}": count for reason, count in sockets.dropped.items()},
            **dataclasses.asdict(self.engine.counters),
        }

    def worker_states(self) -> tuple[WorkerStatus, ...]:
        """How the workers are; none when the kernel carries ESP."""
        if not isinstance(self._dataplane, ShardedDataPlane):
            return ()
        return tuple(WorkerStatus(**each._asdict()) for each in self._dataplane.workers)

    async def stop(self) -> None:
        """Close everything, whatever state it is in. SAs should have been closed before. Idempotent."""
        if self._traffic is not None:
            self._traffic.cancel()
        if self._driver is not None:
            await self._driver.stop()
        if self._dataplane is not None:
            await self._dataplane.stop()
        self.sockets.close()
        for each in (sock for several in self._esp for sock in several):
            each.close()
        self._esp.clear()
        for tun in self._tuns:
            tun.close()

    def _steer(self, sa: IkeSa) -> tuple[int, int]:
        """The low bits of an SPI are the number of its worker."""
        return (spi_mask(self.workers), self.settings.steer(sa)) if self.workers > 1 else (0, 0)

    def _open_esp(self) -> None:
        """Raw sockets for ESP without UDP. A process that may not have them still works where there is UDP."""
        if not self.settings.esp_protocol:
            return
        for host in dict.fromkeys(each.host for each in self.sockets.nat_sockets):
            try:
                self._esp.append(open_raw(host, self.settings.workers))
            except HostError as error:
                log.info("ESP travels in UDP only: %s", error.reason)
                return

    async def _make_device(self, worker: int = 0) -> TunDevice:
        wish = self.settings.interface
        if self._open_device is not None:
            return await self._open_device(wish)
        return open_tun(wish if "%d" in wish or not worker else f"{wish}-{worker}")

    async def _new_dataplane(self) -> ShardedDataPlane:
        """Workers on duplicates of our descriptors, which they close at their end."""
        dataplane = ShardedDataPlane(
            [
                UserspaceDataPlane(
                    _duplicate(tun),
                    [each.of_worker(number).dup() for each in self.sockets.nat_sockets],
                    esp=[each[number].dup() for each in self._esp],
                    mtu=self._mtu,
                    number=number,
                    launched=self._launched if number == 0 else None,
                )
                for number, tun in enumerate(self._tuns)
            ]
        )
        try:
            await dataplane.start(lambda event: self._on_dataplane_event(dataplane, event))
        except BaseException:
            await dataplane.stop()
            raise
        return dataplane

    async def _new_kernel_dataplane(self, support: KernelSupport) -> KernelDataPlane:
        dataplane = KernelDataPlane(
            self.settings.interface,
            [each.socket for each in self.sockets.sockets],
            [each.socket for each in self.sockets.nat_sockets],
            interface=support.interface,
        )
        await dataplane.start(lambda event: self._on_dataplane_event(dataplane, event))
        log.info("The kernel carries ESP, %s", "on an xfrm interface" if support.interface else "for the whole host")
        return dataplane

    def _on_dataplane_event(self, source: ShardedDataPlane | KernelDataPlane, event: DataPlaneEvent) -> None:
        if source is not self._dataplane or self._driver is None:
            return
        match event:
            case IkeReceived(octets=octets, local=local, remote=remote):
                self.sockets.counters.received += 1
                if self.sockets.tap:
                    self.sockets.tap(NON_ESP_MARKER + octets, local, remote, False)
                self._driver.receive(octets, local, remote)
            case SoftExpired(spi=spi, inbound=inbound):
                for child in self._children(spi, inbound):
                    self._driver.command(functools.partial(child.sa.rekey_child, child))
            case HardExpired(spi=spi, inbound=inbound):
                for child in self._children(spi, inbound):
                    self._driver.command(functools.partial(child.sa.expire_child, child))
            case PeerMoved(spi=spi, remote=remote):
                for child in self._children(spi, True):
                    self._driver.command(functools.partial(child.sa.peer_moved, remote))
            case UnknownSpi():
                self.unknown_spis += 1
            case SaEnded():
                if self.on_sa_ended:
                    self.on_sa_ended(event)
            case Unreachable(remote=remote, code=code):
                if self.sockets.on_unreachable:
                    self.sockets.on_unreachable(remote, code)
            case DataPlaneDied(reason=reason):
                log.error("The data plane died: %s", reason)
                self.sockets.start()  # until there is a new worker, IKE on the shared sockets is ours to read
                if self.on_dataplane_died:
                    self.on_dataplane_died(event)

    def _on_event(self, event: ike.Event) -> None:
        """Remember which child SA an SPI belongs to: the data plane knows no more than that."""
        match event:
            case ike.InboundAdded(esp=esp, child=child):
                self._inbound[esp.spi] = child
            case ike.InboundRemoved(spi=spi):
                self._inbound.pop(spi, None)
            case ike.OutboundAdded(esp=esp, child=child):
                self._outbound.setdefault(esp.spi, []).append(child)
            case ike.OutboundRemoved(spi=spi, child=child):
                if left := [each for each in self._outbound.pop(spi, []) if each is not child]:
                    self._outbound[spi] = left

    def _children(self, spi: int, inbound: bool) -> list[ChildSa]:
        """Two peers may have chosen the same SPI for what we send; then both rekey, which harms nothing."""
        if inbound:
            return [self._inbound[spi]] if spi in self._inbound else []
        return list(self._outbound.get(spi, ()))

    async def _tell_of_traffic(self) -> None:
        """Authentic ESP shows that a peer lives: without this, the engine would keep asking (RFC 7296 section 2.4).
        Asking the data plane also finds out whether it hangs."""
        while True:
            await asyncio.sleep(_TRAFFIC_SECONDS)
            for (spi, inbound), counters in (await self.counters()).items():
                if inbound and counters.last_used and spi in self._inbound:
                    self._inbound[spi].sa.traffic_seen(counters.last_used)


def _count(counters: dict[tuple[int, bool], Counters], inbound: bool, reason: Drop, count: int) -> None:
    if count:
        counters.setdefault((0, inbound), Counters()).dropped[reason] = count


def _duplicate(tun: TunDevice) -> TunDevice:
    return dataclasses.replace(tun, fd=os.dup(tun.fd))


def local_path(runner: Runner, local: str, remote: Address) -> Address:
    """The full local address to begin a connection from: port 500, or 4500 towards a peer at another port, where IKE
    and ESP share one from the beginning."""
    return Address(local, runner.sockets.local_port(local, nat=remote.port != IKE_PORT))

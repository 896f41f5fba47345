"""The daemon's side of the userspace data plane: keeps a worker going, and sends IKE beside it.

The device, the sockets and the ledger are this process's. A worker that dies is started again on the same descriptors
and goes on with the same SAs, so that neither a route nor a port nor a log-in is lost with it: what arrives meanwhile
waits in the buffers of the kernel. A worker that dies again and again, or says itself that it cannot work, is given up.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ikeway import native
from ikeway.address import Address
from ikeway.dataplane.interface import Counters, DataPlaneDied, DataPlaneEvent, DataPlaneRestarted
from ikeway.dataplane.userspace.book import Book, Installed
from ikeway.dataplane.userspace.launch import Launched
from ikeway.dataplane.userspace.ledger import Ledger
from ikeway.dataplane.userspace.messages import (
    Begin,
    Configure,
    CounterEntry,
    LearnMtu,
    Move,
    PathNarrowed,
    ReadCounters,
    RemoveInbound,
    RemoveOutbound,
    Request,
    SetMtu,
    SocketRole,
)
from ikeway.dataplane.userspace.process import START_PATIENCE, End, WorkerGone, WorkerProcess
from ikeway.dataplane.userspace.sockets import NON_ESP_MARKER, accept_merged, is_unspecified, send_datagram
from ikeway.errors import HostError
from ikeway.esp.parameters import EspSa
from ikeway.host.tun import TunDevice
from ikeway.lasting import Lasting

log = logging.getLogger("ikeway.dataplane")

_KEEPALIVE = b"\xff"
_MOST_DEATHS = 5
_DEATHS_SECONDS = 60.0
_AT_ONCE = 64  # requests on their way to a new worker

PlaneEvent = DataPlaneEvent | PathNarrowed


class UserspaceDataPlane:
    """ESP in a worker process (`ikeway.dataplane.interface.DataPlane`); `sharded` joins several to one.

    It owns the TUN device and the sockets from now on: `stop` closes them. Of the sockets the worker reads and this
    process only sends: `send_ike` and `send_keepalive` use them as well, so IKE and ESP leave from the same port as
    NAT traversal needs. IKE messages that arrive there come back as `IkeReceived` events.

    Open sockets with `sockets.open_udp` and `sockets.open_esp` (IPv4 and IPv6 each, as needed). `mtu` is the TUN
    device's, which TCP's MSS is clamped to. `number` stands in events of what becomes of the worker.

    After `DataPlaneDied`, `restart` makes a new beginning, without any SA.
    """

    def __init__(
        self,
        tun: TunDevice,
        udp: Sequence[socket.socket],
        *,
        esp: Sequence[socket.socket] = (),
        mtu: int = 1400,
        clamp_mss: bool = True,
        number: int = 0,
        launched: Launched | None = None,
    ) -> None:
        """`launched` is a worker that was started ahead, to be the first one."""
        self.number = number
        self.restarts = 0
        self._tun = tun
        self._udp = tuple(udp)
        self._esp = tuple(esp)
        self._mtu = mtu
        self._clamp_mss = clamp_mss
        self._on_event: Callable[[PlaneEvent], None] = _ignore
        self._ledger = Ledger()
        self._book = Book(self._ledger)
        self._unclaimed: dict[bool, Counters] = {True: Counters(), False: Counters()}  # of workers that are dead
        self._unclaimed_now: tuple[CounterEntry, ...] = ()  # of the worker of now, as last read
        self._launched = launched
        self._process: WorkerProcess | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._deaths: deque[float] = deque()
        # What the engine has done already is done here too, also when nobody waits for it any longer, as a busy host takes
        # its time to start another worker: else an SA that is gone would stay for ever, or one that has moved where it was.
        self._lasting = Lasting()

    @property
    def pid(self) -> int | None:
        """The worker's process id while it runs."""
        return self._process.pid if self._process is not None else None

    @property
    def tun(self) -> TunDevice:
        """The device."""
        return self._tun

    @property
    def sas(self) -> int:
        """How many SAs are installed, inbound and outbound."""
        return len(self._book)

    async def start(self, on_event: Callable[[PlaneEvent], None]) -> None:
        """Start the worker. Events are delivered on the running event loop."""
        self._on_event = on_event
        core = native.status()
        log.debug("ESP in userspace goes %s: %s", "by the native core" if core.used else "in Python", core.detail)
        self._process = await self._launch()

    async def restart(self, tun: TunDevice | None = None) -> None:
        """Start anew after `DataPlaneDied`, on another device if there has to be one. Raises `HostError`."""
        await self._end_worker()  # of an earlier try, after which something else has failed
        if tun is not None:
            self._tun.close()
            self._tun = tun
        self._deaths.clear()
        self._process = await self._launch()

    def let_go_of_device(self) -> None:
        """Hold the device no more, as there is no worker: its name is free when nobody does. `restart` brings another."""
        self._tun.close()

    async def stop(self) -> None:
        """End the worker, close the device and the sockets. Idempotent."""
        await self._end_worker()
        await self._lasting.settle()
        if self._launched is not None:
            self._launched.discard()
        for sock in (*self._udp, *self._esp):
            sock.close()
        self._tun.close()
        self._ledger.close()

    async def add_inbound(self, sa: EspSa) -> None:
        """Begin to accept ESP on `sa.spi`."""
        await self._add(lambda: self._book.add_inbound(sa))

    async def add_outbound(self, sa: EspSa) -> None:
        """Begin to send on `sa`, in preference to older ones of the same `child_id`."""
        await self._add(lambda: self._book.add_outbound(sa))

    async def remove_inbound(self, spi: int) -> None:
        """Stop accepting ESP on `spi`. Unknown: no error."""
        await self._lasting.carry_out(
            self._remove(lambda: self._book.take_inbound(spi), lambda number: RemoveInbound(number, spi))
        )

    async def remove_outbound(self, spi: int, remote: Address) -> None:
        """Stop sending on `spi`. Unknown: no error."""
        await self._lasting.carry_out(
            self._remove(
                lambda: self._book.take_outbound(spi, remote), lambda number: RemoveOutbound(number, spi, remote)
            )
        )

    async def move(self, connection_id: int, local: Address, remote: Address, udp: bool) -> None:
        """Give all SAs of a connection new outer addresses, and UDP encapsulation or none."""
        await self._lasting.carry_out(self._move(connection_id, local, remote, udp))

    async def _move(self, connection_id: int, local: Address, remote: Address, udp: bool) -> None:
        process = await self._running()
        before = self._book.move(connection_id, local, remote, udp)
        try:
            await self._told(process, lambda number: Move(number, connection_id, local, remote, udp))
        except HostError:
            self._book.move_back(before)
            raise

    async def set_mtu(self, mtu: int) -> None:
        """Say that the TUN device has another MTU."""
        self._mtu = mtu
        if self._process is None and (self._recovery is None or self._recovery.done()):
            return  # the next worker begins with it
        process = await self._running()
        await self._told(process, lambda number: SetMtu(number, self._mtu))

    def learn_mtu(self, host: str, mtu: int) -> None:
        """Say that a router on the way to `host` passes only so much."""
        if self._process is not None:
            self._process.tell(LearnMtu(0, host, mtu))

    async def counters(self) -> dict[tuple[int, bool], Counters]:
        """Counters of all SAs by (spi, inbound), and under (0, True)/(0, False) what belongs to no SA.

        Two peers may have chosen the same SPI; then their outbound SAs are summed.
        """
        while True:
            process = await self._running()
            try:
                entries = await process.request(ReadCounters)
                break
            except WorkerGone:
                await self._another(process)
        assert isinstance(entries, tuple)
        self._book.note(entries)
        self._unclaimed_now = tuple(entry for entry in entries if not entry.spi)
        return self._sum(entries)

    def holds_connection(self, connection_id: int) -> bool:
        """True when there is an SA of this connection."""
        return self._book.holds_connection(connection_id)

    def holds_outbound(self, spi: int, remote: Address) -> int:
        """2: there is an SA with this SPI to that address; 1: to that host (the port may have changed); 0: none."""
        return self._book.holds_outbound(spi, remote)

    def send_ike(self, octets: bytes, local: Address, remote: Address) -> bool:
        """Send an IKE message with the non-ESP marker in front (RFC 3948 section 2.2).

        False when no socket fits or the host did not take it; IKE retransmits.
        """
        return self._send(NON_ESP_MARKER + octets, local, remote)

    def send_keepalive(self, local: Address, remote: Address) -> bool:
        """Send a NAT keep-alive (RFC 3948 section 2.3)."""
        return self._send(_KEEPALIVE, local, remote)

    def _send(self, octets: bytes, local: Address, remote: Address) -> bool:
        for sock in self._udp:
            if sock.fileno() < 0 or (sock.family == socket.AF_INET6) != remote.is_ipv6:
                continue
            host, port = sock.getsockname()[:2]
            if (is_unspecified(host) or host == local.host) and local.port in (0, port):
                return send_datagram(sock, octets, local, remote)
        return False

    # -- requests. The book is changed when the worker of now is about to be told; when it dies before it answers, the
    # -- next one begins with what the book says.

    async def _add(self, note: Callable[[], Installed]) -> None:
        process = await self._running()
        installed = note()
        try:
            await self._told(process, installed.added_by)
        except WorkerGone:  # given up, and the book forgotten
            raise
        except HostError:
            self._book.take(installed)
            self._book.free((installed,))
            raise

    async def _remove(self, note: Callable[[], list[Installed]], make: Callable[[int], Request]) -> None:
        process = await self._running()
        gone = note()
        await self._told(process, make)
        for each in gone:
            self._on_event(self._book.last_words(each))
        self._book.free(gone)

    async def _told(self, process: WorkerProcess, make: Callable[[int], Request]) -> None:
        try:
            await process.request(make)
        except WorkerGone:
            await self._another(process)

    async def _running(self) -> WorkerProcess:
        """The worker; waits for one that is being started. Raises `HostError` when there is none to come."""
        if self._process is None and self._recovery is not None:
            await asyncio.wait({self._recovery})
        if self._process is None:
            raise WorkerGone("the data plane does not run")
        return self._process

    async def _another(self, process: WorkerProcess) -> None:
        """Wait until this worker, which is dead or was killed, has a successor. Raises `HostError`."""
        await process.ended.wait()
        await self._running()

    # -- the worker's life

    async def _end_worker(self) -> None:
        recovery, self._recovery = self._recovery, None
        if recovery is not None:
            recovery.cancel()
            await asyncio.gather(recovery, return_exceptions=True)
        process, self._process = self._process, None
        if process is not None:
            await process.stop()

    async def _launch(self) -> WorkerProcess:
        """A worker that holds all that the book says. Raises `HostError`; no worker is left then."""
        sockets = [(s, raw) for group, raw in ((self._udp, False), (self._esp, True)) for s in group]
        descriptors = (self._tun.fd, self._ledger.fd, *(sock.fileno() for sock, _ in sockets))
        launched, self._launched = self._launched, None
        process = WorkerProcess(self._on_event, lambda end: self._on_end(process, end), launched)
        configure = Configure(
            0,
            self._tun.fd,
            self._tun.vnet_header,
            self._mtu,
            self._clamp_mss,
            self._ledger.fd,
            tuple(SocketRole(sock.fileno(), sock.family == socket.AF_INET6, raw) for sock, raw in sockets),
        )
        try:
            await process.request(lambda number: replace(configure, request=number), descriptors, START_PATIENCE)
            await self._install_all(process)
            await process.request(Begin)
            if process.ended.is_set():  # after its answer; nobody was told, as it was not the worker yet
                raise WorkerGone("the data plane ended as soon as it had begun")
        except BaseException:
            await process.stop()
            raise
        return process

    async def _install_all(self, process: WorkerProcess) -> None:
        """In their order: what is asked first is sent first."""
        waiting = iter(list(self._book))

        async def install() -> None:
            for each in waiting:
                await process.request(each.added_by)

        await asyncio.gather(*(install() for _ in range(_AT_ONCE)))

    def _on_end(self, process: WorkerProcess, end: End) -> None:
        if process is self._process:
            self._process = None
            self._recovery = asyncio.get_running_loop().create_task(self._recover(end))

    async def _recover(self, end: End) -> None:
        """Start another worker in place of one that died."""
        now = asyncio.get_running_loop().time
        first = end.reason
        while True:
            self._deaths.append(now())
            while self._deaths[0] < now() - _DEATHS_SECONDS:
                self._deaths.popleft()
            if end.refused:
                return self._give_up(end.reason)
            if len(self._deaths) >= _MOST_DEATHS:
                reason = f"{end.reason}; it died {len(self._deaths)} times within a minute"
                return self._give_up(reason, repeatedly=True)
            self._keep_counting()
            try:
                self._process = await self._launch()
            except HostError as error:
                end = End(error.reason, False)
                continue
            self.restarts += 1
            log.warning("The data plane was started again (%d SAs): %s", len(self._book), first)
            return self._on_event(DataPlaneRestarted(first, self.number))

    def _give_up(self, reason: str, *, repeatedly: bool = False) -> None:
        self._book.clear()
        for sock in self._udp:  # the worker wanted several datagrams at once; nobody else does
            accept_merged(sock, False)
        self._on_event(DataPlaneDied(reason, self.number, repeatedly))

    def _keep_counting(self) -> None:
        """Let the next worker's counters go on from those of the dead one."""
        self._book.turn_the_page()
        for entry in self._unclaimed_now:
            _add(self._unclaimed[entry.inbound], entry)
        self._unclaimed_now = ()

    def _sum(self, entries: Iterable[CounterEntry]) -> dict[tuple[int, bool], Counters]:
        result: dict[tuple[int, bool], Counters] = {}
        for inbound, before in self._unclaimed.items():
            result[0, inbound] = Counters(before.packets, before.octets, dict(before.dropped), before.last_used)
        for entry in entries:
            _add(result.setdefault((entry.spi, entry.inbound), Counters()), entry)
        return result


def _add(counters: Counters, entry: CounterEntry) -> None:
    counters.packets += entry.packets
    counters.octets += entry.octets
    counters.last_used = max(counters.last_used, entry.last_used)
    for drop in entry.dropped:
        counters.dropped[drop.reason] = counters.dropped.get(drop.reason, 0) + drop.count


def _ignore(event: PlaneEvent) -> None:
    """Nobody listens yet."""

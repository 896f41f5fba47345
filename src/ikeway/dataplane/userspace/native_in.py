"""From the network to the TUN device by the native core: what `incoming` does, in one call for a batch.

The core reads datagrams, sorts them by SPI and sender, opens them in place, merges what was opened and writes it. What
an SPI means, and which flows an SA may carry, Python decides once and the core remembers (`ikeway.native.flows`).
Whatever is not a plain TCP, UDP or ICMP packet of tunnel mode comes to Python one by one.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from ctypes import addressof, byref, c_char, c_uint16

from ikeway.dataplane.userspace.associations import Associations, Receiving
from ikeway.dataplane.userspace.clamp import clamp_mss
from ikeway.dataplane.userspace.incoming import Delivery, Emit, Incoming
from ikeway.dataplane.userspace.paths import OuterSocket
from ikeway.dataplane.userspace.sockets import Received, host_text
from ikeway.dataplane.userspace.tun_io import TunIo
from ikeway.esp.drops import Drop
from ikeway.esp.inbound import Opened
from ikeway.esp.parameters import Mode
from ikeway.native import Core, layout
from ikeway.native.flows import Flows
from ikeway.native.layout import (
    ALONE,
    DROPPED,
    IN_RUN,
    KEYED,
    OTHER,
    RAW,
    RUN_ESP,
    RUN_IKE,
    SYN,
    Entry,
    Message,
    Run,
    Way,
)

# Room for what the kernel merges, and an offset that keeps the packets of a batch out of each other's cache lines.
_STRIDE = 65536 + 1472
_SLOTS = 64
_MOST_ENTRIES = 2048

# What core.h calls them, from DROPPED on.
_REASONS = (
    Drop.TOO_SHORT,
    Drop.REPLAYED,
    Drop.TOO_OLD,
    Drop.INTEGRITY,
    Drop.PADDING,
    Drop.DUMMY,
    Drop.NEXT_HEADER,
    Drop.MALFORMED,
    Drop.EXPIRED,
    Drop.SELECTORS,
)


class _Inlet:
    """An inbound SA and its way in the core."""

    __slots__ = ("opened", "receiving", "way")

    def __init__(self, receiving: Receiving, way: Way) -> None:
        self.receiving, self.way, self.opened = receiving, way, way.open

    def refresh(self) -> None:
        """Tell the core how far it may go from here."""
        self.receiving.sa.prepare(self.opened)

    def take_over(self, now: float) -> None:
        """Count what the core has opened and dropped."""
        way, sa = self.way, self.receiving.sa
        usage, highest = sa.usage, self.opened.highest
        moved = highest > sa.window.highest
        sa.window.highest = highest
        if moved or way.packets:  # forged packets are no sign of life
            usage.last_used = now
        usage.packets += way.packets
        usage.octets += way.octets
        reasons = way.reasons[DROPPED:]
        if any(reasons):
            for reason, count in zip(_REASONS, reasons, strict=True):
                if count:
                    usage.drop(reason, count)
            way.reasons[DROPPED:] = [0] * len(reasons)
        way.packets = way.octets = way.opened = way.touched = 0

    def source(self) -> tuple[str, int] | None:
        """Where its newest packet came from; None when that does not matter or is no news."""
        way = self.way
        moved, way.moved = way.moved, 0
        if not moved or not self.receiving.sa.parameters.follow_peer:
            return None
        return host_text(bytes(way.source)[: way.source_octets]), way.port


class NativeIncoming(Incoming):
    """See `Incoming`. `ledger_of` gives the address of an SA's slot in the ledger, for the core writes there before the
    host gets a packet; None: there is no ledger."""

    def __init__(
        self,
        core: Core,
        associations: Associations,
        tun: TunIo,
        emit: Emit,
        catch_up: Callable[[], None],
        touched: Callable[[Receiving], None],
        ledger_of: Callable[[Receiving], int] | None = None,
    ) -> None:
        super().__init__(associations, tun, emit, catch_up, touched)
        self._core = core
        self._ledger_of = ledger_of
        self._flows = Flows(core)
        self._generation = -1
        self._inlets: dict[int, _Inlet] = {}  # by address
        octets = bytearray(_SLOTS * _STRIDE)
        memory = (c_char * len(octets)).from_buffer(octets)
        self._octets, self._buffer_at = memoryview(octets), addressof(memory)
        self._messages = (Message * _SLOTS)()
        self._entries = (Entry * _MOST_ENTRIES)()
        self._order = (c_uint16 * _MOST_ENTRIES)()
        self._runs = (Run * layout.MOST_RUNS)()
        self._groups = (layout.Group * layout.MOST_GROUPS)()
        self._touched_ways = layout.Touched()
        deliveries = (layout.Delivery * _MOST_ENTRIES)()
        self._kept = memory, deliveries
        self._jobs: dict[OuterSocket, layout.InJob] = {}

    def job(self, outer: OuterSocket) -> layout.InJob:
        """What the core is given for a socket. All share the buffers: one is at work at a time."""
        job = self._jobs.get(outer)
        if job is None:
            job = self._jobs[outer] = self._new_job(self._tun, addressof(self._kept[1]))
            job.receive.fd, job.receive.slots = outer.sock.fileno(), _SLOTS
            job.receive.raw_ipv4, job.sort.raw = outer.raw_esp and not outer.ipv6, outer.raw_esp
        return job

    def _new_job(self, tun: TunIo, deliveries: int) -> layout.InJob:
        buffer, entries, order = self._buffer_at, addressof(self._entries), addressof(self._order)
        job = layout.InJob(flows=self._flows.pointer, touched=addressof(self._touched_ways), clamp=self.clamp)
        job.receive = layout.ReceiveJob(buffer=buffer, messages=addressof(self._messages), stride=_STRIDE)
        job.sort = layout.SortJob(
            buffer=buffer,
            messages=addressof(self._messages),
            entries=entries,
            order=order,
            runs=addressof(self._runs),
            most_entries=_MOST_ENTRIES,
        )
        job.merge = layout.MergeJob(
            buffer=buffer,
            entries=entries,
            groups=addressof(self._groups),
            deliveries=deliveries,
            merge_tcp=tun.vnet_header,
            merge_udp=tun.vnet_header,
        )
        job.write = layout.WriteJob(
            buffer=buffer,
            entries=entries,
            deliveries=deliveries,
            fd=tun.fileno(),
            header=layout.VNET_OCTETS if tun.vnet_header else 0,
        )
        return job

    def receive(self, outer: OuterSocket, now: float) -> None:
        """Read a socket once. Raises `OSError` for an error of the path."""
        self.begin()
        job = self.job(outer)
        job.stage = 0
        try:
            self.go_on(outer, self._core.ikw_in(byref(job)), now)
        finally:
            self.settle(now)

    def begin(self) -> None:
        """Forget what does not hold any more, before the core is let loose. All is settled."""
        if self._generation != self._associations.generation:
            self._forget()
        for job in self._jobs.values():
            job.clamp = self.clamp

    def go_on(self, outer: OuterSocket, attention: int, now: float) -> None:
        """See to what the core has stopped for, until the batch is done. Raises `OSError` for an error of the path."""
        job = self._jobs[outer]
        while attention:
            if attention == IN_RUN:
                self.settle(now)
                self._see_to_run(outer, job, now)
            else:
                self._look(self._inlets[job.way], self._runs[job.run])
            attention = self._core.ikw_in(byref(job))
        if job.code and job.code != errno.EAGAIN:
            raise OSError(job.code, "recvmmsg")

    def settle(self, now: float) -> None:
        """Take over what the core has counted, and say what follows from it."""
        touched = self._touched_ways
        for address in touched.all[: touched.count]:
            inlet = self._inlets[address or 0]
            inlet.take_over(now)
            source = inlet.source()
            if source is not None and not self._follow(inlet.receiving, source):
                inlet.way.moved = 1
            self._touched(inlet.receiving)
            inlet.refresh()
        touched.count = 0
        for job in self._jobs.values():
            if job.write.failed:
                self._associations.unclaimed[True].drop(Drop.TUN_WRITE, job.write.failed)
                job.write.failed = 0

    def _forget(self) -> None:
        self._generation = self._associations.generation
        self._flows.forget()
        self._inlets.clear()

    def _see_to_run(self, outer: OuterSocket, job: layout.InJob, now: float) -> None:
        """Packets of an SPI that the core does not know, or no ESP."""
        run = self._runs[job.run]
        message = self._messages[run.message]
        if run.kind == RUN_ESP:
            receiving = self._find(run.spi)  # may hear of new SAs
            if self._generation != self._associations.generation:
                self._forget()
            if receiving is None:
                self._associations.unclaimed[True].drop(Drop.UNKNOWN_SPI, run.count)
                self._tell_unknown(run.spi, _source(message), now)
            elif receiving.sa.native is not None and receiving.sa.parameters.mode is Mode.TUNNEL:
                self._flows.remember_spi(run.spi, self._new_inlet(receiving).way)
                return  # the core goes on with it
            else:
                self._open_one_by_one(receiving, outer, run, message, now)
        for octets in self._datagrams(run) if run.kind != RUN_ESP else ():
            if run.kind == RUN_IKE:
                received = Received(len(octets), _source(message), bytes(message.local)[: message.local_octets], 0, 0)
                self._pass_on(outer, received, bytes(octets[4:]))
            else:
                short = run.kind == layout.RUN_SHORT
                self._associations.unclaimed[True].drop(Drop.TOO_SHORT if short else Drop.KEEPALIVE)
        job.run += 1

    def _new_inlet(self, receiving: Receiving) -> _Inlet:
        way = Way(ledger=self._ledger_of(receiving) if self._ledger_of else None)
        way.open.buffer, way.open.entries = self._buffer_at, addressof(self._entries)
        way.open.groups = addressof(self._groups)
        inlet = self._inlets[addressof(way)] = _Inlet(receiving, way)
        inlet.refresh()
        return inlet

    def _datagrams(self, run: Run) -> list[memoryview]:
        numbers = self._order[run.first : run.first + run.count]
        entries = [self._entries[number] for number in numbers]
        return [self._octets[entry.at : entry.at + entry.length] for entry in entries]

    def _open_one_by_one(
        self, receiving: Receiving, outer: OuterSocket, run: Run, message: Message, now: float
    ) -> None:
        """What the core does not open."""
        sa, usage = receiving.sa, receiving.sa.usage
        before, carried = sa.window.highest, usage.packets
        packets: list[Delivery] = []
        for octets in self._datagrams(run):
            opened = sa.open(octets)
            if isinstance(opened, Drop):
                usage.drop(opened)
            else:
                self._deliver(receiving, opened, message.traffic_class, packets)
        moved = sa.window.highest > before
        if moved or usage.packets > carried:
            usage.last_used = now
        if moved and not outer.raw_esp:
            self._follow(receiving, _source(message))
        self._touched(receiving)
        if packets:
            self._tun.write(packets)

    def _look(self, inlet: _Inlet, run: Run) -> None:
        """Ask the selectors about new flows, judge the packets that have none, and clamp."""
        receiving, opened = inlet.receiving, inlet.opened
        for group in self._groups[: opened.groups_count]:
            entry = self._entries[group.entry]
            if group.allowed or not receiving.unwrapper.allows(self._octets[entry.at : entry.at + entry.length]):
                continue
            group.allowed = 1
            self._flows.remember_flow(self._buffer_at + entry.at, entry.length, inlet.way, inlet.way)
        if not opened.others and not (self.clamp and opened.syns):
            return
        traffic_class = self._messages[run.message].traffic_class
        for number in self._order[run.first : run.first + run.count]:
            entry = self._entries[number]
            if entry.status == OTHER:
                self._judge(receiving, entry, traffic_class)
            elif entry.status != KEYED or not entry.flags & SYN:
                continue
            if self.clamp and entry.status != RAW:
                clamp_mss(self._octets[entry.at : entry.at + entry.length], self.mtu)

    def _judge(self, receiving: Receiving, entry: Entry, traffic_class: int) -> None:
        """Let a packet that has no plain flow through, by itself, or drop it."""
        octets = self._octets[entry.at : entry.at + entry.length]
        packet = receiving.unwrapper.unwrap(Opened(octets, entry.next_header), traffic_class)
        if isinstance(packet, Drop):
            receiving.sa.usage.drop(packet)
            entry.status = RAW
            return
        octets[: len(packet)] = packet  # where ECN has changed it, it is a copy
        entry.length = len(packet)
        entry.status = ALONE


def _source(message: Message) -> tuple[str, int]:
    return host_text(bytes(message.source)[: message.source_octets]), message.port

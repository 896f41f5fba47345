"""From the network to the TUN device by the native core: what `incoming` does, in one call for a batch.

The core reads datagrams, sorts them by SPI and sender, opens them in place, merges what was opened and writes it. What
an SPI means, and which flows an SA may carry, Python decides once and the core remembers (`ikeway.native.flows`).
Whatever is not a plain TCP, UDP or ICMP packet of tunnel mode comes to Python one by one.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from ctypes import addressof, byref, c_char, c_uint16, c_void_p

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
_SLOTS_OF_MERGED = 4  # enough to spread the cost of a turn; the other direction must not wait for long
_SHORT = 4096
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

    def take_over(self, now: float) -> bool:
        """Count what the core has opened and dropped. Whether the window has moved."""
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
        return moved


class NativeIncoming(Incoming):
    """See `Incoming`. `mark_of` gives the address of 64 bits that are to hold the highest sequence number seen of an SA
    before the host gets its packets; None: nobody wants to know."""

    def __init__(
        self,
        core: Core,
        associations: Associations,
        tun: TunIo,
        emit: Emit,
        catch_up: Callable[[], None],
        touched: Callable[[Receiving], None],
        mark_of: Callable[[Receiving], int] | None = None,
    ) -> None:
        super().__init__(associations, tun, emit, catch_up, touched)
        self._core = core
        self._mark_of = mark_of
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
        self._touched_ways = (c_void_p * layout.MOST_TOUCHED)()
        deliveries = (layout.Delivery * _MOST_ENTRIES)()
        self._kept = memory, deliveries
        self._job = self._new_job(tun, addressof(deliveries))
        self._reference = byref(self._job)
        self._slots: dict[OuterSocket, int] = {}

    def _new_job(self, tun: TunIo, deliveries: int) -> layout.InJob:
        buffer, entries, order = self._buffer_at, addressof(self._entries), addressof(self._order)
        job = layout.InJob(flows=self._flows.pointer, touched=addressof(self._touched_ways))
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
        if self._generation != self._associations.generation:
            self._forget()
        job = self._job
        receive = job.receive
        slots = receive.slots = self._slots.get(outer, _SLOTS)
        receive.fd, receive.raw_ipv4 = outer.sock.fileno(), outer.raw_esp and not outer.ipv6
        job.sort.raw, job.clamp, job.stage = outer.raw_esp, self.clamp, 0
        while attention := self._core.ikw_in(self._reference):
            if attention == IN_RUN:
                self._take_over(outer, now)
                self._see_to_run(outer, now)
            else:
                self._look(self._inlets[job.way])
        self._take_over(outer, now)
        if job.code:
            if job.code == errno.EAGAIN:
                return
            raise OSError(job.code, "recvmmsg")
        if job.write.failed:
            self._associations.unclaimed[True].drop(Drop.TUN_WRITE, job.write.failed)
        short = receive.octets < _SHORT * receive.count
        if short != (slots == _SLOTS):
            self._slots[outer] = _SLOTS if short else _SLOTS_OF_MERGED

    def _forget(self) -> None:
        self._generation = self._associations.generation
        self._flows.forget()
        self._inlets.clear()

    def _take_over(self, outer: OuterSocket, now: float) -> None:
        """Count what the core has done, and say what follows from it."""
        job = self._job
        for address in self._touched_ways[: job.touched_count]:
            inlet = self._inlets[address or 0]
            receiving, way = inlet.receiving, inlet.way
            if inlet.take_over(now) and not outer.raw_esp and receiving.sa.parameters.follow_peer:
                self._follow(receiving, (host_text(bytes(way.source)[: way.source_octets]), way.port))
            self._touched(receiving)
            inlet.refresh()
        job.touched_count = 0

    def _see_to_run(self, outer: OuterSocket, now: float) -> None:
        """Packets of an SPI that the core does not know, or no ESP."""
        job = self._job
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
        way = Way(mark=self._mark_of(receiving) if self._mark_of else None)
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

    def _look(self, inlet: _Inlet) -> None:
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
        run = self._runs[self._job.run]
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

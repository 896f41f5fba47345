"""From the network to the TUN device by the native core: what `incoming` does, in a few calls for a batch.

The core reads datagrams and sorts them by SPI and sender; Python finds the SA; the core opens its packets in place and
says which flows they are of; Python asks the selectors once for each flow; the core merges and writes. Whatever is
not a plain TCP or UDP packet of tunnel mode comes to Python one by one.
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
from ikeway.native.layout import (
    ALONE,
    DROPPED,
    KEYED,
    OTHER,
    RAW,
    RUN_ESP,
    RUN_IKE,
    SYN,
    Entry,
    Group,
    MergeJob,
    Message,
    OpenJob,
    ReceiveJob,
    Run,
    SortJob,
    WriteJob,
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
)


class NativeIncoming(Incoming):
    """See `Incoming`."""

    def __init__(
        self,
        core: Core,
        associations: Associations,
        tun: TunIo,
        emit: Emit,
        catch_up: Callable[[], None],
        touched: Callable[[Receiving], None],
    ) -> None:
        super().__init__(associations, tun, emit, catch_up, touched)
        self._core = core
        octets = bytearray(_SLOTS * _STRIDE)
        self._octets = memoryview(octets)
        self._memory = (c_char * len(octets)).from_buffer(octets)
        self._messages = (Message * _SLOTS)()
        self._entries = (Entry * _MOST_ENTRIES)()
        self._order = (c_uint16 * _MOST_ENTRIES)()
        self._runs = (Run * layout.MOST_RUNS)()
        self._groups = (Group * layout.MOST_GROUPS)()
        self._deliveries = (layout.Delivery * _MOST_ENTRIES)()
        buffer, entries, order = addressof(self._memory), addressof(self._entries), addressof(self._order)
        messages, groups, deliveries = addressof(self._messages), addressof(self._groups), addressof(self._deliveries)
        self._receive_job = ReceiveJob(buffer=buffer, messages=messages, stride=_STRIDE)
        self._sort_job = SortJob(
            buffer=buffer,
            messages=messages,
            entries=entries,
            order=order,
            runs=addressof(self._runs),
            most_entries=_MOST_ENTRIES,
        )
        self._open_job = OpenJob(buffer=buffer, entries=entries, groups=groups)
        self._merge_job = MergeJob(buffer=buffer, entries=entries, groups=groups, deliveries=deliveries)
        self._merge_job.merge_tcp = self._merge_job.merge_udp = tun.vnet_header
        self._write_job = WriteJob(
            buffer=buffer,
            entries=entries,
            deliveries=deliveries,
            fd=tun.fileno(),
            header=layout.VNET_OCTETS if tun.vnet_header else 0,
        )
        self._slots: dict[OuterSocket, int] = {}

    def receive(self, outer: OuterSocket, now: float) -> None:
        """Read a socket once. Raises `OSError` for an error of the path."""
        job = self._receive_job
        slots = job.slots = self._slots.get(outer, _SLOTS)
        job.fd, job.raw_ipv4 = outer.sock.fileno(), outer.raw_esp and not outer.ipv6
        code = self._core.ikw_receive(byref(job))
        if code:
            if code == errno.EAGAIN:
                return
            raise OSError(code, "recvmmsg")
        short = job.octets < _SHORT * job.count
        if short != (slots == _SLOTS):
            self._slots[outer] = _SLOTS if short else _SLOTS_OF_MERGED
        sort = self._sort_job
        sort.taken, sort.messages_count, sort.raw = 0, job.count, outer.raw_esp
        while sort.taken < sort.messages_count:
            self._core.ikw_sort(byref(sort))
            for number in range(sort.runs_count):
                self._process_run(outer, self._runs[number], now)

    def _process_run(self, outer: OuterSocket, run: Run, now: float) -> None:
        message = self._messages[run.message]
        if run.kind == RUN_ESP:
            receiving = self._find(run.spi)
            if receiving is None:
                self._associations.unclaimed[True].drop(Drop.UNKNOWN_SPI, run.count)
                self._tell_unknown(run.spi, _source(message), now)
            else:
                self._open_run(receiving, outer, run, message, now)
            return
        for octets in self._datagrams(run):
            if run.kind == RUN_IKE:
                received = Received(len(octets), _source(message), bytes(message.local)[: message.local_octets], 0, 0)
                self._pass_on(outer, received, bytes(octets[4:]))
            else:
                short = run.kind == layout.RUN_SHORT
                self._associations.unclaimed[True].drop(Drop.TOO_SHORT if short else Drop.KEEPALIVE)

    def _datagrams(self, run: Run) -> list[memoryview]:
        numbers = self._order[run.first : run.first + run.count]
        entries = [self._entries[number] for number in numbers]
        return [self._octets[entry.at : entry.at + entry.length] for entry in entries]

    def _open_run(self, receiving: Receiving, outer: OuterSocket, run: Run, message: Message, now: float) -> None:
        """Open the packets of one SA, and hand to the host what they carried."""
        sa, usage = receiving.sa, receiving.sa.usage
        before, carried = sa.window.highest, usage.packets
        packets: list[Delivery] = []
        native = sa.native is not None and sa.parameters.mode is Mode.TUNNEL
        if native:
            self._open_and_merge(receiving, run, message.traffic_class)
        else:
            for octets in self._datagrams(run):
                opened = sa.open(octets)
                if isinstance(opened, Drop):
                    usage.drop(opened)
                else:
                    self._deliver(receiving, opened, message.traffic_class, packets)
        moved = sa.window.highest > before
        if moved or usage.packets > carried:  # forged packets are no sign of life
            usage.last_used = now
        if moved and not outer.raw_esp and sa.parameters.follow_peer:
            self._follow(receiving, _source(message))
        self._touched(receiving)
        if native:
            self._write()
        elif packets:
            self._tun.write(packets)

    def _open_and_merge(self, receiving: Receiving, run: Run, traffic_class: int) -> None:
        """Make deliveries of what the packets carried, and count."""
        opened, merge, usage = self._open_job, self._merge_job, receiving.sa.usage
        order = addressof(self._order) + 2 * run.first
        opened.order, opened.count, opened.ecn = order, run.count, traffic_class & 3
        receiving.sa.open_batch(opened)
        for number, reason in enumerate(_REASONS, DROPPED):
            if opened.dropped[number]:
                usage.drop(reason, opened.dropped[number])
        for number in range(opened.groups_count):
            group = self._groups[number]
            entry = self._entries[group.entry]
            group.allowed = receiving.unwrapper.allows(self._octets[entry.at : entry.at + entry.length])
        if opened.others or (self.clamp and opened.syns):
            self._look(receiving, run, traffic_class)
        merge.order, merge.count, merge.groups_count = order, run.count, opened.groups_count
        self._core.ikw_merge(byref(merge))
        usage.packets += merge.packets
        usage.octets += merge.octets
        if merge.refused:
            usage.drop(Drop.SELECTORS, merge.refused)

    def _look(self, receiving: Receiving, run: Run, traffic_class: int) -> None:
        """Judge the packets that the core does not, and clamp."""
        for number in self._order[run.first : run.first + run.count]:
            entry = self._entries[number]
            if entry.status == OTHER:
                octets = self._octets[entry.at : entry.at + entry.length]
                packet = receiving.unwrapper.unwrap(Opened(octets, entry.next_header), traffic_class)
                if isinstance(packet, Drop):
                    receiving.sa.usage.drop(packet)
                    entry.status = RAW
                    continue
                octets[: len(packet)] = packet  # where ECN has changed it, it is a copy
                entry.length = len(packet)
                entry.status = ALONE
            elif entry.status != KEYED or not entry.flags & SYN:
                continue
            if self.clamp:
                clamp_mss(self._octets[entry.at : entry.at + entry.length], self.mtu)

    def _write(self) -> None:
        job = self._write_job
        job.count = self._merge_job.made
        if not job.count:
            return
        self._core.ikw_write(byref(job))
        if job.failed:
            self._associations.unclaimed[True].drop(Drop.TUN_WRITE, job.failed)
        if job.no_udp:
            self._merge_job.merge_udp = 0


def _source(message: Message) -> tuple[str, int]:
    return host_text(bytes(message.source)[: message.source_octets]), message.port

"""From the TUN device to the network by the native core: what `outgoing` does, in a few calls for a batch.

The core reads the device and says where one flow ends and the next begins; Python finds the SA of each run, and the core
seals and sends all packets of an SA. What the core does not do (transport mode, rare algorithms) goes the way of
`outgoing`, packet by packet.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from ctypes import addressof, byref, c_char, c_uint16

from ikeway.dataplane.userspace.associations import Associations, Sending
from ikeway.dataplane.userspace.clamp import clamp_mss
from ikeway.dataplane.userspace.native_send import FrameSender
from ikeway.dataplane.userspace.outgoing import Outgoing
from ikeway.dataplane.userspace.segments import TunPacket
from ikeway.dataplane.userspace.tun_io import TunIo
from ikeway.errors import HostError
from ikeway.esp.drops import Drop
from ikeway.esp.parameters import Mode
from ikeway.native import Core
from ikeway.native.layout import BAD, FAILED, SYN, VNET_OCTETS, Frame, Packet, ReadJob, SealJob

# A batch is what spreads the cost of a turn without making the other direction wait for long.
_MOST_PACKETS = 256
_ENOUGH_OCTETS = 192 << 10
_ARENA_OCTETS = _ENOUGH_OCTETS + 2 * (65536 + 32)
_SEALED_OCTETS = 1 << 18
_MOST_FRAMES = 2048

Run = tuple[int, int]  # packets from the first to before the second


class NativeOutgoing(Outgoing):
    """See `Outgoing`."""

    def __init__(self, core: Core, associations: Associations, tun: TunIo, touched: Callable[[Sending], None]) -> None:
        super().__init__(associations, tun, touched)
        self._core = core
        arena, out = bytearray(_ARENA_OCTETS), bytearray(_SEALED_OCTETS)
        self._arena = memoryview(arena)
        self._packets = (Packet * _MOST_PACKETS)()
        self._heads = (c_uint16 * _MOST_PACKETS)()
        self._all = (c_uint16 * _MOST_PACKETS)(*range(_MOST_PACKETS))
        self._some = (c_uint16 * _MOST_PACKETS)()
        self._frames = (Frame * _MOST_FRAMES)()
        self._memory = [(c_char * len(octets)).from_buffer(octets) for octets in (arena, out)]
        arena_at, out_at = (addressof(memory) for memory in self._memory)
        self._read_job = ReadJob(
            arena=arena_at,
            packets=addressof(self._packets),
            arena_octets=_ARENA_OCTETS,
            most=_MOST_PACKETS,
            enough=_ENOUGH_OCTETS,
            fd=tun.fileno(),
            header=VNET_OCTETS if tun.vnet_header else 0,
            heads=addressof(self._heads),
        )
        self._seal_job = SealJob(
            arena=arena_at,
            packets=addressof(self._packets),
            out=out_at,
            frames=addressof(self._frames),
            out_octets=_SEALED_OCTETS,
            most_frames=_MOST_FRAMES,
        )
        self._sender = FrameSender(core, out_at, addressof(self._frames))

    def turn(self, now: float) -> None:
        """Read the device and send what it gives. Raises `HostError` when the device is gone."""
        job = self._read_job
        code = self._core.ikw_read(byref(job))
        if job.count:
            self._process_batch(job, now)
        if code:
            raise HostError(f"the TUN device was removed ({os.strerror(code)})", remedy="connect again")

    def _process_batch(self, job: ReadJob, now: float) -> None:
        heads = self._heads[: job.heads_count]
        heads.append(job.count)
        groups: dict[Sending, list[Run]] = {}
        unclaimed = self._associations.unclaimed[False]
        for number, first in enumerate(heads[:-1]):
            end = heads[number + 1]
            packet = self._packets[first]
            at = packet.at
            sending = (
                Drop.MALFORMED if packet.flags & BAD else self._associations.route(self._arena[at : at + packet.length])
            )
            if isinstance(sending, Drop):
                unclaimed.drop(sending, end - first)
            else:
                groups.setdefault(sending, []).append((first, end))
        if self.clamp and job.flags & SYN:
            self._clamp_all(job.count)
        for sending, runs in groups.items():
            self._send_runs(sending, runs, now)
            self._touched(sending)

    def _clamp_all(self, count: int) -> None:
        for packet in self._packets[:count]:
            if packet.flags & SYN:
                clamp_mss(self._octets(packet), self.mtu)

    def _octets(self, packet: Packet) -> memoryview:
        return self._arena[packet.at : packet.at + packet.length]

    def _send_runs(self, sending: Sending, runs: list[Run], now: float) -> None:
        """Seal and send the packets of one SA."""
        sa = sending.sa
        if sa.native is None or sa.parameters.mode is not Mode.TUNNEL:
            self._send(sending, [self._tun_packet(number) for run in runs for number in range(*run)], now)
            return
        order, first, count = self._all, runs[0][0], runs[0][1] - runs[0][0]
        if len(runs) > 1 or sending.path.room(now):
            numbers = [number for run in runs for number in range(*run) if self._fits(sending, number, now)]
            order, first, count = self._some, 0, len(numbers)
            order[:count] = [*numbers]
        job = self._seal_job
        job.order, job.count, job.next, job.segment = addressof(order) + 2 * first, count, 0, 0
        before = sa.sequence
        while job.next < count:
            sa.seal_batch(job)
            if job.made:
                failed, reason = self._sender.send(sending.path, job.made, now)
                if reason is not None:
                    sa.usage.drop(reason, failed)
            if job.refused:
                reason = Drop.SEND_FAILED if job.refused == FAILED else sa.refusal() or Drop.EXPIRED
                sa.usage.drop(reason, self._core.ikw_left(byref(job)))
                break
        if sa.sequence != before:
            sa.usage.last_used = now

    def _tun_packet(self, number: int) -> TunPacket:
        packet = self._packets[number]
        return TunPacket(self._octets(packet), packet.segment, packet.upper, packet.header)

    def _fits(self, sending: Sending, number: int, now: float) -> bool:
        """False when the path is known to be too small; the sender was told, and the drop counted."""
        if not sending.path.room(now):
            return True
        packet = self._packets[number]
        length = packet.header + packet.segment if packet.segment else packet.length
        octets = self._octets(packet)
        if not self._does_not_fit(sending, octets, length, 0, now):
            return True
        segments = -(-(packet.length - packet.header) // packet.segment) if packet.segment else 1
        sending.sa.usage.drop(Drop.TOO_BIG, segments)
        return False

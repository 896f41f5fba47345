"""From the TUN device to the network: take a batch, group it by SA, seal, send."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ikeway.dataplane.userspace.associations import Associations, Sending
from ikeway.dataplane.userspace.clamp import clamp_mss
from ikeway.dataplane.userspace.segments import TunPacket, cut, last_segment, single_segments, whole_segments
from ikeway.dataplane.userspace.too_big import SMALLEST_IPV6_MTU, may_fragment, packet_too_big
from ikeway.dataplane.userspace.tun_io import TunIo
from ikeway.esp.drops import Drop
from ikeway.esp.ecn import traffic_class
from ikeway.esp.frames import FrameBuffer
from ikeway.esp.inner import Octets
from ikeway.esp.parameters import Mode
from ikeway.esp.tunnel import IPV4, IPV6, wrap

# Where the segments of one super-packet are sealed to: 64 KiB and what ESP adds to usual segments.
_SEALED_OCTETS = 1 << 17


class Outgoing:
    """`mtu` and `clamp` may change at any time. `touched` is called with every SA that a batch has used."""

    def __init__(self, associations: Associations, tun: TunIo, touched: Callable[[Sending], None]) -> None:
        self._associations = associations
        self._tun = tun
        self._touched = touched
        self._sealed = FrameBuffer(_SEALED_OCTETS)
        self.mtu = 0
        self.clamp = False

    def turn(self, now: float) -> None:
        """Read the device and send what it gives. Raises `HostError` when the device is gone."""
        self.process(self._tun.read(), now)

    def process(self, packets: Sequence[TunPacket], now: float) -> None:
        """Send a batch. Packets of one SA keep their order."""
        groups: dict[Sending, list[TunPacket]] = {}
        unclaimed = self._associations.unclaimed[False]
        for packet in packets:
            sending = self._associations.route(packet.octets)
            if isinstance(sending, Drop):
                unclaimed.drop(sending)
                continue
            if self.clamp and not packet.segment:
                clamp_mss(packet.octets, self.mtu)
            groups.setdefault(sending, []).append(packet)
        for sending, group in groups.items():
            self._send(sending, group, now)
            self._touched(sending)

    def _send(self, sending: Sending, packets: Sequence[TunPacket], now: float) -> None:
        """Seal and send the packets of one SA, in runs of one traffic class."""
        before = sending.sa.sequence
        frames: list[Octets] = []
        run_class = 0
        for packet in packets:
            packet_class = traffic_class(packet.octets)
            if packet_class != run_class:
                self._flush(sending, frames, run_class, now)
                frames, run_class = [], packet_class
            if packet.segment:
                self._flush(sending, frames, run_class, now)
                frames = []
                self._send_segments(sending, packet, run_class, now)
            else:
                self._seal(sending, packet.octets, frames, now)
        self._flush(sending, frames, run_class, now)
        if sending.sa.sequence != before:
            sending.sa.usage.last_used = now

    def _seal(self, sending: Sending, packet: Octets, frames: list[Octets], now: float) -> None:
        """Append the ESP packet of one inner packet, or count why there is none."""
        sa = sending.sa
        wrapped = wrap(packet, sa.parameters.mode)
        if isinstance(wrapped, Drop):
            sa.usage.drop(wrapped)
            return
        if self._does_not_fit(sending, packet, len(packet), len(packet) - len(wrapped[0]), now):
            sa.usage.drop(Drop.TOO_BIG)
            return
        sealed = sa.seal(*wrapped)
        if isinstance(sealed, Drop):
            sa.usage.drop(sealed)
        else:
            frames.append(sealed)

    def _send_segments(self, sending: Sending, packet: TunPacket, run_class: int, now: float) -> None:
        """Cut, seal and send a super-packet."""
        sa = sending.sa
        length = packet.header + packet.segment
        tunnel = sa.parameters.mode is Mode.TUNNEL
        stripped = 0 if tunnel else packet.upper
        if self._does_not_fit(sending, packet.octets, length, stripped, now):
            sa.usage.drop(Drop.TOO_BIG, -(-(len(packet.octets) - packet.header) // packet.segment))
            return
        trailer = sa.trailer(length, IPV4 if packet.octets[0] >> 4 == 4 else IPV6)
        shape = sa.shape(length + len(trailer))
        count = whole_segments(packet)
        if not tunnel or count * shape.size > len(self._sealed.buffer):
            frames: list[Octets] = []
            for segment in single_segments(packet):
                self._seal(sending, segment, frames, now)
            self._flush(sending, frames, run_class, now)
            return
        rows = self._sealed.frames(shape, count)
        if count:
            cut(packet, rows.matrix[:count, shape.head : shape.size - shape.icv], trailer)
        sealed = sa.seal_frames(rows, count, length)
        if sealed < count:
            sa.usage.drop(sa.refusal() or Drop.EXPIRED, count - sealed)
        ends: list[Octets] = []
        if last := last_segment(packet):
            self._seal(sending, last, ends, now)
        failed, reason = sending.path.send_rows(rows.rows(sealed), shape.size, ends, run_class, now)
        if reason is not None:
            sa.usage.drop(reason, failed)

    def _does_not_fit(self, sending: Sending, packet: Octets, length: int, stripped: int, now: float) -> bool:
        """True when the packet (or segments of this length) is not sent because of the path; the sender is told.

        `stripped` octets of it are not carried (transport mode leaves the IP header behind).
        """
        room = sending.path.room(now)
        if not room:
            return False
        largest = sending.sa.largest_payload(room) + stripped
        if length <= largest or may_fragment(packet):
            return False
        if packet[0] >> 4 == 6 and length <= SMALLEST_IPV6_MTU:  # IPv6 owes these: the outer packet is fragmented
            return False
        message = packet_too_big(packet, largest)
        if message is not None:
            self._tun.write([message])
        return True

    @staticmethod
    def _flush(sending: Sending, frames: Sequence[Octets], run_class: int, now: float) -> None:
        if not frames:
            return
        failed, reason = sending.path.send(frames, run_class, now)
        if reason is not None:
            sending.sa.usage.drop(reason, failed)

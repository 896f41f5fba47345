"""From the TUN device to the network: take a batch, group it by SA, seal, send."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ikeway.dataplane.userspace.associations import Associations, Sending
from ikeway.dataplane.userspace.clamp import clamp_mss
from ikeway.dataplane.userspace.too_big import may_fragment, packet_too_big
from ikeway.dataplane.userspace.tun_io import TunIo
from ikeway.esp.drops import Drop
from ikeway.esp.ecn import traffic_class
from ikeway.esp.tunnel import wrap


class Outgoing:
    """`mtu` and `clamp` may change at any time. `touched` is called with every SA that a batch has used."""

    def __init__(self, associations: Associations, tun: TunIo, touched: Callable[[Sending], None]) -> None:
        self._associations = associations
        self._tun = tun
        self._touched = touched
        self.mtu = 0
        self.clamp = False

    def process(self, packets: Sequence[memoryview], now: float) -> None:
        """Send a batch. Packets of one SA keep their order."""
        groups: dict[Sending, list[memoryview]] = {}
        unclaimed = self._associations.unclaimed[False]
        for packet in packets:
            sending = self._associations.route(packet)
            if isinstance(sending, Drop):
                unclaimed.drop(sending)
                continue
            if self.clamp:
                clamp_mss(packet, self.mtu)
            groups.setdefault(sending, []).append(packet)
        for sending, group in groups.items():
            self._send(sending, group, now)
            self._touched(sending)

    def _send(self, sending: Sending, packets: Sequence[memoryview], now: float) -> None:
        """Seal and send the packets of one SA, in runs of one traffic class."""
        sa, usage = sending.sa, sending.sa.usage
        usage.last_used = now
        room = sending.path.room(now)
        frames: list[bytes] = []
        run_class = 0
        for packet in packets:
            wrapped = wrap(packet, sa.parameters.mode)
            if isinstance(wrapped, Drop):
                usage.drop(wrapped)
                continue
            if room and self._does_not_fit(sending, packet, len(wrapped[0]), room):
                usage.drop(Drop.TOO_BIG)
                continue
            sealed = sa.seal(*wrapped)
            if isinstance(sealed, Drop):
                usage.drop(sealed)
                continue
            if frames and traffic_class(packet) != run_class:
                self._flush(sending, frames, run_class, now)
                frames = []
            run_class = traffic_class(packet)
            frames.append(sealed)
        if frames:
            self._flush(sending, frames, run_class, now)

    def _does_not_fit(self, sending: Sending, packet: memoryview, payload: int, room: int) -> bool:
        """True when the packet is not sent because of the path MTU; the sender is told what fits."""
        largest = sending.sa.largest_payload(room)
        if payload <= largest or may_fragment(packet):
            return False
        if packet[0] >> 4 == 6 and len(packet) <= 1280:  # IPv6 owes 1280 octets: fragments outside
            return False
        message = packet_too_big(packet, largest + len(packet) - payload)
        if message is not None:
            self._tun.write([message])
        return True

    @staticmethod
    def _flush(sending: Sending, frames: Sequence[bytes], run_class: int, now: float) -> None:
        failed, reason = sending.path.send(frames, run_class, now)
        if reason is not None:
            sending.sa.usage.drop(reason, failed)

"""Reading and writing a TUN device, with or without super-packets."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ikeway.dataplane.userspace.merging import Merged
from ikeway.dataplane.userspace.segments import VNET_HEADER, TunPacket, taken
from ikeway.errors import HostError
from ikeway.esp.drops import Drop
from ikeway.esp.inner import Octets
from ikeway.esp.usage import Usage

# Enough to spread the cost of a turn, not so much that the other direction has to wait for long.
_BATCH = 32
_BATCH_OCTETS = 192 << 10
_LARGEST = 65536 + VNET_HEADER.size
_NO_OFFLOAD = bytes(VNET_HEADER.size)


class TunIo:
    """One end of the TUN device: packets in batches.

    `received_drops` and `sent_drops` count what the device did not take and what it gave that is no packet.
    """

    def __init__(self, fd: int, vnet_header: bool, received_drops: Usage, sent_drops: Usage) -> None:
        self._fd = fd
        self.vnet_header = vnet_header
        self._received_drops = received_drops
        self._sent_drops = sent_drops
        self._buffers: list[memoryview] = []

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._fd

    def read(self) -> list[TunPacket]:
        """Up to a batch of packets, valid until the next read. Raises `HostError` when the device is gone."""
        if not self._buffers:
            self._buffers = [memoryview(bytearray(_LARGEST)) for _ in range(_BATCH)]
        packets = []
        octets = 0
        for buffer in self._buffers:
            if octets >= _BATCH_OCTETS:
                break
            try:
                length = os.readv(self._fd, [buffer])
            except BlockingIOError:
                break
            except OSError as error:
                raise HostError("the TUN device was removed", remedy="connect again") from error
            if not length:
                break
            octets += length
            packet = taken(buffer[:length]) if self.vnet_header else TunPacket(buffer[:length])
            if packet is None:
                self._sent_drops.drop(Drop.MALFORMED)
            else:
                packets.append(packet)
        return packets

    def write(self, packets: Sequence[Octets | Merged]) -> None:
        """Hand packets to the host."""
        for packet in packets:
            try:
                if isinstance(packet, Merged):
                    os.writev(self._fd, packet.buffers())
                elif self.vnet_header:
                    os.writev(self._fd, [_NO_OFFLOAD, packet])
                else:
                    os.write(self._fd, packet)
            except OSError:
                self._received_drops.drop(Drop.TUN_WRITE)

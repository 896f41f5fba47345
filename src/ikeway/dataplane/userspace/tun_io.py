"""Reading and writing a TUN device."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ikeway.esp.drops import Drop
from ikeway.esp.inner import Octets
from ikeway.esp.usage import Usage

BATCH = 32
_LARGEST = 65536


class TunIo:
    """One end of the TUN device: packets in batches. `undelivered` counts what the device did not take."""

    def __init__(self, fd: int, undelivered: Usage) -> None:
        self._fd = fd
        self._undelivered = undelivered
        self._buffers = [memoryview(bytearray(_LARGEST)) for _ in range(BATCH)]

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._fd

    def read(self) -> list[memoryview]:
        """Up to `BATCH` packets, valid until the next read. Raises `OSError` when the device is gone."""
        packets = []
        for buffer in self._buffers:
            try:
                length = os.readv(self._fd, [buffer])
            except BlockingIOError:
                break
            if not length:
                break
            packets.append(buffer[:length])
        return packets

    def write(self, packets: Sequence[Octets]) -> None:
        """Hand packets to the host."""
        for packet in packets:
            try:
                os.write(self._fd, packet)
            except OSError:
                self._undelivered.drop(Drop.TUN_WRITE)

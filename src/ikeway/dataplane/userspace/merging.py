"""Merging what was decrypted: consecutive TCP segments of one flow go to the TUN device as one super-packet.

The datagrams that the kernel handed over together (UDP_GRO) are decrypted side by side as rows of one matrix, and
numpy compares all rows at once. Segments are merged under the conditions of Linux's own GRO: same addresses, ports,
acknowledgement, window, options and TTL, consecutive sequence numbers, no flag but ACK and PSH, right checksums. What
the host sees is what it would have seen from a network card.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ikeway.dataplane.userspace.segments import (
    GSO_TCPV4,
    GSO_TCPV6,
    NEEDS_CHECKSUM,
    VNET_HEADER,
    Bytes,
    row_sums,
)
from ikeway.esp.checksum import checksum, ones_complement_sum, pseudo_header_sum
from ikeway.esp.inner import TCP, Octets

_ACK, _PSH = 0x10, 0x08
_DF = 0x40
_MOST_OCTETS = 65535
_WORD = np.uint32(0xFFFF)


class Layout(NamedTuple):
    """Where things are in the segments of one train: all rows have the same length."""

    upper: int
    header: int
    length: int
    ipv6: bool


def layout(packet: Octets) -> Layout | None:
    """The layout of a TCP segment that could be merged; None for any other packet, which is whole and parsed."""
    if packet[0] == 0x45:
        if packet[9] != TCP or packet[6] & 0x3F or packet[7]:
            return None
        upper = 20
    elif packet[0] >> 4 == 6:
        if packet[6] != TCP:
            return None
        upper = 40
    else:
        return None
    length = len(packet)
    if length <= upper + 20:
        return None
    header = upper + (packet[upper + 12] >> 4) * 4
    return Layout(upper, header, length, upper == 40) if upper + 20 <= header < length else None


@lru_cache(maxsize=256)
def _equal_octets(shape: Layout, width: int) -> npt.NDArray[np.bool_]:
    """Which octets must be the same in neighbours: all of the headers but identification, sequence, checksums, PSH."""
    upper = shape.upper
    equal = np.ones(shape.header + width - shape.length, np.bool_)  # headers, then padding and next header
    if not shape.ipv6:
        equal[4:6] = equal[10:12] = False
    equal[upper + 4 : upper + 8] = equal[upper + 13] = equal[upper + 16 : upper + 20] = False
    return ~equal


def _continues(rows: Bytes, shape: Layout) -> npt.NDArray[np.bool_]:
    """For each row but the last: whether the next one can be merged to it."""
    upper, header, length, ipv6 = shape
    fixed = np.concatenate((rows[:, :header], rows[:, length:]), axis=1)
    same: npt.NDArray[np.bool_] = ((fixed[1:] == fixed[:-1]) | _equal_octets(shape, rows.shape[1])).all(axis=1)
    if not same.any():
        return same
    sequence = fixed[:, upper + 4 : upper + 8].view(">u4")[:, 0].astype(np.uint32)
    same &= sequence[1:] - sequence[:-1] == np.uint32(length - header)
    plain = (fixed[:, upper + 13] & ~np.uint8(_PSH)) == _ACK
    plain &= fixed[:, upper + 12] >> 4 == (header - upper) // 4
    # What is summed with a right checksum gives 0 modulo 2^16 - 1. The pseudo-header's addresses are the packet's.
    pseudo = TCP + length - upper
    start = 8 if ipv6 else 12
    total = row_sums(rows[:, start:length]) + np.uint32((pseudo & 0xFF) << 8 | pseudo >> 8)
    plain &= total % _WORD == 0
    if not ipv6:
        plain &= row_sums(fixed[:, :upper]) % _WORD == 0
        if not fixed[0, 6] & _DF:  # nobody looks at the identification of what is not to be fragmented (RFC 6864)
            identification = fixed[:, 4:6].view(">u2")[:, 0].astype(np.uint16)
            same &= identification[1:] - identification[:-1] == 1
    same &= plain[1:] & plain[:-1]
    return same


class Merged:
    """A super-packet in the making: the header of its first segment and the payloads of all."""

    __slots__ = ("_ended", "_first", "_octets", "_payloads", "_push", "_sequence", "shape")

    def __init__(self, first: Octets, shape: Layout, payload: bytes, push: bool) -> None:
        self.shape = shape
        self._first = bytes(first[: shape.header])
        self._payloads = [payload]
        self._octets = len(payload)
        self._push = push
        self._ended = False  # by a shorter segment
        start = shape.upper + 4
        self._sequence = int.from_bytes(self._first[start : start + 4], "big") + len(payload) & 0xFFFFFFFF

    def append(self, packet: Octets) -> bool:
        """Take in the packet that follows, which may be shorter; then nothing can follow. False: it does not fit."""
        upper, header, first = self.shape.upper, self.shape.header, self._first
        size = self.shape.length - header
        payload = len(packet) - header
        if self._ended or not 0 < payload <= size or header + self._octets + payload > _MOST_OCTETS:
            return False
        if packet[0] != first[0] or packet[1] != first[1] or layout(packet) is None:
            return False
        where = ((2, 4), (6, upper + 4)) if self.shape.ipv6 else ((6, 10), (12, upper + 4))
        parts = (*where, (upper + 8, upper + 13), (upper + 14, upper + 16), (upper + 20, header))
        if any(packet[start:end] != first[start:end] for start, end in parts):
            return False
        if int.from_bytes(packet[upper + 4 : upper + 8], "big") != self._sequence or packet[upper + 13] & ~_PSH != _ACK:
            return False
        if not self._is_identified(packet) or not _checksums_are_right(packet, upper, self.shape.ipv6):
            return False
        self._payloads.append(bytes(packet[header:]))
        self._octets += payload
        self._ended = payload < size
        self._push = self._push or bool(packet[upper + 13] & _PSH)
        self._sequence = self._sequence + payload & 0xFFFFFFFF
        return True

    def _is_identified(self, packet: Octets) -> bool:
        """Whether the identification is what cutting will give it, or nobody looks at it."""
        if self.shape.ipv6 or packet[6] & _DF:
            return True
        size = self.shape.length - self.shape.header
        first, this = (int.from_bytes(octets[4:6], "big") for octets in (self._first, packet))
        return this == (first + self._octets // size) & 0xFFFF

    def buffers(self) -> list[bytes]:
        """What is written to the device, `virtio_net_hdr` first."""
        upper, header, _, ipv6 = self.shape
        head = bytearray(self._first)
        total = header + self._octets
        if ipv6:
            head[4:6] = (total - 40).to_bytes(2, "big")
            addresses = self._first[8:40]
        else:
            head[2:4] = total.to_bytes(2, "big")
            head[10:12] = bytes(2)
            head[10:12] = checksum(head[:upper]).to_bytes(2, "big")
            addresses = self._first[12:20]
        if self._push:
            head[upper + 13] |= _PSH
        partial = ones_complement_sum(addresses) + TCP + total - upper  # the host finishes it, segment by segment
        head[upper + 16 : upper + 18] = (partial % 0xFFFF).to_bytes(2, "big")
        kind = GSO_TCPV6 if ipv6 else GSO_TCPV4
        size = self.shape.length - header
        device = VNET_HEADER.pack(NEEDS_CHECKSUM, kind, header, size, upper, 16)
        return [device + head, *self._payloads]


def _checksums_are_right(packet: Octets, upper: int, ipv6: bool) -> bool:
    source, destination = (
        (bytes(packet[8:24]), bytes(packet[24:40])) if ipv6 else (bytes(packet[12:16]), bytes(packet[16:20]))
    )
    pseudo = pseudo_header_sum(source, destination, TCP, len(packet) - upper)
    return checksum(packet[upper:], pseudo) == 0 and (ipv6 or checksum(packet[:upper]) == 0)


class Links:
    """A train of decrypted packets of one length, and which of them can be merged with the next one."""

    __slots__ = ("_rows", "_shape", "follow")

    def __init__(self, rows: Bytes, shape: Layout, follow: list[bool]) -> None:
        self._rows = rows
        self._shape = shape
        self.follow = follow  # one for each row; the last one is False

    @classmethod
    def find(cls, rows: Bytes, shape: Layout, results: Sequence[object]) -> Links:
        """Compare all rows. `results` has None for those that are there; `shape` is that of the first."""
        follow = [*_continues(rows, shape).tolist(), False]
        for number, result in enumerate(results):
            if result is not None:
                follow[number] = False
                if number:
                    follow[number - 1] = False
        return cls(rows, shape, follow)

    def merged(self, start: int, end: int) -> Merged:
        """One super-packet of the rows from `start` to before `end`, which continue each other."""
        rows, shape = self._rows[start:end], self._shape
        payload = rows[:, shape.header : shape.length].tobytes()
        push = bool((rows[:, shape.upper + 13] & _PSH).any())
        return Merged(rows[0, : shape.header].tobytes(), shape, payload, push)

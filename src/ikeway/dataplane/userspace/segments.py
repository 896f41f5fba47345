"""Super-packets of the TUN device (`virtio_net_hdr`): finishing checksums and cutting into segments.

With its offloads on, the host hands over up to 64 KiB of one flow as one packet with one header. numpy writes the
headers and checksums of all segments at once; the payload is copied once, straight to where it is encrypted from.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ikeway.esp.checksum import checksum, ones_complement_sum, pseudo_header_sum
from ikeway.esp.inner import TCP, Octets

Bytes = npt.NDArray[np.uint8]

VNET_HEADER = struct.Struct("=BBHHHH")  # flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
NEEDS_CHECKSUM = 1
GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_ECN = 0, 1, 4, 5, 0x80

_WORD = np.uint32(0xFFFF)
_FIN, _PSH, _CWR = 0x01, 0x08, 0x80


class TunPacket(NamedTuple):
    """A packet from the TUN device. `segment` > 0: a super-packet whose segments carry that many octets each.

    `upper` is where TCP or UDP begins; `header` counts the octets in front of the payload.
    """

    octets: memoryview
    segment: int = 0
    upper: int = 0
    header: int = 0


def taken(buffer: memoryview) -> TunPacket | None:
    """What a read with `virtio_net_hdr` gave; None when it is not understood."""
    if len(buffer) <= VNET_HEADER.size:
        return None
    flags, kind, _, size, start, offset = VNET_HEADER.unpack_from(buffer)
    octets = buffer[VNET_HEADER.size :]
    kind &= ~GSO_ECN
    if kind == GSO_NONE or not size:
        if flags & NEEDS_CHECKSUM:
            if start + offset + 2 > len(octets):
                return None
            # The field holds the sum of the pseudo-header, so it is part of what is summed.
            octets[start + offset : start + offset + 2] = (checksum(octets[start:]) or 0xFFFF).to_bytes(2, "big")
        return TunPacket(octets)
    if kind not in (GSO_TCPV4, GSO_TCPV6, GSO_UDP) or start + 14 > len(octets):
        return None
    smallest = 8 if kind == GSO_UDP else 20
    header = start + (8 if kind == GSO_UDP else (octets[start + 12] >> 4) * 4)
    if not 20 <= start <= header - smallest or header >= len(octets):
        return None
    return TunPacket(octets, size, start, header)


class Segments(NamedTuple):
    """`rows`: `rows_count` whole segments of `length` octets, each with the trailer it was asked for, one after another.

    `last` is the shorter one at the end, without a trailer; empty when there is none.
    """

    rows: memoryview
    rows_count: int
    length: int
    width: int
    last: bytes


def cut(packet: TunPacket, trailer: bytes) -> Segments:
    """Cut a super-packet. `trailer` is put behind each whole segment."""
    octets, size, header = packet.octets, packet.segment, packet.header
    count, rest = divmod(len(octets) - header, size)
    length = header + size
    width = length + len(trailer)
    rows: Bytes = np.empty((count, width), np.uint8)
    if count:
        source: Bytes = np.frombuffer(octets, np.uint8)
        payload = source[header : header + count * size].reshape(count, size)
        rows[:, :header] = source[:header]
        rows[:, header:length] = payload
        rows[:, length:] = np.frombuffer(trailer, np.uint8)
        _write_headers(rows, packet, payload, bool(rest))
    last = _last_segment(packet, count, rest) if rest else b""
    return Segments(memoryview(rows.data).cast("B") if count else memoryview(b""), count, length, width, last)


def single_segments(packet: TunPacket) -> list[Octets]:
    """The segments of a super-packet one by one."""
    parts = cut(packet, b"")
    whole: list[Octets] = [parts.rows[at : at + parts.width] for at in range(0, len(parts.rows), parts.width)]
    return [*whole, parts.last] if parts.last else whole


def _write_headers(rows: Bytes, packet: TunPacket, payload: Bytes, more: bool) -> None:
    """Fill in what differs between the segments, and their checksums."""
    count, size = payload.shape
    octets, upper, header = packet.octets, packet.upper, packet.header
    length = header + size
    index = np.arange(count, dtype=np.uint32)
    if octets[0] >> 4 == 4:
        identification = index + np.uint32(octets[4] << 8 | octets[5])
        rows[:, 2:4] = tuple(length.to_bytes(2, "big"))
        _put(rows, 4, identification & _WORD)
        fixed = ones_complement_sum(bytes(octets[:2]) + bytes(octets[6:10]) + bytes(octets[12:upper])) + length
        _put(rows, 10, folded((identification & _WORD) + np.uint32(fixed)) ^ _WORD)
        protocol, addresses = octets[9], bytes(octets[12:20])
    else:
        rows[:, 4:6] = tuple((length - 40).to_bytes(2, "big"))
        protocol, addresses = TCP if header - upper >= 20 else 17, bytes(octets[8:40])
    upper_length = length - upper
    pseudo = ones_complement_sum(addresses) + protocol + upper_length
    if protocol == TCP:
        sequence = index * np.uint32(size) + np.uint32(int.from_bytes(octets[upper + 4 : upper + 8], "big"))
        _put(rows, upper + 4, sequence >> np.uint32(16))
        _put(rows, upper + 6, sequence & _WORD)
        flags = octets[upper + 13]
        rows[:, upper + 13] = flags & ~(_FIN | _PSH | _CWR)
        rows[0, upper + 13] |= flags & _CWR
        if not more:
            rows[-1, upper + 13] |= flags & (_FIN | _PSH)
        place = upper + 16
    else:
        rows[:, upper + 4 : upper + 6] = tuple(upper_length.to_bytes(2, "big"))
        place = upper + 6
    rows[:, place : place + 2] = 0
    total = row_sums(payload) + row_sums(rows[:, upper:header]) + np.uint32(pseudo)
    check = folded(total) ^ _WORD
    if protocol != TCP:
        check[check == 0] = 0xFFFF
    _put(rows, place, check)


def _last_segment(packet: TunPacket, index: int, rest: int) -> bytes:
    """The shorter segment at the end."""
    octets, upper, header = packet.octets, packet.upper, packet.header
    last = bytearray(octets[:header]) + octets[len(octets) - rest :]
    if last[0] >> 4 == 4:
        last[2:4] = len(last).to_bytes(2, "big")
        last[4:6] = ((last[4] << 8 | last[5]) + index & 0xFFFF).to_bytes(2, "big")
        last[10:12] = bytes(2)
        last[10:12] = checksum(last[:upper]).to_bytes(2, "big")
        protocol, source, destination = last[9], bytes(last[12:16]), bytes(last[16:20])
    else:
        last[4:6] = (len(last) - 40).to_bytes(2, "big")
        protocol, source, destination = TCP if header - upper >= 20 else 17, bytes(last[8:24]), bytes(last[24:40])
    if protocol == TCP:
        sequence = int.from_bytes(last[upper + 4 : upper + 8], "big") + index * packet.segment
        last[upper + 4 : upper + 8] = (sequence & 0xFFFFFFFF).to_bytes(4, "big")
        if index:
            last[upper + 13] &= ~_CWR & 0xFF
        place = upper + 16
    else:
        last[upper + 4 : upper + 6] = (len(last) - upper).to_bytes(2, "big")
        place = upper + 6
    last[place : place + 2] = bytes(2)
    start = pseudo_header_sum(source, destination, protocol, len(last) - upper)
    check = checksum(last[upper:], start)
    last[place : place + 2] = (check if protocol == TCP else check or 0xFFFF).to_bytes(2, "big")
    return bytes(last)


def _put(rows: Bytes, at: int, words: npt.NDArray[np.uint32]) -> None:
    """Write a 16-bit word into every row."""
    rows[:, at] = words >> np.uint32(8)
    rows[:, at + 1] = words & np.uint32(0xFF)


def folded(sums: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Ones' complement sums of 16 bits."""
    sums = (sums & _WORD) + (sums >> np.uint32(16))
    return (sums & _WORD) + (sums >> np.uint32(16))


def row_sums(rows: Bytes) -> npt.NDArray[np.uint32]:
    """The ones' complement sum of every row, of 16 bits, as its octets stand in the packet (big-endian)."""
    even = rows.shape[1] & ~1
    total = rows[:, :even].view("<u2").sum(axis=1, dtype=np.uint32)
    if even != rows.shape[1]:
        total = total + rows[:, -1]
    total = folded(total)
    return ((total & np.uint32(0xFF)) << np.uint32(8)) | (total >> np.uint32(8))

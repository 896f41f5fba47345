"""Super-packets of the TUN device (`virtio_net_hdr`): finishing checksums and cutting into segments.

With its offloads on, the host hands over up to 64 KiB of one flow as one packet with one header. numpy writes the
headers and checksums of all segments at once; the payload is copied once, straight to where it is encrypted from.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ikeway.esp.checksum import checksum, pseudo_header_sum
from ikeway.esp.inner import TCP, UDP, Octets

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
    smallest = 8 if kind == GSO_UDP else 20
    if kind not in (GSO_TCPV4, GSO_TCPV6, GSO_UDP) or start + smallest > len(octets):
        return None
    header = start + (8 if kind == GSO_UDP else (octets[start + 12] >> 4) * 4)
    least = 40 if octets[0] >> 4 == 6 else 20
    if not least <= start <= header - smallest or header >= len(octets):
        return None
    return TunPacket(octets, size, start, header)


def whole_segments(packet: TunPacket) -> int:
    """How many segments of a super-packet have the full length."""
    return (len(packet.octets) - packet.header) // packet.segment


def cut(packet: TunPacket, rows: Bytes, trailer: bytes) -> None:
    """Write the whole segments of a super-packet to rows, each with a trailer behind it."""
    octets, size, header = packet.octets, packet.segment, packet.header
    count, length = len(rows), header + size
    source: Bytes = np.frombuffer(octets, np.uint8)
    payload = source[header : header + count * size].reshape(count, size)
    rows[:, :header] = source[:header]
    rows[:, header:length] = payload
    if trailer:
        rows[:, length:] = np.frombuffer(trailer, np.uint8)
    more = header + count * size < len(octets)
    if octets[0] >> 4 == 4:
        _write_ipv4(rows, packet, length)
    else:
        rows[:, 4:6] = tuple((length - 40).to_bytes(2, "big"))
    if _is_tcp(packet):
        _write_tcp(rows, packet, payload, more)
    else:
        _write_udp(rows, packet, payload)


def single_segments(packet: TunPacket) -> list[Octets]:
    """The segments of a super-packet one by one."""
    rows: Bytes = np.empty((whole_segments(packet), packet.header + packet.segment), np.uint8)
    if len(rows):
        cut(packet, rows, b"")
    last = last_segment(packet)
    return [*(memoryview(row.data) for row in rows), *([last] if last else [])]


def last_segment(packet: TunPacket) -> bytes:
    """The shorter segment at the end; empty when there is none."""
    index, rest = divmod(len(packet.octets) - packet.header, packet.segment)
    return _last_segment(packet, index, rest) if rest else b""


def _is_tcp(packet: TunPacket) -> bool:
    return packet.header - packet.upper >= 20


# A ones' complement sum is the same in either order of octets, but for that order: words are read, summed and written
# as little-endian numbers, which spares swapping them.


def _little(octets: Octets) -> int:
    """The sum of an even number of octets as little-endian words."""
    return int.from_bytes(octets, "little") % 0xFFFF


def _swapped(word: int) -> int:
    return (word & 0xFF) << 8 | word >> 8


def _checks(totals: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """The checksums for sums (which are never 0)."""
    return (_WORD - totals % _WORD) % _WORD


def _write_ipv4(rows: Bytes, packet: TunPacket, length: int) -> None:
    """Length, identification and header checksum."""
    octets = packet.octets
    rows[:, 2:4] = tuple(length.to_bytes(2, "big"))
    first = octets[4] << 8 | octets[5]
    rows[:, 4:6].view(">u2")[:, 0] = np.arange(first, first + len(rows), dtype=np.uint32)  # the upper half falls away
    fixed = _little(bytes(octets[:2]) + bytes(octets[6:10]) + bytes(octets[12 : packet.upper])) + _swapped(length)
    rows[:, 10:12].view("<u2")[:, 0] = _checks(rows[:, 4:6].view("<u2")[:, 0] + np.uint32(fixed))


def _write_tcp(rows: Bytes, packet: TunPacket, payload: Bytes, more: bool) -> None:
    """Sequence numbers, flags and checksums."""
    octets, upper, header = packet.octets, packet.upper, packet.header
    count, size = payload.shape
    first = int.from_bytes(octets[upper + 4 : upper + 8], "big")
    numbers = rows[:, upper + 4 : upper + 8]
    numbers.view(">u4")[:, 0] = np.arange(first, first + count * size, size, dtype=np.uint64)
    flags = octets[upper + 13]
    middle = flags & ~(_FIN | _PSH | _CWR)
    rows[:, upper + 13] = middle
    # All but sequence number, checksum and payload.
    fixed = bytes(octets[upper : upper + 4]) + bytes(octets[upper + 8 : upper + 13]) + bytes((middle,))
    fixed += bytes(octets[upper + 14 : upper + 16]) + bytes(octets[upper + 18 : header])
    words = numbers.view("<u2")
    total = row_sums(payload) + words[:, 0] + words[:, 1] + np.uint32(_pseudo(packet) + _little(fixed))
    rows[0, upper + 13] |= flags & _CWR
    total[0] += (flags & _CWR) << 8
    if not more:
        rows[-1, upper + 13] |= flags & (_FIN | _PSH)
        total[-1] += (flags & (_FIN | _PSH)) << 8
    rows[:, upper + 16 : upper + 18].view("<u2")[:, 0] = _checks(total)


def _write_udp(rows: Bytes, packet: TunPacket, payload: Bytes) -> None:
    """Lengths and checksums."""
    octets, upper = packet.octets, packet.upper
    length = packet.header - upper + packet.segment
    rows[:, upper + 4 : upper + 6] = tuple(length.to_bytes(2, "big"))
    total = row_sums(payload) + np.uint32(_pseudo(packet) + _little(octets[upper : upper + 4]) + _swapped(length))
    check = _WORD - total % _WORD  # 0xFFFF where TCP has 0: that would say that there is none
    rows[:, upper + 6 : upper + 8].view("<u2")[:, 0] = check


def _pseudo(packet: TunPacket) -> int:
    """The sum of the pseudo-header of whole segments, in little-endian words."""
    octets = packet.octets
    addresses = octets[12:20] if octets[0] >> 4 == 4 else octets[8:40]
    length = packet.header - packet.upper + packet.segment
    return _little(addresses) + _swapped(TCP if _is_tcp(packet) else UDP) + _swapped(length)


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
        protocol, source, destination = TCP if _is_tcp(packet) else UDP, bytes(last[8:24]), bytes(last[24:40])
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


def row_sums(rows: Bytes) -> npt.NDArray[np.uint32]:
    """The sum of every row's words, little-endian; the last octet of an odd number is the lower half of one more."""
    even = rows.shape[1] & ~1
    total: npt.NDArray[np.uint32] = rows[:, :even].view("<u2").sum(axis=1, dtype=np.uint32)
    return total + rows[:, -1] if even != rows.shape[1] else total

"""Super-packets cut into segments, compared with what scapy makes segment by segment."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt

from ikeway.dataplane.userspace.segments import (
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP,
    NEEDS_CHECKSUM,
    VNET_HEADER,
    cut,
    last_segment,
    single_segments,
    taken,
    whole_segments,
)

HEADS = {
    "ipv4": lambda: IP(src="10.0.0.1", dst="10.0.0.2", id=65533, tos=0xAB),
    "ipv4-options": lambda: IP(src="10.0.0.1", dst="10.0.0.2", id=7, flags="DF", options=b"\1\1\1\1"),
    "ipv6": lambda: IPv6(src="2001:db8::1", dst="2001:db8::2", tc=3, fl=99),
    "ipv6-options": lambda: IPv6(src="2001:db8::1", dst="2001:db8::2") / IPv6ExtHdrDestOpt(),
}


def super_packet(head: object, upper: object, payload: bytes, size: int) -> memoryview:
    """What the kernel hands over: one header, the checksum unfinished."""
    octets = bytes(head / upper / payload)
    start = len(bytes(head)) if not isinstance(head, IP) else (octets[0] & 15) * 4
    start = len(octets) - len(payload) - len(bytes(upper))
    tcp = isinstance(upper, TCP)
    kind = GSO_UDP if not tcp else GSO_TCPV4 if octets[0] >> 4 == 4 else GSO_TCPV6
    header = VNET_HEADER.pack(NEEDS_CHECKSUM, kind, start + 20, size, start, 16 if tcp else 6)
    return memoryview(bytearray(header + octets))


def segments_of(packet: memoryview, trailer: bytes) -> list[bytes]:
    found = taken(packet)
    assert found is not None
    length = found.header + found.segment
    rows = np.full((whole_segments(found), length + len(trailer) + 5), 0xEE, np.uint8)
    cut(found, rows[:, : length + len(trailer)], trailer)
    assert (rows[:, length + len(trailer) :] == 0xEE).all()
    assert all(bytes(row[length : length + len(trailer)]) == trailer for row in rows)
    segments = [bytes(row[:length]) for row in rows] + ([last_segment(found)] if last_segment(found) else [])
    assert [bytes(segment) for segment in single_segments(found)] == segments
    return segments


def expected_segments(family: str, upper: object, payload: bytes, size: int) -> list[bytes]:
    result = []
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    for number, piece in enumerate(pieces):
        head, top = HEADS[family](), upper.copy()
        if isinstance(head, IP):
            head.id = (head.id + number) & 0xFFFF
        if isinstance(top, TCP):
            top.seq = (upper.seq + number * size) & 0xFFFFFFFF
            flags = int(upper.flags)
            if number:
                flags &= ~0x80
            if number < len(pieces) - 1:
                flags &= ~0x09
            top.flags = flags
        result.append(bytes(head / top / piece))
    return result


@given(
    family=st.sampled_from(sorted(HEADS)),
    size=st.sampled_from((6, 7, 8, 7, 100, 101, 536, 1348)),
    count=st.integers(1, 30),
    rest=st.sampled_from((0, 0, 1, 5, 99)),
    sequence=st.sampled_from((0, 1, 2**32 - 500, 2**31)),
    flags=st.sampled_from(("A", "PA", "FPA", "CA", "CEPA")),
    options=st.booleans(),
    tcp=st.booleans(),
    trailer=st.sampled_from((b"", b"\1\2\2\4")),
)
@settings(max_examples=150, deadline=None)
def test_segments_are_what_scapy_would_send(
    family: str, size: int, count: int, rest: int, sequence: int, flags: str, options: bool, tcp: bool, trailer: bytes
) -> None:
    payload = os.urandom(size * count + min(rest, size - 1))
    timestamps = [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))] if options else []
    upper = (
        TCP(sport=1, dport=2, seq=sequence, ack=5, flags=flags, options=timestamps) if tcp else UDP(sport=1, dport=2)
    )
    packet = super_packet(HEADS[family](), upper, payload, size)
    assert segments_of(packet, trailer) == expected_segments(family, upper, payload, size)


@pytest.mark.parametrize("family", HEADS)
@pytest.mark.parametrize("upper", [TCP(sport=1, dport=2, flags="PA"), UDP(sport=1, dport=2)], ids=["tcp", "udp"])
def test_unfinished_checksums_are_finished(family: str, upper: object) -> None:
    whole = bytes(HEADS[family]() / upper / b"payload")
    start = len(whole) - 7 - len(bytes(upper))
    place = start + (16 if isinstance(upper, TCP) else 6)
    # What is in the field is the sum of the pseudo-header: the whole sum without the rest.
    rest = sum(
        int.from_bytes((whole[start:place] + b"\0\0" + whole[place + 2 :] + b"\0")[at : at + 2], "big")
        for at in range(0, (len(whole) - start + 1) // 2 * 2, 2)
    )
    partial = (0xFFFF - int.from_bytes(whole[place : place + 2], "big") - rest) % 0xFFFF
    unfinished = whole[:place] + partial.to_bytes(2, "big") + whole[place + 2 :]
    packet = memoryview(bytearray(VNET_HEADER.pack(NEEDS_CHECKSUM, 0, 0, 0, start, place - start) + unfinished))
    found = taken(packet)
    assert found is not None
    assert found.segment == 0
    assert bytes(found.octets) == whole


@given(st.binary(max_size=120), st.sampled_from((0, 1)), st.sampled_from((0, 1, 3, 4, 5, 0x81)))
def test_no_device_header_is_fatal(octets: bytes, flags: int, kind: int) -> None:
    packet = taken(memoryview(bytearray(bytes((flags, kind)) + octets)))
    if packet is not None and packet.segment:
        assert single_segments(packet)

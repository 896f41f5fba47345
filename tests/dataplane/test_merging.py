"""Merging decrypted segments: what a super-packet was cut into becomes the same super-packet again."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from ikeway.dataplane.userspace.merging import Links, Merged, layout
from ikeway.dataplane.userspace.segments import GSO_TCPV4, GSO_TCPV6, VNET_HEADER, single_segments, taken
from ikeway.esp.drops import Drop
from tests.dataplane.test_segments import HEADS, super_packet

TRAILER = b"\1\2\2\4"


def links_of(segments: list[bytes], dropped: frozenset[int] = frozenset()) -> Links:
    rows = b"".join(bytes(segment) + TRAILER for segment in segments)
    shape = layout(segments[0])
    assert shape is not None
    results = [Drop.INTEGRITY if number in dropped else None for number in range(len(segments))]
    return Links.find(matrix(rows, len(segments[0]) + len(TRAILER)), shape, results)


def matrix(rows: bytes | bytearray, width: int) -> np.ndarray:
    """Rows as they lie in the buffer: with other octets between them."""
    return np.hstack([np.frombuffer(rows, np.uint8).reshape(-1, width), np.zeros((len(rows) // width, 9), np.uint8)])[
        :, :width
    ]


def tcp_segments(family: str = "ipv4", count: int = 8, flags: str = "PA", **fields: object) -> list[bytes]:
    upper = TCP(sport=1, dport=2, seq=1000, ack=7, flags=flags, **fields)
    packet = taken(super_packet(HEADS[family](), upper, os.urandom(100 * count), 100))
    assert packet is not None
    return [bytes(segment) for segment in single_segments(packet)]


@given(
    family=st.sampled_from(("ipv4", "ipv6")),
    count=st.integers(2, 40),
    size=st.sampled_from((6, 101, 1348)),
    rest=st.integers(0, 5),
    sequence=st.sampled_from((0, 2**32 - 300)),
    push=st.booleans(),
    options=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_cutting_and_merging_are_inverse(
    family: str, count: int, size: int, rest: int, sequence: int, push: bool, options: bool
) -> None:
    payload = os.urandom(size * count + rest)
    timestamps = [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))] if options else []
    upper = TCP(sport=1, dport=2, seq=sequence, ack=5, flags="PA" if push else "A", options=timestamps)
    whole = super_packet(HEADS[family](), upper, payload, size)
    packet = taken(whole)
    assert packet is not None
    segments = [bytes(segment) for segment in single_segments(packet)]
    links = links_of(segments[:count])
    assert links.follow == [True] * (count - 1) + [False]
    merged = links.merged(0, count)
    assert not rest or merged.append(segments[-1])
    written = b"".join(merged.buffers())
    flags, kind, header, segment, start, offset = VNET_HEADER.unpack_from(written)
    assert (flags, kind, segment, offset) == (1, GSO_TCPV4 if family == "ipv4" else GSO_TCPV6, size, 16)
    assert (header, start) == (packet.header, packet.upper)
    again = taken(memoryview(bytearray(written)))
    assert again is not None
    assert [bytes(s) for s in single_segments(again)] == segments
    # The host trusts the unfinished checksum: finishing it must give that of the whole packet.
    unsegmented = taken(
        memoryview(bytearray(VNET_HEADER.pack(1, 0, 0, 0, start, offset) + written[VNET_HEADER.size :]))
    )
    assert unsegmented is not None
    parsed = (IPv6 if family == "ipv6" else IP)(bytes(unsegmented.octets))
    del parsed[TCP].chksum
    assert bytes(parsed)[start + 16 : start + 18] == bytes(unsegmented.octets)[start + 16 : start + 18]


def changed(packet: bytes, **fields: object) -> bytes:
    """The packet with other TCP or IP fields, and right checksums."""
    parsed = IP(packet)
    for name, value in fields.items():
        setattr(parsed[TCP] if hasattr(parsed[TCP], name) and name != "flags_ip" else parsed, name, value)
    del parsed.chksum, parsed[TCP].chksum
    return bytes(parsed)


@pytest.mark.parametrize(
    "fields",
    [
        {"ack": 8},
        {"window": 1},
        {"sport": 9},
        {"seq": 5},
        {"flags": "FA"},
        {"flags": "EA"},
        {"urgptr": 4, "flags": "UA"},
        {"ttl": 3},
        {"tos": 3},
        {"src": "10.9.9.9"},
    ],
    ids=str,
)
def test_segments_that_differ_are_not_merged(fields: dict[str, object]) -> None:
    segments = tcp_segments(count=5)
    segments[2] = changed(segments[2], **fields)
    assert links_of(segments).follow == [True, False, False, True, False]
    merged = links_of(segments).merged(0, 2)
    assert not merged.append(segments[2])


def test_wrong_checksums_are_not_hidden() -> None:
    for place in (10, 36, 60):
        segments = tcp_segments(count=5)
        bad = bytearray(segments[2])
        bad[place] ^= 1
        segments[2] = bytes(bad)
        assert links_of(segments).follow == [True, False, False, True, False]
        assert not links_of(segments).merged(0, 2).append(bytes(bad))


def test_dropped_rows_break_the_train() -> None:
    segments = tcp_segments(count=6)
    assert links_of(segments, frozenset({0, 3})).follow == [False, True, False, False, True, False]


def test_two_flows_in_one_train() -> None:
    one, other = tcp_segments(count=3), [changed(s, sport=99) for s in tcp_segments(count=3)]
    assert links_of(one + other).follow == [True, True, False, True, True, False]


def test_a_shorter_segment_ends_a_super_packet() -> None:
    first = tcp_segments(count=3)
    upper = TCP(sport=1, dport=2, seq=1300, ack=7, flags="A")
    head = HEADS["ipv4"]()
    head.id = head.id + 3 & 0xFFFF
    short = bytes(head / upper / b"short")
    after = bytes(head / TCP(sport=1, dport=2, seq=1305, ack=7, flags="A") / b"short")
    merged = links_of(first).merged(0, 3)
    assert not merged.append(bytes(HEADS["ipv4"]() / upper / b"short"))  # another identification than cutting gives
    assert merged.append(short)
    assert not merged.append(after)


@pytest.mark.parametrize(
    "packet",
    [
        IP() / UDP() / (b"x" * 40),
        IP(frag=3, proto=6) / bytes(b"x" * 40),
        IP(flags="MF") / TCP() / b"x",
        IP(options=b"\1\1\1\1") / TCP() / b"x",
        IP() / TCP(),
        IPv6() / UDP() / (b"x" * 40),
    ],
)
def test_only_tcp_with_a_payload_is_merged(packet: object) -> None:
    assert layout(bytes(packet)) is None


@given(st.binary(min_size=60, max_size=60), st.binary(min_size=20, max_size=100))
def test_any_rows_are_survived(row: bytes, tail: bytes) -> None:
    segments = tcp_segments(count=4)
    width = len(segments[0]) + len(TRAILER)
    rows = bytearray(b"".join(s + TRAILER for s in segments))
    rows[width : width + 60] = row
    shape = layout(segments[0])
    assert shape is not None
    links = Links.find(matrix(rows, width), shape, [None] * 4)
    assert links.follow[0] == (bytes(rows[width : 2 * width]) == segments[1] + TRAILER)
    assert isinstance(links.merged(0, 2), Merged)
    assert not links.merged(2, 4).append(tail)

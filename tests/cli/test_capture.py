"""Captures as others write them are read."""

from __future__ import annotations

import io
import struct

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import CookedLinux, Dot1Q, Ether
from scapy.packet import Packet, Raw

from ikeway.cli.capture import is_capture, read_udp
from ikeway.errors import WireError
from tests.vectors import vector

INSIDE = UDP(sport=500, dport=4500) / Raw(b"hello")
# With addresses, so that Scapy asks nobody for them.
ETHERNET = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
V4, V6 = IP(src="192.0.2.1", dst="192.0.2.2"), IPv6(src="2001:db8::1", dst="2001:db8::2")


def pcap(frame: bytes, link_type: int, *, order: str = "<", nanoseconds: bool = False) -> bytes:
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    head = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, link_type)
    return head + struct.pack(f"{order}IIII", 1, 2, len(frame), len(frame)) + frame


@pytest.mark.parametrize(
    ("frame", "link_type"),
    [
        (V4 / INSIDE, 101),
        (V6 / INSIDE, 101),
        (V4 / INSIDE, 228),
        (ETHERNET / V4 / INSIDE, 1),
        (ETHERNET / V6 / INSIDE, 1),
        (ETHERNET / Dot1Q(vlan=5) / V4 / INSIDE, 1),
        (V6 / IPv6ExtHdrDestOpt() / INSIDE, 101),
        (CookedLinux(proto=0x0800) / V4 / INSIDE, 113),
        (Raw(struct.pack("!HHiHBB8s", 0x0800, 0, 1, 1, 0, 6, bytes(8))) / V4 / INSIDE, 276),
        (Raw(struct.pack("<I", 2)) / V4 / INSIDE, 0),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_link_types_and_byte_orders(frame: Packet, link_type: int, order: str) -> None:
    for nanoseconds in (False, True):
        octets = pcap(bytes(frame), link_type, order=order, nanoseconds=nanoseconds)
        assert is_capture(octets)
        (packet,) = read_udp(octets)
        assert (packet.number, packet.octets) == (1, b"hello")
        assert (packet.source.port, packet.destination.port) == (500, 4500)


@pytest.mark.parametrize(
    "frame",
    [
        V4 / UDP(sport=500, dport=500, len=100) / Raw(b"cut"),
        IP(src="192.0.2.1", dst="192.0.2.2", flags="MF") / INSIDE,
        IP(src="192.0.2.1", dst="192.0.2.2", frag=3) / INSIDE,
        V6 / IPv6ExtHdrFragment(m=1) / INSIDE,
        IP(src="192.0.2.1", dst="192.0.2.2", proto=6) / Raw(b"tcp" * 10),
        Raw(b"\x45"),
        Raw(b""),
        Raw(b"\x99" * 30),
    ],
)
def test_other_packets_are_left_out(frame: Packet) -> None:
    assert list(read_udp(pcap(bytes(frame), 101))) == []


def test_dpkt_writes_what_is_read() -> None:
    file = io.BytesIO()
    writer = dpkt.pcapng.Writer(file, linktype=101)
    writer.writepkt(bytes(V4 / INSIDE), ts=1.0)
    assert [packet.octets for packet in read_udp(file.getvalue())] == [b"hello"]


@given(st.binary(max_size=300))
def test_rubbish_makes_no_other_error(octets: bytes) -> None:
    for head in (b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x0a\x0d\x0d\x0a", pcap(b"", 101)[:24], pcap(b"", 1)[:24]):
        try:
            list(read_udp(head + octets))
        except WireError as error:
            assert error.offset >= 0


def test_real_captures() -> None:
    """tcpdump's own test captures are read, or refused as damaged."""
    folder = vector("pcap/tcpdump")
    seen = 0
    for path in sorted(folder.rglob("*.pcap")):
        octets = path.read_bytes()
        if not is_capture(octets):
            continue
        try:
            seen += sum(1 for _ in read_udp(octets))
        except WireError:
            continue
    assert seen > 50

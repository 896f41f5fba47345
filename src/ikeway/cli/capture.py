"""Reads UDP payloads out of capture files: pcap and pcapng, as tcpdump, Wireshark and `--pcap` write them."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ikeway.address import Address
from ikeway.errors import WireError

_UDP = 17
_EXTENSIONS = frozenset({0, 43, 60})  # hop-by-hop, routing, destination options (RFC 8200 section 4.1)
_ETHERTYPES = frozenset({0x0800, 0x86DD})
_VLAN = frozenset({0x8100, 0x88A8})
_PCAPNG = 0x0A0D0D0A


@dataclass(frozen=True, slots=True)
class UdpPacket:
    """A UDP datagram of a capture; `number` counts all packets of the file from 1, as Wireshark does."""

    number: int
    source: Address
    destination: Address
    octets: bytes


def is_capture(octets: bytes) -> bool:
    """True for the first octets of a pcap or pcapng file."""
    return octets[:4] in {
        b"\xd4\xc3\xb2\xa1",
        b"\xa1\xb2\xc3\xd4",
        b"\x4d\x3c\xb2\xa1",
        b"\xa1\xb2\x3c\x4d",
        b"\x0a\x0d\x0d\x0a",
    }


def read_udp(octets: bytes) -> Iterator[UdpPacket]:
    """The UDP datagrams of a capture; other packets, later fragments and cut packets are left out. Raises `WireError`
    where the file is damaged."""
    frames = _pcapng(octets) if octets[:4] == b"\x0a\x0d\x0d\x0a" else _pcap(octets)
    for number, (link_type, frame) in enumerate(frames, 1):
        packet = _network(link_type, frame)
        found = _udp(packet) if packet else None
        if found is not None:
            yield UdpPacket(number, *found)


def _pcap(octets: bytes) -> Iterator[tuple[int, bytes]]:
    order = "<" if octets[:1] in {b"\xd4", b"\x4d"} else ">"
    if len(octets) < 24:
        raise WireError("the capture is cut short in its head", offset=len(octets))
    link_type = struct.unpack_from(f"{order}I", octets, 20)[0] & 0xFFFF
    offset = 24
    while offset < len(octets):
        if offset + 16 > len(octets):
            raise WireError("the capture is cut short", offset=offset)
        length = struct.unpack_from(f"{order}I", octets, offset + 8)[0]
        if offset + 16 + length > len(octets):
            raise WireError("the capture is cut short in a packet", offset=offset)
        yield link_type, octets[offset + 16 : offset + 16 + length]
        offset += 16 + length


def _pcapng(octets: bytes) -> Iterator[tuple[int, bytes]]:
    order, offset = "<", 0
    link_types: list[int] = []
    while offset < len(octets):
        if offset + 12 > len(octets):
            raise WireError("the capture is cut short", offset=offset)
        if octets[offset : offset + 4] == b"\x0a\x0d\x0d\x0a":
            order = "<" if octets[offset + 8 : offset + 12] == b"\x4d\x3c\x2b\x1a" else ">"
            link_types = []
        kind, length = struct.unpack_from(f"{order}II", octets, offset)
        if length < 12 or length % 4 or offset + length > len(octets):
            raise WireError("a block of the capture has a wrong length", offset=offset, got=str(length))
        body = octets[offset + 8 : offset + length - 4]
        if kind == 1 and len(body) >= 2:
            link_types.append(struct.unpack_from(f"{order}H", body)[0])
        elif kind == 6 and len(body) >= 20:
            interface, _, _, captured = struct.unpack_from(f"{order}IIII", body)
            if interface < len(link_types) and captured <= len(body) - 20:
                yield link_types[interface], body[20 : 20 + captured]
        elif kind == 3 and len(body) >= 4 and link_types:
            yield link_types[0], body[4 : 4 + struct.unpack_from(f"{order}I", body)[0]]
        offset += length


def _network(link_type: int, frame: bytes) -> bytes:
    """The IP packet of a frame; empty when there is none."""
    if link_type == 1:  # Ethernet
        at = 12
        while int.from_bytes(frame[at : at + 2]) in _VLAN:
            at += 4
        return frame[at + 2 :] if int.from_bytes(frame[at : at + 2]) in _ETHERTYPES else b""
    if link_type in {12, 14, 101, 228, 229}:  # raw IP
        return frame
    if link_type in {0, 108}:  # loopback of BSD: the address family
        return frame[4:]
    if link_type == 113:  # Linux "cooked" (tcpdump -i any)
        return frame[16:] if int.from_bytes(frame[14:16]) in _ETHERTYPES else b""
    if link_type == 276:  # the same, version 2
        return frame[20:] if int.from_bytes(frame[:2]) in _ETHERTYPES else b""
    return b""


def _udp(packet: bytes) -> tuple[Address, Address, bytes] | None:
    version = packet[0] >> 4
    if version == 4 and len(packet) >= 20:
        head, total = (packet[0] & 15) * 4, int.from_bytes(packet[2:4])
        fragment = int.from_bytes(packet[6:8])
        if packet[9] != _UDP or fragment & 0x3FFF or head < 20:
            return None
        source, destination, body = packet[12:16], packet[16:20], packet[head:total]
    elif version == 6 and len(packet) >= 40:
        following, at, end = packet[6], 40, 40 + int.from_bytes(packet[4:6])
        while following in _EXTENSIONS and at + 8 <= len(packet):
            following, at = packet[at], at + 8 * (packet[at + 1] + 1)
        if following != _UDP:
            return None
        source, destination, body = packet[8:24], packet[24:40], packet[at:end]
    else:
        return None
    if len(body) < 8 or int.from_bytes(body[4:6]) != len(body):
        return None
    ports = int.from_bytes(body[:2]), int.from_bytes(body[2:4])
    return (
        Address(str(ipaddress.ip_address(source)), ports[0]),
        Address(str(ipaddress.ip_address(destination)), ports[1]),
        body[8:],
    )

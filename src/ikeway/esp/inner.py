"""What of an inner IP packet the selectors look at (RFC 4301 section 4.4.1.1)."""

from __future__ import annotations

from typing import NamedTuple

TCP, UDP, ICMP, ICMPV6, SCTP, DCCP, UDPLITE, MOBILITY = 6, 17, 1, 58, 132, 33, 136, 135

HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION = 0, 43, 44, 51, 60

_WITH_PORTS = frozenset({TCP, UDP, SCTP, DCCP, UDPLITE})
_WITH_TYPE = frozenset({ICMP, ICMPV6})
_COMMON, _COMMON_IPV6 = frozenset({TCP, UDP, ICMP}), frozenset({TCP, UDP, ICMPV6})
_EXTENSIONS = frozenset({HOP_BY_HOP, ROUTING, AUTHENTICATION, DESTINATION})
_MOST_EXTENSIONS = 8

# RFC 4301's OPAQUE: the packet has no ports, or hides them (a fragment).
OPAQUE = -1

Octets = bytes | bytearray | memoryview


class Flow(NamedTuple):
    """The selector fields of a packet. For ICMP both ports are type * 256 + code (RFC 7296 section 3.13.1).

    `header` counts the octets before the upper layer, `length` those of the whole packet as its header says.
    """

    protocol: int
    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    header: int
    length: int


def parse(packet: Octets) -> Flow | None:
    """The flow of an IPv4 or IPv6 packet; None when it is malformed. Octets behind the packet do not matter."""
    if not len(packet):
        return None
    version = packet[0] >> 4
    if version == 4:
        return _parse_ipv4(packet)
    if version == 6:
        return _parse_ipv6(packet)
    return None


def cache_key(packet: Octets) -> bytes | None:
    """Octets that settle the flow of a common packet, or None for one that has to be parsed.

    Common: TCP, UDP or ICMP, unfragmented, without IP options. Only flows whose packet could be parsed may be cached,
    as a short packet gives a short key.
    """
    if len(packet) < 20:
        return None
    if packet[0] == 0x45:
        if packet[9] in _COMMON and not packet[6] & 0x3F and not packet[7]:
            return bytes(packet[9:10]) + bytes(packet[12 : 22 if packet[9] == ICMP else 24])
    elif packet[0] >> 4 == 6 and packet[6] in _COMMON_IPV6:
        return bytes(packet[6:7]) + bytes(packet[8 : 42 if packet[6] == ICMPV6 else 44])
    return None


def _parse_ipv4(packet: Octets) -> Flow | None:
    if len(packet) < 20:
        return None
    header = (packet[0] & 15) * 4
    length = packet[2] << 8 | packet[3]
    if not 20 <= header <= length <= len(packet):
        return None
    source, destination = bytes(packet[12:16]), bytes(packet[16:20])
    offset = (packet[6] & 0x1F) << 8 | packet[7]
    ports = _ports(packet, packet[9], header, length, offset)
    if ports is None:
        return None
    return Flow(packet[9], source, destination, *ports, header, length)


def _parse_ipv6(packet: Octets) -> Flow | None:
    if len(packet) < 40:
        return None
    length = 40 + (packet[4] << 8 | packet[5])
    if length > len(packet):  # jumbograms (payload length 0) would say 40 and lose their payload: no such links here
        return None
    source, destination = bytes(packet[8:24]), bytes(packet[24:40])
    protocol, at, offset = packet[6], 40, 0
    for _ in range(_MOST_EXTENSIONS):
        if protocol == FRAGMENT:
            if at + 8 > length:
                return None
            offset = (packet[at + 2] << 8 | packet[at + 3]) >> 3
            protocol, at = packet[at], at + 8
            if offset:
                break
        elif protocol in _EXTENSIONS:
            if at + 8 > length:
                return None
            size = (packet[at + 1] + 2) * 4 if protocol == AUTHENTICATION else (packet[at + 1] + 1) * 8
            protocol, at = packet[at], at + size
            if at > length:
                return None
        else:
            break
    else:
        return None
    ports = _ports(packet, protocol, at, length, offset)
    if ports is None:
        return None
    return Flow(protocol, source, destination, *ports, at, length)


def _ports(packet: Octets, protocol: int, at: int, length: int, fragment_offset: int) -> tuple[int, int] | None:
    """Source and destination port, `OPAQUE` where there are none; None when they are cut off."""
    if fragment_offset:
        return OPAQUE, OPAQUE
    if protocol in _WITH_PORTS:
        if at + 4 > length:
            return None
        return packet[at] << 8 | packet[at + 1], packet[at + 2] << 8 | packet[at + 3]
    if protocol in _WITH_TYPE:
        if at + 2 > length:
            return None
        message = packet[at] << 8 | packet[at + 1]
        return message, message
    if protocol == MOBILITY:
        if at + 3 > length:
            return None
        return packet[at + 2] << 8, packet[at + 2] << 8
    return OPAQUE, OPAQUE

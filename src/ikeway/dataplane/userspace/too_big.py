"""Telling an inner sender that its packet does not fit (RFC 1191, RFC 4443 section 3.2, RFC 4301 section 8.2)."""

from __future__ import annotations

from ikeway.esp.checksum import checksum, pseudo_header_sum
from ikeway.esp.inner import ICMP, ICMPV6, Octets

_HOP_LIMIT = 64
SMALLEST_IPV6_MTU = 1280
_QUOTED_IPV4 = 548  # RFC 1812 section 4.3.2.3: the whole message within 576 octets
_ERRORS_IPV4 = frozenset({3, 4, 5, 11, 12})


def may_fragment(packet: Octets) -> bool:
    """True for an IPv4 packet without DF: it is sent, and the outer packet is fragmented."""
    return packet[0] >> 4 == 4 and not packet[6] & 0x40


def packet_too_big(packet: Octets, mtu: int) -> bytes | None:
    """The ICMP message for a packet that would fit in `mtu` octets only, as if from its destination.

    None when none must be sent: on an ICMP error, on a fragment, to no single host (RFC 1122 section 3.2.2).
    """
    if packet[0] >> 4 == 4:
        return _ipv4(packet, mtu)
    return _ipv6(packet, max(mtu, SMALLEST_IPV6_MTU))


def _ipv4(packet: Octets, mtu: int) -> bytes | None:
    header = (packet[0] & 15) * 4
    fragment = packet[6] & 0x1F or packet[7]
    icmp_error = packet[9] == ICMP and len(packet) > header and packet[header] in _ERRORS_IPV4
    if fragment or icmp_error or packet[12] >= 224 or packet[16] >= 224 or not any(packet[12:16]):
        return None
    body = b"\3\4\0\0\0\0" + mtu.to_bytes(2, "big") + bytes(packet[:_QUOTED_IPV4])
    body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
    head = bytearray(20)
    head[0] = 0x45
    head[2:4] = (20 + len(body)).to_bytes(2, "big")
    head[8], head[9] = _HOP_LIMIT, ICMP
    head[12:16], head[16:20] = packet[16:20], packet[12:16]
    head[10:12] = checksum(head).to_bytes(2, "big")
    return bytes(head) + body


def _ipv6(packet: Octets, mtu: int) -> bytes | None:
    icmp_error = packet[6] == ICMPV6 and len(packet) > 40 and packet[40] < 128
    if icmp_error or packet[8] == 0xFF or not any(packet[8:24]):
        return None
    source, destination = bytes(packet[24:40]), bytes(packet[8:24])
    if source[0] == 0xFF:
        return None
    body = b"\2\0\0\0" + mtu.to_bytes(4, "big") + bytes(packet[: SMALLEST_IPV6_MTU - 48])
    check = checksum(body, pseudo_header_sum(source, destination, ICMPV6, len(body)))
    body = body[:2] + check.to_bytes(2, "big") + body[4:]
    return b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes((ICMPV6, _HOP_LIMIT)) + source + destination + body

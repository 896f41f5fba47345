"""Explicit congestion notification and DSCP through a tunnel (RFC 6040, RFC 4301 section 5.1.2)."""

from __future__ import annotations

from ikeway.esp.checksum import adjusted
from ikeway.esp.inner import Octets

NOT_ECT, ECT_1, ECT_0, CE = range(4)

# What leaves the tunnel by (inner, outer); -1: drop (RFC 6040 figure 4).
_EGRESS: tuple[tuple[int, ...], ...] = (
    # outer: Not-ECT, ECT(1), ECT(0), CE
    (NOT_ECT, NOT_ECT, NOT_ECT, -1),  # inner Not-ECT
    (ECT_1, ECT_1, ECT_1, CE),  # inner ECT(1)
    (ECT_0, ECT_1, ECT_0, CE),  # inner ECT(0)
    (CE, CE, CE, CE),  # inner CE
)


def egress(inner: int, outer: int) -> int:
    """The ECN field of the packet that leaves the tunnel; -1 when it must be dropped (RFC 6040 section 4.2)."""
    return _EGRESS[inner & 3][outer & 3]


def traffic_class(packet: Octets) -> int:
    """DSCP and ECN of an IPv4 or IPv6 packet. The outer header gets the same (normal mode, RFC 6040 section 4.1)."""
    if packet[0] >> 4 == 4:
        return packet[1]
    return (packet[0] << 4 | packet[1] >> 4) & 0xFF


def apply_outer(packet: Octets, outer: int) -> Octets | None:
    """The inner packet with the outer ECN field carried into it (a copy if it changes); None: drop it."""
    inner = traffic_class(packet) & 3
    after = egress(inner, outer)
    if after == inner:
        return packet
    return None if after < 0 else _with_ecn(bytearray(packet), inner, after)


def _with_ecn(packet: bytearray, before: int, after: int) -> bytearray:
    if packet[0] >> 4 == 6:
        packet[1] = packet[1] & 0xCF | after << 4
        return packet
    packet[1] = packet[1] & 0xFC | after
    check = adjusted(packet[10] << 8 | packet[11], before, after)  # the same word, but for these two bits
    packet[10], packet[11] = check >> 8, check & 0xFF
    return packet

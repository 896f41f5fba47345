"""The Internet checksum (RFC 1071) of small things; batches are summed by the data plane."""

from __future__ import annotations

from ikeway.esp.inner import Octets


def ones_complement_sum(octets: Octets) -> int:
    """The 16-bit ones' complement sum, not inverted. 2^16 is 1 modulo 2^16 - 1, so one division adds all words."""
    value = int.from_bytes(octets, "big")
    if len(octets) & 1:
        value <<= 8
    return value % 0xFFFF or (0xFFFF if value else 0)


def checksum(octets: Octets, start: int = 0) -> int:
    """The checksum of octets on top of a sum (of a pseudo-header)."""
    total = ones_complement_sum(octets) + start
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def pseudo_header_sum(source: bytes, destination: bytes, protocol: int, length: int) -> int:
    """The sum of the pseudo-header of TCP, UDP and ICMPv6 (RFC 9293 section 3.1, RFC 8200 section 8.1)."""
    return ones_complement_sum(source + destination + length.to_bytes(4, "big") + protocol.to_bytes(4, "big"))


def adjusted(check: int, before: int, after: int) -> int:
    """A checksum after one of the 16-bit words it covers has changed (RFC 1624, equation 3)."""
    total = (~check & 0xFFFF) + (~before & 0xFFFF) + after
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF

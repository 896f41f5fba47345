"""What the network says against a datagram of ours: who says it, and in which words (Linux: IP_RECVERR, ip(7)).

An errno alone does not tell a firewall that refuses from a host that is not there: both are EHOSTUNREACH.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct

_IP_RECVERR, _IPV6_RECVERR = 11, 25  # linux/in.h, linux/in6.h; Python has no names for them
_ERROR = struct.Struct("=IBBBBII")  # struct sock_extended_err: errno, origin, type, code, pad, info, data
_ORIGIN_ICMP, _ORIGIN_ICMP6 = 2, 3
_ERROR_QUEUE = getattr(socket, "MSG_ERRQUEUE", 0)  # Linux
_MAX_ERRORS = 16
_UNREACHABLE_4, _UNREACHABLE_6 = 3, 1
PORT_UNREACHABLE = "the port is closed (ICMP port unreachable)"
_PROHIBITED = "a firewall forbids it (ICMP administratively prohibited)"
_WORDS: dict[tuple[int, int, int], str] = {
    (_ORIGIN_ICMP, _UNREACHABLE_4, 0): "no way to the network (ICMP network unreachable)",
    (_ORIGIN_ICMP, _UNREACHABLE_4, 1): "no way to the host (ICMP host unreachable)",
    (_ORIGIN_ICMP, _UNREACHABLE_4, 2): "the host has no UDP (ICMP protocol unreachable)",
    (_ORIGIN_ICMP, _UNREACHABLE_4, 3): PORT_UNREACHABLE,
    (_ORIGIN_ICMP, _UNREACHABLE_4, 4): "the message is too long for the way (ICMP fragmentation needed)",
    **{(_ORIGIN_ICMP, _UNREACHABLE_4, code): _PROHIBITED for code in (9, 10, 13)},
    (_ORIGIN_ICMP6, _UNREACHABLE_6, 0): "no way to the network (ICMPv6 no route)",
    (_ORIGIN_ICMP6, _UNREACHABLE_6, 1): "a firewall forbids it (ICMPv6 administratively prohibited)",
    (_ORIGIN_ICMP6, _UNREACHABLE_6, 3): "no way to the host (ICMPv6 address unreachable)",
    (_ORIGIN_ICMP6, _UNREACHABLE_6, 4): "the port is closed (ICMPv6 port unreachable)",
    **{(_ORIGIN_ICMP6, _UNREACHABLE_6, code): "a firewall forbids it (ICMPv6 policy)" for code in (5, 6)},
}


def listen(opened: socket.socket) -> None:
    """Have errors queued with what ICMP said, where the system can."""
    option = (
        (socket.IPPROTO_IPV6, _IPV6_RECVERR) if opened.family == socket.AF_INET6 else (socket.IPPROTO_IP, _IP_RECVERR)
    )
    with contextlib.suppress(OSError):
        opened.setsockopt(*option, 1)


def words(opened: socket.socket, host: str) -> str | None:
    """The last thing that ICMP said, in words, and who said it unless it is `host`; None when ICMP said nothing."""
    said = None
    for _ in range(_MAX_ERRORS if _ERROR_QUEUE else 0):
        try:
            _, ancillary, _, _ = opened.recvmsg(0, 512, _ERROR_QUEUE | socket.MSG_DONTWAIT)
        except OSError:
            break
        for _, _, octets in ancillary:
            said = _described(octets, host) or said
    return said


def _described(octets: bytes, host: str) -> str | None:
    if len(octets) < _ERROR.size:
        return None
    _, origin, kind, code, _, _, _ = _ERROR.unpack_from(octets)
    if origin not in (_ORIGIN_ICMP, _ORIGIN_ICMP6):
        return None
    text = _WORDS.get((origin, kind, code), f"the network refuses it (ICMP type {kind}, code {code})")
    offender = _offender(octets[_ERROR.size :], origin)
    return text if offender in (None, host) else f"{text}, says {offender}"


def _offender(octets: bytes, origin: int) -> str | None:
    """The address in a sockaddr_in or sockaddr_in6."""
    start, size = (4, 4) if origin == _ORIGIN_ICMP else (8, 16)
    packed = octets[start : start + size]
    return str(ipaddress.ip_address(packed)) if len(packed) == size and any(packed) else None

"""Datagrams whose local address is known on receipt and chosen on sending, and errors that the path reports.

The sockets are made by whoever starts the data plane and shared with the worker: the worker reads them, both send on
them. Link-local IPv6 peers are not supported, as an `Address` has no scope.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from ikeway.address import Address
from ikeway.errors import HostError
from ikeway.esp.parameters import EspSa

Ancillary = tuple[int, int, bytes]

# <linux/in.h>, <linux/in6.h>, <linux/udp.h>
_IP_TOS, _IP_PKTINFO, _IP_MTU_DISCOVER, _IP_RECVERR, _IP_RECVTOS = 1, 8, 10, 11, 13
_IPV6_MTU_DISCOVER, _IPV6_RECVERR, _IPV6_V6ONLY, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 23, 25, 26, 49, 50
_IPV6_RECVTCLASS, _IPV6_TCLASS = 66, 67
_PMTUDISC_WANT = 1
_UDP_SEGMENT, _UDP_GRO = 103, 104
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_ORIGIN_ICMP, _ORIGIN_ICMP6 = 2, 3

_IN_PKTINFO = struct.Struct("=i4s4s")
_IN6_PKTINFO = struct.Struct("=16si")
_EXTENDED_ERROR = struct.Struct("=IBBBBII")

BUFFER_OCTETS = 8 << 20
ANCILLARY_OCTETS = 512
ESP_PROTOCOL = 50
NON_ESP_MARKER = bytes(4)


def open_udp(local: Address, *, mark: int = 0, group: bool = False) -> socket.socket:
    """A UDP socket bound to an address (`0.0.0.0`/`::` for all), ready for `receive_datagram`. Raises `HostError`.

    `mark` is the firewall mark of what it sends, for policy routing. `group` makes it a member of a group of sockets on
    that port (see `steering`).
    """
    family = socket.AF_INET6 if local.is_ipv6 else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        raise HostError(f"cannot make a UDP socket for {local}: {error.strerror}") from error
    try:
        _prepare(sock, family, mark)
        if group:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((local.host, local.port))
    except OSError as error:
        sock.close()
        remedies = {
            errno.EADDRINUSE: "end the other IKE daemon (charon, pluto, iked, racoon) or take another port",
            errno.EACCES: "run as root, or with CAP_NET_BIND_SERVICE, or take a port above 1023",
            errno.EADDRNOTAVAIL: "take an address that this host has",
        }
        remedy = remedies.get(error.errno or 0, "")
        raise HostError(f"cannot listen on {local}: {error.strerror}", remedy=remedy) from error
    return sock


def open_esp(host: str, *, mark: int = 0) -> socket.socket:
    """A raw socket for ESP as IP protocol 50, bound to an address. Raises `HostError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_RAW, ESP_PROTOCOL)
    except OSError as error:
        remedy = "run as root, or let ESP go in UDP" if error.errno == errno.EPERM else ""
        raise HostError(f"cannot make a raw ESP socket: {error.strerror}", remedy=remedy) from error
    try:
        _prepare(sock, family, mark)
        sock.bind((host, 0))
    except OSError as error:
        sock.close()
        raise HostError(f"cannot take ESP on {host}: {error.strerror}") from error
    return sock


def _prepare(sock: socket.socket, family: int, mark: int) -> None:
    sock.setblocking(False)
    if family == socket.AF_INET6:
        level, options = socket.IPPROTO_IPV6, (_IPV6_RECVPKTINFO, _IPV6_RECVTCLASS, _IPV6_RECVERR)
        if sock.type == socket.SOCK_DGRAM:  # raw sockets are so anyway and refuse the option
            sock.setsockopt(level, _IPV6_V6ONLY, 1)
        sock.setsockopt(level, _IPV6_MTU_DISCOVER, _PMTUDISC_WANT)
    else:
        level, options = socket.IPPROTO_IP, (_IP_PKTINFO, _IP_RECVTOS, _IP_RECVERR)
        sock.setsockopt(level, _IP_MTU_DISCOVER, _PMTUDISC_WANT)
    for option in options:
        sock.setsockopt(level, option, 1)
    for force, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, BUFFER_OCTETS)
        except OSError:  # without CAP_NET_ADMIN: as much as the host allows
            sock.setsockopt(socket.SOL_SOCKET, plain, BUFFER_OCTETS)
    if mark:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)


def accept_merged(sock: socket.socket, accept: bool = True) -> None:
    """Let the kernel hand over several datagrams of one sender at once (UDP_GRO), where it can; or no longer."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, accept)


class Received(NamedTuple):
    """What came with a datagram. `segment` is the length of each of several merged ones, or of the only one."""

    length: int
    source: tuple[str, int]
    local: bytes
    traffic_class: int
    segment: int


def receive_into(sock: socket.socket, buffer: bytearray | memoryview) -> Received:
    """Read one datagram, or several merged ones. Raises `OSError` (`BlockingIOError` when there is none)."""
    length, ancillary, _, source = sock.recvmsg_into([buffer], ANCILLARY_OCTETS, socket.MSG_DONTWAIT)
    local, traffic_class, segment = b"", 0, length
    for level, kind, octets in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            local = octets[4:8]
        elif level == socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO:
            local = octets[:16]
        elif level == socket.IPPROTO_UDP and kind == _UDP_GRO:
            segment = int.from_bytes(octets[:4], "little") or length
        elif (level, kind) in ((socket.IPPROTO_IP, _IP_TOS), (socket.IPPROTO_IPV6, _IPV6_TCLASS)):
            traffic_class = octets[0]  # one octet (IPv4) or a little-endian int (IPv6)
    return Received(length, (source[0].partition("%")[0], source[1]), local, traffic_class, segment)


@lru_cache(maxsize=4096)
def host_text(packed: bytes) -> str:
    """The text of an address; empty for none."""
    if not packed:
        return ""
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


@lru_cache(maxsize=4096)
def canonical(address: Address) -> Address:
    """The address in the form in which the kernel writes it. Raises `HostError` when it is none."""
    family = socket.AF_INET6 if address.is_ipv6 else socket.AF_INET
    try:
        return Address(socket.inet_ntop(family, socket.inet_pton(family, address.host)), address.port)
    except OSError as error:
        raise HostError(f"{address.host!r} is not an IP address") from error


def with_canonical_addresses(sa: EspSa) -> EspSa:
    """The SA with outer addresses as the kernel writes them. Raises `HostError`."""
    local, remote = canonical(sa.local), canonical(sa.remote)
    return sa if (local, remote) == (sa.local, sa.remote) else replace(sa, local=local, remote=remote)


@lru_cache(maxsize=4096)
def source_ancillary(host: str) -> Ancillary:
    """What chooses the local address of a datagram."""
    if ":" in host:
        return socket.IPPROTO_IPV6, _IPV6_PKTINFO, _IN6_PKTINFO.pack(socket.inet_pton(socket.AF_INET6, host), 0)
    return socket.IPPROTO_IP, _IP_PKTINFO, _IN_PKTINFO.pack(0, socket.inet_pton(socket.AF_INET, host), bytes(4))


@lru_cache(maxsize=512)
def traffic_class_ancillary(ipv6: bool, value: int) -> Ancillary:
    """What sets DSCP and ECN of a datagram."""
    octets = value.to_bytes(4, "little")
    return (socket.IPPROTO_IPV6, _IPV6_TCLASS, octets) if ipv6 else (socket.IPPROTO_IP, _IP_TOS, octets)


@lru_cache(maxsize=4096)
def segment_ancillary(octets: int) -> Ancillary:
    """What lets the kernel cut one send into datagrams of this length (UDP_SEGMENT)."""
    return socket.IPPROTO_UDP, _UDP_SEGMENT, octets.to_bytes(2, "little")


def is_unspecified(host: str) -> bool:
    """True for the address of all interfaces."""
    return host in ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound


def send_datagram(sock: socket.socket, octets: bytes, local: Address, remote: Address) -> bool:
    """Send one datagram from a chosen address. False when the host did not take it; the peer will ask again.

    An error left behind by an earlier datagram (an ICMP message) is reported by the kernel on the next call, so one
    more try is made.
    """
    ancillary = [] if is_unspecified(local.host) else [source_ancillary(local.host)]
    for _ in range(2):
        try:
            sock.sendmsg([octets], ancillary, socket.MSG_DONTWAIT, (remote.host, remote.port))
        except OSError:
            continue
        return True
    return False


def receive_datagram(sock: socket.socket) -> tuple[bytes, Address, Address] | None:
    """One datagram with its local and remote address; None when there is none. For sockets that the daemon reads."""
    buffer = bytearray(65536)
    while True:
        try:
            received = receive_into(sock, buffer)
        except BlockingIOError:
            return None
        except OSError:
            path_errors(sock)
            continue
        port = sock.getsockname()[1]
        local = Address(host_text(received.local), port)
        return bytes(buffer[: received.length]), local, Address(*received.source)


class PathError(NamedTuple):
    """What ICMP said of a packet that we sent to `remote`: an errno, and with EMSGSIZE the path's MTU."""

    remote: Address
    code: int
    mtu: int


def path_errors(sock: socket.socket) -> list[PathError]:
    """Empty the socket's error queue; what ICMP left in it. Unauthenticated: hints only."""
    found: list[PathError] = []
    for _ in range(64):
        try:
            _, ancillary, _, destination = sock.recvmsg(0, ANCILLARY_OCTETS, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        except OSError:
            break
        for level, kind, octets in ancillary:
            if (level, kind) not in ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)):
                continue
            code, origin, _, _, _, mtu, _ = _EXTENDED_ERROR.unpack_from(octets)
            if origin in (_ORIGIN_ICMP, _ORIGIN_ICMP6) and destination:
                remote = Address(destination[0].partition("%")[0], destination[1])
                found.append(PathError(remote, code, mtu))
    return found

"""The UDP sockets of IKE: port 500, and 4500 with the non-ESP marker (RFC 7296 section 2, RFC 3948 section 2.2).

A socket that is bound to the wildcard still knows, for each datagram, the local address that it was sent to
(IP_PKTINFO), and sends from the address that it is told: IKE binds its SAs to both addresses.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ikeway.address import Address
from ikeway.dataplane.userspace.sockets import open_udp
from ikeway.dataplane.userspace.steering import open_group
from ikeway.errors import HostError

IKE_PORT = 500
NAT_PORT = 4500
NON_ESP_MARKER = bytes(4)
NAT_KEEPALIVE = b"\xff"

_BATCH = 64  # datagrams read before other things get their turn
_CONTROL_OCTETS = 256

# Linux, from <linux/in.h> and <linux/in6.h>; Python's socket module lacks some of them.
_IP_PKTINFO = 8
_IP_MTU_DISCOVER = 10
_IP_RECVERR = 11
_IP_PMTUDISC_DONT = 0
_IPV6_RECVERR = 25
_IPV6_PKTINFO = 50
_MSG_ERRQUEUE = 0x2000
_PKTINFO4 = struct.Struct("=i4s4s")  # interface, source to use (sending), destination address (receiving)
_PKTINFO6 = struct.Struct("=16si")
_EXTENDED_ERROR = struct.Struct("=IBBBBII")  # struct sock_extended_err
_ORIGIN_ICMP, _ORIGIN_ICMP6 = 2, 3

# What a send may fail with because of the network, not because of us: a lost datagram, as far as IKE is concerned.
_LOST = frozenset(
    {
        errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.ECONNREFUSED, errno.EPERM,
        errno.EACCES, errno.EADDRNOTAVAIL, errno.EINVAL, errno.ENOBUFS, errno.EAGAIN, errno.EMSGSIZE, errno.ENODEV,
        errno.EPROTO, errno.ETIMEDOUT,
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen. Port 0: any free one. `fallback` allows any free port when the wanted one is taken."""

    hosts: tuple[str, ...] = ("0.0.0.0", "::")  # noqa: S104 - a VPN daemon listens everywhere unless told otherwise
    ike_port: int = IKE_PORT
    nat_port: int = NAT_PORT
    fallback: bool = False
    mark: int = 0  # SO_MARK of what we send, 0 for none


@dataclass(slots=True)
class SocketCounters:
    """What became of datagrams; shown by `status`."""

    received: int = 0
    sent: int = 0
    lost: int = 0  # refused by the network on sending
    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str) -> None:
        """Count a datagram that was thrown away."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


class IkeSocket:
    """One bound UDP socket. Where several workers carry ESP, each has one of its own beside it (`members`), and IKE
    comes to this one."""

    def __init__(self, host: str, port: int, *, nat: bool, mark: int = 0, workers: int = 1) -> None:
        """Bind. Raises OSError."""
        self.host = host
        self.nat = nat  # IKE messages carry the non-ESP marker here
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.wildcard = ipaddress.ip_address(host).is_unspecified
        # Interfaces of link-local peers, which their address alone does not lead to. Bounded: oldest forgotten.
        self._scopes: dict[str, int] = {}
        # The socket that ESP shares is set up as the data plane wants it.
        self.members: list[socket.socket] = []
        if not nat:
            self.socket = self._open(port, mark)
        elif workers == 1:
            self.socket = open_udp(Address(host, port), mark=mark)
        else:
            *self.members, self.socket = open_group(Address(host, port), workers, mark=mark)
        self.port: int = self.socket.getsockname()[1]

    def _open(self, port: int, mark: int) -> socket.socket:
        opened = socket.socket(self.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if mark:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            if self.family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
                opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
            else:
                opened.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
                # Routers may fragment IKE_SA_INIT: a path that is narrower than we think must not stop a log-in.
                opened.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
                opened.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
            opened.bind((self.host, port))
        except BaseException:
            opened.close()
            raise
        return opened

    def of_worker(self, number: int) -> socket.socket:
        """The socket that a worker reads."""
        return self.members[number] if self.members else self.socket

    def close(self) -> None:
        """Close all. Idempotent."""
        for each in (self.socket, *self.members):
            each.close()

    def receive(self) -> tuple[bytes, Address, Address] | None:
        """The next datagram with its local and remote address, marker included; None when there is none.

        Raises OSError for a pending error of an earlier datagram.
        """
        try:
            octets, control, flags, source = self.socket.recvmsg(65535, _CONTROL_OCTETS)
        except (BlockingIOError, InterruptedError):
            return None
        if flags & socket.MSG_TRUNC:
            octets = b""
        host = self.host
        for level, kind, value in control:
            if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
                host = socket.inet_ntop(socket.AF_INET, _PKTINFO4.unpack_from(value)[2])
            elif level == socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO:
                address, interface = _PKTINFO6.unpack_from(value)
                host = socket.inet_ntop(socket.AF_INET6, address)
                if source[0].startswith("fe80:"):
                    self._remember_scope(source[0], interface)
        return octets, Address(host, self.port), Address(source[0], source[1])

    def send(self, octets: bytes, local: str, remote: Address) -> None:
        """Send `octets` as they are, from the address `local` ("" for any). Raises OSError."""
        control: list[tuple[int, int, bytes]] = []
        if self.family == socket.AF_INET6:
            interface = self._scopes.get(remote.host, 0)
            if local or interface:
                source = socket.inet_pton(socket.AF_INET6, local or "::")
                control = [(socket.IPPROTO_IPV6, _IPV6_PKTINFO, _PKTINFO6.pack(source, interface))]
            self.socket.sendmsg([octets], control, 0, (remote.host, remote.port, 0, interface))
            return
        if local:
            source = socket.inet_pton(socket.AF_INET, local)
            control = [(socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO4.pack(0, source, bytes(4)))]
        self.socket.sendmsg([octets], control, 0, (remote.host, remote.port))

    def read_errors(self) -> list[tuple[Address, int, int]]:
        """What ICMP said of datagrams that we sent: where they went to, the errno, and with EMSGSIZE the MTU of the
        path. Unauthenticated: a hint only."""
        errors = []
        for _ in range(_BATCH):
            try:
                _, control, _, destination = self.socket.recvmsg(0, 512, _MSG_ERRQUEUE)
            except OSError:
                break
            for level, kind, value in control:
                wanted = (socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)
                if (level, kind) in wanted and len(value) >= _EXTENDED_ERROR.size:
                    code, origin, _, _, _, mtu, _ = _EXTENDED_ERROR.unpack_from(value)
                    if origin in (_ORIGIN_ICMP, _ORIGIN_ICMP6) and destination:
                        errors.append((Address(destination[0], destination[1]), code, mtu))
        return errors

    def _remember_scope(self, host: str, interface: int) -> None:
        if host not in self._scopes and len(self._scopes) >= 1024:
            del self._scopes[next(iter(self._scopes))]
        self._scopes[host] = interface


class IkeSockets:
    """All sockets of a daemon. Reads them on the event loop, except those that a data plane reads.

    `on_datagram(octets, local, remote)` gets IKE messages without the marker; `on_unreachable(remote, errno)` what
    the network said of what we sent, and `on_path_mtu(host, mtu)` how little fits. `tap(octets, local, remote, sent)`
    sees the UDP payloads as they are on the wire.
    """

    def __init__(self, listen: Listen) -> None:
        """Nothing is opened before `open`."""
        self.listen = listen
        self.counters = SocketCounters()
        self.on_datagram: Callable[[bytes, Address, Address], None] | None = None
        self.on_unreachable: Callable[[Address, int], None] | None = None
        self.on_path_mtu: Callable[[str, int], None] | None = None
        self.tap: Callable[[bytes, Address, Address, bool], None] | None = None
        self._sockets: list[IkeSocket] = []
        self._reading: set[IkeSocket] = set()

    def open(self, workers: int = 1) -> None:
        """Bind all sockets, for so many workers. Raises HostError that says which port and why. An address family that
        the host lacks is left out as long as another one is there."""
        missing: OSError | None = None
        for host in self.listen.hosts:
            try:
                for port, nat in ((self.listen.ike_port, False), (self.listen.nat_port, True)):
                    self._sockets.append(self._bind(host, port, nat, workers))
            except (OSError, HostError) as error:
                cause = error if isinstance(error, OSError) else error.__cause__
                if not isinstance(cause, OSError) or cause.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    self.close()
                    raise
                missing = cause
        if not self._sockets:
            raise HostError(
                f"cannot listen on {', '.join(self.listen.hosts)}: {missing}",
                remedy="name an address that this host has",
            )

    def _bind(self, host: str, port: int, nat: bool, workers: int) -> IkeSocket:
        # Both address families get the same port where that can be had: the engine knows one number.
        others = [each.port for each in self._sockets if each.nat == nat]
        wishes = [*others[:1], port] if port == 0 or self.listen.fallback else [port]
        if self.listen.fallback:
            wishes.append(0)
        for wish in wishes:
            try:
                return IkeSocket(host, wish, nat=nat, mark=self.listen.mark, workers=workers)
            except (OSError, HostError) as error:
                cause = error if isinstance(error, OSError) else error.__cause__
                code = cause.errno if isinstance(cause, OSError) else None
                if code not in (errno.EADDRINUSE, errno.EACCES):
                    raise
                refusal = _refusal(host, wish, code)
        raise refusal

    @property
    def sockets(self) -> Sequence[IkeSocket]:
        """All that are open."""
        return tuple(self._sockets)

    @property
    def nat_sockets(self) -> tuple[IkeSocket, ...]:
        """Those on which ESP arrives as well: what the data plane may read in our place."""
        return tuple(each for each in self._sockets if each.nat)

    def start(self, *, nat_too: bool = True) -> None:
        """Read on the running event loop. `nat_too` False: the data plane reads the sockets that carry ESP."""
        loop = asyncio.get_running_loop()
        for each in self._sockets:
            wanted = nat_too or not each.nat
            if wanted and each not in self._reading:
                loop.add_reader(each.socket, self._readable, each)
                self._reading.add(each)
            elif not wanted and each in self._reading:
                loop.remove_reader(each.socket)
                self._reading.discard(each)

    def close(self) -> None:
        """Stop reading and close. Idempotent."""
        for each in self._sockets:
            if each in self._reading:
                asyncio.get_running_loop().remove_reader(each.socket)
            each.close()
        self._reading.clear()
        self._sockets.clear()

    def local_port(self, host: str, *, nat: bool) -> int:
        """The port that messages from `host` leave from. Raises HostError when no socket serves that family."""
        return self._find(host, None, nat).port

    def send(self, octets: bytes, local: Address, remote: Address) -> None:
        """Send an IKE message, with the marker where it belongs. The network's refusal counts as a loss."""
        if not (chosen := self._for(local)):
            self.counters.drop("no socket for the local address")
            return
        self._send(chosen, NON_ESP_MARKER + octets if chosen.nat else octets, local, remote)

    def send_keepalive(self, local: Address, remote: Address) -> None:
        """Keep a NAT mapping alive (RFC 3948 section 2.3)."""
        if chosen := self._for(local):
            self._send(chosen, NAT_KEEPALIVE, local, remote)

    def _for(self, local: Address) -> IkeSocket | None:
        """The socket for a local address as the engine names it: by its port, or by the well-known port it stands for
        (the engine moves from 500 to 4500 by number, while ours may be others)."""
        try:
            return self._find(local.host, local.port, local.port not in (IKE_PORT, self.listen.ike_port))
        except HostError:
            return None

    def _find(self, host: str, port: int | None, nat: bool) -> IkeSocket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        fitting = [each for each in self._sockets if each.family == family and (each.wildcard or each.host == host)]
        for each in fitting:
            if each.port == port:
                return each
        for each in fitting:
            if each.nat == nat:
                return each
        raise HostError(
            f"no socket for {host or 'that address family'}",
            remedy="this host has no IPv6" if family == socket.AF_INET6 else "listen on an IPv4 address too",
        )

    def _send(self, chosen: IkeSocket, octets: bytes, local: Address, remote: Address) -> None:
        # An ICMP error of an earlier datagram is reported by the next call, which then did not send: once more.
        for last in (False, True):
            try:
                chosen.send(octets, local.host, remote)
            except OSError as error:
                if error.errno not in _LOST:
                    raise
                if not last:
                    if chosen in self._reading:
                        self._tell(chosen.read_errors())
                    continue
                self.counters.lost += 1
                self._tell([(remote, error.errno or 0, 0)])
                return
            self.counters.sent += 1
            if self.tap:
                self.tap(octets, local._replace(port=chosen.port), remote, True)
            return

    def _tell(self, errors: list[tuple[Address, int, int]]) -> None:
        for remote, code, mtu in errors:
            if self.on_unreachable:
                self.on_unreachable(remote, code)
            if self.on_path_mtu and code == errno.EMSGSIZE and mtu:
                self.on_path_mtu(remote.host, mtu)

    def _readable(self, ready: IkeSocket) -> None:
        for _ in range(_BATCH):
            try:
                received = ready.receive()
            except OSError:
                self._tell(ready.read_errors())
                continue
            if received is None or ready not in self._reading:
                return
            octets, local, remote = received
            self.counters.received += 1
            if self.tap:
                self.tap(octets, local, remote, False)
            if ready.nat:
                if octets[:4] != NON_ESP_MARKER:
                    if octets != NAT_KEEPALIVE:
                        self.counters.drop("ESP without a data plane")
                    continue
                octets = octets[4:]
            if self.on_datagram and octets:
                self.on_datagram(octets, local, remote)


def _refusal(host: str, port: int, code: int | None) -> HostError:
    if code == errno.EADDRINUSE:
        return HostError(
            f"UDP port {port} on {host} is taken by another program",
            remedy=f"stop the other IKE daemon (ss -ulpn 'sport = :{port}' names it) or choose another port",
        )
    return HostError(
        f"not allowed to listen on UDP port {port} of {host}",
        remedy="run as root, give the process CAP_NET_BIND_SERVICE, or choose ports above 1023",
    )


def local_address_for(remote: Address, *, mark: int = 0) -> str:
    """The local address that the routing table chooses towards `remote`. Raises HostError when there is no route."""
    family = socket.AF_INET6 if remote.is_ipv6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            if mark:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            probe.connect((remote.host, remote.port or IKE_PORT))
            host: str = probe.getsockname()[0]
            return host
    except OSError as error:
        raise HostError(
            f"no route to {remote.host}: {os.strerror(error.errno or 0)}",
            remedy="check the network connection of this host",
        ) from error

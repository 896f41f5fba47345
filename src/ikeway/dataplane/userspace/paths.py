"""Where ESP goes: a socket, a local and a remote address, and how large a packet may be on the way."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from ikeway.address import Address
from ikeway.dataplane.userspace.sockets import (
    Ancillary,
    is_unspecified,
    segment_ancillary,
    source_ancillary,
    traffic_class_ancillary,
)
from ikeway.errors import HostError
from ikeway.esp.drops import Drop
from ikeway.esp.inner import Octets
from ikeway.esp.parameters import Encapsulation

# One UDP_SEGMENT send: Linux takes 64 segments, in one IP packet's worth of octets.
MOST_SEGMENTS = 64
MOST_OCTETS = 65535 - 40 - 8

# The segments are longer than the path's MTU, or the device cannot do checksums.
CANNOT_SEGMENT = frozenset({errno.EINVAL, errno.EMSGSIZE, errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP})
UNMERGED_SECONDS = 10.0
FULL = frozenset({errno.EAGAIN, errno.ENOBUFS})

SEND_PATIENCE_MS = 20
_MTU_SECONDS = 600.0  # RFC 8201 section 4: look again whether the path has grown after ten minutes
_SMALLEST_MTU = {False: 552, True: 1280}


@dataclass(slots=True, eq=False)
class OuterSocket:
    """One of the sockets that the worker inherited."""

    sock: socket.socket
    ipv6: bool
    raw_esp: bool
    host: str
    port: int  # 0 for raw ESP


class Path:
    """One pair of outer addresses. `merge_from` is when the kernel may next be asked to cut what is sent."""

    __slots__ = (
        "__weakref__",
        "_ancillary",
        "_destination",
        "_mtu",
        "_mtu_until",
        "headers",
        "local",
        "merge_from",
        "outer",
        "remote",
    )

    def __init__(self, outer: OuterSocket, local: Address, remote: Address) -> None:
        self.outer = outer
        self.local = local
        self.remote = remote
        self._ancillary: list[Ancillary] = [] if is_unspecified(local.host) else [source_ancillary(local.host)]
        self._destination = (remote.host, 0 if outer.raw_esp else remote.port)
        self.headers = (40 if outer.ipv6 else 20) + (0 if outer.raw_esp else 8)
        self.merge_from = 0.0
        self._mtu = 0
        self._mtu_until = 0.0

    @property
    def host(self) -> str:
        """The remote host."""
        return self._destination[0]

    def learn_mtu(self, mtu: int, now: float) -> bool:
        """Take note of what an ICMP message said; whether it is news. Absurdly small values are taken for an attack."""
        if mtu < _SMALLEST_MTU[self.outer.ipv6]:
            return False
        before, self._mtu, self._mtu_until = self._mtu, mtu, now + _MTU_SECONDS
        return before != mtu

    def room(self, now: float) -> int:
        """The longest ESP packet that is known to pass; 0 when nothing is known."""
        if self._mtu and now >= self._mtu_until:
            self._mtu = 0
        return self._mtu - self.headers if self._mtu else 0

    def send(self, frames: Sequence[Octets], traffic_class: int, now: float) -> tuple[int, Drop | None]:
        """Send ESP packets, the kernel cutting runs of equal length. (How many failed, why)."""
        ancillary = [*self._ancillary, traffic_class_ancillary(self.outer.ipv6, traffic_class)]
        failed, reason = 0, None
        at = 0
        while at < len(frames):
            count = self._run(frames, at) if now >= self.merge_from else 1
            if count > 1:
                code = self._send(frames[at : at + count], [*ancillary, segment_ancillary(len(frames[at]))])
                if code in CANNOT_SEGMENT:
                    self.merge_from = now + UNMERGED_SECONDS
                    continue
            else:
                code = self._send(frames[at : at + 1], ancillary)
            if code:
                failed += count
                reason = Drop.SEND_BUFFER if code in FULL else Drop.SEND_FAILED
            at += count
        return failed, reason

    def send_rows(
        self, rows: memoryview, size: int, ends: Sequence[Octets], traffic_class: int, now: float
    ) -> tuple[int, Drop | None]:
        """Send ESP packets of one length that lie side by side, and shorter ones after them. See `send`."""
        if self.outer.raw_esp or now < self.merge_from or len(ends) > 1 or any(len(end) > size for end in ends):
            frames: list[Octets] = [rows[at : at + size] for at in range(0, len(rows), size)]
            return self.send([*frames, *ends], traffic_class, now)
        ancillary = [*self._ancillary, traffic_class_ancillary(self.outer.ipv6, traffic_class)]
        most = min(MOST_SEGMENTS, max(MOST_OCTETS // size, 1)) * size
        for at in range(0, len(rows), most):
            part = rows[at : at + most]
            buffers: list[Octets] = [part]
            if at + len(part) == len(rows) and ends and len(part) + len(ends[0]) <= MOST_OCTETS and len(part) < most:
                buffers.append(ends[0])
                ends = ()
            code = self._send(buffers, [*ancillary, segment_ancillary(size)])
            if code in CANNOT_SEGMENT:
                self.merge_from = now + UNMERGED_SECONDS
                return self.send_rows(rows[at:], size, [*buffers[1:], *ends], traffic_class, now)
            if code:
                left = (len(rows) - at) // size + len(buffers) - 1 + len(ends)
                return left, Drop.SEND_BUFFER if code in FULL else Drop.SEND_FAILED
        return self.send(ends, traffic_class, now) if ends else (0, None)

    def _run(self, frames: Sequence[Octets], at: int) -> int:
        """How many frames from `at` on can go in one send: equal ones, and one shorter at the end."""
        if self.outer.raw_esp:
            return 1
        size = len(frames[at])
        last = min(len(frames), at + MOST_SEGMENTS, at + max(MOST_OCTETS // size, 1))
        end = at + 1
        while end < last and len(frames[end]) <= size:
            end += 1
            if len(frames[end - 1]) < size:
                break
        return end - at

    def _send(self, frames: Sequence[Octets], ancillary: list[Ancillary]) -> int:
        """One system call, and one more when an earlier packet's error or a full buffer was in the way. An errno."""
        code = 0
        for _ in range(2):
            try:
                self.outer.sock.sendmsg(frames, ancillary, socket.MSG_DONTWAIT, self._destination)
            except OSError as error:
                code = error.errno or errno.EIO
                if code == errno.EAGAIN:
                    poll = select.poll()
                    poll.register(self.outer.sock, select.POLLOUT)
                    poll.poll(SEND_PATIENCE_MS)
            else:
                return 0
        return code


class Paths:
    """Every path that an SA holds, so that all SAs to one peer know the same path MTU."""

    def __init__(self, sockets: Sequence[OuterSocket]) -> None:
        self._sockets = tuple(sockets)
        self._paths: WeakValueDictionary[tuple[Address, Address, Encapsulation], Path] = WeakValueDictionary()

    def find(self, local: Address, remote: Address, encapsulation: Encapsulation) -> Path:
        """The path between two addresses. Raises `HostError` when none of the sockets serves it."""
        key = (local, remote, encapsulation)
        path = self._paths.get(key)
        if path is None:
            path = self._paths[key] = Path(self._socket_for(*key), local, remote)
        return path

    def learn_mtu(self, host: str, mtu: int, now: float) -> bool:
        """A router on the way to `host` said what fits. Whether that is news for any path: anybody can send it."""
        news = False
        for path in self._paths.values():
            if path.host == host:
                news |= path.learn_mtu(mtu, now)
        return news

    def _socket_for(self, local: Address, remote: Address, encapsulation: Encapsulation) -> OuterSocket:
        raw = encapsulation is Encapsulation.ESP
        usable = [
            outer
            for outer in self._sockets
            if outer.ipv6 == remote.is_ipv6
            and outer.raw_esp == raw
            and (raw or not local.port or outer.port == local.port)
            and (is_unspecified(outer.host) or outer.host == local.host)
        ]
        if not usable:
            what = "a raw ESP socket" if raw else f"a UDP socket on port {local.port}"
            family = "IPv6" if remote.is_ipv6 else "IPv4"
            raise HostError(
                f"the data plane has no socket for ESP from {local} to {remote}",
                expected=f"{what} for {family}",
                remedy="open one" + ("; it needs root" if raw else ""),
            )
        return min(usable, key=lambda outer: is_unspecified(outer.host))


def inherited(fd: int, ipv6: bool, raw_esp: bool) -> OuterSocket:
    """The socket behind an inherited descriptor."""
    kind = socket.SOCK_RAW if raw_esp else socket.SOCK_DGRAM
    sock = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, kind, fileno=fd)
    sock.setblocking(False)
    host, port = sock.getsockname()[:2]
    return OuterSocket(sock, ipv6, raw_esp, host.partition("%")[0], 0 if raw_esp else port)

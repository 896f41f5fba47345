"""Netlink, as much of it as a VPN needs: links, addresses, routes, rules (rtnetlink(7), RFC 3549), and IPsec (`xfrm`).

A message is a netlink header, a fixed structure of its kind, and attributes (length, type, value, padded to four).
A request is answered by an acknowledgement or by a dump that ends with NLMSG_DONE.

Why not pyroute2: importing it costs 0.2 to 0.3 s, more than charon-cmd takes from start to first ping, and since 0.9
its synchronous API cannot be called while an event loop runs. These calls take some ten microseconds and are plain
functions, so they may be made from asyncio, from threads and from helper processes alike.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType

NETLINK_ROUTE = 0
NETLINK_XFRM = 6
SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSG_OVERRUN = 4

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF
NLMSGERR_ATTR_MSG = 1

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
ATTRIBUTE = struct.Struct("=HH")  # length, type

Attributes = dict[int, bytes]

_RECEIVE_SIZE = 1 << 18
_DUMP_TRIES = 5


class NetlinkError(OSError):
    """The kernel refused a request. `errno` says why, `detail` is the kernel's own text (may be empty)."""

    def __init__(self, number: int, detail: str = "") -> None:
        super().__init__(number, f"{os.strerror(number)}: {detail}" if detail else os.strerror(number))
        self.detail = detail


def encode_attributes(attributes: Mapping[int, bytes] | Iterable[tuple[int, bytes]]) -> bytes:
    """Encode attributes in the order given."""
    pairs = attributes.items() if isinstance(attributes, Mapping) else attributes
    octets = bytearray()
    for number, value in pairs:
        octets += ATTRIBUTE.pack(len(value) + 4, number) + value + bytes(-len(value) % 4)
    return bytes(octets)


def decode_attributes(octets: bytes) -> Attributes:
    """Decode attributes; the last one of a number wins, flags in the number are dropped."""
    attributes: Attributes = {}
    offset = 0
    while offset + 4 <= len(octets):
        length, number = ATTRIBUTE.unpack_from(octets, offset)
        if length < 4:
            break
        attributes[number & NLA_TYPE_MASK] = octets[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return attributes


def split_messages(octets: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield (type, flags, sequence, body) of each message in what one `recv` returned."""
    offset = 0
    while offset + HEADER.size <= len(octets):
        length, kind, flags, sequence, _ = HEADER.unpack_from(octets, offset)
        if length < HEADER.size:
            return
        yield kind, flags, sequence, octets[offset + HEADER.size : offset + length]
        offset += (length + 3) & ~3


class Netlink:
    """One netlink socket in the network namespace of the calling thread. Use as a context manager."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        for option in (NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            try:
                self._socket.setsockopt(SOL_NETLINK, option, 1)
            except OSError:  # kernels before 4.12 and 4.20: less text in errors, less filtering
                pass
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Netlink:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the socket."""
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def change(self, kind: int, fixed: bytes, attributes: Mapping[int, bytes] | None = None, flags: int = 0) -> None:
        """Send a request that changes something and wait for its acknowledgement (`NetlinkError`)."""
        self._send(kind, NLM_F_ACK | flags, fixed, attributes or {})
        for _ in self._replies():
            pass

    def get(self, kind: int, fixed: bytes, attributes: Mapping[int, bytes] | None = None) -> bytes:
        """Ask for one thing; return the body of the answer."""
        self._send(kind, NLM_F_ACK, fixed, attributes or {})
        bodies = [body for _, body in self._replies()]
        if not bodies:
            raise NetlinkError(errno.ENOENT)
        return bodies[0]

    def dump(self, kind: int, fixed: bytes, attributes: Mapping[int, bytes] | None = None) -> list[bytes]:
        """Ask for all of a kind; return the bodies. A dump that a change interrupted is taken again."""
        for _ in range(_DUMP_TRIES):
            self._send(kind, NLM_F_DUMP, fixed, attributes or {})
            replies = list(self._replies())
            if not any(flags & NLM_F_DUMP_INTR for flags, _ in replies):
                break
        return [body for _, body in replies]

    def _send(self, kind: int, flags: int, fixed: bytes, attributes: Mapping[int, bytes]) -> None:
        self._sequence += 1
        body = fixed + bytes(-len(fixed) % 4) + encode_attributes(attributes)
        self._socket.send(
            HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | flags, self._sequence, 0) + body,
        )

    def _replies(self) -> Iterator[tuple[int, bytes]]:
        """Yield (flags, body) until the acknowledgement, the end of the dump, or an error."""
        while True:
            for kind, flags, sequence, body in split_messages(self._socket.recv(_RECEIVE_SIZE)):
                if sequence != self._sequence:
                    continue  # the rest of an abandoned dump
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    number = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                    if number:
                        raise NetlinkError(number, _error_text(kind, flags, body))
                    return
                yield flags, body


def _error_text(kind: int, flags: int, body: bytes) -> str:
    """The text that the kernel added to an error (NETLINK_EXT_ACK)."""
    if kind != NLMSG_ERROR or not flags & NLM_F_ACK_TLVS:
        return ""
    offset = 4 + HEADER.size
    if not flags & NLM_F_CAPPED:
        (length,) = struct.unpack_from("=I", body, 4)
        offset = 4 + ((length + 3) & ~3)
    text = decode_attributes(body[offset:]).get(NLMSGERR_ATTR_MSG, b"")
    return text.rstrip(b"\0").decode(errors="replace")

"""SOCKS version 5: octets and values (RFC 1928, RFC 1929). No sockets."""

from __future__ import annotations

import enum
import errno
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

VERSION, LOGIN_VERSION = 5, 1
NO_AUTHENTICATION, USERNAME_PASSWORD, NO_METHOD = 0x00, 0x02, 0xFF
LONGEST_HEADER = 4 + 1 + 255 + 2  # of a datagram


class Malformed(Exception):
    """Octets that are not SOCKS."""


class Command(enum.IntEnum):
    """RFC 1928 section 4."""

    CONNECT = 1
    BIND = 2
    UDP_ASSOCIATE = 3


class Kind(enum.IntEnum):
    """Kinds of addresses (RFC 1928 section 5)."""

    IPV4 = 1
    NAME = 3
    IPV6 = 4


class Reply(enum.IntEnum):
    """RFC 1928 section 6."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    CONNECTION_REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_TYPE_NOT_SUPPORTED = 8


_ADDRESS_OCTETS = {Kind.IPV4: 4, Kind.IPV6: 16}
_REPLIES = {
    errno.ECONNREFUSED: Reply.CONNECTION_REFUSED,
    errno.ENETUNREACH: Reply.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: Reply.HOST_UNREACHABLE,
    errno.ETIMEDOUT: Reply.TTL_EXPIRED,
}


@dataclass(frozen=True, slots=True)
class Target:
    """An address or a name, and a port."""

    host: str
    port: int

    def encode(self) -> bytes:
        """Octets with the kind in front. Names beyond 255 octets are none (`Malformed`)."""
        try:
            address = ip_address(self.host)
        except ValueError:
            name = self.host.encode("ascii", "replace")
            if not 0 < len(name) < 256:
                raise Malformed("a name has 1 to 255 octets") from None
            return struct.pack("!BB", Kind.NAME, len(name)) + name + struct.pack("!H", self.port)
        kind = Kind.IPV6 if address.version == 6 else Kind.IPV4
        return bytes([kind]) + address.packed + struct.pack("!H", self.port)


def decode_target(octets: bytes) -> tuple[Target, int] | int:
    """The target that `octets` begin with and how many octets it took, or how many octets it takes at least when there
    are fewer. Raises `Malformed`, which for an unknown kind is `UnknownKind`."""
    if len(octets) < 2:
        return 2
    try:
        kind = Kind(octets[0])
    except ValueError:
        raise UnknownKind(f"{octets[0]} is no kind of address") from None
    if kind is Kind.NAME:
        start, size = 2, octets[1]
        if size == 0:
            raise Malformed("a name of no octets")
    else:
        start, size = 1, _ADDRESS_OCTETS[kind]
    end = start + size
    if len(octets) < end + 2:
        return end + 2
    return Target(_host(kind, octets[start:end]), struct.unpack_from("!H", octets, end)[0]), end + 2


class UnknownKind(Malformed):
    """A kind of address that RFC 1928 does not have."""


def encode_reply(reply: Reply, bound: Target = Target("0.0.0.0", 0)) -> bytes:  # noqa: S104 - "none"
    """The answer to a request."""
    return bytes([VERSION, reply, 0]) + bound.encode()


def reply_for(number: int) -> Reply:
    """What to answer for an errno."""
    return _REPLIES.get(number, Reply.GENERAL_FAILURE)


def encode_datagram(source: Target, octets: bytes) -> bytes:
    """A datagram for the client (RFC 1928 section 7)."""
    return bytes(3) + source.encode() + octets


def decode_datagram(octets: bytes) -> tuple[Target, bytes]:
    """Where a client's datagram goes, and what is in it (`Malformed`; fragments are not supported, which is allowed)."""
    if len(octets) < 4 or octets[:2] != b"\0\0":
        raise Malformed("no header")
    if octets[2]:
        raise Malformed("a fragment")
    found = decode_target(octets[3:])
    if isinstance(found, int):
        raise Malformed("cut off")
    target, size = found
    return target, octets[3 + size :]


def _host(kind: Kind, octets: bytes) -> str:
    if kind is Kind.IPV4:
        return str(IPv4Address(octets))
    if kind is Kind.IPV6:
        return str(IPv6Address(octets))
    # What a resolver could take for something else than a name, and what it would log, is none.
    if not all(0x21 <= octet < 0x7F for octet in octets):
        raise Malformed("not the octets of a host name")
    return octets.decode("ascii")

"""Attributes: their numbers, and their values as octets (RFC 2865 section 5, data types by RFC 8044)."""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ikeway.config.fields import IpAddress
from ikeway.errors import PeerError, Side

MAX_VALUE = 253  # octets of one attribute
MICROSOFT = 311

# The number of an attribute; of a vendor's, the vendor's (SMI) number and its own.
Key = int | tuple[int, int]


class Attr(enum.IntEnum):
    """The attributes that we send or look at, by their IANA names."""

    USER_NAME = 1
    USER_PASSWORD = 2
    NAS_IP_ADDRESS = 4
    NAS_PORT = 5
    SERVICE_TYPE = 6
    FRAMED_IP_ADDRESS = 8
    FRAMED_IP_NETMASK = 9
    FILTER_ID = 11
    FRAMED_MTU = 12
    REPLY_MESSAGE = 18
    STATE = 24
    CLASS = 25
    SESSION_TIMEOUT = 27
    IDLE_TIMEOUT = 28
    CALLED_STATION_ID = 30
    CALLING_STATION_ID = 31
    NAS_IDENTIFIER = 32
    PROXY_STATE = 33
    ACCT_STATUS_TYPE = 40
    ACCT_DELAY_TIME = 41
    ACCT_INPUT_OCTETS = 42
    ACCT_OUTPUT_OCTETS = 43
    ACCT_SESSION_ID = 44
    ACCT_AUTHENTIC = 45
    ACCT_SESSION_TIME = 46
    ACCT_INPUT_PACKETS = 47
    ACCT_OUTPUT_PACKETS = 48
    ACCT_TERMINATE_CAUSE = 49
    ACCT_INPUT_GIGAWORDS = 52
    ACCT_OUTPUT_GIGAWORDS = 53
    EVENT_TIMESTAMP = 55
    NAS_PORT_TYPE = 61
    EAP_MESSAGE = 79
    MESSAGE_AUTHENTICATOR = 80
    ACCT_INTERIM_INTERVAL = 85
    NAS_PORT_ID = 87
    NAS_IPV6_ADDRESS = 95
    FRAMED_INTERFACE_ID = 96
    FRAMED_IPV6_PREFIX = 97
    ERROR_CAUSE = 101
    FRAMED_IPV6_ADDRESS = 168
    DNS_SERVER_IPV6_ADDRESS = 169


# RFC 2548 sections 2.4.2, 2.4.3; 2.7.1 and 2.7.2 (MS-Primary-DNS-Server, MS-Secondary-DNS-Server)
MS_MPPE_SEND_KEY = (MICROSOFT, 16)
MS_MPPE_RECV_KEY = (MICROSOFT, 17)
MS_PRIMARY_DNS_SERVER = (MICROSOFT, 28)
MS_SECONDARY_DNS_SERVER = (MICROSOFT, 29)

NAS_PORT_TYPE_VIRTUAL = 5
SERVICE_TYPE_FRAMED = 2


class MalformedAttribute(PeerError):
    """A value that its type does not allow. Nothing of such a packet is believed."""

    default_side = Side.PEER

    def __init__(self, key: Key, expected: str, value: bytes) -> None:
        super().__init__(
            f"the RADIUS server sent a malformed {name_of(key)}",
            expected=expected,
            got=f"{len(value)} octets",
            remedy="see what the RADIUS server is configured to reply",
        )


def name_of(key: Key) -> str:
    """An attribute's name, for people."""
    if isinstance(key, tuple):
        return f"attribute {key[1]} of vendor {key[0]}"
    return "-".join(word.capitalize() for word in Attr(key).name.split("_")) if key in _NUMBERS else f"attribute {key}"


_NUMBERS = frozenset(Attr)


@dataclass(frozen=True, slots=True)
class Attributes:
    """The attributes of a packet, by key; values of one key in their order. Reading raises `MalformedAttribute`."""

    values: dict[Key, tuple[bytes, ...]] = field(repr=False)  # keys and passwords among them

    def __contains__(self, key: Key) -> bool:
        return key in self.values

    def all(self, key: Key) -> tuple[bytes, ...]:
        """All values."""
        return self.values.get(key, ())

    def first(self, key: Key) -> bytes | None:
        """The first value."""
        return self.all(key)[0] if key in self.values else None

    def joined(self, key: Key) -> bytes:
        """All values one after the other (EAP-Message, RFC 3579 section 3.1)."""
        return b"".join(self.all(key))

    def text(self, key: Key) -> str | None:
        """The first value as text."""
        value = self.first(key)
        return value.decode("utf-8", "replace") if value is not None else None

    def texts(self, key: Key) -> tuple[str, ...]:
        """All values as text."""
        return tuple(value.decode("utf-8", "replace") for value in self.all(key))

    def integer(self, key: Key) -> int | None:
        """The first value, 32 bits."""
        value = self.first(key)
        if value is not None and len(value) != 4:
            raise MalformedAttribute(key, "4 octets", value)
        return int.from_bytes(value) if value is not None else None

    def address(self, key: Key) -> IpAddress | None:
        """The first value, an IPv4 or IPv6 address as the attribute has it."""
        found = self.addresses(key)
        return found[0] if found else None

    def addresses(self, key: Key) -> tuple[IpAddress, ...]:
        """All values as addresses."""
        six = key in _IPV6_ADDRESSES
        for value in self.all(key):
            if len(value) != (16 if six else 4):
                raise MalformedAttribute(key, "an IPv6 address" if six else "an IPv4 address", value)
        return tuple(ipaddress.ip_address(value) for value in self.all(key))

    def prefix(self, key: Key) -> ipaddress.IPv6Network | None:
        """The first value: reserved octet, length in bits, and as many octets as that needs (RFC 3162 section 2.3)."""
        value = self.first(key)
        if value is None:
            return None
        if not 2 <= len(value) <= 18 or value[1] > 128 or (len(value) - 2) * 8 < value[1]:
            raise MalformedAttribute(key, "a prefix of up to 128 bits", value)
        return ipaddress.IPv6Network((value[2:].ljust(16, b"\0"), value[1]), strict=False)


_IPV6_ADDRESSES = frozenset({Attr.NAS_IPV6_ADDRESS, Attr.FRAMED_IPV6_ADDRESS, Attr.DNS_SERVER_IPV6_ADDRESS})

Pair = tuple[Key, bytes]


def integer(value: int) -> bytes:
    """32 bits; what is larger is cut off at the largest."""
    return min(max(value, 0), 0xFFFFFFFF).to_bytes(4)


def text(value: str) -> bytes:
    """UTF-8, cut to what fits, at the border of a character."""
    octets = value.encode("utf-8", "replace")[:MAX_VALUE]
    return octets.decode("utf-8", "ignore").encode()


def split(key: Key, octets: bytes) -> list[Pair]:
    """A long value as several attributes in a row (EAP-Message, RFC 3579 section 3.1)."""
    return [(key, octets[at : at + MAX_VALUE]) for at in range(0, len(octets), MAX_VALUE)] or [(key, b"")]


def address_pair(value: str, four: Attr, six: Attr) -> Pair:
    """An address under the key of its family."""
    address = ipaddress.ip_address(value.partition("%")[0])
    return (four if address.version == 4 else six, address.packed)


def grouped(pairs: Iterable[Pair]) -> dict[Key, Sequence[bytes]]:
    """Pairs by key, in the order in which the keys come first."""
    found: dict[Key, list[bytes]] = {}
    for key, value in pairs:
        found.setdefault(int(key) if not isinstance(key, tuple) else key, []).append(value)
    return dict(found)

"""What an Access-Accept grants: addresses, name servers, groups, and how long (RFC 2865 section 5, RFC 6911)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

from ikeway.config.fields import IpAddress
from ikeway.gateway.radius.attributes import (
    MS_PRIMARY_DNS_SERVER,
    MS_SECONDARY_DNS_SERVER,
    Attr,
    Attributes,
)

# Framed-IP-Address: the user chooses, and the NAS does (RFC 2865 section 5.8).
_NO_ADDRESSES = frozenset({ipaddress.IPv4Address("255.255.255.255"), ipaddress.IPv4Address("255.255.255.254")})
_LEAST_INTERIM = 60.0  # RFC 2869 section 5.16
_OU = re.compile(r"ou=([^;]+);?", re.IGNORECASE)  # how servers write a group for Cisco's gateways


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one user gets. Times in seconds, 0: no limit."""

    server: str = ""  # the `[radius.NAME]` that granted it
    user: str = ""
    ipv4: ipaddress.IPv4Address | None = None
    ipv6: ipaddress.IPv6Address | None = None
    dns: tuple[IpAddress, ...] = ()
    groups: tuple[str, ...] = ()
    classes: tuple[bytes, ...] = field(default=(), repr=False)
    session_timeout: float = 0.0
    idle_timeout: float = 0.0
    interim: float | None = None  # None: as configured

    @property
    def addresses(self) -> tuple[IpAddress, ...]:
        """Those that are the user's own."""
        return tuple(each for each in (self.ipv4, self.ipv6) if each is not None)


def read_grant(attributes: Attributes, server: str, user: str) -> Grant:
    """The grant. Raises `MalformedAttribute`: a limit that cannot be read must not become none."""
    classes = attributes.all(Attr.CLASS)
    return Grant(
        server=server,
        user=attributes.text(Attr.USER_NAME) or user,
        ipv4=_ipv4(attributes),
        ipv6=_ipv6(attributes),
        dns=_name_servers(attributes),
        groups=groups_of(attributes),
        classes=classes,
        session_timeout=float(attributes.integer(Attr.SESSION_TIMEOUT) or 0),
        idle_timeout=float(attributes.integer(Attr.IDLE_TIMEOUT) or 0),
        interim=interim_of(attributes),
    )


def groups_of(attributes: Attributes) -> tuple[str, ...]:
    """The groups that Filter-Id and Class name."""
    named = [*attributes.texts(Attr.FILTER_ID), *attributes.texts(Attr.CLASS)]
    found = [(written[1] if (written := _OU.fullmatch(name)) else name).strip() for name in named]
    return tuple(dict.fromkeys(name for name in found if name and name.isprintable()))


def interim_of(attributes: Attributes) -> float | None:
    """How often to report (RFC 2869 section 5.16); never more often than every minute. 0: not at all."""
    seconds = attributes.integer(Attr.ACCT_INTERIM_INTERVAL)
    return None if seconds is None else max(float(seconds), _LEAST_INTERIM) if seconds else 0.0


def _ipv4(attributes: Attributes) -> ipaddress.IPv4Address | None:
    """A netmask beside it says what network the address is in; for us it is one address all the same."""
    address = attributes.address(Attr.FRAMED_IP_ADDRESS)
    assert address is None or address.version == 4
    return address if address is not None and address not in _NO_ADDRESSES and not address.is_unspecified else None


def _ipv6(attributes: Attributes) -> ipaddress.IPv6Address | None:
    """One address: named itself (RFC 6911 section 3.1), as a prefix of 128 bits, or as a prefix of up to 64 bits and the
    interface identifier in it (RFC 3162 section 2.2). A prefix alone is no address."""
    address = attributes.address(Attr.FRAMED_IPV6_ADDRESS)
    prefix, interface = attributes.prefix(Attr.FRAMED_IPV6_PREFIX), attributes.first(Attr.FRAMED_INTERFACE_ID)
    if isinstance(address, ipaddress.IPv6Address):
        return address if not address.is_unspecified else None
    if prefix is None:
        return None
    if prefix.prefixlen == 128:
        return prefix.network_address
    if interface is not None and len(interface) == 8 and prefix.prefixlen <= 64:
        return ipaddress.IPv6Address(prefix.network_address.packed[:8] + interface)
    return None


def _name_servers(attributes: Attributes) -> tuple[IpAddress, ...]:
    found = [
        ipaddress.IPv4Address(value)
        for key in (MS_PRIMARY_DNS_SERVER, MS_SECONDARY_DNS_SERVER)
        for value in attributes.all(key)
        if len(value) == 4 and any(value)
    ]
    return (*found, *attributes.addresses(Attr.DNS_SERVER_IPV6_ADDRESS))

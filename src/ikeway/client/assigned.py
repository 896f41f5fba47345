"""What a gateway assigned to us (CFG_REPLY, RFC 7296 section 3.15), as values.

The gateway is authentic, not trusted to be right: an attribute that does not make sense is left out and named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
)
from typing import TypeVar

from ikeway.host.interface import IpAddress, IpInterface, IpNetwork
from ikeway.wire.payloads import ConfigurationAttribute
from ikeway.wire.registry import ConfigurationAttributeType as Attribute

# Goes into resolv.conf: nothing but letters, digits, hyphens and underscores between dots (RFC 8598 section 4.1).
_DOMAIN = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*")
_MOST = 256  # of a kind

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Assigned:
    """Addresses of ours in the tunnel (as /32 and /128: what is reached is said by selectors), name servers, the
    domains to ask them for, the networks behind the gateway, and its version when it told."""

    addresses: tuple[IpInterface, ...] = ()
    dns_servers: tuple[IpAddress, ...] = ()
    domains: tuple[str, ...] = ()
    subnets: tuple[IpNetwork, ...] = ()
    version: str = ""
    ignored: tuple[str, ...] = ()  # what did not make sense, for the log


def read_assigned(attributes: Iterable[ConfigurationAttribute]) -> Assigned:
    """Read the attributes of a CFG_REPLY. Unknown ones are left alone."""
    addresses: list[IpInterface] = []
    servers: list[IpAddress] = []
    domains: list[str] = []
    subnets: list[IpNetwork] = []
    version = ""
    ignored: list[str] = []
    for each in attributes:
        value = each.value
        if not value:
            continue
        try:
            match each.type:
                case Attribute.INTERNAL_IP4_ADDRESS:
                    addresses.append(IPv4Interface((_address(value, 4), 32)))
                case Attribute.INTERNAL_IP6_ADDRESS:
                    addresses.append(IPv6Interface((_address(value[:16], 16), 128)))
                case Attribute.INTERNAL_IP4_DNS:
                    servers.append(_address(value, 4))
                case Attribute.INTERNAL_IP6_DNS:
                    servers.append(_address(value, 16))
                case Attribute.INTERNAL_IP4_SUBNET:
                    subnets.append(_subnet4(value))
                case Attribute.INTERNAL_IP6_SUBNET:
                    subnets.append(IPv6Network((value[:16], _prefix(value)), strict=False))
                case Attribute.INTERNAL_DNS_DOMAIN:
                    domains.append(_domain(value))
                case Attribute.APPLICATION_VERSION:
                    version = value[:128].decode("utf-8", "replace")
        except ValueError:
            ignored.append(f"{each.type.name} {value[:32].hex()}")
    return Assigned(
        _first(addresses), _first(servers), _first(domains), _first(subnets), version, tuple(ignored[:_MOST])
    )


def _first(values: list[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))[:_MOST]


def _address(value: bytes, octets: int) -> IPv4Address | IPv6Address:
    if len(value) != octets:
        raise ValueError("not the length of an address")
    address = ip_address(value)
    if address.is_unspecified or address.is_multicast or address.is_loopback:
        raise ValueError("not the address of a host")
    return address


def _subnet4(value: bytes) -> IPv4Network:
    if len(value) != 8:
        raise ValueError("not an address and a mask")
    return IPv4Network(f"{IPv4Address(value[:4])}/{IPv4Address(value[4:])}", strict=False)


def _prefix(value: bytes) -> int:
    if len(value) != 17 or value[16] > 128:
        raise ValueError("not an address and a prefix length")
    return value[16]


def _domain(value: bytes) -> str:
    text = value.decode("ascii").rstrip(".").lower()
    if len(text) > 253 or not _DOMAIN.fullmatch(text):
        raise ValueError("not a domain name")
    return text

"""Cisco's private configuration attributes (28672 and on), as far as they are known: the names of Unity (IKEv1).

Of the ones from 28683 on only numbers are known; they are left alone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from ikeway.dialects.interface import Attributes, Reading
from ikeway.eap.words import printable
from ikeway.wire.payloads import ConfigurationAttribute
from ikeway.wire.registry import ConfigurationAttributeType as Attribute

BANNER, DEF_DOMAIN, SPLITDNS_NAME, SPLIT_INCLUDE = (Attribute(number) for number in (28672, 28674, 28675, 28676))
REQUESTS = tuple(ConfigurationAttribute(kind) for kind in (BANNER, DEF_DOMAIN, SPLITDNS_NAME, SPLIT_INCLUDE))

ENTRY_OCTETS = 14  # of SPLIT_INCLUDE: address, mask, six of padding (which are protocol and ports in IKEv1)
MAX_ENTRIES = 256
_MAX_BANNER = 4096


def encode(
    *, banner: str, default_domain: str, split_dns: Iterable[str], split_include: Iterable[ipaddress.IPv4Network]
) -> Attributes:
    """What a gateway answers with; nothing for what is empty."""
    names, networks = ",".join(split_dns), b"".join(map(_entry, split_include))
    found = (
        (BANNER, banner.encode()),
        (DEF_DOMAIN, default_domain.encode()),
        (SPLITDNS_NAME, names.encode()),
        (SPLIT_INCLUDE, networks),
    )
    return tuple(ConfigurationAttribute(kind, value) for kind, value in found if value)


def _entry(network: ipaddress.IPv4Network) -> bytes:
    return network.network_address.packed + network.netmask.packed + bytes(6)


def read_reply(attributes: Attributes) -> Reading:
    """The attributes of RFC 7296 and RFC 8598 that these mean, beside those that are there; the banner for people.

    What makes no sense is left out, and noted.
    """
    found: list[ConfigurationAttribute] = []
    notes: list[str] = []
    for attribute in attributes:
        if attribute.type == BANNER and attribute.value:
            notes.append(f"the gateway's banner: {printable(attribute.value[:_MAX_BANNER])}")
        elif attribute.type in (DEF_DOMAIN, SPLITDNS_NAME):
            found += _domains(attribute.value)
        elif attribute.type == SPLIT_INCLUDE:
            networks = _networks(attribute.value)
            if networks is None:
                notes.append(f"networks of SPLIT_INCLUDE that make no sense are left out: {attribute.value[:32].hex()}")
            found += networks or ()
        else:
            found.append(attribute)
    return Reading(tuple(dict.fromkeys(found)), tuple(notes))


def _domains(value: bytes) -> list[ConfigurationAttribute]:
    """One name, or several with commas, spaces or NULs between them; who uses them looks whether they are names."""
    names = value.replace(b"\0", b",").replace(b" ", b",").split(b",")
    kept = [name.strip() for name in names[:MAX_ENTRIES]]
    return [ConfigurationAttribute(Attribute.INTERNAL_DNS_DOMAIN, name) for name in kept if name]


def _networks(value: bytes) -> list[ConfigurationAttribute] | None:
    if len(value) % ENTRY_OCTETS or len(value) > MAX_ENTRIES * ENTRY_OCTETS:
        return None
    found = []
    for at in range(0, len(value), ENTRY_OCTETS):
        address, mask = value[at : at + 4], value[at + 4 : at + 8]
        try:
            ipaddress.IPv4Network((int.from_bytes(address), str(ipaddress.IPv4Address(mask))), strict=False)
        except ValueError:
            return None
        found.append(ConfigurationAttribute(Attribute.INTERNAL_IP4_SUBNET, address + mask))
    return found

"""Identities (RFC 7296 section 3.5) and patterns of them.

The text form is guessed as strongSwan's users know it: an IP address, `user@host`, a host name, a distinguished name
(`C=CH, O=Example, CN=vpn`), `@#hex` for a key ID; or said outright: `fqdn:`, `email:`, `ipv4:`, `ipv6:`, `asn1dn:`,
`keyid:`, and `NUMBER:0xHEX` (or `{NUMBER}:text`) for any type number, also those nobody has registered.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import ClassVar

from ikeway.auth.der import DerError
from ikeway.auth.names import DistinguishedName, decode_name, parse_name
from ikeway.errors import ConfigError
from ikeway.wire.payloads import IdInitiator, IdResponder
from ikeway.wire.registry import IdentificationType

_PREFIXES = {
    "fqdn": IdentificationType.ID_FQDN,
    "dns": IdentificationType.ID_FQDN,
    "email": IdentificationType.ID_RFC822_ADDR,
    "rfc822": IdentificationType.ID_RFC822_ADDR,
    "userfqdn": IdentificationType.ID_RFC822_ADDR,
    "ipv4": IdentificationType.ID_IPV4_ADDR,
    "ipv6": IdentificationType.ID_IPV6_ADDR,
    "asn1dn": IdentificationType.ID_DER_ASN1_DN,
    "asn1gn": IdentificationType.ID_DER_ASN1_GN,
    "keyid": IdentificationType.ID_KEY_ID,
}
_CASELESS = (IdentificationType.ID_FQDN, IdentificationType.ID_RFC822_ADDR)
_ADDRESSES = (IdentificationType.ID_IPV4_ADDR, IdentificationType.ID_IPV6_ADDR)
_SAFE_TEXT = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
MAX_PATTERN_STARS = 8


@dataclass(frozen=True, slots=True)
class Identity:
    """Identification type and octets. `==` compares octets; `matches` compares as the type wants."""

    type: IdentificationType
    value: bytes

    @classmethod
    def parse(cls, text: str) -> Identity:
        """Parse the text form (see the module); raises ConfigError."""
        try:
            return _parse(text.strip())
        except (ValueError, DerError) as error:
            raise ConfigError(
                f"{text!r} is not an identity: {error}",
                expected="a host name, user@host, an IP address, 'C=.., O=.., CN=..', keyid:NAME, NUMBER:0xHEX or "
                "{NUMBER}:TEXT",
            ) from error

    @classmethod
    def of_user(cls, name: bytes) -> Identity:
        r"""Who an EAP user is: what the name says in the text form, else the octets as they are (ID_KEY_ID), for many a
        name has another form (`CORP\alice`)."""
        try:
            return cls.parse(name.decode())
        except (ConfigError, UnicodeDecodeError):
            return cls(IdentificationType.ID_KEY_ID, name)

    @classmethod
    def from_payload(cls, payload: IdInitiator | IdResponder) -> Identity:
        """Take the identity from an IDi or IDr payload."""
        return cls(payload.type, payload.value)

    def to_payload(self, initiator: bool) -> IdInitiator | IdResponder:
        """Make the IDi (`initiator`) or IDr payload."""
        return IdInitiator(self.type, self.value) if initiator else IdResponder(self.type, self.value)

    @property
    def distinguished_name(self) -> DistinguishedName | None:
        """The decoded name of an ID_DER_ASN1_DN; None for other types and for octets that are no name."""
        if self.type != IdentificationType.ID_DER_ASN1_DN:
            return None
        try:
            return decode_name(self.value)
        except DerError:
            return None

    def matches(self, other: Identity) -> bool:
        """Same type and same meaning: host names and mail addresses without case, names part by part."""
        if self.type != other.type:
            return False
        if self.value == other.value:
            return True
        if self.type in _CASELESS:
            return self.value.lower() == other.value.lower()
        mine, theirs = self.distinguished_name, other.distinguished_name
        return mine is not None and theirs is not None and mine.equals(theirs)

    def __str__(self) -> str:
        """Return a text form that `parse` reads back to the same identity, safe in a log line."""
        text = _plain_text(self)
        if text is not None:
            try:
                if _parse(text) == self:
                    return text
            except (ValueError, DerError):
                pass
            prefix = _prefix_of(self.type)
            if prefix and not text.lower().startswith(("0x", "#")):
                return f"{prefix}:{text}"
        return f"{_prefix_of(self.type) or int(self.type)}:0x{self.value.hex()}"


def _prefix_of(kind: int) -> str:
    return next((prefix for prefix, known in _PREFIXES.items() if known == kind), "")


def _plain_text(identity: Identity) -> str | None:
    """The bare text of the value, when it has one that is printable and encodes back to the same octets."""
    value = identity.value
    if identity.type in _ADDRESSES:
        right_size = len(value) == (4 if identity.type == IdentificationType.ID_IPV4_ADDR else 16)
        return str(ipaddress.ip_address(value)) if right_size else None
    name = identity.distinguished_name
    if name is not None:
        text = str(name)
        try:
            return text if parse_name(text).encode() == value else None
        except ValueError:
            return None
    if identity.type in (*_CASELESS, IdentificationType.ID_KEY_ID):
        text = value.decode("latin-1")
        return text if _SAFE_TEXT.fullmatch(text) else None
    return None


def _parse(text: str) -> Identity:
    if not text:
        raise ValueError("it is empty")
    explicit = _parse_prefixed(text)
    if explicit is not None:
        return explicit
    if text.startswith("@#"):
        return Identity(IdentificationType.ID_KEY_ID, bytes.fromhex(text[2:]))
    if text.startswith("@@"):
        return Identity(IdentificationType.ID_RFC822_ADDR, text[2:].encode())
    if text.startswith("@"):
        return Identity(IdentificationType.ID_FQDN, text[1:].encode())
    if text.startswith("%") or "*" in text:
        raise ValueError("a pattern stands for many identities; one is needed here")
    if "=" in text:
        return Identity(IdentificationType.ID_DER_ASN1_DN, parse_name(text).encode())
    if "@" in text:
        return Identity(IdentificationType.ID_RFC822_ADDR, text.encode())
    try:
        return _from_address(ipaddress.ip_address(text))
    except ValueError:
        if ":" in text or not re.fullmatch(r"[\w.-]+", text):
            raise ValueError("it is neither an address nor a name; write keyid:... for free text") from None
    return Identity(IdentificationType.ID_FQDN, text.encode())


def _from_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Identity:
    kind = IdentificationType.ID_IPV4_ADDR if address.version == 4 else IdentificationType.ID_IPV6_ADDR
    return Identity(kind, address.packed)


def _parse_prefixed(text: str) -> Identity | None:
    braced = re.fullmatch(r"\{(\d{1,3})\}:(.*)", text, re.DOTALL)
    prefix, colon, rest = (braced[1], ":", braced[2]) if braced else text.partition(":")
    if not colon:
        return None
    if prefix.isdecimal() and (braced or rest.lower().startswith("0x")):
        number = int(prefix)
        if number > 255:
            raise ValueError("a type number is at most 255")
        return Identity(IdentificationType(number), _raw_or_text(rest))
    kind = _PREFIXES.get(prefix.lower())
    if kind is None:
        return None
    if rest.lower().startswith("0x") or rest.startswith("#"):
        return Identity(kind, _raw_or_text(rest))
    if kind in _ADDRESSES:
        address = ipaddress.ip_address(rest.strip())
        if _from_address(address).type != kind:
            raise ValueError(f"not an address of type {prefix}")
        return _from_address(address)
    if kind == IdentificationType.ID_DER_ASN1_DN:
        return Identity(kind, parse_name(rest).encode())
    if kind == IdentificationType.ID_DER_ASN1_GN:
        raise ValueError("a general name is written in hexadecimal, asn1gn:0x...")
    if not rest:
        raise ValueError("nothing follows the type")
    return Identity(kind, rest.encode())


def _raw_or_text(text: str) -> bytes:
    if text.lower().startswith("0x"):
        return bytes.fromhex(text[2:])
    return bytes.fromhex(text[1:]) if text.startswith("#") else text.encode()


@dataclass(frozen=True, slots=True)
class IdentityPattern:
    """Which identities are meant: any (`%any`), one exactly, a name with `*`, a network, or a DN with `*` values."""

    text: str
    exact: Identity | None = None
    type: IdentificationType | None = None  # None with `exact` None: every identity matches
    _network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    _name: DistinguishedName | None = None
    _glob: str = ""

    ANY: ClassVar[IdentityPattern]

    @classmethod
    def of(cls, identity: Identity) -> IdentityPattern:
        """The pattern of exactly that identity."""
        return cls(str(identity), identity, identity.type)

    @classmethod
    def parse(cls, text: str) -> IdentityPattern:
        """Parse a pattern; raises ConfigError."""
        stripped = text.strip()
        if stripped in ("%any", "*"):
            return cls("%any")
        try:
            return _parse_pattern(stripped)
        except (ValueError, DerError) as error:
            raise ConfigError(
                f"{text!r} is not a pattern of identities: {error}",
                expected="%any, *@example.org, *.example.org, 10.0.0.0/8, 'O=Example, CN=*', or one identity",
            ) from error

    def matches(self, identity: Identity) -> bool:
        """True when the pattern stands for that identity."""
        if self.exact is not None:
            return self.exact.matches(identity)
        if self.type is None:
            return True
        if self._network is not None:
            return self._holds_address(identity)
        if identity.type != self.type:
            return False
        if self._name is not None:
            name = identity.distinguished_name
            return name is not None and name.matches(self._name)
        value = identity.value.lower() if self.type in _CASELESS else identity.value
        return _glob_matches(self._glob, value.decode("utf-8", "surrogateescape"))

    def _holds_address(self, identity: Identity) -> bool:
        if identity.type not in _ADDRESSES or len(identity.value) not in (4, 16):
            return False
        return ipaddress.ip_address(identity.value) in (self._network or ())

    def __str__(self) -> str:
        """Return the text it was written as."""
        return self.text


IdentityPattern.ANY = IdentityPattern("%any")


def _parse_pattern(text: str) -> IdentityPattern:
    prefix, _, rest = text.partition(":")
    kind = _PREFIXES.get(prefix.lower())
    body = rest if kind is not None else text
    if text.startswith(("{", "@#")) or ("*" not in body and ("/" not in body or "=" in body)):
        return IdentityPattern.of(_parse(text))
    if "*" not in body:
        network = ipaddress.ip_network(body, strict=False)
        return IdentityPattern(text, None, _from_address(network.network_address).type, network)
    if kind == IdentificationType.ID_DER_ASN1_DN or (kind is None and "=" in body):
        return IdentityPattern(text, None, IdentificationType.ID_DER_ASN1_DN, None, parse_name(body))
    if body.count("*") > MAX_PATTERN_STARS:
        raise ValueError(f"more than {MAX_PATTERN_STARS} asterisks")
    if kind is None:
        if not re.fullmatch(r"[\w.*@+%=~!#$&'-]+", body):
            raise ValueError("a pattern of host names or mail addresses has no such characters")
        kind = IdentificationType.ID_RFC822_ADDR if "@" in body else IdentificationType.ID_FQDN
    return IdentityPattern(text, None, kind, None, None, body.lower() if kind in _CASELESS else body)


def _glob_matches(glob: str, text: str) -> bool:
    """Match `*` as any run of characters, dots included: `*.example.org` also takes `a.b.example.org`. Linear work."""
    first, *middle, last = glob.split("*")
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    position, end = len(first), len(text) - len(last)
    for piece in middle:
        position = text.find(piece, position, end)
        if position < 0:
            return False
        position += len(piece)
    return True

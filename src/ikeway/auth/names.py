r"""Distinguished names: text <-> DER <-> comparison, relative name by relative name (RFC 5280 section 7.1).

Text is written in the order of the DER, as strongSwan's and OpenSSL's users write it: `C=CH, O=Example, CN=vpn`.
`+` joins the parts of one relative name, `\` or double quotes protect a separator, and `O=*` matches any value where
a pattern is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ikeway.auth.der import (
    IA5_STRING,
    OBJECT_IDENTIFIER,
    PRINTABLE_STRING,
    SEQUENCE,
    SET,
    STRING_ENCODINGS,
    UTF8_STRING,
    DerError,
    decode_oid,
    encode,
    encode_oid,
    read_all,
    read_only,
)

# RFC 4519 and what certificates use beside it; the first name of an OID is the one that is printed.
ATTRIBUTE_NAMES = {
    "CN": "2.5.4.3",
    "SN": "2.5.4.4",
    "serialNumber": "2.5.4.5",
    "C": "2.5.4.6",
    "L": "2.5.4.7",
    "ST": "2.5.4.8",
    "S": "2.5.4.8",
    "street": "2.5.4.9",
    "O": "2.5.4.10",
    "OU": "2.5.4.11",
    "T": "2.5.4.12",
    "title": "2.5.4.12",
    "postalCode": "2.5.4.17",
    "N": "2.5.4.41",
    "name": "2.5.4.41",
    "GN": "2.5.4.42",
    "G": "2.5.4.42",
    "initials": "2.5.4.43",
    "dnQualifier": "2.5.4.46",
    "pseudonym": "2.5.4.65",
    "organizationIdentifier": "2.5.4.97",
    "UID": "0.9.2342.19200300.100.1.1",
    "DC": "0.9.2342.19200300.100.1.25",
    "E": "1.2.840.113549.1.9.1",
    "Email": "1.2.840.113549.1.9.1",
    "emailAddress": "1.2.840.113549.1.9.1",
    "unstructuredName": "1.2.840.113549.1.9.2",
    "unstructuredAddress": "1.2.840.113549.1.9.8",
}
_OID_BY_NAME = {name.upper(): oid for name, oid in ATTRIBUTE_NAMES.items()}
_NAME_BY_OID = {oid: name for name, oid in reversed(ATTRIBUTE_NAMES.items())}
_IA5_OIDS = {"0.9.2342.19200300.100.1.25", "1.2.840.113549.1.9.1"}
_PRINTABLE_OIDS = {"2.5.4.5", "2.5.4.6", "2.5.4.46"}
_SPECIAL = set(',+"\\<>;=')
MAX_RELATIVE_NAMES = 64


@dataclass(frozen=True, slots=True)
class NamePart:
    """One attribute of a name: OID, and its value as text (or as raw octets when it is no character string)."""

    oid: str
    value: str | bytes

    @property
    def folded(self) -> tuple[str, str | bytes]:
        """What is compared: without case and with single spaces (RFC 5280 section 7.1)."""
        return self.oid, " ".join(self.value.lower().split()) if isinstance(self.value, str) else self.value

    def __str__(self) -> str:
        """Return `CN=value` with what must be escaped escaped."""
        name = _NAME_BY_OID.get(self.oid, self.oid)
        if isinstance(self.value, bytes):
            return f"{name}=#{self.value.hex()}"
        mark = "\\" if self.value.startswith("#") else ""  # else it would be read back as hexadecimal
        return f"{name}={mark}{''.join(map(_escaped, self.value))}"


def _escaped(character: str) -> str:
    if character in _SPECIAL:
        return "\\" + character
    return character if character.isprintable() else "".join(f"\\{octet:02x}" for octet in character.encode())


@dataclass(frozen=True, slots=True)
class DistinguishedName:
    """A sequence of relative names, each a set of parts."""

    relative_names: tuple[tuple[NamePart, ...], ...]

    @property
    def folded(self) -> tuple[frozenset[tuple[str, str | bytes]], ...]:
        """What is compared and hashed."""
        return tuple(frozenset(part.folded for part in parts) for parts in self.relative_names)

    def equals(self, other: DistinguishedName) -> bool:
        """Compare as RFC 5280 section 7.1 does: order of relative names counts, case and string type do not."""
        return self.folded == other.folded

    def is_within(self, base: DistinguishedName) -> bool:
        """True when the name lies in the subtree of `base` (RFC 5280 section 4.2.1.10)."""
        return self.folded[: len(base.relative_names)] == base.folded

    def matches(self, pattern: DistinguishedName) -> bool:
        """True when each part equals the pattern's, where `*` in the pattern stands for any value."""
        if len(self.relative_names) != len(pattern.relative_names):
            return False
        return all(map(_relative_name_matches, self.relative_names, pattern.relative_names))

    @property
    def has_wildcard(self) -> bool:
        """True when a value is `*`."""
        return any(part.value == "*" for parts in self.relative_names for part in parts)

    def encode(self) -> bytes:
        """Encode as DER: UTF8String, but PrintableString and IA5String where RFC 5280 asks for them."""
        return encode(SEQUENCE, *(encode(SET, *sorted(map(_encode_part, parts))) for parts in self.relative_names))

    def __str__(self) -> str:
        """Return the text form."""
        return ", ".join("+".join(map(str, parts)) for parts in self.relative_names)


def _relative_name_matches(parts: tuple[NamePart, ...], pattern: tuple[NamePart, ...]) -> bool:
    if len(parts) != len(pattern):
        return False
    folded = {part.folded for part in parts}
    oids = {part.oid for part in parts}
    return all(part.oid in oids if part.value == "*" else part.folded in folded for part in pattern)


def _encode_part(part: NamePart) -> bytes:
    if isinstance(part.value, bytes):
        return encode(SEQUENCE, encode_oid(part.oid), part.value)
    ascii_only = part.value.isascii()
    if part.oid in _IA5_OIDS and ascii_only:
        tag = IA5_STRING
    elif part.oid in _PRINTABLE_OIDS and ascii_only:
        tag = PRINTABLE_STRING
    else:
        tag = UTF8_STRING
    return encode(SEQUENCE, encode_oid(part.oid), encode(tag, part.value.encode()))


@lru_cache(maxsize=512)
def decode_name(der: bytes) -> DistinguishedName:
    """Decode a DER Name; raises DerError."""
    relative_names = read_all(read_only(der, SEQUENCE))
    if len(relative_names) > MAX_RELATIVE_NAMES:
        raise DerError("a name with more parts than anybody needs")
    return DistinguishedName(tuple(_decode_relative_name(tag, content) for tag, content in relative_names))


def _decode_relative_name(tag: int, content: bytes) -> tuple[NamePart, ...]:
    if tag != SET:
        raise DerError("a relative name that is no set")
    parts = []
    for part_tag, part in read_all(content):
        elements = read_all(part)
        if part_tag != SEQUENCE or len(elements) != 2 or elements[0][0] != OBJECT_IDENTIFIER:
            raise DerError("a name part that is not an OID and a value")
        parts.append(NamePart(decode_oid(elements[0][1]), _decode_value(*elements[1])))
    return tuple(parts)


def _decode_value(tag: int, content: bytes) -> str | bytes:
    encoding = STRING_ENCODINGS.get(tag)
    if encoding is not None:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            pass
    return encode(tag, content)


def parse_name(text: str) -> DistinguishedName:
    """Parse the text form; raises ValueError that says what is wrong with it."""
    if text.startswith("/"):  # OpenSSL's old one-line form
        tokens = _split(text[1:], "/")
    else:
        tokens = _split(text, ",")
    if not tokens:
        raise ValueError("an empty name")
    return DistinguishedName(tuple(tuple(map(_parse_part, _split(token, "+"))) for token in tokens))


def _split(text: str, separator: str) -> list[str]:
    """Split at separators that are neither escaped nor quoted; escapes and quotes stay in the pieces."""
    pieces, start, quoted, index = [], 0, False, 0
    while index < len(text):
        if text[index] == "\\":
            index += 1
        elif text[index] == '"':
            quoted = not quoted
        elif text[index] == separator and not quoted:
            pieces.append(text[start:index])
            start = index + 1
        index += 1
    if quoted:
        raise ValueError("a quote that is not closed")
    pieces.append(text[start:])
    return pieces


def _parse_part(text: str) -> NamePart:
    name, equals, value = text.partition("=")
    name = name.strip()
    oid = _OID_BY_NAME.get(name.upper())
    if not equals:
        raise ValueError(f"{text.strip()!r} is not of the form NAME=value")
    if oid is None:
        if not name or not all(arc.isdigit() for arc in name.split(".")):
            raise ValueError(f"{name!r} is not the name of an attribute (C, O, OU, CN, E, ... or a dotted OID)")
        oid = decode_oid(encode_oid(name)[2:])
    value = value.strip()
    if value.startswith("#"):
        return NamePart(oid, bytes.fromhex(value[1:]))
    if not value:
        raise ValueError(f"{name} has no value")
    return NamePart(oid, _unescape(value))


def _unescape(value: str) -> str:
    octets, index = bytearray(), 0
    while index < len(value):
        character = value[index]
        if character == "\\" and index + 1 < len(value):
            pair = value[index + 1 : index + 3]
            if len(pair) == 2 and all(digit in "0123456789abcdefABCDEF" for digit in pair):
                octets.append(int(pair, 16))
                index += 3
                continue
            octets += value[index + 1].encode()
            index += 2
            continue
        if character != '"':
            octets += character.encode()
        index += 1
    return octets.decode()

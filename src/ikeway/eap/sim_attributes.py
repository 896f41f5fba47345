"""The messages that EAP-SIM, EAP-AKA and EAP-AKA' share: a subtype and attributes (RFC 4186 sections 8 and 10, RFC 4187
sections 8 and 10, RFC 9048 section 3).

An attribute is a type, its length in words of four octets, and a value framed in one of five ways. Here an attribute has
its content alone: without reserved octets, without the length that stands before it, without padding.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from ikeway.eap.errors import MalformedEap

MAX_MESSAGE = 8192  # no exchange has use for more
_MAX_ATTRIBUTES = 64
_WORD = 4
_FIRST_SKIPPABLE = 128


class Subtype(enum.IntEnum):
    """What a message is."""

    AKA_CHALLENGE = 1
    AKA_AUTHENTICATION_REJECT = 2
    AKA_SYNCHRONIZATION_FAILURE = 4
    AKA_IDENTITY = 5
    SIM_START = 10
    SIM_CHALLENGE = 11
    NOTIFICATION = 12
    REAUTHENTICATION = 13
    CLIENT_ERROR = 14


class Attribute(enum.IntEnum):
    """Attribute types. Those of 128 and more may be skipped by who does not know them."""

    AT_RAND = 1
    AT_AUTN = 2
    AT_RES = 3
    AT_AUTS = 4
    AT_PADDING = 6
    AT_NONCE_MT = 7
    AT_PERMANENT_ID_REQ = 10
    AT_MAC = 11
    AT_NOTIFICATION = 12
    AT_ANY_ID_REQ = 13
    AT_IDENTITY = 14
    AT_VERSION_LIST = 15
    AT_SELECTED_VERSION = 16
    AT_FULLAUTH_ID_REQ = 17
    AT_COUNTER = 19
    AT_COUNTER_TOO_SMALL = 20
    AT_NONCE_S = 21
    AT_CLIENT_ERROR_CODE = 22
    AT_KDF_INPUT = 23
    AT_KDF = 24
    AT_IV = 129
    AT_ENCR_DATA = 130
    AT_NEXT_PSEUDONYM = 132
    AT_NEXT_REAUTH_ID = 133
    AT_CHECKCODE = 134
    AT_RESULT_IND = 135
    AT_BIDDING = 136


class _Frame(enum.Enum):
    RESERVED = "two reserved octets, content"
    COUNTED = "the content's length in octets, content, padding"
    BITS = "the content's length in bits, content, padding"
    NUMBER = "a number of two octets"
    BARE = "content alone"


@dataclass(frozen=True, slots=True)
class _Form:
    frame: _Frame
    sizes: frozenset[int] | range  # octets of content


_ONE_BLOCK = _Form(_Frame.RESERVED, frozenset({16}))
_FLAG = _Form(_Frame.RESERVED, frozenset({0}))
_NUMBER = _Form(_Frame.NUMBER, frozenset({2}))
_NAME = _Form(_Frame.COUNTED, range(1017))  # what 255 words hold
_A = Attribute
_FORMS: dict[Attribute, _Form] = {
    _A.AT_RAND: _Form(_Frame.RESERVED, frozenset({16, 32, 48})),
    _A.AT_AUTN: _ONE_BLOCK,
    _A.AT_RES: _Form(_Frame.BITS, range(4, 17)),
    _A.AT_AUTS: _Form(_Frame.BARE, frozenset({14})),
    _A.AT_PADDING: _Form(_Frame.BARE, frozenset({2, 6, 10})),
    _A.AT_NONCE_MT: _ONE_BLOCK,
    _A.AT_PERMANENT_ID_REQ: _FLAG,
    _A.AT_MAC: _ONE_BLOCK,
    _A.AT_NOTIFICATION: _NUMBER,
    _A.AT_ANY_ID_REQ: _FLAG,
    _A.AT_IDENTITY: _NAME,
    _A.AT_VERSION_LIST: _Form(_Frame.COUNTED, range(2, 130, 2)),
    _A.AT_SELECTED_VERSION: _NUMBER,
    _A.AT_FULLAUTH_ID_REQ: _FLAG,
    _A.AT_COUNTER: _NUMBER,
    _A.AT_COUNTER_TOO_SMALL: _FLAG,
    _A.AT_NONCE_S: _ONE_BLOCK,
    _A.AT_CLIENT_ERROR_CODE: _NUMBER,
    _A.AT_KDF_INPUT: _NAME,
    _A.AT_KDF: _NUMBER,
    _A.AT_IV: _ONE_BLOCK,
    _A.AT_ENCR_DATA: _Form(_Frame.RESERVED, range(16, 1009, 16)),
    _A.AT_NEXT_PSEUDONYM: _NAME,
    _A.AT_NEXT_REAUTH_ID: _NAME,
    _A.AT_CHECKCODE: _Form(_Frame.RESERVED, frozenset({0, 20, 32})),
    _A.AT_RESULT_IND: _FLAG,
    _A.AT_BIDDING: _NUMBER,
}
_MAY_BE_SEVERAL = frozenset({Attribute.AT_KDF})

Pair = tuple[Attribute, bytes]


@dataclass(frozen=True, slots=True)
class AttributeList:
    """Attributes in their order, of a message or from inside AT_ENCR_DATA."""

    pairs: tuple[Pair, ...]

    def __contains__(self, kind: Attribute) -> bool:
        """True when the attribute is there."""
        return any(own is kind for own, _ in self.pairs)

    def find(self, kind: Attribute) -> bytes | None:
        """The content of the attribute, None when it is not there."""
        return next((content for own, content in self.pairs if own is kind), None)

    def all(self, kind: Attribute) -> tuple[bytes, ...]:
        """The contents of all attributes of that type, in their order."""
        return tuple(content for own, content in self.pairs if own is kind)

    def need(self, kind: Attribute) -> bytes:
        """The content of the attribute; raises MalformedEap when it is not there."""
        content = self.find(kind)
        if content is None:
            raise _malformed(f"without {kind.name}", kind.name, self._names())
        return content

    def number(self, kind: Attribute) -> int:
        """The attribute's number; raises MalformedEap when it is not there."""
        return int.from_bytes(self.need(kind))

    def allow(self, *kinds: Attribute) -> Self:
        """Raise MalformedEap for an attribute that has no place here (the tables in section 10.1 of the RFCs)."""
        for own, _ in self.pairs:
            if own not in kinds:
                raise _malformed(f"with an {own.name} that does not belong there", _named(kinds), own.name)
        return self

    def _names(self) -> str:
        return _named(own for own, _ in self.pairs)


@dataclass(frozen=True, slots=True)
class SimMessage(AttributeList):
    """One message: what stands behind the EAP type. `mac_at` is the offset of AT_MAC's code, None without one."""

    subtype: Subtype
    mac_at: int | None = field(default=None, compare=False)


def encode_message(subtype: Subtype, pairs: Iterable[Pair]) -> bytes:
    """Subtype, two reserved octets, attributes."""
    return bytes((subtype, 0, 0)) + encode_attributes(pairs)


def decode_message(octets: bytes) -> SimMessage:
    """Decode what stands behind the EAP type. Raises MalformedEap."""
    if len(octets) < 3 or octets[0] not in Subtype._value2member_map_:
        raise _malformed("of no known subtype", "a subtype and two reserved octets", octets[:3].hex() or "nothing")
    if len(octets) > MAX_MESSAGE:
        raise _malformed("that is too long", f"at most {MAX_MESSAGE} octets", f"{len(octets)}")
    found, mac_at = _decode(octets, 3)
    return SimMessage(found, Subtype(octets[0]), mac_at)


def encode_attributes(pairs: Iterable[Pair]) -> bytes:
    """Attributes, one behind the other. Raises ValueError for content that its attribute cannot have."""
    return b"".join(_encode(kind, content) for kind, content in pairs)


def decode_attributes(octets: bytes) -> AttributeList:
    """Decode attributes without a message around them, as AT_ENCR_DATA has them. Raises MalformedEap."""
    return AttributeList(_decode(octets, 0)[0])


def number(kind: Attribute, value: int) -> Pair:
    """An attribute with a number."""
    return kind, value.to_bytes(2)


def flag(kind: Attribute) -> Pair:
    """An attribute that says all by being there."""
    return kind, b""


def _encode(kind: Attribute, content: bytes) -> bytes:
    form = _FORMS[kind]
    if len(content) not in form.sizes:
        raise ValueError(f"{kind.name} cannot have {len(content)} octets")
    match form.frame:
        case _Frame.RESERVED:
            value = bytes(2) + content
        case _Frame.COUNTED:
            value = len(content).to_bytes(2) + content
        case _Frame.BITS:
            value = (8 * len(content)).to_bytes(2) + content
        case _Frame.NUMBER | _Frame.BARE:
            value = content
    words = -(-(2 + len(value)) // _WORD)
    return bytes((kind, words)) + value.ljust(words * _WORD - 2, b"\0")


def _decode(octets: bytes, offset: int) -> tuple[tuple[Pair, ...], int | None]:
    found: list[Pair] = []
    mac_at = None
    for _ in range(_MAX_ATTRIBUTES):
        if offset == len(octets):
            return tuple(found), mac_at
        if len(octets) - offset < _WORD:
            raise _malformed("with an attribute that is cut off", "four octets or more", f"{len(octets) - offset}")
        number, size = octets[offset], octets[offset + 1] * _WORD
        value = octets[offset + 2 : offset + size]
        if not size or offset + size > len(octets):
            raise _malformed(
                "with an attribute whose length lies",
                f"4 to {len(octets) - offset} octets for attribute {number}",
                f"{size}",
            )
        if number in Attribute._value2member_map_:
            kind = Attribute(number)
            if kind not in _MAY_BE_SEVERAL and any(own is kind for own, _ in found):
                raise _malformed(f"with {kind.name} twice", "it once", "twice")
            found.append((kind, _content(kind, value)))
            mac_at = offset + 4 if kind is Attribute.AT_MAC else mac_at
        elif number < _FIRST_SKIPPABLE:
            raise _malformed(
                "with an attribute that must not be skipped and is not known here",
                "attributes of RFC 4186, RFC 4187 and RFC 9048",
                f"attribute {number}",
            )
        offset += size
    raise _malformed("with too many attributes", f"at most {_MAX_ATTRIBUTES}", "more")


def _content(kind: Attribute, value: bytes) -> bytes:
    """Take the frame off; padding may be no longer than it has to."""
    form = _FORMS[kind]
    match form.frame:
        case _Frame.RESERVED:
            content, padding = value[2:], b""
        case _Frame.COUNTED | _Frame.BITS:
            length = int.from_bytes(value[:2])
            octets, rest = (length, 0) if form.frame is _Frame.COUNTED else divmod(length, 8)
            content, padding = value[2 : 2 + octets], value[2 + octets :]
            if rest or len(content) != octets or len(padding) >= _WORD:
                raise _malformed(f"with an {kind.name} whose length lies", f"at most {len(value) - 2}", f"{octets}")
        case _Frame.NUMBER | _Frame.BARE:
            content, padding = value, b""
    if len(content) not in form.sizes:
        raise _malformed(f"with an {kind.name} of the wrong size", _sizes(form), f"{len(content)} octets")
    if any(padding) or (kind is Attribute.AT_PADDING and any(content)):
        raise _malformed(f"with padding of {kind.name} that is not zero", "zeros", "something else")
    return content


def _sizes(form: _Form) -> str:
    low, high = min(form.sizes), max(form.sizes)
    return f"{low} octets" if low == high else f"{low} to {high} octets"


def _named(kinds: Iterable[Attribute]) -> str:
    return ", ".join(kind.name for kind in kinds) or "nothing"


def _malformed(what: str, expected: str, got: str) -> MalformedEap:
    return MalformedEap(f"a message of EAP-SIM or EAP-AKA {what}", expected=expected, got=got)

"""Attribute-value pairs in the tunnel of EAP-TTLS (RFC 5281 section 10): code, flags, length, vendor, value, padding."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ikeway.eap.errors import MalformedEap

MAX_AVPS = 64
_VENDOR, _MANDATORY = 0x80, 0x40
MICROSOFT = 311


class AvpCode(enum.IntEnum):
    """RADIUS's numbers (RFC 2865, RFC 3579), as far as they are used in the tunnel."""

    USER_NAME = 1
    USER_PASSWORD = 2
    REPLY_MESSAGE = 18
    EAP_MESSAGE = 79


class MicrosoftAvp(enum.IntEnum):
    """Vendor 311 (RFC 2548)."""

    CHAP_ERROR = 2
    CHAP_CHALLENGE = 11
    CHAP2_RESPONSE = 25
    CHAP2_SUCCESS = 26


@dataclass(frozen=True, slots=True)
class Avp:
    """One pair. `mandatory`: who does not know it has to fail."""

    code: int
    value: bytes = field(repr=False)  # it may be a password
    vendor: int = 0
    mandatory: bool = True

    def encode(self) -> bytes:
        """Encode, padded to a multiple of four octets."""
        vendor = self.vendor.to_bytes(4) if self.vendor else b""
        flags = (_VENDOR if self.vendor else 0) | (_MANDATORY if self.mandatory else 0)
        length = 8 + len(vendor) + len(self.value)
        padding = bytes(-length % 4)
        return self.code.to_bytes(4) + bytes((flags,)) + length.to_bytes(3) + vendor + self.value + padding


def encode_avps(avps: Iterable[Avp]) -> bytes:
    """Encode several."""
    return b"".join(avp.encode() for avp in avps)


def decode_avps(octets: bytes) -> tuple[Avp, ...]:
    """Decode all; raises MalformedEap. The padding of the last one may be missing."""
    found: list[Avp] = []
    position = 0
    while position < len(octets):
        if len(found) == MAX_AVPS:
            raise _malformed("too many of them", f"at most {MAX_AVPS}", "more")
        avp, length = _decode_one(octets, position)
        found.append(avp)
        position += length + -length % 4
    return tuple(found)


def _decode_one(octets: bytes, position: int) -> tuple[Avp, int]:
    left = len(octets) - position
    if left < 8:
        raise _malformed("cut off in its header", "8 octets or more", f"{left}")
    flags = octets[position + 4]
    length = int.from_bytes(octets[position + 5 : position + 8])
    header = 12 if flags & _VENDOR else 8
    if not header <= length <= left:
        raise _malformed("with a length that lies", f"{header} to {left}", f"{length}")
    vendor = int.from_bytes(octets[position + 8 : position + 12]) if flags & _VENDOR else 0
    code = int.from_bytes(octets[position : position + 4])
    value = bytes(octets[position + header : position + length])
    return Avp(code, value, vendor, bool(flags & _MANDATORY)), length


def joined(avps: Sequence[Avp], code: int, vendor: int = 0) -> bytes | None:
    """The values of that code, one behind the other, as long EAP packets may be sent in pieces; None for none."""
    values = [avp.value for avp in avps if avp.code == code and avp.vendor == vendor]
    return b"".join(values) if values else None


def refuse_unknown(avps: Iterable[Avp]) -> None:
    """Raise MalformedEap for a mandatory one that we do not know (section 10.1)."""
    for avp in avps:
        known = MicrosoftAvp if avp.vendor == MICROSOFT else AvpCode
        if avp.mandatory and (avp.vendor not in (0, MICROSOFT) or avp.code not in known._value2member_map_):
            what = f"code {avp.code}" + (f" of vendor {avp.vendor}" if avp.vendor else "")
            raise _malformed("that is mandatory and not known here", "one of those of a log-in", what)


def _malformed(what: str, expected: str, got: str) -> MalformedEap:
    return MalformedEap(f"a pair (AVP) in the tunnel of EAP-TTLS {what}", expected=expected, got=got)

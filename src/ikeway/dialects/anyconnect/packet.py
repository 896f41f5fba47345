"""What is behind the type octets of an AnyConnect-EAP packet: TLVs, without padding, nesting or flags.

    code(1) id(1) length(2) | 254(1) | vendor(3) = 9 (Cisco) | vendor type(4) = "DBRP" | TLV ...
    TLV: type(2) length(2, of the value) value

Several TLVs to a packet; they are found by their type, in any order. Nothing is fragmented here: that is IKE's business.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from ikeway.eap.errors import MalformedEap

MAX_TLVS = 16


class TlvType(enum.IntEnum):
    """What is known of the numbering; 2 is a gap."""

    XML = 0
    SIGNATURE = 1  # by the key of the client's certificate: the signature alone
    CERTIFICATES = 3  # PKCS #7


@dataclass(frozen=True, slots=True)
class Tlv:
    """One type and its value."""

    type: int
    value: bytes


def encode(tlvs: Iterable[Tlv]) -> bytes:
    """Encode; raises ValueError when a value does not fit its length field."""
    encoded = b""
    for tlv in tlvs:
        if len(tlv.value) > 0xFFFF:
            raise ValueError(f"a TLV of {len(tlv.value)} octets does not fit its length field")
        encoded += tlv.type.to_bytes(2) + len(tlv.value).to_bytes(2) + tlv.value
    return encoded


def decode(octets: bytes) -> tuple[Tlv, ...]:
    """Decode; raises MalformedEap."""
    found: list[Tlv] = []
    position = 0
    while position < len(octets):
        if len(found) == MAX_TLVS:
            raise MalformedEap("an AnyConnect-EAP packet of too many TLVs", expected=f"at most {MAX_TLVS}")
        start = position + 4
        if start > len(octets):
            raise MalformedEap("a TLV that is cut off", expected="4 octets", got=f"{len(octets) - position}")
        length = int.from_bytes(octets[position + 2 : start])
        if start + length > len(octets):
            raise MalformedEap("a TLV with a length that lies", expected=f"{len(octets) - start}", got=f"{length}")
        found.append(Tlv(int.from_bytes(octets[position : position + 2]), octets[start : start + length]))
        position = start + length
    return tuple(found)


def value_of(tlvs: Iterable[Tlv], type: TlvType) -> bytes | None:
    """The value of that type; None when it is not there. Raises MalformedEap when it is there twice."""
    values = [tlv.value for tlv in tlvs if tlv.type == type]
    if len(values) > 1:
        raise MalformedEap(f"an AnyConnect-EAP packet with {type.name} {len(values)} times", expected="once")
    return values[0] if values else None

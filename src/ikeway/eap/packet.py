"""EAP packets (RFC 3748 section 4) and method types (section 5), also expanded ones."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from ikeway.eap.errors import MalformedEap

MAX_PACKET = 65535


class EapCode(enum.IntEnum):
    """RFC 3748 section 4; Initiate and Finish of RFC 6696 have no place in IKE."""

    REQUEST = 1
    RESPONSE = 2
    SUCCESS = 3
    FAILURE = 4


class EapType(enum.IntEnum):
    """The IANA registry of method types, as far as somebody uses them with a VPN."""

    IDENTITY = 1
    NOTIFICATION = 2
    NAK = 3
    MD5_CHALLENGE = 4
    OTP = 5
    GTC = 6
    TLS = 13
    SIM = 18
    TTLS = 21
    AKA = 23
    PEAP = 25
    MSCHAPV2 = 26
    AKA_PRIME = 50
    TEAP = 55
    EXPANDED = 254


class MethodType(NamedTuple):
    """A method: vendor 0 and a type of the IANA registry, or a vendor's own (expanded types, RFC 3748 section 5.7)."""

    vendor: int
    type: int

    def __str__(self) -> str:
        """Return the registry's name, or the numbers."""
        if self.vendor:
            return f"expanded type {self.vendor}:{self.type}"
        return EapType(self.type).name if self.type in EapType._value2member_map_ else f"type {self.type}"

    @property
    def prefix(self) -> bytes:
        """The type octets of a packet: one, or eight for an expanded type."""
        if self.vendor or self.type > 255:
            return bytes((EapType.EXPANDED,)) + self.vendor.to_bytes(3) + self.type.to_bytes(4)
        return bytes((self.type,))


@dataclass(frozen=True, slots=True)
class EapPacket:
    """One packet. `type` is None for Success and Failure; `data` is what follows the type octet."""

    code: EapCode
    identifier: int
    type: int | None = None
    data: bytes = b""

    @classmethod
    def decode(cls, octets: bytes) -> EapPacket:
        """Decode; octets behind the packet's own length are padding (RFC 3748 section 4). Raises MalformedEap."""
        if len(octets) < 4:
            raise _malformed("shorter than its header", "4 octets", f"{len(octets)}")
        code, identifier, length = octets[0], octets[1], int.from_bytes(octets[2:4])
        if not 4 <= length <= len(octets):
            raise _malformed("with a length that lies", f"4 to {len(octets)}", f"{length}")
        if code in (EapCode.SUCCESS, EapCode.FAILURE):
            if length != 4:
                raise _malformed("of Success or Failure with content", "4 octets", f"{length}")
            return cls(EapCode(code), identifier)
        if code not in (EapCode.REQUEST, EapCode.RESPONSE):
            raise _malformed("with an unknown code", "1 to 4", f"{code}")
        if length == 4:
            raise _malformed("without a type", "5 octets or more", "4")
        return cls(EapCode(code), identifier, octets[4], bytes(octets[5:length]))

    def encode(self) -> bytes:
        """Encode; raises ValueError when it is too long."""
        body = b"" if self.type is None else bytes((self.type,)) + self.data
        if len(body) + 4 > MAX_PACKET:
            raise ValueError(f"an EAP packet of {len(body) + 4} octets does not fit its length field")
        return bytes((self.code, self.identifier)) + (4 + len(body)).to_bytes(2) + body

    @classmethod
    def of(cls, code: EapCode, identifier: int, method: MethodType, data: bytes) -> EapPacket:
        """Make a Request or Response of a method, expanded or not."""
        prefix = method.prefix
        return cls(code, identifier, prefix[0], prefix[1:] + data)

    @property
    def method(self) -> MethodType:
        """The method; an expanded type of vendor 0 is the plain type. Raises MalformedEap when it is cut off."""
        if self.type is None:
            raise _malformed("without a type where a method's is due", "a Request or Response", self.code.name)
        if self.type != EapType.EXPANDED:
            return MethodType(0, self.type)
        if len(self.data) < 7:
            raise _malformed("whose expanded type is cut off", "7 octets", f"{len(self.data)}")
        return MethodType(int.from_bytes(self.data[:3]), int.from_bytes(self.data[3:7]))

    @property
    def method_data(self) -> bytes:
        """What belongs to the method: the data behind the type, be it expanded or not."""
        return self.data[7:] if self.type == EapType.EXPANDED else self.data


def _malformed(what: str, expected: str, got: str) -> MalformedEap:
    return MalformedEap(f"an EAP packet {what}", expected=expected, got=got)

"""An IKE message: the header (RFC 7296 section 3.1) and its payloads.

For an encrypted message, encode it with an `Encrypted` payload whose body is as many zero octets as IV, ciphertext
and ICV will take: all before the body is then what the ICV covers as associated data.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TypeVar

from ikeway.errors import WireError
from ikeway.wire.decode import PAYLOAD_TYPES, decode_chain, decode_payloads
from ikeway.wire.encode import encode_payloads
from ikeway.wire.errors import UnsupportedCriticalPayload, UnsupportedVersion
from ikeway.wire.payloads import Notify, Payload
from ikeway.wire.registry import ExchangeType, NotifyType, Numbers, PayloadType

__all__ = [
    "HEADER_OCTETS",
    "VERSION_2_0",
    "Header",
    "Message",
    "UnsupportedCriticalPayload",
    "UnsupportedVersion",
    "decode_payloads",
    "encode_payloads",
]

HEADER_OCTETS = 28
VERSION_2_0 = 0x20

_HEADER = struct.Struct("!8s8sBBBBII")
_EXCHANGE_TYPES = Numbers(ExchangeType)
_INITIATOR = 0x08
_HIGHER_VERSION = 0x10
_RESPONSE = 0x20

P = TypeVar("P", bound=Payload)


@dataclass(frozen=True, slots=True)
class Header:
    """The IKE header. `version` is the octet: major version in the high four bits. Other flags are ignored."""

    initiator_spi: bytes
    responder_spi: bytes
    next_payload: PayloadType
    version: int
    exchange_type: ExchangeType
    is_initiator: bool
    is_response: bool
    message_id: int
    length: int
    higher_version: bool = False

    @property
    def major_version(self) -> int:
        """2 for what this package speaks."""
        return self.version >> 4

    @staticmethod
    def decode(octets: bytes | memoryview) -> Header:
        """Decode the first 28 octets; the length is not compared with what follows.

        Raises `UnsupportedVersion` (which carries the header) and `WireError`.
        """
        if len(octets) < HEADER_OCTETS:
            raise WireError("the IKE header is cut short", expected=f"{HEADER_OCTETS} octets", got=str(len(octets)))
        initiator_spi, responder_spi, first, version, exchange, flags, message_id, length = _HEADER.unpack_from(octets)
        header = Header(
            initiator_spi,
            responder_spi,
            PAYLOAD_TYPES[first],
            version,
            _EXCHANGE_TYPES[exchange],
            flags & _INITIATOR != 0,
            flags & _RESPONSE != 0,
            message_id,
            length,
            flags & _HIGHER_VERSION != 0,
        )
        if version >> 4 != 2:
            raise UnsupportedVersion(version >> 4, header)
        return header

    def encode(self) -> bytes:
        """Return the 28 octets. Raises `ValueError` when a field does not fit."""
        if len(self.initiator_spi) != 8 or len(self.responder_spi) != 8:
            raise ValueError("the SPIs of an IKE header have 8 octets each")
        flags = (
            (_INITIATOR if self.is_initiator else 0)
            | (_RESPONSE if self.is_response else 0)
            | (_HIGHER_VERSION if self.higher_version else 0)
        )
        try:
            return _HEADER.pack(
                self.initiator_spi,
                self.responder_spi,
                self.next_payload,
                self.version,
                self.exchange_type,
                flags,
                self.message_id,
                self.length,
            )
        except struct.error as error:
            raise ValueError(f"the IKE header does not fit its fields: {error}") from None


@dataclass(frozen=True, slots=True)
class Message:
    """An IKE message. `is_initiator`: sent by the original initiator of the IKE SA, whoever began the exchange."""

    initiator_spi: bytes
    responder_spi: bytes
    exchange_type: ExchangeType
    is_initiator: bool
    is_response: bool
    message_id: int
    payloads: tuple[Payload, ...] = ()
    version: int = VERSION_2_0

    def encode(self) -> bytes:
        """Return the message's octets. Raises `ValueError` when something does not fit its field."""
        first, body = encode_payloads(self.payloads)
        header = Header(
            self.initiator_spi,
            self.responder_spi,
            first,
            self.version,
            self.exchange_type,
            self.is_initiator,
            self.is_response,
            self.message_id,
            HEADER_OCTETS + len(body),
        )
        return header.encode() + body

    @classmethod
    def decode(cls, octets: bytes | memoryview, *, refuse_critical: bool = True) -> Message:
        """Decode a whole message. Raises `WireError`, `UnsupportedVersion` or `UnsupportedCriticalPayload`.

        The length in the header must be that of `octets`. `refuse_critical` as in `decode_payloads`.
        """
        header = Header.decode(octets)
        if header.length != len(octets):
            raise WireError(
                "the IKE header's length is not that of the message",
                offset=24,
                expected=str(len(octets)),
                got=str(header.length),
            )
        payloads = decode_chain(header.next_payload, bytes(octets), HEADER_OCTETS, refuse_critical)
        return cls(
            header.initiator_spi,
            header.responder_spi,
            header.exchange_type,
            header.is_initiator,
            header.is_response,
            header.message_id,
            payloads,
            header.version,
        )

    def find(self, cls: type[P]) -> P | None:
        """The first payload of a class."""
        for payload in self.payloads:
            if isinstance(payload, cls):
                return payload
        return None

    def find_all(self, cls: type[P]) -> list[P]:
        """All payloads of a class, in order."""
        return [payload for payload in self.payloads if isinstance(payload, cls)]

    def notify(self, type: NotifyType) -> Notify | None:
        """The first notify of a type."""
        for payload in self.payloads:
            if isinstance(payload, Notify) and payload.type == type:
                return payload
        return None

    def notifies(self, type: NotifyType) -> list[Notify]:
        """All notifies of a type, in order."""
        return [payload for payload in self.payloads if isinstance(payload, Notify) and payload.type == type]

    def __str__(self) -> str:
        """Return the message for people, in several lines."""
        from ikeway.wire.render import render

        return render(self)

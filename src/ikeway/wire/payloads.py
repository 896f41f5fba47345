"""The payloads of RFC 7296 section 3 and RFC 7383 as immutable values.

Values say what stands on the wire, right or wrong in meaning: a proposal with two key lengths, an address range that
ends before it begins. What the RFC forbids in the form itself, the decoder refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ikeway.wire.registry import (
    TRANSFORM_IDS,
    AuthenticationMethod,
    CertificateEncoding,
    ConfigurationAttributeType,
    ConfigurationType,
    IdentificationType,
    KeyExchangeMethod,
    NotifyType,
    PayloadType,
    ProtocolId,
    TrafficSelectorType,
    TransformAttributeType,
    TransformType,
)

RESERVED_3 = bytes(3)


@dataclass(frozen=True, slots=True)
class Attribute:
    """A transform attribute (RFC 7296 section 3.3.5): an integer in TV form, octets in TLV form."""

    type: int
    value: int | bytes


@dataclass(frozen=True, slots=True)
class Transform:
    """One transform (RFC 7296 section 3.3.2). `id` is a member of its type's registry where the type is known."""

    type: TransformType
    id: int
    attributes: tuple[Attribute, ...] = ()

    @property
    def key_length(self) -> int | None:
        """The Key Length attribute in bits; None without one, or with one in the wrong form."""
        for attribute in self.attributes:
            if attribute.type == TransformAttributeType.KEY_LENGTH and isinstance(attribute.value, int):
                return attribute.value
        return None

    @staticmethod
    def of(type: TransformType, id: int, key_length: int | None = None) -> Transform:
        """Make a transform as it would be decoded, with a Key Length attribute unless `key_length` is None."""
        registry = TRANSFORM_IDS.get(type)
        attributes = () if key_length is None else (Attribute(TransformAttributeType.KEY_LENGTH, key_length),)
        return Transform(type, id if registry is None else registry(id), attributes)


@dataclass(frozen=True, slots=True)
class Proposal:
    """One proposal (RFC 7296 section 3.3.1). `spi` is empty for an IKE SA that is not being rekeyed."""

    number: int
    protocol: ProtocolId
    spi: bytes
    transforms: tuple[Transform, ...]


@dataclass(frozen=True, slots=True)
class SecurityAssociation:
    """SA payload (RFC 7296 section 3.3)."""

    payload_type: ClassVar[PayloadType] = PayloadType.SA
    proposals: tuple[Proposal, ...]


@dataclass(frozen=True, slots=True)
class KeyExchange:
    """KE payload (RFC 7296 section 3.4)."""

    payload_type: ClassVar[PayloadType] = PayloadType.KE
    method: KeyExchangeMethod
    public_value: bytes


@dataclass(frozen=True, slots=True)
class Identification:
    """What both identification payloads are (RFC 7296 section 3.5)."""

    payload_type: ClassVar[PayloadType]
    type: IdentificationType
    value: bytes
    reserved: bytes = RESERVED_3  # as received: AUTH covers these octets too

    @property
    def body(self) -> bytes:
        """The payload without its generic header, as AUTH covers it (RFC 7296 section 2.15)."""
        return bytes((self.type,)) + self.reserved + self.value


@dataclass(frozen=True, slots=True)
class IdInitiator(Identification):
    """IDi payload."""

    payload_type: ClassVar[PayloadType] = PayloadType.IDI


@dataclass(frozen=True, slots=True)
class IdResponder(Identification):
    """IDr payload."""

    payload_type: ClassVar[PayloadType] = PayloadType.IDR


@dataclass(frozen=True, slots=True)
class Certificate:
    """CERT payload (RFC 7296 section 3.6)."""

    payload_type: ClassVar[PayloadType] = PayloadType.CERT
    encoding: CertificateEncoding
    value: bytes


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """CERTREQ payload (RFC 7296 section 3.7). `authorities`: SHA-1 hashes of CA public keys, one after the other."""

    payload_type: ClassVar[PayloadType] = PayloadType.CERTREQ
    encoding: CertificateEncoding
    authorities: bytes


@dataclass(frozen=True, slots=True)
class Authentication:
    """AUTH payload (RFC 7296 section 3.8)."""

    payload_type: ClassVar[PayloadType] = PayloadType.AUTH
    method: AuthenticationMethod
    value: bytes


@dataclass(frozen=True, slots=True)
class Nonce:
    """Ni or Nr payload (RFC 7296 section 3.9): 16 to 256 octets."""

    payload_type: ClassVar[PayloadType] = PayloadType.NONCE
    value: bytes


@dataclass(frozen=True, slots=True)
class Notify:
    """N payload (RFC 7296 section 3.10). `protocol` means something only where there is an `spi`."""

    payload_type: ClassVar[PayloadType] = PayloadType.NOTIFY
    type: NotifyType
    value: bytes = b""
    protocol: ProtocolId | int = 0
    spi: bytes = b""


@dataclass(frozen=True, slots=True)
class Delete:
    """D payload (RFC 7296 section 3.11). No SPIs for the IKE SA itself."""

    payload_type: ClassVar[PayloadType] = PayloadType.DELETE
    protocol: ProtocolId
    spis: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class VendorId:
    """V payload (RFC 7296 section 3.12)."""

    payload_type: ClassVar[PayloadType] = PayloadType.VENDOR_ID
    value: bytes


@dataclass(frozen=True, slots=True)
class TrafficSelector:
    """One traffic selector (RFC 7296 section 3.13.1). Ports and addresses include both ends.

    `protocol` 0 is any. Types other than the two address ranges have another form: all that follows the length is in
    `start_address`, the ports are 0, `end_address` is empty and `protocol` is the second octet as it stands.
    """

    type: TrafficSelectorType
    protocol: int
    start_port: int
    end_port: int
    start_address: bytes
    end_address: bytes


@dataclass(frozen=True, slots=True)
class TrafficSelectorsInitiator:
    """TSi payload (RFC 7296 section 3.13)."""

    payload_type: ClassVar[PayloadType] = PayloadType.TSI
    selectors: tuple[TrafficSelector, ...]


@dataclass(frozen=True, slots=True)
class TrafficSelectorsResponder:
    """TSr payload (RFC 7296 section 3.13)."""

    payload_type: ClassVar[PayloadType] = PayloadType.TSR
    selectors: tuple[TrafficSelector, ...]


@dataclass(frozen=True, slots=True)
class ConfigurationAttribute:
    """One configuration attribute (RFC 7296 section 3.15.1), 15 bits of type."""

    type: ConfigurationAttributeType
    value: bytes = b""


@dataclass(frozen=True, slots=True)
class Configuration:
    """CP payload (RFC 7296 section 3.15)."""

    payload_type: ClassVar[PayloadType] = PayloadType.CP
    type: ConfigurationType
    attributes: tuple[ConfigurationAttribute, ...]


@dataclass(frozen=True, slots=True)
class Eap:
    """EAP payload (RFC 7296 section 3.16): one EAP packet, not looked into here."""

    payload_type: ClassVar[PayloadType] = PayloadType.EAP
    packet: bytes


@dataclass(frozen=True, slots=True)
class Encrypted:
    """SK payload (RFC 7296 section 3.14): always the last. `body` is IV, ciphertext and ICV."""

    payload_type: ClassVar[PayloadType] = PayloadType.SK
    first_payload: PayloadType
    body: bytes


@dataclass(frozen=True, slots=True)
class EncryptedFragment:
    """SKF payload (RFC 7383 section 2.5): always the last. `first_payload` is NONE in all but the first fragment."""

    payload_type: ClassVar[PayloadType] = PayloadType.SKF
    first_payload: PayloadType
    fragment_number: int
    total_fragments: int
    body: bytes


@dataclass(frozen=True, slots=True)
class UnknownPayload:
    """A payload that has no class here, kept as it is."""

    type: PayloadType
    critical: bool
    value: bytes

    @property
    def payload_type(self) -> PayloadType:
        """The payload's type, as the other payloads have it."""
        return self.type


Payload = (
    SecurityAssociation
    | KeyExchange
    | IdInitiator
    | IdResponder
    | Certificate
    | CertificateRequest
    | Authentication
    | Nonce
    | Notify
    | Delete
    | VendorId
    | TrafficSelectorsInitiator
    | TrafficSelectorsResponder
    | Configuration
    | Eap
    | Encrypted
    | EncryptedFragment
    | UnknownPayload
)

"""Octets -> payloads (RFC 7296 section 3). Total: any octets give payloads or a `WireError`.

Every decoder gets the whole octets and the bounds of one payload's body, and keeps within them. Work is bounded by
the limits below and by the length of a UDP datagram: a length is compared with what is there before it is used, and
counts are compared with the limits before anything is made from them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from typing import TypeVar

from ikeway.errors import WireError
from ikeway.wire.errors import UnsupportedCriticalPayload
from ikeway.wire.payloads import (
    Attribute,
    Authentication,
    Certificate,
    CertificateRequest,
    Configuration,
    ConfigurationAttribute,
    Delete,
    Eap,
    Encrypted,
    EncryptedFragment,
    IdInitiator,
    IdResponder,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    Proposal,
    SecurityAssociation,
    TrafficSelector,
    TrafficSelectorsInitiator,
    TrafficSelectorsResponder,
    Transform,
    UnknownPayload,
    VendorId,
)
from ikeway.wire.registry import (
    TRANSFORM_IDS,
    AuthenticationMethod,
    CertificateEncoding,
    ConfigurationAttributeType,
    ConfigurationType,
    IdentificationType,
    KeyExchangeMethod,
    NotifyType,
    Numbers,
    PayloadType,
    ProtocolId,
    TrafficSelectorType,
    TransformAttributeType,
    TransformType,
)

MAX_PAYLOADS = 128  # in one message, or inside one SK payload
MAX_PROPOSALS = 128  # in one SA payload
MAX_TRANSFORMS = 1024  # in one SA payload
MAX_ATTRIBUTES = 16  # of one transform
MAX_SELECTORS = 255  # in one TS payload; its count has one octet
MAX_SPIS = 4096  # in one Delete payload
MAX_CONFIGURATION_ATTRIBUTES = 2048  # in one CP payload

MIN_NONCE = 16
MAX_NONCE = 256

_AUTHENTICATION_METHODS = Numbers(AuthenticationMethod)
_CERTIFICATE_ENCODINGS = Numbers(CertificateEncoding)
_CONFIGURATION_ATTRIBUTES = Numbers(ConfigurationAttributeType)
_CONFIGURATION_TYPES = Numbers(ConfigurationType)
_IDENTIFICATION_TYPES = Numbers(IdentificationType)
_KEY_EXCHANGE_METHODS = Numbers(KeyExchangeMethod)
_NOTIFY_TYPES = Numbers(NotifyType)
PAYLOAD_TYPES = Numbers(PayloadType)
_PROTOCOLS = Numbers(ProtocolId)
_SELECTOR_TYPES = Numbers(TrafficSelectorType)
_TRANSFORM_ATTRIBUTES = Numbers(TransformAttributeType)
_TRANSFORM_TYPES = Numbers(TransformType)
_TRANSFORM_IDS = {number: Numbers(registry) for number, registry in TRANSFORM_IDS.items()}

_GENERIC = Struct("!BBH").unpack_from
_PROPOSAL = Struct("!BxHBBBB").unpack_from
_TRANSFORM_HEAD = Struct("!BxH").unpack_from
_TRANSFORM_BODY = Struct("!BxH").unpack_from
_NOTIFY = Struct("!BBH").unpack_from
_SELECTOR = Struct("!BBHHH").unpack_from
_TWO_SHORTS = Struct("!HH").unpack_from
_SHORT = Struct("!H").unpack_from

SPI_OCTETS = {ProtocolId.AH: 4, ProtocolId.ESP: 4}
_ADDRESS_OCTETS: dict[int, int] = {
    TrafficSelectorType.TS_IPV4_ADDR_RANGE: 4,
    TrafficSelectorType.TS_IPV6_ADDR_RANGE: 16,
}


def decode_payloads(
    first: PayloadType, octets: bytes | memoryview, offset_in_message: int = 0, *, refuse_critical: bool = True
) -> tuple[Payload, ...]:
    """Decode a chain of payloads that fills `octets` exactly; `first` is the type of the first.

    `offset_in_message` is added to the offsets of errors. With `refuse_critical` off, unknown critical payloads are
    kept like other unknown ones; that is for observers of other people's messages, not for a peer.
    """
    try:
        return decode_chain(first, bytes(octets), 0, refuse_critical)
    except WireError as error:
        error.offset += offset_in_message
        raise


def decode_chain(first: int, octets: bytes, position: int, refuse_critical: bool = True) -> tuple[Payload, ...]:
    """Decode the payloads from `position` to the end of `octets`; offsets of errors count from the start of it."""
    total = len(octets)
    payloads: list[Payload] = []
    current = first
    while current:
        if total - position < 4:
            raise _short("a payload header", position, 4, total - position)
        following, flags, length = _GENERIC(octets, position)
        end = position + length
        if length < 4 or end > total:
            raise _bad_length("payload", position + 2, length, 4, total - position)
        if len(payloads) == MAX_PAYLOADS:
            raise _too_many("payloads", MAX_PAYLOADS, position)
        decoder = _DECODERS.get(current)
        if decoder is not None:
            payloads.append(decoder(octets, position + 4, end))
        elif current in _ENCRYPTED:
            payloads.append(_ENCRYPTED[current](PAYLOAD_TYPES[following], octets, position + 4, end))
            following = 0
        else:
            payload_type = PAYLOAD_TYPES[current]
            critical = flags >= 0x80
            if critical and refuse_critical:
                raise UnsupportedCriticalPayload(payload_type, offset=position)
            payloads.append(UnknownPayload(payload_type, critical, octets[position + 4 : end]))
        position = end
        current = following
    if position != total:
        raise WireError("octets follow the last payload", offset=position, got=f"{total - position} octets")
    return tuple(payloads)


def _short(what: str, offset: int, expected: int, got: int) -> WireError:
    return WireError(f"{what} is cut short", offset=offset, expected=f"{expected} octets", got=str(max(got, 0)))


def _bad_length(what: str, offset: int, length: int, least: int, most: int) -> WireError:
    return WireError(f"impossible {what} length", offset=offset, expected=f"{least} to {max(most, 0)}", got=str(length))


def _too_many(what: str, limit: int, offset: int) -> WireError:
    return WireError(f"too many {what}", offset=offset, expected=f"at most {limit}")


def _security_association(octets: bytes, position: int, end: int) -> SecurityAssociation:
    """RFC 7296 section 3.3."""
    proposals: list[Proposal] = []
    budget = MAX_TRANSFORMS
    more = True
    while more:
        if end - position < 8:
            raise _short("a proposal", position, 8, end - position)
        last, length, number, protocol, spi_octets, count = _PROPOSAL(octets, position)
        stop = position + length
        if length < 8 + spi_octets or stop > end:
            raise _bad_length("proposal", position + 2, length, 8 + spi_octets, end - position)
        more = stop != end
        if last != (2 if more else 0):
            raise _bad_marker("proposal", position, 2 if more else 0, last)
        _check_spi_size(protocol, spi_octets, position + 6)
        budget -= count
        if budget < 0:
            raise _too_many("transforms", MAX_TRANSFORMS, position)
        if len(proposals) == MAX_PROPOSALS:
            raise _too_many("proposals", MAX_PROPOSALS, position)
        start = position + 8 + spi_octets
        transforms = _transforms(octets, start, stop, count)
        proposals.append(Proposal(number, _PROTOCOLS[protocol], octets[position + 8 : start], transforms))
        position = stop
    return SecurityAssociation(tuple(proposals))


def _check_spi_size(protocol: int, size: int, offset: int) -> None:
    expected = SPI_OCTETS.get(protocol)  # type: ignore[call-overload]
    if expected is not None and size != expected:
        raise WireError("wrong SPI size of a proposal", offset=offset, expected=str(expected), got=str(size))
    if protocol == 1 and size not in (0, 8):
        raise WireError("wrong SPI size of a proposal", offset=offset, expected="0 or 8", got=str(size))


def _bad_marker(what: str, offset: int, expected: int, got: int) -> WireError:
    return WireError(
        f"the last-{what} mark contradicts the lengths", offset=offset, expected=str(expected), got=str(got)
    )


def _transforms(octets: bytes, position: int, end: int, count: int) -> tuple[Transform, ...]:
    """RFC 7296 section 3.3.2."""
    transforms: list[Transform] = []
    for remaining in range(count, 0, -1):
        if end - position < 8:
            raise _short("a transform", position, 8, end - position)
        last, length = _TRANSFORM_HEAD(octets, position)
        stop = position + length
        if length < 8 or stop > end:
            raise _bad_length("transform", position + 2, length, 8, end - position)
        if last != (3 if remaining > 1 else 0):
            raise _bad_marker("transform", position, 3 if remaining > 1 else 0, last)
        body = octets[position + 4 : stop]
        try:
            transforms.append(_common_transform(body) if length <= _COMMON_OCTETS else _transform(body))
        except WireError as error:
            error.offset += position + 4
            raise
        position = stop
    if position != end:
        raise WireError("octets follow the last transform", offset=position, got=f"{end - position} octets")
    return tuple(transforms)


def _transform(body: bytes) -> Transform:
    """A transform without its first four octets."""
    number, identifier = _TRANSFORM_BODY(body)
    known = _TRANSFORM_IDS.get(number)
    return Transform(
        _TRANSFORM_TYPES[number],
        identifier if known is None else known[identifier],
        _attributes(body, 4, len(body)) if len(body) > 4 else (),
    )


# The same few transforms come again and again, and a proposal may have dozens: values are shared. At most 8 octets
# a key, so a peer that sends only strange ones costs time, not memory.
_COMMON_OCTETS = 12
_common_transform = lru_cache(maxsize=512)(_transform)


def _attributes(octets: bytes, position: int, end: int) -> tuple[Attribute, ...]:
    """RFC 7296 section 3.3.5."""
    attributes: list[Attribute] = []
    while position < end:
        if end - position < 4:
            raise _short("a transform attribute", position, 4, end - position)
        if len(attributes) == MAX_ATTRIBUTES:
            raise _too_many("attributes of a transform", MAX_ATTRIBUTES, position)
        tagged, value = _TWO_SHORTS(octets, position)
        position += 4
        if tagged & 0x8000:
            attributes.append(Attribute(_TRANSFORM_ATTRIBUTES[tagged & 0x7FFF], value))
            continue
        stop = position + value
        if stop > end:
            raise _bad_length("attribute", position - 2, value, 0, end - position)
        attributes.append(Attribute(_TRANSFORM_ATTRIBUTES[tagged], octets[position:stop]))
        position = stop
    return tuple(attributes)


def _key_exchange(octets: bytes, start: int, end: int) -> KeyExchange:
    """RFC 7296 section 3.4."""
    if end - start < 4:
        raise _short("a key exchange payload", start, 4, end - start)
    return KeyExchange(_KEY_EXCHANGE_METHODS[_SHORT(octets, start)[0]], octets[start + 4 : end])


Id = TypeVar("Id", IdInitiator, IdResponder)


def _identification(cls: type[Id]) -> Callable[[bytes, int, int], Id]:
    """RFC 7296 section 3.5."""

    def decode(octets: bytes, start: int, end: int) -> Id:
        if end - start < 4:
            raise _short("an identification payload", start, 4, end - start)
        return cls(_IDENTIFICATION_TYPES[octets[start]], octets[start + 4 : end], octets[start + 1 : start + 4])

    return decode


def _certificate(octets: bytes, start: int, end: int) -> Certificate:
    """RFC 7296 section 3.6."""
    if end == start:
        raise _short("a certificate payload", start, 1, 0)
    return Certificate(_CERTIFICATE_ENCODINGS[octets[start]], octets[start + 1 : end])


def _certificate_request(octets: bytes, start: int, end: int) -> CertificateRequest:
    """RFC 7296 section 3.7."""
    if end == start:
        raise _short("a certificate request payload", start, 1, 0)
    return CertificateRequest(_CERTIFICATE_ENCODINGS[octets[start]], octets[start + 1 : end])


def _authentication(octets: bytes, start: int, end: int) -> Authentication:
    """RFC 7296 section 3.8."""
    if end - start < 4:
        raise _short("an authentication payload", start, 4, end - start)
    return Authentication(_AUTHENTICATION_METHODS[octets[start]], octets[start + 4 : end])


def _nonce(octets: bytes, start: int, end: int) -> Nonce:
    """RFC 7296 section 3.9."""
    if not MIN_NONCE <= end - start <= MAX_NONCE:
        raise _bad_length("nonce", start, end - start, MIN_NONCE, MAX_NONCE)
    return Nonce(octets[start:end])


def _notify(octets: bytes, start: int, end: int) -> Notify:
    """RFC 7296 section 3.10."""
    if end - start < 4:
        raise _short("a notify payload", start, 4, end - start)
    protocol, spi_octets, number = _NOTIFY(octets, start)
    start += 4
    if not spi_octets:
        return Notify(_NOTIFY_TYPES[number], octets[start:end], _PROTOCOLS[protocol])
    if spi_octets > end - start:
        raise _bad_length("SPI", start - 3, spi_octets, 0, end - start)
    body = start + spi_octets
    return Notify(_NOTIFY_TYPES[number], octets[body:end], _PROTOCOLS[protocol], octets[start:body])


def _delete(octets: bytes, start: int, end: int) -> Delete:
    """RFC 7296 section 3.11. The number of SPIs says nothing where their size is 0."""
    if end - start < 4:
        raise _short("a delete payload", start, 4, end - start)
    number, size, count = _NOTIFY(octets, start)
    protocol = _PROTOCOLS[number]
    expected = 0 if protocol == ProtocolId.IKE else SPI_OCTETS.get(protocol, size)
    if size != expected:
        raise WireError("wrong SPI size of a delete", offset=start + 1, expected=str(expected), got=str(size))
    if count > MAX_SPIS:
        raise _too_many("SPIs in a delete", MAX_SPIS, start + 2)
    if end - start - 4 != size * count:
        raise WireError(
            "the SPIs of a delete do not fill it",
            offset=start + 4,
            expected=f"{size * count} octets",
            got=str(end - start - 4),
        )
    return Delete(
        protocol, tuple(octets[place : place + size] for place in range(start + 4, end, size)) if size else ()
    )


def _vendor_id(octets: bytes, start: int, end: int) -> VendorId:
    """RFC 7296 section 3.12."""
    return VendorId(octets[start:end])


def _selectors(octets: bytes, start: int, end: int) -> tuple[TrafficSelector, ...]:
    """RFC 7296 section 3.13."""
    if end - start < 4:
        raise _short("a traffic selector payload", start, 4, end - start)
    selectors: list[TrafficSelector] = []
    position = start + 4
    for _ in range(octets[start]):
        if end - position < 4:
            raise _short("a traffic selector", position, 4, end - position)
        number = octets[position]
        length = _SHORT(octets, position + 2)[0]
        stop = position + length
        size = _ADDRESS_OCTETS.get(number)
        least = 4 if size is None else 8 + 2 * size
        if stop > end or length < least or (size is not None and length != least):
            raise _bad_length(
                "traffic selector", position + 2, length, least, end - position if size is None else least
            )
        if size is None:
            rest = octets[position + 4 : stop]
            selectors.append(TrafficSelector(_SELECTOR_TYPES[number], octets[position + 1], 0, 0, rest, b""))
        else:
            _, protocol, _, low, high = _SELECTOR(octets, position)
            middle = position + 8 + size
            selectors.append(
                TrafficSelector(
                    _SELECTOR_TYPES[number], protocol, low, high, octets[position + 8 : middle], octets[middle:stop]
                )
            )
        position = stop
    if position != end:
        raise WireError("octets follow the last traffic selector", offset=position, got=f"{end - position} octets")
    return tuple(selectors)


def _selectors_initiator(octets: bytes, start: int, end: int) -> TrafficSelectorsInitiator:
    return TrafficSelectorsInitiator(_selectors(octets, start, end))


def _selectors_responder(octets: bytes, start: int, end: int) -> TrafficSelectorsResponder:
    return TrafficSelectorsResponder(_selectors(octets, start, end))


def _configuration(octets: bytes, start: int, end: int) -> Configuration:
    """RFC 7296 section 3.15."""
    if end - start < 4:
        raise _short("a configuration payload", start, 4, end - start)
    attributes: list[ConfigurationAttribute] = []
    position = start + 4
    while position < end:
        if end - position < 4:
            raise _short("a configuration attribute", position, 4, end - position)
        if len(attributes) == MAX_CONFIGURATION_ATTRIBUTES:
            raise _too_many("configuration attributes", MAX_CONFIGURATION_ATTRIBUTES, position)
        number, length = _TWO_SHORTS(octets, position)
        position += 4
        stop = position + length
        if stop > end:
            raise _bad_length("configuration attribute", position - 2, length, 0, end - position)
        # The highest bit is reserved and ignored (section 3.15.1).
        attributes.append(ConfigurationAttribute(_CONFIGURATION_ATTRIBUTES[number & 0x7FFF], octets[position:stop]))
        position = stop
    return Configuration(_CONFIGURATION_TYPES[octets[start]], tuple(attributes))


def _eap(octets: bytes, start: int, end: int) -> Eap:
    """RFC 7296 section 3.16."""
    return Eap(octets[start:end])


def _encrypted(first: PayloadType, octets: bytes, start: int, end: int) -> Encrypted:
    """RFC 7296 section 3.14."""
    return Encrypted(first, octets[start:end])


def _encrypted_fragment(first: PayloadType, octets: bytes, start: int, end: int) -> EncryptedFragment:
    """RFC 7383 section 2.5."""
    if end - start < 4:
        raise _short("an encrypted fragment payload", start, 4, end - start)
    number, total = _TWO_SHORTS(octets, start)
    if not 1 <= number <= total:
        raise WireError("impossible fragment number", offset=start, expected=f"1 to {total}", got=str(number))
    return EncryptedFragment(first, number, total, octets[start + 4 : end])


_DECODERS: dict[int, Callable[[bytes, int, int], Payload]] = {
    PayloadType.SA: _security_association,
    PayloadType.KE: _key_exchange,
    PayloadType.IDI: _identification(IdInitiator),
    PayloadType.IDR: _identification(IdResponder),
    PayloadType.CERT: _certificate,
    PayloadType.CERTREQ: _certificate_request,
    PayloadType.AUTH: _authentication,
    PayloadType.NONCE: _nonce,
    PayloadType.NOTIFY: _notify,
    PayloadType.DELETE: _delete,
    PayloadType.VENDOR_ID: _vendor_id,
    PayloadType.TSI: _selectors_initiator,
    PayloadType.TSR: _selectors_responder,
    PayloadType.CP: _configuration,
    PayloadType.EAP: _eap,
}
_ENCRYPTED: dict[int, Callable[[PayloadType, bytes, int, int], Payload]] = {
    PayloadType.SK: _encrypted,
    PayloadType.SKF: _encrypted_fragment,
}

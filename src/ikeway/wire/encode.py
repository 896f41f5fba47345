"""Payloads -> octets (RFC 7296 section 3). What does not fit its field raises `ValueError`; nothing is cut off.

Encoding checks form only, so that a workbench can send values that no sane peer would.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

from ikeway.wire.decode import SPI_OCTETS
from ikeway.wire.payloads import (
    Authentication,
    Certificate,
    CertificateRequest,
    Configuration,
    Delete,
    Eap,
    Encrypted,
    EncryptedFragment,
    Identification,
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
from ikeway.wire.registry import PayloadType, TrafficSelectorType

_GENERIC = struct.Struct("!BBH").pack
_PROPOSAL = struct.Struct("!BxHBBBB").pack
_TRANSFORM = struct.Struct("!BxHBxH").pack
_NUMBERS = struct.Struct("!BBH").pack
_SELECTOR = struct.Struct("!BBHHH").pack
_TWO_SHORTS = struct.Struct("!HH").pack
_KEY_EXCHANGE = struct.Struct("!Hxx").pack
_OCTET_AND_RESERVED = struct.Struct("!Bxxx").pack

_ADDRESS_OCTETS: dict[int, int] = {
    TrafficSelectorType.TS_IPV4_ADDR_RANGE: 4,
    TrafficSelectorType.TS_IPV6_ADDR_RANGE: 16,
}


def encode_payloads(payloads: Iterable[Payload]) -> tuple[PayloadType, bytes]:
    """Return the type of the first payload (NONE without any) and the chained octets.

    Raises `ValueError` for a value that does not fit its field and for an encrypted payload that is not the last.
    """
    chain = tuple(payloads)
    if not chain:
        return PayloadType.NONE, b""
    parts: list[bytes] = []
    try:
        final = len(chain) - 1
        for index, payload in enumerate(chain):
            body = _ENCODERS[payload.__class__](payload)
            following: int = PayloadType.NONE if index == final else chain[index + 1].payload_type
            flags = 0
            if isinstance(payload, Encrypted | EncryptedFragment):
                if index != final:
                    raise ValueError("an encrypted payload must be the last of its message (RFC 7296 section 3.14)")
                following = payload.first_payload
            elif isinstance(payload, UnknownPayload) and payload.critical:
                flags = 0x80
            parts.append(_GENERIC(following, flags, 4 + len(body)))
            parts.append(body)
    except struct.error as error:
        raise ValueError(f"{payload.__class__.__name__} does not fit its fields: {error}") from None
    return PayloadType(chain[0].payload_type), b"".join(parts)


def _security_association(payload: SecurityAssociation) -> bytes:
    if not payload.proposals:
        raise ValueError("an SA payload needs a proposal (RFC 7296 section 3.3)")
    final = len(payload.proposals) - 1
    return b"".join([_proposal(proposal, 0 if i == final else 2) for i, proposal in enumerate(payload.proposals)])


def _proposal(proposal: Proposal, mark: int) -> bytes:
    transforms = proposal.transforms
    final = len(transforms) - 1
    body = b"".join([_transform(transform, 0 if i == final else 3) for i, transform in enumerate(transforms)])
    spi = proposal.spi
    length = 8 + len(spi) + len(body)
    return _PROPOSAL(mark, length, proposal.number, proposal.protocol, len(spi), len(transforms)) + spi + body


def _transform(transform: Transform, mark: int) -> bytes:
    attributes = b""
    for attribute in transform.attributes:
        if not 0 <= attribute.type <= 0x7FFF:
            raise ValueError(f"transform attribute type {attribute.type} has more than 15 bits")
        if isinstance(attribute.value, int):
            attributes += _TWO_SHORTS(attribute.type | 0x8000, attribute.value)
        else:
            attributes += _TWO_SHORTS(attribute.type, len(attribute.value)) + attribute.value
    return _TRANSFORM(mark, 8 + len(attributes), transform.type, transform.id) + attributes


def _key_exchange(payload: KeyExchange) -> bytes:
    return _KEY_EXCHANGE(payload.method) + payload.public_value


def _identification(payload: Identification) -> bytes:
    if len(payload.reserved) != 3:
        raise ValueError(f"an identification has 3 reserved octets, not {len(payload.reserved)}")
    return payload.body


def _certificate(payload: Certificate) -> bytes:
    return bytes((payload.encoding,)) + payload.value


def _certificate_request(payload: CertificateRequest) -> bytes:
    return bytes((payload.encoding,)) + payload.authorities


def _authentication(payload: Authentication) -> bytes:
    return _OCTET_AND_RESERVED(payload.method) + payload.value


def _value(payload: Nonce | VendorId | UnknownPayload) -> bytes:
    return payload.value


def _notify(payload: Notify) -> bytes:
    return _NUMBERS(payload.protocol, len(payload.spi), payload.type) + payload.spi + payload.value


def _delete(payload: Delete) -> bytes:
    size = len(payload.spis[0]) if payload.spis else SPI_OCTETS.get(payload.protocol, 0)
    if any(len(spi) != size for spi in payload.spis):
        raise ValueError("the SPIs of a delete have one size")
    return _NUMBERS(payload.protocol, size, len(payload.spis)) + b"".join(payload.spis)


def _selectors(payload: TrafficSelectorsInitiator | TrafficSelectorsResponder) -> bytes:
    selectors = payload.selectors
    return _OCTET_AND_RESERVED(len(selectors)) + b"".join([_selector(selector) for selector in selectors])


def _selector(selector: TrafficSelector) -> bytes:
    size = _ADDRESS_OCTETS.get(selector.type)
    addresses = selector.start_address + selector.end_address
    if size is None:
        if selector.start_port or selector.end_port or selector.end_address:
            raise ValueError(f"a {selector.type.name} has its octets in start_address and nothing else")
        return _NUMBERS(selector.type, selector.protocol, 4 + len(addresses)) + addresses
    if len(selector.start_address) != size or len(selector.end_address) != size:
        raise ValueError(f"the addresses of a {selector.type.name} have {size} octets")
    return _SELECTOR(selector.type, selector.protocol, 8 + 2 * size, selector.start_port, selector.end_port) + addresses


def _configuration(payload: Configuration) -> bytes:
    parts = [_OCTET_AND_RESERVED(payload.type)]
    for attribute in payload.attributes:
        if attribute.type > 0x7FFF:
            raise ValueError(f"configuration attribute type {attribute.type} has more than 15 bits")
        parts.append(_TWO_SHORTS(attribute.type, len(attribute.value)))
        parts.append(attribute.value)
    return b"".join(parts)


def _eap(payload: Eap) -> bytes:
    return payload.packet


def _encrypted(payload: Encrypted) -> bytes:
    return payload.body


def _encrypted_fragment(payload: EncryptedFragment) -> bytes:
    return _TWO_SHORTS(payload.fragment_number, payload.total_fragments) + payload.body


# One function a class, found by class: each takes exactly that class, which a dict cannot say.
_ENCODERS: dict[type[Any], Callable[[Any], bytes]] = {
    SecurityAssociation: _security_association,
    KeyExchange: _key_exchange,
    IdInitiator: _identification,
    IdResponder: _identification,
    Certificate: _certificate,
    CertificateRequest: _certificate_request,
    Authentication: _authentication,
    Nonce: _value,
    Notify: _notify,
    Delete: _delete,
    VendorId: _value,
    TrafficSelectorsInitiator: _selectors,
    TrafficSelectorsResponder: _selectors,
    Configuration: _configuration,
    Eap: _eap,
    Encrypted: _encrypted,
    EncryptedFragment: _encrypted_fragment,
    UnknownPayload: _value,
}

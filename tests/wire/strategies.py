"""Hypothesis strategies for everything that an IKE message can be made of, unknown numbers included."""

from __future__ import annotations

from hypothesis import strategies as st

from ikeway.wire import (
    Attribute,
    Authentication,
    AuthenticationMethod,
    Certificate,
    CertificateEncoding,
    CertificateRequest,
    Configuration,
    ConfigurationAttribute,
    ConfigurationAttributeType,
    ConfigurationType,
    Delete,
    Eap,
    Encrypted,
    EncryptedFragment,
    ExchangeType,
    IdentificationType,
    IdInitiator,
    IdResponder,
    KeyExchange,
    KeyExchangeMethod,
    Message,
    Nonce,
    Notify,
    NotifyType,
    PayloadType,
    Proposal,
    ProtocolId,
    Registry,
    SecurityAssociation,
    TrafficSelector,
    TrafficSelectorsInitiator,
    TrafficSelectorsResponder,
    TrafficSelectorType,
    Transform,
    TransformAttributeType,
    TransformType,
    UnknownPayload,
    VendorId,
)
from ikeway.wire.registry import TRANSFORM_IDS

octet = st.integers(0, 0xFF)
short = st.integers(0, 0xFFFF)
few_octets = st.binary(max_size=48)


def numbers(registry: type[Registry], largest: int = 0xFF) -> st.SearchStrategy[Registry]:
    """Known members as often as any other number."""
    return st.one_of(st.sampled_from(list(registry)), st.integers(0, largest).map(registry))


attribute_types = st.integers(0, 0x7FFF).map(TransformAttributeType)
attributes = st.one_of(
    st.integers(0, 0xFFFF).map(lambda bits: Attribute(TransformAttributeType.KEY_LENGTH, bits)),
    st.builds(Attribute, attribute_types, st.one_of(short, st.binary(max_size=12))),
)


@st.composite
def transforms(draw: st.DrawFn) -> Transform:
    kind = draw(numbers(TransformType))
    identifier = draw(short)
    registry = TRANSFORM_IDS.get(kind)
    return Transform(
        kind,
        identifier if registry is None else registry(identifier),
        tuple(draw(st.lists(attributes, max_size=3))),
    )


@st.composite
def proposals(draw: st.DrawFn) -> Proposal:
    protocol = draw(numbers(ProtocolId))
    size = {ProtocolId.IKE: st.sampled_from([0, 8]), ProtocolId.AH: st.just(4), ProtocolId.ESP: st.just(4)}
    length = draw(size.get(protocol, st.integers(0, 20)))
    spi = draw(st.binary(min_size=length, max_size=length))
    return Proposal(draw(octet), protocol, spi, tuple(draw(st.lists(transforms(), max_size=6))))


@st.composite
def selectors(draw: st.DrawFn) -> TrafficSelector:
    kind = draw(numbers(TrafficSelectorType))
    size = {TrafficSelectorType.TS_IPV4_ADDR_RANGE: 4, TrafficSelectorType.TS_IPV6_ADDR_RANGE: 16}.get(kind)
    if size is None:
        return TrafficSelector(kind, draw(octet), 0, 0, draw(few_octets), b"")
    address = st.binary(min_size=size, max_size=size)
    return TrafficSelector(kind, draw(octet), draw(short), draw(short), draw(address), draw(address))


selector_lists = st.lists(selectors(), max_size=5).map(tuple)


@st.composite
def deletes(draw: st.DrawFn) -> Delete:
    protocol = draw(numbers(ProtocolId))
    if protocol == ProtocolId.IKE:
        return Delete(protocol)
    size = 4 if protocol in (ProtocolId.AH, ProtocolId.ESP) else draw(st.integers(1, 12))
    return Delete(protocol, tuple(draw(st.lists(st.binary(min_size=size, max_size=size), max_size=5))))


reserved = st.one_of(st.just(bytes(3)), st.binary(min_size=3, max_size=3))
identifications = [
    st.builds(cls, numbers(IdentificationType), few_octets, reserved) for cls in (IdInitiator, IdResponder)
]
configuration_attributes = st.builds(
    ConfigurationAttribute, numbers(ConfigurationAttributeType, 0x7FFF), st.binary(max_size=20)
)
undecoded = [number for number in range(1, 256) if not 33 <= number <= 48 and number != PayloadType.SKF]
unknown_payloads = st.builds(UnknownPayload, st.sampled_from(undecoded).map(PayloadType), st.just(False), few_octets)

plain_payloads = st.one_of(
    st.builds(SecurityAssociation, st.lists(proposals(), min_size=1, max_size=4).map(tuple)),
    st.builds(KeyExchange, numbers(KeyExchangeMethod, 0xFFFF), few_octets),
    *identifications,
    st.builds(Certificate, numbers(CertificateEncoding), few_octets),
    st.builds(CertificateRequest, numbers(CertificateEncoding), few_octets),
    st.builds(Authentication, numbers(AuthenticationMethod), few_octets),
    st.builds(Nonce, st.binary(min_size=16, max_size=256)),
    st.builds(Notify, numbers(NotifyType, 0xFFFF), few_octets, numbers(ProtocolId), st.binary(max_size=9)),
    deletes(),
    st.builds(VendorId, few_octets),
    st.builds(TrafficSelectorsInitiator, selector_lists),
    st.builds(TrafficSelectorsResponder, selector_lists),
    st.builds(Configuration, numbers(ConfigurationType), st.lists(configuration_attributes, max_size=5).map(tuple)),
    st.builds(Eap, few_octets),
    unknown_payloads,
)


@st.composite
def fragments(draw: st.DrawFn) -> EncryptedFragment:
    total = draw(st.integers(1, 0xFFFF))
    return EncryptedFragment(draw(numbers(PayloadType)), draw(st.integers(1, total)), total, draw(few_octets))


encrypted_payloads = st.one_of(st.builds(Encrypted, numbers(PayloadType), few_octets), fragments())


@st.composite
def payload_chains(draw: st.DrawFn) -> tuple:
    chain = draw(st.lists(plain_payloads, max_size=6))
    if draw(st.booleans()):
        chain.append(draw(encrypted_payloads))
    return tuple(chain)


spis = st.binary(min_size=8, max_size=8)
messages = st.builds(
    Message,
    spis,
    spis,
    numbers(ExchangeType),
    st.booleans(),
    st.booleans(),
    st.integers(0, 0xFFFFFFFF),
    payload_chains(),
    st.integers(0x20, 0x2F),
)

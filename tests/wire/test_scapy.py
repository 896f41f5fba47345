"""scapy as a second opinion: it dissects what we encode to the same fields, and we decode what it builds."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest
from bench.wire import authentication_request
from scapy.contrib import ikev2
from scapy.packet import NoPayload, Packet

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
    Payload,
    PayloadType,
    Proposal,
    ProtocolId,
    SecurityAssociation,
    TrafficSelector,
    TrafficSelectorsInitiator,
    TrafficSelectorsResponder,
    TrafficSelectorType,
    Transform,
    TransformType,
    UnknownPayload,
    VendorId,
)
from tests.wire.certificates import certificate

SPI_I, SPI_R = bytes(range(8)), bytes(range(8, 16))


def layers(packet: Packet) -> Iterator[Packet]:
    """The payloads of a dissected message, or the transforms and proposals of a dissected list."""
    while packet and not isinstance(packet, NoPayload):
        yield packet
        packet = packet.payload


def address(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def octets(value: object) -> bytes:
    return address(value) if isinstance(value, str) else bytes(value)  # scapy shows addresses as text


def transform_of(layer: Packet) -> Transform:
    assert layer.length in (8, 12)
    key_length = None if layer.length == 8 else layer.key_length
    return Transform.of(TransformType(layer.transform_type), layer.transform_id, key_length)


def proposal_of(layer: Packet) -> Proposal:
    transforms = tuple(transform_of(inner) for inner in layers(layer.trans))
    assert layer.trans_nb == len(transforms)
    return Proposal(layer.proposal, ProtocolId(layer.proto), layer.SPI, transforms)


def selector_of(layer: Packet) -> TrafficSelector:
    version = "v4" if layer.TS_type == 7 else "v6"
    return TrafficSelector(
        TrafficSelectorType(layer.TS_type),
        layer.IP_protocol_ID,
        layer.start_port,
        layer.end_port,
        address(getattr(layer, f"starting_address_{version}")),
        address(getattr(layer, f"ending_address_{version}")),
    )


def payload_of(layer: Packet) -> Payload:
    """What scapy read, in our words."""
    match layer:
        case ikev2.IKEv2_SA():
            return SecurityAssociation(tuple(proposal_of(proposal) for proposal in layers(layer.prop)))
        case ikev2.IKEv2_KE():
            return KeyExchange(KeyExchangeMethod(layer.group), layer.ke)
        case ikev2.IKEv2_IDi() | ikev2.IKEv2_IDr():
            cls = IdInitiator if isinstance(layer, ikev2.IKEv2_IDi) else IdResponder
            return cls(IdentificationType(layer.IDtype), octets(layer.ID), layer.res2.to_bytes(3, "big"))
        case ikev2.IKEv2_CERT():
            return Certificate(CertificateEncoding(layer.cert_encoding), bytes(layer.cert_data))
        case ikev2.IKEv2_CERTREQ():
            return CertificateRequest(CertificateEncoding(layer.cert_encoding), layer.cert_authority)
        case ikev2.IKEv2_AUTH():
            return Authentication(AuthenticationMethod(layer.auth_type), layer.load)
        case ikev2.IKEv2_Nonce():
            return Nonce(layer.nonce)
        case ikev2.IKEv2_Notify():
            return Notify(NotifyType(layer.type), layer.notify, ProtocolId(layer.proto), layer.SPI)
        case ikev2.IKEv2_Delete():
            assert layer.SPInum == len(layer.SPI)
            return Delete(ProtocolId(layer.proto), tuple(layer.SPI))
        case ikev2.IKEv2_VendorID():
            return VendorId(layer.vendorID)
        case ikev2.IKEv2_TSi() | ikev2.IKEv2_TSr():
            cls = TrafficSelectorsInitiator if isinstance(layer, ikev2.IKEv2_TSi) else TrafficSelectorsResponder
            assert layer.number_of_TSs == len(layer.traffic_selector)
            return cls(tuple(selector_of(selector) for selector in layer.traffic_selector))
        case ikev2.IKEv2_CP():
            attributes = (
                ConfigurationAttribute(ConfigurationAttributeType(attribute.type), octets(attribute.value))
                for attribute in layer.attributes
            )
            return Configuration(ConfigurationType(layer.CFGType), tuple(attributes))
        case ikev2.IKEv2_EAP():
            return Eap(layer.load)
        case ikev2.IKEv2_Encrypted():
            return Encrypted(PayloadType(layer.next_payload), layer.load)
        case ikev2.IKEv2_Encrypted_Fragment():
            return EncryptedFragment(PayloadType(layer.next_payload), layer.frag_number, layer.frag_total, layer.load)
    raise AssertionError(f"no words for {layer!r}")


V4 = TrafficSelector(TrafficSelectorType.TS_IPV4_ADDR_RANGE, 17, 1000, 2000, b"\x0a\0\0\0", b"\x0a\xff\xff\xff")
V6 = TrafficSelector(TrafficSelectorType.TS_IPV6_ADDR_RANGE, 0, 0, 65535, bytes(15) + b"\1", b"\xfe" * 16)
OFFER = SecurityAssociation(
    (
        Proposal(
            1,
            ProtocolId.IKE,
            b"",
            (
                Transform.of(TransformType.ENCR, 20, 256),
                Transform.of(TransformType.ENCR, 28),
                Transform.of(TransformType.PRF, 7),
                Transform.of(TransformType.KE, 31),
            ),
        ),
        Proposal(
            2, ProtocolId.AH, b"abcd", (Transform.of(TransformType.INTEG, 14), Transform.of(TransformType.ESN, 1))
        ),
    )
)
PLAIN: tuple[Payload, ...] = (
    OFFER,
    KeyExchange(KeyExchangeMethod.ECP_256, b"k" * 64),
    Nonce(b"n" * 32),
    IdInitiator(IdentificationType.ID_IPV4_ADDR, b"\xc0\x00\x02\x01"),
    IdInitiator(IdentificationType.ID_DER_ASN1_DN, b"0\0", b"\1\2\3"),
    IdResponder(IdentificationType.ID_IPV6_ADDR, bytes(15) + b"\1"),
    IdResponder(IdentificationType.ID_FQDN, b"gw.example.org"),
    Certificate(CertificateEncoding.X509_SIGNATURE, certificate()),
    CertificateRequest(CertificateEncoding.X509_SIGNATURE, bytes(range(40))),
    Authentication(AuthenticationMethod.SHARED_KEY_MIC, b"a" * 32),
    Notify(NotifyType.REKEY_SA, b"", ProtocolId.ESP, b"\1\2\3\4"),
    Notify(NotifyType.COOKIE, b"c" * 20),
    Notify(NotifyType(50000), b"private"),
    Delete(ProtocolId.ESP, (b"1234", b"5678")),
    Delete(ProtocolId.IKE),
    VendorId(b"vendor"),
    TrafficSelectorsInitiator((V4, V6)),
    TrafficSelectorsResponder((V6,)),
    Configuration(
        ConfigurationType.CFG_REPLY,
        (
            ConfigurationAttribute(ConfigurationAttributeType.INTERNAL_IP4_ADDRESS, b"\x0a\0\0\1"),
            ConfigurationAttribute(ConfigurationAttributeType.INTERNAL_IP6_DNS, bytes(15) + b"\1"),
            ConfigurationAttribute(ConfigurationAttributeType.APPLICATION_VERSION, b"1.0"),
            ConfigurationAttribute(ConfigurationAttributeType.INTERNAL_IP4_NBNS),
        ),
    ),
    Eap(b"\1\7\0\5\1"),
)
LAST: list[tuple[Payload, ...]] = [
    (),
    (Encrypted(PayloadType.IDI, b"sealed octets"),),
    (EncryptedFragment(PayloadType.IDR, 1, 3, b"first"),),
    (EncryptedFragment(PayloadType.NONE, 3, 3, b"last"),),
]


def message(*payloads: Payload, is_response: bool = False) -> Message:
    return Message(SPI_I, SPI_R, ExchangeType.IKE_AUTH, True, is_response, 0x01020304, payloads)


@pytest.mark.parametrize("payload", PLAIN, ids=lambda payload: type(payload).__name__)
def test_one_payload(payload):
    dissected = ikev2.IKEv2(message(payload).encode())
    (layer,) = layers(dissected.payload)
    assert payload_of(layer) == payload


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("is_response", [False, True])
def test_a_message_of_all_payloads(last, is_response):
    ours = message(*PLAIN, *last, is_response=is_response)
    dissected = ikev2.IKEv2(ours.encode())
    assert (dissected.init_SPI, dissected.resp_SPI, dissected.version) == (SPI_I, SPI_R, 0x20)
    assert (dissected.exch_type, dissected.id, dissected.length) == (35, 0x01020304, len(ours.encode()))
    assert str(dissected.flags) == ("Initiator+Response" if is_response else "Initiator")
    found = []
    for layer in layers(dissected.payload):
        found.append(payload_of(layer))
        if isinstance(found[-1], Encrypted | EncryptedFragment):
            break  # what scapy reads after it is not there
    assert tuple(found) == ours.payloads


def test_the_request_that_is_measured():
    payloads = [
        Certificate(CertificateEncoding.X509_SIGNATURE, certificate()) if isinstance(payload, Certificate) else payload
        for payload in authentication_request()
    ]
    dissected = ikev2.IKEv2(message(*payloads).encode())
    assert [payload_of(layer) for layer in layers(dissected.payload)] == payloads


def test_what_scapy_builds_is_decoded():
    transforms = (
        ikev2.IKEv2_Transform(transform_type=1, transform_id=12, key_length=192, length=12, next_payload=3)
        / ikev2.IKEv2_Transform(transform_type=2, transform_id=5, next_payload=3)
        / ikev2.IKEv2_Transform(transform_type=3, transform_id=12, next_payload=3)
        / ikev2.IKEv2_Transform(transform_type=4, transform_id=19, next_payload=0)
    )
    built = (
        ikev2.IKEv2(init_SPI=SPI_I, resp_SPI=bytes(8), exch_type=34, flags="Initiator", next_payload=33)
        / ikev2.IKEv2_SA(next_payload=34, prop=ikev2.IKEv2_Proposal(next_payload=0, trans_nb=4, trans=transforms))
        / ikev2.IKEv2_KE(next_payload=40, group=19, ke=b"k" * 64)
        / ikev2.IKEv2_Nonce(next_payload=41, nonce=b"n" * 16)
        / ikev2.IKEv2_Notify(next_payload=0, proto=0, type=16430, notify=b"")
    )
    decoded = Message.decode(bytes(built))
    assert decoded == Message(
        SPI_I,
        bytes(8),
        ExchangeType.IKE_SA_INIT,
        True,
        False,
        0,
        (
            SecurityAssociation(
                (
                    Proposal(
                        1,
                        ProtocolId.IKE,
                        b"",
                        (
                            Transform(TransformType.ENCR, 12, (Attribute(14, 192),)),
                            Transform.of(TransformType.PRF, 5),
                            Transform.of(TransformType.INTEG, 12),
                            Transform.of(TransformType.KE, 19),
                        ),
                    ),
                )
            ),
            KeyExchange(KeyExchangeMethod.ECP_256, b"k" * 64),
            Nonce(b"n" * 16),
            Notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED),
        ),
    )


def test_a_payload_that_only_scapy_names_is_kept():
    ours = message(UnknownPayload(PayloadType.PS, False, b"puzzle"))
    (layer,) = layers(ikev2.IKEv2(ours.encode()).payload)
    assert isinstance(layer, ikev2.IKEv2_PS) and layer.load == b"puzzle"

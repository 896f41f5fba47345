from __future__ import annotations

import hashlib

import pytest
from bench.wire import authentication_request
from hypothesis import given

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
    KeyExchange,
    KeyExchangeMethod,
    Message,
    Nonce,
    Notify,
    NotifyType,
    PayloadType,
    Proposal,
    ProtocolId,
    SecurityAssociation,
    TrafficSelector,
    TrafficSelectorsInitiator,
    TrafficSelectorType,
    Transform,
    TransformType,
    UnknownPayload,
    VendorId,
    render,
    render_payload,
    summary,
    vendor_name,
)
from ikeway.wire.names import certificate_subject, distinguished_name
from tests.wire import strategies
from tests.wire.certificates import SUBJECT, certificate

SPI_I, SPI_R = bytes(range(8)), bytes(8)


def attribute(name: str, value: str) -> Configuration:
    kind = ConfigurationAttributeType[name]
    return Configuration(ConfigurationType.CFG_REPLY, (ConfigurationAttribute(kind, bytes.fromhex(value)),))


def selector(protocol: int, low: int, high: int, start: str, end: str) -> TrafficSelectorsInitiator:
    kind = TrafficSelectorType.TS_IPV4_ADDR_RANGE if len(start) == 8 else TrafficSelectorType.TS_IPV6_ADDR_RANGE
    return TrafficSelectorsInitiator(
        (TrafficSelector(kind, protocol, low, high, bytes.fromhex(start), bytes.fromhex(end)),)
    )


@given(strategies.messages)
def test_any_message_can_be_shown(message):
    text = str(message)
    assert text == render(message)
    assert all(line.isprintable() for line in text.split("\n"))
    assert all(len(line) < 4000 for line in text.split("\n"))
    one_line = summary(message)
    assert one_line.isprintable() and one_line.count("{") == 1


def test_a_message():
    request = Message(
        SPI_I,
        SPI_R,
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
                            Transform.of(TransformType.ENCR, 20, 256),
                            Transform.of(TransformType.ENCR, 28),
                            Transform.of(TransformType.PRF, 5),
                            Transform.of(TransformType.KE, 31),
                            Transform.of(TransformType.KE, 35),
                        ),
                    ),
                    Proposal(2, ProtocolId.ESP, b"\xc0\xff\xee\x01", (Transform.of(TransformType.ESN, 0),)),
                )
            ),
            KeyExchange(KeyExchangeMethod.CURVE25519, bytes(32)),
            Nonce(b"\x11" * 16),
            Notify(NotifyType.SIGNATURE_HASH_ALGORITHMS, bytes.fromhex("000200030005")),
        ),
    )
    assert str(request) == (
        "IKE_SA_INIT request 0 from the original initiator, SPIs 0001020304050607 0000000000000000\n"
        "  SA\n"
        "    proposal 1 IKE: ENCR AES_GCM_16-256 | CHACHA20_POLY1305; PRF HMAC_SHA2_256; KE CURVE25519 | ML_KEM_512\n"
        "    proposal 2 ESP SPI c0ffee01: ESN NO\n"
        "  KE CURVE25519, 32 octets\n"
        "  NONCE 11111111111111111111111111111111\n"
        "  N(SIGNATURE_HASH_ALGORITHMS) SHA2_256, SHA2_384, IDENTITY"
    )
    assert summary(request) == "IKE_SA_INIT request 0 { SAi1, KEi, Ni, N(SIGNATURE_HASH_ALGORITHMS) }"


def test_summaries():
    def of(exchange: ExchangeType, is_response: bool, *payloads) -> str:
        return summary(Message(SPI_I, SPI_R, exchange, True, is_response, 1, payloads))

    assert of(ExchangeType.IKE_AUTH, False, *authentication_request()) == (
        "IKE_AUTH request 1 { IDi, CERT, CERTREQ, IDr, AUTH, CP(CFG_REQUEST), SAi2, TSi, TSr, N(INITIAL_CONTACT), "
        "N(MOBIKE_SUPPORTED), N(ADDITIONAL_IP4_ADDRESS), N(EAP_ONLY_AUTHENTICATION) }"
    )
    assert of(ExchangeType.INFORMATIONAL, True) == "INFORMATIONAL response 1 { }"
    assert of(ExchangeType.IKE_AUTH, True, EncryptedFragment(PayloadType.NONE, 2, 3, b"")) == (
        "IKE_AUTH response 1 { SKF 2/3 }"
    )
    assert of(ExchangeType(99), True, UnknownPayload(PayloadType(200), False, b""), Delete(ProtocolId.IKE)) == (
        "UNKNOWN_99 response 1 { UNKNOWN_200, D }"
    )
    many = of(ExchangeType.INFORMATIONAL, False, *[VendorId(b"")] * 100)
    assert many.endswith("V, V, ... }") and len(many) < 300


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (IdInitiator(IdentificationType.ID_FQDN, b"gw.example.org"), "IDi ID_FQDN 'gw.example.org'"),
        (IdInitiator(IdentificationType.ID_FQDN, b"a\nb\x1b[0m\xff"), r"IDi ID_FQDN 'a\nb\x1b[0m\xff'"),
        (IdInitiator(IdentificationType.ID_FQDN, "a\u202eb".encode()), r"IDi ID_FQDN 'a\u202eb'"),
        (IdInitiator(IdentificationType.ID_IPV4_ADDR, b"\xc0\0\2\1"), "IDi ID_IPV4_ADDR 192.0.2.1"),
        (IdInitiator(IdentificationType.ID_IPV4_ADDR, b"\xc0\0\2"), "IDi ID_IPV4_ADDR c00002"),
        (IdInitiator(IdentificationType.ID_KEY_ID, b"\0\1"), "IDi ID_KEY_ID 0001"),
        (IdInitiator(IdentificationType(201), b"*$AnyConnectClient$*"), "IDi UNKNOWN_201 '*$AnyConnectClient$*'"),
        (IdInitiator(IdentificationType.ID_DER_ASN1_DN, b"junk"), "IDi ID_DER_ASN1_DN 6a756e6b"),
        (
            IdInitiator(IdentificationType.ID_DER_ASN1_DN, SUBJECT.public_bytes()),
            "IDi ID_DER_ASN1_DN 'C=CH, O=Müller & Söhne, CN=gw.example.org'",
        ),
        (Certificate(CertificateEncoding.X509_SIGNATURE, b"junk"), "CERT X509_SIGNATURE, 4 octets"),
        (CertificateRequest(CertificateEncoding.X509_SIGNATURE, bytes(20)), "CERTREQ X509_SIGNATURE, 1 authority"),
        (CertificateRequest(CertificateEncoding.X509_SIGNATURE, bytes(60)), "CERTREQ X509_SIGNATURE, 3 authorities"),
        (CertificateRequest(CertificateEncoding.HASH_AND_URL_X509, b"x"), "CERTREQ HASH_AND_URL_X509, 1 octets"),
        (Notify(NotifyType.REKEY_SA, b"", ProtocolId.ESP, b"\1\2\3\4"), "N(REKEY_SA) ESP SPI 01020304"),
        (Notify(NotifyType.INVALID_KE_PAYLOAD, b"\0\x13"), "N(INVALID_KE_PAYLOAD) ECP_256"),
        (Notify(NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD, b"\xc8"), "N(UNSUPPORTED_CRITICAL_PAYLOAD) UNKNOWN_200"),
        (Notify(NotifyType.SET_WINDOW_SIZE, b"\0\0\0\5"), "N(SET_WINDOW_SIZE) 5"),
        (Notify(NotifyType.ADDITIONAL_IP4_ADDRESS, b"\x0a\0\0\1"), "N(ADDITIONAL_IP4_ADDRESS) 10.0.0.1"),
        (Notify(NotifyType.IPCOMP_SUPPORTED, b"\0\2\2"), "N(IPCOMP_SUPPORTED) CPI 0002 IPCOMP_DEFLATE"),
        (Notify(NotifyType.REDIRECT, b"\3\2gw" + bytes(16)), "N(REDIRECT) 'gw'"),
        (Notify(NotifyType.REDIRECT, b"\1\4\xc0\0\2\1"), "N(REDIRECT) 192.0.2.1"),
        (Notify(NotifyType.REDIRECT, b"\3\xffgw"), "N(REDIRECT) 03ff6777"),
        (Notify(NotifyType.PPK_IDENTITY, b"\2key"), "N(PPK_IDENTITY) PPK_ID_FIXED 'key'"),
        (Notify(NotifyType.AUTH_LIFETIME, b"\0\0\x0e\x10"), "N(AUTH_LIFETIME) 3600 s"),
        (Notify(NotifyType(50000), b"\1" * 50), f"N(UNKNOWN_50000) {'01' * 40}... (50 octets)"),
        (Delete(ProtocolId.IKE), "D IKE"),
        (Delete(ProtocolId.ESP, (b"\0\0\0\1", b"\0\0\0\2")), "D ESP SPI 00000001, 00000002"),
        (attribute("INTERNAL_IP4_ADDRESS", "0a000001"), "CP CFG_REPLY INTERNAL_IP4_ADDRESS 10.0.0.1"),
        (attribute("INTERNAL_IP4_ADDRESS", "0a"), "CP CFG_REPLY INTERNAL_IP4_ADDRESS 0a"),
        (attribute("INTERNAL_IP4_DNS", ""), "CP CFG_REPLY INTERNAL_IP4_DNS"),
        (attribute("INTERNAL_IP4_SUBNET", "0a000000ff000000"), "CP CFG_REPLY INTERNAL_IP4_SUBNET 10.0.0.0/255.0.0.0"),
        (
            attribute("INTERNAL_IP6_ADDRESS", "20010db8" + "00" * 11 + "0140"),
            "CP CFG_REPLY INTERNAL_IP6_ADDRESS 2001:db8::1/64",
        ),
        (attribute("INTERNAL_DNS_DOMAIN", b"corp.example".hex()), "CP CFG_REPLY INTERNAL_DNS_DOMAIN 'corp.example'"),
        (
            attribute("SUPPORTED_ATTRIBUTES", "00010008"),
            "CP CFG_REPLY SUPPORTED_ATTRIBUTES INTERNAL_IP4_ADDRESS, INTERNAL_IP6_ADDRESS",
        ),
        (selector(0, 0, 65535, "00000000", "ffffffff"), "TSi 0.0.0.0/0"),
        (selector(6, 443, 443, "0a000001", "0a000001"), "TSi 10.0.0.1 tcp port 443"),
        (selector(17, 1, 9, "0a000000", "0a0000ff"), "TSi 10.0.0.0/24 udp ports 1-9"),
        (selector(89, 65535, 0, "0a000001", "0a0000ff"), "TSi 10.0.0.1-10.0.0.255 protocol 89 opaque ports"),
        (selector(0, 0, 65535, "0a0000ff", "0a000000"), "TSi 10.0.0.255-10.0.0.0"),
        (selector(0, 0, 65535, "20010db8" + "00" * 12, "20010db8" + "ff" * 12), "TSi 2001:db8::/32"),
        (VendorId(hashlib.md5(b"strongSwan").digest()), "V strongSwan (882fe56d6fd20dbc2251613b2ebe5beb)"),
        (VendorId(b"some product"), "V 'some product'"),
        (VendorId(b"\xff\0"), "V ff00"),
        (Encrypted(PayloadType.IDI, bytes(60)), "SK 60 octets, first payload IDi"),
        (EncryptedFragment(PayloadType.NONE, 2, 3, bytes(60)), "SKF 2 of 3, 60 octets"),
        (UnknownPayload(PayloadType(200), True, b"\1"), "UNKNOWN_200 critical 01"),
        (Eap(b"\1\7\0\5\1"), "EAP request 7 Identity, 5 octets"),
        (Eap(b"\3\7\0\4"), "EAP success 7, 4 octets"),
        (Eap(b"\3"), "EAP malformed, 1 octets"),
    ],
)
def test_payloads(payload, shown):
    assert render_payload(payload) == shown


def test_the_subject_of_a_certificate():
    shown = render_payload(Certificate(CertificateEncoding.X509_SIGNATURE, certificate()))
    assert shown.startswith("CERT X509_SIGNATURE of 'C=CH, O=Müller & Söhne, CN=gw.example.org', ")


def test_what_may_hold_a_secret_is_not_shown():
    """EAP-GTC carries a password in the clear."""
    assert "hunter2" not in render_payload(Eap(b"\2\1\0\x0c\x06hunter2"))
    assert b"hunter2".hex() not in render_payload(Eap(b"\2\1\0\x0c\x06hunter2"))
    shown = render_payload(Authentication(AuthenticationMethod.SHARED_KEY_MIC, b"\xab" * 32))
    assert shown == "AUTH SHARED_KEY_MIC, 32 octets"


def test_strange_transforms():
    odd = Transform(TransformType(99), 5, (Attribute(14, b"\1"), Attribute(20, 7)))
    text = render_payload(SecurityAssociation((Proposal(1, ProtocolId.IKE, b"", (odd,)),)))
    assert text == "SA proposal 1 IKE: UNKNOWN_99 UNKNOWN_5-attribute 14=01-attribute 20=7"


@pytest.mark.parametrize("octets", [SUBJECT.public_bytes(), certificate()])
def test_malformed_der_is_no_name(octets):
    assert None not in (distinguished_name(SUBJECT.public_bytes()), certificate_subject(certificate()))
    for place in range(len(octets)):
        for value in (0, 0x80, 0x84, 0xFF):
            broken = octets[:place] + bytes([value]) + octets[place + 1 :]
            for shown in (distinguished_name(broken), certificate_subject(broken)):
                assert shown is None or isinstance(shown, str)
        assert distinguished_name(octets[:place]) is None
        assert certificate_subject(octets[: min(place, 100)]) is None


def _asking(number):
    attribute = ConfigurationAttribute(ConfigurationAttributeType(number))
    return Configuration(ConfigurationType.CFG_REQUEST, (attribute,))


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (bytes.fromhex("1e2b516905991c7d7c96fcbfb587e46100000009"), "Microsoft Windows 8 or later"),
        (bytes.fromhex("1e2b516905991c7d7c96fcbfb587e461ffffffff"), "Microsoft Windows"),
        (bytes.fromhex("1e2b516905991c7d7c96fcbfb587e461"), "Microsoft Windows"),
        (b"CISCO-GRE-MODE\2", "Cisco: GRE mode"),
        (b"CISCO(COPYRIGHT)&Copyright (c) 2009 Cisco Systems, Inc.", "Cisco"),
        (b"OpenIKED-7.4", "OpenIKED"),
        (b"", None),
        (b"unheard of", None),
    ],
)
def test_vendors(value, name):
    assert vendor_name(value) == name


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (Notify(NotifyType(61696), b"\1"), "N(UNKNOWN_61696, FortiClient: connect) 01"),
        (Notify(NotifyType(61697), b"\1"), "N(UNKNOWN_61697) 01"),
        (_asking(28672), "CP CFG_REQUEST UNKNOWN_28672 (Cisco Unity: banner)"),
        (_asking(28700), "CP CFG_REQUEST UNKNOWN_28700"),
    ],
)
def test_private_numbers_say_whose_they_are(payload, shown):
    assert render_payload(payload) == shown

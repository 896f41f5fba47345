"""Decode and encode an IKE_AUTH request with a certificate: `python -m bench.wire`. Ends with 1 above the limit."""

from __future__ import annotations

import sys
import timeit

from ikeway.wire import (
    Authentication,
    AuthenticationMethod,
    Certificate,
    CertificateEncoding,
    CertificateRequest,
    Configuration,
    ConfigurationAttribute,
    ConfigurationAttributeType,
    ConfigurationType,
    Encrypted,
    ExchangeType,
    IdentificationType,
    IdInitiator,
    IdResponder,
    Message,
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
    decode_payloads,
    encode_payloads,
)

LIMIT_MICROSECONDS = 100.0
CERTIFICATE = bytes(range(256)) * 5  # octets as many as an RSA-2048 certificate has; wire does not look into it


def authentication_request() -> tuple[Payload, ...]:
    """What a client with a certificate sends: identity, proof, address request, child SA offer, notifies."""
    aead = Proposal(
        1,
        ProtocolId.ESP,
        b"\xc0\xff\xee\x01",
        (
            Transform.of(TransformType.ENCR, 20, 256),
            Transform.of(TransformType.ENCR, 20, 128),
            Transform.of(TransformType.ENCR, 28),
            Transform.of(TransformType.ESN, 0),
            Transform.of(TransformType.ESN, 1),
        ),
    )
    classic = Proposal(
        2,
        ProtocolId.ESP,
        b"\xc0\xff\xee\x01",
        (
            Transform.of(TransformType.ENCR, 12, 256),
            Transform.of(TransformType.ENCR, 12, 128),
            Transform.of(TransformType.INTEG, 12),
            Transform.of(TransformType.INTEG, 13),
            Transform.of(TransformType.ESN, 0),
        ),
    )
    wanted = (
        "INTERNAL_IP4_ADDRESS",
        "INTERNAL_IP4_DNS",
        "INTERNAL_IP6_ADDRESS",
        "INTERNAL_IP6_DNS",
        "INTERNAL_DNS_DOMAIN",
    )
    everything = (
        TrafficSelector(TrafficSelectorType.TS_IPV4_ADDR_RANGE, 0, 0, 65535, bytes(4), b"\xff" * 4),
        TrafficSelector(TrafficSelectorType.TS_IPV6_ADDR_RANGE, 0, 0, 65535, bytes(16), b"\xff" * 16),
    )
    return (
        IdInitiator(IdentificationType.ID_RFC822_ADDR, b"alice@example.org"),
        Certificate(CertificateEncoding.X509_SIGNATURE, CERTIFICATE),
        CertificateRequest(CertificateEncoding.X509_SIGNATURE, bytes(40)),
        IdResponder(IdentificationType.ID_FQDN, b"vpn.example.org"),
        Authentication(AuthenticationMethod.DIGITAL_SIGNATURE, bytes(272)),
        Configuration(
            ConfigurationType.CFG_REQUEST,
            tuple(ConfigurationAttribute(ConfigurationAttributeType[name]) for name in wanted),
        ),
        SecurityAssociation((aead, classic)),
        TrafficSelectorsInitiator(everything),
        TrafficSelectorsResponder(everything),
        Notify(NotifyType.INITIAL_CONTACT),
        Notify(NotifyType.MOBIKE_SUPPORTED),
        Notify(NotifyType.ADDITIONAL_IP4_ADDRESS, b"\x0a\x00\x00\x01"),
        Notify(NotifyType.EAP_ONLY_AUTHENTICATION),
    )


def microseconds(work: object) -> float:
    """The best of several runs of one call."""
    timer = timeit.Timer(work)  # type: ignore[arg-type]
    return min(timer.repeat(repeat=100, number=100)) / 100 * 1e6


def main() -> int:
    payloads = authentication_request()
    first, inner = encode_payloads(payloads)
    assert decode_payloads(first, inner) == payloads
    outer = Message(
        b"\x11" * 8,
        b"\x22" * 8,
        ExchangeType.IKE_AUTH,
        True,
        False,
        1,
        (Encrypted(first, bytes(8) + inner + bytes(18)),),
    )
    octets = outer.encode()
    rows = {
        "decode": microseconds(lambda: (Message.decode(octets), decode_payloads(PayloadType.IDI, inner))),
        "encode": microseconds(lambda: (encode_payloads(payloads), outer.encode())),
    }
    print(
        f"IKE_AUTH request with certificate, {len(octets)} octets, {len(payloads)} payloads, SK and what is inside it:"
    )
    for name, value in rows.items():
        print(f"  {name} {value:6.1f} us  (limit {LIMIT_MICROSECONDS:.0f} us)")
    return 1 if max(rows.values()) > LIMIT_MICROSECONDS else 0


if __name__ == "__main__":
    sys.exit(main())

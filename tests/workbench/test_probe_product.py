"""Who made it: by what they say of themselves, and by habits of which none decides alone."""

from __future__ import annotations

import pytest

from ikeway.wire import CertificateRequest, ExchangeType, Message, Notify, NotifyType, Payload
from ikeway.wire.registry import CertificateEncoding
from ikeway.workbench.probe.product import Evidence, guess
from ikeway.workbench.probe.report import Confidence, Cookie, Vendor

_N = NotifyType
NAT = [_N.NAT_DETECTION_SOURCE_IP, _N.NAT_DETECTION_DESTINATION_IP]
FRAGMENTS, HASHES, CHILDLESS = (
    _N.IKEV2_FRAGMENTATION_SUPPORTED,
    _N.SIGNATURE_HASH_ALGORITHMS,
    _N.CHILDLESS_IKEV2_SUPPORTED,
)
SEVERAL, PPK, INTERMEDIATE = _N.MULTIPLE_AUTH_SUPPORTED, _N.USE_PPK, _N.INTERMEDIATE_EXCHANGE_SUPPORTED
XAUTH = Vendor(bytes.fromhex("09002689dfd6b712"), "XAUTH (IKEv1)")
DPD = Vendor(bytes.fromhex("afcad71368a1f1c96b8696fc77570100"), "dead peer detection (RFC 3706, IKEv1)")
CISCO = Vendor(b"CISCO-DELETE-REASON", "Cisco: delete reason")
SILENT = Cookie(0, 0, "no answer")


def evidence(
    *types: NotifyType, vendors: tuple[Vendor, ...] = (), cookie: Cookie | None = None, **rest: object
) -> Evidence:
    payloads: tuple[Payload, ...] = tuple(Notify(each) for each in types)
    message = Message(bytes(8), bytes(8), ExchangeType.IKE_SA_INIT, False, True, 0, payloads)
    return Evidence(message, vendors, cookie or Cookie(0, 0, "takes no notice of it"), **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "name", "confidence"),
    [
        # As they come by default.
        (evidence(*NAT, FRAGMENTS, HASHES, CHILDLESS, SEVERAL), "strongSwan", Confidence.MEDIUM),
        (evidence(FRAGMENTS, *NAT, CHILDLESS, cookie=SILENT), "Libreswan", Confidence.MEDIUM),
        (evidence(*NAT, HASHES, FRAGMENTS, CHILDLESS), "Ikeway", Confidence.LOW),
        # With things switched off, or announced besides, in places of their own.
        (evidence(*NAT, HASHES, SEVERAL), "strongSwan", Confidence.MEDIUM),
        (evidence(*NAT, FRAGMENTS, HASHES, PPK, INTERMEDIATE, SEVERAL), "strongSwan", Confidence.MEDIUM),
        (evidence(PPK, *NAT, FRAGMENTS, HASHES, CHILDLESS), "strongSwan", Confidence.LOW),
        (evidence(FRAGMENTS, PPK, HASHES, *NAT, cookie=SILENT), "Libreswan", Confidence.MEDIUM),
        # In another order than any, and with one thing only.
        (evidence(CHILDLESS, *NAT, HASHES), "unknown", Confidence.NONE),
        (evidence(*NAT), "unknown", Confidence.NONE),
        (evidence(cookie=SILENT), "Libreswan", Confidence.LOW),
        (evidence(others=(XAUTH, DPD)), "strongSwan", Confidence.LOW),
        (evidence(version="takes it for version 2: IKE_SA_INIT response 0 { }"), "OpenIKED", Confidence.LOW),
        # Both do that.
        (evidence(*NAT, HASHES, CHILDLESS), "strongSwan or Ikeway", Confidence.LOW),
        # What it says of itself, alone, beside others, and against what it does.
        (evidence(vendors=(CISCO,)), "Cisco (ASA, Firepower, IOS)", Confidence.HIGH),
        (evidence(vendors=(Vendor(b"OpenIKED-7.2", "OpenIKED"), CISCO)), "OpenIKED", Confidence.LOW),
        (evidence(*NAT, FRAGMENTS, HASHES, SEVERAL, vendors=(CISCO,)), "Cisco (ASA, Firepower, IOS)", Confidence.LOW),
        (evidence(vendors=(Vendor(bytes(16), "Cisco Unity"),)), "unknown", Confidence.NONE),
        (Evidence(), "unknown", Confidence.NONE),
    ],
)  # fmt: skip
def test_a_guess_and_how_sure_it_is(found: Evidence, name: str, confidence: Confidence) -> None:
    product = guess(found)
    assert (product.name, product.confidence) == (name, confidence), product.why
    assert product.why  # always with reasons


def test_a_certificate_request_between_them_changes_nothing() -> None:
    found = evidence(*NAT, FRAGMENTS, HASHES, SEVERAL)
    assert found.message is not None
    payloads = list(found.message.payloads)
    payloads.insert(2, CertificateRequest(CertificateEncoding.X509_SIGNATURE, b""))
    changed = Message(bytes(8), bytes(8), ExchangeType.IKE_SA_INIT, False, True, 0, tuple(payloads))
    assert guess(Evidence(changed)) == guess(Evidence(found.message))

"""What a gateway may say to a probe to harm it: it ends, in bounded time, and nothing reaches the terminal as it came."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from ikeway.address import Address
from ikeway.errors import PeerUnreachable
from ikeway.ike import events
from ikeway.ike.engine import Engine
from ikeway.ike.proposals import parse_proposals
from ikeway.ike.questions import SelectConnection
from ikeway.ike.settings import EapExpected, EngineSettings, ResponderSettings
from ikeway.pki.describe import describe_certificate
from ikeway.wire import (
    CertificateRequest,
    KeyExchangeMethod,
    Message,
    Notify,
    NotifyType,
    Payload,
    VendorId,
)
from ikeway.wire import payloads as wire
from ikeway.wire.registry import (
    AuthenticationMethod,
    CertificateEncoding,
    ExchangeType,
    HashAlgorithm,
    IdentificationType,
    ProtocolId,
    TransformAttributeType,
    TransformType,
)
from ikeway.workbench.probe import authentication, first_answer, offers, probe
from ikeway.workbench.probe.line import Line, Pace
from ikeway.workbench.probe.product import Evidence, guess
from ikeway.workbench.probe.report import (
    Authentication,
    Certificate,
    Confidence,
    Ikev1,
    Port,
    ProbeReport,
    Product,
    Vendor,
)
from ikeway.workbench.probe.weaknesses import certificate_weaknesses, find_weaknesses
from tests.workbench.sessions import connection
from tests.workbench.udp import QUICK, gateway, in_ikev2, reply

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\n\x00"
NOW = datetime.now(UTC)


def ask(behave: Callable[[Message], list[Payload]], seconds: float = 8) -> ProbeReport:
    begun = time.monotonic()
    with gateway(in_ikev2(lambda question: [reply(question, *behave(question)).encode()])) as port:
        report = probe("127.0.0.1", replace(QUICK, port=port, nat_port=1))
    assert time.monotonic() - begun < seconds
    return report


def test_cookies_without_end_are_not_followed_without_end() -> None:
    report = ask(lambda question: [Notify(NotifyType.COOKIE, os.urandom(16))])
    # Once for a question (whether it is there, the wrong group, the cookie that it never gave), six times by the engine.
    assert report.cookie.demanded == 3 + 6
    assert "COOKIE" in report.first_answer and not report.chosen


def test_silence_to_everything_says_nothing_of_cookies() -> None:
    seen = 0

    def behave(question: Message) -> list[bytes]:
        nonlocal seen
        seen += 1
        return [reply(question, Notify(NotifyType.NO_PROPOSAL_CHOSEN)).encode()] if seen == 1 else []

    with gateway(in_ikev2(behave)) as port:
        report = probe("127.0.0.1", replace(QUICK, port=port, nat_port=1))
    assert report.product.confidence is Confidence.NONE and not report.cookie.is_dropped
    assert "Nothing that it takes" not in report.to_text()


@pytest.mark.parametrize("octets", [0, 65, 4000])
def test_a_cookie_that_may_be_none_is_not_returned(octets: int) -> None:
    report = ask(lambda question: [Notify(NotifyType.COOKIE, bytes(octets))])
    assert report.cookie.demanded == 0


def test_methods_without_end_are_followed_four_times() -> None:
    methods = [KeyExchangeMethod.ECP_256, KeyExchangeMethod.ECP_384]

    def behave(question: Message) -> list[Payload]:
        methods.reverse()
        return [Notify(NotifyType.INVALID_KE_PAYLOAD, int(methods[0]).to_bytes(2))]

    assert "INVALID_KE_PAYLOAD" in ask(behave).first_answer


@pytest.mark.parametrize("value", [b"", b"\x00", b"\xff\xff", bytes(3), bytes(60000)])
def test_a_demand_for_no_method_at_all_is_not_followed(value: bytes) -> None:
    report = ask(lambda question: [Notify(NotifyType.INVALID_KE_PAYLOAD, value)])
    assert not report.chosen


@pytest.mark.parametrize(
    "value", [b"\x01\x04\x7f\x00\x00\x01", b"\x03\xff", b"", b"\x03\x10" + ESCAPES.encode(), bytes(60000)]
)
def test_nobody_is_redirected(value: bytes) -> None:
    """Shown and not followed: whoever the gateway names has not been asked to be probed."""
    report = ask(lambda question: [Notify(NotifyType.REDIRECT, value)])
    assert report.to_text().split("\n\n")[0].splitlines()[0].startswith("127.0.0.1 ")
    assert_plain(report)


def test_answers_to_other_questions_are_no_answers() -> None:
    def behave(question: Message) -> list[bytes]:
        answer = reply(question, Notify(NotifyType.NO_PROPOSAL_CHOSEN))
        return [
            replace(answer, initiator_spi=os.urandom(8)).encode(),
            replace(answer, is_response=False).encode(),
            replace(answer, message_id=7).encode(),
            replace(answer, exchange_type=37).encode(),  # type: ignore[arg-type]
            replace(answer, version=0x30).encode(),
        ]

    with gateway(in_ikev2(behave)) as port, pytest.raises(PeerUnreachable):
        probe("127.0.0.1", replace(QUICK, port=port, nat_port=1))


def test_an_answer_from_another_address_is_no_answer() -> None:
    """The socket is connected: the kernel keeps others out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.2", 0))
        asked: list[bytes] = []
        with gateway(lambda octets: asked.append(octets) or []) as port:  # type: ignore[func-returns-value]
            line = Line(Address("127.0.0.1", port), Pace(50), marked=False, patience=0.2)
            question = offers.request(offers.offer(offers.EVERYTHING), offers.CHEAP[0], (line.local, line.remote))
            answer = reply(question, Notify(NotifyType.NO_PROPOSAL_CHOSEN)).encode()
            forger = threading.Timer(0.05, lambda: other.sendto(answer, tuple(line.local)))
            forger.start()
            heard = line.ask(question, tries=1)
            forger.join()
            line.close()
    assert asked and heard.silent


def test_answers_as_large_as_udp_goes_are_read_and_cut() -> None:
    def behave(question: Message) -> list[Payload]:
        return [VendorId(bytes(500)) for _ in range(100)] + [
            CertificateRequest(CertificateEncoding.X509_SIGNATURE, bytes(12000))
        ]

    report = ask(behave)
    assert len(report.vendors) == 64
    assert len(report.to_text()) < 10_000
    assert "more" in report.to_text()


def test_an_old_version_as_the_answer_is_told() -> None:
    def behave(question: Message) -> list[bytes]:
        answer = reply(question, Notify(NotifyType.INVALID_MAJOR_VERSION))
        return [replace(answer, version=0x10).encode(), reply(question, Notify(NotifyType.NO_PROPOSAL_CHOSEN)).encode()]

    with gateway(in_ikev2(behave)) as port:
        report = probe("127.0.0.1", replace(QUICK, port=port, nat_port=1))
    assert "it answered IKEv2 in IKE version 1" in report.remarks


def assert_plain(report: ProbeReport) -> None:
    """Nothing in the text or in JSON commands a terminal."""
    for text in (report.to_text(), json.dumps(report.to_json(), indent=2)):
        assert all(line.isprintable() for line in text.split("\n")), text


def hostile_certificate() -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ESCAPES * 2)])
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName("a.test"), x509.UniformResourceIdentifier("http://\x1b[2J/"), x509.DirectoryName(name)]
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW - timedelta(2), NOW + timedelta(2))
    builder = builder.add_extension(x509.SubjectAlternativeName(names * 500), critical=False)
    return builder.sign(key, hashes.SHA256())


def test_nothing_that_a_gateway_chose_commands_the_terminal() -> None:
    certificate = hostile_certificate()
    facts = dict(describe_certificate(certificate, NOW))
    report = ProbeReport(
        host="vpn.test",
        address="192.0.2.1",
        other_addresses=(),
        ports=(Port(500, True, ESCAPES),),
        product=Product(ESCAPES, Confidence.LOW, (ESCAPES,)),
        questions=1,
        seconds=0,
        first_answer=ESCAPES,
        vendors=(Vendor(ESCAPES.encode(), ESCAPES),),
        redirect=ESCAPES,
        wrong_group=ESCAPES,
        authentication=Authentication(ESCAPES, ESCAPES, (Certificate(facts, b""),), ESCAPES, ESCAPES, ESCAPES),
        ikev1=Ikev1(True, ESCAPES, ESCAPES, False, ESCAPES, ESCAPES, (Vendor(b"", ESCAPES),)),
        remarks=(ESCAPES,),
    )
    assert_plain(report)
    assert len(report.to_text()) < 20_000
    assert not any(line.startswith("owned") for line in report.to_text().split("\n"))


def test_an_identity_and_a_certificate_as_they_come_are_shown_escaped() -> None:
    answer = Message(
        bytes(8),
        bytes(8),
        35,  # type: ignore[arg-type]
        False,
        True,
        1,
        (
            wire.IdResponder(IdentificationType.ID_FQDN, ESCAPES.encode()),
            wire.Certificate(CertificateEncoding.X509_SIGNATURE, hostile_certificate().public_bytes(Encoding.DER)),
            wire.Certificate(CertificateEncoding.X509_SIGNATURE, b"\x30\x82\xff\xff"),
            *(wire.Certificate(CertificateEncoding.X509_SIGNATURE, os.urandom(40)) for _ in range(90)),
            wire.Authentication(AuthenticationMethod.RSA_DIGITAL_SIGNATURE, bytes(20)),
            wire.Eap(b"\x01"),
        ),
    )
    shown = authentication.describe([answer])
    report = ProbeReport(
        host="a", address="a", other_addresses=(), ports=(), product=Product("", Confidence.NONE), questions=0, seconds=0,
        first_answer="x", authentication=shown,
    )  # fmt: skip
    assert_plain(report)
    assert len(shown.certificates) == authentication.MAX_CERTIFICATES
    assert "malformed" in shown.certificates[1].facts
    assert any("RSA_DIGITAL_SIGNATURE" in each.what for each in find_weaknesses(report))


def certificate(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, days: tuple[int, int]) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vpn.test")])
    begins, ends = (NOW + timedelta(each) for each in days)
    return x509.CertificateBuilder(name, name, key.public_key(), 1, begins, ends).sign(key, hashes.SHA256())


def test_what_is_wrong_with_a_certificate_is_told() -> None:
    small = rsa.generate_private_key(65537, 1024)
    curve = ec.generate_private_key(ec.SECP256R1())
    assert [word for word in certificate_weaknesses(certificate(small, (-3, -1)), NOW) if "expired" in word]
    assert [word for word in certificate_weaknesses(certificate(small, (-3, 3)), NOW) if "1024 bits" in word]
    assert [word for word in certificate_weaknesses(certificate(curve, (1, 3)), NOW) if "not valid before" in word]
    assert certificate_weaknesses(certificate(curve, (-1, 3)), NOW) == ()


def test_sha1_is_a_weakness_where_it_is_announced() -> None:
    octets = b"".join(int(each).to_bytes(2) for each in (HashAlgorithm.SHA2_256, HashAlgorithm.SHA1))
    report = ask(lambda question: [Notify(NotifyType.SIGNATURE_HASH_ALGORITHMS, octets)])
    assert report.signature_hashes == ("SHA2_256", "SHA1")
    assert [each.what for each in report.weaknesses] == ["signatures over SHA-1"]


class Endless:
    """Has always one more thing for the user to read."""

    succeeded = failed = False
    error = None
    reason = ""

    def __init__(self) -> None:
        self.said = 0

    async def start(self) -> bytes:
        return self._notification()

    async def receive(self, packet: bytes) -> bytes:
        return self._notification()

    def abandon(self, error: BaseException) -> BaseException:
        return error

    def _notification(self) -> bytes:
        self.said += 1
        text = ESCAPES.encode() * 40
        return bytes((1, self.said)) + (5 + len(text)).to_bytes(2) + b"\x02" + text


def test_eap_without_end_is_left() -> None:
    authenticator = Endless()
    engine = Engine(
        EngineSettings(responder=ResponderSettings(ike_proposals=parse_proposals("aes256gcm16-prfsha256-x25519")))
    )
    endless = connection("bob.lab.test", "*", "aes256gcm16-prfsha256-x25519", "10.1.0.0/16", "10.2.0.0/16")
    endless = replace(endless, remote_expectation=EapExpected(lambda ask: authenticator))  # type: ignore[arg-type]
    peer, here = Address("127.0.0.1", 1), Address("127.0.0.1", 500)

    def behave(octets: bytes) -> list[bytes]:
        now = time.monotonic()
        engine.receive(octets, here, peer, now)
        for _ in range(3):
            for event in engine.events():
                if isinstance(event, events.Asked) and isinstance(event.question, SelectConnection):
                    engine.answer(event.question, endless, now)
        return [each.octets for each in engine.outgoing()]

    begun = time.monotonic()
    with gateway(behave) as port:
        report = probe("127.0.0.1", replace(QUICK, port=port, nat_port=1))
    assert time.monotonic() - begun < 5
    assert report.authentication is not None and "bob.lab.test" in report.authentication.identity
    assert 2 < authenticator.said <= authentication.MAX_ROUNDS + 1
    assert not report.authentication.eap_method
    assert_plain(report)


notifies = st.builds(Notify, st.sampled_from(NotifyType), st.binary(max_size=80))
key_lengths = st.builds(wire.Attribute, st.just(TransformAttributeType.KEY_LENGTH), st.integers(0, 65535))
transforms = st.builds(
    wire.Transform, st.sampled_from(TransformType), st.integers(0, 65535), st.lists(key_lengths, max_size=2).map(tuple)
)
some = st.lists(transforms, max_size=6).map(tuple)
proposals = st.builds(wire.Proposal, st.integers(0, 255), st.sampled_from(ProtocolId), st.just(b""), some)
anything = st.one_of(
    notifies,
    st.builds(VendorId, st.binary(max_size=80)),
    st.builds(CertificateRequest, st.sampled_from(CertificateEncoding), st.binary(max_size=80)),
    st.builds(wire.Certificate, st.sampled_from(CertificateEncoding), st.binary(max_size=80)),
    st.builds(wire.IdResponder, st.sampled_from(IdentificationType), st.binary(max_size=80)),
    st.builds(wire.Eap, st.binary(max_size=20)),
    st.builds(wire.SecurityAssociation, st.lists(proposals, min_size=1, max_size=3).map(tuple)),
)


@given(st.lists(anything, max_size=8), st.lists(anything, max_size=8))
def test_whatever_the_first_answers_say_there_is_a_report(first: list[Payload], second: list[Payload]) -> None:
    line = SimpleNamespace(local=Address("192.0.2.1", 500), remote=Address("192.0.2.2", 500))
    answers = [
        Message(bytes(8), bytes(8), exchange, False, True, number, tuple(payloads))
        for number, (exchange, payloads) in enumerate(
            ((ExchangeType.IKE_SA_INIT, first), (ExchangeType.IKE_AUTH, second))
        )
    ]
    empty = ProbeReport(
        host="a", address="a", other_addresses=(), ports=(Port(500, True, ""),), product=guess(Evidence()), questions=1,
        seconds=0, ikev1=None,
    )  # fmt: skip
    report = replace(
        first_answer.read(empty, answers[0], line),  # type: ignore[arg-type]
        authentication=authentication.describe(answers[1:]),
    )
    made = guess(Evidence(answers[0], report.vendors))
    assert_plain(replace(report, product=made, weaknesses=find_weaknesses(report)))

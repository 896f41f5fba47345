"""Who the peers are and how they sign: identity types, IDr, certificates and their chains, classic signatures."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from tests.auth.pki import NOW, Node, new_key, root
from tests.ike.pair import IKE, Pair, connection, connection_b
from tests.ike.stranger import IKE_AUTH, after_init, kinds

from ikeway.auth.binding import carried_identities
from ikeway.auth.certificate import CertificateCredential, TrustStore
from ikeway.auth.identity import Identity, IdentityPattern
from ikeway.crypto.signature import sign
from ikeway.ike import events
from ikeway.ike.exchanges import init
from ikeway.ike.questions import SelectConnection
from ikeway.ike.settings import CertificateExpected, ResponderSettings
from ikeway.wire.payloads import (
    Authentication,
    Certificate,
    CertificateRequest,
    IdInitiator,
    IdResponder,
    Notify,
    Payload,
    VendorId,
)
from ikeway.wire.registry import AuthenticationMethod, IdentificationType, NotifyType

IDENTITIES = (
    "a.example",
    "bob@example.org",
    "192.0.2.77",
    "2001:db8::77",
    "C=CH, O=Example, CN=bob",
    "keyid:some text",
    "keyid:0x00ff00",
    "asn1gn:0x820161",
    "4:0xff00",
    "201:0xdeadbeef",
    "255:0x",
)


@pytest.fixture(scope="module")
def authority() -> Node:
    return root()


def credential(authority: Node, name: str, kind: str = "p256", via: tuple[Node, ...] = ()) -> CertificateCredential:
    issuer = via[0] if via else authority
    node = issuer.issue(name, key=new_key(kind), alternatives=(f"dns:{name}",))
    return CertificateCredential((node.certificate, *(one.certificate for one in via)), node.key)


def certified(authority: Node, a: dict[str, Any] | None = None, b: dict[str, Any] | None = None, **pair: Any) -> Pair:
    """Two sides with certificates of one authority."""
    trust = CertificateExpected(TrustStore((authority.certificate,)))
    defaults = {"remote_expectation": trust}
    return Pair(
        connection(**({"local_credential": credential(authority, "a.example")} | defaults | (a or {}))),
        connection_b(**({"local_credential": credential(authority, "b.example")} | defaults | (b or {}))),
        epoch=NOW,
        **pair,
    )


def received(pair: Pair, side: str, kind: type[Payload]) -> list[Any]:
    """All payloads of a kind that a side received."""
    host = pair.a if side == "a" else pair.b
    return [found for event in host.happened(events.MessageReceived) for found in event.message.find_all(kind)]


def up(pair: Pair) -> Pair:
    pair.connect()
    assert len(pair.a.inbound) == 1, (pair.a.errors, pair.b.errors)
    pair.agree()
    return pair


# --- identities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", IDENTITIES)
def test_identities_of_every_type_by_pre_shared_key(text):
    ours, theirs = Identity.parse(text), Identity.parse("254:0x0102")
    a = connection(local_identity=ours, remote_identity=IdentityPattern("", exact=theirs))
    b = connection_b(local_identity=theirs, remote_identity=IdentityPattern("", exact=ours))
    pair = up(Pair(a, b))
    assert pair.b.sa.remote_identity == ours and pair.a.sa.remote_identity == theirs
    (sent,) = received(pair, "b", IdInitiator)
    assert (sent.type, sent.value) == (ours.type, ours.value)
    (wanted,) = received(pair, "b", IdResponder)
    assert (wanted.type, wanted.value) == (254, b"\1\2")


def test_octets_of_another_type_are_another_identity():
    a = connection(local_identity=Identity.parse("keyid:a.example"))
    pair = Pair(a)
    pair.connect()
    assert pair.a.errors[0].notify == NotifyType.AUTHENTICATION_FAILED
    assert not pair.b.inbound


def test_without_an_identity_of_its_own_a_side_shows_its_address():
    a = connection(local_identity=None)
    pair = up(Pair(a, connection_b(remote_identity=None)))
    assert str(pair.b.sa.remote_identity) == "192.0.2.1"


@pytest.mark.parametrize("changes", [{"send_idr": False}, {"remote_identity": IdentityPattern.parse("*.example")}])
def test_idr_is_left_out(changes):
    """By choice, or because a pattern names nobody in particular; what comes back is checked all the same."""
    pair = up(Pair(connection(**changes)))
    assert received(pair, "b", IdResponder) == []
    pair = Pair(connection(**changes), connection_b(local_identity=Identity.parse("b.elsewhere")))
    pair.connect()
    assert pair.a.errors and not pair.a.inbound


@pytest.mark.parametrize("honest", [True, False])
def test_auth_covers_the_reserved_octets_of_an_identity_as_they_came(honest):
    peer = after_init()
    sent = IdInitiator(IdentificationType.ID_FQDN, b"a.example", b"\1\2\3")
    signed = sent if honest else IdInitiator(sent.type, sent.value)
    answer = peer.ask(IKE_AUTH, sent, peer.psk_auth(signed), *peer.child_offer())
    assert ("AUTHENTICATION_FAILED" in kinds(answer)) != honest
    assert len(peer.host.inbound) == int(honest)


# --- vendor IDs -------------------------------------------------------------------------------------------------------


def test_vendor_ids_on_both_sides():
    pair = up(
        Pair(
            connection(vendor_ids=(b"client one", b"client two")),
            responder=ResponderSettings(ike_proposals=IKE, vendor_ids=(b"gateway", b"")),
        )
    )
    assert pair.b.sa.peer.vendor_ids == (b"client one", b"client two")
    assert pair.a.sa.peer.vendor_ids == (b"gateway", b"")
    assert received(pair, "b", VendorId) == [VendorId(b"client one"), VendorId(b"client two")]
    pair.a.sa.rekey(pair.now)
    pair.run(5)
    assert pair.b.sa.peer.vendor_ids == (b"client one", b"client two")  # the next SA knows them too


def test_none_are_sent_unless_configured():
    pair = up(Pair())
    assert pair.a.sa.peer.vendor_ids == pair.b.sa.peer.vendor_ids == ()


# --- certificates -----------------------------------------------------------------------------------------------------


def test_certreq_names_the_authorities(authority):
    hashes = TrustStore((authority.certificate,)).authorities
    responder = ResponderSettings(ike_proposals=IKE, certificate_authorities=hashes)
    pair = up(certified(authority, responder=responder))
    assert [one.authorities for one in received(pair, "b", CertificateRequest)] == [hashes]
    assert [one.authorities for one in received(pair, "a", CertificateRequest)] == [hashes]


def test_certreq_can_be_switched_off(authority):
    pair = up(certified(authority, {"send_certificate_requests": False}))
    assert received(pair, "b", CertificateRequest) == []


@pytest.mark.parametrize("asks", [True, False])
def test_the_gateways_certificate_goes_out_when_it_is_asked_for(authority, asks):
    pair = certified(authority, {"send_certificate_requests": asks}, {"always_send_certificate": False})
    pair.connect()
    assert len(received(pair, "a", Certificate)) == int(asks)
    assert bool(pair.a.inbound) == asks  # without it a client that has not got it cannot believe


@pytest.mark.parametrize("asks", [True, False])
def test_the_clients_certificate_goes_out_when_it_is_asked_for(authority, asks):
    hashes = TrustStore((authority.certificate,)).authorities if asks else b""
    pair = certified(
        authority,
        {"always_send_certificate": False},
        responder=ResponderSettings(ike_proposals=IKE, certificate_authorities=hashes),
    )
    pair.connect()
    assert len(received(pair, "b", Certificate)) == int(asks)
    assert bool(pair.a.inbound) == asks


def test_intermediate_certificates_are_sent_and_used(authority):
    outer = authority.issue("Outer CA", ca=True)
    inner = outer.issue("Inner CA", ca=True)
    chain = (inner, outer, authority)
    own = credential(authority, "a.example", via=chain)
    pair = up(certified(authority, {"local_credential": own}))
    values = [one.value for one in received(pair, "b", Certificate)]
    assert len(values) == 3  # its own first, and not the root
    assert values[0] == own.payloads[0].value


def test_a_chain_with_a_gap_is_refused(authority):
    outer = authority.issue("Outer CA", ca=True)
    inner = outer.issue("Inner CA", ca=True)
    own = credential(authority, "a.example", via=(inner,))
    pair = certified(authority, {"local_credential": own})
    pair.connect()
    (refused,) = pair.b.happened(events.Refused)
    assert refused.error.remedy
    assert not pair.b.inbound


def test_a_certificate_for_somebody_else_is_refused(authority):
    own = credential(authority, "c.example")
    pair = certified(authority, {"local_credential": own, "local_identity": Identity.parse("a.example")})
    pair.connect()
    (refused,) = pair.b.happened(events.Refused)
    assert "a.example" in str(refused.error)
    assert pair.a.errors[0].notify == NotifyType.AUTHENTICATION_FAILED


def test_another_name_of_the_certificate_is_as_good(authority):
    """The client says its DN, the connection is for the alternative name."""
    own = credential(authority, "a.example")
    subject = carried_identities(own.certificate)[0]
    pair = up(certified(authority, {"local_credential": own, "local_identity": subject}))
    assert pair.b.sa.remote_identity.distinguished_name is not None
    questions = [event.question for event in pair.b.happened(events.Asked)]
    (asked,) = [question for question in questions if isinstance(question, SelectConnection)]
    assert Identity.parse("a.example") in asked.claimed


class Thief:
    """Signs with a key of its own, whatever certificate is shown."""

    blocks = False

    def __init__(self, shown: CertificateCredential) -> None:
        self.public_key = shown.public_key
        self._key = new_key()

    def sign(self, scheme, octets):
        return sign(self._key, scheme, octets)


@pytest.mark.parametrize("victim_first", [True, False])
@pytest.mark.parametrize("name", ["CN=c.example", "c.example", "a.example"])
def test_names_of_a_certificate_without_its_key_are_worth_nothing(authority, victim_first, name):
    """Somebody sends the right certificate, which is public, beside his own."""
    own, victim = credential(authority, "c.example"), credential(authority, "a.example")
    chain = (*own.chain, *victim.chain)
    mixed = (
        CertificateCredential(chain[::-1], Thief(victim))
        if victim_first
        else CertificateCredential(chain, own.private_key)
    )
    pair = certified(authority, {"local_credential": mixed, "local_identity": Identity.parse(name)})
    pair.connect()
    assert len(pair.b.happened(events.Refused)) == 1
    assert not pair.b.inbound


def test_a_signature_by_another_key_is_refused(authority):
    """The certificate is right, and public; what it takes is its key."""
    own = credential(authority, "a.example")
    pair = certified(authority, {"local_credential": dataclasses.replace(own, private_key=Thief(own))})
    pair.connect()
    (refused,) = pair.b.happened(events.Refused)
    assert "signature" in str(refused.error)
    assert not pair.b.inbound


# --- signatures -------------------------------------------------------------------------------------------------------

KINDS = ["rsa", "p256", "p384", "p521", "ed25519", "ed448"]
CLASSIC = {
    "rsa": AuthenticationMethod.RSA_DIGITAL_SIGNATURE,
    "p256": AuthenticationMethod.ECDSA_SHA256_P256,
    "p384": AuthenticationMethod.ECDSA_SHA384_P384,
    "p521": AuthenticationMethod.ECDSA_SHA512_P521,
}


def without_rfc_7427(monkeypatch, *, initiator: bool, responder: bool) -> None:
    """Let one side, or both, send no SIGNATURE_HASH_ALGORITHMS."""

    def filtered(payloads):
        return tuple(
            payload
            for payload in payloads
            if not (isinstance(payload, Notify) and payload.type == NotifyType.SIGNATURE_HASH_ALGORITHMS)
        )

    for name, drop in (("_initiator_payloads", initiator), ("_responder_payloads", responder)):
        if drop:
            whole = getattr(init, name)
            monkeypatch.setattr(init, name, lambda *args, whole=whole: filtered(whole(*args)))


def methods(pair: Pair, side: str) -> list[int]:
    return [one.method for one in received(pair, side, Authentication)]


@pytest.mark.parametrize("kind", KINDS)
def test_signatures_of_rfc_7427(authority, kind):
    a = {"local_credential": credential(authority, "a.example", kind)}
    b = {"local_credential": credential(authority, "b.example", kind)}
    pair = up(certified(authority, a, b))
    assert methods(pair, "a") == methods(pair, "b") == [AuthenticationMethod.DIGITAL_SIGNATURE]
    assert not pair.a.happened(events.Weak) and not pair.b.happened(events.Weak)


@pytest.mark.parametrize("kind", CLASSIC)
def test_classic_signatures(authority, kind, monkeypatch):
    without_rfc_7427(monkeypatch, initiator=True, responder=True)
    a = {"local_credential": credential(authority, "a.example", kind)}
    b = {"local_credential": credential(authority, "b.example", kind)}
    pair = up(certified(authority, a, b))
    assert methods(pair, "a") == methods(pair, "b") == [CLASSIC[kind]]
    for side in (pair.a, pair.b):
        warned = [event.reason for event in side.happened(events.Weak)]
        assert len(warned) == (2 if kind == "rsa" else 0)  # of its own signature and of the peer's
        assert all("SHA-1" in reason for reason in warned)


@pytest.mark.parametrize(("initiator", "responder"), [(True, False), (False, True)])
def test_one_side_without_rfc_7427_gets_a_classic_signature(authority, monkeypatch, initiator, responder):
    without_rfc_7427(monkeypatch, initiator=initiator, responder=responder)
    pair = up(certified(authority))
    modern, classic = AuthenticationMethod.DIGITAL_SIGNATURE, AuthenticationMethod.ECDSA_SHA256_P256
    assert methods(pair, "a") == [classic if initiator else modern]
    assert methods(pair, "b") == [classic if responder else modern]


def test_a_key_without_a_classic_method_is_refused_with_a_remedy(authority, monkeypatch):
    without_rfc_7427(monkeypatch, initiator=False, responder=True)
    pair = certified(authority, {"local_credential": credential(authority, "a.example", "ed25519")})
    pair.connect()
    assert pair.a.errors[0].remedy
    assert not pair.a.inbound

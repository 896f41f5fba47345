"""IKE_SA_INIT and IKE_AUTH between two engines: who gets in, with what, and who is told why not."""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from tests.ike.pair import IKE, Pair, child, connection, connection_b, mirrored

from ikeway.address import Address
from ikeway.auth.certificate import CertificateCredential, TrustStore
from ikeway.auth.identity import Identity, IdentityPattern
from ikeway.eap.mschapv2 import MsChapV2Authenticator, MsChapV2Peer
from ikeway.eap.questions import PasswordQuestion, SecretQuestion
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.errors import AuthenticationFailed, NegotiationFailed, PeerUnreachable
from ikeway.esp.parameters import Encapsulation, Mode
from ikeway.ike import events
from ikeway.ike.engine import Engine
from ikeway.ike.proposals import parse_proposals
from ikeway.ike.questions import AssignAddresses, SelectConnection
from ikeway.ike.sa import IkeState
from ikeway.ike.selectors import format_selector, selector
from ikeway.ike.settings import (
    CertificateExpected,
    EapCredential,
    EapExpected,
    EngineSettings,
    PskCredential,
    ResponderSettings,
    Retransmission,
)
from ikeway.wire.payloads import ConfigurationAttribute
from ikeway.wire.registry import ConfigurationAttributeType, ExchangeType, NotifyType, ProtocolId

EPOCH = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def certificate(name: str, key, *, issuer=None, issuer_key=None, ca: bool = False, days: int = 3650):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(EPOCH - datetime.timedelta(days=1000))
        .not_valid_after(EPOCH + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        usage = [x509.ObjectIdentifier("1.3.6.1.5.5.7.3.1"), x509.ObjectIdentifier("1.3.6.1.5.5.7.3.2")]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    signer = issuer_key or key
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(signer, algorithm)


@pytest.fixture(scope="module")
def pki():
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = certificate("Test CA", ca_key, ca=True)
    made = {}
    for name in ("a.example", "b.example"):
        key = ec.generate_private_key(ec.SECP256R1())
        made[name] = CertificateCredential((certificate(name, key, issuer=ca, issuer_key=ca_key),), key)
    return made, TrustStore((ca,))


def eap_peer(password: str | None = "battery staple", user: bytes = b"bob"):
    return EapCredential(lambda ask: EapPeer(ask, user, [lambda: MsChapV2Peer(user, password)]))


def eap_server():
    return EapExpected(lambda ask: EapAuthenticator(ask, [lambda: MsChapV2Authenticator()]))


def eap_pair(
    pki, password: str | None = "battery staple", *, user: bytes = b"bob", claimed: str = "bob", **changes
) -> Pair:
    made, trust = pki
    a = connection(
        local_identity=Identity.parse(claimed),
        local_credential=eap_peer(password, user),
        remote_expectation=CertificateExpected(trust),
        **changes,
    )
    b = connection_b(
        local_credential=made["b.example"],
        remote_identity=None,
        remote_expectation=eap_server(),
    )
    pair = Pair(a, b, epoch=EPOCH)
    pair.b.answers[SecretQuestion] = lambda q: "battery staple" if q.identity == user else None
    return pair


def test_a_shared_secret_lets_both_in():
    pair = Pair()
    pair.connect()
    pair.agree()
    assert len(pair.a.inbound) == 1
    assert str(pair.a.sa.remote_identity) == "b.example"
    assert str(pair.b.sa.remote_identity) == "a.example"
    # Four messages and no more.
    assert len(pair.sent) == 4


def test_a_wrong_secret_is_refused_and_both_know():
    pair = Pair(connection(local_credential=PskCredential(b"another")))
    pair.connect()
    assert not pair.a.inbound and not pair.b.inbound
    (error,) = pair.a.errors
    assert isinstance(error, AuthenticationFailed) and error.notify == NotifyType.AUTHENTICATION_FAILED
    (refused,) = pair.b.happened(events.Refused)
    assert "pre-shared key" in str(refused.error) and refused.error.remedy
    pair.run(60)
    assert not pair.a.engine._shared.table and not pair.b.engine._shared.table


def test_a_gateway_with_another_secret_is_refused_by_the_initiator():
    pair = Pair(b=connection_b(local_credential=PskCredential(b"another")))
    pair.connect()
    (error,) = pair.a.errors
    assert isinstance(error, AuthenticationFailed)
    # The responder had taken the SA for established; it is told (RFC 7296 section 2.21.2).
    (closed,) = pair.b.happened(events.IkeClosed)
    assert closed.error is not None and closed.error.notify == NotifyType.AUTHENTICATION_FAILED
    assert not pair.b.inbound


def test_an_unexpected_identity_is_refused():
    pair = Pair(connection(remote_identity=IdentityPattern.parse("c.example"), send_idr=False))
    pair.connect()
    (error,) = pair.a.errors
    assert error.expected == "c.example" and error.got == "b.example"


def test_a_stranger_is_refused():
    pair = Pair()
    pair.b.answers[SelectConnection] = lambda q: AuthenticationFailed(
        f"nobody knows {q.initiator_identity}", notify=NotifyType.AUTHENTICATION_FAILED
    )
    pair.connect()
    (error,) = pair.a.errors
    assert error.notify == NotifyType.AUTHENTICATION_FAILED


def test_certificates(pki):
    made, trust = pki
    a = connection(local_credential=made["a.example"], remote_expectation=CertificateExpected(trust))
    b = connection_b(local_credential=made["b.example"], remote_expectation=CertificateExpected(trust))
    pair = Pair(a, b, epoch=EPOCH)
    pair.connect()
    pair.agree()
    assert len(pair.a.inbound) == 1, pair.a.errors


def test_different_methods_in_each_direction(pki):
    made, trust = pki
    a = connection(remote_expectation=CertificateExpected(trust))
    b = connection_b(local_credential=made["b.example"])
    pair = Pair(a, b, epoch=EPOCH)
    pair.connect()
    pair.agree()
    assert len(pair.a.inbound) == 1


def test_an_untrusted_certificate_is_refused(pki):
    made, trust = pki
    key = ec.generate_private_key(ec.SECP256R1())
    own = CertificateCredential((certificate("a.example", key),), key)
    a = connection(local_credential=own, remote_expectation=CertificateExpected(trust))
    b = connection_b(local_credential=made["b.example"], remote_expectation=CertificateExpected(trust))
    pair = Pair(a, b, epoch=EPOCH)
    pair.connect()
    assert pair.a.errors[0].notify == NotifyType.AUTHENTICATION_FAILED
    (refused,) = pair.b.happened(events.Refused)
    assert refused.error.remedy


def test_eap_mschapv2(pki):
    pair = eap_pair(pki)
    pair.connect()
    pair.agree()
    assert len(pair.a.inbound) == 1, pair.a.errors
    assert pair.b.sa.eap_identity == b"bob"


def test_eap_asks_for_the_password_when_it_has_none(pki):
    pair = eap_pair(pki, None)
    pair.a.answers[PasswordQuestion] = "battery staple"
    pair.connect()
    assert len(pair.a.inbound) == 1, pair.a.errors


def test_eap_with_a_wrong_password(pki):
    pair = eap_pair(pki, "wrong")
    pair.connect()
    (error,) = pair.a.errors
    assert "password" in str(error).lower()
    (refused,) = pair.b.happened(events.Refused)
    assert "bob" in str(refused.error)
    assert str(refused.error).count("to mend it") == 1
    pair.run(200)
    assert not pair.b.engine._shared.table


def test_a_client_that_wants_eap_where_a_key_is_due(pki):
    made, trust = pki
    a = connection(local_credential=eap_peer(), remote_expectation=CertificateExpected(trust))
    pair = Pair(a, connection_b(local_credential=made["b.example"]), epoch=EPOCH)
    pair.connect()
    (refused,) = pair.b.happened(events.Refused)
    assert "EAP" in refused.error.got


def test_a_client_that_goes_silent_in_the_middle_of_eap_is_forgotten(pki):
    pair = eap_pair(pki)
    pair.network = lambda datagram: [] if len(pair.sent) > 5 and datagram.local.host == "192.0.2.1" else [0.01]
    pair.connect()
    pair.run(400)
    assert not pair.b.engine._shared.table and not pair.a.engine._shared.table
    assert isinstance(pair.a.errors[0], PeerUnreachable)


def virtual(**changes) -> Pair:
    a = connection(
        request_configuration=(ConfigurationAttribute(ConfigurationAttributeType.INTERNAL_IP4_ADDRESS),),
        children=(child(local_selectors=(), remote_selectors=(selector("0.0.0.0/0"),)),),
    )
    b = connection_b(
        children=(mirrored(child(local_selectors=(), remote_selectors=(selector("10.2.0.0/16"),))),), **changes
    )
    return Pair(a, b)


def test_an_address_is_assigned_and_selectors_are_narrowed_to_it():
    pair = virtual()
    address = ConfigurationAttribute(
        ConfigurationAttributeType.INTERNAL_IP4_ADDRESS, ipaddress.ip_address("10.9.0.7").packed
    )
    pair.b.answers[AssignAddresses] = (address,)
    pair.connect()
    pair.agree()
    (esp,) = pair.a.inbound.values()
    assert [format_selector(ts) for ts in esp.local_selectors] == ["10.9.0.7/32"]
    assert [format_selector(ts) for ts in esp.remote_selectors] == ["10.2.0.0/16"]
    (received,) = pair.a.happened(events.ConfigurationReceived)
    assert received.attributes == (address,)


@pytest.mark.parametrize("user", [b"CORP\\bob", b"bob", b"\xff"])
def test_an_address_is_assigned_to_who_has_logged_in_and_not_to_whom_idi_names(pki, user):
    """IDi is not proven beside EAP; and not every user has a name that is an identity."""
    wish = ConfigurationAttribute(ConfigurationAttributeType.INTERNAL_IP4_ADDRESS)
    pair = eap_pair(pki, user=user, claimed="admin", request_configuration=(wish,))
    asked = []
    pair.b.answers[AssignAddresses] = lambda question: asked.append(question) or ()
    pair.connect()
    (question,) = asked
    assert (question.identity, question.user) == (Identity.of_user(user), user)
    assert question.name == user.decode("utf-8", "replace")


def test_a_full_pool_leaves_the_ike_sa_and_says_so():
    pair = virtual()
    pair.b.answers[AssignAddresses] = NegotiationFailed("full", notify=NotifyType.INTERNAL_ADDRESS_FAILURE)
    pair.connect()
    (failed,) = pair.a.happened(events.ChildFailed)
    assert failed.error.notify == NotifyType.INTERNAL_ADDRESS_FAILURE and "pool" in failed.error.remedy
    assert pair.a.happened(events.IkeEstablished)


def test_a_gateway_may_insist_on_giving_an_address():
    pair = Pair(b=connection_b(require_configuration_request=True))
    pair.connect()
    (failed,) = pair.a.happened(events.ChildFailed)
    assert failed.error.notify == NotifyType.FAILED_CP_REQUIRED


@pytest.mark.parametrize(
    ("settings", "notify"),
    [
        ({"remote_selectors": (selector("172.16.0.0/12"),)}, NotifyType.TS_UNACCEPTABLE),
        ({"proposals": parse_proposals("aes256gcm16", ProtocolId.ESP)}, NotifyType.NO_PROPOSAL_CHOSEN),
        ({"mode": Mode.TRANSPORT}, NotifyType.TS_UNACCEPTABLE),
    ],
)
def test_no_common_child(settings, notify):
    pair = Pair(connection(children=(child(**settings),)))
    pair.connect()
    (failed,) = pair.a.happened(events.ChildFailed)
    assert failed.error.notify == notify
    assert pair.b.happened(events.Refused)
    assert not pair.a.inbound and not pair.b.inbound


def test_single_pair_required():
    settings = dataclasses.replace(mirrored(child()), single_pair=True)
    pair = Pair(b=connection_b(children=(settings,)))
    pair.connect()
    (failed,) = pair.a.happened(events.ChildFailed)
    assert failed.error.notify == NotifyType.SINGLE_PAIR_REQUIRED


def test_no_common_proposal():
    pair = Pair(connection(ike_proposals=parse_proposals("aes256gcm16-prfsha384-x25519")))
    pair.connect()
    (error,) = pair.a.errors
    assert error.notify == NotifyType.NO_PROPOSAL_CHOSEN and error.remedy
    assert not pair.b.engine._shared.table


def test_another_key_exchange_method_is_demanded():
    pair = Pair(
        connection(ike_proposals=parse_proposals("aes128gcm16-prfsha256-ecp256-x25519")),
        connection_b(ike_proposals=parse_proposals("aes128gcm16-prfsha256-x25519")),
    )
    pair.connect()
    pair.agree()
    assert len(pair.a.inbound) == 1
    assert len(pair.sent) == 6


def test_cookies_are_demanded_above_a_limit_and_cost_no_state():
    pair = Pair(responder=ResponderSettings(ike_proposals=IKE, cookie_threshold=0))
    pair.connect()
    pair.agree()
    assert pair.b.engine.counters.cookies_demanded == 1
    assert len(pair.a.inbound) == 1


def test_cookie_and_then_another_key_exchange_method():
    b = connection_b()
    pair = Pair(
        connection(ike_proposals=parse_proposals("aes128gcm16-prfsha256-ecp256-x25519")),
        b,
        responder=ResponderSettings(ike_proposals=IKE, cookie_threshold=0),
    )
    pair.connect()
    assert len(pair.a.inbound) == 1


def test_nobody_answers():
    pair = Pair(connection(retransmission=Retransmission(first=1, factor=2, tries=3)))
    pair.network = lambda datagram: []
    pair.connect()
    pair.run(60)
    (error,) = pair.a.errors
    assert isinstance(error, PeerUnreachable) and "198.51.100.1:500" in str(error)
    assert len(pair.sent) == 4  # the first and three tries more
    assert pair.a.happened(events.IkeClosed)[0].established is False


def test_default_retransmission_gives_up_after_about_three_minutes():
    pair = Pair()
    pair.network = lambda datagram: []
    pair.connect()
    start = pair.now
    while not pair.a.errors and pair.now < start + 600:
        pair.run(1)
    assert 120 <= pair.now - start <= 240


def test_large_messages_travel_in_fragments(pki):
    made, trust = pki
    a = connection(local_credential=made["a.example"], remote_expectation=CertificateExpected(trust), fragment_size=576)
    b = connection_b(
        local_credential=made["b.example"], remote_expectation=CertificateExpected(trust), fragment_size=576
    )
    pair = Pair(a, b, epoch=EPOCH)
    pair.connect()
    pair.agree()
    assert len(pair.a.inbound) == 1
    auth = [d for d in pair.sent if d.octets[18] == ExchangeType.IKE_AUTH]
    assert len(auth) > 2
    assert all(len(d.octets) + 28 + 4 <= 576 for d in auth)


def test_fragments_in_any_order_and_twice(pki):
    made, trust = pki
    a = connection(local_credential=made["a.example"], remote_expectation=CertificateExpected(trust), fragment_size=300)
    b = connection_b(
        local_credential=made["b.example"], remote_expectation=CertificateExpected(trust), fragment_size=300
    )
    for seed in range(10):
        pair = Pair(a, b, epoch=EPOCH, seed=seed)
        pair.network = lambda d, pair=pair: [pair.source.uniform(0.01, 0.5), pair.source.uniform(0.01, 0.5)]
        pair.connect()
        pair.run(10)
        pair.agree()
        assert len(pair.a.inbound) == 1


def test_nat_moves_to_4500_and_encapsulates():
    pair = Pair()
    outside = Address("203.0.113.9", 40000)
    deliver = pair.deliver

    def through_nat(datagram):
        if datagram.remote.host == "198.51.100.1":
            source = Address(outside.host, outside.port + datagram.local.port)
            pair.b.engine.receive(datagram.octets, datagram.remote, source, pair.now)
        else:
            inside = Address("192.0.2.1", datagram.remote.port - outside.port)
            pair.a.engine.receive(datagram.octets, inside, datagram.local, pair.now)

    assert deliver
    pair.deliver = through_nat
    pair.connect()
    assert len(pair.a.inbound) == 1
    assert pair.a.sa.nat.self_behind_nat and pair.b.sa.nat.peer_behind_nat
    (esp,) = pair.a.outbound.values()
    assert esp.encapsulation is Encapsulation.UDP and esp.remote.port == 4500 and esp.local.port == 4500
    (esp,) = pair.b.outbound.values()
    assert esp.encapsulation is Encapsulation.UDP and esp.remote == Address(outside.host, 44500)
    pair.run(60)
    assert pair.a.happened(events.KeepaliveDue) and not pair.b.happened(events.KeepaliveDue)


def test_without_nat_esp_goes_as_it_is():
    pair = Pair()
    pair.connect()
    assert {esp.encapsulation for esp in pair.a.inbound.values()} == {Encapsulation.ESP}


def test_udp_encapsulation_can_be_forced():
    pair = Pair(connection(force_udp_encapsulation=True))
    pair.connect()
    assert {esp.encapsulation for esp in (*pair.a.inbound.values(), *pair.b.inbound.values())} == {Encapsulation.UDP}


def test_childless_and_a_child_later():
    pair = Pair(connection(childless=True))
    pair.connect()
    pair.agree()
    assert len(pair.a.inbound) == 1  # made by CREATE_CHILD_SA, with a key exchange of its own
    assert pair.a.sa.children[0].suite.key_exchange
    auth = [m.message for m in pair.b.happened(events.MessageReceived)][1]
    assert all(type(payload).__name__ != "SecurityAssociation" for payload in auth.payloads)


def test_childless_is_refused_where_the_gateway_cannot():
    pair = Pair(connection(childless=True), responder=ResponderSettings(ike_proposals=IKE, childless=False))
    pair.connect()
    assert isinstance(pair.a.errors[0], NegotiationFailed)


def test_several_children():
    settings = tuple(child(f"net{number}", remote_selectors=(selector(f"10.{number}.0.0/16"),)) for number in (2, 3, 4))
    pair = Pair(connection(children=settings), connection_b(children=tuple(map(mirrored, settings))))
    pair.connect()
    pair.agree()
    assert len(pair.a.inbound) == 3


def test_initial_contact_removes_what_a_crash_left():
    pair = Pair()
    pair.connect()
    first = pair.b.sa
    crashed = pair.a.engine
    pair.a.engine = type(crashed)(random=pair.source.randbytes)
    pair.a.inbound.clear()
    pair.a.outbound.clear()
    pair.connect()
    pair.agree()
    assert pair.b.sa is not first and len(pair.b.inbound) == 1


def test_who_is_connected_is_known_by_name_until_the_end():
    pair = Pair()
    pair.connect()
    pair.a.sa.rekey(pair.now)
    pair.run(1)
    (known,) = pair.b.engine._shared.namesakes(pair.b.sa)
    assert known is pair.b.sa and known.established
    pair.a.sa.close(pair.now)
    pair.run(1)
    assert not pair.a.engine._shared._namesakes and not pair.b.engine._shared._namesakes


@pytest.mark.parametrize("elsewhere", [True, False])
def test_initial_contact_of_a_users_second_device_leaves_the_first_alone(pki, elsewhere):
    """With a password the identity is the user's, not the device's."""
    pair = eap_pair(pki)
    pair.connect()
    first = pair.b.sa
    pair.a.engine = Engine(EngineSettings(epoch=EPOCH), random=pair.source.randbytes)
    pair.a.inbound.clear()
    pair.a.outbound.clear()
    if elsewhere:
        pair.a.address = Address("192.0.2.9", 500)
    pair.connect()
    assert (first.state is IkeState.ESTABLISHED) == elsewhere
    assert len(pair.b.inbound) == 1 + elsewhere


def test_secrets_are_in_no_repr():
    pair = Pair()
    pair.connect()
    text = " ".join(repr(event) for event in (*pair.a.log, *pair.b.log))
    assert "a secret" not in text
    for esp in pair.a.inbound.values():
        assert esp.encryption_key.hex() not in text and repr(esp.encryption_key) not in text
    assert repr(pair.a.sa.keys.sk_d) not in text


def test_a_defect_ends_the_sa_and_leaves_nothing(monkeypatch):
    pair = Pair()

    def broken(*_args, **_keywords):
        raise ZeroDivisionError

    monkeypatch.setattr("ikeway.ike.negotiation.grant", broken)
    with pytest.raises(ZeroDivisionError):
        pair.connect()
    pair.run(400)
    assert not pair.b.engine._shared.table and not pair.a.engine._shared.table

"""EAP inside IKE_AUTH between two engines: bound by an MSK, without one, and alone (RFC 7296 section 2.16, RFC 5998)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator

import pytest
from tests.auth.pki import NOW, new_key, root
from tests.ike.pair import Pair, connection, connection_b
from tests.ike.stranger import IKE_AUTH, Stranger, after_init, impostor, kinds

from ikeway.auth.certificate import CertificateCredential, TrustStore
from ikeway.auth.octets import eap_mac
from ikeway.eap.errors import EapFailed
from ikeway.eap.method import EapAuthenticatorMethod, EapPeerMethod
from ikeway.eap.mschapv2 import MsChapV2Authenticator, MsChapV2Peer
from ikeway.eap.packet import EapCode, EapPacket, EapType, MethodType
from ikeway.eap.questions import SecretQuestion
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.errors import AuthenticationFailed, ConfigError
from ikeway.ike import authentication, events
from ikeway.ike.settings import CertificateExpected, EapCredential, EapExpected, EapOnlyExpected, PskCredential
from ikeway.wire.payloads import Authentication, Eap, IdResponder, Notify
from ikeway.wire.registry import AuthenticationMethod, NotifyType

KEYED, KEYLESS = MethodType(0, 255), MethodType(0, 6)
MSK = hashlib.sha512(b"msk").digest()


class KeyedPeer(EapPeerMethod):
    """One question, one answer, and a key; it takes the test's word that the server is proven."""

    type, name, mutual = KEYED, "keyed", True
    ran = 0

    async def run(self, request: bytes, ask) -> AsyncGenerator[bytes, bytes]:
        type(self).ran += 1
        assert request == b"who?"
        self.msk, self.may_succeed = MSK, True
        yield b"me"


class KeyedServer(EapAuthenticatorMethod):
    type, name, mutual = KEYED, "keyed", True

    async def run(self, identity: bytes, ask) -> AsyncGenerator[bytes, bytes]:
        if (yield b"who?") != b"me":
            raise EapFailed("somebody else")
        self.msk, self.identity = MSK, b"user-of-keyed"


class KeylessPeer(KeyedPeer):
    type, name, mutual = KEYLESS, "keyless", False
    ran = 0

    async def run(self, request: bytes, ask) -> AsyncGenerator[bytes, bytes]:
        type(self).ran += 1
        self.may_succeed = True
        yield b"me"


class KeylessServer(KeyedServer):
    type, name, mutual = KEYLESS, "keyless", False

    async def run(self, identity: bytes, ask) -> AsyncGenerator[bytes, bytes]:
        if (yield b"who?") != b"me":
            raise EapFailed("somebody else")


class SaysMutualButHasNoKey(KeylessPeer):
    mutual = True


@pytest.fixture(scope="module")
def pki():
    ca = root()
    node = ca.issue("b.example", key=new_key(), alternatives=("dns:b.example",))
    return CertificateCredential((node.certificate,), node.key), TrustStore((ca.certificate,))


@pytest.fixture(autouse=True)
def nothing_ran():
    KeyedPeer.ran = KeylessPeer.ran = 0


def client(*methods) -> EapCredential:
    return EapCredential(lambda ask: EapPeer(ask, b"bob", methods))


def server(*methods, **options) -> EapExpected:
    return EapExpected(lambda ask: EapAuthenticator(ask, methods, **options))


def with_certificate(pki, peer, authenticator) -> Pair:
    """The gateway has a certificate, the client EAP."""
    credential, trust = pki
    a = connection(local_credential=client(peer), remote_expectation=CertificateExpected(trust))
    b = connection_b(local_credential=credential, remote_identity=None, remote_expectation=server(authenticator))
    return Pair(a, b, epoch=NOW)


UNUSED = PskCredential(b"unused")


def eap_only(peer, authenticator, *, credential=UNUSED) -> Pair:
    """The gateway proves itself by EAP alone."""
    a = connection(local_credential=client(peer), remote_expectation=EapOnlyExpected())
    b = connection_b(local_credential=credential, remote_identity=None, remote_expectation=server(authenticator))
    return Pair(a, b, epoch=NOW)


def auth_payloads(pair: Pair) -> list[Authentication]:
    return [
        payload
        for event in pair.a.happened(events.MessageReceived)
        for payload in event.message.find_all(Authentication)
    ]


# --- bound by an MSK, and by SK_p -------------------------------------------------------------------------------------


def test_a_method_with_a_key_binds_it(pki):
    pair = with_certificate(pki, KeyedPeer, KeyedServer)
    pair.connect()
    pair.agree()
    assert len(pair.a.inbound) == 1, pair.a.errors
    assert pair.b.sa.eap_identity == b"user-of-keyed"
    bound = auth_payloads(pair)[-1]
    sa = pair.a.sa
    own = IdResponder(2, b"b.example")
    assert bound == Authentication(
        AuthenticationMethod.SHARED_KEY_MIC, eap_mac(sa.prf, MSK, authentication.peer_octets(sa, own))
    )


def test_a_method_without_a_key_is_bound_by_sk_p(pki):
    pair = with_certificate(pki, KeylessPeer, KeylessServer)
    pair.connect()
    pair.agree()
    assert len(pair.a.inbound) == 1, pair.a.errors
    sa = pair.a.sa
    expected = eap_mac(sa.prf, sa.keys.sk_pr, authentication.peer_octets(sa, IdResponder(2, b"b.example")))
    assert auth_payloads(pair)[-1].value == expected
    assert pair.b.sa.eap_identity == b"bob"


@pytest.mark.parametrize("side", ["client", "server"])
def test_sides_with_different_keys_do_not_meet(pki, side):
    """Somebody relays EAP between two IKE SAs: each has another key, or one has none."""

    class OtherPeer(KeyedPeer):
        async def run(self, request, ask):
            self.msk, self.may_succeed = bytes(64), True
            yield b"me"

    class NoKeyServer(KeyedServer):
        async def run(self, identity, ask):
            yield b"who?"

    pair = with_certificate(pki, *((OtherPeer, KeyedServer) if side == "client" else (KeyedPeer, NoKeyServer)))
    pair.connect()
    assert not pair.a.happened(events.IkeEstablished) and not pair.b.happened(events.IkeEstablished)
    assert pair.a.errors[0].notify == NotifyType.AUTHENTICATION_FAILED
    (refused,) = pair.b.happened(events.Refused)
    assert "another key" in str(refused.error)
    assert not pair.b.inbound


def test_the_identity_may_come_from_idi(pki):
    credential, trust = pki
    a = connection(local_credential=client(KeyedPeer), remote_expectation=CertificateExpected(trust))
    b = connection_b(
        local_credential=credential, remote_identity=None, remote_expectation=server(KeyedServer, identity=b"known")
    )
    pair = Pair(a, b, epoch=NOW)
    pair.connect()
    assert len(pair.a.inbound) == 1
    asked = [event.message.find(Eap) for event in pair.a.happened(events.MessageReceived)]
    assert EapPacket.decode(next(eap.packet for eap in asked if eap)).type == 255  # EAP-Identity is left out


# --- EAP only (RFC 5998) ----------------------------------------------------------------------------------------------


def test_eap_only_with_a_mutual_method():
    pair = eap_only(KeyedPeer, KeyedServer)
    pair.connect()
    pair.agree()
    assert len(pair.a.inbound) == 1, pair.a.errors
    asked = pair.b.happened(events.MessageReceived)[1].message
    assert asked.notify(NotifyType.EAP_ONLY_AUTHENTICATION) is not None
    assert len(auth_payloads(pair)) == 1  # the one that concludes EAP


def test_eap_only_where_the_gateway_proves_itself_all_the_same(pki):
    pair = eap_only(KeyedPeer, KeyedServer, credential=pki[0])
    pair.connect()
    pair.agree()
    assert len(pair.a.inbound) == 1, pair.a.errors
    assert len(auth_payloads(pair)) == 2


@pytest.mark.parametrize(
    ("peer", "authenticator"),
    [(KeylessPeer, KeylessServer), (lambda: MsChapV2Peer(b"bob", "secret"), MsChapV2Authenticator)],
)
def test_eap_only_with_a_method_that_proves_nothing_is_refused_before_it_says_anything(peer, authenticator):
    """Else anybody in the gateway's place would get an answer to try passwords against."""
    pair = eap_only(peer, authenticator)
    pair.b.answers[SecretQuestion] = "secret"
    pair.connect()
    (error,) = pair.a.errors
    assert isinstance(error, (AuthenticationFailed, ConfigError)) and error.remedy
    assert KeylessPeer.ran == 0
    assert not any(event.message.find(Eap) for event in pair.a.happened(events.MessageSent))
    assert not pair.a.inbound and not pair.b.inbound


def test_eap_only_takes_the_mutual_one_of_several_methods():
    a = connection(local_credential=client(KeylessPeer, KeyedPeer), remote_expectation=EapOnlyExpected())
    b = connection_b(remote_identity=None, remote_expectation=server(KeylessServer, KeyedServer))
    pair = Pair(a, b)
    pair.connect()
    assert len(pair.a.inbound) == 1, pair.a.errors
    assert (KeylessPeer.ran, KeyedPeer.ran) == (0, 1)


@pytest.mark.parametrize(
    ("methods", "payloads"),
    [
        ((KeyedServer,), ["IdResponder", "Eap"]),
        ((KeylessServer, KeyedServer), ["IdResponder", "Eap"]),
        ((MsChapV2Authenticator,), ["IdResponder", "Authentication", "Eap"]),
    ],
)
def test_a_gateway_leaves_out_its_own_proof_only_for_a_mutual_method(methods, payloads):
    """Who asks for EAP alone gets it from methods that are good for it; else the gateway's AUTH is due as ever."""
    peer = after_init(Pair(connection(), connection_b(remote_identity=None, remote_expectation=server(*methods))))
    asked = (peer.identity(), Notify(NotifyType.EAP_ONLY_AUTHENTICATION), *peer.child_offer())
    assert kinds(peer.ask(IKE_AUTH, *asked)) == payloads


def test_eap_only_with_a_method_that_gives_no_key_is_refused():
    pair = eap_only(SaysMutualButHasNoKey, KeylessServer)
    pair.connect()
    (error,) = pair.a.errors
    assert isinstance(error, AuthenticationFailed)
    assert not pair.a.inbound and not pair.b.inbound
    assert pair.b.happened(events.IkeClosed) and not pair.b.happened(events.IkeEstablished)


@pytest.mark.parametrize("expectation", [EapOnlyExpected(), server(KeyedServer)])
def test_a_key_of_ours_alone_proves_no_gateway(expectation):
    """EAP-only without EAP, or a responder's expectation: nobody would have proven the gateway."""
    pair = Pair(connection(remote_expectation=expectation))
    pair.connect()
    assert not pair.a.happened(events.IkeEstablished) and not pair.a.inbound
    assert isinstance(pair.a.errors[0], ConfigError)
    assert len(pair.sent) <= 2  # it is found before a secret is used


# --- half-way ---------------------------------------------------------------------------------------------------------


def eap_response(packet: bytes, data: bytes = b"me") -> Eap:
    request = EapPacket.decode(packet)
    body = b"bob" if request.type == EapType.IDENTITY else data
    return Eap(EapPacket(EapCode.RESPONSE, request.identifier, request.type, body).encode())


def stranger_in_eap(pki) -> tuple[Stranger, Eap]:
    """A client that has sent its first request, and what EAP says to it."""
    peer = after_init(with_certificate(pki, KeyedPeer, KeyedServer))
    answer = peer.ask(IKE_AUTH, peer.identity(), *peer.child_offer())
    eap = answer.find(Eap)
    assert eap is not None and "Authentication" in kinds(answer)
    return peer, eap


def not_let_in(peer: Stranger) -> None:
    assert not peer.host.happened(events.IkeEstablished)
    assert not peer.host.inbound and not peer.host.outbound


def test_success_of_eap_without_auth_is_no_log_in(pki):
    peer, eap = stranger_in_eap(pki)
    message_id = 2
    while EapPacket.decode(eap.packet).code is EapCode.REQUEST:
        answer = peer.ask(IKE_AUTH, eap_response(eap.packet), message_id=message_id)
        message_id += 1
        (eap,) = answer.find_all(Eap)
    assert EapPacket.decode(eap.packet).code is EapCode.SUCCESS
    answer = peer.ask(IKE_AUTH, *peer.child_offer(), message_id=message_id)
    assert kinds(answer) == ["AUTHENTICATION_FAILED"]
    not_let_in(peer)


def test_auth_before_eap_is_at_its_end_is_no_log_in(pki):
    """AUTH keyed by SK_p, as if a method without a key had succeeded."""
    peer, _ = stranger_in_eap(pki)
    identity = peer.identity()
    sa = peer.sa
    forged = eap_mac(sa.prf, sa.keys.sk_pi, authentication.own_octets(sa, identity))
    answer = peer.ask(IKE_AUTH, Authentication(AuthenticationMethod.SHARED_KEY_MIC, forged), message_id=2)
    assert kinds(answer) == ["AUTHENTICATION_FAILED"]
    not_let_in(peer)


def test_a_client_that_has_a_key_where_eap_is_due_is_refused(pki):
    peer = after_init(with_certificate(pki, KeyedPeer, KeyedServer))
    identity = peer.identity()
    answer = peer.ask(IKE_AUTH, identity, peer.psk_auth(identity), *peer.child_offer())
    assert kinds(answer) == ["AUTHENTICATION_FAILED"]
    not_let_in(peer)


def test_an_identity_named_during_eap_counts_for_nothing(pki):
    peer, eap = stranger_in_eap(pki)
    answer = peer.ask(IKE_AUTH, peer.identity("admin.example"), eap_response(eap.packet), message_id=2)
    assert answer.find(Eap)
    assert str(peer.there.remote_identity) == "a.example"


def test_a_gateway_that_declares_success_at_once_is_not_believed(pki):
    peer = impostor(with_certificate(pki, KeyedPeer, KeyedServer))
    credential, _ = pki
    own = peer.identity()
    from ikeway.auth.signature import sign_auth

    proof = sign_auth(credential, None, authentication.own_octets(peer.sa, own))
    success = Eap(EapPacket(EapCode.SUCCESS, 0).encode())
    peer.deliver(peer.seal(IKE_AUTH, own, *credential.payloads, proof, success, is_response=True))
    peer.answers()
    (error,) = peer.host.errors
    assert "success before" in str(error)


def test_a_gateway_that_skips_eap_is_not_believed(pki):
    """It proves itself and grants a child SA, and never asks who we are."""
    peer = impostor(with_certificate(pki, KeyedPeer, KeyedServer))
    credential, _ = pki
    own = peer.identity()
    from ikeway.auth.signature import sign_auth

    proof = sign_auth(credential, None, authentication.own_octets(peer.sa, own))
    peer.deliver(peer.seal(IKE_AUTH, own, *credential.payloads, proof, *peer.child_offer(), is_response=True))
    peer.answers()
    assert peer.host.errors and not peer.host.happened(events.IkeEstablished)


def test_endless_eap_ends(pki):
    class Endless(KeyedServer):
        async def run(self, identity, ask):
            while True:
                yield b"who?"

    class Patient(KeyedPeer):
        async def run(self, request, ask):
            while True:
                yield b"me"

    pair = with_certificate(pki, Patient, Endless)
    pair.connect()
    pair.run(10)
    assert pair.a.errors and pair.b.happened(events.IkeClosed)
    assert len(pair.sent) < 200

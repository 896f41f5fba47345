"""AUTH payloads: making ours, judging the peer's (RFC 7296 sections 2.15 and 2.16, RFC 7427).

Both roles of IKE_AUTH use these; which key proves what is all that differs.
"""

from __future__ import annotations

import hmac

from ikeway.auth.binding import carried_identities
from ikeway.auth.certificate import CertificateCredential, decode_certificates
from ikeway.auth.identity import Identity, IdentityPattern
from ikeway.auth.octets import eap_mac, psk_mac, signed_octets
from ikeway.auth.path import Role
from ikeway.auth.questions import PskQuestion, SignQuestion
from ikeway.auth.signature import plan_auth, verify_auth
from ikeway.errors import AuthenticationFailed, IkewayError, ProtocolViolation, Side
from ikeway.ike import events
from ikeway.ike.interception import name_ourselves
from ikeway.ike.sa import IkeSa
from ikeway.ike.settings import CertificateExpected, Connection, LocalCredential, PskCredential, PskExpected
from ikeway.wire.message import Message
from ikeway.wire.payloads import Authentication, Certificate, IdInitiator, IdResponder, Payload
from ikeway.wire.registry import AuthenticationMethod, HashAlgorithm, NotifyType

Identification = IdInitiator | IdResponder


def own_octets(sa: IkeSa, identification: Identification) -> bytes:
    """What our AUTH covers."""
    assert sa.keys is not None
    if sa.is_initiator:
        return signed_octets(sa.init_request, sa.nonce_responder, sa.prf, sa.keys.sk_pi, identification.body)
    return signed_octets(sa.init_response, sa.nonce_initiator, sa.prf, sa.keys.sk_pr, identification.body)


def peer_octets(sa: IkeSa, identification: Identification) -> bytes:
    """What the peer's AUTH covers."""
    assert sa.keys is not None
    if sa.is_initiator:
        return signed_octets(sa.init_response, sa.nonce_initiator, sa.prf, sa.keys.sk_pr, identification.body)
    return signed_octets(sa.init_request, sa.nonce_responder, sa.prf, sa.keys.sk_pi, identification.body)


def own_identity(sa: IkeSa, credential: LocalCredential, configured: Identity | None) -> Identity:
    """The identity that we show: as configured, else the certificate's, else that of our log-in before, else our
    address. Interceptions may want another one."""
    if isinstance(credential, CertificateCredential):
        usual = credential.identity if configured is None else credential.spelled(configured)
    else:
        usual = configured or sa.local_identity or Identity.parse(sa.local.host)
    return name_ourselves(sa, usual)


async def prove_by_key(sa: IkeSa, credential: LocalCredential, identification: Identification) -> Authentication:
    """Our AUTH by pre-shared key or certificate."""
    octets = own_octets(sa, identification)
    if isinstance(credential, CertificateCredential):
        made = await _sign(sa, credential, octets)
        if made.method == AuthenticationMethod.RSA_DIGITAL_SIGNATURE and _hash_of_method_1(sa) == HashAlgorithm.SHA1:
            _warn_of_sha1(sa, "we proved our identity")
        return made
    assert isinstance(credential, PskCredential)
    peer = sa.remote_identity or _expected_peer(sa.connection)
    secret = credential.secret
    if secret is None:
        secret = await _ask_secret(sa, Identity.from_payload(identification), peer)
    return Authentication(AuthenticationMethod.SHARED_KEY_MIC, psk_mac(sa.prf, secret, octets))


def _hash_of_method_1(sa: IkeSa) -> HashAlgorithm:
    rule = sa.connection.hash_of_method_1
    if rule is None:
        return HashAlgorithm.SHA1
    assert sa.suite is not None
    assert sa.suite.prf is not None
    return rule(sa.suite.prf)


async def _sign(sa: IkeSa, credential: CertificateCredential, octets: bytes) -> Authentication:
    """By a key in this process at once, else by whoever has it."""
    plan = plan_auth(credential, sa.peer.hashes, lambda: _hash_of_method_1(sa))
    signer = credential.signer
    if not signer.blocks:
        return plan.finish(signer.sign(plan.scheme, octets))
    return plan.finish(await sa.ask(SignQuestion(signer, plan.scheme, octets)))


def prove_by_eap(sa: IkeSa, msk: bytes | None, identification: Identification) -> Authentication:
    """Our AUTH after EAP: by its MSK, or by our SK_p where the method gives none (section 2.16)."""
    assert sa.keys is not None
    key = msk if msk is not None else (sa.keys.sk_pi if sa.is_initiator else sa.keys.sk_pr)
    octets = own_octets(sa, identification)
    return Authentication(AuthenticationMethod.SHARED_KEY_MIC, eap_mac(sa.prf, key, octets))


async def verify_by_key(
    sa: IkeSa, expectation: PskExpected | CertificateExpected, identification: Identification, message: Message
) -> None:
    """The peer's AUTH by pre-shared key or certificate. Raises `AuthenticationFailed`."""
    authentication = message.find(Authentication)
    if authentication is None:
        raise ProtocolViolation("no AUTH payload where one is due", notify=NotifyType.AUTHENTICATION_FAILED)
    octets = peer_octets(sa, identification)
    if isinstance(expectation, CertificateExpected):
        _verify_signature(sa, expectation, identification, message, authentication, octets)
        return
    if authentication.method != AuthenticationMethod.SHARED_KEY_MIC:
        raise _wrong_method(authentication, "a pre-shared key")
    secret = expectation.secret
    if secret is None:
        assert sa.local_identity is not None
        secret = await _ask_secret(sa, sa.local_identity, Identity.from_payload(identification))
    if not hmac.compare_digest(psk_mac(sa.prf, secret, octets), authentication.value):
        raise AuthenticationFailed(
            f"the pre-shared key of {Identity.from_payload(identification)} is not the one that we have",
            notify=NotifyType.AUTHENTICATION_FAILED,
            remedy="enter the same key on both sides, for the same pair of identities",
        )


def word_of(expectation: PskExpected | CertificateExpected) -> str:
    """How the peer proves itself, for people."""
    return "pre-shared key" if isinstance(expectation, PskExpected) else "certificate"


def verify_by_eap(sa: IkeSa, msk: bytes | None, identification: Identification, message: Message) -> None:
    """The peer's AUTH after EAP."""
    assert sa.keys is not None
    authentication = message.find(Authentication)
    if authentication is None or authentication.method != AuthenticationMethod.SHARED_KEY_MIC:
        raise ProtocolViolation("no AUTH by shared key after EAP", notify=NotifyType.AUTHENTICATION_FAILED)
    key = msk if msk is not None else (sa.keys.sk_pr if sa.is_initiator else sa.keys.sk_pi)
    expected = eap_mac(sa.prf, key, peer_octets(sa, identification))
    if not hmac.compare_digest(expected, authentication.value):
        raise AuthenticationFailed(
            "EAP succeeded, but the AUTH payload was made with another key: somebody may stand between",
            notify=NotifyType.AUTHENTICATION_FAILED,
            side=Side.NETWORK,
            remedy="make sure that the gateway which asks for the password is the one that relays EAP",
        )


def claimed_identities(message: Message) -> tuple[Identity, ...]:
    """The names in the certificate that comes with an AUTH payload. Nothing is proven yet; what is no certificate is
    refused when it is time for it."""
    proof = message.find(Authentication)
    if proof is None or proof.method == AuthenticationMethod.SHARED_KEY_MIC:
        return ()
    try:
        chain = decode_certificates(message.find_all(Certificate))
        return tuple(carried_identities(chain[0])) if chain else ()
    except IkewayError:
        return ()


def check_identity(pattern: IdentityPattern | None, identity: Identity, *others: Identity) -> None:
    """The peer says who it is: is that whom we mean to talk to? `others` are further names that it proves."""
    if pattern is not None and not any(map(pattern.matches, (identity, *others))):
        raise AuthenticationFailed(
            "the peer's identity is not the expected one",
            notify=NotifyType.AUTHENTICATION_FAILED,
            expected=str(pattern),
            got=str(identity),
            remedy="correct the expected identity here, or the peer's own identity there",
        )


def certificate_payloads(sa: IkeSa, credential: LocalCredential, *, requested: bool) -> tuple[Payload, ...]:
    """Our CERT payloads, own first; sent when asked for, or always when so configured."""
    if isinstance(credential, CertificateCredential) and (requested or sa.connection.always_send_certificate):
        return credential.payloads
    return ()


def _verify_signature(
    sa: IkeSa,
    expectation: CertificateExpected,
    identification: Identification,
    message: Message,
    authentication: Authentication,
    octets: bytes,
) -> None:
    if authentication.method == AuthenticationMethod.SHARED_KEY_MIC:
        raise _wrong_method(authentication, "a certificate")
    chain = decode_certificates(message.find_all(Certificate))
    identity = Identity.from_payload(identification)
    role = Role.RESPONDER if sa.is_initiator else Role.INITIATOR
    expectation.trust.verify(chain, identity, sa.shared.utc(sa.now), role)
    scheme = verify_auth(chain[0].public_key(), authentication, octets)
    if scheme.hash == HashAlgorithm.SHA1:
        _warn_of_sha1(sa, f"{identity} proved its identity")
    sa.peer_certificate = chain[0]
    sa.report(events.PeerSeen(sa, f"{identity} proved by a certificate of {chain[0].issuer.rfc4514_string()}"))


def _warn_of_sha1(sa: IkeSa, who: str) -> None:
    remedy = "turn on signature authentication (RFC 7427) at the peer, or use ECDSA certificates"
    sa.report(events.Weak(sa, f"{who} by an RSA signature with SHA-1, as the peer does no RFC 7427", remedy))


def _wrong_method(authentication: Authentication, expected: str) -> AuthenticationFailed:
    return AuthenticationFailed(
        "the peer authenticates in another way than expected",
        notify=NotifyType.AUTHENTICATION_FAILED,
        expected=expected,
        got=AuthenticationMethod(authentication.method).name,
        remedy="set the same authentication method on both sides",
    )


def _expected_peer(connection: Connection) -> Identity:
    pattern = connection.remote_identity
    if pattern is None or pattern.exact is None:
        return Identity.parse("0.0.0.0")  # noqa: S104 - an identity, not an address to listen on
    return pattern.exact


async def _ask_secret(sa: IkeSa, own: Identity, peer: Identity) -> bytes:
    secret = await sa.ask(PskQuestion(own, peer))
    if secret is None:
        raise AuthenticationFailed(
            f"no pre-shared key for {own} and {peer}",
            notify=NotifyType.AUTHENTICATION_FAILED,
            side=Side.LOCAL,
            remedy="enter a key for this pair of identities",
        )
    return secret

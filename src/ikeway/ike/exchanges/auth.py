"""IKE_AUTH (RFC 7296 section 1.2; EAP: 2.16; EAP-only: RFC 5998; childless: RFC 6023; several proofs: RFC 4739).

    Initiator                                            Responder
    HDR, SK {IDi, [CERT,] [CERTREQ,] [IDr,] AUTH,
        [N(ANOTHER_AUTH_FOLLOWS),]
        [CP,] SAi2, TSi, TSr}                   -->
                                                <--      HDR, SK {IDr, [CERT,] AUTH, [N(ANOTHER_AUTH_FOLLOWS)]}
    HDR, SK {[IDi, [CERT,] AUTH]}               -->                    (as long as one of the two announced another)
                                                <--      HDR, SK {[IDr, [CERT,] AUTH,] [CP,] SAr2, TSi, TSr}

Most often the first two messages are all. An initiator that sends IDi without AUTH asks for EAP: `auth_eap` has what
follows. `auth_proofs` knows which proofs are due, `auth_outcome` what comes with the last answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from ikeway.auth.identity import Identity
from ikeway.eap.session import EapPeer
from ikeway.errors import (
    AuthenticationFailed,
    Closed,
    ConfigError,
    IkewayError,
    NegotiationFailed,
    PeerError,
    ProtocolViolation,
)
from ikeway.ike import authentication, events
from ikeway.ike.conversation import reply as answer_and_wait
from ikeway.ike.driver import Answer, notify_for
from ikeway.ike.exchanges import auth_eap, auth_outcome, auth_proofs, init
from ikeway.ike.exchanges.auth_proofs import OwnProofs, ProofsDue
from ikeway.ike.negotiation import ChildOffer
from ikeway.ike.notifies import error_from, failure_of
from ikeway.ike.proposals import format_proposal, select
from ikeway.ike.questions import SelectConnection, SettleConnection
from ikeway.ike.sa import IkeSa
from ikeway.ike.settings import (
    CertificateExpected,
    EapCredential,
    EapExpected,
    EapOnlyExpected,
    FurtherCredential,
    FurtherExpectation,
    PskExpected,
)
from ikeway.wire.message import Message
from ikeway.wire.payloads import Authentication, Delete, Eap, IdInitiator, IdResponder, Notify, Payload
from ikeway.wire.registry import ExchangeType, NotifyType

IKE_AUTH = ExchangeType.IKE_AUTH
# Errors beside AUTH that leave the IKE SA as it is (RFC 7296 sections 1.2 and 2.21.2).
_CHILD_FAILURES = frozenset(
    {
        NotifyType.NO_PROPOSAL_CHOSEN,
        NotifyType.TS_UNACCEPTABLE,
        NotifyType.SINGLE_PAIR_REQUIRED,
        NotifyType.INTERNAL_ADDRESS_FAILURE,
        NotifyType.FAILED_CP_REQUIRED,
        NotifyType.NO_ADDITIONAL_SAS,
    }
)


# --- initiator --------------------------------------------------------------------------------------------------------


async def connect(sa: IkeSa) -> None:
    """From nothing to an established IKE SA with its first child SA."""
    try:
        sessions = _prepare(sa)
        await init.initiate(sa)
        auth_proofs.require_support(sa)
        await _authenticate(sa, sessions)
    except IkewayError as error:
        sa.terminate(error)


def _prepare(sa: IkeSa) -> list[EapPeer | None]:
    """The EAP session of each of our log-ins, where it has one. Raises `ConfigError` where nothing would prove the
    responder."""
    sessions = [
        each.credential.new_peer(sa.ask) if isinstance(each.credential, EapCredential) else None
        for each in auth_proofs.own_rounds(sa.connection)
    ]
    for index, due in enumerate(auth_proofs.peer_rounds(sa.connection)):
        if isinstance(due.expectation, EapOnlyExpected) and index == 0 and sessions[0] is not None:
            sessions[0].require_mutual()
        elif not isinstance(due.expectation, PskExpected | CertificateExpected):
            raise ConfigError(
                f"connection {sa.connection.name} says nothing of how the gateway proves who it is",
                expected="a pre-shared key, a CA, or EAP alone together with our own EAP credential",
                remedy="name the CA of the gateway's certificate",
            )
    return sessions


async def _authenticate(sa: IkeSa, sessions: Sequence[EapPeer | None]) -> None:
    if sa.connection.childless and not sa.peer.childless:
        raise NegotiationFailed("the gateway makes no IKE SA without a child SA", remedy="switch childless off")
    offer = await auth_outcome.first_offer(sa)
    proofs = ProofsDue(sa)
    try:
        reply = await _prove_all(sa, sessions, proofs, offer)
    except IkewayError as error:
        auth_proofs.suggest_another(sa, error)
        _say_why(sa, error)
        raise
    auth_outcome.establish(sa, offer, reply)


async def _prove_all(
    sa: IkeSa, sessions: Sequence[EapPeer | None], proofs: ProofsDue, offer: ChildOffer | None
) -> Message:
    """Each of our log-ins, and what is left of the responder's proofs; returns its last reply."""
    rounds = auth_proofs.own_rounds(sa.connection)
    beside = _wanted_peer(sa), (*auth_outcome.wishes(sa, offer), *auth_proofs.ability(sa))
    for index, (due, session) in enumerate(zip(rounds, sessions, strict=True)):
        reply = await _log_in(sa, due, session, proofs, beside, follows=index + 1 < len(rounds))
        beside = (), ()  # only the first request asks for the rest
    while proofs.remaining:
        reply = await sa.request(IKE_AUTH, ())
        await proofs.take(reply)
        _check_failure(reply)
    return reply


async def _log_in(
    sa: IkeSa,
    due: FurtherCredential,
    session: EapPeer | None,
    proofs: ProofsDue,
    beside: tuple[tuple[Payload, ...], tuple[Payload, ...]],
    *,
    follows: bool,
) -> Message:
    """One log-in of ours, by key or by EAP. `beside`: what else the request says, before and after AUTH."""
    identity = authentication.own_identity(sa, due.credential, due.identity)
    own = IdInitiator(identity.type, identity.value)
    if sa.local_identity is None:
        sa.local_identity = identity
    proof: tuple[Payload, ...] = ()
    if session is None:
        signed = await authentication.prove_by_key(sa, due.credential, own)
        proof = (signed, *auth_proofs.announcement(follows=follows))
    before, after = beside
    payloads = (own, *_certificates(sa, due, first=bool(before or after)), *before, *proof, *after)
    reply = await sa.request(IKE_AUTH, payloads)
    await proofs.take(reply)
    if session is not None:
        reply = await auth_eap.log_in(sa, session, own, proofs, reply, follows=follows)
    _check_failure(reply)
    return reply


def _check_failure(reply: Message) -> None:
    """An error that is not of the child SA alone fails the log-in, one that we do not know too (section 3.10.1)."""
    failure = failure_of(reply)
    if failure is not None and failure.type not in _CHILD_FAILURES:
        raise error_from(failure, "the gateway refused the log-in")


def _say_why(sa: IkeSa, error: IkewayError) -> None:
    """The responder holds the SA for established, or waits for EAP, when we give up: tell it (RFC 7296, 2.21.2)."""
    if not (isinstance(error, PeerError) and error.told_by_peer):
        sa.channel.notify_once(ExchangeType.INFORMATIONAL, (Notify(NotifyType.AUTHENTICATION_FAILED),))


def _certificates(sa: IkeSa, due: FurtherCredential, *, first: bool) -> tuple[Payload, ...]:
    requested = sa.peer.wants_certificate
    payloads = authentication.certificate_payloads(sa, due.credential, requested=requested)
    expectations = (each.expectation for each in auth_proofs.peer_rounds(sa.connection))
    if first and sa.connection.send_certificate_requests:
        payloads += tuple(each.trust.request for each in expectations if isinstance(each, CertificateExpected))
    return payloads


def _wanted_peer(sa: IkeSa) -> tuple[Payload, ...]:
    pattern = sa.connection.remote_identity
    if pattern is None or pattern.exact is None or not sa.connection.send_idr:
        return ()
    return (IdResponder(pattern.exact.type, pattern.exact.value),)


# --- responder --------------------------------------------------------------------------------------------------------


async def respond(sa: IkeSa, message: Message) -> Answer:
    """Authenticate an initiator and ourselves, make its first child SA."""
    try:
        return await _respond(sa, message)
    except IkewayError as error:
        return _refuse(sa, error)


def _refuse(sa: IkeSa, error: IkewayError) -> Answer:
    """The notify that the initiator gets (AUTHENTICATION_FAILED unless the error has its own), and the end of the SA."""
    sa.report(events.Refused(sa.local, sa.remote, error))
    if isinstance(error, auth_eap.EapRefused):
        last: Payload = Eap(error.packet)
    elif isinstance(error, PeerError) and error.notify:
        last = notify_for(error)
    else:
        last = Notify(NotifyType.AUTHENTICATION_FAILED)
    return Answer((last,), lambda: sa.terminate(error))


async def _respond(sa: IkeSa, message: Message) -> Answer:
    _give_time(sa)
    request = message  # the first one; the others do not repeat what it asks for
    sa.remote_identity = Identity.from_payload(_identification(message))
    await _select_connection(sa, message, authentication.claimed_identities(message))
    auth_proofs.require_client_support(sa.connection, request)
    own = OwnProofs(sa, request)
    payloads, message = await _take_log_in(sa, auth_proofs.peer_rounds(sa.connection)[0], message, own)
    taken = 1
    # Who it is may have settled another connection: what that one demands is due then.
    while auth_proofs.goes_on(sa.connection, request, message, taken=taken):
        message = await answer_and_wait(IKE_AUTH, (*payloads, *await own.next()))
        _give_time(sa)
        payloads, message = await _take_log_in(sa, auth_proofs.peer_rounds(sa.connection)[taken], message, own)
        taken += 1
    payloads += await own.next()
    while own.remaining:
        await answer_and_wait(IKE_AUTH, payloads)
        payloads = await own.next()
    return await auth_outcome.grant(sa, request, payloads)


async def _settle(sa: IkeSa) -> None:
    """Go on with the agreement for whom the peer has proven to be."""
    settled = await sa.ask(SettleConnection(sa.connection, sa.connection_id, sa.eap_identity or b""))
    sa.login_lifetime = settled.lifetime
    if settled.connection is not sa.connection:
        sa.connection = settled.connection
        _require_allowed_suite(sa)


def _give_time(sa: IkeSa) -> None:
    """Each log-in has its time, as a person may have to type something for it."""
    sa.timers.set("establish", sa.now + sa.shared.settings.login_seconds)


async def _take_log_in(
    sa: IkeSa, due: FurtherExpectation, message: Message, own: OwnProofs
) -> tuple[tuple[Payload, ...], Message]:
    """One log-in of the initiator, by key or by EAP; returns what concludes it in our next answer, and the message that
    had the initiator's AUTH. Raises when it fails."""
    identification = _identification(message)
    identity = Identity.from_payload(identification)
    expectation = due.expectation
    if isinstance(expectation, EapExpected):
        if message.find(Authentication) is not None:
            raise _expects("EAP", "an AUTH payload in the first request")
        session = expectation.new_authenticator(sa.ask)
        own.leave_to(session)
        payloads, message = await auth_eap.authenticate(sa, session, identification, own)
        auth_eap.take_identity(sa, session)
        if expectation.settles:
            await _settle(sa)
        return payloads, message
    if message.find(Authentication) is None:
        raise _expects("a pre-shared key or certificate", "a request for EAP (no AUTH payload)")
    if not isinstance(expectation, PskExpected | CertificateExpected):
        raise ConfigError(f"connection {sa.connection.name} says nothing of how clients prove who they are")
    # The name that the connection is for may be another one of the certificate: it is proven below like IDi.
    others = authentication.claimed_identities(message) if isinstance(expectation, CertificateExpected) else ()
    authentication.check_identity(due.identity, identity, *others)
    await authentication.verify_by_key(sa, expectation, identification, message)
    auth_proofs.note_proof(sa, str(identity), authentication.word_of(expectation))
    return (), message


def _identification(message: Message) -> IdInitiator:
    """IDi, with which each log-in begins."""
    identification = message.find(IdInitiator)
    if identification is None:
        raise ProtocolViolation("a log-in in IKE_AUTH without IDi", notify=NotifyType.INVALID_SYNTAX)
    return identification


def _expects(expected: str, got: str) -> AuthenticationFailed:
    return AuthenticationFailed(
        "the client authenticates in another way than its connection demands",
        notify=NotifyType.AUTHENTICATION_FAILED,
        expected=expected,
        got=got,
        remedy="set the same authentication method on both sides",
    )


async def _select_connection(sa: IkeSa, message: Message, claimed: tuple[Identity, ...]) -> None:
    wanted = message.find(IdResponder)
    proof = message.find(Authentication)
    assert sa.remote_identity is not None
    sa.connection = await sa.ask(
        SelectConnection(
            sa.local,
            sa.remote,
            sa.remote_identity,
            Identity.from_payload(wanted) if wanted is not None else None,
            proof.method if proof is not None else None,
            claimed,
        )
    )
    _require_allowed_suite(sa)
    if sa.channel.may_fragment:
        sa.channel.fragment_octets = sa.connection.fragment_size


def _require_allowed_suite(sa: IkeSa) -> None:
    """What was agreed on before we knew who is calling must be good enough for this connection too."""
    if sa.connection.ike_proposals is sa.chosen_from:
        return
    assert sa.suite is not None
    if select((sa.suite.to_proposal(1, b""),), sa.connection.ike_proposals) is None:
        raise AuthenticationFailed(
            f"connection {sa.connection.name} does not allow {sa.suite}",
            notify=NotifyType.AUTHENTICATION_FAILED,
            expected=", ".join(map(format_proposal, sa.connection.ike_proposals)),
            remedy="let both sides offer a proposal that the connection allows, or allow this one",
        )


async def given_up(sa: IkeSa, message: Message) -> Answer:
    """INFORMATIONAL during the log-in: the initiator does not go on (section 2.21.2). It need not wait for EAP-Failure."""
    failure = failure_of(message)
    if failure is None and message.find(Delete) is None:
        raise ProtocolViolation("INFORMATIONAL in the middle of the log-in", notify=NotifyType.INVALID_SYNTAX)
    reason = "the client gave up its log-in"
    error: PeerError = error_from(failure, reason) if failure is not None else Closed(reason)
    if not sa.driver.interrupt(IKE_AUTH, error):
        sa.report(events.Refused(sa.local, sa.remote, error))
    return Answer((), lambda: sa.terminate(error))

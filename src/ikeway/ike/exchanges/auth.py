"""IKE_AUTH (RFC 7296 section 1.2; EAP: 2.16; EAP-only: RFC 5998; childless: RFC 6023).

    Initiator                                            Responder
    HDR, SK {IDi, [CERT,] [CERTREQ,] [IDr,]
        AUTH, [CP,] SAi2, TSi, TSr}             -->
                                                <--      HDR, SK {IDr, [CERT,] AUTH, [CP,] SAr2, TSi, TSr}

An initiator that sends no AUTH asks for EAP: `auth_eap` has what follows.
"""

from __future__ import annotations

from dataclasses import dataclass

from ikeway.auth.certificate import CertificateCredential
from ikeway.auth.identity import Identity
from ikeway.eap.authenticator import Authenticator
from ikeway.eap.session import EapPeer
from ikeway.errors import (
    AuthenticationFailed,
    Closed,
    ConfigError,
    IkewayError,
    NegotiationFailed,
    PeerError,
    ProtocolViolation,
    Side,
)
from ikeway.ike import authentication, events, negotiation, succession
from ikeway.ike.driver import Answer, Task, notify_for
from ikeway.ike.exchanges import auth_eap, create_child, delete, informational, init, mobike
from ikeway.ike.negotiation import ChildOffer, Grant, Nonces
from ikeway.ike.notifies import error_from, failure_of
from ikeway.ike.proposals import format_proposal, select
from ikeway.ike.questions import AssignAddresses, SelectConnection
from ikeway.ike.sa import IkeSa
from ikeway.ike.settings import (
    CertificateExpected,
    ChildSettings,
    EapCredential,
    EapExpected,
    EapOnlyExpected,
    PskExpected,
)
from ikeway.wire.message import Message
from ikeway.wire.payloads import (
    Authentication,
    CertificateRequest,
    Configuration,
    ConfigurationAttribute,
    Delete,
    Eap,
    IdInitiator,
    IdResponder,
    Notify,
    Payload,
    SecurityAssociation,
)
from ikeway.wire.registry import ConfigurationAttributeType, ConfigurationType, ExchangeType, NotifyType

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

_ADDRESSES = frozenset(
    {ConfigurationAttributeType.INTERNAL_IP4_ADDRESS, ConfigurationAttributeType.INTERNAL_IP6_ADDRESS}
)


# --- initiator --------------------------------------------------------------------------------------------------------


async def connect(sa: IkeSa) -> None:
    """From nothing to an established IKE SA with its first child SA."""
    try:
        session = _prepare(sa)
        await init.initiate(sa)
        await _authenticate(sa, session)
    except IkewayError as error:
        sa.terminate(error)


def _prepare(sa: IkeSa) -> EapPeer | None:
    """The EAP session of this log-in, where there is one. Raises `ConfigError` where nothing would prove the responder."""
    credential, expectation = sa.connection.local_credential, sa.connection.remote_expectation
    session = credential.new_peer(sa.ask) if isinstance(credential, EapCredential) else None
    if isinstance(expectation, EapOnlyExpected) and session is not None:
        session.require_mutual()
    elif not isinstance(expectation, PskExpected | CertificateExpected):
        raise ConfigError(
            f"connection {sa.connection.name} says nothing of how the gateway proves who it is",
            expected="a pre-shared key, a CA, or EAP alone together with our own EAP credential",
            remedy="name the CA of the gateway's certificate",
        )
    return session


async def _authenticate(sa: IkeSa, session: EapPeer | None) -> None:
    credential = sa.connection.local_credential
    sa.local_identity = authentication.own_identity(sa, credential)
    own = IdInitiator(sa.local_identity.type, sa.local_identity.value)
    if sa.connection.childless and not sa.peer_childless:
        raise NegotiationFailed("the gateway makes no IKE SA without a child SA", remedy="switch childless off")
    offer = await _first_offer(sa)
    proof: tuple[Payload, ...] = ()
    if not isinstance(credential, EapCredential):
        proof = (await authentication.prove_by_key(sa, credential, own),)
    payloads = (own, *_certificates(sa), *_wanted_peer(sa), *proof, *_rest(sa, offer))
    reply = await sa.request(IKE_AUTH, payloads)
    try:
        peer = await _verify_responder(sa, reply)
        if session is not None:
            reply = await auth_eap.log_in(sa, session, own, peer, reply)
        _check_failure(reply)
    except IkewayError as error:
        _say_why(sa, error)
        raise
    _establish_initiator(sa, offer, reply)


def _check_failure(reply: Message) -> None:
    """An error that is not of the child SA alone fails the log-in, one that we do not know too (section 3.10.1)."""
    failure = failure_of(reply)
    if failure is not None and failure.type not in _CHILD_FAILURES:
        raise error_from(failure, "the gateway refused the log-in")


def _say_why(sa: IkeSa, error: IkewayError) -> None:
    """The responder holds the SA for established, or waits for EAP, when we give up: tell it (RFC 7296, 2.21.2)."""
    if not (isinstance(error, PeerError) and error.told_by_peer):
        sa.channel.notify_once(ExchangeType.INFORMATIONAL, (Notify(NotifyType.AUTHENTICATION_FAILED),))


async def _first_offer(sa: IkeSa) -> ChildOffer | None:
    if sa.connection.childless or not sa.connection.children:
        return None
    spi = await negotiation.reserve_spi(sa)
    return negotiation.make_offer(sa, sa.connection.children[0], spi, None)


def _certificates(sa: IkeSa) -> tuple[Payload, ...]:
    connection = sa.connection
    requested = sa.peer_wants_certificate
    payloads = authentication.certificate_payloads(sa, connection.local_credential, requested=requested)
    expectation = connection.remote_expectation
    if isinstance(expectation, CertificateExpected) and connection.send_certificate_requests:
        payloads += (expectation.trust.request,)
    return payloads


def _wanted_peer(sa: IkeSa) -> tuple[Payload, ...]:
    pattern = sa.connection.remote_identity
    if pattern is None or pattern.exact is None or not sa.connection.send_idr:
        return ()
    return (IdResponder(pattern.exact.type, pattern.exact.value),)


def _rest(sa: IkeSa, offer: ChildOffer | None) -> tuple[Payload, ...]:
    connection = sa.connection
    payloads: list[Payload] = []
    if connection.request_configuration:
        payloads.append(Configuration(ConfigurationType.CFG_REQUEST, _wishes(sa)))
    if offer is not None:
        payloads += offer.payloads()
    if connection.initial_contact and sa.replaces is None:
        payloads.append(Notify(NotifyType.INITIAL_CONTACT))
    if connection.mobike:
        payloads.append(Notify(NotifyType.MOBIKE_SUPPORTED))
    payloads += window_notify(sa)
    if isinstance(connection.remote_expectation, EapOnlyExpected):
        payloads.append(Notify(NotifyType.EAP_ONLY_AUTHENTICATION))
    return tuple(payloads)


def _wishes(sa: IkeSa) -> tuple[ConfigurationAttribute, ...]:
    """What we ask for; the addresses that we have when we only log in anew, so that what uses them goes on."""
    has = sa.replaces.configuration if sa.replaces is not None else ()
    addresses = {attribute.type: attribute for attribute in reversed(has) if attribute.type in _ADDRESSES}
    wishes = sa.connection.request_configuration
    return tuple(wish if wish.value else addresses.get(wish.type, wish) for wish in wishes)


async def _verify_responder(sa: IkeSa, reply: Message) -> IdResponder:
    """The responder's identity and its AUTH, if it owes one now."""
    peer = reply.find(IdResponder)
    if peer is None or (reply.find(Authentication) is None and failure_of(reply) is not None):
        if (failure := failure_of(reply)) is not None:
            raise auth_eap.told(error_from(failure, "the gateway refused the log-in"))
        raise ProtocolViolation("the gateway answered IKE_AUTH without its identity")
    sa.remote_identity = Identity.from_payload(peer)
    sa.report(events.PeerSeen(sa, f"the gateway says it is {sa.remote_identity}"))
    authentication.check_identity(sa, sa.remote_identity)
    expectation = sa.connection.remote_expectation
    if isinstance(expectation, PskExpected | CertificateExpected):
        await authentication.verify_by_key(sa, expectation, peer, reply)
    return peer


def _establish_initiator(sa: IkeSa, offer: ChildOffer | None, reply: Message) -> None:
    mobike.learn(sa, reply)
    learn_window(sa, reply)
    sa.establish()
    sa.report(events.IkeEstablished(sa, sa.replaces))
    configuration = reply.find(Configuration)
    if configuration is not None and configuration.type == ConfigurationType.CFG_REPLY:
        sa.configuration = configuration.attributes
        sa.report(events.ConfigurationReceived(sa, configuration.attributes))
    remaining = sa.connection.children
    if offer is not None:
        remaining = remaining[1:]
        try:
            nonces = Nonces(sa.nonce_initiator, sa.nonce_responder)
            child = negotiation.conclude(sa, offer, reply, nonces)
        except PeerError as error:
            create_child.discard(sa, offer, reply)
            sa.report(events.ChildFailed(sa, offer.settings, error))
        else:
            create_child.install_both(sa, child)
    for settings in remaining:
        sa.driver.enqueue(Task("create-child", create_child.create, (settings,)))
    if sa.replaces is not None:
        old, sa.replaces = sa.replaces, None
        delete.close_replaced(old, sa.now)


# --- responder --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Caller:
    """What the first request of an initiator says; the later ones of EAP do not repeat it."""

    identification: IdInitiator
    request: Message


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
    sa.timers.set("establish", sa.now + sa.shared.settings.login_seconds)
    identification = message.find(IdInitiator)
    if identification is None:
        raise ProtocolViolation("IKE_AUTH without IDi", notify=NotifyType.INVALID_SYNTAX)
    caller = _Caller(identification, message)
    sa.remote_identity = Identity.from_payload(identification)
    claimed = authentication.claimed_identities(message)
    await _select_connection(sa, message, claimed)
    expectation = sa.connection.remote_expectation
    own_identity = authentication.own_identity(sa, sa.connection.local_credential)
    sa.local_identity = own_identity
    own = IdResponder(own_identity.type, own_identity.value)
    if isinstance(expectation, EapExpected):
        if message.find(Authentication) is not None:
            raise _expects("EAP", "an AUTH payload in the first request")
        session = expectation.new_authenticator(sa.ask)
        alone = _is_eap_only(sa, message) and session.require_mutual()
        proof = (own,) if alone else await _own_proof(sa, own, message)
        payloads = await auth_eap.authenticate(sa, session, message, own, proof)
        return await _finish(sa, caller, payloads, session)
    if message.find(Authentication) is None:
        raise _expects("a pre-shared key or certificate", "a request for EAP (no AUTH payload)")
    if not isinstance(expectation, PskExpected | CertificateExpected):
        raise ConfigError(f"connection {sa.connection.name} says nothing of how clients prove who they are")
    # The name that the connection is for may be another one of the certificate: it is proven below like IDi.
    others = claimed if isinstance(expectation, CertificateExpected) else ()
    authentication.check_identity(sa, sa.remote_identity, *others)
    await authentication.verify_by_key(sa, expectation, identification, message)
    return await _finish(sa, caller, await _own_proof(sa, own, message), None)


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
    if sa.channel.accept_fragments:
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


async def _own_proof(sa: IkeSa, own: IdResponder, message: Message) -> tuple[Payload, ...]:
    """IDr, [CERT,] AUTH."""
    credential = sa.connection.local_credential
    requested = message.find(CertificateRequest) is not None
    certificates = authentication.certificate_payloads(sa, credential, requested=requested)
    return (own, *certificates, await authentication.prove_by_key(sa, credential, own))


def _is_eap_only(sa: IkeSa, request: Message) -> bool:
    """True when EAP alone may prove us too (RFC 5998): the initiator takes it, and we have no certificate.

    The method must be mutual as well; else our own AUTH is due all the same, as if nobody had asked.
    """
    asked = request.notify(NotifyType.EAP_ONLY_AUTHENTICATION) is not None
    return asked and not isinstance(sa.connection.local_credential, CertificateCredential)


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


async def _finish(sa: IkeSa, caller: _Caller, payloads: tuple[Payload, ...], session: Authenticator | None) -> Answer:
    """Both are authenticated: addresses, the first child SA, and the answer that says so."""
    identity = _authenticated_identity(sa, session)
    request = caller.request
    if sa.connection.childless and request.find(SecurityAssociation) is not None:
        raise ProtocolViolation("a child SA in IKE_AUTH, where none is allowed", notify=NotifyType.INVALID_SYNTAX)
    mobike.learn(sa, request)
    configuration: tuple[Payload, ...] = ()
    child: tuple[Payload, ...] = ()
    grant: Grant | None = None
    try:
        configuration = await _assign(sa, identity, request)
        if request.find(SecurityAssociation) is not None:
            nonces = Nonces(sa.nonce_initiator, sa.nonce_responder)
            grant = await negotiation.grant(sa, request, nonces, in_auth=True)
            child = grant.payloads
    except (NegotiationFailed, ProtocolViolation) as error:
        # The IKE SA stands; only its first child SA does not (RFC 7296 section 1.2).
        child = (notify_for(error),)
        sa.report(events.Refused(sa.local, sa.remote, error))
        sa.report(events.ChildFailed(sa, _first_child(sa), error))
    extra = (*mobike.announce(sa, request), *window_notify(sa))
    learn_window(sa, request)
    sa.channel.window = sa.connection.window  # not before: log-ins go one request at a time
    sa.establish()
    sa.report(events.IkeEstablished(sa))
    if request.notify(NotifyType.INITIAL_CONTACT) is not None:
        informational.initial_contact(sa)
    if grant is not None:
        succession.install(sa, grant.child)
    return Answer((*payloads, *configuration, *child, *extra))


def _first_child(sa: IkeSa) -> ChildSettings:
    return sa.connection.children[0] if sa.connection.children else ChildSettings(name="none")


def _authenticated_identity(sa: IkeSa, session: Authenticator | None) -> Identity:
    assert sa.remote_identity is not None
    if session is None or session.identity is None:
        return sa.remote_identity
    try:
        return Identity.parse(session.identity.decode())
    except (IkewayError, UnicodeDecodeError):
        return sa.remote_identity


async def _assign(sa: IkeSa, identity: Identity, request: Message) -> tuple[Payload, ...]:
    asked = request.find(Configuration)
    if asked is None or asked.type != ConfigurationType.CFG_REQUEST:
        if sa.connection.require_configuration_request:
            raise NegotiationFailed(
                f"{identity} asked for no address",
                notify=NotifyType.FAILED_CP_REQUIRED,
                side=Side.PEER,
                remedy="let the client request a virtual address",
            )
        return ()
    attributes = await sa.ask(AssignAddresses(sa.connection, sa.connection_id, identity, sa.remote, asked.attributes))
    sa.configuration = attributes
    return (Configuration(ConfigurationType.CFG_REPLY, attributes),)


# --- both -------------------------------------------------------------------------------------------------------------


def window_notify(sa: IkeSa) -> tuple[Payload, ...]:
    """SET_WINDOW_SIZE, when we take more than one request at a time (RFC 7296 section 2.3)."""
    window = sa.connection.window
    return (Notify(NotifyType.SET_WINDOW_SIZE, window.to_bytes(4, "big")),) if window > 1 else ()


def learn_window(sa: IkeSa, message: Message) -> None:
    """How many requests the peer takes at a time; we use no more than we grant ourselves."""
    notify = message.notify(NotifyType.SET_WINDOW_SIZE)
    if notify is not None and len(notify.value) == 4:
        announced = int.from_bytes(notify.value, "big")
        sa.channel.peer_window = max(sa.channel.peer_window, min(announced, sa.connection.window))

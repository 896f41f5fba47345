"""What a log-in is for: addresses (RFC 7296 section 2.19) and the first child SA, which come with IKE_AUTH.

The initiator asks for them in its first request, the responder grants them in its last answer.
"""

from __future__ import annotations

from ikeway.auth.identity import Identity
from ikeway.errors import NegotiationFailed, PeerError, ProtocolViolation, Side
from ikeway.ike import events, lifetimes, negotiation, succession, window
from ikeway.ike.driver import Answer, Task, notify_for
from ikeway.ike.exchanges import create_child, delete, informational, mobike
from ikeway.ike.negotiation import ChildOffer, Grant, Nonces
from ikeway.ike.questions import AssignAddresses
from ikeway.ike.sa import IkeSa
from ikeway.ike.settings import ChildSettings, EapOnlyExpected
from ikeway.wire.message import Message
from ikeway.wire.payloads import Configuration, ConfigurationAttribute, Notify, Payload, SecurityAssociation
from ikeway.wire.registry import ConfigurationAttributeType, ConfigurationType, NotifyType

_ADDRESSES = frozenset(
    {ConfigurationAttributeType.INTERNAL_IP4_ADDRESS, ConfigurationAttributeType.INTERNAL_IP6_ADDRESS}
)


# --- initiator --------------------------------------------------------------------------------------------------------


async def first_offer(sa: IkeSa) -> ChildOffer | None:
    """The child SA that we offer beside our log-in; None for an IKE SA without one (RFC 6023)."""
    if sa.connection.childless or not sa.connection.children:
        return None
    spi = await negotiation.reserve_spi(sa)
    return negotiation.make_offer(sa, sa.connection.children[0], spi, None)


def wishes(sa: IkeSa, offer: ChildOffer | None) -> tuple[Payload, ...]:
    """[CP,] SAi2, TSi, TSr, and what we can do."""
    connection = sa.connection
    payloads: list[Payload] = []
    if connection.request_configuration:
        payloads.append(Configuration(ConfigurationType.CFG_REQUEST, _wanted_attributes(sa)))
    if offer is not None:
        payloads += offer.payloads()
    if connection.initial_contact and sa.replaces is None:
        payloads.append(Notify(NotifyType.INITIAL_CONTACT))
    if connection.mobike:
        payloads.append(Notify(NotifyType.MOBIKE_SUPPORTED))
    payloads += window.announce(sa)
    if isinstance(connection.remote_expectation, EapOnlyExpected):
        payloads.append(Notify(NotifyType.EAP_ONLY_AUTHENTICATION))
    return tuple(payloads)


def _wanted_attributes(sa: IkeSa) -> tuple[ConfigurationAttribute, ...]:
    """What we ask for; the addresses that we have when we only log in anew, so that what uses them goes on."""
    has = sa.replaces.configuration if sa.replaces is not None else ()
    addresses = {attribute.type: attribute for attribute in reversed(has) if attribute.type in _ADDRESSES}
    wanted = sa.connection.request_configuration
    return tuple(wish if wish.value else addresses.get(wish.type, wish) for wish in wanted)


def establish(sa: IkeSa, offer: ChildOffer | None, reply: Message) -> None:
    """Both are authenticated, and `reply` is the responder's last one: take what it grants."""
    mobike.learn(sa, reply)
    window.learn(sa, reply)
    sa.establish()
    lifetimes.log_in_again(sa)
    _learn_lifetime(sa, reply)
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


def _learn_lifetime(sa: IkeSa, reply: Message) -> None:
    """AUTH_LIFETIME: the responder ends the SA unless we log in anew within so many seconds (RFC 4478)."""
    notify = reply.notify(NotifyType.AUTH_LIFETIME)
    if notify is not None and len(notify.value) == 4 and (seconds := int.from_bytes(notify.value, "big")):
        lifetimes.log_in_within(sa, seconds)


# --- responder --------------------------------------------------------------------------------------------------------


async def grant(sa: IkeSa, request: Message, proof: tuple[Payload, ...]) -> Answer:
    """Both are authenticated: addresses, the first child SA, and the answer that says so.

    `request` is the initiator's first one, `proof` what our last answer begins with.
    """
    if sa.connection.childless and request.find(SecurityAssociation) is not None:
        raise ProtocolViolation("a child SA in IKE_AUTH, where none is allowed", notify=NotifyType.INVALID_SYNTAX)
    mobike.learn(sa, request)
    configuration: tuple[Payload, ...] = ()
    child: tuple[Payload, ...] = ()
    granted: Grant | None = None
    try:
        configuration = await _assign(sa, _authenticated_identity(sa), request)
        if request.find(SecurityAssociation) is not None:
            nonces = Nonces(sa.nonce_initiator, sa.nonce_responder)
            granted = await negotiation.grant(sa, request, nonces, in_auth=True)
            child = granted.payloads
    except (NegotiationFailed, ProtocolViolation) as error:
        # The IKE SA stands; only its first child SA does not (RFC 7296 section 1.2).
        child = (notify_for(error),)
        sa.report(events.Refused(sa.local, sa.remote, error))
        sa.report(events.ChildFailed(sa, _first_child(sa), error))
    extra = (*mobike.announce(sa, request), *window.announce(sa), *_lifetime_notify(sa))
    window.learn(sa, request)
    sa.channel.window = sa.connection.window  # not before: log-ins go one request at a time
    sa.establish()
    sa.report(events.IkeEstablished(sa))
    if request.notify(NotifyType.INITIAL_CONTACT) is not None:
        informational.initial_contact(sa)
    if granted is not None:
        succession.install(sa, granted.child)
    return Answer((*proof, *configuration, *child, *extra))


def _first_child(sa: IkeSa) -> ChildSettings:
    return sa.connection.children[0] if sa.connection.children else ChildSettings(name="none")


def _authenticated_identity(sa: IkeSa) -> Identity:
    """Who gets the addresses: the EAP user where there is one, else who came first."""
    assert sa.remote_identity is not None
    # What IDi says beside EAP is not proven (Windows puts its address there), so that nothing may be given to it.
    return Identity.of_user(sa.eap_identity) if sa.eap_identity else sa.remote_identity


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
    user = sa.eap_identity or None
    attributes = await sa.ask(
        AssignAddresses(sa.connection, sa.connection_id, identity, sa.remote, asked.attributes, user)
    )
    sa.configuration = attributes
    return (Configuration(ConfigurationType.CFG_REPLY, attributes),)


def _lifetime_notify(sa: IkeSa) -> tuple[Payload, ...]:
    """AUTH_LIFETIME, when the initiator has to log in anew (RFC 4478): because of who it is, or as all have to."""
    limits = [limit for limit in (sa.login_lifetime, sa.connection.reauthenticate_seconds) if limit]
    seconds = min(int(min(limits, default=0.0)), 0xFFFFFFFF)
    return (Notify(NotifyType.AUTH_LIFETIME, seconds.to_bytes(4, "big")),) if seconds else ()

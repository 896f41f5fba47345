"""CREATE_CHILD_SA for a new child SA (RFC 7296 section 1.3.1).

    HDR, SK {SA, Ni, [KEi,] TSi, TSr}  -->
                                       <--  HDR, SK {SA, Nr, [KEr,] TSi, TSr}

What the rekeying of child SAs does alike is here too.
"""

from __future__ import annotations

from ikeway.crypto import initiate_key_exchange
from ikeway.errors import Closed, NegotiationFailed, PeerError, ProtocolViolation
from ikeway.ike import events, lifetimes, negotiation
from ikeway.ike.child import ChildSa, ChildState
from ikeway.ike.driver import Answer
from ikeway.ike.exchanges import delete
from ikeway.ike.exchanges.init import NONCE_OCTETS, demanded_method
from ikeway.ike.negotiation import ChildOffer, Nonces
from ikeway.ike.notifies import failure_of
from ikeway.ike.proposals import key_exchange_methods
from ikeway.ike.sa import IkeSa, IkeState
from ikeway.ike.settings import ChildSettings
from ikeway.wire.message import Message
from ikeway.wire.payloads import Nonce, Notify, Payload, SecurityAssociation
from ikeway.wire.registry import ExchangeType, NotifyType

CREATE_CHILD_SA = ExchangeType.CREATE_CHILD_SA
MAX_ROUNDS = 3


# --- initiator --------------------------------------------------------------------------------------------------------


async def create(sa: IkeSa, settings: ChildSettings) -> None:
    """Make a child SA besides those that are there, unless there is one of these settings already."""
    if any(child.settings is settings and child.state is ChildState.INSTALLED for child in sa.children):
        return
    try:
        child = await _exchange(sa, settings)
    except PeerError as error:
        if error.notify == NotifyType.TEMPORARY_FAILURE and sa.is_alive:
            lifetimes.retry_create(sa, settings)
            return
        sa.report(events.ChildFailed(sa, settings, error))
        return
    install_both(sa, child)
    if was_deleted_early(sa, child):
        sa.remove_child(child, Closed("the peer deleted the child SA as soon as it was made"))


async def _exchange(sa: IkeSa, settings: ChildSettings) -> ChildSa:
    offer, reply, nonces = await request(sa, settings)
    try:
        child = negotiation.conclude(sa, offer, reply, nonces)
    except PeerError:
        discard(sa, offer, reply)
        raise
    child.key_exchange = child.suite.key_exchange
    return child


def was_deleted_early(sa: IkeSa, child: ChildSa) -> bool:
    """True when the peer's delete of a child SA has overtaken the response that made it."""
    early = child.spi_out in sa.early_deletes
    sa.early_deletes.discard(child.spi_out)
    return early


async def request(sa: IkeSa, settings: ChildSettings, old: ChildSa | None = None) -> tuple[ChildOffer, Message, Nonces]:
    """Send the offer, again with another key exchange method when the peer demands one (section 1.3).

    The response is returned as it is, refusal or not.
    """
    if not sa.makings:
        sa.early_deletes.clear()
    sa.makings += 1
    try:
        return await _request(sa, settings, old)
    finally:
        sa.makings -= 1


async def _request(sa: IkeSa, settings: ChildSettings, old: ChildSa | None) -> tuple[ChildOffer, Message, Nonces]:
    methods = key_exchange_methods(settings.proposals)
    method = old.key_exchange if old is not None and old.key_exchange in methods else next(iter(methods), None)
    for _ in range(MAX_ROUNDS):
        exchange = initiate_key_exchange(method) if method else None
        offer = negotiation.make_offer(sa, settings, await negotiation.reserve_spi(sa), exchange, old)
        nonce = sa.shared.random(NONCE_OCTETS)
        reply = await sa.request(CREATE_CHILD_SA, _payloads(offer, nonce, old))
        demanded = reply.notify(NotifyType.INVALID_KE_PAYLOAD)
        if demanded is None or method is None:
            peer_nonce = reply.find(Nonce)
            if peer_nonce is None and failure_of(reply) is None:
                discard(sa, offer, reply)
                raise ProtocolViolation("a response to CREATE_CHILD_SA without a nonce")
            return offer, reply, Nonces(nonce, peer_nonce.value if peer_nonce is not None else b"")
        discard(sa, offer, reply)
        method = demanded_method(demanded, methods, method)
        if old is not None:
            old.key_exchange = method
    raise NegotiationFailed("the peer goes on demanding other key exchange methods")


def _payloads(offer: ChildOffer, nonce: bytes, old: ChildSa | None) -> tuple[Payload, ...]:
    security, *rest = offer.payloads()
    payloads = (security, Nonce(nonce), *rest)
    if old is None:
        return payloads
    protocol = security.proposals[0].protocol if isinstance(security, SecurityAssociation) else 0
    return (Notify(NotifyType.REKEY_SA, b"", protocol, old.spi_in_octets), *payloads)


def discard(sa: IkeSa, offer: ChildOffer, reply: Message) -> None:
    """An offer came to nothing: give its SPI back; what the peer has made of it is deleted."""
    sa.shared.esp_spis.discard(offer.spi_in)
    sa.reserved_spis.discard(offer.spi_in)
    security = reply.find(SecurityAssociation)
    if failure_of(reply) is None and security is not None and sa.is_alive:
        delete.delete_spi(sa, offer.spi_in)


def install_both(sa: IkeSa, child: ChildSa) -> None:
    """A child SA that replaces nothing: both directions at once."""
    sa.add_child(child)
    child.install_inbound()
    child.install_outbound()
    sa.announce_child(child)


# --- responder --------------------------------------------------------------------------------------------------------


async def respond(sa: IkeSa, message: Message) -> Answer:
    """Grant a new child SA."""
    refuse_when_busy(sa)
    if sa.state is IkeState.REKEYING or sa.driver.is_running("rekey-ike"):
        raise NegotiationFailed("the IKE SA is being rekeyed", notify=NotifyType.TEMPORARY_FAILURE)
    nonce = sa.shared.random(NONCE_OCTETS)
    try:
        granted = await negotiation.grant(sa, message, Nonces(required_nonce(message), nonce))
    except PeerError as error:
        if error.notify != NotifyType.INVALID_KE_PAYLOAD:
            sa.report(events.Refused(sa.local, sa.remote, error))
        raise
    granted.child.key_exchange = granted.child.suite.key_exchange
    install_both(sa, granted.child)
    return Answer(with_nonce(granted.payloads, nonce))


def with_nonce(payloads: tuple[Payload, ...], nonce: bytes) -> tuple[Payload, ...]:
    """Put the nonce behind the SA payload, where the RFC's diagrams have it."""
    return (payloads[0], Nonce(nonce), *payloads[1:])


def required_nonce(message: Message) -> bytes:
    """The peer's nonce."""
    nonce = message.find(Nonce)
    if nonce is None or not 16 <= len(nonce.value) <= 256:
        raise ProtocolViolation("CREATE_CHILD_SA without a proper nonce", notify=NotifyType.INVALID_SYNTAX)
    return nonce.value


def refuse_when_busy(sa: IkeSa) -> None:
    """Nothing is made on an IKE SA that is being closed or was replaced (section 2.25.2)."""
    if not sa.is_alive:
        raise NegotiationFailed(f"the IKE SA is {sa.state.value}", notify=NotifyType.TEMPORARY_FAILURE)

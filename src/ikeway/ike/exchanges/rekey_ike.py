"""CREATE_CHILD_SA that rekeys the IKE SA, and its collisions (RFC 7296 sections 1.3.2, 2.8.2, 2.18 and 2.25.2).

    HDR, SK {SA, Ni, KEi}  -->
                           <--  HDR, SK {SA, Nr, KEr}
    HDR, SK {D}            -->                          (on the old IKE SA)
                           <--  HDR, SK {}

The new IKE SA inherits the child SAs. When both rekey at once, the new SA made with the lowest of the four nonces goes,
deleted by who initiated it; the old one is deleted by the other.
"""

from __future__ import annotations

from ikeway.crypto import PrivateKeyExchange, initiate_key_exchange, respond_key_exchange
from ikeway.errors import InvalidPublicValue, NegotiationFailed, PeerError, ProtocolViolation
from ikeway.ike import events, lifetimes, window
from ikeway.ike.child import ChildState
from ikeway.ike.driver import Answer
from ikeway.ike.exchanges import delete
from ikeway.ike.exchanges.create_child import refuse_when_busy, required_nonce
from ikeway.ike.exchanges.init import NONCE_OCTETS, demanded_method
from ikeway.ike.inheritance import hand_over, inherit, register, take_over
from ikeway.ike.keying import protect_rekeyed
from ikeway.ike.negotiation import Nonces
from ikeway.ike.notifies import error_from, failure_of
from ikeway.ike.proposals import Selection, key_exchange_methods, select, verify_selected, with_numbers
from ikeway.ike.sa import IkeSa, IkeState
from ikeway.wire.message import Message
from ikeway.wire.payloads import KeyExchange, Nonce, SecurityAssociation
from ikeway.wire.registry import ExchangeType, KeyExchangeMethod, NotifyType

MAX_ROUNDS = 3


# --- initiator --------------------------------------------------------------------------------------------------------


async def rekey(sa: IkeSa) -> None:
    """Replace the IKE SA by a new one."""
    if sa.state is not IkeState.ESTABLISHED:
        return
    if _peer_is_rekeying_a_child(sa):
        lifetimes.retry_rekey(sa)
        return
    sa.state = IkeState.REKEYING
    try:
        new, nonces = await _exchange(sa)
    except PeerError as error:
        _refused(sa, error)
        return
    theirs = sa.rekeyed_by_peer
    sa.rekeyed_by_peer = None
    if theirs is not None and nonces.lowest < theirs[1]:
        # Ours is redundant. The peer deletes the old one.
        _give_way(sa, theirs[0])
        register(new)
        new.state, new.successor = IkeState.ESTABLISHED, theirs[0]
        delete.close_redundant(new)
        return
    take_over(sa, new)
    hand_over(sa, new)
    if theirs is not None:
        register(theirs[0])
        theirs[0].state = IkeState.REKEYED
        theirs[0].successor = new
        lifetimes.await_delete(theirs[0])
    sa.state = IkeState.DELETING
    sa.timers.clear()
    await delete.exchange(sa)
    sa.terminate(None)


def _give_way(sa: IkeSa, theirs: IkeSa) -> None:
    """The peer's new SA stays, and the peer deletes this one."""
    take_over(sa, theirs)
    sa.state = IkeState.REKEYED
    lifetimes.await_delete(sa)
    hand_over(sa, theirs)


def _peer_is_rekeying_a_child(sa: IkeSa) -> bool:
    """Whether the peer has still to end a rekeying by deleting the old child SA. It may not have our response yet, and
    ought to refuse for now (section 2.25.2). strongSwan 5.9.8 agrees, and never asks again for what it has not heard:
    its child SA stays half rekeyed."""
    return any(
        child.rekeyed_by_peer is not None
        and child.state is ChildState.REKEYED
        and lifetimes.may_be_unheard_of(sa, child.rekeyed_by_peer.successor)
        for child in sa.children
    )


async def _exchange(sa: IkeSa) -> tuple[IkeSa, Nonces]:
    """The exchange itself, again with another key exchange method when the peer demands one."""
    methods = key_exchange_methods(sa.connection.ike_proposals)
    current = sa.suite.key_exchange if sa.suite is not None else None
    method = sa.preferred_method or (current if current in methods else methods[0])
    assert method is not None
    spi = sa.shared.new_ike_spi()
    for _ in range(MAX_ROUNDS):
        exchange = initiate_key_exchange(method)
        nonce = sa.shared.random(NONCE_OCTETS)
        proposals = with_numbers(sa.connection.ike_proposals, spi)
        payloads = (SecurityAssociation(proposals), Nonce(nonce), KeyExchange(method, exchange.public_value))
        reply = await sa.request(ExchangeType.CREATE_CHILD_SA, (*payloads, *window.announce(sa)))
        demanded = reply.notify(NotifyType.INVALID_KE_PAYLOAD)
        if demanded is None:
            return _conclude(sa, reply, spi, exchange, nonce)
        method = sa.preferred_method = demanded_method(demanded, methods, method)
    raise NegotiationFailed("the peer goes on demanding other key exchange methods")


def _conclude(
    sa: IkeSa, reply: Message, spi: bytes, exchange: PrivateKeyExchange, nonce: bytes
) -> tuple[IkeSa, Nonces]:
    if (failure := failure_of(reply)) is not None:
        raise error_from(failure, "the peer refused to rekey the IKE SA")
    security, key = reply.find(SecurityAssociation), reply.find(KeyExchange)
    if security is None or key is None or len(security.proposals) != 1:
        raise ProtocolViolation("a response to the rekeying of the IKE SA without one proposal and a key exchange")
    chosen = security.proposals[0]
    suite = verify_selected(chosen, with_numbers(sa.connection.ike_proposals, spi))
    if key.method != exchange.method or suite.key_exchange != exchange.method or not _is_spi(chosen.spi):
        raise ProtocolViolation("the response to the rekeying of the IKE SA contradicts itself")
    try:
        secret = exchange.shared_secret(key.public_value)
    except InvalidPublicValue as error:
        raise ProtocolViolation(f"the key exchange of the response is worthless: {error}") from None
    nonces = Nonces(nonce, required_nonce(reply))
    new = _successor(sa, spi, chosen.spi, nonces, is_initiator=True)
    protect_rekeyed(new, sa, suite, secret)
    window.learn(new, reply)
    return new, nonces


def _refused(sa: IkeSa, error: PeerError) -> None:
    theirs = sa.rekeyed_by_peer
    if theirs is not None:
        # The peer's rekeying stands, and it will delete this SA.
        sa.rekeyed_by_peer = None
        _give_way(sa, theirs[0])
        return
    sa.state = IkeState.ESTABLISHED
    if error.notify != NotifyType.TEMPORARY_FAILURE:
        sa.report(events.Refused(sa.local, sa.remote, error))
    lifetimes.retry_rekey(sa)


# --- responder --------------------------------------------------------------------------------------------------------


async def respond(sa: IkeSa, message: Message) -> Answer:
    """Grant the rekeying of the IKE SA."""
    refuse_when_busy(sa)
    if _children_in_motion(sa) or sa.rekeyed_by_peer is not None:
        raise NegotiationFailed("a child SA is being made, rekeyed or closed", notify=NotifyType.TEMPORARY_FAILURE)
    security, key = message.find(SecurityAssociation), message.find(KeyExchange)
    if security is None or key is None:
        raise ProtocolViolation("an IKE SA rekeying without SA or KE", notify=NotifyType.INVALID_SYNTAX)
    selection = _choose(sa, security, key)
    try:
        public_value, secret = respond_key_exchange(key.method, key.public_value)
    except InvalidPublicValue as error:
        raise ProtocolViolation(str(error), notify=NotifyType.INVALID_SYNTAX) from None
    nonces = Nonces(required_nonce(message), sa.shared.random(NONCE_OCTETS))
    spi = sa.shared.new_ike_spi()
    new = _successor(sa, spi, selection.spi, nonces, is_initiator=False)
    protect_rekeyed(new, sa, selection.suite, secret)
    window.learn(new, message)
    payloads = (
        SecurityAssociation((selection.to_proposal(spi),)),
        Nonce(nonces.responder),
        KeyExchange(key.method, public_value),
        *window.announce(sa),
    )
    if sa.state is IkeState.REKEYING:
        # A collision: which of the two new SAs stays is known when our own exchange is over.
        sa.rekeyed_by_peer = (new, nonces.lowest)
        return Answer(payloads)
    take_over(sa, new)
    sa.state = IkeState.REKEYED
    return Answer(payloads, lambda: _go_on(sa, new))


def _go_on(sa: IkeSa, new: IkeSa) -> None:
    lifetimes.await_delete(sa)
    hand_over(sa, new)


def _children_in_motion(sa: IkeSa) -> bool:
    moving = {ChildState.REKEYING, ChildState.DELETING}
    return sa.makings > 0 or any(child.state in moving for child in sa.children)


def _choose(sa: IkeSa, security: SecurityAssociation, key: KeyExchange) -> Selection:
    selection = select(
        security.proposals,
        sa.connection.ike_proposals,
        prefer_initiator=sa.connection.prefer_initiator_order,
    )
    if selection is None or not _is_spi(selection.spi):
        raise NegotiationFailed("no proposal in common for the IKE SA", notify=NotifyType.NO_PROPOSAL_CHOSEN)
    method = selection.suite.key_exchange
    assert method is not None
    if method != key.method:
        raise NegotiationFailed(
            f"key exchange by {KeyExchangeMethod(method).name} is wanted", notify=NotifyType.INVALID_KE_PAYLOAD
        ).with_octets(int(method).to_bytes(2, "big"))
    return selection


# --- both -------------------------------------------------------------------------------------------------------------


def _successor(sa: IkeSa, spi: bytes, peer_spi: bytes, nonces: Nonces, *, is_initiator: bool) -> IkeSa:
    """A new IKE SA that knows what the old one knew; it has no keys yet and no children."""
    new = IkeSa(
        sa.shared,
        sa.connection,
        is_initiator=is_initiator,
        spi=spi,
        peer_spi=peer_spi,
        local=sa.local,
        remote=sa.remote,
        now=sa.now,
        connection_id=sa.connection_id,
    )
    new.nonce_initiator, new.nonce_responder = nonces.initiator, nonces.responder
    inherit(new, sa)
    return new


def _is_spi(octets: bytes) -> bool:
    return len(octets) == 8 and any(octets)

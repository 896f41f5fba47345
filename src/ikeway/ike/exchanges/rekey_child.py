"""CREATE_CHILD_SA that rekeys a child SA, and its collisions (RFC 7296 sections 1.3.3, 2.8 and 2.25.1).

    HDR, SK {N(REKEY_SA), SA, Ni, [KEi,] TSi, TSr}  -->
                                                    <--  HDR, SK {SA, Nr, [KEr,] TSi, TSr}
    HDR, SK {D (old SA)}                            -->
                                                    <--  HDR, SK {D (old SA)}

The initiator of the rekeying moves at once: it sends on the new SA and deletes the old one. The responder accepts
on the new SA at once and sends on the old one until it is deleted, so that nothing is sent that the peer cannot take.

When both rekey at once there are two new SAs. The one made with the lowest of the four nonces goes: it is deleted by who
initiated it, and the old SA by the other.
"""

from __future__ import annotations

from ikeway.errors import NegotiationFailed, PeerError, ProtocolViolation
from ikeway.ike import events, lifetimes, negotiation
from ikeway.ike.child import ChildSa, ChildState, Outbound, RekeyByPeer
from ikeway.ike.driver import Answer, Task
from ikeway.ike.exchanges import create_child, delete
from ikeway.ike.exchanges.init import NONCE_OCTETS
from ikeway.ike.negotiation import Nonces
from ikeway.ike.sa import IkeSa, IkeState
from ikeway.wire.message import Message
from ikeway.wire.payloads import Notify
from ikeway.wire.registry import NotifyType

# --- initiator --------------------------------------------------------------------------------------------------------


async def rekey(sa: IkeSa, old: ChildSa) -> None:
    """Replace a child SA by a new one."""
    if old.state is not ChildState.INSTALLED or old not in sa.children:
        return  # the peer was faster, or it is gone
    if old.outbound is not Outbound.INSTALLED:
        # Made by the peer, which may not have our response yet and would not know what we speak of.
        lifetimes.retry_rekey(sa, old)
        return
    old.state = ChildState.REKEYING
    try:
        new, nonces = await _exchange(sa, old)
    except PeerError as error:
        _refused(sa, old, error)
        return
    theirs = old.rekeyed_by_peer
    if new.spi_out in sa.early_deletes:
        await _stillborn(sa, old, new)
    elif theirs is not None and (old.state is ChildState.DELETED or nonces.lowest < theirs.lowest_nonce):
        # Ours is redundant; it was never used. The peer deletes the old one, or has already.
        sa.add_child(new)
        new.successor = theirs.successor
        new.install_inbound()
        await delete.delete_child(sa, new)
        if old.state is ChildState.DELETED:
            lifetimes.linger(sa, old)
    elif old not in sa.children or old.state in (ChildState.DELETED, ChildState.DELETING):
        # The old one is gone already, by the peer's delete or by its hard lifetime.
        _take_over(sa, old, new)
        sa.remove_child(old)
    else:
        _take_over(sa, old, new)
        await delete.delete_child(sa, old)


async def _exchange(sa: IkeSa, old: ChildSa) -> tuple[ChildSa, Nonces]:
    offer, reply, nonces = await create_child.request(sa, old.settings, old)
    try:
        new = negotiation.conclude(sa, offer, reply, nonces, old)
    except PeerError:
        create_child.discard(sa, offer, reply)
        raise
    new.key_exchange = new.suite.key_exchange or old.key_exchange
    return new, nonces


def _take_over(sa: IkeSa, old: ChildSa, new: ChildSa) -> None:
    old.successor = new
    if new not in sa.children:
        sa.add_child(new)
    new.install_inbound()
    new.install_outbound()
    old.remove_outbound()
    sa.announce_child(new, old)


async def _stillborn(sa: IkeSa, old: ChildSa, new: ChildSa) -> None:
    """The peer deleted the new SA before its response reached us: both are gone."""
    sa.early_deletes.discard(new.spi_out)
    sa.shared.esp_spis.discard(new.spi_in)
    if old.announced:
        old.announced = False
        sa.report(events.ChildDown(sa, old, None))
    await delete.delete_child(sa, old)


def _refused(sa: IkeSa, old: ChildSa, error: PeerError) -> None:
    if old.state is ChildState.DELETING:
        sa.remove_child(old)  # the peer deleted it while we waited
    elif old.state is ChildState.DELETED:
        lifetimes.linger(sa, old)
    elif old.state is ChildState.REKEYED:
        return  # the peer's own rekeying goes on
    elif error.notify == NotifyType.CHILD_SA_NOT_FOUND:
        old.state = ChildState.INSTALLED
        settings = old.settings
        sa.remove_child(old, error)
        sa.driver.enqueue(Task("create-child", create_child.create, (settings,)))
    else:
        old.state = ChildState.INSTALLED
        if error.notify != NotifyType.TEMPORARY_FAILURE:
            sa.report(events.ChildFailed(sa, old.settings, error))
        lifetimes.retry_rekey(sa, old)


# --- responder --------------------------------------------------------------------------------------------------------


async def respond(sa: IkeSa, message: Message, notify: Notify) -> Answer:
    """Grant the rekeying of a child SA."""
    create_child.refuse_when_busy(sa)
    if len(notify.spi) != 4:
        raise ProtocolViolation("REKEY_SA without an ESP SPI", notify=NotifyType.INVALID_SYNTAX)
    spi = int.from_bytes(notify.spi, "big")
    old = sa.find_child(spi_out=spi)
    if old is None or (old.state is ChildState.DELETED):
        raise NegotiationFailed(f"no child SA {spi:08x}", notify=NotifyType.CHILD_SA_NOT_FOUND)
    if old.state is ChildState.DELETING or sa.state is IkeState.REKEYING:
        raise NegotiationFailed("the SA is being closed or rekeyed", notify=NotifyType.TEMPORARY_FAILURE)
    nonces = Nonces(create_child.required_nonce(message), sa.shared.random(NONCE_OCTETS))
    try:
        granted = await negotiation.grant(sa, message, nonces, old=old)
    except PeerError as error:
        if error.notify != NotifyType.INVALID_KE_PAYLOAD:
            sa.report(events.Refused(sa.local, sa.remote, error))
        raise
    new = granted.child
    new.key_exchange = new.suite.key_exchange or old.key_exchange
    sa.add_child(new)
    new.install_inbound()
    new.outbound = Outbound.REGISTERED
    old.rekeyed_by_peer = RekeyByPeer(new, nonces.lowest)
    old.state = ChildState.REKEYED
    return Answer(create_child.with_nonce(granted.payloads, nonces.responder))


def finish(sa: IkeSa, old: ChildSa) -> None:
    """The peer's rekeying is final: send on its new SA. Called when the old one is deleted or has expired."""
    theirs = old.rekeyed_by_peer
    if theirs is None or old.successor is not None:
        return
    _take_over(sa, old, theirs.successor)

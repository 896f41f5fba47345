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

from ikeway.errors import Closed, NegotiationFailed, PeerError, ProtocolViolation
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
    sa.add_child(new)
    theirs = old.rekeyed_by_peer
    if theirs is not None and _is_ours_redundant(old, theirs, nonces):
        await _give_way(sa, old, new, theirs)
    else:
        await _prevail(sa, old, new, theirs)


async def _exchange(sa: IkeSa, old: ChildSa) -> tuple[ChildSa, Nonces]:
    old.rekeying = True
    try:
        offer, reply, nonces = await create_child.request(sa, old.settings, old)
    finally:
        old.rekeying = False
    try:
        new = negotiation.conclude(sa, offer, reply, nonces, old)
    except PeerError:
        create_child.discard(sa, offer, reply)
        raise
    new.key_exchange = new.suite.key_exchange or old.key_exchange
    return new, nonces


def _is_ours_redundant(old: ChildSa, theirs: RekeyByPeer, nonces: Nonces) -> bool:
    if old.state is ChildState.DELETED:
        return True  # the peer's rekeying is final
    return theirs.successor.state is not ChildState.DELETING and nonces.lowest < theirs.lowest_nonce


async def _give_way(sa: IkeSa, old: ChildSa, new: ChildSa, theirs: RekeyByPeer) -> None:
    """The new SA goes, unused. The peer deletes the old one, or has already."""
    new.successor = theirs.successor
    _carry_out_deletes(sa, old)
    if create_child.was_deleted_early(sa, new):
        sa.remove_child(new)
        return
    new.install_inbound()
    await delete.delete_child(sa, new)


async def _prevail(sa: IkeSa, old: ChildSa, new: ChildSa, theirs: RekeyByPeer | None) -> None:
    """The new SA stays. We delete the old one; the peer deletes the one that it has made."""
    if theirs is not None and theirs.successor.state is not ChildState.DELETING:
        redundant = theirs.successor
        redundant.state, redundant.outbound, redundant.successor = ChildState.REKEYED, Outbound.NONE, new
    if create_child.was_deleted_early(sa, new):
        old.successor = new
        sa.announce_child(new, old)
        sa.remove_child(new, Closed("the peer deleted the child SA as soon as it was made"))
    else:
        _take_over(sa, old, new)
    _carry_out_deletes(sa, old)
    if old.state is ChildState.DELETING:
        lifetimes.linger(sa, old)  # the peer should not have deleted it, but has
    else:
        await delete.delete_child(sa, old)


def _take_over(sa: IkeSa, old: ChildSa, new: ChildSa) -> None:
    old.successor = new
    new.install_inbound()
    new.install_outbound()
    old.remove_outbound()
    sa.announce_child(new, old)


def _carry_out_deletes(sa: IkeSa, old: ChildSa) -> None:
    """Our exchange is over: what the peer has deleted meanwhile can go (see `delete`)."""
    theirs = old.rekeyed_by_peer
    if theirs is not None and theirs.successor.state is ChildState.DELETING:
        old.rekeyed_by_peer = None
        if theirs.successor.outbound is Outbound.INSTALLED:
            sa.remove_child(theirs.successor, Closed("the peer deleted the child SA"))
        else:
            lifetimes.linger(sa, theirs.successor)
    if old.state is ChildState.DELETED and old in sa.children:
        lifetimes.linger(sa, old)


def _refused(sa: IkeSa, old: ChildSa, error: PeerError) -> None:
    _carry_out_deletes(sa, old)
    if old.state is ChildState.DELETING:
        sa.remove_child(old, Closed("the peer deleted the child SA"))
    elif old.state in (ChildState.REKEYED, ChildState.DELETED):
        return  # the peer's own rekeying goes on, or is final
    elif error.notify == NotifyType.CHILD_SA_NOT_FOUND and not lifetimes.may_be_unheard_of(sa, old):
        old.state = ChildState.INSTALLED
        settings = old.settings
        sa.remove_child(old, error)
        sa.driver.enqueue(Task("create-child", create_child.create, (settings,)))
    else:
        old.state = ChildState.INSTALLED
        if error.notify not in (NotifyType.TEMPORARY_FAILURE, NotifyType.CHILD_SA_NOT_FOUND):
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
    _refuse_in_motion(sa, old)
    nonces = Nonces(create_child.required_nonce(message), sa.shared.random(NONCE_OCTETS))
    try:
        granted = await negotiation.grant(sa, message, nonces, old=old)
    except PeerError as error:
        if error.notify != NotifyType.INVALID_KE_PAYLOAD:
            sa.report(events.Refused(sa.local, sa.remote, error))
        raise
    new = granted.child
    try:
        _refuse_in_motion(sa, old)  # granting may have taken its time
    except PeerError:
        sa.shared.esp_spis.discard(new.spi_in)
        raise
    new.key_exchange = new.suite.key_exchange or old.key_exchange
    sa.add_child(new)
    new.install_inbound()
    new.outbound = Outbound.REGISTERED
    old.rekeyed_by_peer = RekeyByPeer(new, nonces.lowest)
    old.state = ChildState.REKEYED
    return Answer(create_child.with_nonce(granted.payloads, nonces.responder))


def _refuse_in_motion(sa: IkeSa, old: ChildSa) -> None:
    """Refuse for now what section 2.25 says (and a second rekeying before the first one is over)."""
    if old.state not in (ChildState.INSTALLED, ChildState.REKEYING) or old.rekeyed_by_peer is not None:
        raise NegotiationFailed("the child SA is being closed or rekeyed", notify=NotifyType.TEMPORARY_FAILURE)
    if sa.state is IkeState.REKEYING:
        raise NegotiationFailed("the IKE SA is being rekeyed", notify=NotifyType.TEMPORARY_FAILURE)


def finish(sa: IkeSa, old: ChildSa) -> None:
    """The peer's rekeying is final: send on its new SA. Called when the old one is deleted or has expired."""
    theirs = old.rekeyed_by_peer
    if theirs is None or old.successor is not None:
        return
    _take_over(sa, old, theirs.successor)

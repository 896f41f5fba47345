"""INFORMATIONAL that deletes SAs (RFC 7296 sections 1.4.1 and 2.25).

    HDR, SK {D}  -->
                 <--  HDR, SK {D}

A child SA's delete is answered with the delete of the other direction, an IKE SA's with nothing.
"""

from __future__ import annotations

from ikeway.errors import Closed, IkewayError, PeerError
from ikeway.ike import inheritance, lifetimes
from ikeway.ike.child import ChildSa, ChildState
from ikeway.ike.driver import Answer, Task
from ikeway.ike.sa import IkeSa, IkeState
from ikeway.wire.payloads import Delete, Payload
from ikeway.wire.registry import ExchangeType, ProtocolId

INFORMATIONAL = ExchangeType.INFORMATIONAL
MAX_EARLY_DELETES = 64


# --- initiator: IKE SA ------------------------------------------------------------------------------------------------


def close(sa: IkeSa, error: IkewayError | None = None) -> None:
    """Close the IKE SA: tell the peer, wait for its answer, end in any case."""
    if sa.state in (IkeState.DELETING, IkeState.CLOSED):
        return
    if sa.state is IkeState.CONNECTING:
        sa.terminate(error)
        return
    sa.driver.forget_queue()
    sa.driver.enqueue(Task("delete-ike", _delete_ike, (error,), exclusive=False), first=True)


async def _delete_ike(sa: IkeSa, error: IkewayError | None) -> None:
    sa.state = IkeState.DELETING
    await exchange(sa)
    sa.terminate(error)


async def exchange(sa: IkeSa) -> None:
    """The exchange itself."""
    await sa.request(INFORMATIONAL, (Delete(ProtocolId.IKE),))


def close_redundant(sa: IkeSa) -> None:
    """Delete an IKE SA that lost a collision; nobody is told."""
    sa.driver.enqueue(Task("delete-ike", _delete_redundant), first=True)


async def _delete_redundant(sa: IkeSa) -> None:
    for child in sa.children:
        child.announced = False  # its successor has been told of
    sa.state = IkeState.DELETING
    await exchange(sa)
    sa.terminate(None, replaced=True)


def close_replaced(sa: IkeSa, now: float) -> None:
    """Delete an IKE SA that was reauthenticated, or what rekeying has made of it meanwhile."""
    sa = sa.latest
    sa.now = max(sa.now, now)
    if sa.is_alive:
        close_redundant(sa)


# --- initiator: child SA ----------------------------------------------------------------------------------------------


async def delete_child(sa: IkeSa, child: ChildSa, error: IkewayError | None = None) -> None:
    """Delete a child SA; a replaced one lingers for packets on their way. `error` is why, where nobody wished it."""
    if _is_replaced_by_peer(child):
        assert child.rekeyed_by_peer is not None
        child = child.rekeyed_by_peer.successor  # the peer deletes the old one itself; unwanted is what it became
    if child not in sa.children or child.state in (ChildState.DELETING, ChildState.DELETED):
        return
    _let_go_of_predecessor(sa, child)
    child.state = ChildState.DELETING
    try:
        await sa.request(INFORMATIONAL, (Delete(ProtocolId.ESP, (child.spi_in_octets,)),))
    except PeerError:
        sa.remove_child(child, error)
        return
    if child.successor is not None:
        lifetimes.linger(sa, child)
    else:
        sa.remove_child(child, error)


def _let_go_of_predecessor(sa: IkeSa, child: ChildSa) -> None:
    """A child SA that is deleted while the one it replaces still sends: it takes over first, then both go."""
    old = _predecessor(sa, child)
    if old is not None and child.successor is None:
        _finish_rekeying(sa, old)


async def delete_spi_task(sa: IkeSa, spi_in: int) -> None:
    """Delete a child SA that the peer believes in and we do not have."""
    await sa.request(INFORMATIONAL, (Delete(ProtocolId.ESP, (spi_in.to_bytes(4, "big"),)),))


def delete_spi(sa: IkeSa, spi_in: int) -> None:
    """Queue the above."""
    sa.driver.enqueue(Task("delete-spi", delete_spi_task, (spi_in,), again=True))


def expire_child(sa: IkeSa, child: ChildSa) -> None:
    """A child SA reached a hard lifetime."""
    if child not in sa.children or child.state is ChildState.DELETED:
        return
    if _is_replaced_by_peer(child):
        _let_expire(sa, child)
        return
    child.remove_outbound()
    child.remove_inbound()
    sa.driver.enqueue(Task("delete-child", _delete_expired, (child,)))


async def _delete_expired(sa: IkeSa, child: ChildSa) -> None:
    if _is_replaced_by_peer(child):
        _let_expire(sa, child)
    else:
        await delete_child(sa, child, Closed("the child SA reached its hard limit before it was rekeyed"))


def _is_replaced_by_peer(child: ChildSa) -> bool:
    return child.state is ChildState.REKEYED and child.rekeyed_by_peer is not None and child.successor is None


def _let_expire(sa: IkeSa, child: ChildSa) -> None:
    """The peer deletes it anyway; a delete of ours could cross its response (section 2.8)."""
    _finish_rekeying(sa, child)
    sa.remove_child(child)


# --- responder --------------------------------------------------------------------------------------------------------


def on_delete(sa: IkeSa, payloads: list[Delete]) -> Answer:
    """The peer deletes the IKE SA, or child SAs."""
    if any(payload.protocol == ProtocolId.IKE for payload in payloads):
        return _on_delete_ike(sa)
    answered: list[bytes] = []
    for payload in payloads:
        if payload.protocol == ProtocolId.ESP:
            answered += [spi for octets in payload.spis if (spi := _on_delete_child(sa, octets)) is not None]
    reply: tuple[Payload, ...] = (Delete(ProtocolId.ESP, tuple(answered)),) if answered else ()
    return Answer(reply)


def _on_delete_ike(sa: IkeSa) -> Answer:
    ours = sa.state is IkeState.DELETING
    if sa.rekeyed_by_peer is not None:
        # The peer's rekeying was final before it heard of ours.
        new, _ = sa.rekeyed_by_peer
        sa.rekeyed_by_peer = None
        inheritance.take_over(sa, new)
        inheritance.hand_over(sa, new)
    error = None if ours else Closed("the peer closed the connection")
    return Answer((), lambda: sa.terminate(error))


def _on_delete_child(sa: IkeSa, spi_octets: bytes) -> bytes | None:
    """Returns our SPI for the answer, None where there is nothing to say (section 2.25.1)."""
    if len(spi_octets) != 4:
        return None
    spi_out = int.from_bytes(spi_octets, "big")
    child = sa.find_child(spi_out=spi_out)
    if child is None:
        if sa.makings and len(sa.early_deletes) < MAX_EARLY_DELETES:
            sa.early_deletes.add(spi_out)  # perhaps of an SA whose making we have not heard of yet
        return None
    if child.state is ChildState.DELETED:
        return None
    if child.state is ChildState.DELETING:
        child.remove_outbound()  # both deleted it at once; our own exchange ends the rest
        return None
    predecessor = _predecessor(sa, child)
    if child.rekeying:
        _delete_before_response(sa, child)
    elif child.rekeyed_by_peer is not None:
        _finish_rekeying(sa, child)
        lifetimes.linger(sa, child)
    elif predecessor is not None and predecessor.rekeying:
        # Redundant in the peer's eyes, or unwanted: which of them we know with the response to our own rekeying.
        child.state = ChildState.DELETING
        if predecessor.state is ChildState.REKEYED:
            predecessor.state = ChildState.REKEYING
    elif child.successor is not None:
        lifetimes.linger(sa, child)  # the peer's SA of a collision that ours has won
    else:
        if predecessor is not None and predecessor.state is ChildState.REKEYED:
            predecessor.state, predecessor.rekeyed_by_peer = ChildState.INSTALLED, None  # as if never rekeyed
        sa.remove_child(child, Closed("the peer deleted the child SA"))
    return child.spi_in_octets


def _delete_before_response(sa: IkeSa, child: ChildSa) -> None:
    """The peer deletes a child SA whose rekeying by us it may not have answered yet: our own exchange ends the rest."""
    theirs = child.rekeyed_by_peer
    if theirs is None or theirs.successor.state is ChildState.DELETING:
        child.state = ChildState.DELETING
        return
    _finish_rekeying(sa, child)
    child.state = ChildState.DELETED


def _finish_rekeying(sa: IkeSa, old: ChildSa) -> None:
    """The peer's rekeying is final. Rekeying ends with deletes, so this file knows it late."""
    from ikeway.ike.exchanges import rekey_child

    rekey_child.finish(sa, old)


def _predecessor(sa: IkeSa, child: ChildSa) -> ChildSa | None:
    """What the peer has replaced by this child SA."""
    for old in sa.children:
        if old.rekeyed_by_peer is not None and old.rekeyed_by_peer.successor is child:
            return old
    return None

"""What an IKE SA takes over from the one that it replaces (RFC 7296 section 2.18): what is known of the peer, the child SAs,
their clocks, and what is still to be done. Its message windows begin anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ikeway.ike import events, lifetimes

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa

_INHERITED = (
    "local_identity",
    "remote_identity",
    "eap_identity",
    "proofs",
    "peer_certificate",
    "peer",
    "mobike",
    "is_mobike_initiator",
    "peer_addresses",
    "nat",
    "pretends_nat",
    "udp_encapsulation",
    "configuration",
    "preferred_method",
)
_INHERITED_BY_CHANNEL = ("local", "remote", "accept_fragments", "fragment_octets", "own_fragmentation", "window")


def inherit(new: IkeSa, old: IkeSa) -> None:
    """Let the new IKE SA know what the old one knows."""
    for name in _INHERITED:
        setattr(new, name, getattr(old, name))
    new.untried_addresses = list(old.peer_addresses)
    for name in _INHERITED_BY_CHANNEL:
        setattr(new.channel, name, getattr(old.channel, name))


def register(sa: IkeSa) -> None:
    """From now on messages reach it."""
    sa.shared.table[sa.spi] = sa


def take_over(old: IkeSa, new: IkeSa) -> None:
    """Child SAs and clocks go from the old IKE SA to the new one. `hand_over` is to follow."""
    inherit(new, old)  # once more: it may have moved while a collision was not decided
    register(new)
    if old.predecessor is not None:
        old.predecessor.now = old.now
        old.predecessor.terminate(None)  # the peer has heard of what came after it
    old.successor, new.predecessor = new, old
    new.establish()
    lifetimes.adopt(new, old)
    for child in old.children:
        child.sa = new
    new.children, old.children = old.children, []
    new.report(events.IkeRekeyed(new, old))


def hand_over(old: IkeSa, new: IkeSa) -> None:
    """What the old IKE SA was to do is done on the new one. Not before our response is on its way: with it the peer hears
    of the new one."""
    for task in old.driver.unfinished():
        new.driver.enqueue(task)

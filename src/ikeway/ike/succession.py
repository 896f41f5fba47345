"""A log-in anew beside the old one (RFC 7296 section 2.8.3): from when its responder sends on the new child SA.

What it sent at once could overtake its own IKE_AUTH response, and find no SA at the initiator. So it goes on with the
old child SA until the initiator, which has the new one by then, deletes the old.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ikeway.ike.child import ChildSa, Outbound

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa

SECONDS = 3.0  # for an initiator that has lost the old SA and does not say so (INITIAL_CONTACT)
TIMER = "child-succeed"


def install(sa: IkeSa, child: ChildSa) -> None:
    """Install the responder's first child SA: the outbound half later, where an older log-in carries the same."""
    sa.add_child(child)
    child.install_inbound()
    if _is_carried(sa, child):
        child.outbound = Outbound.REGISTERED
        sa.timers.set((TIMER, child), sa.now + SECONDS)
    else:
        child.install_outbound()
    sa.announce_child(child)


def _is_carried(sa: IkeSa, child: ChildSa) -> bool:
    return any(
        old.outbound is Outbound.INSTALLED and set(old.remote_selectors) & set(child.remote_selectors)
        for other in sa.shared.namesakes(sa)
        if other is not sa
        for old in other.children
    )


def take_over(sa: IkeSa, child: ChildSa) -> None:
    """Send on it, if that was still to come."""
    sa.timers.cancel((TIMER, child))
    if child.outbound is Outbound.REGISTERED:
        child.install_outbound()


def make_way(old: IkeSa) -> None:
    """An IKE SA is about to end: what waits for that takes over first."""
    for sa in old.shared.namesakes(old):
        for child in sa.children:
            if sa is not old and (TIMER, child) in sa.timers:
                take_over(sa, child)

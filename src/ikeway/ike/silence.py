"""Why a peer that does not answer may not do so, by how far it has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ikeway.errors import PeerUnreachable

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa


def unanswered(sa: IkeSa) -> PeerUnreachable:
    """All retransmissions of a request are over."""
    waited = sa.now - (sa.created if not sa.established else sa.last_received)
    if sa.established:
        return PeerUnreachable(
            f"the peer at {sa.remote} has not answered for {waited:.0f} s",
            remedy="see whether the peer is up and the network between lets UDP pass",
        )
    if sa.channel.protection is None:
        return PeerUnreachable(
            f"nothing at {sa.remote} answered IKE_SA_INIT in {waited:.0f} s",
            remedy=f"see whether the address is right and UDP port {sa.remote.port} is open all the way",
        )
    return PeerUnreachable(
        f"{sa.remote.host} answered IKE_SA_INIT, and then {sa.remote} nothing for {waited:.0f} s",
        remedy=f"see whether UDP port {sa.remote.port} is open and large packets (fragments) pass",
    )

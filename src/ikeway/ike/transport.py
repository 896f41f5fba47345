"""Traffic selectors in transport mode (RFC 7296 section 2.23.1): the outer addresses of the two hosts.

A host behind a NAT knows itself by another address than its peer does. So each puts the addresses that it sees in the
place of those that the peer says.
"""

from __future__ import annotations

import dataclasses
import ipaddress

from ikeway.ike import selectors
from ikeway.ike.sa import IkeSa
from ikeway.ike.selectors import Selectors


def outer_selectors(sa: IkeSa) -> tuple[Selectors, Selectors]:
    """Ours and the peer's, as we see them."""
    return (selectors.selector(sa.local.host),), (selectors.selector(sa.remote.host),)


def as_seen_here(sa: IkeSa, local: Selectors, remote: Selectors) -> tuple[Selectors, Selectors]:
    """Selectors of the peer's for our side and its own, with the address of who is behind a NAT replaced by the one that
    we know it by."""
    if sa.nat.self_behind_nat:
        local = _with_address(local, sa.local.host)
    if sa.nat.peer_behind_nat:
        remote = _with_address(remote, sa.remote.host)
    return local, remote


def _with_address(found: Selectors, host: str) -> Selectors:
    """Single addresses of this family replaced; what else a peer says stays for the configuration to judge."""
    packed = ipaddress.ip_address(host).packed
    return tuple(
        dataclasses.replace(ts, start_address=packed, end_address=packed)
        if ts.start_address == ts.end_address and len(ts.start_address) == len(packed)
        else ts
        for ts in found
    )

"""Who is connected to a gateway: what an operator sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ikeway.address import Address
from ikeway.dataplane.interface import Counters
from ikeway.gateway.pools import Lease
from ikeway.ike.selectors import format_selector

if TYPE_CHECKING:
    from ikeway.ike.child import ChildSa
    from ikeway.ike.sa import IkeSa


@dataclass(frozen=True, slots=True)
class ChildReport:
    """One child SA. Octets and packets are those within the tunnel; `dropped` counts packets by reason."""

    name: str
    spi_in: int
    spi_out: int
    suite: str
    local: tuple[str, ...]
    remote: tuple[str, ...]
    packets_in: int
    octets_in: int
    packets_out: int
    octets_out: int
    dropped: dict[str, int]


@dataclass(frozen=True, slots=True)
class Session:
    """One client. `since` is on the clock `ikeway.daemon.clock.now`."""

    connection_id: int
    connection: str
    user: str
    identity: str
    remote: Address
    addresses: tuple[str, ...]
    since: float
    suite: str
    behind_nat: bool
    mobike: bool
    children: tuple[ChildReport, ...]


def session_of(sa: IkeSa, leases: Iterable[Lease], counters: Mapping[tuple[int, bool], Counters]) -> Session:
    """What there is to tell of an IKE SA."""
    user = sa.eap_identity.decode(errors="replace") if sa.eap_identity is not None else ""
    return Session(
        connection_id=sa.connection_id,
        connection=sa.name,
        user=user,
        identity=str(sa.remote_identity),
        remote=sa.remote,
        addresses=tuple(str(lease.address) for lease in leases),
        since=sa.created,
        suite=str(sa.suite),
        behind_nat=sa.nat.peer_behind_nat,
        mobike=sa.mobike,
        children=tuple(report_of(child, counters) for child in sa.live_children),
    )


def report_of(child: ChildSa, counters: Mapping[tuple[int, bool], Counters]) -> ChildReport:
    """What there is to tell of a child SA."""
    inbound = counters.get((child.spi_in, True), Counters())
    outbound = counters.get((child.spi_out, False), Counters())
    reasons = {*inbound.dropped, *outbound.dropped}
    return ChildReport(
        name=child.name,
        spi_in=child.spi_in,
        spi_out=child.spi_out,
        suite=str(child.suite),
        local=tuple(map(format_selector, child.local_selectors)),
        remote=tuple(map(format_selector, child.remote_selectors)),
        packets_in=inbound.packets,
        octets_in=inbound.octets,
        packets_out=outbound.packets,
        octets_out=outbound.octets,
        dropped={str(reason): inbound.dropped.get(reason, 0) + outbound.dropped.get(reason, 0) for reason in reasons},
    )

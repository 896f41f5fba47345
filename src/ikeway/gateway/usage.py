"""What each connection has carried in all, over the child SAs that come and go with its keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ikeway.daemon.status import CountersBySa
from ikeway.dataplane.interface import SaEnded

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa


@dataclass(slots=True)
class Usage:
    """Packets and octets (inner), from the client (`in`) and to it (`out`). `last_used`: as in `Counters`."""

    packets_in: int = 0
    octets_in: int = 0
    packets_out: int = 0
    octets_out: int = 0
    last_used: float = 0.0

    def add(self, packets: int, octets: int, last_used: float, *, inbound: bool) -> None:
        """Add what one SA has carried."""
        if inbound:
            self.packets_in += packets
            self.octets_in += octets
        else:
            self.packets_out += packets
            self.octets_out += octets
        self.last_used = max(self.last_used, last_used)


class UsageBook:
    """Remembers SAs that have ended, as long as their connection stands."""

    def __init__(self) -> None:
        self._ended: dict[int, Usage] = {}

    def open(self, connection_id: int) -> None:
        """A connection stands. One that stood already goes on."""
        self._ended.setdefault(connection_id, Usage())

    def close(self, connection_id: int) -> None:
        """It is gone."""
        self._ended.pop(connection_id, None)

    def note(self, ended: SaEnded) -> None:
        """An SA has ended."""
        usage = self._ended.get(ended.connection_id)
        if usage is not None:
            usage.add(ended.packets, ended.octets, ended.last_used, inbound=ended.inbound)

    def ended(self, connection_id: int) -> Usage:
        """What SAs of it have carried that are no more: all, when the connection has ended."""
        usage = self._ended.get(connection_id, Usage())
        return Usage(usage.packets_in, usage.octets_in, usage.packets_out, usage.octets_out, usage.last_used)

    def total(self, sa: IkeSa, counters: CountersBySa) -> Usage:
        """All that it has carried so far; `counters` are of the SAs of now."""
        usage = self.ended(sa.connection_id)
        for child in sa.children:
            for key in ((child.spi_in, True), (child.spi_out, False)):
                if key in counters:
                    found = counters[key]
                    usage.add(found.packets, found.octets, found.last_used, inbound=key[1])
        return usage

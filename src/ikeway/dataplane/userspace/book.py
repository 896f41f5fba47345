"""What the daemon remembers of the SAs that its worker holds, so that another worker can go on with them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from ikeway.address import Address
from ikeway.dataplane.interface import SaEnded
from ikeway.dataplane.userspace.ledger import MARGIN, Ledger
from ikeway.dataplane.userspace.messages import AddInbound, AddOutbound, CounterEntry, DropCount, Past
from ikeway.dataplane.userspace.sockets import canonical, with_canonical_addresses
from ikeway.esp.parameters import Encapsulation, EspSa
from ikeway.esp.sequence import LAST_EXTENDED, LAST_SHORT


@dataclass(slots=True, eq=False)
class Installed:
    """One SA. `past` is where the worker of now has begun with it."""

    sa: EspSa
    inbound: bool
    past: Past
    dropped: tuple[DropCount, ...] = field(default=())  # as last read; the ledger has no room for it

    def added_by(self, request: int) -> AddInbound | AddOutbound:
        """The request that installs it."""
        return (AddInbound if self.inbound else AddOutbound)(request, self.sa, self.past)


class Book:
    """All of them. Slots of the ledger are claimed here; they are free again when the worker is known to have let
    go of them (`free`)."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._inbound: dict[int, Installed] = {}
        self._outbound: dict[int, list[Installed]] = {}  # several peers may have chosen the same SPI
        self._connections: dict[int, list[Installed]] = {}
        self._all: dict[Installed, None] = {}  # in the order in which they were added

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Installed]:
        """Each, the newest last: a child sends on its newest SA."""
        return iter(self._all)

    def add_inbound(self, sa: EspSa) -> Installed:
        """Note an inbound SA. One with the same SPI gives way; its slot is not used again."""
        installed = Installed(with_canonical_addresses(sa), True, Past(self._ledger.claim(0)))
        self._forget([self._inbound[sa.spi]] if sa.spi in self._inbound else [])
        self._inbound[sa.spi] = installed
        return self._remember(installed)

    def add_outbound(self, sa: EspSa) -> Installed:
        """Note an outbound SA, with the base of its IVs, which it keeps."""
        iv_base = int.from_bytes(os.urandom(8), "big")
        installed = Installed(with_canonical_addresses(sa), False, Past(self._ledger.claim(MARGIN), iv_base=iv_base))
        self._outbound.setdefault(sa.spi, []).append(installed)
        return self._remember(installed)

    def take_inbound(self, spi: int) -> list[Installed]:
        """Forget an inbound SA; what was there."""
        return self._forget([self._inbound[spi]] if spi in self._inbound else [])

    def take_outbound(self, spi: int, remote: Address) -> list[Installed]:
        """Forget an outbound SA; what was there. See `holds_outbound`."""
        return self._forget(self._matching(spi, remote))

    def take(self, installed: Installed) -> None:
        """Forget one that the worker did not take."""
        if installed in self._all:
            self._forget([installed])

    def holds_outbound(self, spi: int, remote: Address) -> int:
        """2: there is an SA with this SPI to that address; 1: to that host (the port may have changed); 0: none."""
        found = self._matching(spi, remote)
        return 0 if not found else 2 if found[0].sa.remote == canonical(remote) else 1

    def holds_connection(self, connection_id: int) -> bool:
        """True when there is an SA of this connection."""
        return connection_id in self._connections

    def move(self, connection_id: int, local: Address, remote: Address, udp: bool) -> list[tuple[Installed, EspSa]]:
        """Give all SAs of a connection other outer addresses; what they were before."""
        encapsulation = Encapsulation.UDP if udp else Encapsulation.ESP
        before = [(each, each.sa) for each in self._connections.get(connection_id, ())]
        for each, sa in before:
            each.sa = with_canonical_addresses(replace(sa, local=local, remote=remote, encapsulation=encapsulation))
        return before

    def move_back(self, before: Iterable[tuple[Installed, EspSa]]) -> None:
        """The worker did not take a move."""
        for each, sa in before:
            each.sa = sa

    def free(self, gone: Iterable[Installed]) -> None:
        """The worker writes no more into the slots of these."""
        for each in gone:
            self._ledger.free(each.past.slot)

    def last_words(self, gone: Installed) -> SaEnded:
        """What an SA has carried that the worker has let go of: it writes into the ledger after each batch."""
        entry = self._ledger.read(gone.past.slot)
        return SaEnded(gone.sa.connection_id, gone.inbound, entry.packets, entry.octets, entry.last_used)

    def clear(self) -> None:
        """Forget all; the worker is dead."""
        self.free(self._forget(list(self._all)))

    def note(self, entries: Iterable[CounterEntry]) -> None:
        """Remember the drops that the worker counts: nothing else does."""
        for entry in entries:
            if not entry.dropped:
                continue
            if entry.inbound and entry.spi in self._inbound:
                self._inbound[entry.spi].dropped = entry.dropped
            elif not entry.inbound and len(self._outbound.get(entry.spi, ())) == 1:
                self._outbound[entry.spi][0].dropped = entry.dropped

    def turn_the_page(self) -> None:
        """The worker is dead: let every SA go on from what the ledger says."""
        for each in self:
            entry = self._ledger.read(each.past.slot)
            mark = entry.mark
            if not each.inbound:
                esn = each.sa.transforms.extended_sequence_numbers
                mark = min(mark, LAST_EXTENDED if esn else LAST_SHORT)
                self._ledger.reserve(each.past.slot, min(mark + MARGIN, LAST_EXTENDED))
            each.past = replace(
                each.past,
                mark=mark,
                packets=entry.packets,
                octets=entry.octets,
                last_used=entry.last_used,
                dropped=each.dropped,
            )

    def _matching(self, spi: int, remote: Address) -> list[Installed]:
        remote = canonical(remote)
        found = self._outbound.get(spi, [])
        exact = [each for each in found if each.sa.remote == remote]
        return exact or [each for each in found if each.sa.remote.host == remote.host]

    def _remember(self, installed: Installed) -> Installed:
        self._connections.setdefault(installed.sa.connection_id, []).append(installed)
        self._all[installed] = None
        return installed

    def _forget(self, gone: list[Installed]) -> list[Installed]:
        for each in gone:
            del self._all[each]
            if each.inbound:
                del self._inbound[each.sa.spi]
            else:
                _remove(self._outbound, each.sa.spi, each)
            _remove(self._connections, each.sa.connection_id, each)
        return gone


def _remove(groups: dict[int, list[Installed]], key: int, installed: Installed) -> None:
    groups[key].remove(installed)
    if not groups[key]:
        del groups[key]

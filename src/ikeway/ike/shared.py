"""What the IKE SAs of one engine share: the way out, the events, the random source, the table of SPIs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ikeway.address import Address
from ikeway.ike.channel import Datagram
from ikeway.ike.events import Event
from ikeway.ike.settings import Connection, EngineSettings

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa

RESERVED_SPIS = 255  # RFC 4303 section 2.1


class Shared:
    """State that outlives every single IKE SA of an engine."""

    def __init__(self, settings: EngineSettings, random: Callable[[int], bytes]) -> None:
        self.settings = settings
        self.random = random
        self.outbox: deque[Datagram] = deque()
        self.event_queue: deque[Event] = deque()
        self.table: dict[bytes, IkeSa] = {}  # by our own SPI
        self.esp_spis: set[int] = set()
        self._namesakes: dict[Hashable, list[IkeSa]] = {}  # the established ones, by connection and who they are with
        # Set by the engine: look at an SA's deadline again; begin a new IKE SA (to reauthenticate the given one).
        self.wake: Callable[[IkeSa], None] = lambda sa: None
        self.connect: Callable[[Connection, Address, Address, float, IkeSa | None], IkeSa]
        self._connection_id = 0
        self._child_id = 0

    def report(self, event: Event) -> None:
        """Queue an event for the outside."""
        self.event_queue.append(event)

    def transmit(self, datagram: Datagram) -> None:
        """Queue a datagram for the outside."""
        self.outbox.append(datagram)

    def established(self, sa: IkeSa) -> None:
        """Find this SA by `namesakes` from now on."""
        self._namesakes.setdefault(_names(sa), []).append(sa)

    def ended(self, sa: IkeSa) -> None:
        """Find it no longer. Unknown: no error."""
        known = self._namesakes.get(names := _names(sa), [])
        if sa in known:
            known.remove(sa)
            if not known:
                del self._namesakes[names]

    def namesakes(self, sa: IkeSa) -> tuple[IkeSa, ...]:
        """The established SAs of the same connection between the same identities, this one among them."""
        return tuple(self._namesakes.get(_names(sa), ()))

    def utc(self, now: float) -> datetime:
        """Wall-clock time at `now`."""
        return self.settings.epoch + timedelta(seconds=now)

    def new_connection_id(self) -> int:
        """A number for a connection, across its rekeyings."""
        self._connection_id += 1
        return self._connection_id

    def new_child_id(self) -> int:
        """A number for a child SA, across its rekeyings."""
        self._child_id += 1
        return self._child_id

    def new_ike_spi(self) -> bytes:
        """An SPI for an IKE SA that is not in use (RFC 7296 section 2.6)."""
        while True:
            spi = self.random(8)
            if spi not in self.table and any(spi):
                return spi

    def new_esp_spi(self, sa: IkeSa) -> int:
        """An inbound ESP SPI that is not in use, with the bits that say who serves this IKE SA."""
        mask, value = self.settings.steer(sa)
        while True:
            spi = int.from_bytes(self.random(4), "big") & ~mask | value
            if spi > RESERVED_SPIS and spi not in self.esp_spis:
                self.esp_spis.add(spi)
                return spi

    def uniform(self) -> float:
        """A random number in [0, 1)."""
        return int.from_bytes(self.random(4), "big") / 2**32


def _names(sa: IkeSa) -> Hashable:
    return sa.name, sa.local_identity, sa.remote_identity, sa.eap_identity

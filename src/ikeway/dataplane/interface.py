"""What the daemon needs of a data plane, whichever it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ikeway.address import Address
from ikeway.esp.parameters import EspSa


@dataclass(frozen=True, slots=True)
class SoftExpired:
    """A soft limit of bytes or packets (or the sequence numbers running out) was reached: rekey. `spi` inbound or
    outbound as `inbound` says."""

    spi: int
    inbound: bool


@dataclass(frozen=True, slots=True)
class HardExpired:
    """A hard limit was reached; the SA carries nothing any more."""

    spi: int
    inbound: bool


@dataclass(frozen=True, slots=True)
class PeerMoved:
    """Authenticated traffic on inbound SA `spi` came from another outer address (RFC 7296 section 2.23)."""

    spi: int
    remote: Address


@dataclass(frozen=True, slots=True)
class IkeReceived:
    """An IKE message (non-ESP marker removed) that came in on a socket which the data plane reads."""

    octets: bytes
    local: Address
    remote: Address


@dataclass(frozen=True, slots=True)
class UnknownSpi:
    """An ESP packet for an SPI that we do not have. Rate-limited."""

    spi: int
    remote: Address


@dataclass(frozen=True, slots=True)
class Unreachable:
    """ICMP said that what we sent to `remote` was not delivered; `code` is the errno. Unauthenticated: a hint only.
    Rate-limited."""

    remote: Address
    code: int


@dataclass(frozen=True, slots=True)
class DataPlaneRestarted:
    """A worker died, as `reason` says; another one goes on with its SAs. What was under way just then is lost."""

    reason: str
    worker: int = 0


@dataclass(frozen=True, slots=True)
class DataPlaneDied:
    """A worker is gone for good; `reason` says how, `repeatedly` that it has died again and again. Its SAs carry nothing
    any more, and the data plane has forgotten them."""

    reason: str
    worker: int = 0
    repeatedly: bool = False


@dataclass(frozen=True, slots=True)
class SaEnded:
    """An SA was removed at our wish; so much it has carried in all. Told before `remove_*` returns."""

    connection_id: int
    inbound: bool
    packets: int
    octets: int
    last_used: float  # as in `Counters`


DataPlaneEvent = (
    SoftExpired
    | HardExpired
    | PeerMoved
    | IkeReceived
    | UnknownSpi
    | Unreachable
    | DataPlaneRestarted
    | DataPlaneDied
    | SaEnded
)


@dataclass(slots=True)
class Counters:
    """Packets and octets (inner) of one SA, what was dropped by reason, and when traffic last passed.

    `last_used` is on the clock of `time.clock_gettime(CLOCK_BOOTTIME)`, 0.0 for never.
    """

    packets: int = 0
    octets: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    last_used: float = 0.0

    def add(self, other: Counters) -> None:
        """Sum up."""
        self.packets += other.packets
        self.octets += other.octets
        self.last_used = max(self.last_used, other.last_used)
        for reason, count in other.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count


class DataPlane(Protocol):
    """Owns the child SAs. Methods are called from the daemon's event loop.

    `add_*` return when the SA carries traffic. Errors are `HostError`.
    """

    async def start(self, on_event: Callable[[DataPlaneEvent], None]) -> None:
        """Start the worker. Events are delivered on the running event loop."""
        ...

    async def stop(self) -> None:
        """Stop it and give back everything. Idempotent."""
        ...

    async def add_inbound(self, sa: EspSa) -> None:
        """Begin to accept ESP on `sa.spi`."""
        ...

    async def add_outbound(self, sa: EspSa) -> None:
        """Begin to send on `sa`. It takes precedence over older outbound SAs of the same `child_id`."""
        ...

    async def remove_inbound(self, spi: int) -> None:
        """Stop accepting ESP on `spi`. Unknown: no error."""
        ...

    async def remove_outbound(self, spi: int, remote: Address) -> None:
        """Stop sending on `spi`. Unknown: no error."""
        ...

    async def move(self, connection_id: int, local: Address, remote: Address, udp: bool) -> None:
        """Give all SAs of a connection new outer addresses, and UDP encapsulation or none (MOBIKE, NAT mappings)."""
        ...

    async def counters(self) -> dict[tuple[int, bool], Counters]:
        """Counters of all SAs by (spi, inbound), and under (0, True)/(0, False) what belongs to no SA."""
        ...

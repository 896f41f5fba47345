"""A data plane that carries nothing: stand-in peers agree on child SAs, and what is sent on them is dropped."""

from __future__ import annotations

from collections.abc import Callable

from ikeway.address import Address
from ikeway.dataplane.interface import Counters, DataPlaneEvent
from ikeway.esp.parameters import EspSa


class QuietDataPlane:
    """Takes every SA, and needs no rights."""

    async def start(self, on_event: Callable[[DataPlaneEvent], None]) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""

    async def add_inbound(self, sa: EspSa) -> None:
        """Take it."""

    async def add_outbound(self, sa: EspSa) -> None:
        """Take it."""

    async def remove_inbound(self, spi: int) -> None:
        """Forget it."""

    async def remove_outbound(self, spi: int, remote: Address) -> None:
        """Forget it."""

    async def move(self, connection_id: int, local: Address, remote: Address, udp: bool) -> None:
        """Take note of nothing."""

    async def counters(self) -> dict[tuple[int, bool], Counters]:
        """None."""
        return {}

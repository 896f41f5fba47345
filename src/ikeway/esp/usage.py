"""What one SA has carried and dropped."""

from __future__ import annotations

from dataclasses import dataclass, field

from ikeway.esp.drops import Drop


@dataclass(slots=True)
class Usage:
    """Packets and octets (inner), what was dropped by reason, and when traffic last passed (0.0: never)."""

    packets: int = 0
    octets: int = 0
    dropped: dict[Drop, int] = field(default_factory=dict)
    last_used: float = 0.0

    def drop(self, reason: Drop, count: int = 1) -> None:
        """Count dropped packets."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count

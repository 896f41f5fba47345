"""What a peer has proven in one log-in; with several of them (RFC 4739) there are several proofs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Proof:
    """Who it is, and how that was proven, in words for people."""

    identity: str
    how: str

    def __str__(self) -> str:
        return f"{self.identity} by {self.how}"

"""A transport address as IKE needs it: an IP address in text form and a UDP port."""

from __future__ import annotations

from typing import NamedTuple


class Address(NamedTuple):
    """IP address (text, IPv4 or IPv6 without brackets or scope) and UDP port (0 when not known yet)."""

    host: str
    port: int

    @property
    def is_ipv6(self) -> bool:
        """True for IPv6."""
        return ":" in self.host

    def __str__(self) -> str:
        """Return `host:port`, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"

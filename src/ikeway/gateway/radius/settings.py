"""What is configured of RADIUS, as values. Nothing here needs pyrad."""

from __future__ import annotations

from dataclasses import dataclass, field

from ikeway.config.fields import IpAddress

AUTHENTICATION_PORT, ACCOUNTING_PORT, DYNAMIC_PORT = 1812, 1813, 3799


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server. Accounting goes to the port after that of authentication, as 1813 follows 1812."""

    host: str
    port: int = AUTHENTICATION_PORT

    @property
    def accounting_port(self) -> int:
        """Where it takes accounting."""
        return self.port + 1

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == AUTHENTICATION_PORT else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicSettings:
    """Where servers may end and change sessions (RFC 5176), and which."""

    listen: IpAddress
    port: int
    clients: frozenset[IpAddress]
    secret: bytes = field(repr=False)
    require_timestamp: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiusSettings:
    """One group of servers that know the same users. Times in seconds."""

    name: str
    servers: tuple[ServerAddress, ...]
    secret: bytes = field(repr=False)
    source: IpAddress | None
    nas_identifier: str
    timeout: float
    tries: int
    dead_time: float
    accounting: bool
    interim: float  # 0: none, unless the server asks for it
    require_message_authenticator: bool
    dynamic: DynamicSettings | None

    @property
    def longest(self) -> float:
        """The longest that a request to all servers takes, when none answers."""
        return sum(waits(self)) * 1.1 * len(self.servers)


def waits(settings: RadiusSettings) -> tuple[float, ...]:
    """How long to wait for an answer after each sending to one server: longer each time (RFC 5080 section 2.2.1)."""
    return tuple(settings.timeout * 1.5**count for count in range(settings.tries))

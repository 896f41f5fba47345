"""What the engine asks of the outside (see `ikeway.questions`)."""

from __future__ import annotations

from dataclasses import dataclass

from ikeway.address import Address
from ikeway.auth.identity import Identity
from ikeway.ike.settings import Connection
from ikeway.questions import Question
from ikeway.wire.payloads import ConfigurationAttribute
from ikeway.wire.registry import AuthenticationMethod


@dataclass(frozen=True, slots=True, eq=False)
class SelectConnection(Question[Connection]):
    """Responder, IKE_AUTH: which agreement holds with this initiator? Refuse with `AuthenticationFailed`.

    `method` is the method of the initiator's AUTH payload, None when it sent none: it wants EAP (RFC 7296, 2.16).
    `claimed` are the names that its certificate carries, not proven yet; they are before the log-in goes on.
    """

    local: Address
    remote: Address
    initiator_identity: Identity
    responder_identity: Identity | None
    method: AuthenticationMethod | None
    claimed: tuple[Identity, ...] = ()


@dataclass(frozen=True, slots=True)
class Settled:
    """The agreement with a peer that has proven who it is. `lifetime`: it has to log in again within so many seconds, and
    is told so (AUTH_LIFETIME, RFC 4478); 0: no such limit."""

    connection: Connection
    lifetime: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class SettleConnection(Question[Settled]):
    """Responder, after EAP: does the agreement that was selected hold for whom the peer has proven to be, or another one?
    How we prove ourselves has been decided. Refuse with `AuthenticationFailed`."""

    connection: Connection
    connection_id: int
    identity: bytes


@dataclass(frozen=True, slots=True, eq=False)
class AssignAddresses(Question[tuple[ConfigurationAttribute, ...]]):
    """Responder: the attributes of the CFG_REPLY (RFC 7296 section 3.15), addresses included.

    `identity` is the authenticated one (the EAP identity where EAP gave one). `requested` is the CFG_REQUEST. `user`:
    whom EAP has proven, None without EAP. Refuse with `NegotiationFailed` (notify INTERNAL_ADDRESS_FAILURE).
    """

    connection: Connection
    connection_id: int
    identity: Identity
    remote: Address
    requested: tuple[ConfigurationAttribute, ...]
    user: bytes | None = None

    @property
    def name(self) -> str:
        """By what name the peer is known here: the user's as it is, for it need not have the form of an identity."""
        return self.user.decode("utf-8", "replace") if self.user is not None else str(self.identity)


@dataclass(frozen=True, slots=True, eq=False)
class ReserveSpi(Question[int]):
    """An inbound ESP SPI from the data plane; asked only with `EngineSettings.external_spis`."""

    connection_id: int

"""What can be done with a message that is held, and who decides it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ikeway.wire.message import Message
from ikeway.wire.payloads import Payload
from ikeway.wire.registry import ExchangeType, NotifyType

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa


@dataclass(frozen=True, slots=True)
class Held:
    """A message that came in and waits. `unknown` says in words what nobody here has an answer to; empty when the
    engineer wanted to see it all the same. `number` counts the held messages of the session from 1."""

    sa: IkeSa
    message: Message
    unknown: tuple[str, ...]
    number: int


@dataclass(frozen=True, slots=True)
class Go:
    """Let the engine go on with the message, or with another one in its place."""

    message: Message | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer a request with these payloads; the engine never sees it."""

    payloads: tuple[Payload, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a request of our own; its response is held in turn. Once one is let go, the engine takes it for the response
    that it waits for."""

    exchange: ExchangeType
    payloads: tuple[Payload, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """End the exchange and the IKE SA with this notify."""

    notify: NotifyType = NotifyType.AUTHENTICATION_FAILED
    reason: str = "refused by the engineer"


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing: the exchange stays open until the other side gives up."""


Decision = Go | Answer | Ask | Refuse | Wait


class Engineer(Protocol):
    """Decides. May take its time; a question about the same SA follows when this one is answered."""

    async def decide(self, held: Held) -> Decision:
        """What is to become of this message."""
        ...

    def mistaken(self, reason: str) -> None:
        """The last decision could not be carried out; the question comes again."""
        ...

"""Conversations: exchanges written as straight-line coroutines, driven by the engine.

A conversation suspends itself with an effect, a small value that says what it waits for; whoever drives it (`IkeSa`)
carries the effect out and resumes it. No event loop is involved, so a conversation runs as well in a test as behind a
socket.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any

from ikeway.errors import IkewayError
from ikeway.questions import Question
from ikeway.wire.message import Message
from ikeway.wire.payloads import Payload
from ikeway.wire.registry import ExchangeType

Payloads = tuple[Payload, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """Send a request, wait for its response."""

    exchange: ExchangeType
    payloads: Payloads
    message_id: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer the request in hand, wait for the next request of the same exchange type."""

    exchange: ExchangeType
    payloads: Payloads


@dataclass(frozen=True, slots=True)
class Asking:
    """Wait for the answer to a question."""

    question: Question[Any]


Effect = Request | Reply | Asking


@types.coroutine
def suspend(effect: Effect) -> Generator[Effect, Any, Any]:
    """Hand `effect` to the driver; returns what it resumes us with."""
    return (yield effect)


class Conversation:
    """A coroutine in progress, and what to do when it ends."""

    __slots__ = ("_coroutine", "_on_end", "message_id", "name", "waiting_for")

    def __init__(
        self,
        name: str,
        coroutine: Coroutine[Effect, Any, Any],
        on_end: Callable[[Any, IkewayError | None], None],
        message_id: int | None = None,
    ) -> None:
        self.name = name
        self._coroutine = coroutine
        self._on_end = on_end
        self.message_id = message_id  # of the request that it has to answer
        self.waiting_for: Effect | None = None

    def resume(self, value: Any = None, error: IkewayError | None = None) -> Effect | None:  # noqa: ANN401
        """Go on with a value or an error. Returns the next effect, None at the end."""
        self.waiting_for = None
        try:
            effect = self._coroutine.throw(error) if error is not None else self._coroutine.send(value)
        except StopIteration as stop:
            self._on_end(stop.value, None)
            return None
        except IkewayError as failure:
            self._on_end(None, failure)
            return None
        self.waiting_for = effect
        return effect

    def cancel(self) -> None:
        """End it without a result: its SA is gone."""
        self._coroutine.close()


async def reply(exchange: ExchangeType, payloads: Payloads) -> Message:
    """Answer the request in hand; returns the peer's next request of this exchange type."""
    following: Message = await suspend(Reply(exchange, payloads))
    return following

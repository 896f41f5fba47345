"""Questions that the pure protocol asks of the outside: a password, a signature, an address, an SPI.

A conversation awaits `ask(question)`; the engine hands the question out as an event, and whoever drives the engine
answers it at once or later. So the engine stays pure and the slow things may be slow. Each layer defines its own
questions as subclasses.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

Answer = TypeVar("Answer")
Answer_co = TypeVar("Answer_co", covariant=True)


class Question(Generic[Answer]):
    """Something to be answered with an `Answer`, or refused with an `IkewayError`. Compared by identity."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, eq=False)
class CurrentTime(Question[datetime]):
    """The wall-clock time, with its time zone: for what is valid from and until (certificates, one-time codes)."""


class Ask(Protocol):
    """What a conversation gets to ask with. Raises the `IkewayError` that the question was refused with."""

    def __call__(self, question: Question[Answer]) -> Awaitable[Answer]:
        """Ask, and wait for the answer."""
        ...


async def answered(answer: Answer) -> Answer:
    """An answer that is there already, for who stands between a conversation and the outside."""
    return answer

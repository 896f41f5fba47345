"""Both sides of EAP against each other, without an event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.questions import Question

T = TypeVar("T")


def finish(awaitable: Awaitable[T]) -> T:
    """Run a coroutine that never has to wait."""
    iterator = awaitable.__await__()
    try:
        while True:
            next(iterator)
    except StopIteration as stop:
        return stop.value


class Asker:
    """Answers questions with a function and remembers them."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.answer = answer
        self.questions: list[Question[Any]] = []

    async def __call__(self, question: Question[Any]) -> Any:
        self.questions.append(question)
        answer = self.answer(question)
        if isinstance(answer, Exception):
            raise answer
        return answer


def log_in(peer: EapPeer, authenticator: EapAuthenticator) -> list[bytes]:
    """Carry packets until the end; returns them all. Raises what the peer raises."""
    packets = [finish(authenticator.start())]
    while True:
        response = finish(peer.receive(packets[-1]))
        if response is None:
            return packets
        packets.append(response)
        packets.append(finish(authenticator.receive(response)))

"""Drives the conversations of one IKE SA: which may run, what each waits for, who is resumed by what.

Tasks are what this side wants to do; they wait in a queue for room in the peer's window and run one after the other (with
a larger window: side by side, but for exclusive ones). Responders are started by requests of the peer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ikeway.errors import IkewayError, PeerError
from ikeway.ike import events, interception
from ikeway.ike.conversation import Asking, Conversation, Effect, Payloads, Reply, Request
from ikeway.questions import Question
from ikeway.wire.message import Message
from ikeway.wire.payloads import Notify
from ikeway.wire.registry import ExchangeType, NotifyType

if TYPE_CHECKING:
    from ikeway.ike.channel import Accepted
    from ikeway.ike.sa import IkeSa

TaskBody = Callable[..., Coroutine[Effect, Any, None]]


@dataclass(frozen=True, slots=True)
class Task:
    """Something this side wants to do: `body(sa, *arguments)`. Two equal tasks are never queued at once."""

    name: str
    body: TaskBody
    arguments: tuple[Any, ...] = ()
    exclusive: bool = False  # nothing else of ours runs beside it
    again: bool = False  # begun anew when its IKE SA is replaced before the response is here


@dataclass(frozen=True, slots=True)
class Answer:
    """What a responder's conversation ends with: the payloads, and what happens once they are on their way."""

    payloads: Payloads = ()
    then: Callable[[], None] | None = None


def notify_for(error: IkewayError | None) -> Notify:
    """The error notify that answers a request which failed with `error`."""
    if isinstance(error, PeerError) and error.notify:
        return Notify(NotifyType(error.notify), error.octets)
    return Notify(NotifyType.INVALID_SYNTAX)


class Driver:
    """See the module."""

    def __init__(self, sa: IkeSa) -> None:
        self._sa = sa
        self._queue: deque[Task] = deque()
        self._running: dict[Conversation, Task] = {}
        self._awaiting: dict[int, Conversation] = {}  # by message id of our request
        self.held: dict[tuple[bool, int], Accepted] = {}  # by an interception; is_response and message id
        self._no_room: deque[tuple[Conversation, Request]] = deque()
        self._dialogues: dict[int, Conversation] = {}  # by exchange type: waiting for the peer's next request
        self._asking: dict[Question[Any], Conversation] = {}
        self._all: set[Conversation] = set()
        self._executing: list[Conversation] = []
        self._cancelled = False

    # --- tasks ------------------------------------------------------------------------------------------------------

    def enqueue(self, task: Task, *, first: bool = False) -> None:
        """Queue a task, unless an equal one waits or runs."""
        if self._cancelled or task in self._queue or task in self._running.values():
            return
        if first:
            self._queue.appendleft(task)
        else:
            self._queue.append(task)
        self.run()

    def run(self) -> None:
        """Start what may start."""
        channel = self._sa.channel
        while self._no_room and channel.can_request:
            conversation, effect = self._no_room.popleft()
            self._send(conversation, effect)
        while self._queue and channel.can_request and self._may_start(self._queue[0]):
            task = self._queue.popleft()
            conversation = Conversation(task.name, task.body(self._sa, *task.arguments), lambda result, error: None)
            self._running[conversation] = task
            self._all.add(conversation)
            self._drive(conversation)

    def _may_start(self, task: Task) -> bool:
        if not self._sa.may_start(task):
            return False
        if not self._running:
            return True
        if task.exclusive or any(other.exclusive for other in self._running.values()):
            return False
        return len(self._running) < self._sa.channel.peer_window

    def forget_queue(self) -> None:
        """What waits is not wanted any more."""
        self._queue.clear()

    def unfinished(self) -> list[Task]:
        """What the SA that replaces this one has to do: tasks that wait here, and those that its end interrupts."""
        queue, self._queue = list(self._queue), deque()
        return [task for task in self._running.values() if task.again] + queue

    @property
    def idle(self) -> bool:
        """True when nothing of ours runs or waits."""
        return not self._running and not self._queue

    def is_running(self, name: str) -> bool:
        """True while a task of this name runs."""
        return any(task.name == name for task in self._running.values())

    # --- requests of the peer ---------------------------------------------------------------------------------------

    def respond(self, message: Message, body: Callable[[IkeSa, Message], Coroutine[Effect, Any, Answer]]) -> None:
        """Begin the conversation that answers a request, or resume the one that waits for it."""
        waiting = self._dialogues.pop(message.exchange_type, None)
        if waiting is not None:
            waiting.message_id = message.message_id
            self._drive(waiting, message)
            return
        conversation: Conversation

        def end(answer: Answer | None, error: IkewayError | None) -> None:
            self._finish(conversation, message.exchange_type, answer, error)

        conversation = Conversation("respond", body(self._sa, message), end, message.message_id)
        self._all.add(conversation)
        self._drive(conversation)

    def awaits(self, exchange: ExchangeType) -> bool:
        """True when a conversation waits for the peer's next request of this type (EAP)."""
        return exchange in self._dialogues

    def interrupt(self, exchange: ExchangeType, error: IkewayError) -> bool:
        """The peer's next request will not come: end the conversation that waits for it. False when none does."""
        waiting = self._dialogues.pop(exchange, None)
        if waiting is None:
            return False
        self._drive(waiting, error=error)
        return True

    def _finish(
        self, conversation: Conversation, exchange: ExchangeType, answer: Answer | None, error: IkewayError | None
    ) -> None:
        if conversation.message_id is None or self._cancelled:
            return
        if answer is None:
            answer = Answer((notify_for(error),))
        self._sa.send_response(conversation.message_id, exchange, answer.payloads)
        if answer.then is not None and not self._cancelled:
            answer.then()

    # --- what resumes a conversation --------------------------------------------------------------------------------

    def on_response(self, message: Message) -> None:
        """Resume who waits for this response."""
        conversation = self._awaiting.pop(message.message_id, None)
        if conversation is not None:
            self._drive(conversation, message)
        self.run()

    def answer(self, question: Question[Any], value: Any, error: IkewayError | None) -> bool:  # noqa: ANN401
        """Resume who asked. False when nobody here did (any more)."""
        conversation = self._asking.pop(question, None)
        if conversation is None:
            return False
        self._drive(conversation, value, error)
        self.run()
        return True

    def owns(self, question: Question[Any]) -> bool:
        """True when a conversation here waits for the answer."""
        return question in self._asking

    def cancel_all(self) -> None:
        """The SA is gone: end everything. What is executing right now is ended at its next effect."""
        self._cancelled = True
        self.held.clear()
        self._queue.clear()
        for conversation in self._all.difference(self._executing):
            conversation.cancel()
        self._all.clear()
        self._running.clear()
        self._awaiting.clear()
        self._no_room.clear()
        self._dialogues.clear()
        self._asking.clear()

    # --- effects ----------------------------------------------------------------------------------------------------

    def _drive(self, conversation: Conversation, value: Any = None, error: IkewayError | None = None) -> None:  # noqa: ANN401
        self._executing.append(conversation)
        try:
            effect = conversation.resume(value, error)
        except Exception as defect:
            # A defect of ours. The SA cannot go on, nothing of it may stay; whoever drives the engine logs the rest.
            self._sa.terminate(IkewayError(f"defect of Ikeway in conversation {conversation.name}: {defect!r}"))
            raise
        finally:
            self._executing.pop()
        if effect is None:
            self._all.discard(conversation)
            self._running.pop(conversation, None)
            if not self._executing:
                self.run()
        elif self._cancelled:
            conversation.cancel()
        elif isinstance(effect, Request):
            self._send(conversation, effect)
        elif isinstance(effect, Asking):
            self._asking[effect.question] = conversation
            self._sa.report(events.Asked(self._sa, effect.question))
        else:
            self._reply(conversation, effect)

    def _send(self, conversation: Conversation, effect: Request) -> None:
        channel = self._sa.channel
        if effect.message_id is None and not channel.can_request:
            self._no_room.append((conversation, effect))
            return
        try:
            message_id = channel.request(effect.exchange, effect.payloads, self._sa.now, message_id=effect.message_id)
        except IkewayError as error:  # an interception's; no exchange goes on after it
            interception.give_up(self._sa, error)
            return
        self._awaiting[message_id] = conversation

    def _reply(self, conversation: Conversation, effect: Reply) -> None:
        assert conversation.message_id is not None
        self._sa.send_response(conversation.message_id, effect.exchange, effect.payloads)
        conversation.message_id = None
        if self._cancelled:
            return  # an interception stood against the answer
        self._dialogues[effect.exchange] = conversation

"""The desk that all messages pass: scripts see them, what is unknown is held, and the engineer decides about it.

An interception of the engine (`ikeway.ike.interception`), next to the wire; a dialect of a connection sees what it lets
pass. A message of IKE_SA_INIT is never held: nothing in it is secret, and its sender cannot be told from a forger.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ikeway.eap.errors import MalformedEap
from ikeway.eap.packet import EapPacket, EapType, MethodType
from ikeway.errors import IkewayError, PeerError
from ikeway.ike import interception
from ikeway.ike.interception import Hold
from ikeway.wire.message import Message
from ikeway.wire.payloads import Eap, IdInitiator, IdResponder
from ikeway.wire.registry import ExchangeType, NotifyType
from ikeway.wire.render import summary
from ikeway.workbench.bench.decisions import Answer, Ask, Decision, Engineer, Go, Held, Refuse, Wait
from ikeway.workbench.bench.hooks import Hooks, Passing
from ikeway.workbench.explain import KNOWN_EAP, unknowns

if TYPE_CHECKING:
    from ikeway.auth.identity import Identity
    from ikeway.ike.sa import IkeSa
    from ikeway.wire.payloads import Payload

Note = Callable[[str, str], None]
Command = Callable[[Callable[[float], Any]], Any]


_WITHOUT_METHOD = (EapType.IDENTITY, EapType.NOTIFICATION, EapType.NAK)


class HoldWhat(enum.StrEnum):
    """Which messages wait for the engineer."""

    UNKNOWN = "unknown"
    ALL = "all"
    NOTHING = "nothing"


class Turn:
    """Whose question it is: one at a time, also where two desks have the same engineer. Counts what was held."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.count = 0


class Desk:
    """See the module. `command` carries something out on the engine (`Driver.command`), set when there is one. `note` is
    called while the engine is at work, so that what is told has its place among the engine's events."""

    def __init__(
        self, hooks: Hooks, engineer: Engineer | None, note: Note, *, hold: HoldWhat, turn: Turn | None = None
    ) -> None:
        self._hooks, self._engineer, self._note = hooks, engineer, note
        self._hold = hold
        self._turn = turn or Turn()
        self.takes: frozenset[MethodType] | None = None  # what our client answers in EAP; None: anything
        self._asked_by: WeakKeyDictionary[IkeSa, MethodType] = WeakKeyDictionary()  # methods that our side began
        self.command: Command | None = None
        self._memories: WeakKeyDictionary[IkeSa, dict[str, Any]] = WeakKeyDictionary()
        self._let_go: set[int] = set()  # id() of messages that pass because they were released
        # Responses to requests of the engineer's: message id -> the response that the engine still waits for.
        self._beside: WeakKeyDictionary[IkeSa, dict[int, Message]] = WeakKeyDictionary()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False  # nobody is asked any more, so nothing is held

    # --- the interception -------------------------------------------------------------------------------------------

    def sending(self, sa: IkeSa, message: Message) -> Message:
        """Let the scripts see it."""
        changed = self._pass(sa, message, sent=True).message
        if changed.is_response and (method := _method_of(changed)) is not None:
            self._asked_by[sa] = method
        return changed

    def received(self, sa: IkeSa | None, message: Message) -> Message:
        """Let the scripts see it; hold what nobody has an answer to."""
        if id(message) in self._let_go:
            self._let_go.discard(id(message))
            return message
        passing = self._pass(sa, message, sent=False)
        changed = passing.message
        if sa is None or sa.channel.protection is None:
            return changed
        beside = message.is_response and message.message_id in self._beside.get(sa, {})
        unknown = tuple(unknowns(changed, lambda method: self._knows(sa, changed, method)))
        wanted = passing.held or beside or self._hold is HoldWhat.ALL
        wanted = (wanted or bool(unknown and self._hold is HoldWhat.UNKNOWN)) and not self._stopped
        if passing.answered is not None:
            self._begin(self._answer(sa, message, changed, passing.answered, unknown))
        elif wanted:
            self._begin(self._ask(sa, message, changed, unknown))
        else:
            return changed
        raise Hold

    def identity(self, sa: IkeSa, identity: Identity) -> Identity:
        """Let the scripts say who we are."""
        wanted = self._hooks.identity(identity, sa)
        if wanted != identity:
            self._note("changed", f"we say that we are {wanted}, not {identity}")
        return wanted

    def _knows(self, sa: IkeSa, message: Message, method: MethodType) -> bool:
        """Whether the engine has an answer to EAP of this method: our client to what it was given; our gateway to usual
        methods, and to the one that it has asked for itself, as long as it is the engine that asks."""
        if message.is_response:
            return self.takes is None or method in self.takes
        if method.vendor == 0 and method.type in _WITHOUT_METHOD:
            return True
        engine_asks = sa.driver.awaits(message.exchange_type)
        usual = method.vendor == 0 and method.type in KNOWN_EAP
        return engine_asks and (usual or self._asked_by.get(sa) == method)

    def _pass(self, sa: IkeSa | None, message: Message, *, sent: bool) -> Passing:
        memory = self._memories.setdefault(sa, {}) if sa is not None else {}
        passing = Passing(message, sa, sent=sent, memory=memory)
        try:
            self._hooks.run(passing)
        finally:
            for text in passing.notes:
                self._note("script", text)
        if passing.message != message:
            self._note("changed", _difference(message, passing.message, sent=sent))
            own = IdInitiator if message.is_initiator else IdResponder
            if sent and message.find(own) != passing.message.find(own):
                self._note(
                    "changed", "AUTH was made for the identity that was there before; `on_identity` changes both"
                )
        return passing

    # --- what is held -----------------------------------------------------------------------------------------------

    async def _ask(self, sa: IkeSa, message: Message, changed: Message, unknown: tuple[str, ...]) -> None:
        self._turn.count += 1
        held = Held(sa, changed, unknown, self._turn.count)
        why = f": {'; '.join(unknown)}" if unknown else ""
        self._tell("held", f"{summary(changed)}{why}")
        async with self._turn.lock:
            while interception.is_held(sa, message):
                decision: Decision = await self._engineer.decide(held) if self._engineer is not None else Wait()
                if not interception.is_held(sa, message) and not isinstance(decision, Wait):
                    self._tell("gone", f"message {held.number} is held no more, its IKE SA has ended: nothing was done")
                elif await self._carry_out(sa, message, decision, changed):
                    return

    async def _answer(
        self, sa: IkeSa, message: Message, changed: Message, payloads: tuple[Payload, ...], unknown: tuple[str, ...]
    ) -> None:
        """The answer of a script; when it cannot be sent, the message waits for another one."""
        if not await self._carry_out(sa, message, Answer(payloads), changed):
            await self._ask(sa, message, changed, unknown)

    async def _carry_out(self, sa: IkeSa, message: Message, decision: Decision, changed: Message | None = None) -> bool:
        """False when it cannot be done."""
        assert self.command is not None
        try:
            self.command(lambda now: self._act(sa, message, decision, now, changed))
        except (IkewayError, ValueError) as error:
            reason = error.reason if isinstance(error, IkewayError) else str(error)
            self._tell("error", reason)
            if self._engineer is not None:
                self._engineer.mistaken(reason)
            return self._engineer is None
        return True

    def _act(self, sa: IkeSa, message: Message, decision: Decision, now: float, changed: Message | None) -> None:
        match decision:
            case Go(message=another):
                self._go(sa, message, another or changed or message, now)
            case Answer(payloads=payloads):
                if message.is_response:
                    raise ValueError("this is a response: let it go, send another request (`ask`), or refuse it")
                interception.answer_held(sa, message, payloads, now)
            case Ask(exchange=exchange, payloads=payloads):
                self._ask_beside(sa, message, exchange, payloads, now)
            case Refuse(notify=notify, reason=reason):
                interception.refuse_held(sa, message, PeerError(reason, notify=int(notify)), now)
            case Wait():
                self._note("waiting", "the exchange stays open")

    def _go(self, sa: IkeSa, message: Message, another: Message, now: float) -> None:
        awaited = self._beside.get(sa, {}).pop(message.message_id, None) if message.is_response else None
        if awaited is not None:
            another = replace(another, exchange_type=awaited.exchange_type, message_id=awaited.message_id)
        else:
            another = replace(another)  # an object of its own, for `_let_go` knows it by its identity
        self._let_go.add(id(another))
        try:
            interception.release(sa, message, now, changed=another)
        finally:
            self._let_go.discard(id(another))

    def _ask_beside(
        self, sa: IkeSa, message: Message, exchange: ExchangeType, payloads: tuple[Any, ...], now: float
    ) -> None:
        if not message.is_response:
            raise ValueError("this is a request: answer it, let it go, or refuse it")
        if not sa.channel.can_request:
            raise ValueError("a request is under way already")
        awaited = self._beside.get(sa, {}).get(message.message_id, message)
        number = interception.request_beside(sa, exchange, tuple(payloads), now)
        self._beside.setdefault(sa, {})[number] = awaited
        self._beside[sa].pop(message.message_id, None)
        sa.driver.held.pop((True, message.message_id), None)

    # --- tasks ------------------------------------------------------------------------------------------------------

    def _begin(self, work: Any) -> None:  # noqa: ANN401 - a coroutine
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._tell("error", f"{type(error).__name__}: {error}")

    def _tell(self, kind: str, text: str) -> None:
        """Note something while the engine rests."""
        assert self.command is not None
        self.command(lambda now: self._note(kind, text))

    def refuse_all(self, sas: Iterable[IkeSa], now: float) -> None:
        """The stand-in ends: whoever waits for an answer to what is held, or for ours to the next message, hears so."""
        for sa in sas:
            for waiting in () if sa.established else tuple(sa.driver.held.values()):
                error = PeerError("the stand-in ends", notify=int(NotifyType.AUTHENTICATION_FAILED))
                interception.refuse_held(sa, waiting.message, error, now)

    async def stop(self) -> None:
        """Ask nobody any more. Idempotent."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _method_of(message: Message) -> MethodType | None:
    payload = message.find(Eap)
    try:
        packet = EapPacket.decode(payload.packet) if payload is not None else None
        return packet.method if packet is not None and packet.type is not None else None
    except MalformedEap:
        return None


def _difference(before: Message, after: Message, *, sent: bool) -> str:
    """What a script did to a message."""
    from ikeway.wire.render import render_payload

    gone = [f"- {render_payload(each).splitlines()[0]}" for each in before.payloads if each not in after.payloads]
    new = [f"+ {render_payload(each).splitlines()[0]}" for each in after.payloads if each not in before.payloads]
    if not gone and not new:
        new = [f"= {summary(after)}"]
    what = f"{before.exchange_type} {'response' if before.is_response else 'request'} {before.message_id}"
    return "\n".join([f"{what}, before {'it is sent' if sent else 'we act on it'}", *gone, *new])

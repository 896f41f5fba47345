"""Drives an engine from asyncio: datagrams, timers and answers in; SAs, datagrams and news out.

Theory of operation. Whatever goes into the engine (a datagram, a timer, an answer, a command) is one *step*: what it
brings out, events and datagrams, belongs together. A peer may use a new SA as soon as it has our message, so the
datagrams of a step leave when the data plane has carried out the events of that step, not before.

Steps of one connection follow one another; steps of different connections do not wait for each other. So a step
that has to wait for the data plane becomes a task, and registers itself under the connections and peers that it
speaks of: a *lane*. A later step that shares a lane with an unfinished one waits for it. All other steps are carried
out on the spot, without a task.

Questions are answered by tasks of their own; a password prompt holds up nothing but its own log-in.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ikeway.address import Address
from ikeway.daemon import clock
from ikeway.dataplane.interface import DataPlane
from ikeway.errors import HostError, IkewayError
from ikeway.ike import events as ike
from ikeway.questions import CurrentTime, Question

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa

log = logging.getLogger("ikeway.daemon")

Answer = TypeVar("Answer")
Result = TypeVar("Result")
Handler = Callable[[Any, Any], Awaitable[Any]]

_DATAPLANE_SECONDS = 10.0  # a worker that takes longer for one SA is as good as dead
_DEFECT_SECONDS = 1.0  # between two of ours in the log
_FOR_DATAPLANE = (ike.InboundAdded, ike.OutboundAdded, ike.InboundRemoved, ike.OutboundRemoved, ike.PathChanged)


async def _tell_time(question: CurrentTime) -> datetime:
    return datetime.now(UTC)


class Datagram(Protocol):
    """What an engine wants sent."""

    @property
    def octets(self) -> bytes:
        """The IKE message."""
        ...

    @property
    def local(self) -> Address:
        """Where it leaves from."""
        ...

    @property
    def remote(self) -> Address:
        """Where it goes to."""
        ...


class Machine(Protocol):
    """The part of `ikeway.ike.Engine` that is driven from here."""

    def receive(self, octets: bytes, local: Address, remote: Address, now: float) -> None:
        """Take a datagram."""
        ...

    def outgoing(self) -> Sequence[Datagram]:
        """Hand out what is to be sent."""
        ...

    def events(self) -> Sequence[ike.Event]:
        """Hand out what happened."""
        ...

    def answer(self, question: Question[Any], answer: Any, now: float, *, sa: Any = None) -> None:  # noqa: ANN401
        """Take the answer to a question of `sa`, or the error that it is refused with."""
        ...

    def deadline(self) -> float | None:
        """When `tick` is due."""
        ...

    def tick(self, now: float) -> None:
        """Act on what is due."""
        ...


class Transport(Protocol):
    """The part of `IkeSockets` that is used here."""

    def send(self, octets: bytes, local: Address, remote: Address) -> None:
        """Send an IKE message."""
        ...

    def send_keepalive(self, local: Address, remote: Address) -> None:
        """Send a NAT keepalive."""
        ...


@dataclass(frozen=True, slots=True)
class _Step:
    events: Sequence[ike.Event]
    outgoing: Sequence[Datagram]

    def lanes(self) -> set[Hashable]:
        """What this step must not overtake earlier steps about."""
        lanes: set[Hashable] = {each.remote for each in self.outgoing}
        for event in self.events:
            match event:
                case ike.InboundAdded(esp=esp) | ike.OutboundAdded(esp=esp):
                    lanes.add(esp.connection_id)
                    lanes.add(("spi", esp.spi))
                case ike.InboundRemoved(spi=spi) | ike.OutboundRemoved(spi=spi):
                    lanes.add(("spi", spi))
                case _:
                    if (sa := getattr(event, "sa", None)) is not None:
                        lanes.add(sa.connection_id)
        return lanes


class Driver:
    """Joins one engine to sockets, a data plane and whoever wants to know.

    Must be made and used on one running event loop.
    """

    def __init__(
        self,
        engine: Machine,
        transport: Transport,
        dataplane: DataPlane,
        *,
        now: Callable[[], float] = clock.now,
    ) -> None:
        """`now` must be the clock that the engine's times are on; timers ring by CLOCK_BOOTTIME."""
        self.engine = engine
        self.transport = transport
        self.dataplane = dataplane
        self.now = now
        # An SA that the data plane refused; the event says which. To be closed by whoever owns the connection.
        self.on_refused_sa: Callable[[ike.Event, HostError], None] | None = None
        self._handlers: dict[type[Question[Any]], Handler] = {}
        self.answer_with(CurrentTime, _tell_time)
        self._listeners: list[Callable[[ike.Event], None]] = []
        self._timer = clock.BoottimeTimer(self._tick)
        self._steps: deque[_Step] = deque()
        self._working = False
        self._lanes: dict[Hashable, asyncio.Task[None]] = {}  # the newest step of each
        self._under_way: set[asyncio.Task[None]] = set()  # all steps that have to wait, those that were followed too
        self._noted, self._not_noted = -_DEFECT_SECONDS, 0
        self._asked: dict[asyncio.Task[None], Any] = {}  # the task of a question: the IKE SA that asked

    # -- what the owner sets up

    def answer_with(self, question: type[Question[Answer]], handler: Callable[[Any], Awaitable[Answer]]) -> None:
        """Let `handler(question)` answer questions of this class; an `IkewayError` that it raises is the refusal."""
        self._handlers[question] = lambda asked, sa: handler(asked)

    def answer_of_sa(
        self, question: type[Question[Answer]], handler: Callable[[Any, IkeSa], Awaitable[Answer]]
    ) -> None:
        """The same for a handler that has to know which IKE SA asks: `handler(question, sa)`."""
        self._handlers[question] = handler

    def listen(self, listener: Callable[[ike.Event], None]) -> Callable[[], None]:
        """Tell `listener` of every event, after the data plane has carried out what came before it, until the
        function that is returned is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # -- what goes into the engine

    def receive(self, octets: bytes, local: Address, remote: Address) -> None:
        """Hand a datagram to the engine."""
        self._into_engine(lambda now: self.engine.receive(octets, local, remote, now))

    def command(self, action: Callable[[float], Result]) -> Result:
        """Do something to the engine, such as `lambda now: sa.close(now)`, and carry out what follows.

        Errors that the action raises are the caller's.
        """
        try:
            return self._enter_engine(action)
        finally:
            self._collect()

    def _tick(self) -> None:
        self._into_engine(self.engine.tick)

    def _into_engine(self, action: Callable[[float], None]) -> None:
        """What comes from outside must never stop the loop, whatever it does to the engine."""
        try:
            self._enter_engine(action)
        except Exception:
            self._note_defect("The engine failed")
        self._collect()

    def _enter_engine(self, action: Callable[[float], Result]) -> Result:
        """The engine has asynchronous generators of its own (EAP methods), which are none of the event loop's: it must
        not try to close them in its own way when a log-in is given up."""
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, None)
        try:
            return action(self.now())
        finally:
            sys.set_asyncgen_hooks(*hooks)

    def _note_defect(self, what: str) -> None:
        """Log the exception at hand, once a second at the most: whatever a peer can cause, it must not fill the disk."""
        now = asyncio.get_running_loop().time()
        if now - self._noted < _DEFECT_SECONDS:
            self._not_noted += 1
            return
        log.exception("%s; this is a defect of Ikeway (%d more like it were not shown)", what, self._not_noted)
        self._noted, self._not_noted = now, 0

    # -- what comes out of the engine

    def _collect(self) -> None:
        events, outgoing = self.engine.events(), self.engine.outgoing()
        self._timer.set(self.engine.deadline())
        if events or outgoing:
            self._steps.append(_Step(events, outgoing))
        if self._working:  # a listener gave a command: its step follows the one that is being carried out
            return
        self._working = True
        try:
            while self._steps:
                self._begin(self._steps.popleft())
        finally:
            self._working = False

    def _begin(self, step: _Step) -> None:
        lanes = step.lanes()
        before = {self._lanes[lane] for lane in lanes if lane in self._lanes}
        if not before and not any(isinstance(event, _FOR_DATAPLANE) for event in step.events):
            for event in step.events:
                self._tell(event)
            self._send(step.outgoing)
            return
        task = asyncio.get_running_loop().create_task(self._carry_out(step, before))
        for lane in lanes:
            self._lanes[lane] = task
        self._under_way.add(task)
        task.add_done_callback(lambda done: self._leave(lanes, done))

    def _leave(self, lanes: set[Hashable], task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        for lane in lanes:
            if self._lanes.get(lane) is task:
                del self._lanes[lane]
        if not task.cancelled() and (error := task.exception()):
            log.error("A step was not carried out; this is a defect of Ikeway", exc_info=error)

    async def _carry_out(self, step: _Step, before: set[asyncio.Task[None]]) -> None:
        if before:
            await asyncio.wait(before)
        refused: list[tuple[ike.Event, HostError]] = []
        for event in step.events:
            if isinstance(event, _FOR_DATAPLANE):
                try:
                    async with asyncio.timeout(_DATAPLANE_SECONDS):
                        await self._to_dataplane(event)
                except TimeoutError:
                    refused.append((event, HostError("the data plane does not answer")))
                except HostError as error:
                    refused.append((event, error))
            self._tell(event)
        self._send(step.outgoing)
        for event, refusal in refused:
            log.debug("The data plane refused %s: %s", type(event).__name__, refusal)
            if self.on_refused_sa:
                self.on_refused_sa(event, refusal)

    async def _to_dataplane(self, event: ike.Event) -> None:
        match event:
            case ike.InboundAdded(esp=esp):
                await self.dataplane.add_inbound(esp)
            case ike.OutboundAdded(esp=esp):
                await self.dataplane.add_outbound(esp)
            case ike.InboundRemoved(spi=spi):
                await self.dataplane.remove_inbound(spi)
            case ike.OutboundRemoved(spi=spi, remote=remote):
                await self.dataplane.remove_outbound(spi, remote)
            case ike.PathChanged(sa=sa, local=local, remote=remote, udp_encapsulation=udp):
                await self.dataplane.move(sa.connection_id, local, remote, udp)

    def _send(self, outgoing: Sequence[Datagram]) -> None:
        for each in outgoing:
            self.transport.send(each.octets, each.local, each.remote)

    def _tell(self, event: ike.Event) -> None:
        match event:
            case ike.Asked(sa=sa, question=question):
                task = asyncio.get_running_loop().create_task(self._answer(question, sa))
                self._asked[task] = sa
                task.add_done_callback(lambda done: self._asked.pop(done, None))
            case ike.KeepaliveDue(local=local, remote=remote):
                self.transport.send_keepalive(local, remote)
            case ike.IkeClosed(sa=sa):
                for task, asker in self._asked.items():
                    if asker is sa:
                        task.cancel()
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                self._note_defect("A listener failed")

    async def _answer(self, question: Question[Any], sa: Any) -> None:  # noqa: ANN401 - of no interest here
        answer: Any
        handler = self._handlers.get(type(question))
        try:
            if handler is None:
                raise IkewayError(f"nobody here answers {type(question).__name__}")
            answer = await handler(question, sa)
        except IkewayError as error:
            answer = error
        except Exception as error:
            log.exception("Answering %s failed; this is a defect of Ikeway", type(question).__name__)
            answer = IkewayError(f"{type(question).__name__} could not be answered: {type(error).__name__}")
        self._into_engine(lambda now: self.engine.answer(question, answer, now, sa=sa))

    # -- the end

    async def settle(self, seconds: float = _DATAPLANE_SECONDS) -> None:
        """Wait until the data plane has carried out all that was begun, but no longer than `seconds`."""
        end = asyncio.get_running_loop().time() + seconds
        while self._under_way and (left := end - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(set(self._under_way), timeout=left)
            await asyncio.sleep(0)  # let the done callbacks clear the lanes

    async def stop(self) -> None:
        """Stop timers and tasks. The engine is left as it is; close its SAs before. Idempotent."""
        self._timer.close()
        tasks = {*self._asked, *self._under_way}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

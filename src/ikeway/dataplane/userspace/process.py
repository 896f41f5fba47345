"""One worker process from its start to its end, and the requests that it answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ikeway.dataplane.userspace.launch import Launched, launch
from ikeway.dataplane.userspace.messages import (
    CounterEntry,
    Done,
    Failed,
    Message,
    Reply,
    Request,
    WorkerEvent,
    decode,
    encode,
)
from ikeway.errors import HostError, Side

_LARGEST_MESSAGE = 1 << 18
_PATIENCE = 10.0  # seconds for any answer of the worker
START_PATIENCE = 60.0  # for the first one: a busy or a slow host takes long to load what the worker needs
_MESSAGES_A_TURN = 64  # so that a flood of IKE messages leaves the event loop some air
_REFUSED = 3  # `worker.REFUSED`; not imported, as the daemon has no use for numpy


class End(NamedTuple):
    """How a worker ended. `refused`: it said itself why it cannot work."""

    reason: str
    refused: bool


class WorkerGone(HostError):
    """The worker ended before it answered."""


Answer = Done | tuple[CounterEntry, ...]


class WorkerProcess:
    """A worker. It is started when this is made; raises `HostError` when that cannot be.

    `on_event` gets what it tells, `on_end` (once, and not when it is stopped) that it is gone for certain: nothing
    that it held is used any more.
    """

    def __init__(
        self,
        on_event: Callable[[WorkerEvent], None],
        on_end: Callable[[End], None],
        launched: Launched | None = None,
    ) -> None:
        """`launched` is one that was started ahead; it belongs to this object from now on."""
        self._on_event = on_event
        self._on_end = on_end
        self._waiting: deque[tuple[bytes, Sequence[int]]] = deque()  # messages, and descriptors that go with them
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._pages: dict[int, list[CounterEntry]] = {}
        self._requests = 0
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        launched = launched or launch()
        self._process = launched.process
        self._control: socket.socket | None = launched.control
        self._loop.add_reader(launched.control.fileno(), self._receive)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def request(
        self, make: Callable[[int], Request], descriptors: Sequence[int] = (), patience: float = _PATIENCE
    ) -> Answer:
        """Send a request, with duplicates of descriptors, and wait for its answer. Raises `HostError`: what the worker
        has against it, `WorkerGone`, or that it does not answer; then it is killed, as it will never answer anybody."""
        if self._control is None:
            raise WorkerGone("the data plane does not run")
        self._requests = number = self._requests + 1 & 0xFFFFFFFF
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._answers[number] = answer
        try:
            self._waiting.append((encode(make(number)), descriptors))
            self._flush()
            async with asyncio.timeout(patience):  # wait_for() of Python 3.11 may swallow a cancellation
                return await answer
        except TimeoutError as error:
            self._process.kill()
            raise WorkerGone(f"the data plane did not answer within {patience:.0f} seconds") from error
        finally:
            self._answers.pop(number, None)
            self._pages.pop(number, None)

    def tell(self, request: Request) -> None:
        """Send a request whose answer nobody waits for; it has the number 0."""
        self._waiting.append((encode(request), ()))
        self._flush()

    async def stop(self) -> None:
        """End it. Idempotent."""
        self._close_control("it was stopped")
        self.ended.set()
        for _ in range(100):
            if self._process.poll() is not None:
                break
            await asyncio.sleep(0.02)
        else:
            self._process.kill()
            self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _flush(self) -> None:
        """Send what waits for the worker, as far as it reads."""
        control = self._control
        if control is None:
            return
        try:
            while self._waiting:
                octets, descriptors = self._waiting[0]
                if descriptors:
                    socket.send_fds(control, [octets], descriptors)
                else:
                    control.send(octets)
                self._waiting.popleft()
        except BlockingIOError:
            self._loop.add_writer(control.fileno(), self._flush)
        except OSError:
            self._died()
        else:
            self._loop.remove_writer(control.fileno())

    def _receive(self) -> None:
        """Take in what the worker says."""
        for _ in range(_MESSAGES_A_TURN):
            if self._control is None:
                return
            try:
                octets = self._control.recv(_LARGEST_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                octets = b""
            if not octets:
                self._died()
                return
            self._dispatch(decode(octets))

    def _dispatch(self, message: Message) -> None:
        if isinstance(message, Reply):
            self._settle(message)
        elif not isinstance(message, Request):
            self._on_event(message)

    def _settle(self, message: Reply) -> None:
        answer = self._answers.get(message.request)
        if answer is None or answer.done():
            return
        if isinstance(message, Done):
            answer.set_result(message)
        elif isinstance(message, Failed):
            answer.set_exception(HostError(message.reason, remedy=message.remedy))
        else:
            pages = self._pages.setdefault(message.request, [])
            pages.extend(message.entries)
            if message.last:
                answer.set_result(tuple(pages))

    def _died(self) -> None:
        """The worker closed its end: see to it that it is gone, and say how."""
        end = _last_words(self._process)
        self._close_control(end.reason)
        self._on_end(end)
        self.ended.set()

    def _close_control(self, reason: str) -> None:
        control, self._control = self._control, None
        if control is not None:
            self._loop.remove_reader(control.fileno())
            self._loop.remove_writer(control.fileno())
            control.close()
        self._waiting.clear()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(WorkerGone(f"the data plane does not answer: {reason}", side=Side.HOST))


def _last_words(process: subprocess.Popen[bytes]) -> End:
    """How the worker ended, with the last line it wrote. It has ended for certain when this returns."""
    try:
        code = process.wait(0.5)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    words = ""
    if process.stderr is not None:
        with process.stderr:
            os.set_blocking(process.stderr.fileno(), False)  # its end is not awaited: a debugger may hold the other one
            words = (process.stderr.read() or b"").decode(errors="replace").strip().rpartition("\n")[2]
    if code < 0:
        with contextlib.suppress(ValueError):
            return End(f"it was killed by {signal.Signals(-code).name}" + (f" ({words})" if words else ""), False)
    return End(f"it ended with code {code}" + (f": {words}" if words else ""), code == _REFUSED)

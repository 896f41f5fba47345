"""A client or gateway as a process: signals, control socket, foreground or detached.

The first SIGINT or SIGTERM ends the service properly, which takes a bounded time; a second one ends it at once, and
what it did to the host is undone by the next start. SIGHUP reloads, or ends a client whose terminal is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol

from ikeway.daemon.control import Command, ControlServer

log = logging.getLogger("ikeway.daemon")

_ANSWER_SECONDS = 0.1  # for the answer to `down` to leave, before the control socket goes
_ENDING = (signal.SIGINT, signal.SIGTERM)

Ready = Callable[[], None]


class Service(Protocol):
    """What is run: a `Client` or a `Gateway`."""

    async def start(self) -> None:
        """Begin. Raises when it cannot; nothing is left then."""
        ...

    async def wait(self) -> None:
        """Wait for the end. Raises why it ended by itself."""
        ...

    async def close(self) -> None:
        """End it, in bounded time."""
        ...


async def run_service(
    service: Service,
    *,
    socket: Path | None = None,
    commands: Mapping[str, Command] | None = None,
    on_ready: Ready = lambda: None,
    on_hangup: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Run a service from start to end. Raises what it could not start for, or why it ended by itself.

    `on_ready` is called once it is up, `on_hangup` on SIGHUP; without it, SIGHUP ends the service as well.
    """
    control = ControlServer(socket, commands or {}) if socket is not None else None
    if control is not None:
        await control.start()
    running = asyncio.current_task()
    assert running is not None
    starting = asyncio.create_task(service.start())
    try:
        with _Signals(lambda: _end(service, starting), on_hangup):
            try:
                await starting
            except asyncio.CancelledError:
                if running.cancelling():
                    raise
                return  # a signal while it started
            on_ready()
            await service.wait()
    finally:
        starting.cancel()
        await service.close()
        if control is not None:
            await asyncio.sleep(_ANSWER_SECONDS)
            await control.close()


def _end(service: Service, starting: asyncio.Task[None]) -> Coroutine[Any, Any, None]:
    starting.cancel()
    return service.close()


class _Signals:
    """Signal handlers while a service runs."""

    def __init__(
        self, end: Callable[[], Coroutine[Any, Any, None]], on_hangup: Callable[[], Awaitable[None]] | None
    ) -> None:
        self._end = end
        self._on_hangup = on_hangup
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = False

    def __enter__(self) -> None:
        for number in _ENDING:
            self._loop.add_signal_handler(number, self._stop, number)
        self._loop.add_signal_handler(signal.SIGHUP, self._hangup)

    def __exit__(self, *_: object) -> None:
        for number in (*_ENDING, signal.SIGHUP):
            self._loop.remove_signal_handler(number)

    def _stop(self, number: signal.Signals) -> None:
        if self._ending:
            log.warning("Ended at once; the next start cleans up")
            os._exit(128 + number)
        self._ending = True
        log.info("Ending (%s)", number.name)
        self._begin(self._end())

    def _hangup(self) -> None:
        if self._on_hangup is None:
            self._stop(signal.SIGHUP)
        else:
            self._begin(self._carry_out(self._on_hangup))

    @staticmethod
    async def _carry_out(action: Callable[[], Awaitable[None]]) -> None:
        try:
            await action()
        except Exception:
            log.exception("What SIGHUP asked for failed; this is a defect of Ikeway")

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def run_detached(work: Callable[[Ready], int]) -> int:
    """Run `work(on_ready)` in a child that goes on in the background once it has called `on_ready`.

    Until then the child has the terminal: it shows progress and asks for passwords there, and Ctrl-C ends it. Returns
    the exit code for this process: 0 once the child is ready, else the child's own. Call it before there are threads or
    an event loop.
    """
    ready, announce = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(ready)
        code = 1
        try:
            code = work(lambda: _go_to_background(announce))
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    os.close(announce)
    # The terminal's Ctrl-C goes to both of us; the child knows how to end.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        with os.fdopen(ready, "rb") as waiting:
            if waiting.read(1):
                return 0
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) % 256
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _go_to_background(announce: int) -> None:
    """Leave the terminal, and tell the parent."""
    with contextlib.suppress(OSError):
        os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    os.write(announce, b"1")
    os.close(announce)

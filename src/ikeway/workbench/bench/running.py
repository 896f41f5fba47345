"""A stand-in at work until somebody ends it: what `ikeway workbench serve` and `connect` do."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ikeway.address import Address
from ikeway.daemon.threads import in_thread
from ikeway.errors import Closed
from ikeway.workbench.bench.bench import Bench, BenchSettings, Role
from ikeway.workbench.bench.decisions import Engineer
from ikeway.workbench.bench.engineers import FromRecording, Terminal
from ikeway.workbench.bench.hooks import Hooks, load_hooks
from ikeway.workbench.bench.replay import Replay
from ikeway.workbench.bench.standin import Caller
from ikeway.workbench.paint import Painter
from ikeway.workbench.recording import Recorder, load

if TYPE_CHECKING:
    from ikeway.workbench.relay.relay import Downstream, Upstream

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What an engineer has beside a stand-in: scripts, a recording that answers (and one of which a side is said again,
    word by word), a recording to write, the view."""

    scripts: tuple[Path, ...] = ()
    answers: Path | None = None
    replay: Path | None = None
    record: Path | None = None
    secrets: bool = False
    ask: bool = False  # a person at the terminal


@dataclass(frozen=True, slots=True)
class Opened:
    """The tools, ready for use."""

    hooks: Hooks
    engineer: Engineer | None
    recorder: Recorder | None
    painter: Painter


@contextlib.contextmanager
def opened(tools: Tools, role: str) -> Iterator[Opened]:
    """Read the scripts and the recording, begin the new one. Raises `ConfigError` and `HostError`."""
    painter = Painter(secrets=tools.secrets)
    scripts = [hook for path in tools.scripts for hook in load_hooks(path).hooks]
    engineer: Engineer | None = _terminal(painter) if tools.ask else None
    for path in dict.fromkeys(each for each in (tools.answers, tools.replay) if each is not None):
        recording = load(path)
        for error in recording.errors:
            painter.note("error", str(error), 0.0)
        engineer = FromRecording(recording, otherwise=engineer)
        if path == tools.replay:
            scripts.insert(0, Replay(recording, initiator=role == "initiator"))
    with ExitStack() as stack:
        recorder = stack.enter_context(Recorder(tools.record, role)) if tools.record is not None else None
        yield Opened(Hooks(scripts), engineer, recorder, painter)


async def serve(settings: BenchSettings, role: Role, tools: Opened, *, once: bool = False) -> None:
    """Serve until a signal comes, or (`once`) the first IKE SA has ended; then raises why, where something went wrong."""
    bench = Bench(
        settings, role, hooks=tools.hooks, engineer=tools.engineer, recorder=tools.recorder, painter=tools.painter
    )
    async with bench:
        bench.note("serving", f"on {', '.join(settings.listen)}, UDP ports {', '.join(map(str, bench.ports))}")
        if not once:
            await until_signal(_forever)
            return
        ended = await until_signal(bench.wait_closed)
        if ended is not None and ended[1] is not None and not isinstance(ended[1], Closed):
            raise ended[1]


async def connect(settings: BenchSettings, caller: Caller, remote: Address, tools: Opened) -> None:
    """Connect and stay until a signal comes. Raises why the IKE SA ended."""
    bench = Bench(
        settings, caller, hooks=tools.hooks, engineer=tools.engineer, recorder=tools.recorder, painter=tools.painter
    )
    async with bench:
        bench.connect(caller.connection, remote)
        ended = await until_signal(bench.wait_closed)
        if ended is not None and ended[1] is not None:
            raise ended[1]


async def until_signal(work: Callable[[], Coroutine[Any, Any, Result]]) -> Result | None:
    """Wait for `work`, or for SIGINT or SIGTERM: then it is cancelled, and the result is None."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work())
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return None
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _forever() -> None:
    await asyncio.Event().wait()


def _terminal(painter: Painter) -> Terminal:
    async def read(prompt: str) -> str | None:
        def line() -> str | None:
            sys.stderr.write(prompt)
            sys.stderr.flush()
            # In octets: what is pasted need not be text, and a message must not be left because of that.
            return sys.stdin.buffer.readline().decode(sys.stdin.encoding or "utf-8", "replace") or None

        return await in_thread(line)

    return Terminal(read, painter.say)


async def relay(settings: BenchSettings, downstream: Downstream, upstream: Upstream, tools: Opened) -> None:
    """Stand between clients and a gateway until a signal comes."""
    from ikeway.workbench.relay.relay import Relay

    async with Relay(settings, downstream, upstream, tools) as running:
        ports = ", ".join(map(str, running.downstream.ports))
        running.downstream.note("relaying", f"on {', '.join(settings.listen)}, UDP ports {ports}, to {upstream.remote}")
        await until_signal(_forever)

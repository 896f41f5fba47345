"""`ikeway up`: connect with a profile, and stay connected."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ikeway.cli.errors import INTERRUPTED, guarded
from ikeway.cli.options import KeyLogFile, LogFile, LogFormat, LogFormatOption, PcapFile, Verbose, set_up_log
from ikeway.dataplane.userspace.launch import Launched, launch

if TYPE_CHECKING:
    from ikeway.cli.progress import Show, Steps
    from ikeway.client.profile import Profile
    from ikeway.config.secrets import Prompt
    from ikeway.daemon.trace import Trace, TraceSettings

app = typer.Typer()


@app.command()
@guarded
def up(
    profile: Annotated[str, typer.Argument(help="The name of a profile, or the path of its file.", show_default=False)],
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Go on in the background once it is up.")] = False,
    ask: Annotated[bool, typer.Option(help="Ask for passwords that the profile does not have.")] = True,
    verbose: Verbose = 0,
    log_format: LogFormatOption = LogFormat.TEXT,
    log_file: LogFile = None,
    keylog: KeyLogFile = None,
    pcap: PcapFile = None,
) -> None:
    """Connect to a gateway, and stay connected until Ctrl-C or `ikeway down`.

    The profile says where the gateway is, who you are, and what goes through the tunnel (`ikeway reference profile`).
    Passwords that it does not hold are asked for.

    [bold]Examples[/bold]

      ikeway up work                      ~/.config/ikeway/profiles/work.toml or /etc/ikeway/profiles/work.toml

      ikeway up --detach work             go on in the background; ends with `ikeway down work`

      ikeway up ./work.toml -vv           show every message, decrypted

      ikeway up work --pcap work.pcapng --keylog work.keys     for Wireshark
    """
    with contextlib.ExitStack() as stack:
        # Its imports take as long as ours and go on beside them. A client in the background starts its own.
        launched = None if detach else stack.enter_context(launch())
        from ikeway.cli.progress import Steps, terminal_show
        from ikeway.client.profile import load_profile
        from ikeway.client.secrets import terminal_prompt
        from ikeway.daemon.trace import Trace, TraceSettings

        prompt = terminal_prompt() if ask else None
        loaded = load_profile(profile, prompt)
        show = terminal_show()
        for warning in loaded.warnings:
            show("warning", warning)
        traces = TraceSettings(keylog=keylog, pcap=pcap)
        if detach:
            _detach(loaded, show, prompt, traces, log_format, verbose, log_file)
            return
        set_up_log(log_format, verbose, log_file, quiet=True)
        with Trace(traces) as trace:
            shown = show if log_format is LogFormat.TEXT or log_file is not None else _to_log
            steps = Steps(shown, payloads=verbose > 0)
            work = _run(loaded, prompt, steps, trace, lambda text: shown("up", text), launched)
            if not asyncio.run(work):
                raise typer.Exit(INTERRUPTED)


def _detach(
    profile: Profile,
    show: Show,
    prompt: Prompt | None,
    traces: TraceSettings,
    log_format: LogFormat,
    verbose: int,
    log_file: Path | None,
) -> None:
    """Go on in a process of its own, which logs to a file."""
    from ikeway.cli.detach import Terminal, detach
    from ikeway.cli.progress import Steps
    from ikeway.config.paths import log_file as usual_log_file
    from ikeway.daemon.trace import Trace

    file = (log_file or usual_log_file(profile.name)).absolute()

    def work(terminal: Terminal) -> None:
        set_up_log(log_format, max(verbose, 1), file, quiet=False)
        with Trace(traces) as trace:
            steps = Steps(terminal.show, payloads=verbose > 0)
            asyncio.run(_run(profile, terminal.prompt, steps, trace, terminal.ready))

    if code := detach(work, show, prompt):
        raise typer.Exit(code)
    show("background", f"it ends with `ikeway down {profile.name}`; its log is {file}")


def _to_log(step: str, text: str) -> None:
    """Where machines read, steps are log lines like all others."""
    import logging

    from ikeway.daemon.log import event

    event(logging.getLogger("ikeway.client"), logging.INFO, "step", text, {"step": step})


async def _run(
    profile: Profile,
    prompt: Prompt | None,
    steps: Steps,
    trace: Trace,
    ready: Callable[[str], None],
    launched: Launched | None = None,
) -> bool:
    """Connect, and stay until it ends. False when it was interrupted before it was up."""
    from ikeway.cli.attended import attended, describe, start_client

    async with attended(profile, steps, trace, prompt, launched=launched) as client:
        if not await start_client(client):
            return False
        ready(describe(client))
        await client.wait()
    return True

"""`ikeway run`: a command whose only way out is the VPN."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ikeway.cli.errors import INTERRUPTED, exit_code, explain, guarded, printable
from ikeway.cli.options import KeyLogFile, LogFile, LogFormat, LogFormatOption, PcapFile, Verbose, set_up_log

if TYPE_CHECKING:
    from ikeway.cli.progress import Steps
    from ikeway.client.client import Client
    from ikeway.client.enclave.enclave import Enclave
    from ikeway.client.enclave.forward import Forward
    from ikeway.client.profile import Profile
    from ikeway.config.secrets import Prompt
    from ikeway.daemon.trace import Trace, TraceSettings

app = typer.Typer()

_NOT_FOUND = 127


@app.command()
@guarded
def run(
    profile: Annotated[str, typer.Argument(help="The name of a profile, or the path of its file.", show_default=False)],
    command: Annotated[
        list[str] | None,
        typer.Argument(help="The command and its arguments; by default your shell.", show_default=False),
    ] = None,
    publish: Annotated[
        list[str] | None,
        typer.Option(
            "--publish",
            "-p",
            metavar="[HOST:]PORT:PORT[/udp]",
            help="Lead a port of this host (HOST is 127.0.0.1 by default) to one inside.",
        ),
    ] = None,
    reach: Annotated[
        list[str] | None,
        typer.Option(
            "--reach",
            metavar="[HOST:]PORT[:PORT][/udp]",
            help="Let a service of this host be reached inside, at 127.0.0.1.",
        ),
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", "-u", metavar="NAME", help="As root: run the command as this user.")
    ] = None,
    ask: Annotated[bool, typer.Option(help="Ask for passwords that the profile does not have.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no steps.")] = False,
    verbose: Verbose = 0,
    log_format: LogFormatOption = LogFormat.TEXT,
    log_file: LogFile = None,
    keylog: KeyLogFile = None,
    pcap: PcapFile = None,
) -> None:
    """Run a command whose only way out is the VPN. No root, and no change on this host.

    The command runs in a network namespace of its own: it has the tunnel, the tunnel's name servers, and nothing else.
    While the tunnel is down, nothing of it gets out. All else is as without `ikeway run`: the user, the files, the
    terminal, signals, and the exit code. What the command leaves running is ended with it.

    [bold]Examples[/bold]

      ikeway run work -- ssh db1                  one session, the rest of the host stays as it is

      ikeway run work                             a shell

      ikeway run -p 8080:80 work -- python3 -m http.server 80    a server inside, at 127.0.0.1:8080 of this host

      ikeway run --reach 5432 work -- ./import.py                the database of this host, inside

      sudo ikeway run --user alice work -- firefox    where users may not have namespaces
    """
    from ikeway.client.enclave.commands import find_user
    from ikeway.client.enclave.forward import Forward
    from ikeway.client.enclave.keeper import Front, Keeper
    from ikeway.client.profile import load_profile
    from ikeway.client.secrets import terminal_prompt
    from ikeway.daemon.trace import TraceSettings
    from ikeway.errors import HostError

    account = find_user(user) if user is not None else None
    if account is not None and os.geteuid() != 0:
        raise HostError(
            "only root may run a command as another user", remedy=f"run `sudo ikeway run --user {user} ...`"
        )
    words = tuple(command or [account.pw_shell if account else os.environ.get("SHELL", "/bin/sh")])
    if shutil.which(words[0]) is None and "/" not in words[0]:
        print(f"ikeway run: {words[0]}: not found", file=sys.stderr)
        raise typer.Exit(_NOT_FOUND)
    forwards = (*map(Forward.publish, publish or ()), *map(Forward.reach, reach or ()))
    prompt = terminal_prompt() if ask else None
    loaded = load_profile(profile, prompt)
    traces = TraceSettings(keylog=keylog, pcap=pcap)
    settings = _Settings(loaded, forwards, prompt, traces, quiet, verbose, log_format, log_file)
    engines, keepers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    engine = os.fork()
    if engine == 0:
        keepers.close()
        _engine(engines, settings)
    engines.close()
    raise typer.Exit(Keeper(keepers, Front(engine, words, account)).run())


@dataclass(frozen=True, slots=True)
class _Settings:
    profile: Profile
    forwards: tuple[Forward, ...]
    prompt: Prompt | None
    traces: TraceSettings
    quiet: bool
    verbose: int
    log_format: LogFormat
    log_file: Path | None

    @property
    def stays_silent(self) -> bool:
        """The terminal is the command's: what we say there would be in the midst of its words."""
        return self.log_file is None and not self.verbose and sys.stderr.isatty()


def _engine(control: socket.socket, settings: _Settings) -> NoReturn:
    """The process that was forked off; does not return."""
    from ikeway.errors import IkewayError

    code = 1
    try:
        # The keeper stops for the shell; who carries IKE and ESP must not, and inherits this.
        for number in (signal.SIGQUIT, signal.SIGTSTP):
            signal.signal(number, signal.SIG_IGN)
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)  # the command's: whoever reads it is to see the end of it when the command ends
        set_up_log(settings.log_format, settings.verbose, settings.log_file, quiet=True)
        code = 0 if asyncio.run(_connect(control, settings)) else INTERRUPTED
    except IkewayError as error:
        code = exit_code(error)
        print(printable(explain(error)), file=sys.stderr)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BaseException as error:  # nobody is above us to tell
        print(f"error: {type(error).__name__}: {error}; this is a defect of Ikeway", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


async def _connect(control: socket.socket, settings: _Settings) -> bool:
    """Connect, start the command, and stay until it ends. False when it was interrupted before."""
    from ikeway.cli.progress import Steps, terminal_show
    from ikeway.client.enclave.enclave import Enclave
    from ikeway.client.enclave.forward import forwarding
    from ikeway.daemon.trace import Trace

    enclave = Enclave(control)
    show = terminal_show(sys.stderr) if not settings.quiet else lambda step, text: None
    try:
        if not await enclave.entered():
            show("warning", "this host has no /etc/resolv.conf: names will not be found inside")
        for warning in settings.profile.warnings:
            show("warning", warning)
        with Trace(settings.traces) as trace:
            async with forwarding(enclave, settings.forwards):
                return await _stay(enclave, settings, Steps(show, payloads=settings.verbose > 0), trace)
    finally:
        await enclave.close()


async def _stay(enclave: Enclave, settings: _Settings, steps: Steps, trace: Trace) -> bool:
    from ikeway.cli.attended import attended, describe, start_client

    prompt = _Prompt(settings.prompt)
    asking = prompt if settings.prompt is not None else None
    async with attended(settings.profile, steps, trace, asking, enclave=enclave) as client:
        if not await start_client(client):
            return False
        if not client.configuration or not client.configuration.dns_servers:
            steps.show("warning", "the gateway told of no name server: names will not be found inside")
        steps.show("up", describe(client))
        prompt.over = True
        for number in (signal.SIGINT, signal.SIGHUP):  # the command's from now on
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        if settings.stays_silent:
            steps.silence()
            logging.getLogger("ikeway").setLevel(logging.CRITICAL)
        await _until_one_ends(client, enclave)
    return True


async def _until_one_ends(client: Client, enclave: Enclave) -> None:
    """The command, the connection for good (its error is raised), or the keeper."""
    command = await enclave.start_command()
    ends = [asyncio.ensure_future(each) for each in (command.wait(), client.wait(), enclave.ended.wait())]
    try:
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if ends[1] in done:
            ends[1].result()
    finally:
        for each in ends:
            each.cancel()
        await asyncio.gather(*ends, return_exceptions=True)


class _Prompt:
    """Asks until the terminal is the command's."""

    def __init__(self, prompt: Prompt | None) -> None:
        self._prompt = prompt
        self.over = False

    def __call__(self, words: str) -> str:
        """Ask (`ConfigError` when it is too late)."""
        from ikeway.errors import ConfigError

        if self.over or self._prompt is None:
            raise ConfigError(
                "a password is asked for anew, and the terminal is the command's",
                expected="a password from a file, a command or the keyring",
                remedy="name it in [login] of the profile",
            )
        return self._prompt(words)

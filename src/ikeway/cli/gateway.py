"""`ikeway gateway ...`: serve VPN clients."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ikeway.cli.errors import guarded
from ikeway.cli.options import KeyLogFile, LogFile, LogFormat, LogFormatOption, PcapFile, Verbose, set_up_log

if TYPE_CHECKING:
    from ikeway.daemon.trace import Trace
    from ikeway.gateway.config import GatewayConfig
    from ikeway.gateway.server import Gateway

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")

Config = Annotated[
    Path | None,
    typer.Argument(help="The configuration; by default /etc/ikeway/gateway.toml.", show_default=False),
]
Name = Annotated[
    str | None,
    typer.Option(
        "--gateway", "-g", metavar="NAME", help="Which gateway (the name of its configuration), if several run."
    ),
]


@app.callback()
def gateway() -> None:
    """Serve VPN clients: those built into iOS, macOS, Windows and Android, strongSwan, Ikeway itself.

    [bold]Examples[/bold]

      ikeway gateway check gateway.toml      find every mistake before it matters

      ikeway gateway run gateway.toml

      ikeway gateway status
    """


@app.command()
@guarded
def run(
    config: Config = None,
    verbose: Verbose = 0,
    log_format: LogFormatOption = LogFormat.TEXT,
    log_file: LogFile = None,
    keylog: KeyLogFile = None,
    pcap: PcapFile = None,
) -> None:
    """Run a gateway, until Ctrl-C. SIGHUP reads the configuration anew (`ikeway gateway reload`).

    What goes into the configuration tells `ikeway reference gateway`.

    [bold]Examples[/bold]

      ikeway gateway run                              /etc/ikeway/gateway.toml

      ikeway gateway run gateway.toml --log-format json

      ikeway gateway run gateway.toml -vv             every message, decrypted
    """
    from ikeway.daemon.trace import Trace, TraceSettings

    loaded = _load(config)
    set_up_log(log_format, verbose, log_file, quiet=False)
    with Trace(TraceSettings(keylog=keylog, pcap=pcap)) as trace:
        asyncio.run(_run(loaded, trace))


@app.command()
@guarded
def check(config: Config = None) -> None:
    """Check a configuration, with all files that it names: every mistake with its line and the remedy.

    Exit code 0: it is right (there may be warnings). 2: it has mistakes.

    [bold]Example[/bold]

      ikeway gateway check gateway.toml
    """
    loaded = _load(config)
    for warning in loaded.warnings:
        print(f"warning: {warning}")
    names = ", ".join(candidate.name for candidate in loaded.candidates)
    print(f"{loaded.path}: right; connections: {names}")


@app.command()
@guarded
def status(
    name: Name = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object, for machines.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it until Ctrl-C.")] = False,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="With --watch: how often.")] = 1.0,
) -> None:
    """Show who is connected, pools, and counters.

    [bold]Examples[/bold]

      ikeway gateway status

      ikeway gateway status --watch

      ikeway gateway status --json | jq '.sessions[].eap_identity'
    """
    from ikeway.cli import show_status
    from ikeway.cli.running import gateway as find

    if watch:
        show_status.watch(find(name), seconds, as_json=as_json)
    else:
        show_status.once([find(name)], as_json=as_json)


@app.command()
@guarded
def terminate(
    session: Annotated[
        str, typer.Argument(help="The number of a session, or the name of its user.", show_default=False)
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="End all sessions.")] = False,
    name: Name = None,
) -> None:
    """End sessions. Clients may connect again, unless their user is disabled.

    [bold]Examples[/bold]

      ikeway gateway terminate 17

      ikeway gateway terminate alice@example.com

      ikeway gateway terminate --all
    """
    if bool(session) == everything:
        raise typer.BadParameter("name a session or a user, or say --all")
    ended = _call(name, "terminate", all=True) if everything else _call(name, "terminate", session=session)
    print(f"ended: {', '.join(map(str, ended['ended'])) or 'none'}")


@app.command()
@guarded
def rekey(
    session: Annotated[str, typer.Argument(help="The number of a session, or the name of its user.")],
    ike: Annotated[bool, typer.Option("--ike", help="The IKE SA in place of the child SAs.")] = False,
    name: Name = None,
) -> None:
    """Renew the keys of a session now.

    [bold]Examples[/bold]

      ikeway gateway rekey 17

      ikeway gateway rekey alice@example.com --ike
    """
    begun = _call(name, "rekey", session=session, what="ike" if ike else "child")["begun"]
    print(f"renewing {', '.join(begun)}")


@app.command()
@guarded
def reload(name: Name = None) -> None:
    """Let a running gateway read its configuration and users anew. Sessions go on.

    With a mistake in the files nothing changes, and the mistakes are shown.

    [bold]Example[/bold]

      ikeway gateway reload
    """
    for line in _call(name, "reload")["said"]:
        print(line)
    print("the configuration was read anew")


@app.command()
@guarded
def stop(name: Name = None) -> None:
    """Stop a running gateway: its clients are told, and the host gets its network back.

    [bold]Example[/bold]

      ikeway gateway stop
    """
    from ikeway.cli.running import gateway as find
    from ikeway.cli.running import wait_until_gone

    _call(name := find(name).name, "stop")
    wait_until_gone(find(name))
    print(f"{name} has stopped")


def _load(config: Path | None) -> GatewayConfig:
    from ikeway.client.secrets import terminal_prompt
    from ikeway.config.paths import gateway_path
    from ikeway.gateway.config import load_gateway_config

    return load_gateway_config(config or gateway_path(), terminal_prompt())


def _call(name: str | None, command: str, **arguments: object) -> dict[str, list[str]]:
    from ikeway.cli.running import gateway as find
    from ikeway.daemon.control import ControlClient

    with ControlClient(find(name).path) as control:
        answer: dict[str, list[str]] = control.call(command, **arguments)
        return answer


async def _run(config: GatewayConfig, trace: Trace) -> None:
    from ikeway.daemon.control import ControlServer, socket_path
    from ikeway.gateway.control import GatewayControl
    from ikeway.gateway.server import Gateway

    control = GatewayControl()
    server = ControlServer(socket_path("gateway", config.path.stem), control.commands)
    await server.start()
    try:
        running = Gateway(config, observers=[trace.observe, control.observe], drop_privileges=True)
        starting = asyncio.create_task(running.start())
        tasks = _heed_signals(running, starting)
        await starting
        if starting.cancelling():  # it came up all the same: something below has swallowed the cancellation
            await running.close()
            return
        control.attach(running)
        _say_ready(running)
        await running.wait()
        await asyncio.gather(*tasks, return_exceptions=True)
    except asyncio.CancelledError:  # a signal came before it was ready
        return
    finally:
        await server.close()


def _heed_signals(running: Gateway, starting: asyncio.Task[None]) -> set[asyncio.Task[None]]:
    """Stop on SIGINT and SIGTERM, reload on SIGHUP."""
    tasks: set[asyncio.Task[None]] = set()

    def stop() -> None:
        if starting.done():
            tasks.add(asyncio.create_task(running.close()))
        else:
            starting.cancel()

    def reload() -> None:
        if starting.done():
            tasks.add(asyncio.create_task(_reload(running)))

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, reload)
    return tasks


async def _reload(running: Gateway) -> None:
    import logging

    from ikeway.daemon.log import error_fields, event
    from ikeway.errors import ConfigError, ConfigErrors, IkewayError

    log = logging.getLogger("ikeway.gateway")
    try:
        for line in await running.reload():
            event(log, logging.WARNING, "reload", line)
        event(log, logging.INFO, "reloaded", "the configuration was read anew")
    except ConfigError as error:
        for each in error.errors if isinstance(error, ConfigErrors) else [error]:
            event(log, logging.ERROR, "reload-failed", f"the old configuration stays: {each}", error_fields(each))
    except IkewayError as error:
        event(
            log,
            logging.ERROR,
            "reload-failed",
            f"the configuration could not take effect: {error}",
            error_fields(error),
        )


def _say_ready(running: Gateway) -> None:
    """Tell people, machines, and systemd (sd_notify(3)) that clients can come."""
    import logging

    from ikeway.daemon.log import event
    from ikeway.daemon.notify import notify_ready

    config = running.config
    where = ", ".join(f"{address} (UDP {config.port} and {config.nat_port})" for address in config.listen)
    names = ", ".join(candidate.name for candidate in config.candidates)
    log = logging.getLogger("ikeway.gateway")
    for warning in config.warnings:
        event(log, logging.WARNING, "warning", warning)
    fields = {"interface": running.interface, "listen": config.listen, "connections": names}
    event(log, logging.INFO, "serving", f"serving {names} on {where}, tunnel interface {running.interface}", fields)
    notify_ready()

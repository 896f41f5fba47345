"""The command line. One file a command; a command's file, and what it needs, is only imported when it is called."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Sequence

import typer

# The commands in the order of `ikeway --help`: name -> module. A module has `app`, a Typer with one command or several.
COMMANDS = {
    "up": "ikeway.cli.up",
    "run": "ikeway.cli.run",
    "proxy": "ikeway.cli.proxy",
    "down": "ikeway.cli.down",
    "status": "ikeway.cli.status",
    "rekey": "ikeway.cli.rekey",
    "gateway": "ikeway.cli.gateway",
    "user": "ikeway.cli.user",
    "pki": "ikeway.cli.pki",
    "doctor": "ikeway.cli.doctor",
    "bench": "ikeway.cli.bench",
    "demo": "ikeway.cli.demo",
    "proposals": "ikeway.cli.proposals",
    "decode": "ikeway.cli.decode",
    "probe": "ikeway.cli.probe",
    "workbench": "ikeway.cli.workbench",
    "reference": "ikeway.cli.reference",
}
_GROUPS = frozenset({"gateway", "pki", "user", "workbench"})

_HELP = """
Ikeway connects to IKEv2/IPsec VPNs, and serves them.

[bold]Examples[/bold]

  ikeway up work                     connect with the profile `work`

  ikeway status --watch              see what the tunnels do

  ikeway gateway run gateway.toml    serve VPN clients

  ikeway demo                        a client, a gateway and real traffic between them

[bold]Exit codes[/bold]: 0 done; 1 it failed in another way; 2 wrong command line or configuration; 3 a login was
refused; 4 no agreement with the peer; 5 the peer does not answer; 6 this host refused (rights, devices, ports);
130 interrupted.
"""


def build(only: str | None = None) -> typer.Typer:
    """The command line, whole or with one command only: importing ten of them takes longer than connecting."""
    app = typer.Typer(
        name="ikeway",
        help=_HELP,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_global_options)
    for name, module in COMMANDS.items():
        if only in {None, name}:
            inner: typer.Typer = importlib.import_module(module).app
            if name in _GROUPS:
                app.add_typer(inner, name=name)
            else:
                app.registered_commands += inner.registered_commands
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        from ikeway import __version__

        print(f"ikeway {__version__}")
        raise typer.Exit


def _global_options(
    version: bool = typer.Option(False, "--version", help="Show the version.", callback=_show_version, is_eager=True),
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line (that of the process when none is given) and exit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = words[0] if words and words[0] in COMMANDS else None
    gc.set_threshold(100_000)  # what imports make stays; looking for garbage in it takes a tenth of a start
    build(command)(words, prog_name="ikeway")

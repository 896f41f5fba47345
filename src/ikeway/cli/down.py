"""`ikeway down`: disconnect."""

from __future__ import annotations

from typing import Annotated

import typer

from ikeway.cli.errors import guarded

app = typer.Typer()


@app.command()
@guarded
def down(
    profile: Annotated[
        str | None, typer.Argument(help="The profile; by default the one that is up.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Disconnect all that are up.")] = False,
) -> None:
    """Disconnect, and give the host its network back.

    [bold]Examples[/bold]

      ikeway down work

      ikeway down --all
    """
    from ikeway.cli.running import clients, wait_until_gone
    from ikeway.daemon.control import ControlClient

    for client in clients(profile, everything=everything):
        with ControlClient(client.path) as control:
            control.call("down")
            wait_until_gone(client)
        print(f"{client.name} is down")

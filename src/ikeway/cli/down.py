"""`ikeway down`: disconnect."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from ikeway.cli.errors import guarded
from ikeway.errors import HostError

app = typer.Typer()


@app.command()
@guarded
def down(
    profile: Annotated[
        str | None, typer.Argument(help="The profile; by default the one that is up.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Disconnect all that are up.")] = False,
) -> None:
    """Disconnect, and give the host its network back, also after a client that was killed.

    [bold]Examples[/bold]

      ikeway down work

      ikeway down --all
    """
    from ikeway.cli.running import clients, wait_until_gone
    from ikeway.daemon.control import ControlClient, running

    try:
        for client in clients(profile, everything=everything):
            with ControlClient(client.path) as control:
                control.call("down")
                wait_until_gone(client)
            print(f"{client.name} is down")
    except HostError:
        several = profile is None and running("client")
        if several or not _clean_up():
            raise


def _clean_up() -> bool:
    """Undo what killed ones have left. True when there was something."""
    from ikeway.host import recover_stale

    undone = [change for each in asyncio.run(recover_stale()) for change in each.undone]
    if undone:
        print(f"cleaned up after a client or gateway that was killed: {'; '.join(undone)}")
    return bool(undone)

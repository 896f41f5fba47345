"""`ikeway status`: what the tunnels do."""

from __future__ import annotations

from typing import Annotated

import typer

from ikeway.cli.errors import guarded

app = typer.Typer()


@app.command()
@guarded
def status(
    name: Annotated[
        str | None, typer.Argument(help="A profile or a gateway; by default all that run.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each, for machines.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it until Ctrl-C.")] = False,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="With --watch: how often.")] = 1.0,
) -> None:
    """Show the clients and gateways that run: addresses, keys, traffic.

    [bold]Examples[/bold]

      ikeway status

      ikeway status work --watch

      ikeway status --json | jq .sessions

      ikeway status work --json --watch      one JSON object a second
    """
    from ikeway.cli import show_status
    from ikeway.daemon.control import running
    from ikeway.errors import HostError

    found = [each for each in running() if name in {None, each.name}]
    if not found:
        what = f"the client {name!r} does not run" if name else "no client and no gateway runs"
        raise HostError(what, remedy="start one with `ikeway up`, or run this as the user who did")
    if watch and len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise HostError(f"several run: {names}", remedy="name one of them to watch it")
    if watch:
        show_status.watch(found[0], seconds, as_json=as_json)
    else:
        show_status.once(found, as_json=as_json)

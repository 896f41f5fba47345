"""`ikeway rekey`: renew keys now."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from ikeway.cli.errors import guarded

app = typer.Typer()


class What(enum.StrEnum):
    """What can be renewed."""

    CHILD = "child"
    IKE = "ike"
    LOGIN = "login"


@app.command()
@guarded
def rekey(
    what: Annotated[
        What, typer.Argument(help="The child SAs (traffic), the IKE SA, or all by logging in anew.")
    ] = What.CHILD,
    profile: Annotated[
        str | None, typer.Argument(help="The profile; by default the one that is up.", show_default=False)
    ] = None,
    child: Annotated[str, typer.Option("--child", help="With `child`: only the child SA of this name.")] = "",
) -> None:
    """Renew keys now, without losing a packet.

    Keys are renewed by themselves too (`rekey` in the profile's sections `ike` and `esp`).

    [bold]Examples[/bold]

      ikeway rekey                     the child SAs of the client that is up

      ikeway rekey ike work            the IKE SA of `work`

      ikeway rekey child work --child voice
    """
    from ikeway.cli.running import clients
    from ikeway.daemon.control import ControlClient

    for client in clients(profile):
        with ControlClient(client.path) as control:
            begun = control.call("rekey", what=what.value, child=child)["begun"]
        print(f"{client.name}: renewing {', '.join(begun)}")

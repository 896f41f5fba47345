"""`ikeway probe`: what does this gateway speak?"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from ikeway.cli.errors import guarded, printable

app = typer.Typer()


@app.command()
@guarded
def probe(
    host: Annotated[str, typer.Argument(help="One gateway, by name or address.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="The gateway's IKE port.")] = 500,
    nat_port: Annotated[int, typer.Option("--nat-port", min=1, max=65535, help="Its port for NAT traversal.")] = 4500,
    rate: Annotated[float, typer.Option("--rate", help="Datagrams a second, at the most 50.")] = 10.0,
    patience: Annotated[float, typer.Option("--patience", help="Seconds to wait for the first answer.")] = 2.0,
    identity: Annotated[
        str, typer.Option("--identity", help="Who we say we are when we ask for its certificate.")
    ] = "probe@ikeway.invalid",
    quick: Annotated[bool, typer.Option("--quick", help="Do not ask for each transform by itself.")] = False,
    no_authentication: Annotated[
        bool, typer.Option("--no-authentication", help="Send no IKE_AUTH: its certificate and identity stay unknown.")
    ] = False,
    no_ikev1: Annotated[bool, typer.Option("--no-ikev1", help="Do not ask whether it speaks IKEv1.")] = False,
) -> None:
    """Ask one gateway what it speaks: ports, versions, proposals transform by transform, vendor IDs, fragmentation, NAT,
    cookies, redirect, what it shows of itself before a log-in, and what is weak in all that.

    One exchange a question, at a bounded rate; nearly all are such that the gateway keeps nothing of us. Ask only gateways
    that you are responsible for. Networks and ranges are refused.

    Exit code 0 when something answered, whatever it said; 5 when nothing did.

    [bold]Examples[/bold]

      ikeway probe vpn.example.com

      ikeway probe --quick 192.0.2.1

      ikeway probe --json vpn.example.com | jq '.weaknesses[]'
    """
    from ikeway.workbench.probe import ProbeSettings
    from ikeway.workbench.probe import probe as ask

    settings = ProbeSettings(
        port=port,
        nat_port=nat_port,
        rate=rate,
        patience=patience,
        identity=identity,
        transforms=not quick,
        authentication=not no_authentication,
        ikev1=not no_ikev1,
    )
    if as_json:
        print(json.dumps(ask(host, settings).to_json(), indent=2))
        return
    from rich.console import Console

    with Console(file=sys.stderr).status("probing") as status:
        report = ask(host, settings, lambda what: status.update(f"probing: {what}"))
    print(printable(report.to_text()))

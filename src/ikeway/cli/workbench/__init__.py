"""`ikeway workbench`: stand-in peers, recordings, and what becomes of them."""

from __future__ import annotations

import typer

from ikeway.cli.workbench import peers, recordings

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""For protocol engineers: stand-in peers that show every plaintext, and recordings (docs/workbench.md).

[bold]Examples[/bold]

  ikeway workbench serve --record client.ikr          what does this client say?

  ikeway workbench connect vpn.example.com --eap --identity alice@example.com

  ikeway workbench show client.ikr
""",
)
app.registered_commands += [*peers.app.registered_commands, *recordings.app.registered_commands]

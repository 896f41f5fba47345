"""`ikeway demo`: a client, a gateway and real traffic between them, on this machine, and nothing left behind."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from ikeway.cli.errors import guarded
from ikeway.cli.options import KeyLogFile, PcapFile

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer()


@app.command()
@guarded
def demo(
    megabytes: Annotated[
        int, typer.Option("--megabytes", "-m", min=1, max=1000, help="The size of the download.")
    ] = 20,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show all that both programs log.")] = False,
    keylog: KeyLogFile = None,
    pcap: PcapFile = None,
) -> None:
    """Show an IKEv2 client and gateway at work: log-in, traffic, rekeying, a change of network.

    Everything runs in network namespaces of its own, with root or without, and takes under a minute. The exit code is 0
    when all went well. Nothing is left behind.

    [bold]Examples[/bold]

      ikeway demo

      ikeway demo -v                                       with every message of both sides, decrypted

      ikeway demo --pcap demo.pcapng --keylog demo.keys    to look at in Wireshark
    """
    from ikeway.host.checks import check_device
    from ikeway.host.namespaces import isolate

    check_device()
    options = ["-vv" if verbose else "-v"]
    for name, path in (("--keylog", keylog), ("--pcap", pcap)):
        options += [name, str(path.absolute())] if path is not None else []
    is_root = os.geteuid() == 0
    isolate()
    os.environ["IKEWAY_RUNTIME_DIR"] = "/run/ikeway"
    raise typer.Exit(_play(megabytes, verbose=verbose, options=tuple(options), is_root=is_root))


def _play(megabytes: int, *, verbose: bool, options: tuple[str, ...], is_root: bool) -> int:
    from rich.console import Console

    from ikeway.cli.demo.stage import Stage
    from ikeway.cli.demo.story import Settings, Story
    from ikeway.cli.errors import exit_code, explain
    from ikeway.errors import IkewayError

    started = time.monotonic()
    console = Console(highlight=False, soft_wrap=True)
    narrator = _Narrator(console)
    narrator.act("Four hosts in namespaces of their own" + (" (as root)" if is_root else " (without root)"))
    with Stage(megabytes) as stage:
        narrator.tell("client --(wifi, mobile)-- internet -- gateway -- web")
        story = Story(stage, Settings(verbose, options), narrator)
        try:
            story.play()
        except IkewayError as error:
            for name, line in story.last_words():
                narrator.quote(name, line)
            console.print("\nThe demonstration failed:", style="bold red")
            console.print(explain(error), markup=False)
            return exit_code(error)
    _summarize(console, story.figures, time.monotonic() - started)
    return 0


def _summarize(console: Console, figures: list[tuple[str, str]], seconds: float) -> None:
    from rich.table import Table

    table = Table(title="Summary", title_justify="left", show_header=False)
    for name, value in figures:
        table.add_row(name, value)
    table.add_row("Everything", f"{seconds:.1f} s", style="bold")
    console.print()
    console.print(table)


class _Narrator:
    """Prints."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def act(self, title: str) -> None:
        """A heading."""
        self._console.print(f"\n{title}", style="bold cyan", markup=False)

    def tell(self, text: str) -> None:
        """A line of ours."""
        self._console.print(f"  {text}", markup=False)

    def quote(self, speaker: str, line: str) -> None:
        """A line of a program."""
        self._console.print(f"    {speaker} | {line}", style="dim", markup=False)

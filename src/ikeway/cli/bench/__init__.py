"""`ikeway bench`: how fast ESP and IKE are on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TextIO

import typer

from ikeway.cli.errors import guarded

app = typer.Typer()


@app.command()
@guarded
def bench(
    suites: Annotated[
        list[str] | None,
        typer.Option(
            "--suite", "-s", help="An ESP proposal; may be given again.  [default: aes128gcm16, chacha20poly1305]"
        ),
    ] = None,
    measures: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            "-m",
            help="tcp, tcp4, udp, small, idle, loaded or handshakes; may be given again.  [default: all]",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.2, max=60, help="Of each measurement.")] = 2.0,
    rounds: Annotated[int, typer.Option(min=1, max=50, help="How often each is made; medians are shown.")] = 3,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all samples to FILE.", show_default=False)
    ] = None,
) -> None:
    """Measure ESP through a tunnel between two namespaces, beside the same without a tunnel, and handshakes in memory.

    One TCP flow, four, datagrams at a rate, small packets, round trips idle and under load. All ways take turns, so that
    a noisy machine treats them alike. Takes no root where user namespaces are allowed, and leaves nothing behind.

    [bold]Examples[/bold]

      ikeway bench

      ikeway bench -m tcp -m loaded -s aes256gcm16 --seconds 5

      ikeway bench --json figures.json
    """
    from ikeway.cli.bench.run import Plan, run, show, write
    from ikeway.host.checks import check_device
    from ikeway.host.namespaces import isolate

    plan = Plan.of(suites or ["aes128gcm16", "chacha20poly1305"], measures, seconds, rounds)
    check_device()
    output = _open(json_file) if json_file is not None else None
    isolate()
    samples = run(plan)
    show(samples)
    if output is not None:
        with output:
            if output.seekable():
                output.truncate(0)
            write(plan, samples, output)


def _open(file: Path) -> TextIO:
    """Before anything is measured, as it may be refused (`HostError`); what is in it stays until there is more."""
    from ikeway.errors import HostError

    try:
        return file.absolute().open("a")
    except OSError as error:
        raise HostError(f"the file {file} cannot be written: {error.strerror}", remedy="name another file") from None

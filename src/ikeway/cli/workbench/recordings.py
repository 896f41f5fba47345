"""`ikeway workbench show`, `export` and `test`: recordings, and what becomes of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ikeway.cli.errors import explain, guarded, printable

if TYPE_CHECKING:
    from ikeway.workbench.recording import Recording

app = typer.Typer()

RecordingFile = Annotated[Path, typer.Argument(help="A recording, as --record writes it.", show_default=False)]
Secrets = Annotated[bool, typer.Option("--secrets", help="Show passwords, AUTH values and key exchange values too.")]


@app.command()
@guarded
def show(recording: RecordingFile, secrets: Secrets = False) -> None:
    """Show the messages of a recording in the clear: every payload by name, both directions.

    [bold]Examples[/bold]

      ikeway workbench show session.ikr

      FORCE_COLOR=1 ikeway workbench show --secrets session.ikr | less -R
    """
    from ikeway.workbench.paint import Painter
    from ikeway.workbench.recording import Note, Plaintext

    loaded = _load(recording)
    painter = Painter(secrets=secrets)
    for each in loaded.entries:
        match each:
            case Plaintext():
                where = (each.message, each.local, each.remote)
                painter.message(*where, sent=each.sent, t=each.t, again=each.again, label=each.label)
            case Note(kind=kind, text=text, t=t, label=label):
                painter.note(kind, text, t, label)
    _end(loaded)


@app.command()
@guarded
def export(
    recording: RecordingFile,
    capture: Annotated[Path, typer.Argument(help="The capture to write (pcapng).", show_default=False)],
    keys: Annotated[
        Path | None, typer.Option("--keys", help="Where the keys go; CAPTURE.keys when not given.", show_default=False)
    ] = None,
) -> None:
    """Export a recording for Wireshark: what was on the wire, each message once more decrypted (interface
    "plaintext"), and a file of keys for Wireshark's tables.

    Wireshark's Decryption Secrets Block has no kind for IKE or ESP, so the keys stand beside the capture.

    [bold]Examples[/bold]

      ikeway workbench export session.ikr session.pcapng

      tshark -r session.pcapng -Y 'frame.interface_name == "plaintext"' -V
    """
    from ikeway.workbench.recording.export import export as write

    loaded = _load(recording)
    beside = keys or capture.with_name(capture.name + ".keys")
    count = write(loaded, capture, beside)
    print(printable(f"{count} packets in {capture}, the keys in {beside}"))
    _end(loaded)


@app.command()
@guarded
def test(
    recording: RecordingFile,
    target: Annotated[Path, typer.Argument(help="The file of tests to write.", show_default=False)],
    title: Annotated[str, typer.Option("--title", help="Its first line.", show_default=False)] = "",
) -> None:
    """Turn a recording into a pytest file: what the peer said then must be opened and read the same way later, and our
    engine must get as far with that peer as it does now.

    [bold]Examples[/bold]

      ikeway workbench test session.ikr tests/test_session.py --title "The client of version 4.10"
    """
    from ikeway.workbench.recording.testcase import write_test

    loaded = _load(recording)
    written = write_test(recording, target, title)
    what = "their log-in" if not written.without_log_in else f"no log-in: {written.without_log_in}"
    print(printable(f"{written.messages} messages in {target}, and {what}"))
    _end(loaded)


def _load(path: Path) -> Recording:
    from ikeway.workbench.recording import load

    loaded = load(path)
    for error in loaded.errors:
        print(printable(explain(error)), file=sys.stderr)
    return loaded


def _end(loaded: Recording) -> None:
    """Exit code 1 when something of the recording was not used."""
    if loaded.errors:
        raise typer.Exit(1)

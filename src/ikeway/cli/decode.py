"""`ikeway decode`: IKE messages in words."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from ikeway.cli.errors import guarded

app = typer.Typer()

MAX_OCTETS = 1 << 30
_IKE_PORTS = frozenset({500, 4500})


@app.command()
@guarded
def decode(
    source: Annotated[
        str,
        typer.Argument(
            help="Octets in hexadecimal, a file (hexadecimal, binary, pcap, pcapng), or - for standard input."
        ),
    ],
    brief: Annotated[bool, typer.Option("--brief", "-b", help="One line a message.")] = False,
    port: Annotated[
        list[int] | None, typer.Option("--port", help="In captures: other ports than 500 and 4500.", show_default=False)
    ] = None,
) -> None:
    """Print IKE messages readable: every payload, by name. Encrypted payloads stay closed.

    [bold]Examples[/bold]

      ikeway decode capture.pcapng

      ikeway decode --brief capture.pcapng

      ikeway decode 2c3d4e5f...          a message in hexadecimal

      xclip -o | ikeway decode -

    Exit code 1 when something is no IKE message: the octet and the reason are said.
    """
    from ikeway.cli.capture import is_capture

    octets = _read(source)
    failed = (
        _decode_capture(octets, _IKE_PORTS | frozenset(port or ()), brief=brief)
        if is_capture(octets)
        else not _show("", _from_text(octets), brief=brief)
    )
    if failed:
        raise typer.Exit(1)


def _decode_capture(octets: bytes, ports: frozenset[int], *, brief: bool) -> bool:
    from ikeway.cli.capture import read_udp

    failed = False
    for packet in read_udp(octets):
        if not {packet.source.port, packet.destination.port} & ports:
            continue
        head = f"packet {packet.number}, {packet.source} to {packet.destination}"
        message = packet.octets
        if 500 not in {packet.source.port, packet.destination.port}:
            # RFC 3948: IKE has four zero octets in front; the rest is ESP or a keepalive.
            if message[:4] != bytes(4):
                continue
            message = message[4:]
        failed |= not _show(head, message, brief=brief)
    return failed


def _show(head: str, octets: bytes, *, brief: bool) -> bool:
    """Print a message. False when it is none."""
    from ikeway.errors import WireError
    from ikeway.wire.message import Message
    from ikeway.wire.render import render, summary

    try:
        message = Message.decode(octets)
    except WireError as error:
        print(f"{head}: {error}" if head else str(error), file=sys.stderr)
        return False
    if brief:
        print(f"{head}: {summary(message)}" if head else summary(message))
    else:
        print(f"{head}\n{render(message)}\n" if head else render(message))
    return True


def _read(source: str) -> bytes:
    from ikeway.errors import ConfigError

    if source == "-":
        return sys.stdin.buffer.read(MAX_OCTETS)
    if _is_file(source):
        try:
            with Path(source).open("rb") as file:
                return file.read(MAX_OCTETS)
        except OSError as error:
            raise ConfigError(f"{source} cannot be read: {error.strerror}", remedy="check its permissions") from None
    if re.fullmatch(r"[0-9A-Fa-f\s:]+", source):
        return source.encode()
    raise ConfigError(f"{source!r} is no file and not hexadecimal", remedy="name a file, or give the octets")


def _is_file(source: str) -> bool:
    try:
        return Path(source).is_file()
    except (OSError, ValueError):  # longer than a name may be, so octets
        return False


def _from_text(octets: bytes) -> bytes:
    """Octets written in hexadecimal (with spaces, colons, 0x) as octets; binary as it is."""
    text = octets.decode("ascii", "replace").strip()
    digits = re.sub(r"[\s:,]|0[xX]", "", text)
    return bytes.fromhex(digits) if digits and re.fullmatch(r"(?:[0-9A-Fa-f]{2})+", digits) else octets

"""Options that several commands have."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer


class LogFormat(enum.StrEnum):
    """What log lines look like."""

    TEXT = "text"
    JSON = "json"


Verbose = Annotated[
    int, typer.Option("--verbose", "-v", count=True, help="Log more; twice: every IKE message, decrypted.")
]
LogFormatOption = Annotated[
    LogFormat,
    typer.Option("--log-format", help="Log lines for people (text) or for machines (json, one object a line)."),
]
LogFile = Annotated[
    Path | None, typer.Option("--log-file", metavar="FILE", help="Log to this file instead of standard error.")
]
KeyLogFile = Annotated[
    Path | None,
    typer.Option(
        "--keylog",
        metavar="FILE",
        help="Write all session keys to FILE, for Wireshark. Whoever has the file can read the traffic.",
    ),
]
PcapFile = Annotated[
    Path | None,
    typer.Option("--pcap", metavar="FILE", help="Write the IKE messages that go and come to FILE (pcapng)."),
]


def set_up_log(format: LogFormat, verbose: int, file: Path | None, *, quiet: bool) -> None:
    """Begin to log. `quiet`: without -v only warnings, as the command itself tells how it goes."""
    import logging

    from ikeway.daemon import log

    usual = logging.WARNING if quiet and format is LogFormat.TEXT else logging.INFO
    level = logging.DEBUG if verbose > 1 else logging.INFO if verbose else usual
    log.set_up(format="json" if format is LogFormat.JSON else "text", level=level, file=file)

"""Errors at the command line: what is printed, and which exit code they give."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer

from ikeway.errors import (
    AuthenticationFailed,
    ConfigError,
    ConfigErrors,
    HostError,
    IkewayError,
    NegotiationFailed,
    PeerUnreachable,
    ProtocolViolation,
)

P = ParamSpec("P")
R = TypeVar("R")

INTERRUPTED = 130
_CODES: tuple[tuple[type[IkewayError], int], ...] = (
    (ConfigError, 2),
    (AuthenticationFailed, 3),
    (NegotiationFailed, 4),
    (ProtocolViolation, 4),
    (PeerUnreachable, 5),
    (HostError, 6),
)


def exit_code(error: IkewayError) -> int:
    """The exit code of an error; they are listed in `ikeway --help` and docs/commands.md."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), 1)


def explain(error: IkewayError) -> str:
    """An error in lines for a person at a terminal."""
    if isinstance(error, ConfigError):
        return "\n".join(map(_config_lines, error.errors if isinstance(error, ConfigErrors) else [error]))
    lines = [f"error: {error.reason}{error.place}"]
    lines += [f"  expected: {error.expected}"] if error.expected else []
    lines += [f"  got: {error.got}"] if error.got else []
    lines += [f"  to mend it, on {error.side.value}: {error.remedy}"] if error.remedy else []
    return "\n".join(lines)


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Let a command end with a message and an exit code in place of a traceback."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except IkewayError as error:
            print(printable(explain(error)), file=sys.stderr)
            raise typer.Exit(exit_code(error)) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # the reader of our output has gone: `ikeway decode ... | head`
            sys.stderr.close()
            raise typer.Exit(0) from None

    return run


def printable(text: str) -> str:
    """Text that cannot command the terminal; lines stay lines."""
    from ikeway.daemon.log import escape

    return "\n".join(escape(line) for line in text.split("\n"))


def _config_lines(error: ConfigError) -> str:
    place = f"{error.file}:{error.line}: " if error.line else f"{error.file}: " if error.file else "error: "
    lines = [f"{place}{error.reason}"]
    lines += [f"  expected: {error.expected}"] if error.expected else []
    lines += [f"  got: {error.got}"] if error.got else []
    lines += [f"  to mend it: {error.remedy}"] if error.remedy else []
    return "\n".join(lines)

"""What `ikeway up` shows while it connects: one line a step."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from ikeway.daemon.log import escape
from ikeway.ike import events as ike
from ikeway.wire.render import summary

if TYPE_CHECKING:
    from ikeway.client.client import Progress
    from ikeway.daemon.runner import Runner
    from ikeway.wire.message import Message

_WIDTH = 12
_DIM, _GREEN, _YELLOW, _PLAIN = "\x1b[2m", "\x1b[32m", "\x1b[33m", "\x1b[0m"
_COLOURS = {"up": _GREEN, "established": _GREEN, "lost": _YELLOW, "retry": _YELLOW, "network": _YELLOW}

Show = Callable[[str, str], None]  # step, text


def terminal_show(stream: TextIO | None = None) -> Show:
    """Prints steps to standard output, or another stream, in colour on a terminal that wants it."""
    stream = stream or sys.stdout
    coloured = stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    def show(step: str, text: str) -> None:
        padded = f"{step:<{_WIDTH}}"
        if coloured:
            padded = f"{_COLOURS.get(step, _DIM)}{padded}{_PLAIN}"
        try:
            print(f"{padded} {escape(text)}", file=stream, flush=True)
        except OSError:  # nobody reads any more (`| head`, a terminal that is gone): no reason to cut the tunnel
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)

    return show


class Steps:
    """Turns what a client and its engine tell into lines. Give `tell` and `observe` to the client."""

    def __init__(self, show: Show, *, payloads: bool = False) -> None:
        """`payloads`: name every payload of the messages too."""
        self._show = show
        self._payloads = payloads
        self.connecting = True  # messages are shown until it is up

    def silence(self) -> None:
        """Show nothing any more."""
        self._show = lambda step, text: None

    def show(self, step: str, text: str) -> None:
        """Show a step of somebody else."""
        self._show(step, text)

    def tell(self, progress: Progress) -> None:
        """A step of the client."""
        if progress.step == "lost":
            self.connecting = True
        elif progress.step == "up":
            self.connecting = False
        self._show(progress.step, progress.text)

    def observe(self, runner: Runner) -> None:
        """Hear what the engine does."""
        runner.driver.listen(self._on_event)

    def _on_event(self, event: ike.Event) -> None:
        if not self.connecting:
            return
        match event:
            case ike.MessageSent(message=message, remote=remote, retransmission=0):
                self._show("sent", f"{self._words(message)} to {remote}")
            case ike.MessageReceived(message=message, remote=remote):
                self._show("received", f"{self._words(message)} from {remote}")

    def _words(self, message: Message) -> str:
        words = summary(message)
        return words if self._payloads else words.partition(" {")[0]

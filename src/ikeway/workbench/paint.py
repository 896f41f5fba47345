"""Shows messages on a terminal, with colours where it has them (rich)."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from ikeway.address import Address
from ikeway.wire.message import Message
from ikeway.workbench.explain import Kind, explain

_STYLES = {
    Kind.HEAD: "bold",
    Kind.MEANING: "italic",
    Kind.PAYLOAD: "",
    Kind.DETAIL: "dim",
    Kind.UNKNOWN: "bold yellow",
    Kind.UNKNOWN_DETAIL: "bold yellow",
    Kind.SECRET: "magenta",
}
_INDENT = {
    Kind.HEAD: 0,
    Kind.MEANING: 4,
    Kind.PAYLOAD: 4,
    Kind.DETAIL: 8,
    Kind.UNKNOWN: 4,
    Kind.UNKNOWN_DETAIL: 8,
    Kind.SECRET: 8,
}


class Painter:
    """Writes to a console. `secrets`: passwords, AUTH values and key exchange values are shown."""

    def __init__(self, console: Console | None = None, *, secrets: bool = False) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.secrets = secrets

    def message(
        self,
        message: Message,
        local: Address,
        remote: Address,
        *,
        sent: bool,
        t: float,
        again: int = 0,
        label: str = "",
    ) -> None:
        """One message; a repetition is told in one line."""
        arrow, colour = ("-->", "cyan") if sent else ("<--", "green")
        where = f"{label + ' ' if label else ''}{t:9.3f} {local} {arrow} {remote}  "
        if again:
            self._line(f"{where}message {message.message_id} again ({again})", "dim")
            return
        first, *others = explain(message, secrets=self.secrets)
        head = Text(where, colour)
        head.append(first.text, f"bold {colour}")
        self.console.print(head)
        for line in others:
            self._line(" " * _INDENT[line.kind] + line.text, _STYLES[line.kind])

    def note(self, kind: str, text: str, t: float, label: str = "") -> None:
        """What the workbench did, or an error."""
        where = f"{label + ' ' if label else ''}{t:9.3f} "
        style = "bold red" if kind == "error" else "bold yellow" if kind in {"held", "changed"} else "yellow"
        for number, line in enumerate(text.splitlines() or [""]):
            self._line(f"{where}{kind}: {line}" if number == 0 else f"{'':>{len(where) + 1}}{line}", style)

    def say(self, text: str) -> None:
        """Something to the engineer, as it stands."""
        for line in text.splitlines():
            self._line(line, "yellow")

    def _line(self, text: str, style: str) -> None:
        self.console.print(Text("".join(each if each.isprintable() else "?" for each in text), style))

"""`ikeway status --watch`: what the tunnels carry at the moment, with a graph of the last minute.

On a terminal one picture that changes; elsewhere one line a report, so that a pipe or a log keeps them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from rich.console import Console, ConsoleDimensions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ikeway.cli.rates import Rate, Rates, sparkline
from ikeway.cli.show_status import counted, duration, head, line, plain, pool_lines, render, session_lines
from ikeway.daemon.status import ChildStatus, SessionStatus, Status

_BESIDE_SESSIONS = 14  # lines of a picture that are no sessions
_BESIDE_GRAPH = 51  # columns
_FEWEST = 3


def show(console: Console, reports: Iterable[Status]) -> None:
    """Show one report after another, until there are no more."""
    rates = Rates()
    if not console.is_terminal or console.is_dumb_terminal:
        for number, status in enumerate(reports):
            rates.update(status, time.monotonic())
            if number == 0:
                console.print(render(status))
            for text in lines(status, rates, time.strftime("%H:%M:%S")):
                console.print(text, soft_wrap=True)
            console.file.flush()
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:  # its end is the end of a line
        for status in reports:
            rates.update(status, time.monotonic())
            live.update(picture(status, rates, console.size, ascii_only=_is_ascii(console)), refresh=True)


def picture(status: Status, rates: Rates, size: ConsoleDimensions, *, ascii_only: bool = False) -> RenderableType:
    """All that fits on a screen of this size."""
    parts: list[RenderableType] = [head(status)]
    if status.role == "gateway":
        parts += [pool_lines(status), _sessions(status, rates, max(size.height - _BESIDE_SESSIONS, _FEWEST))]
    else:
        for session in status.sessions:
            parts += [session_lines(session), _children(session, rates)]
    parts += [_graph(rates, size.width, inbound=inbound, ascii_only=ascii_only) for inbound in (True, False)]
    parts.append(line("dropped", counted(status.dropped) or "nothing"))
    return Group(*parts)


def lines(status: Status, rates: Rates, clock: str) -> Iterator[Text]:
    """A report in plain lines: one for each child SA of a client, one for a gateway as a whole."""
    dropped = counted(status.dropped)
    end = f", dropped: {dropped}" if dropped else ""
    if status.role == "gateway":
        yield plain(
            f"{clock} {status.name} {status.state}: {len(status.sessions)} sessions, {_words(rates.total)}{end}"
        )
        return
    for session in status.sessions:
        for child in session.children:
            yield plain(f"{clock} {status.name} {child.name}: {_words(rates.of(session, child))}{end}")
    if not any(session.children for session in status.sessions):
        yield plain(f"{clock} {status.name} is {status.state}{end}")


def bits(rate: float) -> str:
    """Bits in a second in a handy unit."""
    for unit in ("bit/s", "kbit/s", "Mbit/s"):
        if rate < 1000:
            return f"{rate:.0f} {unit}" if unit == "bit/s" else f"{rate:.1f} {unit}"
        rate /= 1000
    return f"{rate:.2f} Gbit/s"


def packets(rate: float) -> str:
    """Packets in a second."""
    return f"{rate:.0f} p/s" if rate < 10_000 else f"{rate / 1000:.0f}k p/s"


def _words(rate: Rate) -> str:
    return (
        f"in {bits(rate.bits_in)} ({packets(rate.packets_in)}), out {bits(rate.bits_out)} ({packets(rate.packets_out)})"
    )


def _children(session: SessionStatus, rates: Rates) -> RenderableType:
    table = _table("child SA", "in", "", "out", "", "new keys", "ends", "dropped")
    for child in _busiest_first(session, rates):
        rate = rates.of(session, child)
        table.add_row(
            plain(f"{child.name} ({child.encapsulation})"),
            *_cells(rate),
            _time(child.rekey_in),
            _time(child.expires_in),
            plain(counted(child.dropped) or "-"),
        )
    return table


def _busiest_first(session: SessionStatus, rates: Rates) -> list[ChildStatus]:
    return sorted(session.children, key=lambda child: (-rates.of(session, child).bits, child.name))


def _sessions(status: Status, rates: Rates, most: int) -> RenderableType:
    """The busiest sessions; which, when they are equally busy, is settled by what they have carried and their age."""
    table = _table("session", "user", "from", "addresses", "in", "out", "new keys", "dropped")
    ordered = sorted(
        status.sessions, key=lambda each: (-rates.of(each).bits, -sum(map(_carried, each.children)), -each.age, each.id)
    )
    for session in ordered[:most]:
        dropped = sum(sum(child.dropped.values()) for child in session.children)
        table.add_row(
            str(session.id),
            plain(session.eap_identity or session.remote_identity),
            plain(session.remote),
            plain(", ".join(session.addresses)),
            bits(rates.of(session).bits_in),
            bits(rates.of(session).bits_out),
            _time(session.rekey_in),
            str(dropped) if dropped else "-",
        )
    if len(ordered) > most:
        table.caption = f"the {most} busiest of {len(ordered)} (all of them: --json)"
        table.caption_justify = "left"
    return table if ordered else Text("")


def _carried(child: ChildStatus) -> int:
    return child.octets_in + child.octets_out


def _table(*titles: str) -> Table:
    """Columns with rates stand to the right, so that their digits are one above the other."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, title in enumerate(titles):
        is_rate = title in {"in", "out"} or (title == "" and titles[number - 1] in {"in", "out"})
        table.add_column(title, justify="right" if is_rate else "left", no_wrap=True)
    return table


def _cells(rate: Rate) -> tuple[str, str, str, str]:
    return bits(rate.bits_in), packets(rate.packets_in), bits(rate.bits_out), packets(rate.packets_out)


def _time(seconds: float | None) -> str:
    return f"in {duration(seconds)}" if seconds is not None else "never"


def _graph(rates: Rates, width: int, *, inbound: bool, ascii_only: bool) -> RenderableType:
    values = rates.last_minute(inbound=inbound)[-max(width - _BESIDE_GRAPH, _FEWEST) :]
    now = rates.total.bits_in if inbound else rates.total.bits_out
    return Text.assemble(
        (f"  {'in' if inbound else 'out':<13}", "dim"),
        (sparkline(values, plain=ascii_only), "green" if inbound else "cyan"),
        f" {bits(now)}, highest {bits(max(values))}",
        no_wrap=True,
        overflow="crop",
    )


def _is_ascii(console: Console) -> bool:
    return not console.encoding.startswith("utf")

"""Shows the status of clients and gateways, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ikeway.daemon.control import ControlClient, Instance
from ikeway.daemon.log import escape
from ikeway.daemon.status import ChildStatus, SessionStatus, Status

if TYPE_CHECKING:
    from ikeway.daemon.control import Json

_SESSIONS_SHOWN = 200  # of a gateway; --json has them all


def once(found: Sequence[Instance], *, as_json: bool) -> None:
    """Show each of them once."""
    for instance in found:
        with ControlClient(instance.path) as control:
            _show(Console(), control.call("status"), as_json=as_json)


def watch(instance: Instance, seconds: float, *, as_json: bool) -> None:
    """Show one of them until it ends, or Ctrl-C."""
    with ControlClient(instance.path) as control:
        reports = control.stream("watch", seconds=seconds)
        if as_json:
            for report in reports:
                print(json.dumps(report), flush=True)
            return
        console = Console()
        if not console.is_terminal or console.is_dumb_terminal:  # a pipe keeps them all, one below the other
            for report in reports:
                console.print(render(Status.from_json(report)))
                console.file.flush()
            return
        from rich.live import Live

        with Live(console=console, auto_refresh=False) as live:
            for report in reports:
                live.update(render(Status.from_json(report)), refresh=True)


def render(status: Status) -> RenderableType:
    """A status for people."""
    parts: list[RenderableType] = [_head(status)]
    if status.role == "gateway":
        parts += [_pools(status), _session_table(status.sessions)]
    else:
        for session in status.sessions:
            parts += [_session(session), _child_table(session.children)]
    dropped = {name: count for name, count in status.counters.items() if count}
    if dropped:
        parts.append(_line("counters", ", ".join(f"{name} {count}" for name, count in sorted(dropped.items()))))
    return Group(*parts)


def duration(seconds: float) -> str:
    """Seconds in the two largest units: `2h 5m`."""
    total = int(seconds)
    units = (("d", total // 86400), ("h", total // 3600 % 24), ("m", total // 60 % 60), ("s", total % 60))
    parts = [f"{count}{unit}" for unit, count in units if count]
    return " ".join(parts[:2]) or "0s"


def size(octets: float) -> str:
    """Octets in a handy unit (powers of ten, as network people count)."""
    for unit in ("B", "kB", "MB", "GB"):
        if octets < 1000:
            return f"{octets:.0f} {unit}" if unit == "B" else f"{octets:.1f} {unit}"
        octets /= 1000
    return f"{octets:.1f} TB"


def _show(console: Console, report: Json, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report))
    else:
        console.print(render(Status.from_json(report)))


def _head(status: Status) -> RenderableType:
    colour = "green" if status.state == "up" else "yellow"
    head = Text.assemble(
        (f"{status.role} {status.name}", "bold"),
        " is ",
        (status.state, colour),
        f" for {duration(status.uptime)} (process {status.pid}, ikeway {status.version})",
    )
    lines: list[RenderableType] = [head]
    lines += [_line("error", status.error)] if status.error else []
    if status.interface:
        lines.append(_line("interface", f"{status.interface}, MTU {status.mtu}"))
    for name, values in (("routes", status.routes), ("name servers", status.dns), ("domains", status.domains)):
        lines += [_line(name, ", ".join(values))] if values else []
    if status.role == "gateway":
        lines.append(_line("sessions", f"{len(status.sessions)}, and {status.half_open} logging in"))
    return Group(*lines)


def _session(session: SessionStatus) -> RenderableType:
    nat = f", a NAT before {session.nat}" if session.nat else ""
    mobile = ", MOBIKE" if session.mobike else ""
    return Group(
        _line("gateway", f"{session.remote_identity} at {session.remote}"),
        _line("as", f"{session.eap_identity or session.local_identity} from {session.local}{nat}{mobile}"),
        _line("addresses", ", ".join(session.addresses) or "none"),
        _line("IKE SA", f"{session.suite}, {session.state} for {duration(session.age)}"),
    )


def _child_table(children: Iterable[ChildStatus]) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("child SA", "carries", "received", "sent", "idle", "age", "algorithms"):
        table.add_column(title, overflow="fold")
    for child in children:
        dropped = sum(child.dropped.values())
        table.add_row(
            f"{_plain(child.name)} ({child.encapsulation})",
            _plain(f"{', '.join(child.local)} to {', '.join(child.remote)}"),
            f"{size(child.octets_in)} in {child.packets_in}" + (f", {dropped} dropped" if dropped else ""),
            f"{size(child.octets_out)} in {child.packets_out}",
            duration(child.idle) if child.idle is not None else "never used",
            duration(child.age),
            _plain(child.suite),
        )
    return table


def _session_table(sessions: Sequence[SessionStatus]) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("session", "user", "from", "addresses", "received", "sent", "since", "connection"):
        table.add_column(title, overflow="fold")
    for session in sessions[:_SESSIONS_SHOWN]:
        table.add_row(
            str(session.id),
            _plain(session.eap_identity or session.remote_identity),
            session.remote,
            ", ".join(session.addresses),
            size(sum(child.octets_in for child in session.children)),
            size(sum(child.octets_out for child in session.children)),
            duration(session.age),
            _plain(session.name),
        )
    if len(sessions) > _SESSIONS_SHOWN:
        table.caption = f"and {len(sessions) - _SESSIONS_SHOWN} more (all of them: --json)"
    return table if sessions else Text("")


def _pools(status: Status) -> RenderableType:
    return Group(
        *(_line(f"pool {pool.name}", f"{pool.addresses}: {pool.used} of {pool.size} in use") for pool in status.pools)
    )


def _line(name: str, text: str) -> RenderableType:
    return Text.assemble((f"  {name:<13}", "dim"), _plain(text))


def _plain(text: str) -> Text:
    """Text of a peer: no control characters, no markup."""
    return Text(escape(text))

"""Shows the status of clients and gateways, for people and as JSON."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ikeway.daemon.control import ControlClient, Instance
from ikeway.daemon.log import escape
from ikeway.daemon.status import ChildStatus, RadiusServerStatus, SessionStatus, Status, WorkerStatus

if TYPE_CHECKING:
    from ikeway.daemon.control import Json

_WIDE = 250
_SESSIONS_SHOWN = 200  # of a gateway; --json has them all


def once(found: Sequence[Instance], *, as_json: bool) -> None:
    """Show each of them once."""
    for instance in found:
        with ControlClient(instance.path) as control:
            _show(_console(), control.call("status"), as_json=as_json)


def watch(instance: Instance, seconds: float, *, as_json: bool) -> None:
    """Show one of them until it ends, or Ctrl-C."""
    from ikeway.cli import watch

    with ControlClient(instance.path) as control, contextlib.suppress(KeyboardInterrupt):
        reports = control.stream("watch", seconds=seconds)
        if as_json:
            for report in reports:
                print(json.dumps(report), flush=True)
            return
        watch.show(_console(), (Status.from_json(report) for report in reports))


def _console() -> Console:
    """Standard output. For a pipe or a file, which have no width, tables are as wide as they need to be."""
    boundless = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=_WIDE) if boundless else Console()


def render(status: Status) -> RenderableType:
    """A status for people."""
    parts: list[RenderableType] = [head(status)]
    if status.role == "gateway":
        parts += [pool_lines(status), radius_lines(status), session_table(status.sessions)]
    else:
        for session in status.sessions:
            parts += [session_lines(session), child_table(session.children)]
    for name, counts in (("counters", status.counters), ("dropped", status.dropped)):
        if told := counted(counts):
            parts.append(line(name, told))
    return Group(*parts)


def counted(counts: Mapping[str, int]) -> str:
    """What is not zero, by name: `replayed 2, too-old 1`."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()) if count)


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


def head(status: Status) -> RenderableType:
    """What it is, and what it has done to the host."""
    colour = "green" if status.state == "up" else "yellow"
    head = Text.assemble(
        (f"{status.role} {status.name}", "bold"),
        " is ",
        (status.state, colour),
        f" for {duration(status.uptime)} (process {status.pid}, ikeway {status.version})",
    )
    lines: list[RenderableType] = [head]
    lines += [line("error", status.error)] if status.error else []
    if status.interface:
        lines.append(line("interface", f"{status.interface}, MTU {status.mtu}"))
    for name, values in (("routes", status.routes), ("name servers", status.dns), ("domains", status.domains)):
        lines += [line(name, ", ".join(values))] if values else []
    if status.role == "gateway":
        lines.append(line("sessions", f"{len(status.sessions)}, and {status.half_open} logging in"))
    if len(status.workers) > 1 or any(worker.restarts or worker.pid is None for worker in status.workers):
        lines += [line(f"worker {worker.number}", _worker(worker)) for worker in status.workers]
    return Group(*lines)


def _worker(worker: WorkerStatus) -> str:
    running = f"process {worker.pid}" if worker.pid is not None else "being started"
    again = f", started again {worker.restarts} times" if worker.restarts > 1 else ", started again once"
    return f"{running}, {worker.interface}, {worker.sas} SAs" + (again if worker.restarts else "")


def session_lines(session: SessionStatus) -> RenderableType:
    """One connection of a client."""
    nat = f", a NAT before {session.nat}" if session.nat else ""
    mobile = ", MOBIKE" if session.mobike else ""
    gateway = " and ".join(session.proofs) if len(session.proofs) > 1 else session.remote_identity
    return Group(
        line("gateway", f"{gateway} at {session.remote}"),
        line("as", f"{session.eap_identity or session.local_identity} from {session.local}{nat}{mobile}"),
        line("addresses", ", ".join(session.addresses) or "none"),
        line("IKE SA", f"{session.suite}, {session.state} for {duration(session.age)}{_ahead(session)}"),
    )


def who(session: SessionStatus) -> str:
    """Who a client of a gateway is: of several proofs (RFC 4739) all."""
    if len(session.proofs) > 1:
        return ", ".join(session.proofs)
    return session.eap_identity or session.remote_identity


def _ahead(session: SessionStatus) -> str:
    """What time will do to an IKE SA."""
    told = (("new keys", session.rekey_in), ("a new login", session.login_in))
    return "".join(f", {what} in {duration(seconds)}" for what, seconds in told if seconds is not None)


def child_table(children: Iterable[ChildStatus]) -> RenderableType:
    """The child SAs of a session."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("child SA", "carries", "received", "sent", "idle", "age", "new keys", "algorithms"):
        table.add_column(title, overflow="fold")
    for child in children:
        dropped = sum(child.dropped.values())
        table.add_row(
            f"{plain(child.name)} ({child.encapsulation})",
            plain(f"{', '.join(child.local)} to {', '.join(child.remote)}"),
            f"{size(child.octets_in)} in {child.packets_in}" + (f", {dropped} dropped" if dropped else ""),
            f"{size(child.octets_out)} in {child.packets_out}",
            duration(child.idle) if child.idle is not None else "never used",
            duration(child.age),
            f"in {duration(child.rekey_in)}" if child.rekey_in is not None else "-",
            plain(child.suite),
        )
    return table


def session_table(sessions: Sequence[SessionStatus]) -> RenderableType:
    """The sessions of a gateway."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("session", "user", "from", "addresses", "received", "sent", "since", "connection"):
        table.add_column(title, overflow="fold")
    for session in sessions[:_SESSIONS_SHOWN]:
        table.add_row(
            str(session.id),
            plain(who(session)),
            session.remote,
            ", ".join(session.addresses),
            size(sum(child.octets_in for child in session.children)),
            size(sum(child.octets_out for child in session.children)),
            duration(session.age),
            plain(session.name),
        )
    if len(sessions) > _SESSIONS_SHOWN:
        table.caption = f"and {len(sessions) - _SESSIONS_SHOWN} more (all of them: --json)"
    return table if sessions else Text("")


def pool_lines(status: Status) -> RenderableType:
    """How full the pools are."""
    return Group(
        *(line(f"pool {pool.name}", f"{pool.addresses}: {pool.used} of {pool.size} in use") for pool in status.pools)
    )


def radius_lines(status: Status) -> RenderableType:
    """How the RADIUS servers are."""
    return Group(*(line(f"radius {each.name}", _radius_server(each)) for each in status.radius))


def _radius_server(server: RadiusServerStatus) -> str:
    answered = f"{server.answered} of {server.requests} requests answered"
    last = f", the last one {duration(server.idle)} ago" if server.idle is not None else ""
    dropped = f"; dropped: {counted(server.dropped)}" if server.dropped else ""
    state = f"{server.state} ({server.trouble})" if server.trouble else server.state
    return f"{server.server} {server.role}: {state}, {answered}{last}{dropped}"


def line(name: str, text: str) -> RenderableType:
    """A name and what there is to say of it."""
    return Text.assemble((f"  {name:<13}", "dim"), plain(text))


def plain(text: str) -> Text:
    """Text of a peer: no control characters, no markup."""
    return Text(escape(text))

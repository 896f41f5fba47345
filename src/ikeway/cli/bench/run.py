"""Carries a plan of measurements out, and reports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import signal
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console
from rich.table import Table

import ikeway
from ikeway import native
from ikeway.cli.bench.handshakes import IKE_SUITE, shake_hands
from ikeway.cli.bench.measures import MEASURES, Figure
from ikeway.cli.bench.tunnel import Way, cable, tunnel
from ikeway.errors import ConfigError
from ikeway.ike.proposals import parse_proposals
from ikeway.wire.registry import ProtocolId

HANDSHAKES = "handshakes"

Rows = dict[tuple[str, str, str], dict[str, list[float]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, of what, for how long and how often."""

    suites: tuple[str, ...]
    measures: tuple[str, ...]
    seconds: float
    rounds: int

    @classmethod
    def of(cls, suites: Sequence[str], measures: Sequence[str] | None, seconds: float, rounds: int) -> Plan:
        """Checked. Raises `IkewayError` for an unknown algorithm, `ConfigError` for an unknown measure."""
        known = (*MEASURES, HANDSHAKES)
        for name in measures or ():
            if name not in known:
                raise ConfigError(
                    f"there is no measure {name!r}", expected=", ".join(known), remedy="name one of these"
                )
        for suite in suites:
            parse_proposals(suite, ProtocolId.ESP)
        return cls(tuple(dict.fromkeys(suites)), tuple(measures or known), seconds, rounds)


@dataclass
class Samples:
    """Values by what was measured (title, figure, unit) and of what, in the order in which they came."""

    values: Rows = field(default_factory=dict)

    def add(self, title: str, way: str, figures: Sequence[Figure]) -> None:
        """Take in what one measurement gave."""
        for figure in figures:
            row = self.values.setdefault((title, figure.name, figure.unit), {})
            row.setdefault(way, []).append(figure.value)


def run(plan: Plan) -> Samples:
    """Measure. To be called in namespaces of our own, from the only thread."""
    _end_at_once_on_ctrl_c()
    samples = Samples()
    asyncio.run(_measure(plan, samples))
    return samples


def _end_at_once_on_ctrl_c() -> None:
    """The kernel ends and clears up all that is in the namespaces. The signal comes three times, from the terminal and
    from those who pass it on: in the midst of tidying up, which would show. Where it is ignored it stays so."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


async def _measure(plan: Plan, samples: Samples) -> None:
    between = [name for name in plan.measures if name != HANDSHAKES]
    async with contextlib.AsyncExitStack() as stack:
        ways: list[Way] = []
        if between:
            ways.append(await stack.enter_async_context(cable()))
            ways += [await stack.enter_async_context(tunnel(suite)) for suite in plan.suites]
        for turn in range(plan.rounds):
            for name in between:
                title, measure = MEASURES[name]
                for way in ways:
                    _tell(f"round {turn + 1} of {plan.rounds}: {title}, {way.name}")
                    samples.add(title, way.name, await asyncio.to_thread(measure, way, plan.seconds))
            if HANDSHAKES in plan.measures:
                _tell(f"round {turn + 1} of {plan.rounds}: handshakes")
                samples.add("Handshakes in memory", IKE_SUITE, _handshakes(plan.seconds))
    _tell("")


def _handshakes(seconds: float) -> list[Figure]:
    done = shake_hands(seconds)
    return [
        Figure("initiator", "1/s of a core", done.count / done.initiator_seconds),
        Figure("responder", "1/s of a core", done.count / done.responder_seconds),
        Figure("both in one process", "1/s", done.count / (done.initiator_seconds + done.responder_seconds)),
    ]


def show(samples: Samples) -> None:
    """Print medians as a table."""
    console = Console(soft_wrap=True)
    core = native.status()
    console.print(f"Medians; native core: {core.detail}; load now: {os.getloadavg()[0]:.1f}\n", markup=False)
    between = {key: row for key, row in samples.values.items() if IKE_SUITE not in row}
    if between:
        console.print(_table(between))
    for (title, figure, unit), row in samples.values.items():
        if IKE_SUITE in row:
            console.print(f"{title}, {IKE_SUITE}, {figure}: {_median(row[IKE_SUITE])} {unit}", markup=False)


def _table(values: Rows) -> Table:
    ways = list(dict.fromkeys(way for row in values.values() for way in row))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(("", "", *ways)):
        table.add_column(title, justify="right" if number > 1 else "left", no_wrap=True)
    before = ""
    for (title, figure, unit), row in values.items():
        if title != before:
            table.add_row(title, style="bold")
            before = title
        table.add_row(f"  {figure}", unit, *(_median(row.get(way, [])) for way in ways))
    return table


def write(plan: Plan, samples: Samples, file: TextIO) -> None:
    """Write all samples as JSON."""
    results = [
        {
            "measure": title,
            "figure": figure,
            "unit": unit,
            "of": way,
            "median": statistics.median(values),
            "samples": values,
        }
        for (title, figure, unit), row in samples.values.items()
        for way, values in row.items()
    ]
    about = {
        "ikeway": ikeway.__version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": len(os.sched_getaffinity(0)),
        "native": native.status().used,
        "seconds": plan.seconds,
        "rounds": plan.rounds,
    }
    json.dump({**about, "results": results}, file, indent=1)


def _median(values: Sequence[float]) -> str:
    if not values:
        return "-"
    value = statistics.median(values)
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def _tell(text: str) -> None:
    """Where it is at, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

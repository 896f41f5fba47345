"""`ikeway status --watch`: rates, the graph, what fits on a screen, and how it ends."""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, ConsoleDimensions

from ikeway.cli.rates import GRAPH_SECONDS, Rate, Rates, sparkline
from ikeway.cli.watch import bits, packets, picture, show
from ikeway.daemon.status import SessionStatus, Status
from tests.cli.test_commands import Service, child, session, status


def carrying(octets_in: int, packets_in: int, spi: str = "1", **changes: Any) -> SessionStatus:
    one = child(octets_in=octets_in, packets_in=packets_in, spi_in=spi, octets_out=10, packets_out=1, rekey_in=65.0)
    return dataclasses.replace(session(), children=(dataclasses.replace(one, **changes),))


def client(*sessions: SessionStatus, **changes: Any) -> Status:
    return status("client", "work", sessions=sessions, **changes)


def shown(what: Status, rates: Rates, height: int = 40) -> str:
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    console.print(picture(what, rates, ConsoleDimensions(200, height)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_rate_is_what_came_in_between() -> None:
    rates = Rates()
    rates.update(client(carrying(1000, 10)), 100.0)
    assert rates.total == Rate()
    rates.update(client(carrying(2000, 20)), 102.0)
    assert rates.total == Rate(bits_in=4000.0, packets_in=5.0)
    rates.update(client(carrying(2500, 25)), 102.1)  # an event's report: too soon for a rate
    assert rates.total == Rate(bits_in=4000.0, packets_in=5.0)
    rates.update(client(carrying(3000, 30)), 103.0)
    assert rates.total == Rate(bits_in=8000.0, packets_in=10.0)


def test_new_keys_begin_to_count_anew() -> None:
    rates = Rates()
    rates.update(client(carrying(1_000_000, 1000)), 1.0)
    rates.update(client(carrying(125, 1, spi="2")), 2.0)
    assert rates.total.bits_in == 1000.0
    rates.update(client(), 3.0)
    assert rates.total == Rate()


def test_the_last_minute_has_a_place_for_each_second() -> None:
    rates = Rates()
    assert rates.last_minute(inbound=True) == [0.0] * GRAPH_SECONDS
    octets = 0
    for second, step in enumerate([0, 125, 0, 250]):
        octets += step
        rates.update(client(carrying(octets, 0)), 10.0 + second)
    assert rates.last_minute(inbound=True)[-4:] == [0.0, 1000.0, 0.0, 2000.0]
    for second in range(100):
        rates.update(client(carrying(octets, 0)), 14.0 + second)
    assert rates.last_minute(inbound=True) == [0.0] * GRAPH_SECONDS


def test_a_report_every_few_seconds_fills_all_of_them() -> None:
    rates = Rates()
    for number in range(20):
        rates.update(client(carrying(number * 1250, 0)), number * 10.0)
    assert rates.last_minute(inbound=True) == [1000.0] * GRAPH_SECONDS


def test_a_graph_of_one_line() -> None:
    assert sparkline([]) == ""
    assert sparkline([0.0, 0.0]) == "  "
    assert sparkline([0.0, 1.0, 4.0, 8.0]) == " ▂▅█"
    assert sparkline([0.0, 1.0, 4.0, 8.0], plain=True) == " .=#"


@pytest.mark.parametrize(
    ("rate", "words"),
    [(0, "0 bit/s"), (999, "999 bit/s"), (1500, "1.5 kbit/s"), (2.5e6, "2.5 Mbit/s"), (3e9, "3.00 Gbit/s")],
)
def test_handy_units(rate: float, words: str) -> None:
    assert bits(rate) == words
    assert packets(12_345) == "12k p/s"


def test_a_client_is_shown_with_rates_lifetimes_and_drops() -> None:
    rates = Rates()
    rates.update(client(carrying(0, 0)), 1.0)
    now = client(carrying(1_250_000, 1000, dropped={"replayed": 2}), dropped={"replayed": 2, "too-old": 1})
    rates.update(now, 2.0)
    told = shown(now, rates)
    assert "10.0 Mbit/s  1000 p/s" in told
    assert "in 1m 5s" in told
    assert "replayed 2, too-old 1" in told
    assert "█" in told
    assert "10.0 Mbit/s, highest 10.0 Mbit/s" in told


def test_a_gateway_shows_the_busiest_sessions_that_fit() -> None:
    def report(octets: int) -> Status:
        sessions = [
            dataclasses.replace(carrying(octets * number, number), id=number, eap_identity=f"user{number}")
            for number in range(1, 101)
        ]
        return status("gateway", "gw", sessions=tuple(sessions))

    rates = Rates()
    rates.update(report(0), 1.0)
    rates.update(report(1000), 2.0)
    told = shown(report(1000), rates, height=24)
    users = [line.split()[1] for line in told.splitlines() if re.search(r" user\d", line)]
    assert users == [f"user{number}" for number in range(100, 90, -1)]
    assert "the 10 busiest of 100 (all of them: --json)" in told
    assert len(told.splitlines()) <= 24


def test_what_no_terminal_shows_is_a_line_a_report() -> None:
    console = Console(file=io.StringIO(), width=80)
    reports = [client(carrying(0, 0)), client(carrying(0, 0), dropped={"integrity": 1}), client()]
    show(console, reports)
    assert isinstance(console.file, io.StringIO)
    told = console.file.getvalue()
    assert told.count("client work is up") == 1  # whole once
    last = told.splitlines()[-2:]
    assert last[0].endswith("work net: in 0 bit/s (0 p/s), out 0 bit/s (0 p/s), dropped: integrity 1")
    assert last[1].endswith("work is up")
    assert "\x1b" not in told


def test_control_c_ends_it_with_a_whole_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IKEWAY_RUNTIME_DIR", str(tmp_path / "run"))
    report = client(carrying(10, 1)).to_json()

    with Service("client", "work", {"watch": itertools.repeat(report)}) as service:
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
        environment.pop("NO_COLOR", None)
        process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "ikeway", "status", "--watch"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
        )
        os.close(theirs)
        told, interrupted = "", False
        try:
            while chunk := os.read(ours, 4096).decode(errors="replace"):
                told += chunk
                if ", highest " in told and not interrupted:
                    interrupted = True
                    process.send_signal(signal.SIGINT)
        except OSError:  # EIO: the other end is closed
            pass
        os.close(ours)
        assert process.wait(20) == 0
        assert "client work" in told
        assert told.rstrip("\x1b[?25h").endswith("\n")
        assert service.asked[0][0] == "watch"

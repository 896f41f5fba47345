"""Log lines: for people, for machines, one an event, bounded, without secrets."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ikeway.daemon import log
from ikeway.daemon.log import RateLimit, error_fields, event, set_up
from ikeway.errors import AuthenticationFailed, HostError, Side

logger = logging.getLogger("ikeway.test")


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    root = logging.getLogger("ikeway")
    before = (root.handlers[:], root.level, root.propagate)
    yield
    root.handlers[:], root.propagate = before[0], before[2]
    root.setLevel(before[1])


@pytest.fixture
def text() -> io.StringIO:
    stream = io.StringIO()
    set_up(stream=stream)
    return stream


@pytest.fixture
def machine() -> io.StringIO:
    stream = io.StringIO()
    set_up(format="json", stream=stream)
    return stream


def test_lines_for_people(text: io.StringIO) -> None:
    event(logger, logging.INFO, "up", "alice is connected", {"user": "alice"})
    event(logger, logging.WARNING, "refused", "bob was refused")
    logger.debug("not shown")
    first, second = text.getvalue().splitlines()
    assert first[19:] == " alice is connected"
    assert second[19:] == " warning: bob was refused"


def test_lines_for_machines(machine: io.StringIO) -> None:
    event(
        logger, logging.WARNING, "refused", "bob was refused", {"remote": "192.0.2.1", "port": 500, "spi": b"\x01\xff"}
    )
    logger.info("plain %d", 7)
    first, second = (json.loads(line) for line in machine.getvalue().splitlines())
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "warning",
        "logger": "ikeway.test",
        "event": "refused",
        "message": "bob was refused",
        "remote": "192.0.2.1",
        "port": 500,
        "spi": "01ff",
    }
    assert (second["event"], second["message"]) == ("", "plain 7")


def test_errors_as_fields(machine: io.StringIO) -> None:
    error = AuthenticationFailed("no", expected="a", got="b", side=Side.PEER, remedy="do this")
    event(logger, logging.INFO, "refused", "x", error_fields(error))
    line = json.loads(machine.getvalue())
    assert line["error"] == "AuthenticationFailed"
    assert (line["reason"], line["expected"], line["got"], line["remedy"]) == ("no", "a", "b", "do this")
    assert line["side"] == "the peer"


def test_peers_cannot_forge_lines_or_command_terminals(text: io.StringIO) -> None:
    event(logger, logging.INFO, "x", "evil\n2026-01-01 alice is root\x1b[2J\x07é\u202e")
    (line,) = text.getvalue().splitlines()
    assert "\\n2026" in line
    assert "\\x1b[2J\\x07é\\u202e" in line


def test_fields_named_like_secrets_are_hidden(machine: io.StringIO) -> None:
    event(logger, logging.INFO, "x", "x", {"password": "hunter2", "PSK": b"hunter2", "nested": ["fine"]})
    assert "hunter2" not in machine.getvalue()
    assert b"hunter2".hex() not in machine.getvalue()
    assert json.loads(machine.getvalue())["nested"] == ["fine"]


def test_values_are_bounded(machine: io.StringIO) -> None:
    event(logger, logging.INFO, "x", "x", {"long": "y" * 10_000, "many": ["z"] * 1000})
    line = json.loads(machine.getvalue())
    assert len(line["long"]) == log.MAX_VALUE
    assert len(line["many"]) == 64


def test_tracebacks_of_defects(text: io.StringIO, machine: io.StringIO) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    for stream, format in ((text, "text"), (machine, "json")):
        set_up(format=format, stream=stream)  # type: ignore[arg-type]
        try:
            fail()
        except ZeroDivisionError:
            logger.exception("a defect")
        assert "ZeroDivisionError" in stream.getvalue()
    assert len(machine.getvalue().splitlines()) == 1


def test_the_journal_keeps_time_and_level_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "journal").open("w+") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        set_up(stream=stream)
        logger.info("fine")
        logger.warning("less so")
        logger.error("bad")
        stream.seek(0)
        assert stream.read().splitlines() == ["<6>fine", "<4>warning: less so", "<3>error: bad"]


def test_a_log_file_is_its_owners_only(tmp_path: Path) -> None:
    set_up(file=tmp_path / "new" / "x.log")
    logger.info("hello")
    path = tmp_path / "new" / "x.log"
    assert path.read_text().endswith(" hello\n")
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(HostError, match="cannot be written"):
        set_up(file=path / "below")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def limited(stream: io.StringIO, clock: Clock, **limits: float) -> None:
    set_up(stream=stream)
    handler = logging.getLogger("ikeway").handlers[0]
    handler.filters = [RateLimit(now=clock, **limits)]  # type: ignore[arg-type]


def test_what_strangers_cause_is_rate_limited() -> None:
    stream, clock = io.StringIO(), Clock()
    limited(stream, clock, burst=3, every=10.0)
    for _ in range(100):
        event(logger, logging.INFO, "refused", "rubbish", limited="192.0.2.1")
    event(logger, logging.INFO, "refused", "rubbish from another", limited="192.0.2.2")
    event(logger, logging.INFO, "up", "not limited")
    assert len(stream.getvalue().splitlines()) == 5
    clock.now += 10.0
    for _ in range(2):
        event(logger, logging.INFO, "refused", "rubbish", limited="192.0.2.1")
    *_, last = stream.getvalue().splitlines()
    assert last.endswith("rubbish (97 more like this before)")
    assert len(stream.getvalue().splitlines()) == 6


def test_many_strangers_are_limited_together() -> None:
    """Addresses can be forged: a flood from everywhere fills neither the disk nor our memory."""
    stream, clock = io.StringIO(), Clock()
    limited(stream, clock, total_burst=50, total_every=1.0, peers=100)
    for number in range(10_000):
        event(logger, logging.INFO, "refused", "rubbish", limited=f"192.0.{number >> 8}.{number & 255}")
    assert len(stream.getvalue().splitlines()) == 50
    (found,) = logging.getLogger("ikeway").handlers[0].filters
    assert isinstance(found, RateLimit)
    assert len(found._buckets) == 100
    clock.now += 1.0
    event(logger, logging.INFO, "refused", "rubbish", limited="198.51.100.1")
    assert "(9950 more like this before)" in stream.getvalue()


def test_machines_are_told_how_many_lines_were_left_out(machine: io.StringIO) -> None:
    clock = Clock()
    logging.getLogger("ikeway").handlers[0].filters = [RateLimit(now=clock, burst=1, every=1.0)]
    for _ in range(3):
        event(logger, logging.INFO, "refused", "rubbish", limited="192.0.2.1")
    clock.now += 1.0
    event(logger, logging.INFO, "refused", "rubbish", limited="192.0.2.1")
    assert [json.loads(line).get("suppressed") for line in machine.getvalue().splitlines()] == [None, 2]

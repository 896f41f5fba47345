"""The client in the background: what it tells and asks reaches the terminal, and the terminal's process ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from ikeway.cli.detach import Terminal, detach
from ikeway.errors import AuthenticationFailed, ConfigError


class Screen:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __call__(self, step: str, text: str) -> None:
        self.lines.append((step, text))


def test_it_goes_on_when_the_terminal_has_gone(tmp_path: Path) -> None:
    def work(terminal: Terminal) -> None:
        terminal.show("connect", "somewhere")
        terminal.ready("it is up")
        terminal.show("lost", "is not shown")
        (tmp_path / "session").write_text(f"{os.getsid(0)} {os.getpid()}")
        with pytest.raises(ConfigError):
            terminal.prompt("Password: ")
        os.rename(tmp_path / "session", tmp_path / "done")

    screen = Screen()
    assert detach(work, screen, None) == 0
    assert screen.lines == [("connect", "somewhere"), ("up", "it is up")]
    deadline = time.monotonic() + 30
    while not (tmp_path / "done").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    session, process = (tmp_path / "done").read_text().split()
    assert session == process != str(os.getpid())


def test_questions_reach_the_person() -> None:
    asked: list[str] = []

    def prompt(words: str) -> str:
        asked.append(words)
        return f"answer {len(asked)}"

    def work(terminal: Terminal) -> None:
        terminal.ready(" and ".join([terminal.prompt("one? "), terminal.prompt("two? ")]))

    screen = Screen()
    assert detach(work, screen, prompt) == 0
    assert asked == ["one? ", "two? "]
    assert screen.lines == [("up", "answer 1 and answer 2")]


def test_nobody_to_ask(capfd: pytest.CaptureFixture[str]) -> None:
    assert detach(lambda terminal: terminal.ready(terminal.prompt("one? ")), Screen(), None) == 2
    assert "the terminal has gone" in capfd.readouterr().err


def test_errors_have_their_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    def work(terminal: Terminal) -> None:
        raise AuthenticationFailed("wrong password", remedy="type the right one")

    assert detach(work, Screen(), None) == 3
    assert capfd.readouterr().err == "error: wrong password\n  to mend it, on both sides: type the right one\n"


def test_defects_and_deaths_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    def defect(terminal: Terminal) -> None:
        raise ZeroDivisionError("x")

    assert detach(defect, Screen(), None) == 1
    assert "ZeroDivisionError" in capfd.readouterr().err

    def death(terminal: Terminal) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    assert detach(death, Screen(), None) == 1
    assert "without a word" in capfd.readouterr().err


def test_an_interrupt_ends_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def work(terminal: Terminal) -> None:
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        terminal.show("connect", "begun")
        stop.wait(10)
        (tmp_path / "undone").touch()

    def show(step: str, text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        detach(work, show, None)
    assert (tmp_path / "undone").exists()
    assert capfd.readouterr().err == ""

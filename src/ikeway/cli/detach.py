"""`ikeway up --detach`: the client goes on in a process of its own.

The process is forked off before it connects, and speaks to the one at the terminal over a socket pair, one JSON object
a line: steps to show, questions for passwords, and how it ended. The terminal's process ends when the client is up.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping

from ikeway.config.secrets import Prompt
from ikeway.errors import ConfigError, IkewayError


class Terminal:
    """The terminal, as seen from the process that was forked off."""

    def __init__(self, connection: socket.socket) -> None:
        """Speak over this socket."""
        self._connection: socket.socket | None = connection
        self._lines = connection.makefile("rb")
        self._lock = threading.Lock()

    def show(self, step: str, text: str) -> None:
        """Show a step."""
        self._send({"step": step, "text": text})

    def prompt(self, words: str) -> str:
        """Ask a person. Blocks; from any thread. Raises `ConfigError` when the terminal has gone."""
        with self._lock:
            self._send({"ask": words})
            line = self._lines.readline() if self._connection is not None else b""
        if not line:
            raise ConfigError(
                "a password is asked for, and the terminal has gone",
                expected="a password from a file, a command or the keyring",
                remedy="name it in [login] of the profile, or connect again at a terminal",
            )
        return str(json.loads(line)["answer"])

    def ready(self, text: str) -> None:
        """Say that it is up, and let the terminal go."""
        self._send({"ready": text})
        self._hang_up()

    def fail(self, text: str, code: int) -> None:
        """Say why it ended. Nothing happens when the terminal has gone."""
        self._send({"error": text, "code": code})
        self._hang_up()

    def _send(self, message: Mapping[str, object]) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.sendall(json.dumps(message).encode() + b"\n")

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def detach(work: Callable[[Terminal], None], show: Callable[[str, str], None], prompt: Prompt | None) -> int:
    """Do `work` in a process of its own and return an exit code when it is ready, or has failed."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        _work(work, Terminal(theirs))
    theirs.close()
    try:
        return _attend(ours, show, prompt)
    except KeyboardInterrupt:
        os.kill(child, signal.SIGTERM)
        with contextlib.suppress(KeyboardInterrupt):
            os.waitpid(child, 0)  # until it has undone what it did
        raise
    finally:
        ours.close()


def _work(work: Callable[[Terminal], None], terminal: Terminal) -> None:
    """The process that was forked off; does not return."""
    from ikeway.cli.errors import exit_code, explain

    code = 1
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(nothing, fd)
        work(terminal)
        code = 0
    except IkewayError as error:
        code = exit_code(error)
        terminal.fail(explain(error), code)
    except BaseException as error:  # nobody is above us to tell
        terminal.fail(f"error: {type(error).__name__}: {error}; this is a defect of Ikeway", code)
    finally:
        os._exit(code)


def _attend(connection: socket.socket, show: Callable[[str, str], None], prompt: Prompt | None) -> int:
    for line in connection.makefile("rb"):
        message = json.loads(line)
        if "step" in message:
            show(message["step"], message["text"])
        elif "ask" in message:
            if prompt is None:
                connection.shutdown(socket.SHUT_WR)
            else:
                connection.sendall(json.dumps({"answer": prompt(message["ask"])}).encode() + b"\n")
        elif "ready" in message:
            show("up", message["ready"])
            return 0
        elif "error" in message:
            print(message["error"], file=sys.stderr)
            return int(message["code"])
    print("error: the client ended without a word; see its log", file=sys.stderr)
    return 1

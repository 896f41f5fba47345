"""Starts worker processes.

A worker needs longer for its imports than the daemon for a log-in. So who is in a hurry starts one before anything else
is imported, and hands it over later: it gets its device and sockets with the first message, not at its birth.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import ikeway
from ikeway.errors import HostError

_CONTROL_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True)
class Launched:
    """A worker that waits for its first message on the other end of `control`. It ends when that is closed.

    A context manager that discards it: enter it around all that may take the worker over.
    """

    process: subprocess.Popen[bytes]
    control: socket.socket

    def __enter__(self) -> Launched:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Discard it."""
        self.discard()

    def discard(self) -> None:
        """End a worker that is not needed (any more), at once. Idempotent."""
        self.control.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()


def launch() -> Launched:
    """Start a worker, and do not wait for it. Raises `HostError`."""
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as error:  # no descriptors are left
        raise HostError(f"cannot start the data plane: {error.strerror}") from error
    with theirs:
        for end in (ours, theirs):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CONTROL_BUFFER)
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ikeway.dataplane.userspace.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                env=_environment(),
            )
        except OSError as error:
            ours.close()
            raise HostError(f"cannot start the data plane: {error.strerror}") from error
    return Launched(process, ours)


def _environment() -> dict[str, str]:
    """Ours, with the place where this package lies, should it not be installed."""
    place = str(Path(ikeway.__file__).parents[1])
    known = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (place, known)))}

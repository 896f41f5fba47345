"""A worker that was started ahead."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import time

import pytest

from ikeway.dataplane.interface import DataPlaneDied
from ikeway.dataplane.userspace import plane
from ikeway.dataplane.userspace.launch import launch
from ikeway.dataplane.userspace.process import WorkerGone
from ikeway.errors import HostError
from tests.dataplane.rig import rig


def test_one_that_nobody_takes_over_is_ended_at_once() -> None:
    with launch() as launched:
        assert launched.process.poll() is None
    assert launched.process.returncode is not None
    launched.discard()


def test_one_whose_daemon_is_gone_ends_by_itself() -> None:
    launched = launch()
    launched.control.close()
    deadline = time.monotonic() + 30
    while launched.process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert launched.process.returncode == 0
    launched.discard()


async def test_one_that_starts_slowly_is_waited_for() -> None:
    launched = launch()
    os.kill(launched.process.pid, signal.SIGSTOP)
    asyncio.get_running_loop().call_later(0.5, os.kill, launched.process.pid, signal.SIGCONT)
    async with rig(launched=launched) as r:
        assert r.plane.pid == launched.process.pid


async def test_one_that_never_starts_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its own time, which is longer than that for other answers."""
    assert plane.START_PATIENCE >= 30
    monkeypatch.setattr(plane, "START_PATIENCE", 0.3)
    launched = launch()
    os.kill(launched.process.pid, signal.SIGSTOP)
    with pytest.raises(WorkerGone, match="did not answer"):
        async with rig(launched=launched):
            pass
    assert launched.process.returncode is not None


async def test_a_daemon_without_descriptors_hears_that_its_worker_cannot_be_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a proxy with a thousand connections may be. Nobody would know that nothing is carried any more."""

    def none_left(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async with rig() as r:
        assert r.plane.pid
        monkeypatch.setattr(socket, "socketpair", none_left)
        with pytest.raises(HostError, match="Too many open files"):
            launch()
        os.kill(r.plane.pid, signal.SIGKILL)
        await r.until(lambda: bool(r.events))
        monkeypatch.undo()
        assert isinstance(r.events[0], DataPlaneDied) and "Too many open files" in r.events[0].reason
        await r.plane.restart()
        assert await r.plane.counters()

"""A worker that was started ahead."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from ikeway.dataplane.userspace import plane
from ikeway.dataplane.userspace.launch import launch
from ikeway.dataplane.userspace.process import WorkerGone
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

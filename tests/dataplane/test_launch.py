"""A worker that was started ahead."""

from __future__ import annotations

import time

from ikeway.dataplane.userspace.launch import launch


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

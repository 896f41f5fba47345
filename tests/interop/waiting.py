"""Waiting for something to become true, with what was said meanwhile when it does not."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable

# A loaded machine is slow, an emulated one slower; waiting longer costs time only where a test fails.
PATIENCE = int(os.environ.get("IKEWAY_TEST_PATIENCE", "4"))


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 10, logs: Callable[[], str] = str) -> None:
    """Wait for something to become true."""
    timeout *= PATIENCE
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout:g} s: {what}\n{logs()}")
        time.sleep(0.05)


def wait_for_text(
    log: Callable[[], str],
    pattern: str,
    timeout: float,
    ended: Callable[[], bool] = lambda: False,
    error: type[AssertionError] = AssertionError,
) -> str:
    """Wait until a log matches; raises `error` when its writer ends without, or the time is over."""
    timeout *= PATIENCE
    deadline = time.monotonic() + timeout
    while True:
        over = ended() or time.monotonic() > deadline
        if found := re.search(pattern, log()):
            return found[0]
        if over:
            raise error(f"{pattern!r} was not said within {timeout:g} s, or before the end:\n{log()}")
        time.sleep(0.02)

"""Time that counts while the machine sleeps.

IKE's time-outs and lifetimes are promises between two machines, so they go on while one of them is suspended. The
event loop's own clock (CLOCK_MONOTONIC) stands still then; CLOCK_BOOTTIME does not, and a timerfd on it wakes us the
moment the machine resumes.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_CLOEXEC = os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1


def now() -> float:
    """Seconds since boot, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def epoch() -> datetime:
    """The wall-clock time at `now() == 0.0` (for `EngineSettings.epoch`)."""
    return datetime.now(UTC) - timedelta(seconds=now())


def slept() -> float:
    """Seconds that the machine has been suspended since boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class BoottimeTimer:
    """One alarm at a time, at an absolute time of `now()`; calls back on the running event loop.

    Python has timerfd only from 3.13 on, hence ctypes.
    """

    def __init__(self, callback: Callable[[], None]) -> None:
        """`callback` is called at most once for each `set`."""
        self._callback = callback
        self._at: float | None = None
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.timerfd_create(time.CLOCK_BOOTTIME, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self._fd < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), "timerfd_create")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._expired)

    def set(self, at: float | None) -> None:
        """Ring at `at` (the past: as soon as possible); None: not at all. Replaces what was set before."""
        if at == self._at or self._fd < 0:
            return
        self._at = at
        value = _Timespec(0, 0)
        if at is not None:
            at = max(at, 1e-6)  # all zeros would disarm it
            seconds = int(at)
            value = _Timespec(seconds, min(int((at - seconds) * 1e9) + 1, 999_999_999))
        spec = _Itimerspec(_Timespec(0, 0), value)
        if self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), "timerfd_settime")

    def close(self) -> None:
        """Give the descriptor back. Idempotent."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _expired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # set anew since it became readable
            return
        self._at = None
        self._callback()

"""Signals as messages, with who sent them (signalfd(2)): Python's handlers do not tell a terminal from kill(1)."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterable
from dataclasses import dataclass

_SFD_NONBLOCK, _SFD_CLOEXEC = 0o4000, 0o2000000
_SIGSET_OCTETS = 128
_RECORD_OCTETS = 128
_RECORD = struct.Struct("=IiiI")  # signal, errno, code, pid: the head of struct signalfd_siginfo
_SI_USER, _SI_QUEUE, _SI_TKILL = 0, -1, -6


@dataclass(frozen=True, slots=True)
class Arrived:
    """A signal, and whether a process sent it rather than the kernel (which sends the terminal's to a whole group)."""

    signal: int
    from_process: bool


class SignalQueue:
    """Blocks signals for the whole process and queues them. The children of this process have to unblock them."""

    def __init__(self, numbers: Iterable[int]) -> None:
        wanted = set(numbers)
        signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
        mask = sum(1 << (number - 1) for number in wanted).to_bytes(_SIGSET_OCTETS, "little")
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.signalfd(-1, mask, _SFD_NONBLOCK | _SFD_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "signalfd")

    def fileno(self) -> int:
        """The descriptor; readable when there is one."""
        return int(self._fd)

    def take(self) -> list[Arrived]:
        """Those that have come."""
        try:
            octets = os.read(self._fd, _RECORD_OCTETS * 16)
        except BlockingIOError:
            return []
        records = (_RECORD.unpack_from(octets, at) for at in range(0, len(octets), _RECORD_OCTETS))
        return [Arrived(number, code in (_SI_USER, _SI_QUEUE, _SI_TKILL)) for number, _, code, _ in records]

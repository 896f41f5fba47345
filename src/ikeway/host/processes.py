"""Telling which process and which network namespace something belongs to, also after they are gone."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

_SO_NETNS_COOKIE = 71  # Linux 5.14
_STAT_STARTED = 19  # field 22 of /proc/PID/stat, counted after the command name (which may hold anything)
_NAMESPACE_NAMES = Path("/run/netns")


@dataclass(frozen=True, slots=True)
class Owner:
    """A process: its number, and when it started in clock ticks since boot, as numbers are used again."""

    pid: int
    started: int
    boot: str

    @classmethod
    def current(cls) -> Owner:
        """Return this process."""
        return cls(os.getpid(), _started(os.getpid()) or 0, boot_id())

    def is_alive(self) -> bool:
        """True while that very process runs (a zombie does not)."""
        return self.boot == boot_id() and _started(self.pid) == self.started


@dataclass(frozen=True, slots=True)
class Scope:
    """A network namespace. Inode numbers are used again soon after one is gone; `cookie` never is (0: kernel too
    old to tell)."""

    boot: str
    inode: int
    cookie: int

    @classmethod
    def current(cls) -> Scope:
        """Return the one of this process."""
        return cls(boot_id(), network_namespace() or 0, _cookie())

    def is_current(self) -> bool:
        """True when it is the one of this process."""
        return self == Scope.current()

    def exists(self) -> bool:
        """False when it is certainly gone: no process and no name holds it. Who may not look everywhere gets True."""
        if self.boot != boot_id():
            return False
        if os.geteuid() != 0:
            return True
        try:
            holders = [*Path("/proc").glob("[0-9]*/ns/net"), *_NAMESPACE_NAMES.glob("*")]
            return any(inode in (self.inode, None) for inode in map(_inode, holders))
        except OSError:
            return True


def boot_id() -> str:
    """A text that changes with every boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def network_namespace(pid: int | str = "thread-self") -> int | None:
    """The inode number of the network namespace of a process, or of this thread; None when we may not know."""
    return _inode(Path(f"/proc/{pid}/ns/net"))


def namespace_name() -> str:
    """The name under /run/netns of our network namespace; empty when it has none."""
    ours = network_namespace()
    try:
        names = [path.name for path in _NAMESPACE_NAMES.iterdir() if _inode(path) == ours]
    except OSError:
        return ""
    return names[0] if names else ""


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except PermissionError:
        return None
    except OSError:
        return 0


def _cookie() -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
        except OSError:
            return 0


def _started(pid: int) -> int | None:
    """Start time of a running process in clock ticks since boot; None when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[_STAT_STARTED])

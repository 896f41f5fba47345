"""Starting a command inside, and ending what it leaves behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from ikeway.errors import HostError
from ikeway.host.namespaces import die_with_parent

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # exit codes, as shells have them

_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36
_GRACE = 1.0  # seconds between the polite and the final signal
_LONGEST = 5.0
_EMPTY_LOOKS = 3  # in which nobody was found, until there is nobody
_STAT_PARENT = 1  # field 4 of /proc/PID/stat, counted after the command name


def become_subreaper() -> None:
    """Orphans among our descendants become our children (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def keep_out_of_core_dumps() -> None:
    """The memory of `ikeway run` has the profile's secrets: no core dump of it, and nobody attaches to it."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def start(
    words: Sequence[str],
    *,
    user: pwd.struct_passwd | None = None,
    directory: str = "",
    environment: Mapping[str, str] | None = None,
    standard: Sequence[int] = (),
) -> int:
    """Start a command in the namespaces of this process; return its process id.

    It starts with the dispositions of signals that we were started with, none blocked, and dies with us. `standard`
    are its standard descriptors. `user` is who it becomes, which takes root.
    """
    child = os.fork()
    if child:
        return child
    try:
        die_with_parent()
        _restore_signals()
        for number, fd in enumerate(standard):
            os.dup2(fd, number)
        variables = dict(os.environ if environment is None else environment)
        if user is not None:
            variables = _become(user, variables)
        if directory:
            os.chdir(directory)
    except OSError as error:
        _fail(words[0], error, NOT_EXECUTABLE)
    try:
        os.execvpe(words[0], list(words), variables)  # noqa: S606 - it is what the user wants
    except FileNotFoundError as error:
        _fail(words[0], error, NOT_FOUND)
    except OSError as error:
        _fail(words[0], error, NOT_EXECUTABLE)


def find_user(name: str) -> pwd.struct_passwd:
    """The account of that name (`HostError`)."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise HostError(f"there is no user {name}", remedy="name a user of this host") from None


def end_descendants(spared: Iterable[int]) -> None:
    """End all that descends from us, but not `spared` and their descendants: politely, then for good. They are reaped."""
    spared = set(spared)
    deadline, said, empty = time.monotonic() + _GRACE, False, 0
    while empty < _EMPTY_LOOKS and time.monotonic() < deadline + _LONGEST:
        found = _descendants(spared)
        # A process whose parent ends while we look has no way to us in what was read; the next look finds it.
        empty = 0 if found else empty + 1
        final = time.monotonic() > deadline
        for pid in found if final or not said else ():
            for number in [signal.SIGKILL] if final else [signal.SIGHUP, signal.SIGTERM, signal.SIGCONT]:
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
        said = said or bool(found)
        time.sleep(0.01)
        _reap(found)


def exit_code(status: int) -> int:
    """A wait status as a shell tells it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _restore_signals() -> None:
    """What Python has changed: SIGINT raises, SIGPIPE and SIGXFSZ are ignored. What others ignore stays ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _become(user: pwd.struct_passwd, variables: Mapping[str, str]) -> dict[str, str]:
    os.initgroups(user.pw_name, user.pw_gid)
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    changed = {**variables, "HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
    changed["SHELL"] = user.pw_shell or "/bin/sh"
    session = Path(f"/run/user/{user.pw_uid}")
    changed.pop("XDG_RUNTIME_DIR", None)
    return {**changed, "XDG_RUNTIME_DIR": str(session)} if session.is_dir() else changed


def _fail(word: str, error: OSError, code: int) -> NoReturn:
    with contextlib.suppress(OSError):
        print(f"ikeway run: {word}: {error.strerror}", file=sys.stderr, flush=True)  # noqa: T201 - it is the command's
    os._exit(code)


def _descendants(spared: set[int]) -> list[int]:
    parents = _parents()
    found: list[int] = []
    generation = {os.getpid()}
    while generation:
        generation = {pid for pid, parent in parents.items() if parent in generation} - spared
        found += generation
    return found


def _parents() -> dict[int, int]:
    """The parent of every process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            found[int(path.parent.name)] = int(
                path.read_text(errors="replace").rpartition(")")[2].split()[_STAT_PARENT]
            )
    return found


def _reap(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.waitpid(pid, os.WNOHANG)

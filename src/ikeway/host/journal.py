"""Every change to the host is written down before it is made, so that it is undone however we end.

Theory of operation. A `Change` is a small record that knows how to make and how to undo itself. `Changes` keeps the
changes of one owner: `make` appends the record to a journal file, then makes the change; `close` (or leaving the
context) undoes all in reverse. If the process is killed, the journal stays, and `recover_stale` at the next start finds
that its owner is gone, reads the records and undoes them.

A journal holds one JSON object a line: a header that says who owns it and in which network namespace the changes were
made, then `{"made": n, "kind": ..., ...}` and `{"undone": n}`. It is not synced to disk: it lives in a directory that
a restart empties, as a restart undoes the changes (the one that outlives a restart, resolv.conf, carries its own mark).

Undoing is idempotent and total: what is already gone is no error, and after a step that fails the next one is tried.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import itertools
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from ikeway.errors import HostError
from ikeway.host.paths import runtime_directory
from ikeway.host.processes import Owner, Scope

log = logging.getLogger(__name__)

_SUFFIX = ".journal"
_VERSION = 1
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Change:
    """Base of all changes: a frozen dataclass whose fields are text, numbers, or tuples of these.

    `shared_key` names a thing that several owners may change at the same time (a sysctl, resolv.conf); empty for
    things that are ours alone.
    """

    kinds: ClassVar[dict[str, type[Change]]] = {}

    def __init_subclass__(cls) -> None:
        """Register the class, so that a journal can be read again."""
        # dataclass(slots=True) makes the class a second time; the later one is the one to use.
        Change.kinds[cls.__name__] = cls

    @property
    def shared_key(self) -> str:
        """See the class."""
        return ""

    def joining(self, others: tuple[Change, ...]) -> Change:
        """The record to keep when live owners made `others` with the same `shared_key` before us."""
        return self

    async def make(self, others: tuple[Change, ...]) -> None:
        """Make the change. `others` as in `joining`."""
        raise NotImplementedError

    async def undo(self, others: tuple[Change, ...]) -> None:
        """Undo it; no error when that has happened already. `others`: those who still need what is shared."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Recovered:
    """What `recover_stale` did with one journal: texts of the undone changes, and of those that failed and why."""

    journal: str
    undone: tuple[str, ...]
    failed: tuple[str, ...]


class Changes:
    """The changes of one owner. An async context manager; `close` may be called as well."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._journal: _Journal | None = None
        self._made: dict[int, Change] = {}
        self._next = 0

    async def __aenter__(self) -> Changes:
        """Return itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Undo everything."""
        await self.close()

    @property
    def made(self) -> tuple[Change, ...]:
        """What stands now, in the order in which it was made."""
        return tuple(self._made[number] for number in sorted(self._made))

    async def make(self, change: Change) -> Change:
        """Write `change` down and make it; return the record that stands, with which to undo it. If it fails, nothing
        of it stays, and the error (`HostError`) is raised."""
        journal = self._open()
        others = self._others(change)
        record = change.joining(others)
        number = self._next
        self._next += 1
        journal.made(number, record)
        self._made[number] = record
        try:
            await record.make(others)
        except BaseException as error:
            del self._made[number]
            # What existed already is somebody else's: not ours to undo.
            if is_existing(error) or not await _undo_quietly(record, others):
                journal.undone(number)
            if isinstance(error, OSError):
                raise HostError(f"cannot {record}: {error.strerror or error}") from error
            raise
        return record

    async def make_again(self, change: Change) -> None:
        """Make a change that stands once more, because somebody else has undone it (`HostError`)."""
        await change.make(self._others(change))

    async def undo(self, change: Change) -> None:
        """Undo one change that equals `change`; nothing happens when there is none."""
        for number, record in self._made.items():
            if record == change:
                await self._undo(number)
                return

    async def close(self) -> None:
        """Undo everything in reverse. Idempotent. A failing step is logged and stays in the journal."""
        failed = False
        for number in sorted(self._made, reverse=True):
            failed |= not await self._undo(number)
        if self._journal is not None:
            self._journal.close(remove=not failed)
            self._journal = None

    async def _undo(self, number: int) -> bool:
        journal = self._open()
        record = self._made.pop(number)
        try:
            reason = await _undo_quietly(record, self._others(record))
        except BaseException:  # cancelled: it may stand still, and `close` has to see to it
            self._made[number] = record
            raise
        if reason:
            log.warning("cannot undo: %s: %s", record, reason)
            return False
        journal.undone(number)
        return True

    def _others(self, change: Change) -> tuple[Change, ...]:
        """Those who share it: other owners, and other records of ours."""
        if not change.shared_key:
            return ()
        ours = [each for each in self._made.values() if each is not change and each.shared_key == change.shared_key]
        return (*_shared(self._open(), change), *ours)

    def _open(self) -> _Journal:
        if self._journal is None:
            try:
                self._journal = _Journal.create(self._directory or journal_directory())
            except OSError as error:
                raise _unwritable(runtime_directory(), error) from error
        return self._journal


def journal_directory() -> Path:
    """Where journals are."""
    directory = runtime_directory() / "journal"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


async def recover_stale(directory: Path | None = None) -> list[Recovered]:
    """Undo what processes that are gone have left in this network namespace. Call it before changing anything.

    Journals of living owners are left alone; so are those of other network namespaces, unless the namespace itself is
    gone and its changes with it.
    """
    recovered = []
    for path in sorted((directory or journal_directory()).glob(f"*{_SUFFIX}")):
        with _exclusive(path) as mine:
            entry = _read(path) if mine else None
            if entry is None or entry.owner.is_alive():
                continue
            if entry.scope.is_current():
                if (done := await _recover(entry)).undone or done.failed:
                    recovered.append(done)
            elif not entry.scope.exists():
                path.unlink(missing_ok=True)
    return recovered


async def _recover(entry: _Entry) -> Recovered:
    undone, failed = [], []
    journal = _Journal(entry.path, os.open(entry.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))
    for number, change in reversed(entry.changes.items()):
        reason = await _undo_quietly(change, _shared(journal, change))
        if reason:
            failed.append(f"{change}: {reason}")
        else:
            undone.append(str(change))
            journal.undone(number)
    # What fails now fails again later; the caller tells the user.
    journal.close(remove=True)
    return Recovered(entry.path.name, tuple(undone), tuple(failed))


async def _undo_quietly(change: Change, others: tuple[Change, ...]) -> str:
    """Undo; return why it failed, or an empty text. Whatever goes wrong with one change must not keep the rest."""
    try:
        await change.undo(others)
    except Exception as error:
        return str(error) or type(error).__name__
    return ""


@dataclass(slots=True)
class _Entry:
    """A journal that was read."""

    path: Path
    owner: Owner
    scope: Scope
    changes: dict[int, Change]


class _Journal:
    """An open journal file."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def create(cls, directory: Path) -> _Journal:
        """Make a new journal of this process."""
        owner = Owner.current()
        path = directory / f"{owner.pid}-{owner.started}-{next(_numbers)}{_SUFFIX}"
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        journal = cls(path, fd)
        scope = Scope.current()
        head = {"version": _VERSION, "owner": dataclasses.asdict(owner), "scope": dataclasses.asdict(scope)}
        try:
            journal._write(head)
        except OSError:
            journal.close(remove=True)
            raise
        return journal

    def made(self, number: int, change: Change) -> None:
        """Write down that `change` is about to be made (`HostError`)."""
        try:
            self._write({"made": number, "kind": type(change).__name__, **dataclasses.asdict(change)})
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def undone(self, number: int) -> None:
        """Write down that a change was undone, or was never made. On a full disk it is undone once more by whoever finds
        the journal, which does less harm than to leave the other changes as they are."""
        with contextlib.suppress(OSError):
            self._write({"undone": number})

    def close(self, *, remove: bool) -> None:
        """Close the file, and remove it when nothing in it is left to do."""
        os.close(self._fd)
        if remove:
            self.path.unlink(missing_ok=True)

    def _write(self, line: dict[str, Any]) -> None:
        octets = json.dumps(line).encode() + b"\n"
        size = os.fstat(self._fd).st_size
        if os.write(self._fd, octets) < len(octets):
            os.ftruncate(self._fd, size)  # half a line would hide those after it
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _unwritable(path: Path, error: OSError) -> HostError:
    return HostError(
        f"the undo journal cannot be written in {path}: {error.strerror}",
        expected="room for what gives the host back as it was; without it nothing is changed",
        remedy="make room there (df), or set IKEWAY_RUNTIME_DIR to another folder",
    )


def is_existing(error: BaseException | None) -> bool:
    """True when a change failed because there was such a thing already."""
    return isinstance(error, OSError) and error.errno == errno.EEXIST


def standing_changes(
    shared_key: str, directory: Path | None = None, *, without: Path | None = None
) -> tuple[Change, ...]:
    """What living owners in this network namespace have changed of one shared thing, oldest journal first."""
    found: list[Change] = []
    for path in sorted((directory or journal_directory()).glob(f"*{_SUFFIX}")):
        entry = _read(path) if path != without else None
        if entry is not None and entry.owner.is_alive() and entry.scope.is_current():
            found += [change for change in entry.changes.values() if change.shared_key == shared_key]
    return tuple(found)


def _shared(journal: _Journal, change: Change) -> tuple[Change, ...]:
    """The changes of other living owners to the same shared thing."""
    if not change.shared_key:
        return ()
    return standing_changes(change.shared_key, journal.path.parent, without=journal.path)


def _read(path: Path) -> _Entry | None:
    """Read a journal. A last line that was cut off belongs to a change that was not made; a file without a header,
    or of another version, is nobody's."""
    entry: _Entry | None = None
    try:
        for line in path.read_bytes().splitlines():
            values = json.loads(line)
            if entry is None:
                if values["version"] != _VERSION:
                    return None
                entry = _Entry(path, Owner(**values["owner"]), Scope(**values["scope"]), {})
            elif "undone" in values:
                entry.changes.pop(values["undone"], None)
            else:
                _read_change(entry, values)
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return entry


def _read_change(entry: _Entry, values: dict[str, Any]) -> None:
    number, kind = values.pop("made"), values.pop("kind")
    entry.changes[number] = Change.kinds[kind](
        **{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    )


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[bool]:
    """Keep two processes that start together from recovering the same journal."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield path.exists()
    except BlockingIOError:
        yield False
    finally:
        os.close(fd)

"""DNS by /etc/resolv.conf, put back exactly as it was.

The original (a file or a symbolic link) is kept beside it by a second name and comes back by renaming: the same inode
with its owner, mode, times and attributes. Where the file is a mount point, as `ip netns exec` makes one, it cannot be
renamed, and its contents are written in place and restored from the journal.

The first line of our file says that it is ours. So a restart of the machine, which empties the journal but leaves
/etc, is survived too, and when somebody else (a DHCP client) has written a new file meanwhile, theirs stays.

Several connections share the file: the newest one's servers come first, and the last to leave restores the original.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from ikeway.errors import HostError
from ikeway.host.journal import Change
from ikeway.host.processes import namespace_name, network_namespace

PATH = Path("/etc/resolv.conf")
NAMESPACES = Path("/etc/netns")
BACKUP_SUFFIX = ".before-ikeway"

_MARK = "# Written by ikeway"
_MOST_SERVERS = 3  # MAXNS of resolv.conf(5): more are ignored


@dataclass(frozen=True, slots=True)
class ResolvConfReplaced(Change):
    """Our resolv.conf in the place of another. `in_place` when it cannot be renamed; `before` are then its contents."""

    path: str
    servers: tuple[str, ...]
    search: tuple[str, ...]
    in_place: bool
    before: str
    made_directory: bool

    @classmethod
    def of(cls, path: Path, servers: tuple[str, ...], search: tuple[str, ...]) -> ResolvConfReplaced:
        """Make the record from what is there now."""
        in_place = _is_mount_point(path) or (path.exists() and not os.access(path.parent, os.W_OK))
        before = _read(path) if in_place else ""
        return cls(str(path), servers, search, in_place, before, not path.parent.exists())

    @property
    def shared_key(self) -> str:
        """All connections share the file."""
        return shared_key(Path(self.path))

    def joining(self, others: tuple[Change, ...]) -> Change:
        """What was there before the first of us counts."""
        first = others[0] if others else None
        if not isinstance(first, ResolvConfReplaced):
            return self
        return dataclasses.replace(self, before=first.before, made_directory=first.made_directory)

    async def make(self, others: tuple[Change, ...]) -> None:
        """Keep the original, write ours. Doing it again adopts what somebody else wrote meanwhile as the original."""
        path = Path(self.path)
        try:
            if self.made_directory:
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if not self.in_place and not is_ours(path):
                _keep(path)
            self._write(path, (self, *reversed(others)))
        except OSError as error:
            raise HostError(
                f"cannot change {path}: {error.strerror}",
                remedy='run systemd-resolved, or leave DNS alone in the profile (dns = "off")',
            ) from error

    async def undo(self, others: tuple[Change, ...]) -> None:
        """Put the original back, or leave what the other connections need, or what somebody else wrote since."""
        path = Path(self.path)
        if others:
            if is_ours(path):
                self._write(path, tuple(reversed(others)))
        elif self.in_place:
            _write_back(path, self.before)
        else:
            restore(path)
            if self.made_directory:
                _remove_empty(path.parent)

    def is_in_place(self) -> bool:
        """False when somebody else has replaced our file."""
        return is_ours(Path(self.path))

    def _write(self, path: Path, records: tuple[Change, ...]) -> None:
        contents = _compose([record for record in records if isinstance(record, ResolvConfReplaced)])
        if self.in_place:
            path.write_text(contents)
            return
        new = path.with_name(f"{path.name}.ikeway-{os.getpid()}")
        new.unlink(missing_ok=True)
        with contextlib.ExitStack() as stack:
            stack.callback(new.unlink, missing_ok=True)
            new.write_text(contents)
            new.chmod(0o644)
            new.rename(path)

    def __str__(self) -> str:
        """Say what it does."""
        return f"write {self.path} (DNS {', '.join(self.servers)})"


def location() -> Path:
    """The resolv.conf that belongs to our network namespace (`HostError` when it has none of its own).

    In a named namespace that is /etc/netns/NAME/resolv.conf, which `ip netns exec` mounts over /etc/resolv.conf.
    """
    if _is_mount_point(PATH):
        return PATH  # mounted for us, as `ip netns exec` and containers have it
    if name := namespace_name():
        return NAMESPACES / name / PATH.name
    host = network_namespace(1)
    if host is None or host == network_namespace() or _identity(PATH) != _identity(Path(f"/proc/1/root{PATH}")):
        return PATH
    raise HostError(
        f"{PATH} belongs to the whole host, and this process is in a network namespace without a name",
        remedy="mount a file of its own there (unshare -m; mount --bind FILE /etc/resolv.conf), or leave DNS alone in "
        'the profile (dns = "off")',
    )


def is_ours(path: Path) -> bool:
    """True when we wrote the file."""
    return _read(path).startswith(_MARK)


def shared_key(path: Path) -> str:
    """The key under which connections share the file."""
    return f"resolv.conf {path}"


def restore_orphan(path: Path) -> bool:
    """Bring the original back when the file is ours and no owner lives; False when there is nothing to do."""
    return is_ours(path) and _exists(_backup(path)) and restore(path)


def restore(path: Path) -> bool:
    """Bring the original back; False when there was nothing to do. Somebody else's newer file stays."""
    backup = _backup(path)
    kept = _exists(backup)
    if is_ours(path):
        if kept:
            backup.rename(path)
        else:
            path.unlink()
        return True
    if kept and not _exists(path):
        backup.rename(path)
    else:
        # Also when both names are the same file still, for which rename(2) would do nothing.
        backup.unlink(missing_ok=True)
    return kept


def _write_back(path: Path, before: str) -> None:
    if is_ours(path) or not _read(path):  # empty: ours, which a full disk did not take
        path.write_text(before)


def _keep(path: Path) -> None:
    """Give the original its second name, without a moment in which the first is missing if that can be."""
    backup = _backup(path)
    backup.unlink(missing_ok=True)
    if not _exists(path):
        return
    try:
        os.link(path, backup, follow_symlinks=False)
    except OSError:  # a file system without hard links
        path.rename(backup)


def _compose(records: list[ResolvConfReplaced]) -> str:
    servers = list(dict.fromkeys(server for record in records for server in record.servers))
    search = list(dict.fromkeys(domain for record in records for domain in record.search))
    backup = f"; the original is {_backup(Path(records[0].path))}" if not records[0].in_place else ""
    lines = [f"{_MARK} while a VPN is up{backup} and comes back when it ends."]
    lines += [f"search {' '.join(search)}"] if search else []
    lines += [f"nameserver {server}" for server in servers[:_MOST_SERVERS]]
    return "\n".join(lines) + "\n"


def _backup(path: Path) -> Path:
    return path.with_name(path.name + BACKUP_SUFFIX)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return ""


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_mount_point(path: Path) -> bool:
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return False
    # Mounting over a symbolic link mounts over what it leads to.
    return any(line.split()[4] in (str(path), str(path.resolve())) for line in mounts.splitlines())


def _remove_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):
        directory.rmdir()

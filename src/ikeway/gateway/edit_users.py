"""Changes to one user of a users file that leave everything else in it as people wrote it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ikeway.config.lines import LineIndex
from ikeway.errors import ConfigError, HostError


def edit_user(path: Path, name: str, changes: Mapping[str, str | None]) -> None:
    """Set keys of a user to a text, or take them out (None).

    What is written is read again before it takes the old file's place, at once and with its mode and owner. Raises
    `ConfigError` where the user is not there, as somebody has taken it out, and where the file is written in a way that
    this cannot change; `HostError` where it may not.
    """
    path = path.resolve()
    try:
        with _alone(path.parent):
            text = path.read_text(encoding="utf-8")
            changed = _changed(text, name, changes)
            _check(path, text, changed, name, changes)
            _replace(path, changed)
    except OSError as error:
        raise HostError(
            f"the users file {path} cannot be changed: {error.strerror}",
            remedy="let the gateway write to it and its folder, or change it by hand",
        ) from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Gateway and commands follow one another: the lock is the folder's, as the file is replaced."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _changed(text: str, name: str, changes: Mapping[str, str | None]) -> str:
    lines = text.splitlines(keepends=True)
    index = LineIndex(text)
    known = _users_of(text).get(name)
    if known is None:
        raise ConfigError(
            f"there is no user {name} in the file", remedy="look into the file, then `ikeway gateway reload`"
        )
    new = []
    for key, value in changes.items():
        if key in known:
            number = index.line(("users", name, key)) - 1
            lines[number] = "" if value is None else _line(key, value)
        elif value is not None:
            new.append(_line(key, value))
    header_at = index.line(("users", name)) - 1
    if not lines[header_at].endswith("\n"):
        lines[header_at] += "\n"
    lines[header_at + 1 : header_at + 1] = new
    return "".join(lines)


def _line(key: str, value: str) -> str:
    # JSON's strings are TOML's basic strings but for DEL, which TOML wants escaped.
    return f"{key} = {json.dumps(value, ensure_ascii=False)}\n".replace("\x7f", "\\u007f")


def _users_of(text: str) -> dict[str, dict[str, object]]:
    users = tomllib.loads(text).get("users", {})
    return users if isinstance(users, dict) else {}


def _check(path: Path, before: str, after: str, name: str, changes: Mapping[str, str | None]) -> None:
    """The change, and nothing else, must be what another reader finds."""
    try:
        expected, found = tomllib.loads(before), tomllib.loads(after)
    except tomllib.TOMLDecodeError:
        expected, found = {}, None  # a value of several lines was cut
    user = expected.setdefault("users", {}).setdefault(name, {})
    for key, value in changes.items():
        user.pop(key, None)
        if value is not None:
            user[key] = value
    if found != expected:
        shown = f"[users.{name}]" if re.fullmatch(r"[\w-]+", name) else f'[users."{name}"]'
        raise ConfigError(
            f"the user {name} stands in the file in a way that cannot be changed here",
            file=str(path),
            expected=f"{shown} on a line of its own, and below it each key on one line",
            remedy="write it so, or change it by hand",
        )


def _replace(path: Path, text: str) -> None:
    status = path.stat()
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchown(file.fileno(), status.st_uid, status.st_gid)
            os.fchmod(file.fileno(), status.st_mode & 0o7777)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise

"""Read a TOML file and check it against a pydantic model; every mistake with its line."""

from __future__ import annotations

import copy
import functools
import os
import pwd
import shlex
import stat
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ikeway.config.explain import explain
from ikeway.config.lines import LineIndex
from ikeway.errors import ConfigError, ConfigErrors, IkewayError

Location = tuple[str | int, ...]
Change = Callable[[dict[str, Any]], None]
"""Has a file say something else, before it is looked at."""
Model = TypeVar("Model", bound=BaseModel)

MAX_OCTETS = 64 << 20  # a users file of a large site has some ten megabytes
_PASSES = 8  # how often what is wrong is taken out to find what else is wrong


@dataclass(frozen=True)
class Document:
    """A TOML file that was read."""

    path: Path
    text: str = field(repr=False)
    content: dict[str, Any] = field(repr=False)
    status: os.stat_result = field(repr=False)

    @property
    def private(self) -> bool:
        """True when only its owner (and root) can read it."""
        return is_private(self.status)

    def exposure(self) -> tuple[str, str]:
        """Why it is not private, and the remedy."""
        return exposure(self.path, self.status)

    @functools.cached_property
    def lines(self) -> LineIndex:
        """The places of its keys; only made when there is something to tell."""
        return LineIndex(self.text)

    def error(
        self, location: Sequence[str | int], reason: str, *, expected: str = "", got: str = "", remedy: str = ""
    ) -> ConfigError:
        """A mistake at a key path."""
        line = self.lines.line(location)
        return ConfigError(reason, file=str(self.path), line=line, expected=expected, got=got, remedy=remedy)


@dataclass(frozen=True)
class Context:
    """What the validators of fields need to know of the file."""

    file: Path
    exposure: tuple[str, str] | None  # why others could get at secrets in it, and the remedy


class Problems:
    """The mistakes found so far in one document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.errors: list[ConfigError] = []
        self.removed: set[Location] = set()  # what was left out because it was wrong

    def add(
        self, location: Sequence[str | int], reason: str, *, expected: str = "", got: str = "", remedy: str = ""
    ) -> None:
        """Note a mistake at a key path, unless something there has been complained of already."""
        place = tuple(location)
        if not _within(place, self.removed):
            self.errors.append(self.document.error(place, reason, expected=expected, got=got, remedy=remedy))

    def add_error(self, location: Sequence[str | int], error: IkewayError) -> None:
        """Note an error of a lower layer at a key path."""
        if isinstance(error, ConfigErrors):
            self.errors.extend(error.errors)
        elif isinstance(error, ConfigError) and error.file:
            self.errors.append(error)
        else:
            self.add(location, error.reason, expected=error.expected, got=error.got, remedy=error.remedy)

    def was_removed(self, *location: str | int) -> bool:
        """True when the key was there but wrong, so that its absence means nothing."""
        return location in self.removed

    def raise_if_any(self) -> None:
        """Raise all mistakes at once."""
        if self.errors:
            raise ConfigErrors(self.errors)


def read_document(path: Path) -> Document:
    """Read and parse a TOML file. Raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            octets = file.read(MAX_OCTETS + 1)
    except FileNotFoundError:
        raise ConfigError("there is no such file", file=str(path), remedy="check the name, or write the file") from None
    except OSError as error:
        raise ConfigError(
            f"the file cannot be read: {error.strerror}", file=str(path), remedy="check its kind, owner and permissions"
        ) from None
    if len(octets) > MAX_OCTETS:
        raise ConfigError(f"the file is larger than {MAX_OCTETS} octets", file=str(path), remedy="split it")
    text = _decode(path, octets)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, text, error) from None
    return Document(path, text, content, status)


def is_private(status: os.stat_result) -> bool:
    """True when nobody but the owner, who is we or root, may read or write the file."""
    return not stat.S_IMODE(status.st_mode) & 0o077 and status.st_uid in {0, os.geteuid()}


def exposure(path: Path, status: os.stat_result) -> tuple[str, str]:
    """Why `is_private` says no, to follow after "and", and the remedy."""
    quoted = shlex.quote(str(path))
    if status.st_uid in {0, os.geteuid()}:
        return "others may read or write it", f"chmod 600 {quoted}"
    # As a rule: written by a user, and read by root under sudo.
    remedy = f"chown {_user_name(os.geteuid())} {quoted} && chmod 600 {quoted}"
    return f"it belongs to the user {_user_name(status.st_uid)}", remedy


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def validate(document: Document, model: type[Model]) -> tuple[Model | None, Problems]:
    """Check a document. Where parts are wrong, the rest is still checked and given back, so that the caller can look
    for further mistakes; None when what is left is nothing to go on with."""
    problems = Problems(document)
    context = Context(document.path, None if document.private else document.exposure())
    content: Any = document.content
    for _ in range(_PASSES):
        try:
            return model.model_validate(content, context=context), problems
        except ValidationError as error:
            content = copy.deepcopy(content)
            # Validators hand the values themselves out as `input`; explain() tells no secret of them.
            details = _without_echoes(error.errors(include_url=False))
            for detail in details:
                mistake = explain(model, detail)
                problems.add(
                    mistake.location, mistake.reason, expected=mistake.expected, got=mistake.got, remedy=mistake.remedy
                )
            gone: set[Location] = set()
            for detail in details:
                if _within(detail["loc"], gone):  # it went with something that holds it
                    continue
                removed = _remove(content, detail["loc"])
                if not removed:
                    return None, problems
                gone.add(removed)
            problems.removed |= gone
    return None, problems


def _without_echoes(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Drop "the list is too short" where it is so only because an element of it is wrong."""
    holders = {detail["loc"][:depth] for detail in details for depth in range(len(detail["loc"]))}
    return [detail for detail in details if not (detail["type"] == "too_short" and detail["loc"] in holders)]


def _within(location: Location, places: set[Location]) -> bool:
    return any(location[: len(place)] == place for place in places)


def _has(holder: object, part: str | int) -> bool:
    if isinstance(holder, list):
        return isinstance(part, int) and part < len(holder)
    return isinstance(holder, dict) and part in holder


def _remove(content: dict[str, Any], location: Sequence[str | int]) -> Location:
    """Take what is wrong out of `content`; where something is missing, the table that lacks it. Returns its path,
    empty when that would be everything."""
    path: Location = ()
    holder: Any = None
    here: Any = content
    for part in location:
        if not _has(here, part):
            continue
        holder, here = here, here[part]
        path = (*path, part)
    if isinstance(holder, dict) and path:
        del holder[path[-1]]
        return path
    if isinstance(holder, list) and path:
        # The places of the others must not change: the list as a whole is left out.
        return _remove(content, path[:-1])
    return ()


def _decode(path: Path, octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            "the file is not UTF-8 text", file=str(path), line=line, expected="UTF-8", remedy="save it as UTF-8"
        ) from None


def _syntax_error(path: Path, text: str, error: tomllib.TOMLDecodeError) -> ConfigError:
    reason, _, place = str(error).rpartition(" (at ")
    digits = place.removeprefix("line ").split(",")[0]
    line = int(digits) if digits.isdigit() else text.count("\n") + 1  # "(at end of document)"
    return ConfigError(
        f"this is not TOML: {reason[:1].lower()}{reason[1:]}",
        file=str(path),
        line=line,
        expected='`key = value` or `[section]`; texts in quotes, as in name = "value"',
        remedy="correct this line (or one just above it)",
    )

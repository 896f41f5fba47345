"""Where in a TOML text a key stands: an index from key path to line.

tomllib gives values without places. This index is built from a text that tomllib has accepted already, so it need not
judge the syntax, only follow it (TOML 1.0.0): headers, dotted and quoted keys, strings of all four kinds, arrays and
inline tables over several lines.
"""

from __future__ import annotations

import bisect
import re
import tomllib
from collections.abc import Sequence

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^,\]}\n#]*")
# The longest quotes first; a multi-line string may end in up to two quotes of its own.
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)


class LineIndex:
    """Lines (1-based) of the keys of one TOML text."""

    def __init__(self, text: str) -> None:
        """Index `text`, which must be valid TOML."""
        self._lines: dict[Path, int] = {}
        self._text = text.replace("\r\n", "\n")
        self._newlines = [match.start() for match in re.finditer("\n", self._text)]
        self._at = 0
        self._tables: dict[Path, int] = {}  # how many elements an array of tables has so far
        self._scan()

    def line(self, location: Sequence[str | int]) -> int:
        """The line of `location`, or of the nearest thing around it; 0 when the text has nothing of it.

        Parts that the text does not have (the names of union members in pydantic's locations) are passed over.
        """
        found: Path = ()
        for part in location:
            if (*found, part) in self._lines:
                found = (*found, part)
        return self._lines.get(found, 0)

    def _scan(self) -> None:
        table: Path = ()
        while True:
            self._skip_blank()
            if self._at >= len(self._text):
                return
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        start = self._at
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        keys = self._keys()
        self._at += 2 if is_array else 1
        path: Path = ()
        for position, key in enumerate(keys):
            path = (*path, key)
            if is_array and position == len(keys) - 1:
                count = self._tables.get(path, 0)
                self._tables[path] = count + 1
                self._note(path, start)
                path = (*path, count)
            elif path in self._tables:
                path = (*path, self._tables[path] - 1)
            self._note(path, start)
        return path

    def _pair(self, table: Path) -> None:
        start = self._at
        path = table
        for key in self._keys():
            path = (*path, key)
            self._note(path, start)
        self._at += 1  # =
        self._value(path)

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip_blank()
            if self._text[self._at] in "\"'":
                raw = self._take(_STRING)
                keys.append(str(tomllib.loads(f"key = {raw}")["key"]))
            else:
                keys.append(self._take(_BARE_KEY))
            self._skip_blank()
            if self._text[self._at] != ".":
                return keys
            self._at += 1

    def _value(self, path: Path) -> None:
        self._skip_blank()
        first = self._text[self._at]
        if first in "\"'":
            self._take(_STRING)
        elif first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            self._take(_BARE_VALUE)

    def _array(self, path: Path) -> None:
        self._at += 1
        position = 0
        while True:
            self._skip_blank()
            if self._text[self._at] == "]":
                self._at += 1
                return
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._note((*path, position), self._at)
            self._value((*path, position))
            position += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while True:
            self._skip_blank()
            if self._text[self._at] == "}":
                self._at += 1
                return
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._pair(path)

    def _skip_blank(self) -> None:
        self._take(_BLANK)

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError(f"not valid TOML at offset {self._at}")
        self._at = match.end()
        return match.group()

    def _note(self, path: Path, offset: int) -> None:
        self._lines.setdefault(path, bisect.bisect_left(self._newlines, offset) + 1)

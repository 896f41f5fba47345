"""The line of every key, whatever way it is written."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.config.lines import LineIndex

TEXT = '''\
# a comment with [brackets] and "quotes"
title = "x"   # line 2

[owner]
name = "Tom # not a comment"
"quoted key" = 1
'single.dotted' = 2
a.b.c = 3
multi = """
  [not.a.table]
  key = "not a key"
"""
literal = \'\'\'
''not the end
x = 1\'\'\'
ends = """quoted ""\\" end"""""
list = [
  1,
  # two
  "two", [3,
    4],
  { inner = 5, deep.er = 6 },
]
inline = { one = 1, two = { three = 3 } }

[[fruit]]
name = "apple"
[fruit.physical]
colour = "red"
[[fruit.variety]]
name = "delicious"
[[fruit.variety]]
name = "smith"

[[fruit]]
name = "banana"
[[fruit.variety]]
name = "plantain"

[ spaced . "table" ]
date = 1979-05-27T07:32:00Z
number = -1_000.5e+3
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("owner",), 4),
        (("owner", "name"), 5),
        (("owner", "quoted key"), 6),
        (("owner", "single.dotted"), 7),
        (("owner", "a", "b", "c"), 8),
        (("owner", "multi"), 9),
        (("owner", "literal"), 13),
        (("owner", "ends"), 16),
        (("owner", "list", 0), 18),
        (("owner", "list", 1), 20),
        (("owner", "list", 2), 20),
        (("owner", "list", 2, 1), 21),
        (("owner", "list", 3, "inner"), 22),
        (("owner", "list", 3, "deep", "er"), 22),
        (("owner", "inline", "two", "three"), 24),
        (("fruit", 0, "name"), 27),
        (("fruit", 0, "physical", "colour"), 29),
        (("fruit", 0, "variety", 1, "name"), 33),
        (("fruit", 1, "name"), 36),
        (("fruit", 1, "variety", 0, "name"), 38),
        (("spaced", "table", "date"), 41),
        (("spaced", "table", "number"), 42),
    ],
)
def test_the_line_of_a_key(path: tuple[str | int, ...], line: int) -> None:
    tomllib.loads(TEXT)
    assert LineIndex(TEXT).line(path) == line
    assert LineIndex(TEXT.replace("\n", "\r\n")).line(path) == line


def test_what_is_missing_has_the_line_of_what_is_around_it() -> None:
    index = LineIndex(TEXT)
    assert index.line(("owner", "nonesuch")) == 4
    assert index.line(("fruit", 1, "nonesuch")) == 35
    assert index.line(("nonesuch",)) == 0


def test_names_of_union_members_are_passed_over() -> None:
    assert LineIndex(TEXT).line(("owner", "list", "tuple[int, ...]", 1)) == 20


KEYS = st.text("abcXYZ09_-. \"'\\#[]=é\t", min_size=1, max_size=8)
VALUES = st.recursive(
    st.integers(-99, 99) | st.booleans() | st.text("ab\"'\\#[]{}=,\n é", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def _basic(text: str) -> str:
    return '"' + "".join(c if c.isalnum() else f"\\u{ord(c):04x}" for c in text) + '"'


def _write(value: object, lines: list[str]) -> None:
    """Append a value as TOML; lists go over several lines."""
    if isinstance(value, bool):
        lines[-1] += str(value).lower()
    elif isinstance(value, int):
        lines[-1] += str(value)
    elif isinstance(value, str):
        lines[-1] += _basic(value)
    elif isinstance(value, list):
        lines[-1] += "[ # list"
        for each in value:
            lines.append("  ")
            _write(each, lines)
            lines[-1] += ","
        lines.append("]")
    elif isinstance(value, dict):
        lines[-1] += "{"
        for count, (key, each) in enumerate(value.items()):
            lines[-1] += f"{', ' if count else ' '}{_basic(key)} = "
            _write(each, lines)
        lines[-1] += " }"


@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=4), st.booleans())
def test_every_key_of_any_file(table: Mapping[str, object], nested: bool) -> None:
    lines: list[str] = []
    places: dict[str, int] = {}
    head: tuple[str, ...] = ("top", "level") if nested else ()
    if nested:
        lines.append("[top.level]")
    for key, value in table.items():
        lines += ["# comment", f"{_basic(key)} = "]
        places[key] = len(lines)
        _write(value, lines)
    text = "\n".join(lines) + "\n"
    content = tomllib.loads(text)
    assert (content["top"]["level"] if nested else content) == table
    index = LineIndex(text)
    for key, line in places.items():
        assert index.line((*head, key)) == line

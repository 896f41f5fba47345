"""Turns a recording into a pytest file that stands by itself: what the peer said then must be read the same way later."""

from __future__ import annotations

import os
from pathlib import Path

from ikeway.errors import HostError
from ikeway.wire.render import summary
from ikeway.workbench.recording.format import Recording

_TEMPLATE = '''"""{title}

Made by `ikeway workbench test` from {source}. It holds the keys of that session: keep it as closely as the recording,
unless the session was one of the lab.
"""

from __future__ import annotations

import pytest

from ikeway.wire import Message, summary
from ikeway.workbench.recording.opening import open_all
from ikeway.workbench.recording.reading import loads

RECORDING = loads("""\\
{lines}""")

# "<" came from the peer, ">" went to it.
EXPECTED = [
{expected}
]


def test_the_recording_is_whole() -> None:
    assert RECORDING.errors == ()


def test_the_messages_are_those_of_then() -> None:
    assert [f"{{'>' if each.sent else '<'}} {{summary(each.message)}}" for each in RECORDING.messages] == EXPECTED


def test_what_was_on_the_wire_opens_to_these_messages() -> None:
    opened = [each for each in open_all(RECORDING)]
    assert [str(each.error) for each in opened if each.error is not None] == []
    found = [each.message for each in opened]
    for each in RECORDING.messages:
        assert each.message in found


@pytest.mark.parametrize("number", range(len(EXPECTED)))
def test_a_message_survives_being_written_and_read(number: int) -> None:
    message = RECORDING.messages[number].message
    assert Message.decode(message.encode(), refuse_critical=False) == message
'''


def write_test(recording: Recording, source: Path, target: Path, title: str = "") -> int:
    """Write the file, which only its owner may read; returns how many messages it is about. Raises `HostError`, and
    leaves a file alone that is there already."""
    messages = recording.messages
    expected = "\n".join(f"    {f'{_arrow(each.sent)} {summary(each.message)}'!r}," for each in messages)
    lines = source.read_text(encoding="utf-8", errors="backslashreplace").replace("\\", "\\\\").replace('"""', '\\"""')
    text = _TEMPLATE.format(
        title=_plain(title) or f"A session of {recording.began:%Y-%m-%d}, as {recording.role}.",
        source=_plain(source.name),
        lines=lines,
        expected=expected,
    )
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise HostError(
            f"{target} cannot be written: {error.strerror}", remedy="name a file that is not there"
        ) from None
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
    return len(messages)


def _arrow(sent: bool) -> str:
    return ">" if sent else "<"


def _plain(text: str) -> str:
    """Text that ends no docstring and escapes nothing."""
    return "".join(each if each.isprintable() else " " for each in text).replace("\\", "/").replace('"', "'")

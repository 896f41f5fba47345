"""Turns a recording into a pytest file that stands by itself: what the peer said then must be read the same way later, and
the engine must go on to answer it as it does now."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ikeway.errors import HostError, IkewayError
from ikeway.wire.render import summary
from ikeway.workbench.bench.again import log_in_again
from ikeway.workbench.recording.format import RecordingError
from ikeway.workbench.recording.opening import open_all
from ikeway.workbench.recording.reading import UNREAD, loads

_TEMPLATE = '''"""{title}

Made by `ikeway workbench test` from {source}. It holds the keys of that session: keep it as closely as the recording,
unless the session was one of the lab.
"""

from __future__ import annotations

import pytest

from ikeway.wire import Message, summary
{imports}from ikeway.workbench.recording.opening import open_all
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
    opened = list(open_all(RECORDING))
    found = [each.message for each in opened]
    assert [str(each.error) for each in opened if each.error is not None] == {unopened}
    assert [summary(each.message) for each in RECORDING.messages if each.message not in found] == {unseen}


@pytest.mark.parametrize("number", range(len(EXPECTED)))
def test_a_message_survives_being_written_and_read(number: int) -> None:
    message = RECORDING.messages[number].message
    assert Message.decode(message.encode(), refuse_critical=False) == message
'''

_AGAIN = """

# The peer of then against the engine of now, in memory, both with a key of this test's: what went to and fro when this
# file was made.
LOG_IN = [
{lines}
]


def test_the_log_in_goes_as_it_did_when_this_was_written() -> None:
    assert list(log_in_again(RECORDING)) == LOG_IN
"""


@dataclass(frozen=True, slots=True)
class Written:
    """What a file of tests is about: so many messages, and the log-in, unless `without_log_in` says why not."""

    messages: int
    without_log_in: str = ""


def write_test(source: Path, target: Path, title: str = "") -> Written:
    """Write the file, which only its owner may read. Lines of the recording that cannot be used are left out. Raises
    `RecordingError` when it is of another version, and `HostError`; a file that is there already is left alone."""
    lines = _usable(source)
    recording = loads(lines, source.name)
    if recording.errors:  # a line that is longer than lines can be
        raise recording.errors[0]
    opened = list(open_all(recording))
    found = [each.message for each in opened]
    try:
        said, without = log_in_again(recording), ""
    except IkewayError as error:
        said, without = (), error.reason
    text = _TEMPLATE.format(
        title=_plain(title) or f"A session of {recording.began:%Y-%m-%d}, as {recording.role}.",
        source=_plain(source.name),
        imports="from ikeway.workbench.bench.again import log_in_again\n" if said else "",
        lines=lines.replace("\\", "\\\\").replace('"""', '\\"""'),
        expected=_listed(f"{_arrow(each.sent)} {summary(each.message)}" for each in recording.messages),
        unopened=[str(each.error) for each in opened if each.error is not None],
        unseen=[summary(each.message) for each in recording.messages if each.message not in found],
    )
    _write(target, text + (_AGAIN.format(lines=_listed(said)) if said else ""))
    return Written(len(recording.messages), without)


def _usable(source: Path) -> str:
    """The lines of a recording without those that cannot be used."""
    text = source.read_text(encoding="utf-8", errors="backslashreplace")
    recording = loads(text, source.name)
    wrong = {each.line for each in recording.errors}
    if 1 in wrong:
        raise RecordingError(
            "a test is made of a recording of this version only",
            file=source.name,
            line=1,
            remedy="make it with the version of Ikeway that recorded it",
        )
    last = max(wrong, default=0) if any(each.reason.startswith(UNREAD) for each in recording.errors) else 0
    kept = [
        line for number, line in enumerate(text.split("\n"), 1) if number not in wrong and (not last or number < last)
    ]
    return "\n".join(kept).rstrip("\n") + "\n"


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"    {line!r}," for line in lines)


def _write(target: Path, text: str) -> None:
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise HostError(
            f"{target} cannot be written: {error.strerror}", remedy="name a file that is not there"
        ) from None
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)


def _arrow(sent: bool) -> str:
    return ">" if sent else "<"


def _plain(text: str) -> str:
    """Text that ends no docstring and escapes nothing."""
    return "".join(each if each.isprintable() else " " for each in text).replace("\\", "/").replace('"', "'")

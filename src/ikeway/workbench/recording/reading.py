"""Reads a recording: whatever of it can be used is, and every line that cannot gives an error with its place."""

from __future__ import annotations

import io
import ipaddress
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from ikeway.address import Address
from ikeway.crypto import IkeKeys
from ikeway.errors import ConfigError, IkewayError
from ikeway.ike.proposals import parse_proposal, verify_selected
from ikeway.ike.protection import key_octets
from ikeway.wire.message import Message
from ikeway.workbench.recording.format import (
    MARK,
    VERSION,
    Datagram,
    Entry,
    EspKeys,
    Keys,
    Note,
    Plaintext,
    Recording,
    RecordingError,
)

MAX_LINE = 1 << 20
MAX_LINES = 1_000_000
MAX_ERRORS = 100
UNREAD = "what follows was not read"
Fields = Mapping[str, object]


def load(path: str | Path) -> Recording:
    """Read a recording. Raises `RecordingError` when there is none at all; lesser things are in its `errors`."""
    name = str(path)
    try:
        with Path(path).open("rb") as file:
            return _read(name, file)
    except OSError as error:
        raise RecordingError(
            f"the recording cannot be read: {error.strerror}",
            file=name,
            remedy="name a file that `--record` has written",
        ) from None


def loads(text: str, name: str = "recording") -> Recording:
    """Read a recording out of a text. Raises as `load` does."""
    return _read(name, io.BytesIO(text.encode()))


def _read(name: str, file: BinaryIO) -> Recording:
    errors: list[RecordingError] = []
    entries: list[Entry] = []
    head: Fields | None = None
    for number, line in _lines(file):
        if number > MAX_LINES:
            errors.append(_unread(name, number, f"{MAX_LINES} lines are the most"))
            break
        try:
            fields = _object(line)
            if number == 1:
                head = fields
                _check_head(fields)
            else:
                entries.append(_entry(fields))
        except (IkewayError, ValueError, KeyError, TypeError, RecursionError) as error:
            errors.append(_error(error, name, number, line))
            if len(errors) >= MAX_ERRORS:
                errors.append(_unread(name, number, f"{MAX_ERRORS} lines are wrong"))
                break
    if head is None or (MARK not in head and not entries):
        raise RecordingError(
            "this is no recording",
            file=name,
            line=1,
            expected=f'a first line with "{MARK}"',
            remedy="name a file that `--record` has written",
        )
    role, by, began = (str(head.get(key, "")) for key in ("role", "by", "began"))
    return Recording(role, _time(began), by, tuple(entries), tuple(errors))


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    for number in itertools.count(1):
        line = file.readline(MAX_LINE)
        if not line:
            return
        yield number, line


def _unread(name: str, number: int, why: str) -> RecordingError:
    return RecordingError(
        f"{UNREAD}: {why}",
        file=name,
        line=number,
        remedy="cut the file into parts, each with the first line on top, when it is a recording",
    )


def _object(line: bytes) -> Fields:
    if not line.endswith(b"\n"):
        raise ValueError(
            "the line is cut short" if len(line) < MAX_LINE else f"the line is longer than {MAX_LINE} octets"
        )
    value = json.loads(line)
    if not isinstance(value, dict):
        raise TypeError("not a JSON object")
    return value


def _check_head(fields: Fields) -> None:
    version = fields.get(MARK)
    if version != VERSION:
        raise ConfigError(
            "a recording of another version; what is understood of it is used",
            expected=str(VERSION),
            got=str(version),
            remedy="read it with the version of Ikeway that made it" + (f", {fields['by']}" if "by" in fields else ""),
        )


def _entry(fields: Fields) -> Entry:
    make = _KINDS.get(str(fields.get("what")))
    if make is None:
        raise ValueError(f"nothing here is called {str(fields.get('what'))[:40]!r}")
    return make(fields)


def _datagram(fields: Fields) -> Datagram:
    return Datagram(
        _t(fields), bool(fields["sent"]), _address(fields["local"]), _address(fields["remote"]), _hex(fields)
    )


def _plaintext(fields: Fields) -> Plaintext:
    message = Message.decode(_hex(fields), refuse_critical=False)
    local, remote = _address(fields["local"]), _address(fields["remote"])
    again = int(str(fields.get("again", 0)))
    return Plaintext(_t(fields), bool(fields["sent"]), local, remote, message, again, _label(fields))


def _keys(fields: Fields) -> Keys:
    proposal = parse_proposal(str(fields["proposal"]))
    suite = verify_selected(proposal, (proposal,))
    keys = IkeKeys(*(_hex(fields, name) for name in ("sk_d", "sk_ai", "sk_ar", "sk_ei", "sk_er", "sk_pi", "sk_pr")))
    wanted = key_octets(suite)
    if any((len(e), len(a)) != wanted for e, a in ((keys.sk_ei, keys.sk_ai), (keys.sk_er, keys.sk_ar))):
        raise ValueError(f"the keys are not of the lengths that {suite} has")
    return Keys(_t(fields), _hex(fields, "spi_i"), _hex(fields, "spi_r"), suite, keys)


def _esp(fields: Fields) -> EspKeys:
    return EspKeys(_t(fields), int(str(fields["spi"]), 16), str(fields["algorithms"]), str(fields["wireshark"]))


def _note(fields: Fields) -> Note:
    return Note(_t(fields), str(fields["kind"]), str(fields["text"]), _label(fields))


def _label(fields: Fields) -> str:
    return str(fields.get("label", ""))[:20]


_KINDS: dict[str, Callable[[Fields], Entry]] = {
    "datagram": _datagram,
    "message": _plaintext,
    "keys": _keys,
    "esp": _esp,
    "note": _note,
}


def _t(fields: Fields) -> float:
    value = fields["t"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ValueError(f"no time: {str(value)[:40]!r}")
    return float(value)


def _address(value: object) -> Address:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("an address is a list of host and port")
    host, port = value
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ValueError("a port is a number up to 65535")
    return Address(str(ipaddress.ip_address(str(host))), port)


def _hex(fields: Fields, name: str = "octets") -> bytes:
    value = fields[name]
    if not isinstance(value, str):
        raise TypeError(f"`{name}` is no text")
    return bytes.fromhex(value)


def _time(text: str) -> datetime:
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        return datetime(1970, 1, 1, tzinfo=UTC)
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _error(error: Exception, name: str, number: int, line: bytes) -> RecordingError:
    if isinstance(error, ConfigError):
        return RecordingError(
            error.reason, file=name, line=number, expected=error.expected, got=error.got, remedy=error.remedy
        )
    reason = f"`{error.args[0]}` is missing" if isinstance(error, KeyError) else str(error)
    if isinstance(error, json.JSONDecodeError):
        reason = f"no JSON: {error}"
    return RecordingError(reason, file=name, line=number, remedy="the other lines are used")

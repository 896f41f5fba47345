"""Logs: one line an event, for people (default) or for machines (JSON).

Modules log through the standard library. `event()` adds a name and fields to a line, so that machines need not take
sentences apart. What strangers can cause at will is rate-limited, and what was left out is counted. Values that come
from peers are escaped, so that nobody can forge a line; secrets never get here, and fields that are named like one are
hidden all the same.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Literal, TextIO

from ikeway.errors import HostError, IkewayError

Format = Literal["text", "json"]

ROOT = "ikeway"
MAX_VALUE = 400  # characters of one field
FILE_OCTETS = 4 << 20  # a log file is moved aside then; one old one is kept
_HIDDEN = frozenset({"password", "passwd", "psk", "secret", "key", "keys", "msk", "token", "private_key", "nt_hash"})
# sd-daemon(3): the journal takes the level from "<N>" at the start of a line.
_JOURNAL_LEVELS = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def event(
    log: logging.Logger,
    level: int,
    name: str,
    message: str,
    fields: Mapping[str, object] | None = None,
    *,
    limited: str = "",
) -> None:
    """Log an event. `name` is a short fixed word for machines, `message` a sentence for people.

    `limited` names whom the line is about (a peer's address) when strangers can cause it at will.
    """
    if log.isEnabledFor(level):
        extra = {"event": name, "fields": fields or {}, "limited": limited}
        log.log(level, "%s", message, extra=extra, stacklevel=2)


def error_fields(error: IkewayError) -> dict[str, object]:
    """The parts of an error, as fields."""
    parts = {"expected": error.expected, "got": error.got, "side": error.side.value, "remedy": error.remedy}
    return {"error": type(error).__name__, "reason": error.reason, **{key: part for key, part in parts.items() if part}}


def set_up(
    *, format: Format = "text", level: int = logging.INFO, file: Path | None = None, stream: TextIO | None = None
) -> None:
    """Send what Ikeway logs to a file, or to a stream (standard error). Call again to change it. Raises `HostError`."""
    handler = _file_handler(file) if file is not None else logging.StreamHandler(stream or sys.stderr)
    if format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(JournalFormatter() if file is None and _is_journal(handler) else TextFormatter())
    handler.addFilter(RateLimit())
    root = logging.getLogger(ROOT)
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    root.propagate = False


class TextFormatter(logging.Formatter):
    """`2026-05-01 12:00:01 warning: alice@example.com was refused: ...`; plain information needs no level."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback of a defect follows on lines of its own."""
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        return f"{clock} {self._body(record)}"

    def _body(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        line = f"{level}{escape(record.getMessage())}{_suppressed(record)}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JournalFormatter(TextFormatter):
    """The same for the journal, which keeps time and level itself."""

    def format(self, record: logging.LogRecord) -> str:
        """One line with the level in front."""
        level = next((number for at, number in sorted(_JOURNAL_LEVELS.items()) if record.levelno <= at), 2)
        return f"<{level}>{self._body(record)}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, event, message, and the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "event", ""),
            "message": record.getMessage(),
        }
        fields: Mapping[str, object] = getattr(record, "fields", {})
        line.update({name: _value(name, value) for name, value in fields.items() if name not in line})
        if suppressed := getattr(record, "suppressed", 0):
            line["suppressed"] = suppressed
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float
    suppressed: int = 0


class RateLimit(logging.Filter):
    """Lets lines through that are about one peer, or about all together, only so often. Each bucket fills by time."""

    def __init__(
        self,
        *,
        burst: int = 5,
        every: float = 10.0,
        total_burst: int = 100,
        total_every: float = 0.2,
        peers: int = 4096,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`burst` lines at once and one more `every` so many seconds for a peer; `total_*` for all peers."""
        super().__init__()
        self._burst, self._every = burst, every
        self._total_burst, self._total_every = total_burst, total_every
        self._peers, self._now = peers, now
        self._buckets: OrderedDict[tuple[str, str], _Bucket] = OrderedDict()
        self._total = _Bucket(total_burst, now())

    def filter(self, record: logging.LogRecord) -> bool:
        """False when the line is one too many."""
        who = getattr(record, "limited", "")
        if not who:
            return True
        key = (getattr(record, "event", ""), who)
        bucket = self._buckets.pop(key, None) or _Bucket(self._burst, self._now())
        self._buckets[key] = bucket
        if len(self._buckets) > self._peers:
            self._buckets.popitem(last=False)
        if not self._take(bucket, self._burst, self._every):
            bucket.suppressed += 1
            return False
        if not self._take(self._total, self._total_burst, self._total_every):
            self._total.suppressed += 1
            return False
        record.suppressed = bucket.suppressed + self._total.suppressed
        bucket.suppressed = self._total.suppressed = 0
        return True

    def _take(self, bucket: _Bucket, burst: int, every: float) -> bool:
        now = self._now()
        bucket.tokens = min(burst, bucket.tokens + (now - bucket.at) / every)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


def escape(text: str) -> str:
    """Text that stays on one line and cannot command a terminal."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _value(name: str, value: object) -> object:
    if name.lower() in _HIDDEN:
        return "[hidden]"
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, bytes):
        value = value.hex()
    if isinstance(value, list | tuple | set | frozenset):
        return [_value("", each) for each in list(value)[:64]]
    text = str(value)
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 3] + "..."


def _suppressed(record: logging.LogRecord) -> str:
    count = getattr(record, "suppressed", 0)
    return f" ({count} more like this before)" if count else ""


def _is_journal(handler: logging.Handler) -> bool:
    """True when the stream leads into the journal (systemd.exec(5): JOURNAL_STREAM has its device and inode)."""
    named = os.environ.get("JOURNAL_STREAM", "")
    stream = getattr(handler, "stream", None)
    try:
        status = os.fstat(stream.fileno())  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):
        return False
    return named == f"{status.st_dev}:{status.st_ino}"


def _file_handler(path: Path) -> logging.Handler:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = RotatingFileHandler(path, maxBytes=FILE_OCTETS, backupCount=1, encoding="utf-8")
        path.chmod(0o600)  # who connected from where is not for everybody
    except OSError as error:
        raise HostError(
            f"the log file {path} cannot be written: {error.strerror}", remedy="name another one, or see to its folder"
        ) from None
    return handler

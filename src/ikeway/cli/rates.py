"""Rates of what child SAs carry, made from the counters of one report after another."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ikeway.daemon.status import ChildStatus, SessionStatus, Status

GRAPH_SECONDS = 60
_SHORTEST = 0.2  # seconds between reports from which a rate is made: events make reports come one upon the other
_SLACK = 0.05  # reports come a little early or late
_BARS = "▁▂▃▄▅▆▇█"
_PLAIN_BARS = "_.-~=+*#"

Key = tuple[int, int]  # of a session and of a child SA in it; both stay when keys are renewed
_Counts = tuple[str, int, int, int, int]  # the inbound SPI, packets in and out, octets in and out


@dataclass(frozen=True, slots=True)
class Rate:
    """What passes in a second."""

    bits_in: float = 0.0
    bits_out: float = 0.0
    packets_in: float = 0.0
    packets_out: float = 0.0

    @property
    def bits(self) -> float:
        """In both directions."""
        return self.bits_in + self.bits_out

    def __add__(self, other: Rate) -> Rate:
        return Rate(
            self.bits_in + other.bits_in,
            self.bits_out + other.bits_out,
            self.packets_in + other.packets_in,
            self.packets_out + other.packets_out,
        )


class Rates:
    """Give it every report with the time of its arrival in seconds."""

    def __init__(self) -> None:
        """Nothing is known before the second report."""
        self._rates: dict[Key, Rate] = {}
        self._counts: dict[Key, _Counts] = {}
        self._at: float | None = None
        self._past: deque[tuple[float, float, Rate]] = deque()  # from, to

    def update(self, status: Status, now: float) -> None:
        """Take in a report."""
        passed = now - self._at if self._at is not None else 0.0
        if self._at is not None and passed < _SHORTEST:
            return
        counts = {(session.id, child.id): _counts(child) for session in status.sessions for child in session.children}
        if self._at is not None:
            self._rates = {key: _rate(self._counts.get(key), counted, passed) for key, counted in counts.items()}
            self._past.append((self._at, now, self.total))
        self._counts, self._at = counts, now
        while self._past and self._past[0][1] <= now - GRAPH_SECONDS:
            self._past.popleft()

    def of(self, session: SessionStatus, child: ChildStatus | None = None) -> Rate:
        """The rate of a child SA, or of a session as a whole."""
        if child is not None:
            return self._rates.get((session.id, child.id), Rate())
        return sum((self.of(session, each) for each in session.children), Rate())

    @property
    def total(self) -> Rate:
        """All of them together."""
        return sum(self._rates.values(), Rate())

    def last_minute(self, *, inbound: bool) -> list[float]:
        """Bits in a second, a value for each of the last `GRAPH_SECONDS` seconds, the newest last."""
        if self._at is None:
            return [0.0] * GRAPH_SECONDS
        values = [0.0] * GRAPH_SECONDS
        for start, end, rate in self._past:
            first = GRAPH_SECONDS - math.ceil(self._at - start - _SLACK)
            last = GRAPH_SECONDS - 1 - int(self._at - end + _SLACK)
            for place in range(max(first, 0), last + 1):
                values[place] = rate.bits_in if inbound else rate.bits_out
        return values


def sparkline(values: Sequence[float], *, plain: bool = False) -> str:
    """A graph of one line: the highest value as the highest bar, nothing for nothing. `plain`: in ASCII."""
    bars = _PLAIN_BARS if plain else _BARS
    highest = max(values, default=0.0)
    if highest <= 0:
        return " " * len(values)
    return "".join(
        " " if value <= 0 else bars[min(int(value / highest * len(bars)), len(bars) - 1)] for value in values
    )


def _counts(child: ChildStatus) -> _Counts:
    return child.spi_in, child.packets_in, child.packets_out, child.octets_in, child.octets_out


def _rate(before: _Counts | None, after: _Counts, seconds: float) -> Rate:
    """With new keys the counters begin anew."""
    if before is None or before[0] != after[0]:
        before = (after[0], 0, 0, 0, 0)
    packets_in, packets_out, octets_in, octets_out = (
        max(new - old, 0) / seconds for old, new in zip(before[1:], after[1:], strict=True)
    )
    return Rate(octets_in * 8, octets_out * 8, packets_in, packets_out)

"""An authentication centre in software: vectors of subscribers whose Ki and OPc are known, with sequence numbers that
never go back (TS 33.102 annex C).

A sequence number must be higher than those before, also after a restart. So it is the time, in milliseconds, as annex
C.1.1.3 allows (the scheme "entirely time-based"): nothing is written down. A card that is further on, because another
authentication centre served it or because this one's clock went back, says so in AUTS; from then on its numbers run so
far before the clock, or so far behind. After a restart that is learnt again, by one more round trip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ikeway.crypto.milenage import SQN_OCTETS, GsmTriplet, Milenage, UmtsVector
from ikeway.eap.usim import IND_BITS

_INDICES = 1 << IND_BITS
_SEQ_LIMIT = 1 << (8 * SQN_OCTETS - IND_BITS)
_RAND_OCTETS = 16
_SEPARATION_BIT = 0x8000


@dataclass(slots=True)
class _Progress:
    offset: int = 0  # DIF of annex C.1.1.3: what the card's numbers are before the clock
    last: int = 0  # SEQ of the last vector
    index: int = 0  # IND of the next


class SequenceNumbers:
    """Where each subscriber's sequence numbers are."""

    def __init__(self) -> None:
        self._progress: dict[str, _Progress] = {}

    def following(self, subscriber: str, now: float) -> bytes:
        """The next SQN; `now` in seconds since 1970. The index goes round, so that vectors may be used in any order."""
        progress = self._progress.setdefault(subscriber, _Progress())
        progress.last = max(_clock(now) + progress.offset, progress.last + 1) % _SEQ_LIMIT
        sqn = progress.last << IND_BITS | progress.index
        progress.index = (progress.index + 1) % _INDICES
        return sqn.to_bytes(SQN_OCTETS)

    def resynchronise(self, subscriber: str, now: float, sqn_of_card: bytes) -> None:
        """Go on behind the card's SQN, which AUTS proved (TS 33.102 section 6.3.5)."""
        progress = self._progress.setdefault(subscriber, _Progress())
        progress.last = int.from_bytes(sqn_of_card) >> IND_BITS
        progress.offset = progress.last + 1 - _clock(now)


def umts_vector(
    milenage: Milenage, sqn: bytes, amf: bytes, separation: bool, random: Callable[[int], bytes]
) -> UmtsVector:
    """A fresh vector. `separation`: set the AMF separation bit, which is for EAP-AKA' alone (TS 33.402 section 6.2)."""
    bits = int.from_bytes(amf) & ~_SEPARATION_BIT | (_SEPARATION_BIT if separation else 0)
    return milenage.vector(random(_RAND_OCTETS), sqn, bits.to_bytes(2))


def gsm_triplets(milenage: Milenage, count: int, random: Callable[[int], bytes]) -> tuple[GsmTriplet, ...]:
    """Fresh triplets."""
    return tuple(milenage.triplet(random(_RAND_OCTETS)) for _ in range(count))


def _clock(now: float) -> int:
    return int(now * 1000)

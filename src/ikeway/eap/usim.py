"""A card in software: what a USIM or SIM does with Ki and OPc (TS 33.102 section 6.3.3, TS 55.205).

It remembers for each index (IND) the highest sequence number that it took (TS 33.102 annex C.2), as long as the process
lives. One that has just begun takes any genuine vector, also one that a card before it has seen: that gives nothing away,
for only who knows the vector's keys can go on with it.
"""

from __future__ import annotations

from ikeway.crypto.milenage import SQN_OCTETS, GsmTriplet, Milenage
from ikeway.eap.sim_questions import NetworkNotAuthentic, OutOfSync, UmtsAnswer

IND_BITS = 5  # TS 33.102 annex C.3: SQN is SEQ of 43 bits and IND of 5
_INDICES = 1 << IND_BITS


class Usim:
    """A card with the keys of one subscription."""

    def __init__(self, k: bytes, opc: bytes) -> None:
        self._milenage = Milenage(k, opc)
        self._taken = [0] * _INDICES  # the highest SEQ of each IND
        self._highest = 0  # SQN_MS

    def authenticate(self, rand: bytes, autn: bytes) -> UmtsAnswer | OutOfSync | NetworkNotAuthentic:
        """The answer to a UMTS challenge."""
        opened = self._milenage.open_autn(rand, autn)
        if opened is None:
            return NetworkNotAuthentic()
        sqn = int.from_bytes(opened[0])
        sequence, index = sqn >> IND_BITS, sqn % _INDICES
        if sequence <= self._taken[index]:
            return OutOfSync(self._milenage.auts(rand, self._highest.to_bytes(SQN_OCTETS)))
        self._taken[index] = sequence
        self._highest = max(self._highest, sqn)
        return UmtsAnswer(*self._milenage.answer(rand))

    def answer_gsm(self, rands: tuple[bytes, ...]) -> tuple[GsmTriplet, ...]:
        """The answers to GSM challenges."""
        return tuple(self._milenage.triplet(rand) for rand in rands)

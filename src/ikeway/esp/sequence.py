"""Sequence numbers: what they may reach, and the 32 bits that ESN does not send (RFC 4303 appendix A2)."""

from __future__ import annotations

LAST_SHORT = 0xFFFFFFFF
LAST_EXTENDED = 0xFFFFFFFFFFFFFFFF

# Numbers left before the end at which a rekeying is asked for: an eighth of the 32-bit space.
MARGIN = 1 << 29

# Without a replay window there is still an order: take the number nearest to the highest one seen.
NO_WINDOW = 1 << 31


def infer_sequence(low: int, highest: int, window: int) -> int:
    """The 64-bit number whose low 32 bits were received (RFC 4303 appendix A2.2).

    `highest` is the highest number authenticated so far, `window` the size of the replay window (0: none). The
    result is negative for a packet that would lie before the first one. The appendix compares with the bottom of the
    window, which may lie in the 2^32 numbers before those of the top; that is the same as taking the one candidate
    between the bottom and 2^32 - 1 above it.
    """
    bottom = highest - (window or NO_WINDOW) + 1
    return bottom + ((low - bottom) & LAST_SHORT)

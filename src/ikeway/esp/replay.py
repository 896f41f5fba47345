"""The anti-replay window (RFC 4303 section 3.4.3)."""

from __future__ import annotations

from ctypes import addressof, c_uint8

LARGEST = 1 << 24


class ReplayWindow:
    """Which sequence numbers have been received, among the `size` newest.

    A ring with one octet a number: looking one up and going one ahead cost the same for every size. Verify first
    (`is_new`), then check the ICV, then `add`: a forged packet must not move the window. Size 0 accepts everything
    but still knows the highest number. Sequence numbers are whole (64 bits with ESN) and begin at 1. A window may
    begin as one that has seen every number up to `highest`.
    """

    __slots__ = ("_ring", "address", "highest", "size")

    def __init__(self, size: int, highest: int = 0) -> None:
        if not 0 <= size <= LARGEST:
            raise ValueError(f"a replay window holds 0 to {LARGEST} packets, not {size}")
        self.size = size
        self.highest = highest
        self._ring = bytearray(b"\1" * size) if highest else bytearray(size)
        # Where the ring lies, for the native core; it is never resized.
        self.address = addressof(c_uint8.from_buffer(self._ring)) if size else None

    def is_too_old(self, sequence: int) -> bool:
        """True when the number lies left of the window, so that nobody knows whether it was seen."""
        return sequence < 0 or (self.size > 0 and sequence <= self.highest - self.size)

    def is_new(self, sequence: int) -> bool:
        """True when a packet with this number may be accepted."""
        if sequence > self.highest:
            return True
        if sequence <= 0:
            return False
        if not self.size:
            return True
        return sequence > self.highest - self.size and not self._ring[sequence % self.size]

    def add(self, sequence: int) -> None:
        """Remember a number that `is_new` and whose packet is authentic."""
        size = self.size
        ahead = sequence - self.highest
        if ahead > 0:
            self.highest = sequence
            if ahead > 1 and size:
                self._forget(sequence - ahead + 1, min(ahead - 1, size))
        if size:
            self._ring[sequence % size] = 1

    def add_run(self, first: int, count: int) -> None:
        """Remember `count` consecutive numbers which all lie beyond the highest one."""
        size = self.size
        last = first + count - 1
        if count >= size:
            self._ring[:] = b"\1" * size
        else:
            gap = first - self.highest - 1
            if gap:
                self._forget(self.highest + 1, min(gap, size))
            start = first % size
            end = min(start + count, size)
            self._ring[start:end] = b"\1" * (end - start)
            rest = count - (end - start)
            self._ring[:rest] = b"\1" * rest
        self.highest = last

    def _forget(self, first: int, count: int) -> None:
        """Clear the places of `count` numbers from `first` on: they were jumped over."""
        start = first % self.size
        end = min(start + count, self.size)
        self._ring[start:end] = bytes(end - start)
        rest = count - (end - start)
        self._ring[:rest] = bytes(rest)

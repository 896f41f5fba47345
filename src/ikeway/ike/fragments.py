"""Putting IKE fragments together again, within bounds (RFC 7383 section 2.6)."""

from __future__ import annotations

from dataclasses import dataclass, field

from ikeway.errors import WireError
from ikeway.wire.registry import PayloadType


@dataclass(slots=True)
class _Partial:
    total: int
    first_payload: PayloadType | int = 0
    size: int = 0
    pieces: dict[int, bytes] = field(default_factory=dict)


class Reassembly:
    """Collects decrypted, authentic fragments by message. At most `messages` at a time, `limit` octets each."""

    def __init__(self, limit: int, messages: int = 2) -> None:
        self._limit = limit
        self._messages = messages
        self._partial: dict[tuple[bool, int], _Partial] = {}

    def has(self, key: tuple[bool, int], number: int, total: int) -> bool:
        """True when this fragment is already here (so that it need not be decrypted)."""
        partial = self._partial.get(key)
        return partial is not None and partial.total >= total and number in partial.pieces

    def add(
        self, key: tuple[bool, int], number: int, total: int, first_payload: int, plaintext: bytes
    ) -> tuple[int, bytes] | None:
        """Add a fragment of message `key` (is_response, message id).

        Returns the first payload's type and the whole plaintext when it was the last one missing. Raises `WireError`
        when the message would grow beyond the limit.
        """
        partial = self._partial.get(key)
        if partial is None or total > partial.total:
            # A larger total means that the peer has split the message anew into smaller pieces (section 2.5.2).
            self._partial.pop(key, None)
            while len(self._partial) >= self._messages:
                self._partial.pop(next(iter(self._partial)))
            partial = self._partial[key] = _Partial(total)
        if total < partial.total or number in partial.pieces:
            return None
        partial.size += len(plaintext)
        if partial.size > self._limit:
            del self._partial[key]
            raise WireError(f"a fragmented message grows beyond {self._limit} octets")
        partial.pieces[number] = plaintext
        if number == 1:
            partial.first_payload = first_payload
        if len(partial.pieces) < partial.total:
            return None
        del self._partial[key]
        octets = b"".join(partial.pieces[index] for index in range(1, partial.total + 1))
        return int(partial.first_payload), octets

    def forget(self, key: tuple[bool, int]) -> None:
        """The message is here in another way, or not wanted any more."""
        self._partial.pop(key, None)

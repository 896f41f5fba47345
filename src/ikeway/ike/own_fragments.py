"""A vendor's own way to cut encrypted messages into datagrams, where both sides announced it instead of RFC 7383.

What is cut is the whole encrypted message, so nothing is authentic before it is whole again: whoever puts fragments
together bounds their number, octets and age.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ikeway.wire.message import Header


class OwnFragmentation(Protocol):
    """One serves one IKE SA and those that its rekeyings make."""

    payload_type: int  # the header's next payload of a fragment
    goes_first: bool  # we cut messages this way although RFC 7383 was agreed on as well

    def split(self, octets: bytes, room: int) -> list[bytes]:
        """Cut an encrypted message into datagrams of at most `room` octets."""
        ...

    def join(self, header: Header, octets: bytes, now: float) -> bytes | None:
        """Take in a fragment; returns the message once it is whole. Raises `WireError`."""
        ...


NewOwnFragmentation = Callable[[tuple[bytes, ...]], OwnFragmentation | None]
"""Makes one for a peer that has sent these vendor IDs in IKE_SA_INIT; None for a peer that does not do it."""

"""SET_WINDOW_SIZE (RFC 7296 section 2.3): how many requests a peer takes at a time. Every new IKE SA begins with one, those
that rekeying makes as well (section 2.18), so it is said again for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ikeway.wire.payloads import Notify, Payload
from ikeway.wire.registry import NotifyType

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa
    from ikeway.wire.message import Message


def announce(sa: IkeSa) -> tuple[Payload, ...]:
    """SET_WINDOW_SIZE, when we take more than one request at a time."""
    window = sa.connection.window
    return (Notify(NotifyType.SET_WINDOW_SIZE, window.to_bytes(4, "big")),) if window > 1 else ()


def learn(sa: IkeSa, message: Message) -> None:
    """How many requests the peer takes at a time on this IKE SA; we use no more than we grant ourselves."""
    notify = message.notify(NotifyType.SET_WINDOW_SIZE)
    if notify is not None and len(notify.value) == 4:
        announced = int.from_bytes(notify.value, "big")
        sa.channel.peer_window = max(sa.channel.peer_window, min(announced, sa.connection.window))

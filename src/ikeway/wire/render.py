"""Messages for people: names for numbers (RFC 7296 section 3)."""

from __future__ import annotations

from ikeway.wire.message import Message


def render(message: Message) -> str:
    """Return one line for each payload."""
    return "\n".join(
        [f"{message.exchange_type} {message.message_id}", *(repr(payload) for payload in message.payloads)]
    )

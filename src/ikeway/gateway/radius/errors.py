"""What RADIUS adds to the vocabulary of errors. Nothing here needs pyrad."""

from __future__ import annotations

from ikeway.errors import AuthenticationFailed, Side
from ikeway.wire.registry import NotifyType


class RadiusUnavailable(AuthenticationFailed):
    """No server answers, or none can be asked: nothing is known of the client that waits for it."""

    default_side = Side.LOCAL

    def __init__(self, reason: str, *, remedy: str) -> None:
        super().__init__(reason, notify=NotifyType.AUTHENTICATION_FAILED, remedy=remedy)

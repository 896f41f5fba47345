"""Why EAP ended without success, as far as the two sides tell each other."""

from __future__ import annotations

from ikeway.errors import AuthenticationFailed, Side
from ikeway.wire.registry import NotifyType


class EapFailed(AuthenticationFailed):
    """EAP ended in failure, or broke its rules."""

    def __init__(
        self, reason: str, *, expected: str = "", got: str = "", side: Side | None = None, remedy: str = ""
    ) -> None:
        super().__init__(
            reason,
            notify=NotifyType.AUTHENTICATION_FAILED,
            expected=expected,
            got=got,
            side=side,
            remedy=remedy,
        )


class MalformedEap(EapFailed):
    """Octets that are no EAP packet, or a packet that its method does not allow here."""

    default_side = Side.PEER


class WrongPassword(EapFailed):
    """User name or password are wrong; which of them is not told apart."""

    default_side = Side.LOCAL


class PasswordExpired(EapFailed):
    """The password is right but has to be changed first."""

    default_side = Side.LOCAL


class AccountRestricted(EapFailed):
    """The account is disabled, locked, out of its hours, or without the right to dial in."""

    default_side = Side.PEER


class ServerNotAuthentic(EapFailed):
    """The server could not prove that it knows the password: it may be an impostor."""

    default_side = Side.PEER


class NoCommonMethod(EapFailed):
    """The two sides have no EAP method in common (RFC 3748 section 5.3)."""

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


class TlsFailed(EapFailed):
    """The TLS tunnel could not be made, or broke: by an alert of the other end, or by what this side refused."""

    default_side = Side.BOTH


class BindingFailed(EapFailed):
    """Tunnel and inner log-in do not belong together (cryptobinding): somebody may sit between them."""

    default_side = Side.PEER


class NoCommonMethod(EapFailed):
    """The two sides have no EAP method in common (RFC 3748 section 5.3)."""


def no_answer(what: str, user_name: bytes) -> EapFailed:
    """The user did not give what the server asks for."""
    return EapFailed(
        f"no {what} was given",
        expected=f"the {what} of {user_name.decode('utf-8', 'replace')}",
        side=Side.LOCAL,
        remedy=f"give the {what} when asked, or configure where it is kept",
    )


def wrong_password(user_name: bytes, what: str = "password", reason: str = "") -> WrongPassword:
    """For an authenticator's log: which of the two it was is not told apart."""
    return WrongPassword(
        f"wrong {what}, or no such user: {_shown(user_name)}",
        expected=f"the {what} of this user",
        got=reason or "another one",
        side=Side.PEER,
        remedy="check user name and password on the client; set a new password here if it is forgotten",
    )


def password_expired(user_name: bytes) -> PasswordExpired:
    """For an authenticator's log: the password is right, and lets nobody in before it is changed."""
    return PasswordExpired(
        f"the password of {_shown(user_name)} is right, and has to be changed first",
        side=Side.LOCAL,
        remedy="set a new password here, or have the client log in by EAP-MSCHAPv2, which can change it",
    )


def _shown(user_name: bytes) -> str:
    return repr(user_name.decode("utf-8", "backslashreplace"))

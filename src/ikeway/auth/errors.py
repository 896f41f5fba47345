"""Why a peer's proof of identity was refused: one class a reason."""

from __future__ import annotations

from ikeway.eap.errors import AccountRestricted, EapFailed, NoCommonMethod, PasswordExpired, WrongPassword
from ikeway.errors import AuthenticationFailed, Side
from ikeway.wire.registry import NotifyType

__all__ = [
    "AccountRestricted",
    "BadSignature",
    "CertificateError",
    "CertificateExpired",
    "CertificateNotYetValid",
    "EapFailed",
    "IdentityMismatch",
    "MalformedCertificate",
    "MethodNotAllowed",
    "NameConstraintViolated",
    "NoCommonMethod",
    "NoCommonSignature",
    "PasswordExpired",
    "PathTooLong",
    "RevocationUnknown",
    "Revoked",
    "UnknownCriticalExtension",
    "UnsuitableCertificate",
    "UnsupportedCertificateEncoding",
    "UntrustedCertificate",
    "WeakAlgorithm",
    "WrongPassword",
    "WrongSecret",
]


class _Refused(AuthenticationFailed):
    """Answered with AUTHENTICATION_FAILED (RFC 7296 section 2.21.2)."""

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


class WrongSecret(_Refused):
    """AUTH does not fit: the pre-shared keys of the two sides differ, or the messages were changed on the way."""


class BadSignature(_Refused):
    """AUTH does not fit the certificate: signed with another key, or the messages were changed on the way."""

    default_side = Side.PEER


class MethodNotAllowed(_Refused):
    """The peer proved itself in a way that the connection does not allow."""


class NoCommonSignature(_Refused):
    """Our key can make no signature that the peer says it can check."""


class CertificateError(_Refused):
    """A certificate that was refused; `subject` names it."""

    default_side = Side.PEER
    subject: str = ""


class MalformedCertificate(CertificateError):
    """Octets that are no certificate, or too many of them."""


class UnsupportedCertificateEncoding(CertificateError):
    """A certificate sent in a form that we do not take, such as hash and URL (RFC 7296 section 3.6)."""


class CertificateExpired(CertificateError):
    """The time is past notAfter."""


class CertificateNotYetValid(CertificateError):
    """The time is before notBefore: a wrong clock on one of the sides, more often than not."""


class UntrustedCertificate(CertificateError):
    """No path leads from the certificate to a CA that is trusted here."""

    default_side = Side.BOTH


class UnsuitableCertificate(CertificateError):
    """A certificate made for something else: no CA, wrong key usage, wrong extended key usage."""


class PathTooLong(CertificateError):
    """More CAs in the path than its path length constraint, or than we, allow."""


class NameConstraintViolated(CertificateError):
    """A name that the CA above was not allowed to certify (RFC 5280 section 4.2.1.10)."""


class UnknownCriticalExtension(CertificateError):
    """A critical extension that we do not understand must lead to refusal (RFC 5280 section 4.2)."""


class WeakAlgorithm(CertificateError):
    """A signature or key that can be forged today: MD5, SHA-1, short RSA keys."""


class Revoked(CertificateError):
    """The CA has withdrawn the certificate."""


class RevocationUnknown(CertificateError):
    """A fresh CRL is required and none is at hand."""

    default_side = Side.LOCAL


class IdentityMismatch(CertificateError):
    """A good certificate, but of somebody else."""

    default_side = Side.BOTH

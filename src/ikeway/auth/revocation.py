"""Certificate revocation lists against one certificate of a path (RFC 5280 section 6.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from ikeway.auth.errors import RevocationUnknown, Revoked
from ikeway.auth.parse import PUBLIC_KEY_TYPES
from ikeway.errors import Side

_MAX_CHECKED = 4096
_FINGERPRINT = hashes.SHA256()


@dataclass(slots=True)
class RevocationLists:
    """The CRLs of a trust store, by issuer. Remembers which signatures were good, as a CRL can be megabytes."""

    crls: Sequence[x509.CertificateRevocationList]
    _by_issuer: dict[bytes, list[x509.CertificateRevocationList]] = field(init=False, default_factory=dict)
    _checked: dict[tuple[int, bytes], bool] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for crl in self.crls:
            self._by_issuer.setdefault(crl.issuer.public_bytes(), []).append(crl)

    def check(
        self, certificate: x509.Certificate, issuer: x509.Certificate, when: datetime, *, required: bool, name: str
    ) -> datetime:
        """Raise Revoked, or RevocationUnknown when a CRL is required; return until when the answer holds."""
        until = datetime.max.replace(tzinfo=UTC)
        known = False
        stale: datetime | None = None
        for crl in self._by_issuer.get(certificate.issuer.public_bytes(), ()):
            if not self._usable(crl, certificate, issuer):
                continue
            entry = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
            if entry is not None:
                raise _revoked(entry, name)
            next_update = crl.next_update_utc or crl.last_update_utc + timedelta(days=1)
            if crl.last_update_utc <= when <= next_update and _covers_all_reasons(crl):
                known, until = True, min(until, next_update)
            else:
                stale = next_update
        if required and not known:
            raise RevocationUnknown(
                f"whether {name} is revoked is not known",
                expected=f"a CRL of its issuer that is valid on {when:%Y-%m-%d %H:%M} UTC",
                got=f"one that expired on {stale:%Y-%m-%d %H:%M} UTC" if stale else "none",
                side=Side.LOCAL,
                remedy="fetch the issuer's CRL, or do not require one",
            )
        return until

    def _usable(
        self, crl: x509.CertificateRevocationList, certificate: x509.Certificate, issuer: x509.Certificate
    ) -> bool:
        """Signed by the issuer, in scope for the certificate, and without a critical extension that we do not know."""
        if not _in_scope(crl, certificate) or not _may_sign_crls(issuer):
            return False
        key = issuer.public_key()
        if not isinstance(key, PUBLIC_KEY_TYPES):
            return False
        spki = issuer.fingerprint(_FINGERPRINT)
        good = self._checked.get((id(crl), spki))
        if good is None:
            try:
                good = crl.is_signature_valid(key)
            except (TypeError, ValueError, UnsupportedAlgorithm):
                good = False
            if len(self._checked) < _MAX_CHECKED:
                self._checked[id(crl), spki] = good
        return good


def _in_scope(crl: x509.CertificateRevocationList, certificate: x509.Certificate) -> bool:
    try:
        extensions = crl.extensions
    except (ValueError, x509.DuplicateExtension):
        return False
    for extension in extensions:
        point = extension.value
        if isinstance(point, x509.IssuingDistributionPoint):
            if point.indirect_crl or point.only_contains_attribute_certs:
                return False
            is_ca = _is_ca(certificate)
            if (point.only_contains_ca_certs and not is_ca) or (point.only_contains_user_certs and is_ca):
                return False
        elif extension.critical:  # among them delta CRLs
            return False
    return True


def _covers_all_reasons(crl: x509.CertificateRevocationList) -> bool:
    try:
        point = crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
    except x509.ExtensionNotFound:
        return True
    return point.only_some_reasons is None and point.full_name is None and point.relative_name is None


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (x509.ExtensionNotFound, ValueError, x509.DuplicateExtension):
        return False


def _may_sign_crls(issuer: x509.Certificate) -> bool:
    try:
        return bool(issuer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign)
    except x509.ExtensionNotFound:
        return True
    except (ValueError, x509.DuplicateExtension):
        return False


def _revoked(entry: x509.RevokedCertificate, name: str) -> Revoked:
    try:
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
    except (x509.ExtensionNotFound, ValueError, x509.DuplicateExtension):
        reason = "unspecified"
    return Revoked(
        f"{name} was revoked on {entry.revocation_date_utc:%Y-%m-%d}, reason {reason}",
        expected="a certificate that its CA has not withdrawn",
        got=f"serial {entry.serial_number:x} on the CRL",
        side=Side.PEER,
        remedy="install a new certificate",
    )

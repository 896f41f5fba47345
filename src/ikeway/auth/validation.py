"""X.509 paths: judged from the anchor down (RFC 5280 section 6.1, with what RFC 4945 says for IPsec)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from ikeway.auth.binding import describe
from ikeway.auth.constraints import check_names, unsupported_subtree
from ikeway.auth.errors import (
    CertificateError,
    CertificateExpired,
    CertificateNotYetValid,
    MalformedCertificate,
    PathTooLong,
    UnknownCriticalExtension,
    UnsuitableCertificate,
    WeakAlgorithm,
)
from ikeway.auth.parse import PUBLIC_KEY_TYPES, UNREADABLE, PublicKey
from ikeway.auth.policy import CertificatePolicy, Role
from ikeway.auth.revocation import RevocationLists
from ikeway.errors import Side

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)

_IPSEC_IKE = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.17")
_IKE_INTERMEDIATE = x509.ObjectIdentifier("1.3.6.1.5.5.8.2.2")
_OLD_IPSEC = tuple(x509.ObjectIdentifier(f"1.3.6.1.5.5.7.3.{arc}") for arc in (5, 6, 7))  # end system, tunnel, user
_SERVER_USAGES = frozenset(
    {ExtendedKeyUsageOID.SERVER_AUTH, _IPSEC_IKE, _IKE_INTERMEDIATE, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
)
_CLIENT_USAGES = _SERVER_USAGES | {ExtendedKeyUsageOID.CLIENT_AUTH, *_OLD_IPSEC}

# What is judged below, or cannot make a path bad. certificatePolicies only counts when policies are demanded.
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.ISSUER_ALTERNATIVE_NAME,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.INHIBIT_ANY_POLICY,
    }
)


def judge(
    path: tuple[x509.Certificate, ...],
    revocation: RevocationLists,
    policy: CertificatePolicy,
    when: datetime,
    role: Role,
) -> tuple[PublicKey, datetime, datetime]:
    """Apply RFC 5280 section 6.1 from the anchor down to the end entity; raises CertificateError.

    Returns the key of the end entity and the time in which the verdict holds.
    """
    leaf = path[0]
    public_key = _judge_each(path, policy, when)
    _judge_usage(leaf, policy, role)
    room: int | None = None  # CA certificates that may still follow
    constraints: list[tuple[x509.NameConstraints, str]] = []
    valid_from = max(certificate.not_valid_before_utc for certificate in path)
    valid_until = min(certificate.not_valid_after_utc for certificate in path)
    for position in range(len(path) - 1, 0, -1):
        issuer, subject = path[position], path[position - 1]
        if position < len(path) - 1 and issuer.issuer != issuer.subject:
            room = _use_room(room, issuer)
        room = _judge_authority(issuer, room, policy, role)
        own = _extension(issuer, x509.NameConstraints)
        if own is not None:
            constraints.append((own, describe(issuer)))
        if subject is leaf or subject.issuer != subject.subject:
            for constraint, authority in constraints:
                check_names(subject, constraint, authority, common_name=policy.allow_common_name)
        try:
            until = revocation.check(subject, issuer, when, required=policy.require_crl, name=describe(subject))
        except CertificateError as error:
            raise about(subject, error) from None
        valid_until = min(valid_until, until)
    return public_key, valid_from, valid_until


def about(certificate: x509.Certificate, error: CertificateError) -> CertificateError:
    """The error, with the certificate that it is about."""
    error.subject = describe(certificate)
    return error


def _judge_each(path: tuple[x509.Certificate, ...], policy: CertificatePolicy, when: datetime) -> PublicKey:
    """What holds for every certificate of a path: readable, in its time, understood, with a strong key."""
    keys = []
    for certificate in path:
        try:
            _judge_critical(certificate)
            key = certificate.public_key()
        except UNREADABLE as error:
            raise about(
                certificate,
                MalformedCertificate(f"{describe(certificate)} cannot be read: {error}", side=Side.PEER),
            ) from error
        if not isinstance(key, PUBLIC_KEY_TYPES):
            raise about(
                certificate,
                UnsuitableCertificate(
                    f"{describe(certificate)} has a key that cannot sign in IKE",
                    expected="RSA, ECDSA, Ed25519 or Ed448",
                    got=type(key).__name__,
                ),
            )
        _judge_key(certificate, key, policy)
        _judge_time(certificate, when)
        keys.append(key)
    return keys[0]


def _judge_critical(certificate: x509.Certificate) -> None:
    for extension in certificate.extensions:
        if not extension.critical:
            continue
        reason = "" if extension.oid in _UNDERSTOOD else extension.oid.dotted_string
        if isinstance(extension.value, x509.NameConstraints):
            reason = unsupported_subtree(extension.value)
        if reason:
            raise about(
                certificate,
                UnknownCriticalExtension(
                    f"{describe(certificate)} has a critical extension that is not understood here",
                    expected="known extensions only",
                    got=reason,
                    side=Side.PEER,
                    remedy="have it issued without that extension, or with it not critical",
                ),
            )


def _judge_key(certificate: x509.Certificate, key: PublicKey, policy: CertificatePolicy) -> None:
    minimum = policy.minimum_rsa_bits if isinstance(key, rsa.RSAPublicKey) else 224
    if isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) and key.key_size < minimum:
        kind = "RSA" if isinstance(key, rsa.RSAPublicKey) else "ECDSA"
        raise about(
            certificate,
            WeakAlgorithm(
                f"the {kind} key of {describe(certificate)} is too short",
                expected=f"{minimum} bits or more",
                got=f"{key.key_size} bits",
                side=Side.PEER,
                remedy="make a new key and certificate",
            ),
        )


def _judge_time(certificate: x509.Certificate, when: datetime) -> None:
    name, now = describe(certificate), f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if when > certificate.not_valid_after_utc:
        raise about(
            certificate,
            CertificateExpired(
                f"{name} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
                expected="a certificate in its time",
                got=f"{now} by the clock of this host",
                side=Side.PEER,
                remedy="renew the certificate",
            ),
        )
    if when < certificate.not_valid_before_utc:
        raise about(
            certificate,
            CertificateNotYetValid(
                f"{name} is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on",
                expected="a certificate in its time",
                got=f"{now} by the clock of this host",
                side=Side.BOTH,
                remedy="set the clocks of both hosts right",
            ),
        )


def _use_room(room: int | None, authority: x509.Certificate) -> int | None:
    """Count an intermediate CA against the path length constraints above it."""
    if room is None:
        return None
    if room == 0:
        raise about(
            authority,
            PathTooLong(
                f"{describe(authority)} is one CA too many below its issuer",
                expected="no more CAs than the path length constraint above allows",
                got="one more",
                side=Side.PEER,
                remedy="have the certificate issued by the CA above, or that CA without the constraint",
            ),
        )
    return room - 1


def _judge_authority(
    authority: x509.Certificate, room: int | None, policy: CertificatePolicy, role: Role
) -> int | None:
    """Judge a certificate that issued another one; returns how many CA certificates may follow."""
    basic = _extension(authority, x509.BasicConstraints)
    usage = _extension(authority, x509.KeyUsage)
    missing = ""
    if basic is None or not basic.ca:
        missing = "the CA mark (basicConstraints CA:TRUE)"
    elif usage is not None and not usage.key_cert_sign:
        missing = "the key usage keyCertSign"
    elif not policy.ignore_eku:
        extended = _extension(authority, x509.ExtendedKeyUsage)
        if extended is not None and not _usages(role) & set(extended):
            missing = "an extended key usage that VPN certificates may have"
    if missing:
        raise about(
            authority,
            UnsuitableCertificate(
                f"{describe(authority)} signed a certificate and must not: it lacks {missing}",
                expected="a CA certificate",
                got="one that may not issue certificates like this",
                side=Side.PEER,
                remedy="issue the certificate with a real CA",
            ),
        )
    length = basic.path_length if basic is not None else None
    if length is None:
        return room
    return length if room is None else min(room, length)


def _usages(role: Role) -> frozenset[x509.ObjectIdentifier]:
    return _SERVER_USAGES if role is Role.RESPONDER else _CLIENT_USAGES


def _judge_usage(leaf: x509.Certificate, policy: CertificatePolicy, role: Role) -> None:
    """Key usage and extended key usage of the end entity (RFC 4945 sections 5.1.3.2 and 5.1.3.12)."""
    usage = _extension(leaf, x509.KeyUsage)
    if usage is not None and not (usage.digital_signature or usage.content_commitment):
        raise about(
            leaf,
            UnsuitableCertificate(
                f"{describe(leaf)} may not be used for signatures",
                expected="the key usage digitalSignature",
                got="a key usage without it",
                side=Side.PEER,
                remedy="issue it with digitalSignature",
            ),
        )
    if policy.ignore_eku:
        return
    extended = _extension(leaf, x509.ExtendedKeyUsage)
    required = policy.require_server_eku and role is Role.RESPONDER
    if (extended is None and required) or (extended is not None and not _usages(role) & set(extended)):
        got = "no extended key usage" if extended is None else ", ".join(map(_usage_name, extended))
        wanted = "serverAuth or ipsecIKE" if role is Role.RESPONDER else "clientAuth or ipsecIKE"
        raise about(
            leaf,
            UnsuitableCertificate(
                f"{describe(leaf)} was not issued for {'a VPN gateway' if role is Role.RESPONDER else 'a VPN client'}",
                expected=f"the extended key usage {wanted}",
                got=got,
                side=Side.PEER,
                remedy=f"issue it with {wanted}, or turn this check off for the connection",
            ),
        )


def _usage_name(oid: x509.ObjectIdentifier) -> str:
    return oid.dotted_string if oid._name == "Unknown OID" else oid._name


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None

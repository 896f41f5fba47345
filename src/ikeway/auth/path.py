"""X.509 paths: found from the certificate up to a trust anchor, then judged from the anchor down (RFC 5280 section 6).

Theory of operation. A peer sends its certificate and a bag of others, any of which may be missing, superfluous, hostile
or from another CA of the same name. `_Search` walks from the certificate to every candidate whose subject is the issuer
wanted and whose key made the signature; the number of signatures checked and the depth are bounded, a key never occurs
twice in a path. Each path that reaches an anchor is judged by `_judge`. The first that passes wins. When none does, the
error of the first path is raised, because it says more than "no path".
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from ikeway.auth.binding import describe
from ikeway.auth.constraints import check_names, unsupported_subtree
from ikeway.auth.der import DerError
from ikeway.auth.errors import (
    CertificateError,
    CertificateExpired,
    CertificateNotYetValid,
    MalformedCertificate,
    PathTooLong,
    UnknownCriticalExtension,
    UnsuitableCertificate,
    UntrustedCertificate,
    WeakAlgorithm,
)
from ikeway.auth.names import decode_name
from ikeway.auth.parse import PUBLIC_KEY_TYPES, PublicKey
from ikeway.auth.revocation import RevocationLists
from ikeway.errors import Side

MAX_SIGNATURES = 64
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


class Role(enum.Enum):
    """What the owner of a certificate is in the exchange."""

    INITIATOR = "initiator"
    RESPONDER = "responder"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatePolicy:
    """How strict to be. The defaults suit the certificates that VPN gateways and clients have today."""

    require_server_eku: bool = False  # a responder must have serverAuth, ipsecIKE or iKEIntermediate in an EKU
    ignore_eku: bool = False  # whatever the extended key usage says is fine
    require_crl: bool = False  # every certificate below the anchor needs a fresh CRL that does not list it
    allow_wildcards: bool = False  # a dNSName *.example.org proves vpn.example.org
    allow_common_name: bool = False  # a host name in the CN counts as proof
    allow_sha1: bool = False
    allow_md5: bool = False
    minimum_rsa_bits: int = 2048
    max_certificates: int = 10  # in a path, anchor and end entity included


@dataclass(frozen=True, slots=True)
class VerifiedPath:
    """A path that was found good: from the peer's certificate to the anchor, the key, and how long the verdict holds."""

    certificates: tuple[x509.Certificate, ...]
    public_key: PublicKey
    valid_from: datetime
    valid_until: datetime

    @property
    def anchor(self) -> x509.Certificate:
        """The trusted certificate that the path ends in."""
        return self.certificates[-1]


def find_path(
    chain: Sequence[x509.Certificate],
    anchors: Iterable[x509.Certificate],
    intermediates: Iterable[x509.Certificate],
    revocation: RevocationLists,
    policy: CertificatePolicy,
    when: datetime,
    role: Role,
) -> VerifiedPath:
    """Return the first good path from `chain[0]` to an anchor; raises a CertificateError."""
    search = _Search((*chain[1:], *intermediates), frozenset(anchors), policy)
    first_error: CertificateError | None = None
    for path in search.paths((chain[0],)):
        try:
            return _judge(path, revocation, policy, when, role)
        except CertificateError as error:
            first_error = first_error or error
    raise first_error or search.failure(chain[0])


class _Search:
    """The walk from a certificate to the anchors."""

    def __init__(
        self, others: Iterable[x509.Certificate], anchors: frozenset[x509.Certificate], policy: CertificatePolicy
    ) -> None:
        self._anchors = anchors
        self._policy = policy
        self._signatures = 0
        self._highest: x509.Certificate | None = None  # the last certificate whose issuer was not to be had
        self._impostors: list[x509.Certificate] = []
        self._weak: WeakAlgorithm | None = None
        self._by_subject: dict[bytes, list[x509.Certificate]] = {}
        for candidate in (*anchors, *others):
            known = self._by_subject.setdefault(candidate.subject.public_bytes(), [])
            if candidate not in known:
                known.append(candidate)

    def paths(self, path: tuple[x509.Certificate, ...]) -> Iterator[tuple[x509.Certificate, ...]]:
        """All paths that begin with `path` and end in an anchor."""
        last = path[-1]
        if last in self._anchors:
            yield path
            return
        if len(path) >= self._policy.max_certificates:
            return
        self._highest = last
        for issuer in self._by_subject.get(last.issuer.public_bytes(), ()):
            if not any(_same_key_and_name(issuer, seen) for seen in path) and self._signed(last, issuer):
                yield from self.paths((*path, issuer))

    def _signed(self, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
        if self._signatures >= MAX_SIGNATURES:
            return False
        self._signatures += 1
        try:
            _check_signature_algorithm(certificate, self._policy)
            certificate.verify_directly_issued_by(issuer)
        except WeakAlgorithm as error:
            self._weak = error
            return False
        except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
            self._impostors.append(issuer)
            return False
        return True

    def failure(self, leaf: x509.Certificate) -> CertificateError:
        """Say why no path reached an anchor."""
        if self._weak is not None:
            return self._weak
        if not self._anchors:
            return _about(leaf, UntrustedCertificate("no CA is trusted here", side=Side.LOCAL, remedy="name a CA"))
        trusted = ", ".join(sorted(describe(anchor) for anchor in self._anchors)[:4])
        highest = self._highest or leaf
        if any(impostor in self._anchors for impostor in self._impostors):
            return _about(
                leaf,
                UntrustedCertificate(
                    f"{describe(highest)} names a trusted CA as its issuer but is not signed with that CA's key",
                    expected=f"a signature of {describe(self._impostors[0])}",
                    got="one made with another key: a CA of the same name, renewed or false",
                    side=Side.BOTH,
                    remedy="trust the CA certificate that signed it, or have it issued again by the trusted one",
                ),
            )
        issuer = describe_name(highest.issuer)
        return _about(
            leaf,
            UntrustedCertificate(
                f"no trusted CA vouches for {describe(leaf)}",
                expected=f"a path to {trusted}",
                got=f"{describe(highest)}, issued by {issuer}, which is neither trusted nor was sent",
                side=Side.BOTH,
                remedy=f"trust {issuer} here if it is right, or have the peer send its intermediate certificates",
            ),
        )


def describe_name(name: x509.Name) -> str:
    """A name for a person."""
    try:
        return str(decode_name(name.public_bytes())) or "a CA without a name"
    except (DerError, ValueError):
        return "a CA with an unreadable name"


def _about(certificate: x509.Certificate, error: CertificateError) -> CertificateError:
    error.subject = describe(certificate)
    return error


def _same_key_and_name(one: x509.Certificate, other: x509.Certificate) -> bool:
    return one.subject == other.subject and one.public_key() == other.public_key()


def _check_signature_algorithm(certificate: x509.Certificate, policy: CertificatePolicy) -> None:
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return  # verify_directly_issued_by refuses it
    weak = (isinstance(algorithm, hashes.SHA1) and not policy.allow_sha1) or (
        isinstance(algorithm, hashes.MD5) and not policy.allow_md5
    )
    if weak and algorithm is not None:
        name = algorithm.name.upper()
        error = WeakAlgorithm(
            f"{describe(certificate)} is signed with {name}, which can be forged",
            expected="a signature with SHA-256 or better",
            got=name,
            side=Side.PEER,
            remedy=f"have it issued again with SHA-256, or allow {name} for this connection",
        )
        error.subject = describe(certificate)
        raise error


def _judge(
    path: tuple[x509.Certificate, ...],
    revocation: RevocationLists,
    policy: CertificatePolicy,
    when: datetime,
    role: Role,
) -> VerifiedPath:
    """Apply RFC 5280 section 6.1 from the anchor down to the end entity; raises CertificateError."""
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
        until = revocation.check(subject, issuer, when, required=policy.require_crl, name=describe(subject))
        valid_until = min(valid_until, until)
    return VerifiedPath(path, public_key, valid_from, valid_until)


def _judge_each(path: tuple[x509.Certificate, ...], policy: CertificatePolicy, when: datetime) -> PublicKey:
    """What holds for every certificate of a path: readable, in its time, understood, with a strong key."""
    keys = []
    for certificate in path:
        try:
            _judge_critical(certificate)
            key = certificate.public_key()
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm) as error:
            raise _about(
                certificate,
                MalformedCertificate(f"{describe(certificate)} cannot be read: {error}", side=Side.PEER),
            ) from error
        if not isinstance(key, PUBLIC_KEY_TYPES):
            raise _about(
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
            raise _about(
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
        raise _about(
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
        raise _about(
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
        raise _about(
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
        raise _about(
            authority,
            PathTooLong(
                f"{describe(authority)} is one CA too many below its issuer",
                expected="no more CAs than the path length constraint above allows",
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
        raise _about(
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
        raise _about(
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
        raise _about(
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

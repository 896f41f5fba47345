"""X.509 paths: found from the certificate up to a trust anchor (RFC 5280 section 6).

Theory of operation. A peer sends its certificate and a bag of others, any of which may be missing, superfluous, hostile
or from another CA of the same name. `_Search` walks from the certificate to every candidate whose subject is the issuer
wanted and whose key made the signature; the number of signatures checked and the depth are bounded, a key never occurs
twice in a path. Each path that reaches an anchor is judged by `judge`. The first that passes wins. When none does, the
error of the first path is raised, because it says more than "no path".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from ikeway.auth.binding import describe, describe_name
from ikeway.auth.errors import CertificateError, UntrustedCertificate, WeakAlgorithm
from ikeway.auth.parse import UNREADABLE, PublicKey
from ikeway.auth.policy import CertificatePolicy, Role
from ikeway.auth.revocation import RevocationLists
from ikeway.auth.validation import about, judge
from ikeway.errors import Side

__all__ = ["MAX_SIGNATURES", "CertificatePolicy", "Role", "VerifiedPath", "find_path"]

MAX_SIGNATURES = 64


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
            return VerifiedPath(path, *judge(path, revocation, policy, when, role))
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
            _verify_signature(certificate, issuer)
        except WeakAlgorithm as error:
            self._weak = error
            return False
        except (InvalidSignature, *UNREADABLE):
            self._impostors.append(issuer)
            return False
        return True

    def failure(self, leaf: x509.Certificate) -> CertificateError:
        """Say why no path reached an anchor."""
        if self._weak is not None:
            return self._weak
        if not self._anchors:
            return about(leaf, UntrustedCertificate("no CA is trusted here", side=Side.LOCAL, remedy="name a CA"))
        trusted = _few(sorted(describe(anchor) for anchor in self._anchors))
        highest = self._highest or leaf
        if any(impostor in self._anchors for impostor in self._impostors):
            return about(
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
        return about(
            leaf,
            UntrustedCertificate(
                f"no trusted CA vouches for {describe(leaf)}",
                expected=f"a path to {trusted}",
                got=f"{describe(highest)}, issued by {issuer}, which is neither trusted nor was sent",
                side=Side.BOTH,
                remedy=f"trust {issuer} here if it is right, or have the peer send its intermediate certificates",
            ),
        )


def _few(names: Sequence[str]) -> str:
    """Names to read: the few of a company, not the hundreds of an operating system."""
    return "; ".join(names) if len(names) <= 4 else f"one of the {len(names)} CAs that are trusted here"


def _same_key_and_name(one: x509.Certificate, other: x509.Certificate) -> bool:
    if one.subject != other.subject:
        return False
    try:
        return one.public_key() == other.public_key()
    except UNREADABLE:  # a key of an unknown kind; what it may sign cannot be checked anyway
        return False


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


def _verify_signature(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Check the signature; the names are known to fit. Digests that `cryptography` has given up only get here when a
    policy allows them."""
    digest = certificate.signature_hash_algorithm
    key = issuer.public_key()
    signed = certificate.tbs_certificate_bytes
    if not isinstance(digest, hashes.SHA1 | hashes.MD5):
        certificate.verify_directly_issued_by(issuer)
    elif isinstance(key, rsa.RSAPublicKey):
        key.verify(certificate.signature, signed, padding.PKCS1v15(), digest)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(certificate.signature, signed, ec.ECDSA(digest))
    else:
        raise InvalidSignature

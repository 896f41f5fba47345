"""Certificates: our own with its key, and the trust in those of others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Protocol, runtime_checkable

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ikeway.auth.binding import carried_identities, describe, require_identity, spki_hash
from ikeway.auth.errors import CertificateError, MalformedCertificate, UnsupportedCertificateEncoding
from ikeway.auth.identity import Identity
from ikeway.auth.parse import (
    PRIVATE_KEY_TYPES,
    PUBLIC_KEY_TYPES,
    UNREADABLE,
    PrivateKey,
    PublicKey,
    load_certificate,
    parse_certificates,
    parse_crls,
    parse_pkcs12,
    parse_private_key,
)
from ikeway.auth.path import CertificatePolicy, Role, VerifiedPath, find_path
from ikeway.auth.revocation import RevocationLists
from ikeway.crypto.signature import SignatureScheme
from ikeway.crypto.signature import sign as sign_octets
from ikeway.errors import ConfigError, Side
from ikeway.wire.payloads import Certificate, CertificateRequest
from ikeway.wire.registry import CertificateEncoding

__all__ = [
    "CertificateCredential",
    "CertificatePolicy",
    "LocalSigner",
    "Role",
    "Signer",
    "TrustStore",
    "VerifiedPath",
    "decode_certificates",
    "parse_certificates",
    "parse_crls",
    "parse_pkcs12",
    "parse_private_key",
    "select_credential",
]

MAX_CERTIFICATES = 16
MAX_CERTIFICATE_OCTETS = 32768
_CACHED_PATHS = 1024
_HASH_OCTETS = 20
_BY_URL = (CertificateEncoding.HASH_AND_URL_X509, CertificateEncoding.HASH_AND_URL_BUNDLE)


@runtime_checkable
class Signer(Protocol):
    """Something that signs: a private key in memory, or a token behind a library. Where it `blocks`, the engine does not
    call it but asks for the signature (`SignQuestion`)."""

    @property
    def blocks(self) -> bool:
        """True when `sign` may take longer than a computation."""
        ...

    @property
    def public_key(self) -> PublicKey:
        """The public half, which the certificate must hold."""
        ...

    def sign(self, scheme: SignatureScheme, octets: bytes) -> bytes:
        """Sign the octets by that scheme."""
        ...


@dataclass(frozen=True, slots=True)
class LocalSigner:
    """A private key in this process."""

    blocks: ClassVar[bool] = False
    private_key: PrivateKey = field(repr=False)

    @property
    def public_key(self) -> PublicKey:
        """The public half."""
        return self.private_key.public_key()

    def sign(self, scheme: SignatureScheme, octets: bytes) -> bytes:
        """Sign the octets by that scheme."""
        return sign_octets(self.private_key, scheme, octets)


@dataclass(frozen=True, slots=True, eq=False)
class CertificateCredential:
    """Our certificate (first in `chain`), the intermediates to send with it, and what signs for it.

    `rsa_pss`: sign by RSASSA-PSS where RFC 7427 is used; PKCS #1 v1.5 is what every peer can check.
    """

    chain: tuple[x509.Certificate, ...]
    private_key: PrivateKey | Signer = field(repr=False)
    rsa_pss: bool = False
    signer: Signer = field(init=False, repr=False)
    public_key: PublicKey = field(init=False, repr=False)
    payloads: tuple[Certificate, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.chain:
            raise ConfigError("a certificate credential without a certificate", expected="at least one")
        key = self.private_key
        signer: Signer = LocalSigner(key) if isinstance(key, PRIVATE_KEY_TYPES) else key
        public_key = self.chain[0].public_key()
        if not isinstance(public_key, PUBLIC_KEY_TYPES) or public_key != signer.public_key:
            raise ConfigError(
                f"the private key does not belong to the certificate of {describe(self.chain[0])}",
                expected="the key that the certificate was made for",
                remedy="name the key and the certificate that were made together, the own certificate first in its file",
            )
        payloads = tuple(
            Certificate(CertificateEncoding.X509_SIGNATURE, certificate.public_bytes(Encoding.DER))
            for index, certificate in enumerate(self.chain)
            if index == 0 or certificate.issuer != certificate.subject
        )
        object.__setattr__(self, "signer", signer)
        object.__setattr__(self, "public_key", public_key)
        object.__setattr__(self, "payloads", payloads)

    @property
    def certificate(self) -> x509.Certificate:
        """Our own certificate."""
        return self.chain[0]

    @property
    def identity(self) -> Identity:
        """The identity to use when none is configured: the first alternative name, or the subject. People write names
        and mail addresses into configurations, not distinguished names."""
        identities = carried_identities(self.chain[0])
        if not identities:
            raise ConfigError("the certificate carries no name", remedy="configure the identity")
        return next((name for name in identities if name.distinguished_name is None), identities[0])

    def spelled(self, identity: Identity) -> Identity:
        """The identity in the octets of the certificate, where it carries it: some peers compare octet by octet."""
        return next((carried for carried in carried_identities(self.chain[0]) if carried.matches(identity)), identity)

    def is_wanted_by(self, authorities: bytes) -> bool:
        """True when a CERTREQ with these key hashes asks for it (RFC 7296 section 3.7), or asks for nothing special.

        The hash of a root that is not in the chain cannot be known, so False is a preference, not a ban.
        """
        wanted = _split_hashes(authorities)
        return not wanted or any(spki_hash(certificate) in wanted for certificate in self.chain[1:])


@dataclass(frozen=True, slots=True, eq=False)
class TrustStore:
    """Whom we believe: the anchors, what helps to reach them, and how strictly. Make a new one when a CRL changes."""

    anchors: tuple[x509.Certificate, ...]
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    intermediates: tuple[x509.Certificate, ...] = ()
    policy: CertificatePolicy = field(default_factory=CertificatePolicy)
    authorities: bytes = field(init=False, repr=False)  # SHA-1 of each anchor's SubjectPublicKeyInfo, for CERTREQ
    _revocation: RevocationLists = field(init=False, repr=False)
    _good: OrderedDict[tuple[x509.Certificate, Role], VerifiedPath] = field(
        init=False, repr=False, default_factory=OrderedDict
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "authorities", b"".join(dict.fromkeys(_known_hashes(self.anchors))))
        object.__setattr__(self, "_revocation", RevocationLists(self.crls))

    @property
    def request(self) -> CertificateRequest:
        """The CERTREQ payload that asks for certificates of these anchors."""
        return CertificateRequest(CertificateEncoding.X509_SIGNATURE, self.authorities)

    def verify(
        self, chain: Sequence[x509.Certificate], identity: Identity | None, when: datetime, role: Role
    ) -> VerifiedPath:
        """Verify the peer's certificate (`chain[0]`), found by way of the others, and that it carries the identity.

        `role` is what the owner of the certificate is in the exchange; `when` is aware of its time zone. Raises a
        CertificateError that names the check that failed, the certificate, and the remedy.
        """
        if not chain:
            raise MalformedCertificate(
                "the peer sent no certificate",
                expected="a CERT payload with the certificate that made the signature",
                got="none",
                side=Side.PEER,
                remedy="set the peer to send its certificate always",
            )
        path = self._path(tuple(chain), when, role)
        if identity is not None:
            require_identity(
                chain[0],
                identity,
                wildcards=self.policy.allow_wildcards,
                common_name=self.policy.allow_common_name,
            )
        return path

    def _path(self, chain: tuple[x509.Certificate, ...], when: datetime, role: Role) -> VerifiedPath:
        """A verdict is kept while nothing it rests on can have changed: certificates, CRLs and their times.

        It is kept by the peer's certificate alone: what else is in the chain is for the peer to choose, and to fill
        memory with.
        """
        key = chain[0], role
        known = self._good.get(key)
        if known is not None and known.valid_from <= when <= known.valid_until:
            self._good.move_to_end(key)
            return known
        path = find_path(chain, self.anchors, self.intermediates, self._revocation, self.policy, when, role)
        self._good[key] = path
        if len(self._good) > _CACHED_PATHS:
            self._good.popitem(last=False)
        return path


def _known_hashes(anchors: Iterable[x509.Certificate]) -> Iterator[bytes]:
    """The key hashes of the anchors, but of those whose key is of a kind that cannot sign for anybody here."""
    for anchor in anchors:
        try:
            yield spki_hash(anchor)
        except UNREADABLE:
            continue


def decode_certificates(payloads: Iterable[Certificate]) -> tuple[x509.Certificate, ...]:
    """Decode CERT payloads, the peer's own certificate first (RFC 7296 section 3.6).

    Raises UnsupportedCertificateEncoding, MalformedCertificate. CRLs and encodings that help nobody are passed over as
    long as there is an X.509 certificate.
    """
    found: list[x509.Certificate] = []
    others: list[Certificate] = []
    for payload in payloads:
        if payload.encoding != CertificateEncoding.X509_SIGNATURE:
            others.append(payload)
        elif len(found) == MAX_CERTIFICATES or len(payload.value) > MAX_CERTIFICATE_OCTETS:
            raise MalformedCertificate(
                "more or larger certificates than are taken",
                expected=f"at most {MAX_CERTIFICATES} of {MAX_CERTIFICATE_OCTETS} octets each",
                got=f"certificate {len(found) + 1} of {len(payload.value)} octets",
            )
        else:
            found.append(_decode_certificate(payload.value))
    if others and not found:
        raise _unsupported(others[0])
    return tuple(found)


def _decode_certificate(octets: bytes) -> x509.Certificate:
    try:
        return load_certificate(octets)
    except UNREADABLE as error:
        raise MalformedCertificate(
            f"the peer sent a certificate that cannot be read: {error}",
            expected="X.509 in DER",
            got=f"{len(octets)} octets of something else",
        ) from error


def _unsupported(payload: Certificate) -> CertificateError:
    encoding = payload.encoding
    if encoding in _BY_URL:
        return UnsupportedCertificateEncoding(
            "the peer sent the address of its certificate instead of the certificate",
            expected="the certificate itself (encoding 4): we never said HTTP_CERT_LOOKUP_SUPPORTED",
            got=encoding.name,
            remedy="turn off hash-and-URL certificates for this connection",
        )
    return UnsupportedCertificateEncoding(
        "the peer sent its certificate in a form that is not taken",
        expected="X509_SIGNATURE (4)",
        got=f"{encoding.name} ({int(encoding)})",
        remedy="set the peer to send an X.509 certificate",
    )


def select_credential(credentials: Sequence[CertificateCredential], authorities: bytes) -> CertificateCredential:
    """The credential that suits a CERTREQ best; the first when none does."""
    return next((credential for credential in credentials if credential.is_wanted_by(authorities)), credentials[0])


def _split_hashes(authorities: bytes) -> frozenset[bytes]:
    count = len(authorities) // _HASH_OCTETS
    return frozenset(authorities[index * _HASH_OCTETS : (index + 1) * _HASH_OCTETS] for index in range(count))

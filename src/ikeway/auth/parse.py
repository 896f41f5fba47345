"""Certificates, keys and CRLs from the octets of a file: PEM with any number of objects, DER, PKCS#7 or PKCS#12."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm as NotSupported
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key, pkcs7, pkcs12

from ikeway.errors import ConfigError

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
PRIVATE_KEY_TYPES = (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)
PUBLIC_KEY_TYPES = (rsa.RSAPublicKey, ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)

# What `cryptography` raises, sooner or later, for a certificate that is not as it should be.
UNREADABLE = (
    ValueError,
    TypeError,
    OverflowError,
    NotSupported,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class KeyBundle:
    """What a PKCS#12 file holds: a key, the chain that goes with it (own certificate first), and the rest."""

    private_key: PrivateKey = field(repr=False)
    chain: tuple[x509.Certificate, ...]
    authorities: tuple[x509.Certificate, ...]  # self-signed ones among the others: candidates for trust anchors


class PasswordNeeded(ConfigError):
    """The key is encrypted and no password, or a wrong one, was given."""


@lru_cache(maxsize=256)
def load_certificate(der: bytes) -> x509.Certificate:
    """Load a DER certificate and look at every part, as the library decodes most of them late.

    Raises one of UNREADABLE. A key of a kind that the library does not know is found later, by who needs the key.
    Kept for the next time, as the same peers and the same intermediate CAs come again and again.
    """
    with _without_remarks():
        return _looked_at(x509.load_der_x509_certificate(der))


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep the library from printing what it thinks of a certificate: public CAs with a serial number of zero exist."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _looked_at(certificate: x509.Certificate) -> x509.Certificate:
    certificate.subject.public_bytes()
    certificate.issuer.public_bytes()
    _ = certificate.extensions, certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if certificate.serial_number < 0:
        raise ValueError("a negative serial number")
    try:
        certificate.public_key()
    except NotSupported:
        pass
    return certificate


def parse_certificates(octets: bytes) -> tuple[x509.Certificate, ...]:
    """Parse all certificates of a PEM, DER or PKCS#7 file; raises ConfigError when there is none."""
    try:
        with _without_remarks():
            found = _load_certificates(octets)
    except UNREADABLE as error:
        raise ConfigError(f"a certificate cannot be read: {error}", expected="X.509 in PEM or DER") from error
    if not found:
        raise ConfigError("no certificate found", expected="-----BEGIN CERTIFICATE----- or DER", got=_kinds(octets))
    return tuple(found)


def _load_certificates(octets: bytes) -> list[x509.Certificate]:
    if b"-----BEGIN" not in octets:
        is_one = octets[:1] == b"\x30" and not is_pkcs12(octets)
        return [_looked_at(certificate) for certificate in (_parse_der_certificates(octets) if is_one else ())]
    found: list[x509.Certificate] = []
    for block in _PEM.finditer(octets):
        if block[1] in (b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"):
            found.append(x509.load_pem_x509_certificate(block[0]))
        elif block[1] == b"PKCS7":
            found.extend(pkcs7.load_pem_pkcs7_certificates(block[0]))
    return [_looked_at(certificate) for certificate in found]


def _parse_der_certificates(octets: bytes) -> list[x509.Certificate]:
    try:
        return [x509.load_der_x509_certificate(octets)]
    except UNREADABLE as error:
        try:
            return pkcs7.load_der_pkcs7_certificates(octets)
        except (ValueError, NotSupported):
            raise error from None


def parse_crls(octets: bytes) -> tuple[x509.CertificateRevocationList, ...]:
    """Parse all CRLs of a PEM or DER file; raises ConfigError when there is none."""
    try:
        if b"-----BEGIN" in octets:
            blocks = [block[0] for block in _PEM.finditer(octets) if block[1] == b"X509 CRL"]
            found = tuple(x509.load_pem_x509_crl(block) for block in blocks)
        else:
            found = (x509.load_der_x509_crl(octets),)
    except UNREADABLE as error:
        raise ConfigError(f"a CRL cannot be read: {error}", expected="an X.509 CRL in PEM or DER") from error
    if not found:
        raise ConfigError("no CRL found", expected="-----BEGIN X509 CRL----- or DER", got=_kinds(octets))
    return found


def parse_private_key(octets: bytes, password: bytes | None = None) -> PrivateKey:
    """Parse a private key (PKCS#8, PKCS#1, SEC 1, OpenSSH's is not taken), decrypting it when it is encrypted."""
    try:
        try:
            key = _load_private_key(octets, password)
        except TypeError:  # a password for a key that is not encrypted, or none for one that is
            if password is None:
                raise PasswordNeeded("the private key is encrypted", expected="its password") from None
            key = _load_private_key(octets, None)
    except (ValueError, NotSupported) as error:
        if password is not None:
            raise PasswordNeeded(
                "the private key cannot be decrypted: the password is wrong or the file is damaged"
            ) from error
        raise ConfigError(f"the private key cannot be read: {error}", got=_kinds(octets)) from error
    return _own_kind(key)


def _load_private_key(octets: bytes, password: bytes | None) -> object:
    if b"-----BEGIN" not in octets:
        return load_der_private_key(octets, password)
    for block in _PEM.finditer(octets):
        if block[1].endswith(b"PRIVATE KEY"):
            return load_pem_private_key(block[0], password)
    raise ValueError("no private key found")


def _own_kind(key: object) -> PrivateKey:
    if not isinstance(key, PRIVATE_KEY_TYPES):
        raise ConfigError(
            "a private key that cannot sign in IKE", expected="RSA, ECDSA, Ed25519 or Ed448", got=type(key).__name__
        )
    return key


def parse_pkcs12(octets: bytes, password: bytes | None = None) -> KeyBundle:
    """Parse a PKCS#12 file (.p12, .pfx) with one key; raises ConfigError, PasswordNeeded."""
    try:
        key, own, others = pkcs12.load_key_and_certificates(octets, password)
    except (ValueError, NotSupported) as error:
        if octets[:1] != b"\x30":
            raise ConfigError("not a PKCS#12 file", got=_kinds(octets)) from error
        raise PasswordNeeded(f"the PKCS#12 file cannot be opened: {error}", expected="its password") from error
    if key is None or own is None:
        raise ConfigError("the PKCS#12 file has no private key with its certificate")
    authorities = tuple(other for other in others if other.issuer == other.subject)
    rest = tuple(other for other in others if other.issuer != other.subject)
    return KeyBundle(_own_kind(key), (own, *rest), authorities)


def is_pkcs12(octets: bytes) -> bool:
    """Guess from the first octets: a DER sequence that starts with the version number 3 (RFC 7292)."""
    return octets[:1] == b"\x30" and b"\x02\x01\x03\x30" in octets[:10]


def _kinds(octets: bytes) -> str:
    kinds = sorted({block[1].decode() for block in _PEM.finditer(octets)})
    if is_pkcs12(octets):
        return "a PKCS#12 file"
    return ", ".join(kinds) or ("PEM that is cut off" if b"-----BEGIN" in octets else f"{len(octets)} octets")

"""Certificates for one test session: good ones of each kind of key, and bad ones."""

from __future__ import annotations

import datetime as dt
import functools
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
KINDS = ("rsa", "ecdsa", "ed25519")
DAY = dt.timedelta(days=1)


@functools.cache
def _key(kind: str, purpose: str) -> PrivateKey:
    """One key a purpose, for making RSA keys takes time."""
    del purpose
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1()) if kind == "ecdsa" else ed25519.Ed25519PrivateKey.generate()


@dataclass(frozen=True)
class Credential:
    """A certificate with its key; `issuer` is the CA's certificate."""

    certificate: x509.Certificate
    key: PrivateKey
    issuer: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def issuer_der(self) -> bytes:
        return self.issuer.public_bytes(serialization.Encoding.DER)

    @property
    def key_der(self) -> bytes:
        return self._private(serialization.Encoding.DER)

    def write(self, folder: Path, name: str) -> tuple[Path, Path, Path]:
        """Write certificate, key and CA as PEM; the paths in that order."""
        files = {
            f"{name}.crt": self.certificate.public_bytes(serialization.Encoding.PEM),
            f"{name}.key": self._private(serialization.Encoding.PEM),
            f"{name}-ca.crt": self.issuer.public_bytes(serialization.Encoding.PEM),
        }
        for file, octets in files.items():
            path = folder / file
            path.touch(mode=0o600)
            path.write_bytes(octets)
        certificate, key, issuer = (folder / file for file in files)
        return certificate, key, issuer

    def _private(self, encoding: serialization.Encoding) -> bytes:
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            form = serialization.PrivateFormat.PKCS8
        else:
            form = serialization.PrivateFormat.TraditionalOpenSSL
        return self.key.private_bytes(encoding, form, serialization.NoEncryption())


@functools.cache
def authority(kind: str, name: str = "Test CA") -> tuple[x509.Certificate, PrivateKey]:
    """A CA of this kind of key."""
    key = _key(kind, f"ca {name}")
    subject = _name(f"{name} {kind}")
    certificate = (
        _builder(subject, subject, key, -DAY, 365 * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, _hash(key))
    )
    return certificate, key


@functools.cache
def issue(
    kind: str,
    *names: str,
    server: bool = False,
    ca: str = "Test CA",
    begins: dt.timedelta = -DAY,
    ends: dt.timedelta = 30 * DAY,
    padding: int = 0,
) -> Credential:
    """A certificate for these names (host names, addresses, mailboxes); `padding` octets make it long."""
    issuer, issuer_key = authority(kind, ca)
    key = _key(kind, "server" if server else "client")
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _builder(_name(names[0]), issuer.subject, key, begins, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_alternatives(names)), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if padding:
        comment = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.16.840.1.113730.1.13"), bytes(padding))
        builder = builder.add_extension(comment, critical=False)
    return Credential(builder.sign(issuer_key, _hash(issuer_key)), key, issuer)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, begins: dt.timedelta, ends: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
    )


def _name(common: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Lab"), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )


def _alternatives(names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        if "@" in name:
            found.append(x509.RFC822Name(name))
        elif name.replace(".", "").isdigit() or ":" in name:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        else:
            found.append(x509.DNSName(name))
    return found


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _hash(key: PrivateKey) -> hashes.HashAlgorithm | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()

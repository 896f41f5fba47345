"""A PKI in memory, with every mistake that a test asks for. No file, no clock."""

from __future__ import annotations

import functools
import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

from ikeway.auth.der import encode

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@functools.cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def new_key(kind: str = "p256") -> Any:
    match kind:
        case "rsa":
            return rsa_key()
        case "rsa1024":
            return rsa_key(1024)
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "ed448":
            return ed448.Ed448PrivateKey.generate()
        case _:
            curves = {
                "p256": ec.SECP256R1,
                "p384": ec.SECP384R1,
                "p521": ec.SECP521R1,
                "p192": ec.SECP192R1,
                "bp256": ec.BrainpoolP256R1,
            }
            return ec.generate_private_key(curves[kind]())


def name(common_name: str, organization: str | None = "Example") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def general_name(text: str) -> x509.GeneralName:
    """`dns:`, `email:`, `ip:`, `net:`, `uri:`, `dn:CN` in subjectAltName and name constraints."""
    kind, _, value = text.partition(":")
    match kind:
        case "dns":
            return x509.DNSName(value)
        case "email":
            return x509.RFC822Name(value)
        case "ip":
            return x509.IPAddress(ipaddress.ip_address(value))
        case "net":
            return x509.IPAddress(ipaddress.ip_network(value))
        case "uri":
            return x509.UniformResourceIdentifier(value)
        case "dn":
            return x509.DirectoryName(name(value))
        case "org":
            return x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, value)]))
    raise ValueError(text)


def key_usage(*uses: str) -> x509.KeyUsage:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{use: use in uses for use in every})


@dataclass
class Node:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def subject(self) -> x509.Name:
        return self.certificate.subject

    def issue(
        self,
        common_name: str,
        *,
        key: Any = None,
        subject: x509.Name | None = None,
        alternatives: tuple[str, ...] = (),
        ca: bool | None = None,
        path_length: int | None = None,
        uses: tuple[str, ...] | None = None,
        extended: tuple[str, ...] = (),
        permitted: tuple[str, ...] | None = None,
        excluded: tuple[str, ...] | None = None,
        start: datetime = NOW - 30 * DAY,
        end: datetime = NOW + 30 * DAY,
        digest: Any = None,
        extra: tuple[tuple[x509.ExtensionType, bool], ...] = (),
        sign_with: Any = None,
    ) -> Node:
        key = key if key is not None else new_key()
        return Node(
            build(
                subject if subject is not None else name(common_name),
                key,
                self.certificate.subject,
                sign_with if sign_with is not None else self.key,
                alternatives=alternatives,
                ca=ca,
                path_length=path_length,
                uses=uses,
                extended=extended,
                permitted=permitted,
                excluded=excluded,
                start=start,
                end=end,
                digest=digest,
                extra=extra,
            ),
            key,
        )

    def crl(
        self,
        *revoked: x509.Certificate,
        reason: x509.ReasonFlags | None = x509.ReasonFlags.key_compromise,
        updated: datetime = NOW - DAY,
        next_update: datetime = NOW + DAY,
        sign_with: Any = None,
        extra: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    ) -> x509.CertificateRevocationList:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(updated)
            .next_update(next_update)
        )
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(NOW - DAY)
            if reason is not None:
                entry = entry.add_extension(x509.CRLReason(reason), critical=False)
            builder = builder.add_revoked_certificate(entry.build())
        for value, critical in extra:
            builder = builder.add_extension(value, critical=critical)
        return builder.sign(sign_with or self.key, hash_for(sign_with or self.key))


def hash_for(key: Any, digest: Any = None) -> Any:
    return None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else digest or hashes.SHA256()


def build(
    subject: x509.Name,
    key: Any,
    issuer: x509.Name,
    issuer_key: Any,
    *,
    alternatives: tuple[str, ...] = (),
    ca: bool | None = None,
    path_length: int | None = None,
    uses: tuple[str, ...] | None = None,
    extended: tuple[str, ...] = (),
    permitted: tuple[str, ...] | None = None,
    excluded: tuple[str, ...] | None = None,
    start: datetime = NOW - 30 * DAY,
    end: datetime = NOW + 30 * DAY,
    digest: Any = None,
    extra: tuple[tuple[x509.ExtensionType, bool], ...] = (),
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length if ca else None), critical=True)
    if uses is not None:
        builder = builder.add_extension(key_usage(*uses), critical=True)
    if extended:
        oids = [x509.ObjectIdentifier(oid) for oid in extended]
        builder = builder.add_extension(x509.ExtendedKeyUsage(oids), critical=False)
    if alternatives:
        names = x509.SubjectAlternativeName(map(general_name, alternatives))
        builder = builder.add_extension(names, critical=False)
    if permitted is not None or excluded is not None:
        constraints = x509.NameConstraints(
            list(map(general_name, permitted)) if permitted else None,
            list(map(general_name, excluded)) if excluded else None,
        )
        builder = builder.add_extension(constraints, critical=True)
    for value, critical in extra:
        builder = builder.add_extension(value, critical=critical)
    return builder.sign(issuer_key, hash_for(issuer_key, digest))


def root(common_name: str = "Root", *, key: Any = None, **options: Any) -> Node:
    """A self-signed CA."""
    key = key if key is not None else new_key()
    options.setdefault("ca", True)
    subject = options.pop("subject", None)
    subject = subject if subject is not None else name(common_name)
    return Node(build(subject, key, subject, key, **options), key)


def resigned(node: Node, issuer: Node, digest: Any) -> Node:
    """The certificate again with an old digest, which `cryptography` refuses to sign with: MD5 or SHA-1, by RSA."""
    sha256, old = bytes.fromhex("2a864886f70d01010b"), {"md5": b"\x04", "sha1": b"\x05"}[digest.name]
    body = node.certificate.tbs_certificate_bytes.replace(sha256, sha256[:-1] + old)
    signature = issuer.key.sign(body, padding.PKCS1v15(), digest)
    algorithm = encode(0x30, encode(0x06, sha256[:-1] + old), b"\x05\x00")
    der = encode(0x30, body, algorithm, encode(0x03, b"\0", signature))
    return Node(x509.load_der_x509_certificate(der), node.key)

"""What a gateway does and should not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ikeway.wire.registry import AuthenticationMethod, HashAlgorithm
from ikeway.workbench.probe.report import Authentication, Ikev1, ProbeReport, Weakness

LEAST_RSA_BITS, LEAST_CURVE_BITS = 2048, 224  # 112 bits of security (NIST SP 800-57)
_BROKEN_HASHES = (hashes.SHA1, hashes.MD5)


def find_weaknesses(report: ProbeReport) -> tuple[Weakness, ...]:
    """Everything that the report's other fields show."""
    found = [Weakness(each.keyword, each.weakness) for each in report.weak if each.weakness is not None]
    if str(HashAlgorithm.SHA1) in report.signature_hashes:
        found.append(
            Weakness("signatures over SHA-1", "collisions of SHA-1 can be made, and it says that it takes them")
        )
    if report.ikev1 is not None:
        found += _of_ikev1(report.ikev1)
    if report.authentication is not None:
        found += _of_authentication(report.authentication)
    return tuple(found)


def certificate_weaknesses(certificate: x509.Certificate, now: datetime) -> tuple[str, ...]:
    """What is wrong with a certificate by itself: its time, its key, its signature."""
    return tuple(_of_certificate(certificate, now))


def _of_ikev1(found: Ikev1) -> Iterator[Weakness]:
    if found.spoken:
        yield Weakness("IKEv1", "RFC 9395 took it out of use: no modern cipher, no fix any more; switch it off")
    if found.aggressive_mode or found.not_for_us:
        yield Weakness(
            "Aggressive Mode with a pre-shared key",
            "whoever knows a user's name is sent a hash made with the key, and can then try keys offline, as fast as a "
            "computer goes; switch it off, and change the key unless it is long and random",
        )


def _of_authentication(found: Authentication) -> Iterator[Weakness]:
    if found.method == str(AuthenticationMethod.RSA_DIGITAL_SIGNATURE):
        yield Weakness(
            "RSA_DIGITAL_SIGNATURE",
            "it proves who it is by a signature of the old kind, usually over SHA-1, although we take others (RFC 7427)",
        )
    for certificate in found.certificates[:1]:
        yield from (Weakness("its certificate", why) for why in certificate.weaknesses)


def _of_certificate(certificate: x509.Certificate, now: datetime) -> Iterator[str]:
    if now > certificate.not_valid_after_utc:
        yield f"it expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if now < certificate.not_valid_before_utc:
        yield f"it is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
    try:
        key, signed_over = certificate.public_key(), certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < LEAST_RSA_BITS:
        yield f"an RSA key of {key.key_size} bits: {LEAST_RSA_BITS} are the least"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < LEAST_CURVE_BITS:
        yield f"a key on a curve of {key.curve.key_size} bits: {LEAST_CURVE_BITS} are the least"
    if isinstance(signed_over, _BROKEN_HASHES):
        yield f"it is signed over {signed_over.name.upper()}, of which collisions can be made"

"""A certificate for tests that look inside one."""

from __future__ import annotations

import datetime
import functools

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SUBJECT = x509.Name(
    [
        x509.NameAttribute(NameOID.COUNTRY_NAME, "CH"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Müller & Söhne"),
        x509.NameAttribute(NameOID.COMMON_NAME, "gw.example.org"),
    ]
)


@functools.cache
def certificate() -> bytes:
    """A self-signed certificate in DER, with a subject that is not ASCII."""
    key = ec.generate_private_key(ec.SECP256R1())
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(SUBJECT, SUBJECT, key.public_key(), 1, start, start.replace(year=2034))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

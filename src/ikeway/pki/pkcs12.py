"""PKCS #12: key, certificate and CA in one encrypted file, as phones and Windows import it."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import PrivateFormat, pkcs12

from ikeway.auth.parse import PrivateKey
from ikeway.errors import ConfigError

_ROUNDS = 50_000


def export_pkcs12(
    name: str,
    private_key: PrivateKey,
    certificate: x509.Certificate,
    authorities: Sequence[x509.Certificate],
    password: bytes,
    *,
    legacy: bool = False,
) -> bytes:
    """Encrypt with AES-256 and SHA-256; `legacy` with 3DES and SHA-1, which Apple's devices before 2022 need."""
    if not password:
        raise ConfigError("a PKCS #12 file without a password would show its key to everybody", expected="a password")
    builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(_ROUNDS)
    if legacy:
        builder = builder.key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC).hmac_hash(hashes.SHA1())  # noqa: S303
    else:
        builder = builder.key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC).hmac_hash(hashes.SHA256())
    return pkcs12.serialize_key_and_certificates(
        name.encode(), private_key, certificate, authorities, builder.build(password)
    )

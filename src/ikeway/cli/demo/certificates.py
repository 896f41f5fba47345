"""A fresh authority for the demonstration, and the gateway's certificate."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from ikeway.pki import Authority, KeyKind, encode_certificates, encode_private_key, generate_key


def make_certificates(folder: Path, gateway_name: str) -> None:
    """Write ca.pem, gateway.pem and gateway.key. The authority's key is never written: it is needed only here."""
    now = datetime.now(UTC)
    authority = Authority.create("Ikeway demonstration CA", generate_key(KeyKind.ECDSA_P256), now, days=60)
    key = generate_key(KeyKind.ECDSA_P256)
    certificate = authority.issue_gateway([gateway_name], key.public_key(), now, days=30)
    (folder / "ca.pem").write_bytes(encode_certificates(authority.certificate))
    (folder / "gateway.pem").write_bytes(encode_certificates(certificate))
    private = folder / "gateway.key"
    private.touch(mode=0o600)
    private.write_bytes(encode_private_key(key))

"""Files for configurations: certificates, keys, and texts with the right permissions."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from ikeway.pki.authority import Authority, encode_certificates
from ikeway.pki.keys import KeyKind, generate_key

NOW = datetime.now(UTC) - timedelta(days=1)


@functools.cache
def authority() -> Authority:
    return Authority.create("Test CA", generate_key(KeyKind.ECDSA_P256), NOW)


def write_private(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o600)
    return path


def make_pki(folder: Path) -> Path:
    """ca.pem; vpn.pem and vpn.key of vpn.example.com; alice.pem, alice.key, alice.p12 (password "open")."""
    ca = authority()
    folder.mkdir(exist_ok=True)
    (folder / "ca.pem").write_bytes(encode_certificates(ca.certificate))
    crl = ca.revocation_list([], 1, NOW)
    (folder / "crl.pem").write_bytes(crl.public_bytes(Encoding.PEM))
    for stem, issue, identity in (
        ("vpn", lambda key: ca.issue_gateway(["vpn.example.com", "192.0.2.1"], key, NOW), b""),
        ("alice", lambda key: ca.issue_client("alice@example.com", key, NOW), b"alice"),
    ):
        key = generate_key(KeyKind.ECDSA_P256)
        certificate = issue(key.public_key())
        (folder / f"{stem}.pem").write_bytes(encode_certificates(certificate))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_private(folder / f"{stem}.key", pem)
        locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open"))
        write_private(folder / f"{stem}-locked.key", locked)
        bundle = serialize_key_and_certificates(
            identity or b"vpn", key, certificate, [ca.certificate], BestAvailableEncryption(b"open")
        )
        write_private(folder / f"{stem}.p12", bundle)
    return folder

"""Private keys: made, and written down."""

from __future__ import annotations

import enum

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from ikeway.auth.parse import PrivateKey, PublicKey


class KeyKind(enum.StrEnum):
    """The keys that can be made. RSA is what every VPN client can check; ECDSA and Ed25519 sign much faster."""

    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    ECDSA_P256 = "ecdsa-p256"
    ECDSA_P384 = "ecdsa-p384"
    ECDSA_P521 = "ecdsa-p521"
    ED25519 = "ed25519"
    ED448 = "ed448"


DEFAULT_KEY = KeyKind.RSA_3072

_CURVES: dict[KeyKind, ec.EllipticCurve] = {
    KeyKind.ECDSA_P256: ec.SECP256R1(),
    KeyKind.ECDSA_P384: ec.SECP384R1(),
    KeyKind.ECDSA_P521: ec.SECP521R1(),
}
_RSA_BITS = {KeyKind.RSA_2048: 2048, KeyKind.RSA_3072: 3072, KeyKind.RSA_4096: 4096}


def generate_key(kind: KeyKind = DEFAULT_KEY) -> PrivateKey:
    """Make a private key."""
    if kind in _CURVES:
        return ec.generate_private_key(_CURVES[kind])
    if kind in _RSA_BITS:
        return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS[kind])
    return ed25519.Ed25519PrivateKey.generate() if kind is KeyKind.ED25519 else ed448.Ed448PrivateKey.generate()


def encode_private_key(key: PrivateKey, password: bytes | None = None) -> bytes:
    """PKCS #8 in PEM, encrypted when there is a password."""
    encryption: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def signing_hash(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None:
    """The hash that a CA with this key signs with: as strong as the key; none where the algorithm has its own."""
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 256:
        return hashes.SHA384() if key.curve.key_size <= 384 else hashes.SHA512()
    return hashes.SHA256()


def describe_key(key: PublicKey | object) -> str:
    """A public key for a person: `RSA 3072 bits`, `ECDSA secp256r1`, `Ed25519`."""
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA {key.curve.name}"
    return type(key).__name__.removesuffix("PublicKey")

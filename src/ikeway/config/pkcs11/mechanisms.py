"""How a token signs by a scheme of ours: the mechanism, and what it gets and gives (PKCS#11 v2.40 mechanisms)."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ikeway.crypto.signature import PublicKey, SignatureScheme
from ikeway.errors import CryptoError
from ikeway.wire.registry import HashAlgorithm

_HASHES: dict[HashAlgorithm, hashes.HashAlgorithm] = {
    HashAlgorithm.SHA1: hashes.SHA1(),  # noqa: S303 - the classic RSA method (RFC 7296 section 3.8)
    HashAlgorithm.SHA2_256: hashes.SHA256(),
    HashAlgorithm.SHA2_384: hashes.SHA384(),
    HashAlgorithm.SHA2_512: hashes.SHA512(),
}
# The head of a DigestInfo: what stands before the hash (RFC 8017 section 9.2, note 1).
_DIGEST_INFO = {
    HashAlgorithm.SHA1: bytes.fromhex("3021300906052b0e03021a05000414"),
    HashAlgorithm.SHA2_256: bytes.fromhex("3031300d060960864801650304020105000420"),
    HashAlgorithm.SHA2_384: bytes.fromhex("3041300d060960864801650304020205000430"),
    HashAlgorithm.SHA2_512: bytes.fromhex("3051300d060960864801650304020305000440"),
}
_PSS = {
    HashAlgorithm.SHA2_256: ("SHA256", "SHA256"),
    HashAlgorithm.SHA2_384: ("SHA384", "SHA384"),
    HashAlgorithm.SHA2_512: ("SHA512", "SHA512"),
}


def mechanism_of(scheme: SignatureScheme, octets: bytes) -> tuple[Any, Any, bytes]:
    """Mechanism, its parameter, and what the token is to sign. Raises `CryptoError` for a scheme that no token has."""
    import pkcs11

    if scheme.hash == HashAlgorithm.IDENTITY:
        return pkcs11.Mechanism.EDDSA, None, octets
    digest = _digest(scheme.hash, octets)
    if scheme.is_pss:
        name, mask = _PSS[scheme.hash]
        return pkcs11.Mechanism.RSA_PKCS_PSS, (pkcs11.Mechanism[name], pkcs11.MGF[mask], len(digest)), digest
    if issubclass(scheme.key_type, rsa.RSAPublicKey):
        return pkcs11.Mechanism.RSA_PKCS, None, _DIGEST_INFO[scheme.hash] + digest
    return pkcs11.Mechanism.ECDSA, None, digest


def finish(scheme: SignatureScheme, key: PublicKey, signature: bytes) -> bytes:
    """What the token gave, as AUTH has it: of ECDSA DER, but for the classic methods (RFC 4754 section 7)."""
    if not isinstance(key, ec.EllipticCurvePublicKey) or scheme.curve:
        return bytes(signature)
    size = -(-key.key_size // 8)
    if len(signature) != 2 * size:
        raise CryptoError(f"the token made a signature of {len(signature)} octets, where {2 * size} are due")
    return encode_dss_signature(int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big"))


def _digest(algorithm: HashAlgorithm, octets: bytes) -> bytes:
    made = hashes.Hash(_HASHES[algorithm])
    made.update(octets)
    return made.finalize()

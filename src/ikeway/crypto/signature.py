"""Signatures of IKE authentication (RFC 7296 section 2.15, RFC 4754, 7427, 8420).

A `SignatureScheme` is one way to sign: key type, padding, hash, and the AlgorithmIdentifier that announces it in an
AUTH payload of method 14. The classic methods 1, 9, 10 and 11 announce nothing; theirs are `CLASSIC_SCHEMES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TypeAlias, assert_never

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from ikeway.errors import CryptoError, IntegrityCheckFailed
from ikeway.wire.registry import AuthenticationMethod, HashAlgorithm

PrivateKey: TypeAlias = (
    rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
)
PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey

_Hash: TypeAlias = hashes.SHA1 | hashes.SHA256 | hashes.SHA384 | hashes.SHA512
_HASHES: dict[HashAlgorithm, _Hash] = {
    HashAlgorithm.SHA1: hashes.SHA1(),  # noqa: S303 - the default of the classic RSA method (RFC 7296 section 3.8)
    HashAlgorithm.SHA2_256: hashes.SHA256(),
    HashAlgorithm.SHA2_384: hashes.SHA384(),
    HashAlgorithm.SHA2_512: hashes.SHA512(),
}

SMALLEST_RSA_BITS = 1024
"""Below it nothing fits; that more should be asked for is the business of who trusts the key."""


@dataclass(frozen=True, slots=True)
class SignatureScheme:
    """One way to sign. `hash` is IDENTITY where the algorithm hashes by itself (Ed25519, Ed448)."""

    name: str
    hash: HashAlgorithm
    algorithm_identifier: bytes
    """DER, as it is sent (RFC 7427 appendix A, RFC 8420 appendix A); empty for the classic methods."""
    key_type: type[rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey]
    is_pss: bool = False
    curve: str = ""
    """ECDSA of the classic methods: the only curve, and signatures are r | s instead of DER (RFC 4754 section 7)."""

    def __str__(self) -> str:
        """Return the name."""
        return self.name

    def fits(self, key: PrivateKey | PublicKey) -> bool:
        """True when this key can sign, or verify, by this scheme."""
        if isinstance(key, _PRIVATE_TYPES):
            key = key.public_key()
        if not isinstance(key, self.key_type):
            return False
        if isinstance(key, rsa.RSAPublicKey):
            # PSS: emLen >= hLen + sLen + 2, and the salt is as long as the hash (RFC 8017 section 9.1.1).
            least = 2 * _HASHES[self.hash].digest_size + 2 if self.is_pss else 0
            return key.key_size >= SMALLEST_RSA_BITS and (key.key_size + 6) // 8 >= least
        return not self.curve or (isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == self.curve)


_PRIVATE_TYPES = (
    rsa.RSAPrivateKey,
    ec.EllipticCurvePrivateKey,
    ed25519.Ed25519PrivateKey,
    ed448.Ed448PrivateKey,
)


def _der(tag: int, *contents: bytes) -> bytes:
    body = b"".join(contents)
    assert len(body) < 128
    return bytes((tag, len(body))) + body


_NULL = _der(0x05)
_OID_HASHES = {
    HashAlgorithm.SHA2_256: _der(0x06, bytes.fromhex("608648016503040201")),
    HashAlgorithm.SHA2_384: _der(0x06, bytes.fromhex("608648016503040202")),
    HashAlgorithm.SHA2_512: _der(0x06, bytes.fromhex("608648016503040203")),
}
_OID_PSS = _der(0x06, bytes.fromhex("2a864886f70d01010a"))
_OID_MGF1 = _der(0x06, bytes.fromhex("2a864886f70d010108"))


def _pkcs1_identifier(last: int) -> bytes:
    return _der(0x30, _der(0x06, bytes.fromhex("2a864886f70d0101"), bytes((last,))), _NULL)


def _ecdsa_identifier(tail: str) -> bytes:
    return _der(0x30, _der(0x06, bytes.fromhex("2a8648ce3d04" + tail)))


def _pss_identifiers(algorithm: HashAlgorithm) -> tuple[bytes, ...]:
    """All ways to write RSASSA-PSS with this hash, MGF1 with the same, and a salt as long (RFC 4055 section 3.1): hash
    parameters NULL or absent, the default trailer spelled out or not. The first is what we send."""
    ways = []
    for hash_parameters, mgf_parameters, trailer in product((_NULL, b""), (_NULL, b""), (b"", b"\xa3\x03\x02\x01\x01")):
        hashed = _der(0x30, _OID_HASHES[algorithm], hash_parameters)
        mask = _der(0x30, _OID_MGF1, _der(0x30, _OID_HASHES[algorithm], mgf_parameters))
        salt = _der(0x02, bytes((_HASHES[algorithm].digest_size,)))
        parameters = _der(0x30, _der(0xA0, hashed), _der(0xA1, mask), _der(0xA2, salt), trailer)
        ways.append(_der(0x30, _OID_PSS, parameters))
    return tuple(ways)


_H = HashAlgorithm
_RSA, _EC = rsa.RSAPublicKey, ec.EllipticCurvePublicKey
RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512 = (
    SignatureScheme(f"RSA-PSS with {algorithm.name}", algorithm, _pss_identifiers(algorithm)[0], _RSA, is_pss=True)
    for algorithm in (_H.SHA2_256, _H.SHA2_384, _H.SHA2_512)
)
RSA_PKCS1_SHA1 = SignatureScheme("RSA PKCS#1 v1.5 with SHA1", _H.SHA1, _pkcs1_identifier(0x05), _RSA)
RSA_PKCS1_SHA256 = SignatureScheme("RSA PKCS#1 v1.5 with SHA2_256", _H.SHA2_256, _pkcs1_identifier(0x0B), _RSA)
RSA_PKCS1_SHA384 = SignatureScheme("RSA PKCS#1 v1.5 with SHA2_384", _H.SHA2_384, _pkcs1_identifier(0x0C), _RSA)
RSA_PKCS1_SHA512 = SignatureScheme("RSA PKCS#1 v1.5 with SHA2_512", _H.SHA2_512, _pkcs1_identifier(0x0D), _RSA)
ECDSA_SHA256 = SignatureScheme("ECDSA with SHA2_256", _H.SHA2_256, _ecdsa_identifier("0302"), _EC)
ECDSA_SHA384 = SignatureScheme("ECDSA with SHA2_384", _H.SHA2_384, _ecdsa_identifier("0303"), _EC)
ECDSA_SHA512 = SignatureScheme("ECDSA with SHA2_512", _H.SHA2_512, _ecdsa_identifier("0304"), _EC)
ED25519 = SignatureScheme(
    "Ed25519", _H.IDENTITY, _der(0x30, _der(0x06, bytes.fromhex("2b6570"))), ed25519.Ed25519PublicKey
)
ED448 = SignatureScheme("Ed448", _H.IDENTITY, _der(0x30, _der(0x06, bytes.fromhex("2b6571"))), ed448.Ed448PublicKey)

SCHEMES: tuple[SignatureScheme, ...] = (
    RSA_PSS_SHA256,
    RSA_PSS_SHA384,
    RSA_PSS_SHA512,
    RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512,
    ECDSA_SHA256,
    ECDSA_SHA384,
    ECDSA_SHA512,
    ED25519,
    ED448,
)
"""Of method 14 (RFC 7427). PSS before PKCS#1 v1.5, which RFC 8247 section 3.2 only tolerates; none with SHA-1."""

CLASSIC_SCHEMES: dict[AuthenticationMethod, SignatureScheme] = {
    AuthenticationMethod.RSA_DIGITAL_SIGNATURE: RSA_PKCS1_SHA1,
    AuthenticationMethod.ECDSA_SHA256_P256: SignatureScheme("ECDSA-256", _H.SHA2_256, b"", _EC, curve="secp256r1"),
    AuthenticationMethod.ECDSA_SHA384_P384: SignatureScheme("ECDSA-384", _H.SHA2_384, b"", _EC, curve="secp384r1"),
    AuthenticationMethod.ECDSA_SHA512_P521: SignatureScheme("ECDSA-521", _H.SHA2_512, b"", _EC, curve="secp521r1"),
}
"""Of the methods that announce nothing (RFC 7296 section 3.8, RFC 4754). Method 1 uses SHA-1 unless agreed otherwise."""

_BY_IDENTIFIER = {scheme.algorithm_identifier: scheme for scheme in SCHEMES}
for _scheme in (RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512):
    for _identifier in _pss_identifiers(_scheme.hash):
        _BY_IDENTIFIER[_identifier] = _scheme

# The hash whose strength is the curve's comes first.
_HASH_OF_CURVE = {
    "secp256r1": _H.SHA2_256,
    "secp384r1": _H.SHA2_384,
    "secp521r1": _H.SHA2_512,
    "brainpoolP256r1": _H.SHA2_256,
    "brainpoolP384r1": _H.SHA2_384,
    "brainpoolP512r1": _H.SHA2_512,
}


def schemes_for(key: PrivateKey | PublicKey) -> tuple[SignatureScheme, ...]:
    """The schemes of method 14 that this key can sign by, the best first."""
    fitting = [scheme for scheme in SCHEMES if scheme.fits(key)]
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        best = _HASH_OF_CURVE.get(key.curve.name)
        fitting.sort(key=lambda scheme: scheme.hash != best)
    return tuple(fitting)


def scheme_of_identifier(algorithm_identifier: bytes) -> SignatureScheme | None:
    """The scheme that an AUTH payload of method 14 announces; None when we do not have it (SHA-1, other salts...)."""
    return _BY_IDENTIFIER.get(bytes(algorithm_identifier))


def sign(private_key: PrivateKey, scheme: SignatureScheme, octets: bytes) -> bytes:
    """Sign `octets`, which the scheme hashes. Raises `CryptoError` when the key is of another type."""
    if not scheme.fits(private_key):
        raise _misfit(private_key, scheme)
    if isinstance(private_key, rsa.RSAPrivateKey):
        return private_key.sign(octets, _padding(scheme), _HASHES[scheme.hash])
    if isinstance(private_key, ec.EllipticCurvePrivateKey):
        signature = private_key.sign(octets, ec.ECDSA(_HASHES[scheme.hash]))
        return _raw_from_der(signature, private_key.curve) if scheme.curve else signature
    if isinstance(private_key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return private_key.sign(octets)
    assert_never(private_key)


def verify(public_key: PublicKey, scheme: SignatureScheme, signature: bytes, octets: bytes) -> None:
    """Check a signature of `octets`. Raises `IntegrityCheckFailed` when it is wrong, `CryptoError` when the key is of
    another type than the scheme."""
    if not scheme.fits(public_key):
        raise _misfit(public_key, scheme)
    try:
        if isinstance(public_key, rsa.RSAPublicKey):
            public_key.verify(signature, octets, _padding(scheme), _HASHES[scheme.hash])
        elif isinstance(public_key, ec.EllipticCurvePublicKey):
            der = _der_from_raw(signature, public_key.curve) if scheme.curve else signature
            public_key.verify(der, octets, ec.ECDSA(_HASHES[scheme.hash]))
        else:
            public_key.verify(signature, octets)
    except InvalidSignature:
        raise IntegrityCheckFailed(
            f"the signature ({scheme}) is wrong",
            remedy="sign with the private key that belongs to the certificate that is sent",
        ) from None


def _padding(scheme: SignatureScheme) -> padding.PSS | padding.PKCS1v15:
    if not scheme.is_pss:
        return padding.PKCS1v15()
    algorithm = _HASHES[scheme.hash]
    return padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)


def _raw_from_der(signature: bytes, curve: ec.EllipticCurve) -> bytes:
    octets = -(-curve.key_size // 8)
    return b"".join(number.to_bytes(octets, "big") for number in decode_dss_signature(signature))


def _der_from_raw(signature: bytes, curve: ec.EllipticCurve) -> bytes:
    octets = -(-curve.key_size // 8)
    if len(signature) != 2 * octets:
        raise InvalidSignature
    return encode_dss_signature(int.from_bytes(signature[:octets], "big"), int.from_bytes(signature[octets:], "big"))


def _misfit(key: PrivateKey | PublicKey, scheme: SignatureScheme) -> CryptoError:
    kind = type(key).__name__.removesuffix("PrivateKey").removesuffix("PublicKey")
    size = f" of {key.key_size} bits" if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey) else ""
    return CryptoError(f"a key of type {kind}{size} cannot be used for {scheme}")

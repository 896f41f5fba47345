"""Key exchange methods: MODP, ECP (RFC 5903), Brainpool (RFC 6954), X25519 and X448 (RFC 8031), ML-KEM (RFC 9370 ff.).

A key encapsulation is not symmetric: the initiator's public value is an encapsulation key, the responder's is the
ciphertext made for it. So the responder has one call, `respond_key_exchange`, which serves both kinds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm as UnsupportedByLibrary
from cryptography.hazmat.primitives.asymmetric import ec, mlkem
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey, X448PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ikeway.errors import InvalidPublicValue, UnsupportedAlgorithm
from ikeway.wire.registry import KeyExchangeMethod

from . import modp
from .private_key import PrivateKeyExchange, check_length

_K = KeyExchangeMethod


class _X25519(PrivateKeyExchange):
    """Curve25519: u-coordinates of 32 octets, little-endian."""

    __slots__ = ("_key",)

    def __init__(self, private: bytes | None = None) -> None:
        # Any 32 octets are a key; this is faster than X25519PrivateKey.generate() and the same random numbers.
        self._key = X25519PrivateKey.from_private_bytes(private if private is not None else os.urandom(32))
        super().__init__(_K.CURVE25519, self._key.public_key().public_bytes_raw())

    def shared_secret(self, peer_public_value: bytes) -> bytes:
        check_length(self.method, peer_public_value, 32)
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(peer_public_value))
        except ValueError:
            raise _all_zero(self.method) from None


class _X448(PrivateKeyExchange):
    """Curve448: u-coordinates of 56 octets, little-endian."""

    __slots__ = ("_key",)

    def __init__(self, private: bytes | None = None) -> None:
        self._key = X448PrivateKey.from_private_bytes(private if private is not None else os.urandom(56))
        super().__init__(_K.CURVE448, self._key.public_key().public_bytes_raw())

    def shared_secret(self, peer_public_value: bytes) -> bytes:
        check_length(self.method, peer_public_value, 56)
        try:
            return self._key.exchange(X448PublicKey.from_public_bytes(peer_public_value))
        except ValueError:
            raise _all_zero(self.method) from None


_CURVES: dict[KeyExchangeMethod, ec.EllipticCurve] = {
    _K.ECP_256: ec.SECP256R1(),
    _K.ECP_384: ec.SECP384R1(),
    _K.ECP_521: ec.SECP521R1(),
    _K.BRAINPOOL_P256R1: ec.BrainpoolP256R1(),
    _K.BRAINPOOL_P384R1: ec.BrainpoolP384R1(),
    _K.BRAINPOOL_P512R1: ec.BrainpoolP512R1(),
}
_ECDH = ec.ECDH()


class _Ecp(PrivateKeyExchange):
    """A prime curve: the public value is x | y, the secret is x (RFC 5903 section 7)."""

    __slots__ = ("_curve", "_key", "_octets")

    def __init__(self, method: KeyExchangeMethod, private: bytes | None = None) -> None:
        self._curve = _CURVES[method]
        self._octets = 2 * -(-self._curve.key_size // 8)
        if private is None:
            self._key = ec.generate_private_key(self._curve)
        else:
            self._key = ec.derive_private_key(int.from_bytes(private, "big"), self._curve)
        point = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        super().__init__(method, point[1:])

    def shared_secret(self, peer_public_value: bytes) -> bytes:
        check_length(self.method, peer_public_value, self._octets)
        try:
            # Refuses coordinates out of range and points off the curve; the point at infinity has no such form.
            peer = ec.EllipticCurvePublicKey.from_encoded_point(self._curve, b"\x04" + peer_public_value)
        except ValueError:
            raise InvalidPublicValue(
                f"the public value for {self.method.name} is not a point of the curve",
                remedy="a sound implementation never sends such a value; look who is answering",
            ) from None
        return self._key.exchange(_ECDH, peer)


@dataclass(frozen=True, slots=True)
class _Kem:
    """The classes of one parameter set, and the octets of an encapsulation key and of a ciphertext (FIPS 203, 8)."""

    private_key: type[mlkem.MLKEM768PrivateKey | mlkem.MLKEM1024PrivateKey]
    public_key: type[mlkem.MLKEM768PublicKey | mlkem.MLKEM1024PublicKey]
    key_octets: int
    ciphertext_octets: int


def _available_kems() -> dict[KeyExchangeMethod, _Kem]:
    """ML-KEM, unless `cryptography` was built on an OpenSSL older than 3.5. It has no ML-KEM-512."""
    try:
        mlkem.MLKEM768PrivateKey.generate()
    except UnsupportedByLibrary:  # pragma: no cover - a distribution's build
        return {}
    return {
        _K.ML_KEM_768: _Kem(mlkem.MLKEM768PrivateKey, mlkem.MLKEM768PublicKey, 1184, 1088),
        _K.ML_KEM_1024: _Kem(mlkem.MLKEM1024PrivateKey, mlkem.MLKEM1024PublicKey, 1568, 1568),
    }


_KEMS = _available_kems()


class _MlKem(PrivateKeyExchange):
    """The initiator's half of ML-KEM (FIPS 203): a decapsulation key; a private key is given as the seed d | z."""

    __slots__ = ("_key",)

    def __init__(self, method: KeyExchangeMethod, private: bytes | None = None) -> None:
        private_key = _KEMS[method].private_key
        self._key = private_key.generate() if private is None else private_key.from_seed_bytes(private)
        super().__init__(method, self._key.public_key().public_bytes_raw())

    def shared_secret(self, peer_public_value: bytes) -> bytes:
        # A forged ciphertext of the right length gives another secret, by design (implicit rejection).
        check_length(self.method, peer_public_value, _KEMS[self.method].ciphertext_octets)
        return self._key.decapsulate(peer_public_value)


def _encapsulate(method: KeyExchangeMethod, peer_public_value: bytes) -> tuple[bytes, bytes]:
    kem = _KEMS[method]
    check_length(method, peer_public_value, kem.key_octets)
    try:
        secret, ciphertext = kem.public_key.from_public_bytes(peer_public_value).encapsulate()
    except ValueError:
        raise InvalidPublicValue(f"the public value for {method.name} is not an encapsulation key") from None
    return ciphertext, secret


def initiate_key_exchange(method: KeyExchangeMethod, private: bytes | None = None) -> PrivateKeyExchange:
    """The initiator's half. `private` is for known-answer tests only; without it a fresh private key is made."""
    if method == _K.CURVE25519:
        return _X25519(private)
    if method in _CURVES:
        return _Ecp(method, private)
    if method in modp.METHODS:
        return modp.new_modp(method, None if private is None else int.from_bytes(private, "big"))
    if method == _K.CURVE448:
        return _X448(private)
    if method in _KEMS:
        return _MlKem(method, private)
    raise UnsupportedAlgorithm(f"key exchange method {method.name} is not supported")


def respond_key_exchange(method: KeyExchangeMethod, peer_public_value: bytes) -> tuple[bytes, bytes]:
    """The responder's part at once: the public value for our KE payload, and the shared secret.

    Raises `InvalidPublicValue`, `UnsupportedAlgorithm`.
    """
    if method in _KEMS:
        return _encapsulate(method, peer_public_value)
    ours = initiate_key_exchange(method)
    return ours.public_value, ours.shared_secret(peer_public_value)


def key_exchange_methods() -> tuple[KeyExchangeMethod, ...]:
    """Every supported method."""
    return (_K.CURVE25519, _K.CURVE448, *_CURVES, *modp.METHODS, *_KEMS)


def is_key_encapsulation(method: KeyExchangeMethod) -> bool:
    """True for a KEM: the responder's value answers the initiator's, so it cannot be made beforehand."""
    return method in _KEMS


def _all_zero(method: KeyExchangeMethod) -> InvalidPublicValue:
    return InvalidPublicValue(
        f"the public value for {method.name} leads to an all-zero secret",
        remedy="a sound implementation never sends such a value; look who is answering",
    )

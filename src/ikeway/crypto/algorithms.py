"""What every encryption and integrity transform needs in octets: keys, salts, IVs, ICVs, blocks.

Sources: RFC 2451 (3DES), 2410 (NULL), 3602 (AES-CBC), 3686 and 5930 (AES-CTR), 4309 and 5282 (AES-CCM), 4106 and 5282
(AES-GCM), 7634 (ChaCha20-Poly1305); 2403, 2404, 4868 (HMAC), 3566 (AES-XCBC-96), 4494 (AES-CMAC-96).
"""

from __future__ import annotations

from dataclasses import dataclass

from ikeway.errors import UnsupportedAlgorithm
from ikeway.wire.registry import EncryptionAlgorithm, IntegrityAlgorithm

_AES_KEY_BITS = (128, 192, 256)


@dataclass(frozen=True, slots=True)
class EncryptionInfo:
    """The sizes of an encryption transform, in octets. `icv_octets` is 0 unless it is an AEAD."""

    key_octets: int  # without the salt
    salt_octets: int
    iv_octets: int
    icv_octets: int
    block_octets: int
    is_aead: bool

    @property
    def keying_octets(self) -> int:
        """What is taken from the keying material: the key, then the salt."""
        return self.key_octets + self.salt_octets


@dataclass(frozen=True, slots=True)
class IntegrityInfo:
    """The sizes of an integrity transform, in octets."""

    key_octets: int
    icv_octets: int


@dataclass(frozen=True, slots=True)
class _Shape:
    key_bits: tuple[int, ...]
    salt_octets: int
    iv_octets: int
    icv_octets: int
    block_octets: int

    def info(self, key_bits: int) -> EncryptionInfo:
        return EncryptionInfo(
            key_bits // 8, self.salt_octets, self.iv_octets, self.icv_octets, self.block_octets, self.icv_octets > 0
        )


_E = EncryptionAlgorithm
_I = IntegrityAlgorithm

_ENCRYPTION: dict[EncryptionAlgorithm, _Shape] = {
    _E.ENCR_3DES: _Shape((192,), 0, 8, 0, 8),
    _E.ENCR_NULL: _Shape((0,), 0, 0, 0, 1),
    _E.ENCR_AES_CBC: _Shape(_AES_KEY_BITS, 0, 16, 0, 16),
    _E.ENCR_AES_CTR: _Shape(_AES_KEY_BITS, 4, 8, 0, 1),
    _E.ENCR_AES_CCM_8: _Shape(_AES_KEY_BITS, 3, 8, 8, 1),
    _E.ENCR_AES_CCM_12: _Shape(_AES_KEY_BITS, 3, 8, 12, 1),
    _E.ENCR_AES_CCM_16: _Shape(_AES_KEY_BITS, 3, 8, 16, 1),
    _E.ENCR_AES_GCM_8: _Shape(_AES_KEY_BITS, 4, 8, 8, 1),
    _E.ENCR_AES_GCM_12: _Shape(_AES_KEY_BITS, 4, 8, 12, 1),
    _E.ENCR_AES_GCM_16: _Shape(_AES_KEY_BITS, 4, 8, 16, 1),
    _E.ENCR_CHACHA20_POLY1305: _Shape((256,), 4, 8, 16, 1),
}

# Algorithms whose Key Length attribute must be absent (RFC 7296 section 3.3.5); the others must carry it.
_FIXED_KEY_LENGTH = frozenset((_E.ENCR_3DES, _E.ENCR_NULL, _E.ENCR_CHACHA20_POLY1305))

_INTEGRITY: dict[IntegrityAlgorithm, IntegrityInfo] = {
    _I.AUTH_HMAC_MD5_96: IntegrityInfo(16, 12),
    _I.AUTH_HMAC_SHA1_96: IntegrityInfo(20, 12),
    _I.AUTH_AES_XCBC_96: IntegrityInfo(16, 12),
    _I.AUTH_AES_CMAC_96: IntegrityInfo(16, 12),
    _I.AUTH_HMAC_SHA2_256_128: IntegrityInfo(32, 16),
    _I.AUTH_HMAC_SHA2_384_192: IntegrityInfo(48, 24),
    _I.AUTH_HMAC_SHA2_512_256: IntegrityInfo(64, 32),
}

_ENCRYPTION_INFO: dict[tuple[EncryptionAlgorithm, int | None], EncryptionInfo] = {}
for _algorithm, _shape in _ENCRYPTION.items():
    for _bits in _shape.key_bits:
        _key = (_algorithm, None if _algorithm in _FIXED_KEY_LENGTH else _bits)
        _ENCRYPTION_INFO[_key] = _shape.info(_bits)


def encryption_info(algorithm: EncryptionAlgorithm, key_bits: int | None) -> EncryptionInfo:
    """The sizes of an encryption transform. `key_bits` is its Key Length attribute, None where there is none."""
    info = _ENCRYPTION_INFO.get((algorithm, key_bits))
    if info is not None:
        return info
    if algorithm not in _ENCRYPTION:
        raise UnsupportedAlgorithm(f"encryption algorithm {algorithm.name} is not supported")
    expected = (
        "no Key Length attribute"
        if algorithm in _FIXED_KEY_LENGTH
        else "a Key Length of " + ", ".join(str(bits) for bits in _ENCRYPTION[algorithm].key_bits) + " bits"
    )
    got = "none" if key_bits is None else f"{key_bits} bits"
    raise UnsupportedAlgorithm(f"{algorithm.name} has no such key length", expected=expected, got=got)


def integrity_info(algorithm: IntegrityAlgorithm) -> IntegrityInfo:
    """The sizes of an integrity transform."""
    info = _INTEGRITY.get(algorithm)
    if info is None:
        raise UnsupportedAlgorithm(f"integrity algorithm {algorithm.name} is not supported")
    return info


def encryption_algorithms() -> tuple[tuple[EncryptionAlgorithm, int | None], ...]:
    """Every supported encryption transform with its Key Length attribute."""
    return tuple(_ENCRYPTION_INFO)


def integrity_algorithms() -> tuple[IntegrityAlgorithm, ...]:
    """Every supported integrity transform."""
    return tuple(_INTEGRITY)

"""Pseudorandom functions and prf+ (RFC 7296 sections 2.10, 2.13; RFC 4434, 4615, 4868)."""

from __future__ import annotations

import hmac
from abc import ABC, abstractmethod

from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from ikeway.errors import UnsupportedAlgorithm
from ikeway.wire.registry import PseudorandomFunction

from .mac import HASHES, Mac, cmac_under, hmac_under, xcbc_under


class Prf(ABC):
    """A negotiated pseudorandom function. Stateless: one object serves every SA."""

    __slots__ = ("fixed_nonce_octets", "key_octets", "output_octets")

    key_octets: int
    """The preferred key size: the length of SK_d, SK_pi and SK_pr (RFC 7296 section 2.13)."""

    output_octets: int

    fixed_nonce_octets: int | None
    """Octets of each nonce that go into the key of SKEYSEED; None for all of them (RFC 7296 section 2.14)."""

    @abstractmethod
    def __call__(self, key: bytes, octets: bytes) -> bytes:
        """prf(key, octets)."""

    @abstractmethod
    def under(self, key: bytes) -> Mac:
        """The function with its key filled in, for several messages under the same key."""

    def plus(self, key: bytes, seed: bytes, length: int) -> bytes:
        """The first `length` octets of prf+(key, seed) (RFC 7296 section 2.13)."""
        prf = self.under(key)
        block = b""
        stream = []
        for number in range(1, self._blocks(length) + 1):
            block = prf(block + seed + bytes((number,)))
            stream.append(block)
        return b"".join(stream)[:length]

    def _blocks(self, length: int) -> int:
        blocks = -(-length // self.output_octets)
        if blocks > 255:
            raise ValueError(f"prf+ is defined for 255 blocks; {length} octets take {blocks}")
        return blocks


class HmacPrf(Prf):
    """PRF_HMAC_*: keys of any length, preferred as long as the output."""

    __slots__ = ("_hash", "_hash_name")

    def __init__(self, hash_name: str, output_octets: int) -> None:
        self._hash_name = hash_name
        self._hash = HASHES[hash_name]
        self.key_octets = self.output_octets = output_octets
        self.fixed_nonce_octets = None

    def __call__(self, key: bytes, octets: bytes) -> bytes:
        """HMAC(key, octets), in one call of the library."""
        return hmac.digest(key, octets, self._hash_name)

    def under(self, key: bytes) -> Mac:
        """HMAC with the key hashed in."""
        return hmac_under(self._hash_name, key)

    def plus(self, key: bytes, seed: bytes, length: int) -> bytes:
        """The same as HKDF-Expand (RFC 5869 section 2.3), which the library does in one call."""
        return HKDFExpand(self._hash, length, seed).derive(key) if self._blocks(length) else b""


class _AesPrf(Prf):
    """PRF_AES128_XCBC and PRF_AES128_CMAC: a key that is not of 128 bits is first made so (RFC 4434, 4615)."""

    __slots__ = ()

    def __init__(self) -> None:
        self.key_octets = self.output_octets = 16
        self.fixed_nonce_octets = 8

    def __call__(self, key: bytes, octets: bytes) -> bytes:
        """prf(key, octets)."""
        return self.under(key)(octets)


class _XcbcPrf(_AesPrf):
    """PRF_AES128_XCBC (RFC 4434): short keys are padded with zeros, long ones hashed."""

    __slots__ = ()

    def under(self, key: bytes) -> Mac:
        """AES-XCBC-PRF-128 under `key`."""
        return xcbc_under(key.ljust(16, b"\0") if len(key) <= 16 else xcbc_under(bytes(16))(key))


class _CmacPrf(_AesPrf):
    """PRF_AES128_CMAC (RFC 4615): every key that is not of 16 octets is hashed, short ones too."""

    __slots__ = ()

    def under(self, key: bytes) -> Mac:
        """AES-CMAC-PRF-128 under `key`."""
        return cmac_under(key if len(key) == 16 else cmac_under(bytes(16))(key))


_P = PseudorandomFunction
_PRFS: dict[PseudorandomFunction, Prf] = {
    _P.PRF_HMAC_MD5: HmacPrf("md5", 16),
    _P.PRF_HMAC_SHA1: HmacPrf("sha1", 20),
    _P.PRF_HMAC_SHA2_256: HmacPrf("sha256", 32),
    _P.PRF_HMAC_SHA2_384: HmacPrf("sha384", 48),
    _P.PRF_HMAC_SHA2_512: HmacPrf("sha512", 64),
    _P.PRF_AES128_XCBC: _XcbcPrf(),
    _P.PRF_AES128_CMAC: _CmacPrf(),
}


def new_prf(algorithm: PseudorandomFunction) -> Prf:
    """The function with this number; `UnsupportedAlgorithm` when we do not have it."""
    prf = _PRFS.get(algorithm)
    if prf is None:
        raise UnsupportedAlgorithm(f"pseudorandom function {algorithm.name} is not supported")
    return prf


def pseudorandom_functions() -> tuple[PseudorandomFunction, ...]:
    """Every supported pseudorandom function."""
    return tuple(_PRFS)

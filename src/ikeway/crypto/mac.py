"""Message authentication codes: HMAC (RFC 2104), AES-XCBC-MAC (RFC 3566), AES-CMAC (RFC 4493)."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.hmac import HMAC

from ikeway.errors import IntegrityCheckFailed
from ikeway.wire.registry import IntegrityAlgorithm

from .algorithms import integrity_info

Mac = Callable[[bytes], bytes]
"""A keyed function from octets to a whole (untruncated) code."""

HASHES: dict[str, hashes.HashAlgorithm] = {
    "md5": hashes.MD5(),  # noqa: S303 - HMAC-MD5-96, only when a profile names it
    "sha1": hashes.SHA1(),  # noqa: S303 - HMAC-SHA1-96, only when a profile names it
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


def hmac_under(hash_name: str, key: bytes) -> Mac:
    """HMAC under one key for many messages: the key is hashed in once, each message starts from a copy."""
    keyed = HMAC(key, HASHES[hash_name])

    def code(octets: bytes) -> bytes:
        context = keyed.copy()
        context.update(octets)
        return context.finalize()

    return code


def xcbc_under(key: bytes) -> Mac:
    """AES-XCBC-MAC with 128 bits of output (RFC 3566 section 4, RFC 4434 without the truncation)."""
    derive = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - K1..K3 are single blocks
    keys = derive.update(b"\x01" * 16 + b"\x02" * 16 + b"\x03" * 16)
    chain = Cipher(algorithms.AES(keys[:16]), modes.CBC(bytes(16)))
    whole_mask = int.from_bytes(keys[16:32], "big")
    padded_mask = int.from_bytes(keys[32:48], "big")

    def code(octets: bytes) -> bytes:
        # CBC-MAC whose last block is masked by K2 when whole, by K3 when it had to be padded with 10*.
        start = (len(octets) - 1) // 16 * 16 if octets else 0
        last = octets[start:]
        if len(last) == 16:
            block = int.from_bytes(last, "big") ^ whole_mask
        else:
            block = int.from_bytes(last + b"\x80" + bytes(15 - len(last)), "big") ^ padded_mask
        return chain.encryptor().update(octets[:start] + block.to_bytes(16, "big"))[-16:]

    return code


def cmac_under(key: bytes) -> Mac:
    """AES-CMAC (RFC 4493)."""
    keyed = CMAC(algorithms.AES(key))

    def code(octets: bytes) -> bytes:
        context = keyed.copy()
        context.update(octets)
        return context.finalize()

    return code


_I = IntegrityAlgorithm
_INTEGRITY: dict[IntegrityAlgorithm, Callable[[bytes], Mac]] = {
    _I.AUTH_HMAC_MD5_96: lambda key: hmac_under("md5", key),
    _I.AUTH_HMAC_SHA1_96: lambda key: hmac_under("sha1", key),
    _I.AUTH_HMAC_SHA2_256_128: lambda key: hmac_under("sha256", key),
    _I.AUTH_HMAC_SHA2_384_192: lambda key: hmac_under("sha384", key),
    _I.AUTH_HMAC_SHA2_512_256: lambda key: hmac_under("sha512", key),
    _I.AUTH_AES_XCBC_96: xcbc_under,
    _I.AUTH_AES_CMAC_96: cmac_under,
}


class Integrity:
    """An integrity transform under its key: makes and checks integrity check values."""

    __slots__ = ("_code", "algorithm", "icv_octets")

    def __init__(self, algorithm: IntegrityAlgorithm, key: bytes) -> None:
        sizes = integrity_info(algorithm)
        if len(key) != sizes.key_octets:
            raise ValueError(f"{algorithm.name} takes a key of {sizes.key_octets} octets, not {len(key)}")
        self.algorithm = algorithm
        self.icv_octets = sizes.icv_octets
        self._code = _INTEGRITY[algorithm](key)

    def icv(self, octets: bytes) -> bytes:
        """The integrity check value of `octets`."""
        return self._code(octets)[: self.icv_octets]

    def verify(self, icv: bytes, octets: bytes) -> None:
        """Raise `IntegrityCheckFailed` unless `icv` is right; the time taken does not tell where it is wrong."""
        if not hmac.compare_digest(icv, self.icv(octets)):
            raise IntegrityCheckFailed(f"the integrity check value ({self.algorithm.name}) is wrong")

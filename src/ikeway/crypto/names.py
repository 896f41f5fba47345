"""Transforms by the keywords that strongSwan users know (`aes256gcm16`, `prfsha384`, `x25519`), and what is weak.

`BY_KEYWORD` understands every spelling; `keyword_of` gives the usual one. `weakness_of` says in words why a transform
is only used when somebody names it.
"""

from __future__ import annotations

from typing import TypeAlias

from ikeway.wire.registry import (
    EncryptionAlgorithm,
    ExtendedSequenceNumbers,
    IntegrityAlgorithm,
    KeyExchangeMethod,
    PseudorandomFunction,
    TransformType,
)

_E = EncryptionAlgorithm
_I = IntegrityAlgorithm
_P = PseudorandomFunction
_K = KeyExchangeMethod
_T = TransformType

TransformKey: TypeAlias = tuple[TransformType, int, int | None]
"""Type, number and key length in bits of a transform."""

# The first spelling is the one we print.
_SPELLINGS: dict[TransformKey, tuple[str, ...]] = {
    (_T.ENCR, _E.ENCR_NULL, None): ("null",),
    (_T.ENCR, _E.ENCR_3DES, None): ("3des",),
    (_T.ENCR, _E.ENCR_CHACHA20_POLY1305, None): ("chacha20poly1305",),
    (_T.INTEG, _I.NONE, None): (),
    (_T.INTEG, _I.AUTH_HMAC_MD5_96, None): ("md5",),
    (_T.INTEG, _I.AUTH_HMAC_SHA1_96, None): ("sha1", "sha"),
    (_T.INTEG, _I.AUTH_HMAC_SHA2_256_128, None): ("sha256", "sha2_256"),
    (_T.INTEG, _I.AUTH_HMAC_SHA2_384_192, None): ("sha384", "sha2_384"),
    (_T.INTEG, _I.AUTH_HMAC_SHA2_512_256, None): ("sha512", "sha2_512"),
    (_T.INTEG, _I.AUTH_AES_XCBC_96, None): ("aesxcbc",),
    (_T.INTEG, _I.AUTH_AES_CMAC_96, None): ("aescmac",),
    (_T.PRF, _P.PRF_HMAC_MD5, None): ("prfmd5",),
    (_T.PRF, _P.PRF_HMAC_SHA1, None): ("prfsha1",),
    (_T.PRF, _P.PRF_HMAC_SHA2_256, None): ("prfsha256",),
    (_T.PRF, _P.PRF_HMAC_SHA2_384, None): ("prfsha384",),
    (_T.PRF, _P.PRF_HMAC_SHA2_512, None): ("prfsha512",),
    (_T.PRF, _P.PRF_AES128_XCBC, None): ("prfaesxcbc",),
    (_T.PRF, _P.PRF_AES128_CMAC, None): ("prfaescmac",),
    (_T.KE, _K.NONE, None): ("modpnone", "none"),
    (_T.KE, _K.CURVE25519, None): ("x25519", "curve25519"),
    (_T.KE, _K.CURVE448, None): ("x448", "curve448"),
    (_T.KE, _K.ECP_256, None): ("ecp256",),
    (_T.KE, _K.ECP_384, None): ("ecp384",),
    (_T.KE, _K.ECP_521, None): ("ecp521",),
    (_T.KE, _K.BRAINPOOL_P256R1, None): ("ecp256bp",),
    (_T.KE, _K.BRAINPOOL_P384R1, None): ("ecp384bp",),
    (_T.KE, _K.BRAINPOOL_P512R1, None): ("ecp512bp",),
    (_T.KE, _K.MODP_1024, None): ("modp1024",),
    (_T.KE, _K.MODP_1536, None): ("modp1536",),
    (_T.KE, _K.MODP_2048, None): ("modp2048",),
    (_T.KE, _K.MODP_3072, None): ("modp3072",),
    (_T.KE, _K.MODP_4096, None): ("modp4096",),
    (_T.KE, _K.MODP_6144, None): ("modp6144",),
    (_T.KE, _K.MODP_8192, None): ("modp8192",),
    (_T.KE, _K.ML_KEM_768, None): ("mlkem768",),
    (_T.KE, _K.ML_KEM_1024, None): ("mlkem1024",),
    (_T.ESN, ExtendedSequenceNumbers.NO, None): ("noesn",),
    (_T.ESN, ExtendedSequenceNumbers.YES, None): ("esn",),
}
for _bits in (128, 192, 256):
    _SPELLINGS[_T.ENCR, _E.ENCR_AES_CBC, _bits] = (f"aes{_bits}", "aes") if _bits == 128 else (f"aes{_bits}",)
    _SPELLINGS[_T.ENCR, _E.ENCR_AES_CTR, _bits] = (f"aes{_bits}ctr",)
    for _octets, _gcm, _ccm in (
        (16, _E.ENCR_AES_GCM_16, _E.ENCR_AES_CCM_16),
        (12, _E.ENCR_AES_GCM_12, _E.ENCR_AES_CCM_12),
        (8, _E.ENCR_AES_GCM_8, _E.ENCR_AES_CCM_8),
    ):
        for _name, _algorithm in (("gcm", _gcm), ("ccm", _ccm)):
            _stem = f"aes{_bits}{_name}"
            _others = (f"{_stem}{8 * _octets}", _stem) if _octets == 16 else (f"{_stem}{8 * _octets}",)
            _SPELLINGS[_T.ENCR, _algorithm, _bits] = (f"{_stem}{_octets}", *_others)

_ADDITIONAL = (_T.ADDKE1, _T.ADDKE2, _T.ADDKE3, _T.ADDKE4, _T.ADDKE5, _T.ADDKE6, _T.ADDKE7)
for _key, _names in tuple(_SPELLINGS.items()):
    if _key[0] == _T.KE:
        for _number, _type in enumerate(_ADDITIONAL, 1):
            _SPELLINGS[_type, _key[1], None] = tuple(f"ke{_number}_{_name}" for _name in _names if _name != "modpnone")

BY_KEYWORD: dict[str, TransformKey] = {name: key for key, names in _SPELLINGS.items() for name in names}

# What strongSwan knows and we do not have: the answer to such a keyword is not "unknown".
_ELSEWHERE = """
des blowfish blowfish128 blowfish192 blowfish256 cast128 serpent serpent128 serpent192 serpent256 twofish twofish128
twofish192 twofish256 camellia camellia128 camellia192 camellia256 camellia128ctr camellia192ctr camellia256ctr
camellia128ccm8 camellia128ccm12 camellia128ccm16 camellia192ccm8 camellia192ccm12 camellia192ccm16 camellia256ccm8
camellia256ccm12 camellia256ccm16 camelliaxcbc prfcamelliaxcbc aes128gmac aes192gmac aes256gmac sha1_160 sha256_96
sha2_256_96 md5_128 modp768 modp1024s160 modp2048s224 modp2048s256 ecp192 ecp224 ecp224bp mlkem512
chacha20poly1305compat
"""
KNOWN_ELSEWHERE = frozenset(_ELSEWHERE.split())

_NEVER_AGAIN_MD5 = "MD5 has been broken since 2004 and RFC 8247 forbids it; use sha256"
_WEAKNESSES: dict[TransformKey, str] = {
    (_T.ENCR, _E.ENCR_NULL, None): "nothing is encrypted: everyone on the way can read the traffic; use aes128gcm16",
    (_T.ENCR, _E.ENCR_3DES, None): (
        "3DES has blocks of 64 bits: after some gigabytes under one key plaintext can be recovered (Sweet32), and it is "
        "slow; use aes128gcm16"
    ),
    (_T.INTEG, _I.AUTH_HMAC_MD5_96, None): _NEVER_AGAIN_MD5,
    (_T.PRF, _P.PRF_HMAC_MD5, None): _NEVER_AGAIN_MD5,
    (_T.INTEG, _I.AUTH_HMAC_SHA1_96, None): (
        "collisions of SHA-1 can be made, NIST withdraws it by 2030, and only 96 bits of it are sent; use sha256"
    ),
    (_T.PRF, _P.PRF_HMAC_SHA1, None): (
        "collisions of SHA-1 can be made, and all keys are derived with it; use prfsha256"
    ),
    (_T.KE, _K.MODP_1024, None): (
        "a prime of 1024 bits can be broken once for all by a state (Logjam, 2015), and traffic recorded today read "
        "then; use x25519 or modp2048"
    ),
    (_T.KE, _K.MODP_1536, None): (
        "a prime of 1536 bits gives about 90 bits of security, less than the 112 asked for today (RFC 8247); use x25519 "
        "or modp2048"
    ),
}
_SHORT_TAG = (
    "8 octets of integrity check are few for GCM: forgeries need fewer tries than that length promises, and each success "
    "makes the next easier (NIST SP 800-38D, appendix C); use the 16-octet form"
)
for _bits in (128, 192, 256):
    _WEAKNESSES[_T.ENCR, _E.ENCR_AES_GCM_8, _bits] = _SHORT_TAG

_DERIVED_PRF: dict[IntegrityAlgorithm, PseudorandomFunction] = {
    _I.AUTH_HMAC_MD5_96: _P.PRF_HMAC_MD5,
    _I.AUTH_HMAC_SHA1_96: _P.PRF_HMAC_SHA1,
    _I.AUTH_HMAC_SHA2_256_128: _P.PRF_HMAC_SHA2_256,
    _I.AUTH_HMAC_SHA2_384_192: _P.PRF_HMAC_SHA2_384,
    _I.AUTH_HMAC_SHA2_512_256: _P.PRF_HMAC_SHA2_512,
    _I.AUTH_AES_XCBC_96: _P.PRF_AES128_XCBC,
    _I.AUTH_AES_CMAC_96: _P.PRF_AES128_CMAC,
}


def keyword_of(key: TransformKey) -> str:
    """The usual keyword of a transform. One that has none is written `TYPE:NAME/BITS`, which is not a keyword."""
    names = _SPELLINGS.get(key)
    if names:
        return names[0]
    transform_type, identifier, key_bits = key
    name = getattr(identifier, "name", str(identifier))
    return f"{transform_type.name}:{name}" + ("" if key_bits is None else f"/{key_bits}")


def weakness_of(key: TransformKey) -> str | None:
    """Why this transform is weak and what to use instead; None when it is not."""
    transform_type, identifier, key_bits = key
    if transform_type in _ADDITIONAL:
        return None  # beside another exchange it cannot weaken anything
    return _WEAKNESSES.get((transform_type, identifier, key_bits))


def prf_of_integrity(integrity: IntegrityAlgorithm) -> PseudorandomFunction | None:
    """The PRF that goes with an integrity algorithm when a proposal for IKE names none."""
    return _DERIVED_PRF.get(integrity)

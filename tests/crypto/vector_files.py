"""Reads the strongSwan vectors and says which of them are for transforms that we have."""

from __future__ import annotations

import json
from pathlib import Path

from ikeway.wire.registry import (
    EncryptionAlgorithm,
    IntegrityAlgorithm,
    KeyExchangeMethod,
    PseudorandomFunction,
)
from tests.vectors import vector

FOLDER = vector("crypto/strongswan-test-vectors")

ENCRYPTION = {
    "ENCR_3DES": EncryptionAlgorithm.ENCR_3DES,
    "ENCR_NULL": EncryptionAlgorithm.ENCR_NULL,
    "ENCR_AES_CBC": EncryptionAlgorithm.ENCR_AES_CBC,
    "ENCR_AES_CTR": EncryptionAlgorithm.ENCR_AES_CTR,
    "ENCR_AES_CCM_ICV8": EncryptionAlgorithm.ENCR_AES_CCM_8,
    "ENCR_AES_CCM_ICV12": EncryptionAlgorithm.ENCR_AES_CCM_12,
    "ENCR_AES_CCM_ICV16": EncryptionAlgorithm.ENCR_AES_CCM_16,
    "ENCR_AES_GCM_ICV8": EncryptionAlgorithm.ENCR_AES_GCM_8,
    "ENCR_AES_GCM_ICV12": EncryptionAlgorithm.ENCR_AES_GCM_12,
    "ENCR_AES_GCM_ICV16": EncryptionAlgorithm.ENCR_AES_GCM_16,
    "ENCR_CHACHA20_POLY1305": EncryptionAlgorithm.ENCR_CHACHA20_POLY1305,
}
WITHOUT_KEY_LENGTH = ("ENCR_3DES", "ENCR_NULL", "ENCR_CHACHA20_POLY1305")
INTEGRITY = {
    name: IntegrityAlgorithm[name]
    for name in (
        "AUTH_HMAC_MD5_96",
        "AUTH_HMAC_SHA1_96",
        "AUTH_HMAC_SHA2_256_128",
        "AUTH_HMAC_SHA2_384_192",
        "AUTH_HMAC_SHA2_512_256",
        "AUTH_AES_XCBC_96",
        "AUTH_AES_CMAC_96",
    )
}
PRF = {
    name: PseudorandomFunction[name]
    for name in (
        "PRF_HMAC_MD5",
        "PRF_HMAC_SHA1",
        "PRF_HMAC_SHA2_256",
        "PRF_HMAC_SHA2_384",
        "PRF_HMAC_SHA2_512",
        "PRF_AES128_XCBC",
        "PRF_AES128_CMAC",
    )
}
KEY_EXCHANGE = {
    "CURVE_25519": KeyExchangeMethod.CURVE25519,
    "CURVE_448": KeyExchangeMethod.CURVE448,
    "ECP_256_BIT": KeyExchangeMethod.ECP_256,
    "ECP_384_BIT": KeyExchangeMethod.ECP_384,
    "ECP_521_BIT": KeyExchangeMethod.ECP_521,
    "ECP_256_BP": KeyExchangeMethod.BRAINPOOL_P256R1,
    "ECP_384_BP": KeyExchangeMethod.BRAINPOOL_P384R1,
    "ECP_512_BP": KeyExchangeMethod.BRAINPOOL_P512R1,
    **{f"MODP_{bits}_BIT": KeyExchangeMethod[f"MODP_{bits}"] for bits in (1024, 1536, 2048, 3072, 4096, 6144, 8192)},
}
KEM = {"ML_KEM_768": KeyExchangeMethod.ML_KEM_768, "ML_KEM_1024": KeyExchangeMethod.ML_KEM_1024}
DERIVATION = ("KDF_PRF", "KDF_PRF_PLUS")


class Vector(dict):
    """One vector, with its file; octets by name."""

    file = ""

    @property
    def label(self) -> str:
        return f"{self.file}:{self['name']}"

    @property
    def algorithm(self) -> str:
        return self.get("alg") or self.get("method") or self.file

    def octets(self, name: str) -> bytes:
        return bytes.fromhex(self.get(name, ""))


def read(path: Path) -> list[Vector]:
    vectors = [Vector(entry) for entry in json.loads(path.read_text())]
    for one in vectors:
        one.file = path.stem
    return vectors


ALL = [one for path in sorted(FOLDER.glob("*.json")) for one in read(path)]


def of(algorithms) -> list[Vector]:
    """The vectors for these algorithms."""
    return [one for one in ALL if one.algorithm in algorithms]

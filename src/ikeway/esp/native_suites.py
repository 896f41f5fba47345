"""ESP transforms by the names that OpenSSL has for them."""

from __future__ import annotations

from ikeway.crypto import encryption_info, integrity_info
from ikeway.esp.parameters import EspSa
from ikeway.native.association import NativeSa, new_sa
from ikeway.wire.registry import EncryptionAlgorithm as Encr
from ikeway.wire.registry import IntegrityAlgorithm as Integ

_CIPHERS = {
    Encr.ENCR_AES_GCM_16: "AES-{}-GCM",
    Encr.ENCR_AES_GCM_12: "AES-{}-GCM",
    Encr.ENCR_AES_GCM_8: "AES-{}-GCM",
    Encr.ENCR_AES_CCM_16: "AES-{}-CCM",
    Encr.ENCR_AES_CCM_12: "AES-{}-CCM",
    Encr.ENCR_AES_CCM_8: "AES-{}-CCM",
    Encr.ENCR_CHACHA20_POLY1305: "ChaCha20-Poly1305",
    Encr.ENCR_AES_CBC: "AES-{}-CBC",
    Encr.ENCR_AES_CTR: "AES-{}-CTR",
    Encr.ENCR_3DES: "DES-EDE3-CBC",
}
_DIGESTS = {
    Integ.AUTH_HMAC_MD5_96: "MD5",
    Integ.AUTH_HMAC_SHA1_96: "SHA1",
    Integ.AUTH_HMAC_SHA2_256_128: "SHA2-256",
    Integ.AUTH_HMAC_SHA2_384_192: "SHA2-384",
    Integ.AUTH_HMAC_SHA2_512_256: "SHA2-512",
}


def native_sa(parameters: EspSa, sealing: bool) -> NativeSa | None:
    """The SA's half in the native core; None without the core, or for NULL encryption, AES-XCBC and AES-CMAC."""
    transforms = parameters.transforms
    info = encryption_info(transforms.encryption, transforms.key_bits)
    cipher = _CIPHERS.get(transforms.encryption, "")
    digest = _DIGESTS.get(transforms.integrity, "") if transforms.integrity else ""
    if not cipher or bool(digest) == info.is_aead:
        return None
    return new_sa(
        cipher.format(transforms.key_bits),
        parameters.encryption_key[: info.key_octets],
        salt=parameters.encryption_key[info.key_octets :],
        iv_octets=info.iv_octets,
        icv_octets=integrity_info(transforms.integrity).icv_octets if transforms.integrity else info.icv_octets,
        align=max(4, info.block_octets),
        digest=digest,
        integrity_key=parameters.integrity_key,
        extended=transforms.extended_sequence_numbers,
        sealing=sealing,
    )

"""Key derivation of IKE SAs and child SAs (RFC 7296 sections 2.14, 2.17, 2.18).

Pure functions of a PRF: the same for both roles, and for the SP 800-135 test vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .prf import Prf


@dataclass(frozen=True, slots=True)
class IkeKeys:
    """The seven keys of an IKE SA. The encryption keys end with their salt; integrity keys are empty for an AEAD."""

    sk_d: bytes = field(repr=False)
    sk_ai: bytes = field(repr=False)
    sk_ar: bytes = field(repr=False)
    sk_ei: bytes = field(repr=False)
    sk_er: bytes = field(repr=False)
    sk_pi: bytes = field(repr=False)
    sk_pr: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ChildKeys:
    """The keys of a child SA: `*_initiator` protect what the exchange's initiator sends."""

    encryption_initiator: bytes = field(repr=False)
    integrity_initiator: bytes = field(repr=False)
    encryption_responder: bytes = field(repr=False)
    integrity_responder: bytes = field(repr=False)


def derive_skeyseed(prf: Prf, nonce_i: bytes, nonce_r: bytes, shared_secret: bytes) -> bytes:
    """SKEYSEED = prf(Ni | Nr, g^ir) (section 2.14).

    With the AES PRFs only the first 64 bits of each nonce make the key.
    """
    part = prf.fixed_nonce_octets
    return prf(nonce_i[:part] + nonce_r[:part], shared_secret)


def derive_rekeyed_skeyseed(old_prf: Prf, sk_d: bytes, shared_secret: bytes, nonce_i: bytes, nonce_r: bytes) -> bytes:
    """SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr), with the PRF of the old IKE SA (section 2.18)."""
    return old_prf(sk_d, shared_secret + nonce_i + nonce_r)


def derive_ike_keys(
    prf: Prf,
    skeyseed: bytes,
    nonce_i: bytes,
    nonce_r: bytes,
    spi_i: bytes,
    spi_r: bytes,
    encryption_octets: int,
    integrity_octets: int,
) -> IkeKeys:
    """{SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr} = prf+(SKEYSEED, Ni | Nr | SPIi | SPIr) (section 2.14).

    `encryption_octets` counts the salt; `integrity_octets` is 0 with an AEAD.
    """
    prf_octets = prf.key_octets
    total = 3 * prf_octets + 2 * integrity_octets + 2 * encryption_octets
    stream = prf.plus(skeyseed, nonce_i + nonce_r + spi_i + spi_r, total)
    keys = []
    offset = 0
    for length in (
        prf_octets,
        integrity_octets,
        integrity_octets,
        encryption_octets,
        encryption_octets,
        prf_octets,
        prf_octets,
    ):
        keys.append(stream[offset : offset + length])
        offset += length
    return IkeKeys(*keys)


def derive_child_keys(
    prf: Prf,
    sk_d: bytes,
    nonce_i: bytes,
    nonce_r: bytes,
    encryption_octets: int,
    integrity_octets: int,
    shared_secret: bytes = b"",
) -> ChildKeys:
    """KEYMAT = prf+(SK_d, [g^ir (new)] | Ni | Nr): first all keys of the initiator's direction, in each the encryption
    key before the integrity key (section 2.17)."""
    one_way = encryption_octets + integrity_octets
    keymat = prf.plus(sk_d, shared_secret + nonce_i + nonce_r, 2 * one_way)
    return ChildKeys(
        keymat[:encryption_octets],
        keymat[encryption_octets:one_way],
        keymat[one_way : one_way + encryption_octets],
        keymat[one_way + encryption_octets :],
    )

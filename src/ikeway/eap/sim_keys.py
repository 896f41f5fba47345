"""The keys of EAP-SIM (RFC 4186 section 7), EAP-AKA (RFC 4187 section 7) and EAP-AKA' (RFC 9048 section 3.3), and what else
tells these three methods apart."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from ikeway.crypto import new_prf
from ikeway.crypto.fips_prf import fips_186_2_prf
from ikeway.eap.packet import EapType, MethodType
from ikeway.wire.registry import PseudorandomFunction

_K_ENCR, _K_AUT, _MSK, _EMSK = 16, 16, 64, 64
_PRIME_K_AUT, _PRIME_K_RE = 32, 32


@dataclass(frozen=True, slots=True)
class SimFamily:
    """One of the three methods. The digits are what a user name begins with, by its kind (TS 23.003 chapter 19)."""

    name: str
    type: MethodType
    hash_name: str  # of AT_MAC and AT_CHECKCODE
    permanent: bytes
    pseudonym: bytes
    reauthentication: bytes

    @property
    def checkcode_octets(self) -> int:
        """The size of AT_CHECKCODE where identities were asked for."""
        return hashlib.new(self.hash_name).digest_size


SIM = SimFamily("EAP-SIM", MethodType(0, EapType.SIM), "sha1", b"1", b"3", b"5")
AKA = SimFamily("EAP-AKA", MethodType(0, EapType.AKA), "sha1", b"0", b"2", b"4")
AKA_PRIME = SimFamily("EAP-AKA'", MethodType(0, EapType.AKA_PRIME), "sha256", b"6", b"7", b"8")


@dataclass(frozen=True, slots=True)
class SimKeys:
    """Keys of one full authentication. `reauthentication`: what fast re-authentication derives from, MK or K_re."""

    k_encr: bytes = field(repr=False)
    k_aut: bytes = field(repr=False)
    reauthentication: bytes = field(repr=False)
    msk: bytes = field(repr=False)
    emsk: bytes = field(repr=False)


def sim_keys(identity: bytes, kcs: Sequence[bytes], nonce_mt: bytes, versions: bytes, selected: int) -> SimKeys:
    """The keys of EAP-SIM from two or three Kc. `versions`: the content of AT_VERSION_LIST."""
    master = _sha1(identity + b"".join(kcs) + nonce_mt + versions + selected.to_bytes(2))
    return _from_master_key(master)


def aka_keys(identity: bytes, ck: bytes, ik: bytes) -> SimKeys:
    """The keys of EAP-AKA."""
    return _from_master_key(_sha1(identity + ik + ck))


def _from_master_key(master: bytes) -> SimKeys:
    stream = fips_186_2_prf(master, _K_ENCR + _K_AUT + _MSK + _EMSK)
    k_encr, k_aut, msk, emsk = _cut(stream, _K_ENCR, _K_AUT, _MSK, _EMSK)
    return SimKeys(k_encr, k_aut, master, msk, emsk)


def aka_prime_keys(identity: bytes, ck_prime: bytes, ik_prime: bytes) -> SimKeys:
    """The keys of EAP-AKA' from what is bound to the network's name."""
    sizes = (_K_ENCR, _PRIME_K_AUT, _PRIME_K_RE, _MSK, _EMSK)
    k_encr, k_aut, k_re, msk, emsk = _cut(_prf_prime(ik_prime + ck_prime, b"EAP-AKA'" + identity, sum(sizes)), *sizes)
    return SimKeys(k_encr, k_aut, k_re, msk, emsk)


def bind_to_network(ck: bytes, ik: bytes, network_name: bytes, autn: bytes) -> tuple[bytes, bytes]:
    """CK' and IK' (TS 33.402 annex A.2): the first six octets of AUTN are SQN XOR AK."""
    label = b"\x20" + network_name + len(network_name).to_bytes(2) + autn[:6] + (6).to_bytes(2)
    bound = hmac.digest(ck + ik, label, "sha256")
    return bound[:16], bound[16:]


def reauthenticated_keys(
    family: SimFamily, secret: bytes, identity: bytes, counter: int, nonce_s: bytes
) -> tuple[bytes, bytes]:
    """MSK and EMSK of a fast re-authentication (RFC 4186 section 7, RFC 4187 section 7, RFC 9048 section 3.3).

    `identity`: the fast re-authentication identity that was used.
    """
    if family is AKA_PRIME:
        seed = b"EAP-AKA' re-auth" + identity + counter.to_bytes(2) + nonce_s
        stream = _prf_prime(secret, seed, _MSK + _EMSK)
    else:
        stream = fips_186_2_prf(_sha1(identity + counter.to_bytes(2) + nonce_s + secret), _MSK + _EMSK)
    return stream[:_MSK], stream[_MSK:]


def _prf_prime(key: bytes, seed: bytes, length: int) -> bytes:
    """PRF' of RFC 9048 section 3.4: the same construction as IKEv2's prf+, with HMAC-SHA-256."""
    return new_prf(PseudorandomFunction.PRF_HMAC_SHA2_256).plus(key, seed, length)


def _sha1(octets: bytes) -> bytes:
    return hashlib.sha1(octets, usedforsecurity=False).digest()  # the RFC's, as input of a PRF


def _cut(stream: bytes, *sizes: int) -> list[bytes]:
    parts, at = [], 0
    for size in sizes:
        parts.append(stream[at : at + size])
        at += size
    return parts

"""SKEYSEED, prf+, child and rekey keys against all of NIST's cases (CAVP for SP 800-135), and the rules of the RFC."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.crypto import (
    derive_child_keys,
    derive_ike_keys,
    derive_rekeyed_skeyseed,
    derive_skeyseed,
    new_prf,
    pseudorandom_functions,
)
from ikeway.crypto.prf import HmacPrf
from ikeway.errors import UnsupportedAlgorithm
from ikeway.wire.registry import PseudorandomFunction
from tests.vectors import vector

PRFS = {
    "SHA-1": new_prf(PseudorandomFunction.PRF_HMAC_SHA1),
    "SHA-224": HmacPrf("sha224", 28),  # no transform of IKEv2, but the derivation is the same
    "SHA-256": new_prf(PseudorandomFunction.PRF_HMAC_SHA2_256),
    "SHA-384": new_prf(PseudorandomFunction.PRF_HMAC_SHA2_384),
    "SHA-512": new_prf(PseudorandomFunction.PRF_HMAC_SHA2_512),
}


def cavp_cases():
    section: dict[str, str] = {}
    case: dict[str, bytes] = {}
    for line in vector("crypto/nist-cavp-ikev2/ikev2.rsp").read_text().splitlines():
        if header := re.fullmatch(r"\[(SHA-\d+)\]", line):
            section["hash"] = header[1]
        elif header := re.fullmatch(r"\[(.+) length = (\d+)\]", line):
            section[header[1]] = header[2]
        elif field := re.fullmatch(r"(.+?) = (.*)", line):
            if field[1] == "COUNT":
                label = f"{section['hash']}-g{section['g^ir']}-n{section['Ni']}-{section['DKM']}-{field[2]}"
                case = {}
                yield label, section["hash"], case
            elif case is not None:
                case[field[1]] = bytes.fromhex(field[2])


CASES = [(label, hash_name, case) for label, hash_name, case in cavp_cases()]


def test_all_cases_are_there():
    assert len(CASES) == 280


@pytest.mark.parametrize(("hash_name", "case"), [(h, c) for _, h, c in CASES], ids=[label for label, _, _ in CASES])
def test_cavp(hash_name, case):
    prf = PRFS[hash_name]
    ni, nr, secret, secret_new = case["Ni"], case["Nr"], case["g^ir"], case["g^ir (new)"]
    skeyseed = derive_skeyseed(prf, ni, nr, secret)
    assert skeyseed == case["SKEYSEED"]

    dkm = case["DKM"]
    assert prf.plus(skeyseed, ni + nr + case["SPIi"] + case["SPIr"], len(dkm)) == dkm
    # The seven keys are that stream, cut; NIST's is longer or shorter than what this suite takes of it.
    keys = derive_ike_keys(prf, skeyseed, ni, nr, case["SPIi"], case["SPIr"], 20, prf.key_octets)
    seven = (keys.sk_d, keys.sk_ai, keys.sk_ar, keys.sk_ei, keys.sk_er, keys.sk_pi, keys.sk_pr)
    assert [len(key) for key in seven] == [prf.key_octets] * 3 + [20] * 2 + [prf.key_octets] * 2
    common = min(len(dkm), len(b"".join(seven)))
    assert b"".join(seven)[:common] == dkm[:common]

    for name, exchanged in (("DKM(Child SA)", b""), ("DKM(Child SA D-H)", secret_new)):
        keymat = case[name]
        child = derive_child_keys(prf, keys.sk_d, ni, nr, 20, len(keymat) // 2 - 20, exchanged)
        assert len(child.encryption_initiator) == len(child.encryption_responder) == 20
        assert (
            child.encryption_initiator
            + child.integrity_initiator
            + child.encryption_responder
            + child.integrity_responder
            == keymat
        )

    assert derive_rekeyed_skeyseed(prf, keys.sk_d, secret_new, ni, nr) == case["SKEYSEED(Rekey)"]


@pytest.mark.parametrize("algorithm", [PseudorandomFunction.PRF_AES128_XCBC, PseudorandomFunction.PRF_AES128_CMAC])
def test_aes_prfs_take_64_bits_of_each_nonce_for_skeyseed_only(algorithm):
    """RFC 7296 section 2.14."""
    prf = new_prf(algorithm)
    ni, nr = bytes(range(32)), bytes(range(100, 132))
    assert derive_skeyseed(prf, ni, nr, b"secret") == prf(ni[:8] + nr[:8], b"secret")
    keys = derive_ike_keys(prf, b"s" * 16, ni, nr, b"i" * 8, b"r" * 8, 16, 0)
    assert keys.sk_d == prf(b"s" * 16, ni + nr + b"i" * 8 + b"r" * 8 + b"\x01")


@pytest.mark.parametrize("algorithm", pseudorandom_functions())
def test_prf_plus_is_defined_for_255_blocks(algorithm):
    prf = new_prf(algorithm)
    assert len(prf.plus(b"key", b"seed", 255 * prf.output_octets)) == 255 * prf.output_octets
    with pytest.raises(ValueError, match="255 blocks"):
        prf.plus(b"key", b"seed", 255 * prf.output_octets + 1)


@given(st.sampled_from(pseudorandom_functions()), st.binary(max_size=80), st.binary(max_size=80), st.integers(0, 600))
def test_prf_plus_is_a_stream(algorithm, key, seed, length):
    prf = new_prf(algorithm)
    stream = prf.plus(key, seed, 600)
    assert prf.plus(key, seed, length) == stream[:length]
    first = prf(key, seed + b"\x01")
    assert stream[: 2 * prf.output_octets] == first + prf(key, first + seed + b"\x02")


def test_keys_do_not_show_in_representations():
    prf = PRFS["SHA-256"]
    keys = derive_ike_keys(prf, bytes(32), bytes(16), bytes(16), bytes(8), bytes(8), 20, 32)
    child = derive_child_keys(prf, bytes(32), bytes(16), bytes(16), 20, 32)
    assert (repr(keys), repr(child)) == ("IkeKeys()", "ChildKeys()")


def test_unknown_function():
    with pytest.raises(UnsupportedAlgorithm, match="UNKNOWN_999"):
        new_prf(PseudorandomFunction(999))

"""All vectors of strongSwan's test-vectors plug-in for the transforms that we have."""

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ikeway.crypto import (
    AeadCipher,
    SeparateCipher,
    derive_skeyseed,
    encryption_info,
    initiate_key_exchange,
    integrity_info,
    new_cipher,
    new_prf,
)
from ikeway.crypto.mac import Integrity
from ikeway.crypto.modp import METHODS, GmpModp, OpensslModp
from ikeway.errors import IntegrityCheckFailed
from ikeway.wire.registry import IntegrityAlgorithm
from tests.crypto import vector_files as files


def each(algorithms):
    vectors = files.of(algorithms)
    assert {one.algorithm for one in vectors} == set(algorithms)
    return pytest.mark.parametrize("vector", vectors, ids=lambda one: one.label)


@each(files.ENCRYPTION)
def test_encryption(vector):
    algorithm = files.ENCRYPTION[vector.algorithm]
    key_bits = None if vector.algorithm in files.WITHOUT_KEY_LENGTH else 8 * vector["key_size"]
    info = encryption_info(algorithm, key_bits)
    key, iv, plain, sealed = (vector.octets(name) for name in ("key", "iv", "plain", "cipher"))
    # aes_ccm15 brings 35 octets of key for its 19, and as strongSwan's own tester does, the first ones are taken.
    key = key[: info.keying_octets]
    assert (len(key), len(iv)) == (info.keying_octets, info.iv_octets)
    if info.is_aead:
        cipher = new_cipher(algorithm, key_bits, None, key, b"")
        assert isinstance(cipher, AeadCipher)
        associated = vector.octets("adata")
        assert len(sealed) == len(plain) + info.icv_octets == len(plain) + cipher.icv_octets
        assert cipher.encrypt(iv, plain, associated) == sealed
        assert cipher.decrypt(iv, sealed, associated) == plain
        with pytest.raises(IntegrityCheckFailed):
            cipher.decrypt(iv, sealed[:-1] + bytes((sealed[-1] ^ 1,)), associated)
    else:
        cipher = new_cipher(algorithm, key_bits, IntegrityAlgorithm.AUTH_HMAC_SHA1_96, key, bytes(20))
        assert isinstance(cipher, SeparateCipher)
        assert cipher.encipher(iv, plain) == sealed
        assert cipher.decipher(iv, sealed) == plain


@each(files.INTEGRITY)
def test_integrity(vector):
    algorithm = files.INTEGRITY[vector.algorithm]
    integrity = Integrity(algorithm, vector.octets("key"))
    mac = vector.octets("mac")[: integrity_info(algorithm).icv_octets]  # sha1_hmac_s4 brings 16 octets for 12
    assert len(mac) == integrity.icv_octets == integrity_info(algorithm).icv_octets
    assert integrity.icv(vector.octets("data")) == mac
    integrity.verify(mac, vector.octets("data"))


@each(files.PRF)
def test_pseudorandom_functions(vector):
    prf = new_prf(files.PRF[vector.algorithm])
    key, seed, out = (vector.octets(name) for name in ("key", "seed", "out"))
    assert prf(key, seed) == out == prf.under(key)(seed)
    assert len(out) == prf.output_octets


@each(("KDF_PRF",))
def test_skeyseed(vector):
    # Their salt is Ni | Nr; where it is cut does not matter but to the AES PRFs, which take 8 octets of each.
    prf = new_prf(files.PRF[vector["arg.prf"]])
    nonces = vector.octets("salt")
    half = len(nonces) // 2
    assert derive_skeyseed(prf, nonces[:half], nonces[half:], vector.octets("key")) == vector.octets("out")


@each(("KDF_PRF_PLUS",))
def test_prf_plus(vector):
    prf = new_prf(files.PRF[vector["arg.prf"]])
    out = vector.octets("out")
    assert prf.plus(vector.octets("key"), vector.octets("salt"), len(out)) == out


def check_key_exchange(vector, make):
    seed, shared = vector.octets("seed"), vector.octets("shared")
    half = len(seed) // 2
    initiator, responder = make(seed[:half]), make(seed[half:])
    assert initiator.public_value == vector.octets("pub_i")
    assert responder.public_value == vector.octets("pub_r")
    assert initiator.shared_secret(responder.public_value) == shared
    assert responder.shared_secret(initiator.public_value) == shared


@each(files.KEY_EXCHANGE)
def test_key_exchange(vector):
    method = files.KEY_EXCHANGE[vector.algorithm]
    check_key_exchange(vector, lambda private: initiate_key_exchange(method, private))


MODP = [name for name, method in files.KEY_EXCHANGE.items() if method in METHODS]


@each(MODP)
def test_modp_with_gmp(vector):
    method = files.KEY_EXCHANGE[vector.algorithm]
    check_key_exchange(vector, lambda private: GmpModp(method, int.from_bytes(private, "big")))


@each([name for name in MODP if name != "MODP_1024_BIT"])  # OpenSSL is never asked for that one
def test_modp_with_openssl(vector):
    method = files.KEY_EXCHANGE[vector.algorithm]
    check_key_exchange(vector, lambda private: OpensslModp(method, int.from_bytes(private, "big")))


def kat_random(seed: bytes):
    """The generator that makes the random octets of NIST's known-answer files: CTR_DRBG with AES-256, no derivation."""
    state = [bytes(32), 0]

    def blocks(count):
        encryptor = Cipher(algorithms.AES(state[0]), modes.ECB()).encryptor()
        out = b""
        for _ in range(count):
            state[1] = (state[1] + 1) % (1 << 128)
            out += encryptor.update(state[1].to_bytes(16, "big"))
        return out

    def update(provided):
        mixed = bytes(a ^ b for a, b in zip(blocks(3), provided, strict=True))
        state[:] = [mixed[:32], int.from_bytes(mixed[32:], "big")]

    def generate(length):
        out = blocks(-(-length // 16))[:length]
        update(bytes(48))
        return out

    update(seed)
    return generate


@each(files.KEM)
def test_key_encapsulation(vector):
    random = kat_random(vector.octets("seed"))
    initiator = initiate_key_exchange(files.KEM[vector.algorithm], random(64))
    assert initiator.public_value == vector.octets("pub_i")
    # What the responder draws cannot be given to the library: its half is checked through ours.
    assert initiator.shared_secret(vector.octets("pub_r")) == vector.octets("shared")

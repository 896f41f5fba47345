"""Vectors of RFCs: ChaCha20-Poly1305 in IKE and ESP (RFC 7634), AES-GCM in ESP, ECP groups (RFC 5903)."""

import json

import pytest

from ikeway.crypto import initiate_key_exchange, new_cipher
from ikeway.crypto import signature as signatures
from ikeway.errors import IntegrityCheckFailed
from ikeway.wire.registry import EncryptionAlgorithm, KeyExchangeMethod
from tests.vectors import vector


def load(name):
    return json.loads(vector(f"crypto/rfc/{name}").read_text())


def octets(entry, *names):
    return [bytes.fromhex(entry[name]) for name in names]


def check_both_ways(cipher, iv, plain, sealed, associated):
    assert cipher.encrypt(iv, plain, associated) == sealed
    assert cipher.decrypt(iv, sealed, associated) == plain
    out = bytearray(len(sealed))
    assert cipher.encrypt_into(iv, plain, associated, out) == len(sealed)
    assert out == sealed
    back = bytearray(len(plain))
    assert cipher.decrypt_into(iv, out, associated, back) == len(plain)
    assert back == plain
    with pytest.raises(IntegrityCheckFailed):
        cipher.decrypt_into(iv, out, associated + b"x", back)


def chacha(key):
    return new_cipher(EncryptionAlgorithm.ENCR_CHACHA20_POLY1305, None, None, key, b"")


@pytest.mark.parametrize("entry", load("rfc7634_vectors.json"), ids=lambda entry: entry["name"])
def test_rfc_7634(entry):
    key, salt, iv, aad, plain, sealed = octets(entry, "key", "salt", "iv", "aad", "plaintext", "ciphertext_and_tag")
    check_both_ways(chacha(key + salt), iv, plain, sealed, aad)


def test_rfc_7634_appendix_a_packet():
    """From the inner packet and the keys to the whole ESP packet."""
    inner, key, packet = map(bytes.fromhex, load("rfc7634_appendix_a_esp_hex.json")["values_in_order_of_appearance"])
    header, iv = packet[:8], packet[8:16]
    padding = bytes((1, 2, 2, 4))  # pad octets, pad length, next header: IPv4
    assert header + iv + chacha(key).encrypt(iv, inner + padding, header) == packet


def test_rfc_7634_appendix_b_message():
    """The whole IKE message: what is authenticated ends where the IV begins (RFC 5282 section 5.1)."""
    entry = load("rfc7634_appendix_b_ikev2.json")
    key, iv, packet = octets(entry, "key_and_salt", "iv", "packet")
    start = 28 + 4
    assert packet[start : start + 8] == iv
    cipher = chacha(key)
    plain = cipher.decrypt(iv, packet[start + 8 :], packet[:start])
    assert plain == bytes.fromhex("0000000c000040010000000a00")  # N(SET_WINDOW_SIZE) = 10, no padding
    assert packet[:start] + iv + cipher.encrypt(iv, plain, packet[:start]) == packet


@pytest.mark.parametrize("entry", load("draft_mcgrew_gcm_test_esp.json"), ids=lambda entry: entry["name"])
def test_gcm_esp(entry):
    key, nonce, plain, aad, sealed, packet = octets(
        entry, "key", "nonce", "plaintext", "aad", "ciphertext_and_tag", "packet"
    )
    cipher = new_cipher(EncryptionAlgorithm.ENCR_AES_GCM_16, 8 * len(key), None, key + nonce[:4], b"")
    check_both_ways(cipher, nonce[4:], plain, sealed, aad)
    assert packet[8:] == nonce[4:] + cipher.encrypt(nonce[4:], plain, aad)


@pytest.mark.parametrize("entry", load("rfc5903_ecp_dh.json")["groups"], ids=lambda entry: str(entry["group"]))
def test_rfc_5903(entry):
    method = KeyExchangeMethod(entry["group"])
    gix, giy, grx, gry, secret = octets(entry, "gix", "giy", "grx", "gry", "girx")
    for private, public, peer in (("i", gix + giy, grx + gry), ("r", grx + gry, gix + giy)):
        if private in entry:  # group 20 is listed without the responder's
            exchange = initiate_key_exchange(method, bytes.fromhex(entry[private]))
            assert exchange.public_value == public
            assert exchange.shared_secret(peer) == secret


def test_rfc_7427_algorithm_identifiers():
    """RFC 7427 appendix A and RFC 8420 appendix A, which list these octets."""
    listed = {
        signatures.RSA_PKCS1_SHA256: "300d06092a864886f70d01010b0500",
        signatures.RSA_PKCS1_SHA384: "300d06092a864886f70d01010c0500",
        signatures.RSA_PKCS1_SHA512: "300d06092a864886f70d01010d0500",
        signatures.ECDSA_SHA256: "300a06082a8648ce3d040302",
        signatures.ECDSA_SHA384: "300a06082a8648ce3d040303",
        signatures.ECDSA_SHA512: "300a06082a8648ce3d040304",
        signatures.ED25519: "300506032b6570",
        signatures.ED448: "300506032b6571",
    }
    for scheme, identifier in listed.items():
        assert scheme.algorithm_identifier.hex() == identifier
        assert signatures.scheme_of_identifier(bytes.fromhex(identifier)) is scheme

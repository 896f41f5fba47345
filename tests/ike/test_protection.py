"""The Encrypted payload with every suite that IKE can have (RFC 7296 section 3.14, RFC 5282, RFC 7383)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ikeway.crypto import (
    IkeKeys,
    encryption_algorithms,
    encryption_info,
    integrity_algorithms,
    new_cipher,
)
from ikeway.errors import IntegrityCheckFailed, WireError
from ikeway.ike.proposals import Suite
from ikeway.ike.protection import MAX_FRAGMENTS, Protection, key_octets
from ikeway.wire.message import Message, decode_payloads
from ikeway.wire.payloads import Encrypted, EncryptedFragment, Nonce, Payload, VendorId
from ikeway.wire.registry import (
    EncryptionAlgorithm,
    ExchangeType,
    IntegrityAlgorithm,
    KeyExchangeMethod,
    PayloadType,
    ProtocolId,
    PseudorandomFunction,
)


def make(encryption: EncryptionAlgorithm, bits: int | None, integrity: IntegrityAlgorithm | None) -> Suite:
    return Suite(
        ProtocolId.IKE,
        encryption,
        bits,
        integrity,
        PseudorandomFunction.PRF_HMAC_SHA2_256,
        KeyExchangeMethod.CURVE25519,
    )


SUITES = [
    make(encryption, bits, integrity)
    for encryption, bits in encryption_algorithms()
    if encryption != EncryptionAlgorithm.ENCR_NULL
    for integrity in ([None] if encryption_info(encryption, bits).is_aead else integrity_algorithms())
]
GCM = make(EncryptionAlgorithm.ENCR_AES_GCM_16, 128, None)
CBC = make(EncryptionAlgorithm.ENCR_AES_CBC, 128, IntegrityAlgorithm.AUTH_HMAC_SHA2_256_128)


def keys(suite: Suite, seed: int = 1) -> IkeKeys:
    encryption, integrity = key_octets(suite)
    octets = random.Random(seed).randbytes
    return IkeKeys(*map(octets, (32, integrity, integrity, encryption, encryption, 32, 32)))


def both(suite: Suite) -> tuple[Protection, Protection]:
    return tuple(Protection(suite, keys(suite), is_initiator=role) for role in (True, False))


def message(*payloads: Payload, is_initiator: bool = True) -> Message:
    return Message(b"initiate", b"responds", ExchangeType.IKE_AUTH, is_initiator, False, 1, payloads)


def unseal(protection: Protection, octets: bytes) -> tuple[Payload, ...]:
    payload = Message.decode(octets).payloads[-1]
    assert isinstance(payload, Encrypted)
    return decode_payloads(PayloadType(payload.first_payload), protection.open(octets, payload))


def gather(protection: Protection, packets: list[bytes]) -> tuple[Payload, ...]:
    first, plaintext = 0, b""
    for number, octets in enumerate(packets, 1):
        payload = Message.decode(octets).payloads[-1]
        assert isinstance(payload, EncryptedFragment)
        assert (payload.fragment_number, payload.total_fragments) == (number, len(packets))
        assert (payload.first_payload != 0) == (number == 1)
        first = first or int(payload.first_payload)
        plaintext += protection.open(octets, payload)
    return decode_payloads(PayloadType(first), plaintext)


def test_there_are_suites_to_try():
    assert len(SUITES) > 50
    assert len({str(suite) for suite in SUITES}) == len(SUITES)


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_seal_and_open(suite):
    initiator, responder = both(suite)
    for size in (0, 1, 10, 11, 12, 13, 14, 15, 16, 500):
        sent = (VendorId(b"v" * size), Nonce(b"n" * 32))
        octets = initiator.seal(message(*sent))
        assert unseal(responder, octets) == sent
        assert b"vvvvvvvvvv" not in octets
        assert unseal(initiator, responder.seal(message(*sent, is_initiator=False))) == sent
    assert unseal(responder, initiator.seal(message())) == ()


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_no_octet_can_be_changed(suite):
    initiator, responder = both(suite)
    octets = initiator.seal(message(Nonce(b"n" * 32)))
    payload = Message.decode(octets).payloads[-1]
    assert isinstance(payload, Encrypted)
    for position in range(len(octets)):
        changed = bytearray(octets)
        changed[position] ^= 0x04
        body = Encrypted(payload.first_payload, bytes(changed[len(octets) - len(payload.body) :]))
        with pytest.raises(IntegrityCheckFailed):
            responder.open(bytes(changed), body)


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_nobody_opens_what_is_sealed_with_other_keys_or_for_the_other_direction(suite):
    initiator, _ = both(suite)
    octets = initiator.seal(message(Nonce(b"n" * 32)))
    stranger = Protection(suite, keys(suite, 2), is_initiator=False)
    for other in (stranger, initiator):
        with pytest.raises(IntegrityCheckFailed):
            unseal(other, octets)


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_whatever_is_cut_off_is_refused(suite):
    initiator, responder = both(suite)
    octets = initiator.seal(message(Nonce(b"n" * 32)))
    payload = Message.decode(octets).payloads[-1]
    assert isinstance(payload, Encrypted)
    start = len(octets) - len(payload.body)
    for length in range(len(payload.body)):
        with pytest.raises(IntegrityCheckFailed):
            responder.open(octets[: start + length], Encrypted(payload.first_payload, payload.body[:length]))


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_the_same_message_never_looks_the_same(suite):
    initiator, _ = both(suite)
    assert len({initiator.seal(message(Nonce(b"n" * 32))) for _ in range(20)}) == 20


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_fragments(suite):
    initiator, responder = both(suite)
    sent = (VendorId(random.Random(3).randbytes(2000)), Nonce(b"n" * 32))
    for limit, ipv6, overhead in ((576, False, 28 + 4), (1280, True, 48 + 4)):
        packets = initiator.seal_fragments(message(*sent), limit, ipv6=ipv6)
        assert gather(responder, packets) == sent
        assert all(len(octets) + overhead <= limit for octets in packets)
        assert len(packets[0]) + overhead > limit - 32  # and they are used


@pytest.mark.parametrize("suite", [GCM, CBC], ids=str)
def test_a_fragment_is_bound_to_its_place(suite):
    initiator, responder = both(suite)
    octets = initiator.seal_fragments(message(VendorId(bytes(2000))), 576, ipv6=False)[1]
    payload = Message.decode(octets).payloads[-1]
    assert isinstance(payload, EncryptedFragment)
    for position in (32, 33, 34, 35):  # number and total
        changed = bytearray(octets)
        changed[position] ^= 1
        with pytest.raises(IntegrityCheckFailed):
            responder.open(bytes(changed), payload)


def test_there_are_never_more_fragments_than_a_receiver_takes():
    initiator, responder = both(GCM)
    sent = (VendorId(bytes(60000)),)
    packets = initiator.seal_fragments(message(*sent), 200, ipv6=False)
    assert len(packets) <= MAX_FRAGMENTS
    assert gather(responder, packets) == sent


@settings(deadline=None)
@given(st.integers(0, 1500), st.integers(90, 1500), st.sampled_from([GCM, CBC]))
def test_fragments_of_any_size_hold_the_message(size, limit, suite):
    initiator, responder = both(suite)
    sent = (VendorId(bytes(size)),)
    assert gather(responder, initiator.seal_fragments(message(*sent), limit, ipv6=False)) == sent


def padded_by_hand(suite: Suite, plaintext: bytes) -> tuple[bytes, Encrypted]:
    """A message with this plaintext, padding included, sealed by the initiator."""
    material = keys(suite)
    cipher = new_cipher(suite.encryption, suite.key_bits, suite.integrity, material.sk_ei, material.sk_ai)
    size = cipher.iv_octets + len(plaintext) + cipher.icv_octets
    octets = message(Encrypted(PayloadType.NONCE, bytes(size))).encode()
    iv = cipher.new_iv()
    body = iv + cipher.encrypt(iv, plaintext, octets[:-size])
    return octets[:-size] + body, Encrypted(PayloadType.NONCE, body)


@pytest.mark.parametrize("suite", [GCM, CBC], ids=str)
def test_any_padding_that_fits_is_taken(suite):
    """RFC 7296 section 3.14: the sender may pad with anything, up to 255 octets."""
    _, responder = both(suite)
    for pad in range(11, 251, 16):
        content = b"c" * 4
        plaintext = content + random.Random(pad).randbytes(pad) + bytes([pad])
        octets, payload = padded_by_hand(suite, plaintext)
        assert responder.open(octets, payload) == content


@pytest.mark.parametrize("suite", [GCM, CBC], ids=str)
def test_padding_longer_than_the_message_is_refused(suite):
    _, responder = both(suite)
    octets, payload = padded_by_hand(suite, bytes(15) + b"\x0f")
    assert responder.open(octets, payload) == b""
    for length in (16, 200, 255):
        octets, payload = padded_by_hand(suite, bytes(15) + bytes([length]))
        with pytest.raises(WireError):
            responder.open(octets, payload)


def test_keys_stay_out_of_reprs():
    material = keys(GCM)
    for protection in (*both(GCM), material):
        assert material.sk_ei.hex() not in repr(protection) and repr(material.sk_ei) not in repr(protection)

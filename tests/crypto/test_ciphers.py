"""What holds for every cipher: round trips, refusals, IVs, and what the check value covers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.crypto import (
    AeadCipher,
    SeparateCipher,
    encryption_algorithms,
    encryption_info,
    integrity_algorithms,
    integrity_info,
    new_cipher,
)
from ikeway.errors import CryptoError, IntegrityCheckFailed, UnsupportedAlgorithm
from ikeway.wire.registry import EncryptionAlgorithm, IntegrityAlgorithm

E, I = EncryptionAlgorithm, IntegrityAlgorithm  # noqa: E741
AEADS = [one for one in encryption_algorithms() if encryption_info(*one).is_aead]
OTHERS = [(*one, check) for one in encryption_algorithms() if one not in AEADS for check in integrity_algorithms()]
ALL = [(*one, None) for one in AEADS] + OTHERS


def make(encryption, key_bits, integrity):
    info = encryption_info(encryption, key_bits)
    integrity_key = bytes(range(integrity_info(integrity).key_octets)) if integrity else b""
    return new_cipher(encryption, key_bits, integrity, bytes(range(info.keying_octets)), integrity_key)


def name(one):
    encryption, bits, integrity = one
    return f"{encryption}-{bits or 0}-{integrity or 'aead'}"


@pytest.fixture(params=ALL, ids=name)
def cipher(request):
    return make(*request.param)


def test_round_trip_with_every_kind_of_buffer(cipher):
    plain = bytes(range(48))
    iv = cipher.new_iv()
    sealed = cipher.encrypt(memoryview(iv), bytearray(plain), memoryview(b"header"))
    assert len(sealed) == len(plain) + cipher.icv_octets
    for kind in (bytes, bytearray, memoryview):
        opened = cipher.decrypt(kind(iv), kind(sealed), kind(b"header"))
        assert type(opened) is bytes
        assert opened == plain


def test_every_changed_octet_is_noticed(cipher):
    iv = cipher.new_iv()
    sealed = cipher.encrypt(iv, bytes(16), b"header")
    for start in range(len(sealed)):
        changed = bytearray(sealed)
        changed[start] ^= 0x40
        with pytest.raises(IntegrityCheckFailed):
            cipher.decrypt(iv, changed, b"header")
    with pytest.raises(IntegrityCheckFailed):
        cipher.decrypt(iv, sealed, b"headed")
    if iv:
        with pytest.raises(IntegrityCheckFailed):
            cipher.decrypt(bytes((iv[0] ^ 1,)) + iv[1:], sealed, b"header")


def test_short_input_is_refused(cipher):
    iv = cipher.new_iv()
    for length in range(cipher.icv_octets + 1):
        with pytest.raises(IntegrityCheckFailed):
            cipher.decrypt(iv, bytes(length), b"header")


def test_ivs_have_their_length_and_do_not_repeat(cipher):
    ivs = [cipher.new_iv() for _ in range(100)]
    assert {len(iv) for iv in ivs} == {cipher.iv_octets}
    if cipher.iv_octets:
        assert len(set(ivs)) == 100
        for wrong in (b"", ivs[0][1:], ivs[0] + b"\0"):
            with pytest.raises(ValueError, match="IV"):
                cipher.encrypt(wrong, bytes(16), b"")
            with pytest.raises(ValueError, match="IV"):
                cipher.decrypt(wrong, bytes(64), b"")


def test_counting_ivs_start_at_random_and_count():
    """RFC 4106 section 3.1: unique under a key. A second object for the same key must not begin where the first did."""
    ciphers = [make(E.ENCR_AES_GCM_16, 128, None) for _ in range(20)]
    assert len({cipher.new_iv() for cipher in ciphers}) == 20
    first, second = (int.from_bytes(ciphers[0].new_iv(), "big") for _ in range(2))
    assert (second - first) % 2**64 == 1


def test_counting_ivs_go_round():
    from ikeway.crypto.cipher import _CounterIv

    counter = _CounterIv()
    counter._next = 2**64 - 1
    assert [counter(), counter()] == [b"\xff" * 8, bytes(8)]


def test_cbc_ivs_do_not_count():
    """An IV of CBC that can be predicted betrays plaintext."""
    cipher = make(E.ENCR_AES_CBC, 128, I.AUTH_HMAC_SHA2_256_128)
    first, second = (int.from_bytes(cipher.new_iv(), "big") for _ in range(2))
    assert abs(first - second) > 2**32


@pytest.mark.parametrize("one", AEADS, ids=lambda one: name((*one, None)))
@given(plain=st.binary(max_size=200), associated=st.binary(max_size=40))
def test_into_buffers_is_the_same(one, plain, associated):
    cipher = make(*one, None)
    assert isinstance(cipher, AeadCipher)
    iv = cipher.new_iv()
    sealed = cipher.encrypt(iv, plain, associated)
    room = bytearray(2 + len(sealed) + 2)
    assert cipher.encrypt_into(iv, plain, associated, memoryview(room)[2:-2]) == len(sealed)
    assert room == b"\0\0" + sealed + b"\0\0"
    back = bytearray(len(plain))
    assert cipher.decrypt_into(iv, memoryview(room)[2:-2], associated, back) == len(plain)
    assert back == plain
    with pytest.raises(ValueError, match="buffer"):
        cipher.encrypt_into(iv, plain, associated, bytearray(len(sealed) + 1))
    with pytest.raises(IntegrityCheckFailed):
        cipher.decrypt_into(iv, bytes(len(sealed)), associated, back)


@pytest.mark.parametrize("one", AEADS, ids=lambda one: name((*one, None)))
def test_in_place(one):
    cipher = make(*one, None)
    plain = bytes(range(100))
    sealed = cipher.encrypt(bytes(8), plain, b"a")
    room = bytearray(plain + bytes(cipher.icv_octets))
    cipher.encrypt_into(bytes(8), memoryview(room)[:100], b"a", room)
    assert room == sealed
    cipher.decrypt_into(bytes(8), room, b"a", memoryview(room)[:100])
    assert room[:100] == plain


@pytest.mark.parametrize("one", AEADS, ids=lambda one: name((*one, None)))
def test_an_aead_takes_no_suffix(one):
    cipher = make(*one, None)
    with pytest.raises(ValueError, match="associated"):
        cipher.encrypt(bytes(8), b"", b"", b"\0\0\0\0")
    with pytest.raises(ValueError, match="associated"):
        cipher.decrypt(bytes(8), bytes(16), b"", b"\0\0\0\0")


@pytest.mark.parametrize("one", OTHERS, ids=name)
def test_a_separate_check_value_covers_all_and_the_suffix_last(one):
    """RFC 4303 section 2.2.1: the high half of an extended sequence number is authenticated behind the ciphertext."""
    cipher = make(*one)
    assert isinstance(cipher, SeparateCipher)
    iv = cipher.new_iv()
    sealed = cipher.encrypt(iv, bytes(32), b"head", b"high")
    end = len(sealed) - cipher.icv_octets
    assert sealed[end:] == cipher.integrity.icv(b"head" + iv + sealed[:end] + b"high")
    assert cipher.decrypt(iv, sealed, b"head", b"high") == bytes(32)
    for suffix in (b"", b"hugh"):
        with pytest.raises(IntegrityCheckFailed):
            cipher.decrypt(iv, sealed, b"head", suffix)


@pytest.mark.parametrize("one", [(E.ENCR_AES_CBC, 256), (E.ENCR_3DES, None)], ids=str)
def test_blocks(one):
    cipher = make(*one, I.AUTH_HMAC_SHA2_256_128)
    iv = cipher.new_iv()
    with pytest.raises(ValueError, match="not padded"):
        cipher.encrypt(iv, bytes(cipher.block_octets - 1), b"")
    # Authentic, but no whole blocks: somebody who has the keys is broken.
    odd = bytes(cipher.block_octets + 1)
    with pytest.raises(CryptoError, match="no whole blocks") as caught:
        cipher.decrypt(iv, odd + cipher.integrity.icv(iv + odd), b"")
    assert not isinstance(caught.value, IntegrityCheckFailed)


def test_nothing_is_decrypted_before_it_is_authentic(monkeypatch):
    cipher = make(E.ENCR_AES_CBC, 128, I.AUTH_HMAC_SHA1_96)
    monkeypatch.setattr(type(cipher), "decipher", lambda *_: pytest.fail("decrypted"))
    with pytest.raises(IntegrityCheckFailed):
        cipher.decrypt(bytes(16), bytes(44), b"")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((E.ENCR_AES_CBC, 128, None, bytes(16), b""), UnsupportedAlgorithm, "needs an integrity algorithm"),
        ((E.ENCR_AES_CBC, 128, I.NONE, bytes(16), b""), UnsupportedAlgorithm, "needs an integrity algorithm"),
        ((E.ENCR_NULL, None, None, b"", b""), UnsupportedAlgorithm, "needs an integrity algorithm"),
        (
            (E.ENCR_AES_GCM_16, 128, I.AUTH_HMAC_SHA1_96, bytes(20), bytes(20)),
            UnsupportedAlgorithm,
            "integrity of its own",
        ),
        ((E.ENCR_AES_GCM_16, 128, None, bytes(20), bytes(20)), UnsupportedAlgorithm, "integrity of its own"),
        ((E.ENCR_AES_GCM_16, 128, None, bytes(16), b""), ValueError, "takes 20 octets of key"),
        ((E.ENCR_AES_CBC, 256, I.AUTH_HMAC_SHA1_96, bytes(16), bytes(20)), ValueError, "takes 32 octets of key"),
        ((E.ENCR_AES_CBC, 128, I.AUTH_HMAC_SHA1_96, bytes(16), bytes(16)), ValueError, "takes a key of 20 octets"),
        ((E.ENCR_AES_CBC, None, I.AUTH_HMAC_SHA1_96, bytes(16), bytes(20)), UnsupportedAlgorithm, "got none"),
        ((E.ENCR_AES_CBC, 127, I.AUTH_HMAC_SHA1_96, bytes(16), bytes(20)), UnsupportedAlgorithm, "got 127 bits"),
        ((E.ENCR_CHACHA20_POLY1305, 256, None, bytes(36), b""), UnsupportedAlgorithm, "expected no Key Length"),
        ((E.ENCR_BLOWFISH, 128, I.AUTH_HMAC_SHA1_96, bytes(16), bytes(20)), UnsupportedAlgorithm, "BLOWFISH"),
        ((E(4711), 128, None, bytes(16), b""), UnsupportedAlgorithm, "UNKNOWN_4711"),
        ((E.ENCR_AES_CBC, 128, I.AUTH_DES_MAC, bytes(16), bytes(8)), UnsupportedAlgorithm, "AUTH_DES_MAC"),
    ],
)
def test_what_does_not_fit_together(arguments, error, message):
    with pytest.raises(error, match=message):
        new_cipher(*arguments)


def test_aead_with_integrity_none_is_an_aead():
    assert new_cipher(E.ENCR_AES_GCM_16, 128, I.NONE, bytes(20), b"").is_aead


@pytest.mark.parametrize("one", [(E.ENCR_AES_CBC, 256), (E.ENCR_AES_CTR, 128), (E.ENCR_3DES, None)], ids=str)
@given(messages=st.lists(st.tuples(st.integers(0, 4), st.binary(min_size=16, max_size=16), st.booleans()), max_size=6))
def test_messages_do_not_depend_on_those_before(one, messages):
    """The contexts behind these ciphers live on; each message must come out as if it were the first."""
    lasting = make(*one, I.AUTH_HMAC_SHA2_256_128)
    for blocks, octets, encrypt in messages:
        iv, plain = octets[: lasting.iv_octets], octets * blocks
        fresh = make(*one, I.AUTH_HMAC_SHA2_256_128)
        if encrypt:
            assert lasting.encrypt(iv, plain, b"a") == fresh.encrypt(iv, plain, b"a")
        else:
            assert lasting.decrypt(iv, fresh.encrypt(iv, plain, b"a"), b"a") == plain

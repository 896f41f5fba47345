"""EAP-MD5 between our own two sides; against somebody else in tests/interop."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.eap.errors import EapFailed, MalformedEap, PasswordExpired, WrongPassword
from ikeway.eap.md5 import Md5Authenticator, Md5Peer, decode_value, digest, encode_value
from ikeway.eap.packet import EapCode, EapPacket, EapType
from ikeway.eap.questions import MustChange, NtHash, PasswordQuestion
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.errors import ConfigError, IkewayError
from tests.eap.conversations import Asker, finish, log_in


def sides(secret: Any, password: str | None, user: bytes = b"alice") -> tuple[EapPeer, EapAuthenticator, Asker]:
    asked = Asker(lambda question: password)
    peer = EapPeer(asked, user, [lambda: Md5Peer(user)])
    stored = Asker(lambda question: secret)
    return peer, EapAuthenticator(stored, [lambda: Md5Authenticator(b"gateway")]), asked


@pytest.mark.parametrize("password", ["secret", "pässwörd ✓", "x" * 300])
def test_the_right_password(password: str) -> None:
    peer, authenticator, asked = sides(password, password)
    packets = log_in(peer, authenticator)
    assert peer.succeeded and authenticator.succeeded
    assert peer.msk is None and authenticator.msk is None and not peer.mutual
    assert authenticator.identity == b"alice"
    [question] = asked.questions
    assert isinstance(question, PasswordQuestion)
    assert question.server_name == "gateway"
    assert not any(password.encode() in packet for packet in packets)


def test_the_answer_is_the_digest_of_the_packets_identifier() -> None:
    """RFC 1994 section 4.1, with the identifier of the EAP packet (RFC 3748 section 5.4)."""
    peer = EapPeer(Asker(lambda question: "secret"), b"alice", [lambda: Md5Peer(b"alice")])
    answer = finish(peer.receive(EapPacket(EapCode.REQUEST, 0x77, 4, b"\x05abcdegw").encode()))
    assert answer is not None
    assert answer[6:22] == hashlib.md5(b"\x77secretabcde").digest()
    assert answer[22:] == b"alice"


@pytest.mark.parametrize("secret", ["other", None])
def test_wrong_password_and_unknown_user_look_the_same(secret: str | None) -> None:
    peer, authenticator, _ = sides(secret, "secret")
    with pytest.raises(WrongPassword):
        log_in(peer, authenticator)
    assert isinstance(authenticator.error, WrongPassword)
    assert "alice" in authenticator.reason


def test_a_password_that_must_be_changed_lets_nobody_in() -> None:
    peer, authenticator, _ = sides(MustChange("secret"), "secret")
    with pytest.raises(WrongPassword):
        log_in(peer, authenticator)
    assert isinstance(authenticator.error, PasswordExpired)


def test_who_guesses_does_not_hear_that_the_password_must_be_changed() -> None:
    peer, authenticator, _ = sides(MustChange("secret"), "guess")
    with pytest.raises(WrongPassword):
        log_in(peer, authenticator)
    assert isinstance(authenticator.error, WrongPassword)


def test_a_hash_does_not_serve() -> None:
    peer, authenticator, _ = sides(NtHash(bytes(16)), "secret")
    with pytest.raises(WrongPassword):
        log_in(peer, authenticator)
    assert isinstance(authenticator.error, ConfigError)
    assert "NT hash" in authenticator.reason


def test_no_password() -> None:
    peer, authenticator, _ = sides("secret", None)
    with pytest.raises(EapFailed, match="no password was given"):
        log_in(peer, authenticator)


def test_success_before_the_answer_is_refused() -> None:
    peer, _, _ = sides("secret", "secret")
    with pytest.raises(EapFailed, match="success before"):
        finish(peer.receive(EapPacket(EapCode.SUCCESS, 1).encode()))


@pytest.mark.parametrize("octets", [b"", b"\0", b"\0name", b"\x10" + bytes(15), b"\x01a" + bytes(257)])
def test_values_that_are_none(octets: bytes) -> None:
    with pytest.raises(MalformedEap):
        decode_value(octets)


@given(st.binary(min_size=1, max_size=255), st.binary(max_size=256))
def test_values_come_back(value: bytes, name: bytes) -> None:
    assert decode_value(encode_value(value, name)) == (value, name)


@given(st.binary(max_size=600), st.integers(0, 255))
def test_hostile_octets(octets: bytes, identifier: int) -> None:
    peer, authenticator, _ = sides("secret", "secret")
    try:
        finish(peer.receive(EapPacket(EapCode.REQUEST, identifier, EapType.MD5_CHALLENGE, octets).encode()))
    except IkewayError:
        assert peer.failed
    authenticator = EapAuthenticator(Asker(lambda question: "secret"), [Md5Authenticator], identity=b"alice")
    first = finish(authenticator.start())
    response = EapPacket(EapCode.RESPONSE, first[1], EapType.MD5_CHALLENGE, octets)
    assert finish(authenticator.receive(response.encode()))[0] == EapCode.FAILURE
    assert authenticator.failed


def test_a_digest_cut_short_is_no_digest() -> None:
    authenticator = EapAuthenticator(Asker(lambda question: "secret"), [Md5Authenticator], identity=b"alice")
    first = finish(authenticator.start())
    right = digest(first[1], b"secret", first[6:22])
    short = EapPacket(EapCode.RESPONSE, first[1], EapType.MD5_CHALLENGE, encode_value(right[:8], b""))
    assert finish(authenticator.receive(short.encode()))[0] == EapCode.FAILURE

"""EAP-MSCHAPv2 between our own two sides, and each side against somebody who breaks the rules."""

import dataclasses
from typing import Any

import pytest
from Crypto.Cipher import DES
from hypothesis import given, settings
from hypothesis import strategies as st

from ikeway.eap import mschapv2_packets as packets
from ikeway.eap.errors import (
    AccountRestricted,
    EapFailed,
    MalformedEap,
    PasswordExpired,
    ServerNotAuthentic,
    WrongPassword,
)
from ikeway.eap.mschapv2 import MsChapV2Authenticator, MsChapV2Peer
from ikeway.eap.mschapv2_crypto import (
    _with_parity,
    decrypt_password,
    encrypt_hash,
    encrypt_password,
    nt_password_hash,
)
from ikeway.eap.mschapv2_packets import ChangePassword, decode_change, decode_failure, encode_change, encode_packet
from ikeway.eap.packet import EapCode, EapPacket, EapType, MethodType
from ikeway.eap.questions import (
    Granted,
    MustChange,
    NewPassword,
    NtHash,
    PasswordQuestion,
    Refused,
    SecretQuestion,
    Wanted,
)
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.errors import HostError, IkewayError, Side
from tests.eap.conversations import Asker, finish, log_in


def sides(
    secret: Any, *passwords: str | None, user: bytes = b"alice", retries: int = 0, **options: Any
) -> tuple[EapPeer, EapAuthenticator, Asker, Asker]:
    """A peer that gives the passwords one after the other, and an authenticator that has the secret."""
    given_passwords = list(passwords)
    asked = Asker(lambda question: given_passwords.pop(0) if given_passwords else None)
    stored = Asker(lambda question: secret)
    peer = EapPeer(asked, user, [lambda: MsChapV2Peer(user)])
    authenticator = EapAuthenticator(stored, [lambda: MsChapV2Authenticator(b"gateway", retries=retries)], **options)
    return peer, authenticator, asked, stored


@pytest.mark.parametrize("password", ["secret", "", "pässwörd ✓ 🔑", "x" * 256])
@pytest.mark.parametrize("user", [b"alice", b"CORP\\alice", b"alice@example.org", "ü".encode()])
def test_the_right_password_gives_both_sides_the_same_key(password: str, user: bytes) -> None:
    peer, authenticator, asked, stored = sides(password, password, user=user)
    packets = log_in(peer, authenticator)
    assert packets[-1][0] == EapCode.SUCCESS
    assert peer.succeeded and authenticator.succeeded and not peer.mutual
    assert peer.msk == authenticator.msk
    assert peer.msk is not None and len(peer.msk) == 64
    assert authenticator.identity == user
    assert peer.method == authenticator.method == "EAP-MSCHAPv2"
    (question,) = asked.questions
    assert isinstance(question, PasswordQuestion)
    assert (question.identity, question.server_name, question.attempt) == (user, "gateway", 1)
    (lookup,) = stored.questions
    assert isinstance(lookup, SecretQuestion)
    assert lookup.identity == user
    if password:
        assert not any(password.encode() in packet for packet in packets if len(password) > 3)


def test_a_store_may_keep_only_the_hash() -> None:
    peer, authenticator, *_ = sides(NtHash(nt_password_hash("secret")), "secret")
    log_in(peer, authenticator)
    assert peer.msk == authenticator.msk
    assert "secret" not in repr(NtHash(nt_password_hash("secret")))
    with pytest.raises(ValueError):
        NtHash(b"short")


def test_a_password_that_must_be_changed_lets_nobody_in() -> None:
    peer, authenticator, *_ = sides(MustChange("secret"), "secret")
    with pytest.raises(PasswordExpired):
        log_in(peer, authenticator)
    assert isinstance(authenticator.error, PasswordExpired)
    assert authenticator.msk is None


def test_only_who_knows_the_password_hears_that_it_must_be_changed() -> None:
    peer, authenticator, *_ = sides(MustChange("secret"), "other")
    with pytest.raises(WrongPassword):
        log_in(peer, authenticator)
    assert isinstance(authenticator.error, WrongPassword)


NEW = "the new one ✓"


def changing(
    verdict: Any, *passwords: str | None, secret: Any = None, retries: int = 0
) -> tuple[EapPeer, EapAuthenticator, Asker, Asker]:
    """An authenticator whose user has to change the password, and which hears `verdict` on the new one."""
    old = secret if secret is not None else MustChange("old")
    peer, _, asked, _ = sides(None, *passwords)
    stored = Asker(lambda question: verdict if isinstance(question, NewPassword) else old)
    return peer, EapAuthenticator(stored, [lambda: MsChapV2Authenticator(b"gateway", retries=retries)]), asked, stored


@pytest.mark.parametrize("old", ["old", NtHash(nt_password_hash("old"))])
def test_an_expired_password_is_changed_on_the_way(old: Any) -> None:
    peer, authenticator, asked, stored = changing(Granted(), "old", NEW, secret=MustChange(old))
    packets_seen = log_in(peer, authenticator)
    assert peer.succeeded and authenticator.succeeded
    assert peer.msk == authenticator.msk is not None
    wanted = [(question.wanted, question.prompt, question.attempt) for question in asked.questions]  # type: ignore[attr-defined]
    assert wanted == [(Wanted.PASSWORD, "", 1), (Wanted.NEW_PASSWORD, "Password expired", 1)]
    lookup, kept = stored.questions
    assert isinstance(lookup, SecretQuestion) and isinstance(kept, NewPassword)
    assert (kept.identity, kept.password) == (b"alice", NEW)
    assert NEW not in repr(kept)
    assert not any(NEW.encode("utf-16-le")[:16] in packet for packet in packets_seen)


def test_an_expired_password_after_a_wrong_one() -> None:
    """RFC 2759 section 9.1.7."""
    peer, authenticator, asked, _ = changing(Granted(), "wrong", "old", NEW, retries=1)
    log_in(peer, authenticator)
    assert peer.msk == authenticator.msk is not None
    assert [question.wanted for question in asked.questions][-1] is Wanted.NEW_PASSWORD  # type: ignore[attr-defined]


@pytest.mark.parametrize("answer", [None, "old"])
def test_who_has_no_new_password_hears_why(answer: str | None) -> None:
    peer, authenticator, *_ = changing(Granted(), "old", answer)
    with pytest.raises(PasswordExpired):
        log_in(peer, authenticator)
    assert isinstance(authenticator.error, PasswordExpired)
    assert authenticator.msk is None


def test_a_new_password_that_is_refused() -> None:
    peer, authenticator, *_ = changing(Refused("too short"), "old", "x")
    with pytest.raises(AccountRestricted, match="could not be changed"):
        log_in(peer, authenticator)
    assert "too short" in authenticator.reason
    assert authenticator.msk is None and peer.msk is None


def test_too_long_a_new_password() -> None:
    peer, authenticator, *_ = changing(Granted(), "old", "x" * 257)
    with pytest.raises(EapFailed, match="longer"):
        log_in(peer, authenticator)


@pytest.mark.parametrize("spoilt", ["password", "hash", "proof", "length"])
def test_a_change_that_does_not_fit_together_changes_nothing(spoilt: str) -> None:
    """Whoever spoils one of the three parts must not lock the user out."""
    peer, authenticator, _, stored = changing(Granted(), "old", NEW)
    packet = finish(authenticator.start())
    for _ in range(3):
        answer = finish(peer.receive(packet))
        assert answer is not None
        packet = finish(authenticator.receive(answer)) if answer[5] != packets.CHANGE_PASSWORD else packet
        if answer[5] == packets.CHANGE_PASSWORD:
            break
    change = decode_change(answer[5:])
    part = {"password": "encrypted_password", "length": "encrypted_password", "hash": "encrypted_hash"}
    name = part.get(spoilt, "proof")
    octets = bytearray(getattr(change, name))
    octets[{"length": 514, "password": 511}.get(spoilt, 0)] ^= 0x40
    spoilt_change = encode_change(dataclasses.replace(change, **{name: bytes(octets)}))
    refusal = finish(
        authenticator.receive(EapPacket(EapCode.RESPONSE, answer[1], EapType.MSCHAPV2, spoilt_change).encode())
    )
    assert b"E=709" in refusal
    assert finish(authenticator.receive(EapPacket(EapCode.RESPONSE, refusal[1], 26, b"\x04").encode()))[0] == 4
    assert not any(isinstance(question, NewPassword) for question in stored.questions)
    assert authenticator.failed and authenticator.msk is None


def test_a_change_that_nobody_asked_for_is_refused() -> None:
    peer, authenticator, _, stored = changing(Granted(), "old", NEW, secret="old")
    answer = finish(peer.receive(finish(authenticator.start())))
    assert answer is not None
    success = finish(authenticator.receive(answer))  # the identity was answered; this is the challenge
    change = encode_change(ChangePassword(1, bytes(516), bytes(16), bytes(16), bytes(24)))
    packet = EapPacket(EapCode.RESPONSE, success[1], EapType.MSCHAPV2, change).encode()
    assert finish(authenticator.receive(packet))[0] == EapCode.FAILURE
    assert not stored.questions


@given(st.binary(min_size=516, max_size=516), st.binary(min_size=16, max_size=16))
def test_new_passwords_decrypt_or_not(encrypted: bytes, old: bytes) -> None:
    password = decrypt_password(encrypted, old)
    assert password is None or len(password) <= 256


@given(st.text(max_size=256), st.binary(min_size=16, max_size=16), st.binary(min_size=512, max_size=512))
def test_new_passwords_come_back(password: str, old: bytes, filling: bytes) -> None:
    if len(password.encode("utf-16-le")) > 512:
        return
    encrypted = encrypt_password(password, old, filling)
    assert len(encrypted) == 516
    assert decrypt_password(encrypted, old) == password


def test_the_old_hash_under_the_new_one_is_plain_des() -> None:
    """RFC 2759 section 8.13, computed with another library's DES."""
    old, new = nt_password_hash("old"), nt_password_hash("new")
    first, second = (DES.new(_with_parity(new[at : at + 7]), DES.MODE_ECB) for at in (0, 7))
    assert encrypt_hash(old, new) == first.encrypt(old[:8]) + second.encrypt(old[8:])


def test_the_identity_may_come_from_ike() -> None:
    peer, authenticator, *_ = sides("secret", "secret", identity=b"alice")
    packets = log_in(peer, authenticator)
    assert packets[0][4] == EapType.MSCHAPV2
    assert authenticator.succeeded


@pytest.mark.parametrize("secret", ["other", None])
def test_wrong_password_and_unknown_user_look_the_same(secret: str | None) -> None:
    peer, authenticator, *_ = sides(secret, "secret")
    with pytest.raises(WrongPassword) as caught:
        log_in(peer, authenticator)
    assert authenticator.failed and peer.failed and not authenticator.succeeded
    assert isinstance(authenticator.error, WrongPassword)
    assert "alice" in authenticator.reason
    assert caught.value.side is Side.LOCAL
    assert "691" in caught.value.got
    assert peer.msk is None and authenticator.msk is None


def test_an_unknown_user_gets_packets_of_the_same_shape() -> None:
    shapes = []
    for secret in ("other", None):
        peer, authenticator, *_ = sides(secret, "secret")
        packets = [finish(authenticator.start())]
        for _ in range(3):
            packets.append(finish(peer.receive(packets[-1])) or b"")
            packets.append(finish(authenticator.receive(packets[-1])))
        shapes.append([(packet[0], len(packet)) for packet in packets])
    assert shapes[0] == shapes[1]


def test_retry_asks_again_with_the_servers_words() -> None:
    peer, authenticator, asked, _ = sides("secret", "wrong", "also wrong", "secret", retries=2)
    log_in(peer, authenticator)
    assert peer.succeeded and peer.msk == authenticator.msk
    attempts = [(question.attempt, question.prompt) for question in asked.questions]
    assert attempts == [(1, ""), (2, "Authentication failed"), (3, "Authentication failed")]


def test_the_same_wrong_password_is_not_sent_twice() -> None:
    peer, authenticator, asked, stored = sides("secret", "wrong", "wrong", "secret", retries=5)
    with pytest.raises(WrongPassword):
        log_in(peer, authenticator)
    assert len(stored.questions) == 1
    assert len(asked.questions) == 2
    assert authenticator.failed


def test_retries_come_to_an_end() -> None:
    peer, authenticator, *_ = sides("secret", "a", "b", "c", "d", "e", retries=2)
    with pytest.raises(WrongPassword):
        log_in(peer, authenticator)
    assert isinstance(authenticator.error, WrongPassword)


def test_no_password_ends_the_log_in() -> None:
    peer, authenticator, *_ = sides("secret")
    with pytest.raises(EapFailed, match="no password was given"):
        log_in(peer, authenticator)


def test_a_store_that_is_broken_fails_the_log_in_with_its_reason() -> None:
    peer, authenticator, *_ = sides(HostError("the user file is gone"), "secret")
    with pytest.raises(EapFailed):
        log_in(peer, authenticator)
    assert isinstance(authenticator.error, HostError)
    assert "user file" in authenticator.reason


def test_too_long_a_password() -> None:
    peer, authenticator, *_ = sides("secret", "x" * 257)
    with pytest.raises(EapFailed, match="longer"):
        log_in(peer, authenticator)


def request(data: bytes, identifier: int = 1) -> bytes:
    return EapPacket(EapCode.REQUEST, identifier, EapType.MSCHAPV2, data).encode()


CHALLENGE = encode_packet(packets.CHALLENGE, 9, b"\x10" + bytes(16) + b"gateway")


def peer_at_failure(text: str, password: str = "secret") -> tuple[EapPeer, bytes | None]:
    peer = EapPeer(Asker(lambda question: None), b"alice", [lambda: MsChapV2Peer(b"alice", password)])
    finish(peer.receive(request(CHALLENGE)))
    return peer, finish(peer.receive(request(encode_packet(packets.FAILURE, 9, text.encode()))))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("E=648 R=0 C=" + "0" * 32 + " V=3 M=Password expired", PasswordExpired),
        ("E=647 R=0 V=3", AccountRestricted),
        ("E=646 R=0 V=3", AccountRestricted),
        ("E=649 R=0 V=3", AccountRestricted),
        ("E=709 R=0 V=3", AccountRestricted),
        ("E=691 R=0 C=" + "0" * 32 + " V=3 M=Access denied", WrongPassword),
        ("E=691 R=1 V=3", WrongPassword),  # retry allowed, but no challenge for it
        ("E=12345 R=0", EapFailed),
    ],
)
def test_failures_are_acknowledged_and_explained(text: str, kind: type[EapFailed]) -> None:
    peer, answer = peer_at_failure(text)
    assert answer == bytes.fromhex("020100061a04")
    with pytest.raises(kind) as caught:
        finish(peer.receive(EapPacket(EapCode.FAILURE, 1).encode()))
    assert type(caught.value) is kind
    assert text.split("=")[1].split()[0] in caught.value.got


def test_failure_text_is_safe_to_print() -> None:
    _, report = decode_failure(encode_packet(packets.FAILURE, 1, b"E=691 R=0 M=\x1b[31mred\n\0"))
    assert report.message == "[31mred"


def test_success_after_a_failure_is_refused() -> None:
    peer, _ = peer_at_failure("E=691 R=0")
    with pytest.raises(EapFailed, match="before the method was at its end"):
        finish(peer.receive(EapPacket(EapCode.SUCCESS, 1).encode()))


def test_success_without_the_servers_proof_is_refused() -> None:
    peer = EapPeer(Asker(lambda question: None), b"alice", [lambda: MsChapV2Peer(b"alice", "secret")])
    finish(peer.receive(request(CHALLENGE)))
    with pytest.raises(EapFailed, match="before the method was at its end"):
        finish(peer.receive(EapPacket(EapCode.SUCCESS, 1).encode()))
    assert peer.failed and peer.msk is None


@pytest.mark.parametrize("text", [b"S=" + b"0" * 40 + b" M=Welcome", b"S=" + b"0" * 40])
def test_an_impostor_is_unmasked(text: bytes) -> None:
    peer = EapPeer(Asker(lambda question: None), b"alice", [lambda: MsChapV2Peer(b"alice", "secret")])
    finish(peer.receive(request(CHALLENGE)))
    with pytest.raises(ServerNotAuthentic):
        finish(peer.receive(request(encode_packet(packets.SUCCESS, 9, text))))
    assert peer.failed


@pytest.mark.parametrize("text", [b"", b"S=", b"S=12", b"M=Welcome", b"s=" + b"0" * 40])
def test_a_success_without_a_readable_proof_is_refused(text: bytes) -> None:
    peer = EapPeer(Asker(lambda question: None), b"alice", [lambda: MsChapV2Peer(b"alice", "secret")])
    finish(peer.receive(request(CHALLENGE)))
    with pytest.raises(MalformedEap):
        finish(peer.receive(request(encode_packet(packets.SUCCESS, 9, text))))


def test_the_server_may_not_go_on_after_the_end() -> None:
    peer, authenticator, *_ = sides("secret", "secret")
    packets = [finish(authenticator.start())]
    while True:
        response = finish(peer.receive(packets[-1]))
        assert response is not None
        packets.append(finish(authenticator.receive(response)))
        if packets[-1][0] == EapCode.SUCCESS:
            break
    with pytest.raises(EapFailed, match="after its end"):
        finish(peer.receive(request(CHALLENGE, 3)))


def test_a_client_that_refuses_our_proof_fails() -> None:
    authenticator = EapAuthenticator(
        Asker(lambda question: "secret"), [lambda: MsChapV2Authenticator(b"gateway")], identity=b"alice"
    )
    peer = EapPeer(Asker(lambda question: "secret"), b"alice", [lambda: MsChapV2Peer(b"alice")])
    answer = finish(peer.receive(finish(authenticator.start())))
    assert answer is not None
    success = finish(authenticator.receive(answer))
    refusal = EapPacket(EapCode.RESPONSE, success[1], EapType.MSCHAPV2, b"\x04").encode()
    assert finish(authenticator.receive(refusal))[0] == EapCode.FAILURE
    assert "did not accept our proof" in authenticator.reason
    assert authenticator.msk is None


@given(st.lists(st.binary(max_size=120), max_size=6), st.booleans())
@settings(max_examples=300, deadline=None)
def test_the_peer_survives_any_requests(datas: list[bytes], challenge_first: bool) -> None:
    peer = EapPeer(Asker(lambda question: None), b"alice", [lambda: MsChapV2Peer(b"alice", "secret")])
    packets = [request(CHALLENGE)] if challenge_first else []
    packets += [request(data, index & 0xFF) for index, data in enumerate(datas)]
    for packet in packets:
        try:
            finish(peer.receive(packet))
        except IkewayError:
            assert peer.failed
            break
    assert not peer.succeeded
    assert peer.msk is None


opcodes = st.integers(0, 8)
shaped = st.builds(encode_packet, opcodes, st.integers(0, 255), st.binary(max_size=80))
shaped_responses = st.builds(
    lambda value, name: encode_packet(packets.RESPONSE, 1, b"\x31" + value + name),
    st.binary(min_size=49, max_size=49),
    st.binary(max_size=300),
)


@given(st.lists(st.binary(max_size=120) | shaped | shaped_responses, max_size=6), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_the_authenticator_survives_any_responses(datas: list[bytes], retries: int) -> None:
    authenticator = EapAuthenticator(
        Asker(lambda question: "secret"), [lambda: MsChapV2Authenticator(retries=retries)], identity=b"alice"
    )
    last = finish(authenticator.start())
    for data in datas:
        last = finish(authenticator.receive(EapPacket(EapCode.RESPONSE, last[1], 26, data).encode()))
        assert last[0] in (EapCode.REQUEST, EapCode.FAILURE)
        if last[0] == EapCode.FAILURE:
            assert authenticator.failed and authenticator.error is not None
    assert not authenticator.succeeded
    assert authenticator.msk is None


@given(st.binary(max_size=400))
def test_failure_reports_decode_or_raise(text: bytes) -> None:
    try:
        _, report = decode_failure(encode_packet(packets.FAILURE, 1, b"E=691 R=1 " + text))
    except MalformedEap:
        return
    assert report.error >= 0
    assert report.challenge is None or len(report.challenge) == 16
    assert report.message.isprintable()


def test_questions_do_not_show_secrets() -> None:
    fields = {field.name: field.repr for field in dataclasses.fields(NtHash)}
    assert fields == {"value": False}
    assert "secret" not in repr(MsChapV2Peer(b"alice", "secret"))
    assert MsChapV2Peer.type == MethodType(0, 26)

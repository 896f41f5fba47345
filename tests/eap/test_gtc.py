"""EAP-GTC between our own two sides; against somebody else in tests/interop."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.eap.errors import EapFailed, WrongPassword
from ikeway.eap.gtc import MAX_ANSWERS, GtcAuthenticator, GtcPeer
from ikeway.eap.packet import EapCode, EapPacket, EapType
from ikeway.eap.questions import Granted, PasswordCheck, PasswordQuestion, Prompt, Refused, Verdict, Wanted
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.eap.words import printable, wanted_by
from ikeway.errors import HostError, Side
from tests.eap.conversations import Asker, finish, log_in


def sides(judge: Any, *answers: str | None, **options: Any) -> tuple[EapPeer, EapAuthenticator, Asker, Asker]:
    left = list(answers)
    asked = Asker(lambda question: left.pop(0) if left else None)
    judged = Asker(judge)
    peer = EapPeer(asked, b"alice", [lambda: GtcPeer(b"alice")])
    return peer, EapAuthenticator(judged, [lambda: GtcAuthenticator(**options)]), asked, judged


def password_then_code(check: PasswordCheck) -> Verdict:
    if check.state is None:
        return Prompt("Code: ", state="password proven") if check.answer == b"secret" else Refused("wrong")
    assert (check.state, check.wanted) == ("password proven", Wanted.CODE)
    if check.answer == b"123456":
        return Granted()
    return Prompt("Wrong code. Code: ", state=check.state)


def test_a_password_alone() -> None:
    peer, authenticator, asked, judged = sides(lambda check: Granted(), "secret")
    packets = log_in(peer, authenticator)
    assert peer.succeeded and authenticator.succeeded
    assert packets[2][5:] == b"Password: "
    [question], [check] = asked.questions, judged.questions
    assert isinstance(question, PasswordQuestion) and isinstance(check, PasswordCheck)
    assert (question.wanted, question.prompt) == (Wanted.PASSWORD, "Password:")
    assert (check.identity, check.answer, check.may_prompt) == (b"alice", b"secret", True)
    assert peer.msk is None and authenticator.msk is None and not peer.mutual
    assert "secret" not in repr(check)


def test_a_code_after_the_password_and_once_more_when_it_is_wrong() -> None:
    peer, authenticator, asked, _ = sides(password_then_code, "secret", "111111", "123456")
    log_in(peer, authenticator)
    assert peer.succeeded and authenticator.succeeded
    seen = [(question.wanted, question.attempt, question.prompt) for question in asked.questions]  # type: ignore[attr-defined]
    assert seen == [
        (Wanted.PASSWORD, 1, "Password:"),
        (Wanted.CODE, 1, "Code:"),
        (Wanted.CODE, 2, "Wrong code. Code:"),
    ]


def test_a_code_alone_where_another_method_took_the_password() -> None:
    peer, authenticator, asked, judged = sides(lambda check: Granted(), "123456", prompt="Code: ", wanted=Wanted.CODE)
    log_in(peer, authenticator)
    assert asked.questions[0].wanted is Wanted.CODE  # type: ignore[attr-defined]
    assert judged.questions[0].wanted is Wanted.CODE  # type: ignore[attr-defined]


def test_a_refusal_is_explained_on_both_sides() -> None:
    peer, authenticator, *_ = sides(password_then_code, "wrong")
    with pytest.raises(WrongPassword, match="user name or password") as caught:
        log_in(peer, authenticator)
    assert caught.value.side is Side.LOCAL
    assert isinstance(authenticator.error, WrongPassword)
    assert authenticator.error.got == "wrong"
    assert "alice" in authenticator.reason


def test_who_leaves_at_the_code_had_a_wrong_one() -> None:
    peer, authenticator, *_ = sides(password_then_code, "secret", "111111", None)
    with pytest.raises(EapFailed, match="no code was given"):
        log_in(peer, authenticator)
    assert isinstance(authenticator.abandon(EapFailed("gone")), WrongPassword)


def test_the_same_wrong_password_is_not_sent_twice() -> None:
    peer, authenticator, _, judged = sides(lambda check: Prompt("Password: ", Wanted.PASSWORD), "wrong", "wrong")
    with pytest.raises(WrongPassword):
        log_in(peer, authenticator)
    assert len(judged.questions) == 1


def test_nothing_typed_is_no_password_but_may_be_an_answer_to_an_app() -> None:
    peer, authenticator, *_ = sides(lambda check: Granted(), "")
    with pytest.raises(EapFailed, match="no password was given"):
        log_in(peer, authenticator)
    peer, authenticator, *_ = sides(
        lambda check: Granted() if check.state else Prompt("Approve in the app", state=1), "secret", ""
    )
    log_in(peer, authenticator)
    assert peer.succeeded


def test_an_endless_server_and_an_endless_judge() -> None:
    peer, authenticator, *_ = sides(lambda check: Prompt("Code: "), *map(str, range(100)))
    with pytest.raises(WrongPassword):
        log_in(peer, authenticator)
    assert "without an end" in authenticator.reason
    peer = EapPeer(Asker(lambda question: "1"), b"alice", [lambda: GtcPeer(b"alice")])
    request = EapPacket(EapCode.REQUEST, 1, EapType.GTC, b"Code: ").encode()
    for _ in range(MAX_ANSWERS):
        finish(peer.receive(request))
    with pytest.raises(EapFailed, match="without an end"):
        finish(peer.receive(request))


def test_success_before_any_answer_is_refused() -> None:
    peer = EapPeer(Asker(lambda question: "1"), b"alice", [lambda: GtcPeer(b"alice")])
    with pytest.raises(EapFailed, match="success before"):
        finish(peer.receive(EapPacket(EapCode.SUCCESS, 1).encode()))


def test_a_broken_judge_fails_the_log_in_with_its_reason() -> None:
    peer, authenticator, *_ = sides(lambda check: HostError("the user file is gone"), "secret")
    with pytest.raises(WrongPassword):
        log_in(peer, authenticator)
    assert isinstance(authenticator.error, HostError)


@pytest.mark.parametrize(
    ("words", "first", "wanted"),
    [
        ("Password:", True, Wanted.PASSWORD),
        ("", True, Wanted.PASSWORD),
        ("password", False, Wanted.PASSWORD),
        ("Enter your password followed by the code", True, Wanted.PASSWORD),
        ("Enter PASSCODE:", True, Wanted.CODE),
        ("Your one-time password", True, Wanted.CODE),
        ("OTP", True, Wanted.CODE),
        ("Enter a code from your authentication app", False, Wanted.CODE),
        ("Challenge 4711:", False, Wanted.CODE),
        ("Enter PIN and token", False, Wanted.CODE),
        ("Response:", False, Wanted.CODE),
        ("Enter new password:", False, Wanted.NEW_PASSWORD),
        ("Your password has expired. New password", False, Wanted.NEW_PASSWORD),
    ],
)
def test_what_words_ask_for(words: str, first: bool, wanted: Wanted) -> None:
    assert wanted_by(words, first=first) is wanted


@given(st.binary(max_size=5000))
def test_words_cannot_steer_a_terminal(octets: bytes) -> None:
    words = printable(octets)
    assert words.isprintable() and len(words) <= 1000
    wanted_by(words, first=True)


@given(st.binary(max_size=2000))
def test_any_answer_is_judged_and_any_request_is_answered(octets: bytes) -> None:
    peer, *_ = sides(lambda check: Granted(), "secret")
    answer = finish(peer.receive(EapPacket(EapCode.REQUEST, 1, EapType.GTC, octets).encode()))
    assert answer == EapPacket(EapCode.RESPONSE, 1, EapType.GTC, b"secret").encode()
    judged = Asker(lambda check: Refused() if check.answer == octets else Granted())
    authenticator = EapAuthenticator(judged, [GtcAuthenticator], identity=b"alice")
    first = finish(authenticator.start())
    finish(authenticator.receive(EapPacket(EapCode.RESPONSE, first[1], EapType.GTC, octets).encode()))
    assert authenticator.failed

"""Passwords and shared secrets reach the log-in from where the profile says, or from a person."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ikeway.auth.totp import Totp
from ikeway.client.profile import load_profile
from ikeway.client.secrets import ClientSecrets
from ikeway.eap.questions import PasswordQuestion, Wanted
from ikeway.errors import AuthenticationFailed, ConfigError, ConfigErrors
from tests.config.material import make_pki, write_private

EAP = '[gateway]\naddress = "vpn.example.com"\nca = "ca.pem"\n[login]\nusername = "alice"\n'
PSK = '[gateway]\naddress = "192.0.2.1"\n[login]\nmethod = "psk"\n'


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("pki"))


class Person:
    """Answers prompts and remembers them."""

    def __init__(self, *answers: str) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)

    def __call__(self, words: str) -> str:
        self.asked.append(words)
        return self._answers.pop(0)


def question(attempt: int = 1, prompt: str = "") -> PasswordQuestion:
    return PasswordQuestion(b"alice", "vpn", prompt, "EAP-MSCHAPv2", attempt)


def secrets(pki: Path, text: str, person: Person | None) -> ClientSecrets:
    return ClientSecrets(load_profile(write_private(pki / "work.toml", text)), person)


async def test_a_password_of_the_profile(pki: Path) -> None:
    person = Person()
    assert await secrets(pki, EAP + 'password = "hunter2"\n', person).password(question()) == "hunter2"
    assert person.asked == []


async def test_a_person_is_asked_once(pki: Path) -> None:
    """What was typed serves reconnections too."""
    person = Person("hunter2", "hunter3")
    answers = secrets(pki, EAP, person)
    assert [await answers.password(question()) for _ in range(2)] == ["hunter2", "hunter2"]
    assert person.asked == ["Password for alice at vpn.example.com: "]
    answers.forget()
    assert await answers.password(question()) == "hunter3"


async def test_a_wrong_password_is_asked_for_again_three_times(pki: Path) -> None:
    person = Person("a", "b", "c", "d")
    answers = secrets(pki, EAP, person)
    assert [await answers.password(question(attempt)) for attempt in (1, 2, 3)] == ["a", "b", "c"]
    with pytest.raises(AuthenticationFailed, match="refused the password of alice"):
        await answers.password(question(4))
    assert len(person.asked) == 3


async def test_a_wrong_password_of_the_profile_is_not_tried_twice(pki: Path) -> None:
    answers = secrets(pki, EAP + 'password = "hunter2"\n', Person("other"))
    await answers.password(question())
    with pytest.raises(AuthenticationFailed) as caught:
        await answers.password(question(2))
    assert "work.toml" in caught.value.remedy
    assert "hunter2" not in str(caught.value)


async def test_who_has_not_answered_when_the_gateway_gives_up_answers_the_next_log_in(pki: Path) -> None:
    """Two prompts at one terminal would share what is typed between them."""
    prompted, typed, asked = threading.Event(), threading.Event(), []

    def person(words: str) -> str:
        asked.append(words)
        prompted.set()
        typed.wait(60)
        return "123456"

    answers = secrets(pki, EAP + 'password = "hunter2"\n', person)  # type: ignore[arg-type]
    code = PasswordQuestion(b"alice", "vpn", "", "EAP-GTC", 1, wanted=Wanted.CODE)
    first = asyncio.create_task(answers.password(code))
    assert await asyncio.to_thread(prompted.wait, 30)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(answers.password(code))
    await asyncio.sleep(0.05)
    typed.set()
    assert await asyncio.wait_for(second, 30) == "123456"
    assert len(asked) == 1
    assert await answers.password(code) == "123456"  # the next one is asked for anew
    assert len(asked) == 2


async def test_nobody_to_ask(pki: Path) -> None:
    with pytest.raises(ConfigError, match="nobody to ask") as caught:
        await secrets(pki, EAP, None).password(question())
    assert caught.value.remedy


async def test_shared_secrets(pki: Path) -> None:
    assert await secrets(pki, PSK + 'psk = "0x0102"\n', None).psk() == b"\x01\x02"
    person = Person("spoken")
    assert await secrets(pki, PSK, person).psk() == b"spoken"
    assert person.asked == ["Pre-shared key for 192.0.2.1: "]


GTC = EAP + 'method = "eap-gtc"\n'
SEED = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"


def code_question(attempt: int = 1, prompt: str = "Code:") -> PasswordQuestion:
    return PasswordQuestion(b"alice", "vpn", prompt, "EAP-GTC", attempt, Wanted.CODE)


async def test_codes_are_asked_for_each_time_in_the_gateways_words(pki: Path) -> None:
    person = Person("hunter2", "111111", "222222")
    answers = secrets(pki, GTC, person)
    assert await answers.password(question(prompt="Password:")) == "hunter2"
    assert await answers.password(code_question()) == "111111"
    assert await answers.password(code_question(2, "Wrong code. Code:")) == "222222"
    assert person.asked == [
        "Password for alice at vpn.example.com: ",
        "Code for alice at vpn.example.com: ",
        "vpn.example.com says: Wrong code. Code:\nCode for alice at vpn.example.com: ",
    ]


async def test_a_code_of_a_command(pki: Path) -> None:
    counter = pki / "counter"
    command = f'code = {{ command = ["sh", "-c", "echo x >> {counter}; wc -l < {counter}"] }}\n'
    answers = secrets(pki, GTC + 'password = "hunter2"\n' + command, None)
    assert [await answers.password(code_question(attempt)) for attempt in (1, 2)] == ["1", "2"]


async def test_a_command_that_gives_the_same_code_again_ends_the_log_in(pki: Path) -> None:
    answers = secrets(pki, GTC + 'password = "hunter2"\ncode = { command = ["echo", "123456"] }\n', None)
    assert await answers.password(code_question()) == "123456"
    with pytest.raises(AuthenticationFailed, match="refused the code") as caught:
        await answers.password(code_question(2))
    assert "work.toml" in caught.value.remedy and "123456" not in str(caught.value)
    assert await answers.password(code_question()) == "123456"  # another log-in


async def test_codes_are_computed_from_the_apps_secret_and_never_used_twice(
    pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, slept = 59.0, []

    async def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    monkeypatch.setattr("ikeway.client.secrets.asyncio.sleep", sleep)
    profile = load_profile(write_private(pki / "work.toml", GTC + f'password = "hunter2"\ntotp = "{SEED}"\n'))
    answers = ClientSecrets(profile, None, now=lambda: datetime.fromtimestamp(now, UTC))
    assert await answers.password(code_question()) == "287082"  # RFC 6238 appendix B, the last six digits
    assert await answers.password(code_question(2)) == Totp.parse(SEED).code(datetime.fromtimestamp(60, UTC))
    assert slept == [1.0]


async def test_a_new_password_is_typed_twice_and_serves_from_then_on(pki: Path) -> None:
    person = Person("new one", "nwe one", "new one", "new one")
    answers = secrets(pki, EAP + 'password = "old one"\n', person)
    assert await answers.password(question()) == "old one"
    asked = PasswordQuestion(b"alice", "vpn", "Password expired", "EAP-MSCHAPv2", 1, Wanted.NEW_PASSWORD)
    assert await answers.password(asked) == "new one"
    assert "says: Password expired\nNew password for alice" in person.asked[0]
    assert "not the same" in person.asked[2]
    assert await answers.password(question()) == "new one"


async def test_nobody_to_choose_a_new_password(pki: Path) -> None:
    asked = PasswordQuestion(b"alice", "vpn", "Password expired", "EAP-MSCHAPv2", 1, Wanted.NEW_PASSWORD)
    with pytest.raises(ConfigError, match="new password is needed, and there is nobody to ask"):
        await secrets(pki, EAP + 'password = "old one"\n', None).password(asked)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('method = "eap-mschapv2"\ncode = "1"\n', "`code` is not used"),
        (f'method = "eap-gtc"\ncode = "1"\ntotp = "{SEED}"\n', "both `code` and `totp`"),
    ],
)
def test_codes_that_mean_nothing_are_mistakes(pki: Path, lines: str, words: str) -> None:
    with pytest.raises(ConfigErrors, match=words):
        load_profile(write_private(pki / "work.toml", EAP + lines))

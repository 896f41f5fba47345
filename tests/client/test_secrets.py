"""Passwords and shared secrets reach the log-in from where the profile says, or from a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from ikeway.client.profile import load_profile
from ikeway.client.secrets import ClientSecrets
from ikeway.eap.questions import PasswordQuestion
from ikeway.errors import AuthenticationFailed, ConfigError
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


async def test_nobody_to_ask(pki: Path) -> None:
    with pytest.raises(ConfigError, match="nobody to ask") as caught:
        await secrets(pki, EAP, None).password(question())
    assert caught.value.remedy


async def test_shared_secrets(pki: Path) -> None:
    assert await secrets(pki, PSK + 'psk = "0x0102"\n', None).psk() == b"\x01\x02"
    person = Person("spoken")
    assert await secrets(pki, PSK, person).psk() == b"spoken"
    assert person.asked == ["Pre-shared key for 192.0.2.1: "]

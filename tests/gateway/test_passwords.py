"""Passwords and codes at the gateway: who gets in, what is asked next, what is kept."""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ikeway.auth.totp import Totp
from ikeway.eap.errors import WrongPassword
from ikeway.eap.gtc import GtcAuthenticator, GtcPeer
from ikeway.eap.md5 import Md5Authenticator, Md5Peer
from ikeway.eap.method import EapAuthenticatorMethod, EapPeerMethod
from ikeway.eap.mschapv2 import MsChapV2Authenticator, MsChapV2Peer
from ikeway.eap.mschapv2_crypto import nt_password_hash
from ikeway.eap.questions import (
    Granted,
    MustChange,
    NewPassword,
    NtHash,
    PasswordCheck,
    Prompt,
    Refused,
    ResumptionQuestion,
    SecretQuestion,
    Verdict,
    Wanted,
)
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.errors import ConfigError, ConfigErrors, HostError
from ikeway.gateway import users
from ikeway.gateway.edit_users import edit_user
from ikeway.gateway.passwords import PasswordDesk
from ikeway.gateway.users import FileUserStore, User, load_users
from tests.config.material import write_private
from tests.eap.conversations import Asker, finish

SEED = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
USERS = f"""\
# our people
[users.alice]
password = "hunter2"

[users.bob]  # from the app
password = "password 12"
totp = "{SEED}"

[users.carol]
nt_hash = "{nt_password_hash("hunter4").hex()}"
totp = "otpauth://totp/carol?secret={SEED}&digits=8"

[users.dave]
password = "hunter5"
disabled = true

[users."erin@example.com"]
password = "old password"
must_change = true
ipv4 = "10.0.0.7"  # printer

[users.pat]
psk = "a pre-shared key"
"""

OLD = NtHash(nt_password_hash("old password"))


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = datetime.fromtimestamp(1_000_000_000, UTC)

    def __call__(self) -> datetime:
        return self.now

    def code(self, digits: int = 6, later: int = 0) -> str:
        return Totp(Totp.parse(SEED).key, digits).code(datetime.fromtimestamp(self.now.timestamp() + later, UTC))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_private(tmp_path / "users.toml", USERS)


@pytest.fixture
def desk(file: Path, clock: Clock) -> PasswordDesk:
    return PasswordDesk(load_users(file), clock)


def ask(user: str, answer: str, **more: object) -> PasswordCheck:
    return PasswordCheck(user.encode(), answer.encode(), "EAP-GTC", **more)  # type: ignore[arg-type]


async def test_a_password_that_arrives_in_clear(desk: PasswordDesk) -> None:
    assert await desk.check(ask("Alice", "hunter2")) == Granted()
    assert await desk.check(ask("alice", "hunter3")) == Refused()
    assert await desk.check(ask("nobody", "hunter2")) == Refused()
    assert await desk.check(ask("dave", "hunter5")) == Refused()
    assert await desk.check(PasswordCheck(b"\xff", b"\xff\0", "EAP-GTC")) == Refused()
    assert await desk.check(ask("alice", "")) == Refused()
    assert await desk.check(ask("alice", "hunter2", wanted=Wanted.CODE)) != Granted()


@pytest.mark.parametrize(("user", "password", "digits"), [("bob", "password 12", 6), ("carol", "hunter4", 8)])
async def test_a_code_after_the_password(
    desk: PasswordDesk, clock: Clock, user: str, password: str, digits: int
) -> None:
    verdict = await desk.check(ask(user, password))
    assert isinstance(verdict, Prompt)
    assert (verdict.words, verdict.wanted) == ("Code: ", Wanted.CODE)
    again = await desk.check(ask(user, "0" * digits, wanted=Wanted.CODE, state=verdict.state))
    assert isinstance(again, Prompt)
    assert again.words == "Wrong code. Code: "
    assert await desk.check(ask(user, clock.code(digits), wanted=Wanted.CODE, state=again.state)) == Granted()


async def test_three_wrong_codes_end_the_log_in(desk: PasswordDesk) -> None:
    verdict: Verdict = Prompt("")
    for _ in range(3):
        assert isinstance(verdict, Prompt)
        verdict = await desk.check(ask("bob", "000000", wanted=Wanted.CODE, state=verdict.state))
    assert verdict == Refused("a wrong code")


@pytest.mark.parametrize(("user", "password", "digits"), [("bob", "password 12", 6), ("carol", "hunter4", 8)])
async def test_a_code_behind_the_password(
    desk: PasswordDesk, clock: Clock, user: str, password: str, digits: int
) -> None:
    assert await desk.check(ask(user, password + clock.code(digits), may_prompt=False)) == Granted()
    assert isinstance(await desk.check(ask(user, password, may_prompt=False)), Refused)
    assert await desk.check(ask(user, password + "0" * digits, may_prompt=False)) == Refused("a wrong code")
    assert await desk.check(ask(user, "wrong" + clock.code(digits, 30), may_prompt=False)) == Refused()
    assert await desk.check(ask(user, clock.code(digits, 30), may_prompt=False)) == Refused()


async def test_a_code_is_good_once_whatever_way_it_comes(desk: PasswordDesk, clock: Clock, file: Path) -> None:
    code = clock.code()
    assert await desk.check(ask("bob", "password 12" + code)) == Granted()
    desk.reload(load_users(file))
    assert await desk.check(ask("bob", "password 12" + code, may_prompt=False)) == Refused(
        "a code that was used already"
    )
    verdict = await desk.check(ask("bob", code, wanted=Wanted.CODE))
    assert isinstance(verdict, Prompt)
    assert "used already" in verdict.words
    assert await desk.check(ask("bob", clock.code(later=30), wanted=Wanted.CODE, state=verdict.state)) == Granted()


async def test_a_code_alone_is_no_second_factor_of_somebody_without_one(desk: PasswordDesk, clock: Clock) -> None:
    for user in ("alice", "nobody"):
        assert isinstance(await desk.check(ask(user, clock.code(), wanted=Wanted.CODE)), Refused)


async def test_methods_that_cannot_ask_for_a_code_let_nobody_in_who_needs_one(
    desk: PasswordDesk, caplog: pytest.LogCaptureFixture
) -> None:
    question = SecretQuestion(b"bob", "EAP-MSCHAPv2")
    with caplog.at_level(logging.WARNING):
        assert [await desk.secret(question), await desk.secret(question)] == [None, None]
    assert [record.getMessage() for record in caplog.records if "second factor" in record.getMessage()] == [
        "bob has a second factor, which EAP-MSCHAPv2 cannot ask for, and is refused; "
        "to mend it: let this user log in by eap-gtc, alone or in `then`, or remove `totp`"
    ]
    assert await desk.secret(SecretQuestion(b"bob", "m", code_follows=True)) == "password 12"
    assert await desk.secret(SecretQuestion(b"carol", "m", code_follows=True)) == NtHash(nt_password_hash("hunter4"))


async def test_a_password_that_must_be_changed(desk: PasswordDesk, file: Path) -> None:
    erin = b"erin@example.com"
    assert await desk.secret(SecretQuestion(erin, "m")) == MustChange("old password")
    assert isinstance(await desk.check(ask("erin@example.com", "old password")), Refused)
    mode = file.stat().st_mode
    assert await desk.change(NewPassword(erin, 'new "pass\\word" ✓\x7f', "m", OLD)) == Granted()
    assert await desk.secret(SecretQuestion(erin, "m")) == 'new "pass\\word" ✓\x7f'
    assert file.stat().st_mode == mode
    text = file.read_text()
    assert "must_change" not in text and "old password" not in text
    kept = [line for line in USERS.splitlines() if "must_change" not in line and "old password" not in line]
    assert [line for line in text.splitlines() if "pass\\" not in line] == kept
    assert await PasswordDesk(load_users(file)).secret(SecretQuestion(erin, "m")) == 'new "pass\\word" ✓\x7f'


async def test_whose_session_may_stand_for_the_log_in(desk: PasswordDesk, file: Path) -> None:
    """Whose password is not to be changed and who has no second factor; until the password is another one."""

    async def mark(of: PasswordDesk, user: str = "alice") -> bytes | None:
        return await of.resumption(ResumptionQuestion(user.encode(), "PEAP"))

    for user in ("bob", "carol", "dave", "erin@example.com", "nobody", "pat"):
        assert await mark(desk, user) is None
    before = await mark(desk)
    assert before is not None and await mark(desk, "ALICE") == before
    desk.reload(load_users(file))
    assert await mark(desk) == before
    await desk.change(NewPassword(b"alice", "another password", "m", NtHash(nt_password_hash("hunter2"))))
    assert await mark(desk) not in (None, before)
    assert await mark(PasswordDesk(load_users(file))) not in (None, await mark(desk))
    hashed = {"nt_hash": nt_password_hash("one")}, {"nt_hash": nt_password_hash("other")}
    marks = []
    for secret in hashed:
        desk.reload(FileUserStore({"alice": User(name="alice", **secret)}))
        marks.append(await mark(desk))
    assert len({None, before, *marks}) == 4


@pytest.mark.parametrize("password", ["short", "old password", ""])
async def test_new_passwords_that_are_not_good_enough(desk: PasswordDesk, file: Path, password: str) -> None:
    assert isinstance(await desk.change(NewPassword(b"erin@example.com", password, "m", OLD)), Refused)
    assert file.read_text() == USERS


async def test_a_new_password_of_nobody(desk: PasswordDesk) -> None:
    assert isinstance(await desk.change(NewPassword(b"nobody", "long enough", "m", OLD)), Refused)


async def test_a_password_that_cannot_be_kept_stays_the_old_one(
    desk: PasswordDesk, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.unlink()
    assert await desk.change(NewPassword(b"erin@example.com", "long enough", "m", OLD)) == Refused(
        "it could not be kept"
    )
    assert "erin@example.com could not be kept" in caplog.text and "long enough" not in caplog.text
    assert await desk.secret(SecretQuestion(b"erin@example.com", "m")) == MustChange("old password")


async def test_a_password_that_is_not_the_stored_one_any_more_changes_nothing(desk: PasswordDesk, file: Path) -> None:
    """Two log-ins with the old one, or an operator who has set another one meanwhile: the first wins."""
    erin = b"erin@example.com"
    both = await asyncio.gather(*(desk.change(NewPassword(erin, f"brand new {n}", "m", OLD)) for n in range(2)))
    assert both == [Granted(), Refused("the password was changed meanwhile")]
    assert await desk.secret(SecretQuestion(erin, "m")) == "brand new 0"
    assert 'password = "brand new 0"' in file.read_text()


async def test_a_change_is_done_to_its_end_also_when_the_client_hangs_up(
    desk: PasswordDesk, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the file has the new password and the gateway the old one, until it is read again."""
    begun, proceed = threading.Event(), threading.Event()

    def slowly(*arguments: Any) -> None:
        begun.set()
        proceed.wait(5)
        edit_user(*arguments)

    monkeypatch.setattr(users, "edit_user", slowly)
    changing = asyncio.create_task(desk.change(NewPassword(b"erin@example.com", "brand new", "m", OLD)))
    async with asyncio.timeout(5):
        while not begun.is_set():
            await asyncio.sleep(0.001)
        changing.cancel()
        await asyncio.gather(changing, return_exceptions=True)
        proceed.set()
        while 'password = "brand new"' not in file.read_text() or desk._changing:
            await asyncio.sleep(0.001)
    assert await desk.secret(SecretQuestion(b"erin@example.com", "m")) == "brand new"


async def test_a_change_waits_until_the_users_were_read_anew(desk: PasswordDesk, file: Path) -> None:
    async with desk.standing_still:
        changing = asyncio.create_task(desk.change(NewPassword(b"erin@example.com", "brand new", "m", OLD)))
        fresh = load_users(file)
        await asyncio.sleep(0.01)
        desk.reload(fresh)
    assert await changing == Granted()
    assert await desk.secret(SecretQuestion(b"erin@example.com", "m")) == "brand new"


async def test_who_was_taken_out_of_the_file_does_not_come_back_by_a_change(desk: PasswordDesk, file: Path) -> None:
    left = file.read_text().partition('[users."erin@example.com"]')[0]
    file.write_text(left)
    refused = await desk.change(NewPassword(b"erin@example.com", "long enough", "m", OLD))
    assert refused == Refused("it could not be kept") and file.read_text() == left


METHODS: dict[str, tuple[Callable[[bytes], EapPeerMethod], Callable[[], EapAuthenticatorMethod]]] = {
    "mschapv2": (MsChapV2Peer, MsChapV2Authenticator),
    "mschapv2-with-retries": (MsChapV2Peer, lambda: MsChapV2Authenticator(retries=2)),
    "md5": (Md5Peer, Md5Authenticator),
    "gtc": (GtcPeer, GtcAuthenticator),
}


def shapes(desk: PasswordDesk, method: str, user: str) -> list[tuple[int, ...]]:
    """Code, length and method's first octet of every packet of a log-in that fails with the password "wrong"."""
    make_peer, make_authenticator = METHODS[method]
    name = user.encode()

    async def ask(question: object) -> object:
        if isinstance(question, SecretQuestion):
            return await desk.secret(question)
        assert isinstance(question, PasswordCheck)
        return await desk.check(question)

    peer = EapPeer(Asker(lambda question: f"wrong{question.attempt}"), name, [lambda: make_peer(name)])
    authenticator = EapAuthenticator(ask, [make_authenticator])  # type: ignore[arg-type]
    packets = [finish(authenticator.start())]
    while not authenticator.failed:
        response = finish(peer.receive(packets[-1]))
        assert response is not None
        packets += [response, finish(authenticator.receive(response))]
    assert isinstance(authenticator.error, WrongPassword)
    return [(packet[0], len(packet), *packet[4:6]) for packet in packets if packet[4:5] != b"\x01"]


@pytest.mark.parametrize("method", METHODS)
def test_whoever_it_is_a_wrong_password_looks_the_same(desk: PasswordDesk, method: str) -> None:
    """Known, unknown, disabled, with a second factor, with a password to be changed: names of one length here."""
    users = ["alice", "nobod", "dave_", "carol", "erin@"]
    desk.reload(
        FileUserStore(
            {
                "alice": User(name="alice", password="hunter2"),
                "dave_": User(name="dave_", password="hunter2", disabled=True),
                "carol": User(name="carol", nt_hash=nt_password_hash("hunter2"), totp=Totp.parse(SEED)),
                "erin@": User(name="erin@", password="hunter2", must_change=True),
            }
        )
    )
    seen = [shapes(desk, method, user) for user in users]
    assert all(shape == seen[0] for shape in seen), seen


def test_a_hash_gives_way_to_a_password_and_nobody_is_added(file: Path) -> None:
    edit_user(file, "carol", {"password": "long enough", "nt_hash": None})
    text = file.read_text()
    assert '[users.carol]\npassword = "long enough"\ntotp' in text
    with pytest.raises(ConfigError, match="no user frank"):
        edit_user(file, "frank", {"password": "also long"})
    assert file.read_text() == text


@pytest.mark.parametrize(
    "text",
    [
        'users.alice = { password = "old" }\n',
        '[users]\nalice = { password = "old", ipv4 = "10.0.0.1" }\n',
        '[users.alice]\npassword = """\nold\nold"""\n',
        '[users.alice]\npassword = "old"\n[users.alice]\n',
    ],
)
def test_a_file_in_another_style_is_left_alone(tmp_path: Path, text: str) -> None:
    path = write_private(tmp_path / "users.toml", text)
    try:
        edit_user(path, "alice", {"password": "long enough"})
    except (ConfigError, ValueError):
        assert path.read_text() == text
    else:
        assert load_users(path).all[0].password == "long enough"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["users.toml"]


def test_a_folder_that_may_not_be_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("ikeway.gateway.edit_users.tempfile.mkstemp", refuse)
    with pytest.raises(HostError, match="cannot be changed: Permission denied"):
        edit_user(file, "alice", {"password": "long enough"})
    assert file.read_text() == USERS


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ('totp = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"', "`totp` belongs to a password"),
        ('psk = "x"\nmust_change = true', "`must_change` belongs to a password"),
        ('password = "x"\ntotp = "no base 32"', "base32"),
        ('password = "x"\ntotp = 5', "a text is needed"),
    ],
)
def test_mistakes(tmp_path: Path, entry: str, words: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load_users(write_private(tmp_path / "users.toml", f"[users.alice]\n{entry}\n"))
    assert words in str(caught.value)
    assert "GEZDGNB" not in str(caught.value).replace(str(tmp_path), "")

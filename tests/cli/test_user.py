"""`ikeway user`: second factors for the users of a gateway."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from ikeway.auth.totp import Totp
from ikeway.eap.questions import Granted, PasswordCheck
from ikeway.gateway.passwords import PasswordDesk
from ikeway.gateway.users import load_users
from tests.cli.test_commands import run
from tests.config.material import write_private

GATEWAY = """\
[gateway]
identity = "vpn.example.com"
users = "users.toml"
[connections.people]
login = "eap-gtc"
"""
USERS = '[users.Alice]\npassword = "hunter2"\n\n[users.bob]\npsk = "x"\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_private(tmp_path / "users.toml", USERS)
    return write_private(tmp_path / "gateway.toml", GATEWAY)


async def test_a_second_factor(config: Path) -> None:
    code, said, _ = run("user", "totp", "alice", "--config", str(config))
    assert code == 0
    uri, typed = said.splitlines()
    assert uri.startswith("otpauth://totp/vpn.example.com:Alice?secret=")
    told = Totp.parse(uri)
    assert Totp.parse(typed.partition(": ")[2]) == told
    users = load_users(config.parent / "users.toml")
    now = datetime(2026, 11, 30, tzinfo=UTC)
    answer = b"hunter2" + told.code(now).encode()
    assert await PasswordDesk(users, lambda: now).check(PasswordCheck(b"alice", answer, "EAP-GTC")) == Granted()


def test_it_is_not_replaced_unasked(config: Path) -> None:
    run("user", "totp", "alice", "--config", str(config))
    kept = (config.parent / "users.toml").read_text()
    code, said, why = run("user", "totp", "alice", "--config", str(config))
    assert (code, said) == (2, "")
    assert "--replace" in why
    assert (config.parent / "users.toml").read_text() == kept
    code, said, _ = run("user", "totp", "alice", "--replace", "--issuer", "My VPN", "--config", str(config))
    assert code == 0
    assert said.startswith("otpauth://totp/My%20VPN:Alice?")
    assert (config.parent / "users.toml").read_text() != kept


@pytest.mark.parametrize(("name", "words"), [("mallory", "no user mallory"), ("bob", "bob has no password")])
def test_who_cannot_have_one(config: Path, name: str, words: str) -> None:
    code, said, why = run("user", "totp", name, "--config", str(config))
    assert (code, said) == (2, "")
    assert words in why
    assert (config.parent / "users.toml").read_text() == USERS


def test_a_gateway_without_users(tmp_path: Path) -> None:
    path = write_private(tmp_path / "gateway.toml", GATEWAY.replace('users = "users.toml"\n', ""))
    code, _, why = run("user", "totp", "alice", "--config", str(path))
    assert code == 2
    assert "users file" in why

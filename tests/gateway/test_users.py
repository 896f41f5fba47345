"""The users file."""

from __future__ import annotations

from pathlib import Path

import pytest

from ikeway.errors import ConfigErrors
from ikeway.gateway.users import load_users
from tests.config.material import write_private

USERS = """\
[users.alice]
password = "hunter2"
ipv4 = "10.0.0.7"
ipv6 = "fd00::7"

[users."bob@example.com"]
psk = "0x0102"

[users.carol]
nt_hash = "0123456789abcdef0123456789ABCDEF"
disabled = true

[users."%any"]
psk = "for all"
"""


async def test_users(tmp_path: Path) -> None:
    users = load_users(write_private(tmp_path / "users.toml", USERS))
    alice = await users.find("Alice")
    assert alice is not None
    assert (alice.name, alice.password, str(alice.ipv4), str(alice.ipv6)) == ("alice", "hunter2", "10.0.0.7", "fd00::7")
    bob = await users.find("bob@example.com")
    assert bob is not None
    assert bob.psk == b"\x01\x02"
    carol = await users.find("carol")
    assert carol is not None
    assert carol.nt_hash == bytes.fromhex("0123456789abcdef" * 2)
    assert carol.disabled
    assert await users.find("dave") is None
    assert len(users.all) == 4


async def test_secrets_are_not_shown(tmp_path: Path) -> None:
    users = load_users(write_private(tmp_path / "users.toml", USERS))
    assert "hunter2" not in repr(users.all)
    assert "for all" not in repr(users.all)


def test_a_file_that_others_may_read(tmp_path: Path) -> None:
    path = write_private(tmp_path / "users.toml", "")
    path.chmod(0o640)
    with pytest.raises(ConfigErrors) as caught:
        load_users(path)
    (only,) = caught.value.errors
    assert only.remedy == f"chmod 600 {path}"


def test_what_else_is_wrong_in_a_file_that_others_may_read_is_told_too(tmp_path: Path) -> None:
    path = write_private(tmp_path / "users.toml", "[users.alice]\npasword = 5\n")
    path.chmod(0o640)
    with pytest.raises(ConfigErrors) as caught:
        load_users(path)
    assert [error.line for error in caught.value.errors] == [0, 2]


def test_every_mistake_with_its_line_and_no_secret(tmp_path: Path) -> None:
    path = write_private(
        tmp_path / "users.toml",
        """\
[users.alice]
password = ""
[users.ALICE]
password = "hunter2"
nt_hash = "0123456789abcdef0123456789abcdef"
[users.bob]
psk = "0xhunter3"
ipv4 = "fd00::1"
[users.carol]
nt_hash = "hunter4"
passwort = "hunter5"
[users."%any"]
password = "hunter6"
""",
    )
    with pytest.raises(ConfigErrors) as caught:
        load_users(path)
    assert [error.line for error in caught.value.errors] == [2, 3, 5, 7, 8, 10, 11, 12]
    assert all(error.remedy for error in caught.value.errors)
    assert "hunter" not in str(caught.value)


def test_a_large_file_is_read_in_a_moment(tmp_path: Path) -> None:
    text = "".join(f'[users."user{n}@example.com"]\npassword = "secret {n}"\n' for n in range(5000))
    assert len(load_users(write_private(tmp_path / "users.toml", text)).all) == 5000

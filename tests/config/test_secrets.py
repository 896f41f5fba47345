"""Secrets come from files, commands and the keyring, and never from files that others may read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ikeway.config import secrets
from ikeway.config.secrets import SecretSource, read_private, shared_secret
from ikeway.errors import ConfigError


def source(path: Path, text: str) -> SecretSource:
    """The source that a file with this line names."""
    from ikeway.config.fields import Section
    from ikeway.config.reading import read_document, validate

    class File(Section):
        password: secrets.Secret

    path.write_text(f"password = {text}\n")
    path.chmod(0o600)
    model, problems = validate(read_document(path), File)
    problems.raise_if_any()
    assert model is not None
    return model.password


def test_from_the_file_itself(tmp_path: Path) -> None:
    assert source(tmp_path / "a.toml", '"hunter2"').read("password") == "hunter2"


def test_from_another_file_next_to_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    (tmp_path / "secret").chmod(0o600)
    assert source(tmp_path / "a.toml", '{ file = "secret" }').read("password") == "hunter2"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_may_read_or_write(tmp_path: Path, mode: int) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    (tmp_path / "secret").chmod(mode)
    with pytest.raises(ConfigError) as caught:
        source(tmp_path / "a.toml", '{ file = "secret" }').read("password")
    assert caught.value.remedy == f"chmod 600 {tmp_path / 'secret'}"
    assert "hunter2" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_private(tmp_path / "none")


def test_from_a_command(tmp_path: Path) -> None:
    quoted = f'{{ command = "{sys.executable} -c \'print(\\"two words\\"); print(3)\'" }}'
    assert source(tmp_path / "a.toml", quoted).read("password") == "two words"
    listed = f'{{ command = ["{sys.executable}", "-c", "print(42)"] }}'
    assert source(tmp_path / "b.toml", listed).read("password") == "42"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("false", "exit code 1"),
        ("true", "printed nothing"),
        ("/nonexistent/command", "not found"),
        ("/dev/null", "could not be run"),
        ("sleep 30", "longer than"),
    ],
)
def test_commands_that_fail(tmp_path: Path, command: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "COMMAND_SECONDS", 0.3)
    with pytest.raises(ConfigError, match=reason) as caught:
        source(tmp_path / "a.toml", f'{{ command = "{command}" }}').read("password")
    assert caught.value.remedy


def test_from_the_keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keyring
    from keyring.backend import KeyringBackend

    class Memory(KeyringBackend):
        priority = 1

        def get_password(self, service: str, username: str) -> str | None:
            return {("ikeway", "work"): "hunter2"}.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            raise NotImplementedError

        def delete_password(self, service: str, username: str) -> None:
            raise NotImplementedError

    before = keyring.get_keyring()
    keyring.set_keyring(Memory())
    try:
        assert source(tmp_path / "a.toml", '{ keyring = "work" }').read("password") == "hunter2"
        with pytest.raises(ConfigError) as caught:
            source(tmp_path / "b.toml", '{ keyring = "home" }').read("password")
        assert caught.value.remedy == "store it: keyring set ikeway home"
    finally:
        keyring.set_keyring(before)


def test_without_the_keyring_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ConfigError) as caught:
        source(tmp_path / "a.toml", '{ keyring = "work" }').read("password")
    assert "ikeway[keyring]" in caught.value.remedy


@pytest.mark.parametrize("text", ['{ file = "a", command = "b" }', "{}", "5", '""', '{ value = "x" }'])
def test_not_exactly_one_source(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        source(tmp_path / "a.toml", text)


def test_shared_secrets() -> None:
    assert shared_secret("geheim é") == "geheim é".encode()
    assert shared_secret("0x00ff") == b"\x00\xff"
    assert shared_secret("0sAP8=") == b"\x00\xff"
    for wrong in ("0xabc", "0s!!!"):
        with pytest.raises(ConfigError) as caught:
            shared_secret(wrong)
        assert wrong not in str(caught.value)


def test_a_secret_is_not_in_the_environment_or_arguments_of_others(tmp_path: Path) -> None:
    """Its representation hides it, so that a log line or traceback cannot show it."""
    found = source(tmp_path / "a.toml", '"hunter2"')
    assert "hunter2" not in repr(found)
    assert "hunter2" not in str(found)
    assert "hunter2" not in " ".join(os.environ.values())

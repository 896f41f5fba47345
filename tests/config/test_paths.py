"""Profiles are found by name and by path."""

from __future__ import annotations

import pwd
from pathlib import Path
from types import SimpleNamespace

import pytest

from ikeway.config.paths import find_profile
from ikeway.errors import ConfigError


@pytest.fixture
def root_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "root"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("SUDO_USER", raising=False)
    return home


def _profile(home: Path, name: str) -> Path:
    path = home / ".config" / "ikeway" / "profiles" / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_by_name_and_by_path(root_home: Path) -> None:
    path = _profile(root_home, "work")
    assert find_profile("work") == path
    assert find_profile("./other.toml") == Path("other.toml")
    assert find_profile("~/x") == root_home / "x"


def test_unknown_names_tell_the_known_ones(root_home: Path) -> None:
    _profile(root_home, "work")
    with pytest.raises(ConfigError, match=r"no profile 'wrok' \(known: work\)"):
        find_profile("wrok")
    with pytest.raises(ConfigError, match="no name of a profile"):
        find_profile("a name")


def test_the_profile_of_who_called_sudo_is_pointed_at(
    root_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _profile(tmp_path / "ann", "work")
    monkeypatch.setattr(pwd, "getpwnam", {"ann": SimpleNamespace(pw_dir=str(tmp_path / "ann"))}.__getitem__)
    monkeypatch.setenv("SUDO_USER", "ann")
    with pytest.raises(ConfigError) as caught:
        find_profile("work")
    assert f"sudo ikeway up {path}" in caught.value.remedy
    with pytest.raises(ConfigError, match="no profile 'other'"):
        find_profile("other")

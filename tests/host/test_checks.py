import os
from pathlib import Path

import pytest

from ikeway.errors import HostError
from ikeway.host import checks, paths, runtime_directory

ALL = (1 << 41) - 1


def with_capabilities(monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    monkeypatch.setattr(checks, "_effective_capabilities", lambda: held)
    monkeypatch.setattr(checks, "check_device", lambda: None)


def test_all_that_is_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with_capabilities(monkeypatch, 0)
    with pytest.raises(HostError) as caught:
        checks.check_rights(ports=(500, 4500), esp_protocol=True)
    assert caught.value.expected == "CAP_NET_BIND_SERVICE and CAP_NET_ADMIN and CAP_NET_RAW"
    assert caught.value.remedy == "run it as root (sudo)"
    with pytest.raises(HostError) as caught:
        checks.check_rights()
    assert "`ikeway run`" in caught.value.remedy and "`ikeway proxy`" in caught.value.remedy
    checks.check_rights(tun=False, ports=(4500,))


def test_each_right_is_asked_for_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with_capabilities(monkeypatch, ALL & ~(1 << 13))
    checks.check_rights(ports=(500,))
    with pytest.raises(HostError, match="no CAP_NET_RAW"):
        checks.check_rights(esp_protocol=True)
    with_capabilities(monkeypatch, ALL & ~(1 << 10))
    monkeypatch.setattr(checks, "_first_unprivileged_port", lambda: 500)
    checks.check_rights(ports=(500,))


def test_a_missing_device_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checks, "_effective_capabilities", lambda: ALL)
    monkeypatch.setattr(checks, "_TUN", tmp_path / "tun")
    with pytest.raises(HostError, match="modprobe tun"):
        checks.check_rights()
    (tmp_path / "tun").touch()
    checks.check_rights()


def test_the_runtime_directory_is_private_and_refused_when_it_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = tmp_path / "deep" / "run"
    monkeypatch.setenv("IKEWAY_RUNTIME_DIR", str(wanted))
    assert runtime_directory() == wanted
    assert wanted.stat().st_mode & 0o777 == 0o700
    wanted.chmod(0o722)
    with pytest.raises(HostError, match="set IKEWAY_RUNTIME_DIR"):
        runtime_directory()
    wanted.rmdir()
    wanted.symlink_to(tmp_path)
    with pytest.raises(HostError):
        runtime_directory()


def test_the_runtime_directory_of_a_user_is_that_of_the_session(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("IKEWAY_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(paths, "_make_private", lambda path: path.is_relative_to(tmp_path))
    assert runtime_directory() == tmp_path / "ikeway"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert runtime_directory() == tmp_path / "ikeway"  # root of a user namespace: /run is not for it
    monkeypatch.setattr(paths, "_make_private", lambda path: True)
    assert runtime_directory() == Path("/run/ikeway")

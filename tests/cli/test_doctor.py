"""`ikeway doctor`: what it prints, its JSON, its exit code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from ikeway.cli.doctor import words
from ikeway.daemon import doctor
from ikeway.daemon.doctor import Examination
from ikeway.host.checks import Check, Use
from tests.cli.test_commands import run
from tests.unprivileged import as_user

FINE = Check("TUN device", True, "/dev/net/tun", uses=(Use.CLIENT, Use.ROOTLESS))
NO_RIGHTS = Check("rights", False, "no CAP_NET_ADMIN", "run it as root", (Use.CLIENT, Use.GATEWAY))
NO_NAMESPACES = Check("user namespaces", False, "forbidden", "sysctl this\nor that", (Use.ROOTLESS,))


def found(monkeypatch: pytest.MonkeyPatch, *checks: Check) -> None:
    async def examine() -> Examination:
        return Examination(checks)

    monkeypatch.setattr(doctor, "examine", examine)


def test_a_client_is_possible_with_root_or_without() -> None:
    assert Examination((FINE, NO_RIGHTS)).client
    assert not Examination((FINE, NO_RIGHTS)).possible(Use.CLIENT)
    assert Examination((FINE, NO_NAMESPACES)).client
    assert not Examination((FINE, NO_RIGHTS, NO_NAMESPACES)).client


def test_each_thing_that_is_missing_comes_with_what_to_do() -> None:
    told = "\n".join(words(Examination((FINE, NO_NAMESPACES))))
    assert re.search(r"^ok +TUN device +/dev/net/tun$", told, re.MULTILINE)
    assert re.search(r"^missing +user namespaces +forbidden$", told, re.MULTILINE)
    assert re.search(r"^ +matters for: rootless client$", told, re.MULTILINE)
    assert re.search(r"^ +to get it: sysctl this\n +or that$", told, re.MULTILINE)
    assert "Client           (ikeway up): possible" in told
    assert "(ikeway run, ikeway proxy): not possible as it is" in told


def test_the_exit_code_says_whether_a_client_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, FINE)
    assert run("doctor")[0] == 0
    found(monkeypatch, NO_RIGHTS, NO_NAMESPACES)
    code, told, _ = run("doctor", "--json")
    assert code == 6
    report: dict[str, Any] = json.loads(told)
    assert report["possible"] == {"client": False, "rootless client": False, "gateway": False, "speed": True}
    assert report["client"] is False
    assert report["checks"][0]["remedy"] == "run it as root"


@pytest.mark.root
def test_this_host(capfd: pytest.CaptureFixture[str]) -> None:
    code, told, _ = run("doctor", "--json")
    report = json.loads(told)
    assert (code == 0) == report["client"]
    names = [check["name"] for check in report["checks"]]
    assert len(names) == len(set(names)) > 15
    for check in report["checks"]:
        assert check["detail"]
        assert check["ok"] or check["remedy"], check["name"]


@pytest.mark.root
def test_a_user_without_rights_is_told_what_is_left() -> None:
    words = as_user(sys.executable, "-m", "ikeway", "doctor", "--json")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert not report["possible"]["client"]
    (rights,) = (check for check in report["checks"] if check["name"] == "rights")
    assert rights["detail"] == "no CAP_NET_BIND_SERVICE, no CAP_NET_ADMIN, no CAP_NET_RAW"
    assert done.returncode == (0 if report["possible"]["rootless client"] else 6)

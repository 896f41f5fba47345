"""The kernel back end against a real kernel: each suite is one boot of User Mode Linux, each of its cases a test here."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import pytest

from tests.kernel import others, peers, planes
from tests.kernel.case import Suite
from tests.kernel.machine import GuestFailed, UserModeLinux, missing

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(900),  # the first case of a suite waits for the whole boot
    pytest.mark.skipif(bool(missing()), reason=f"not installed: {missing()}"),
]

ROOT = Path(__file__).parents[2]
BOOT_SECONDS = 600
MODULES = (planes, peers, others)


@functools.cache
def outcome(module: str) -> dict[str, str]:
    """What came of each case of a suite: an empty text, or how it failed. One boot."""
    job = f"cd {ROOT} && exec {sys.executable} -m tests.kernel.guest {module} $(dirname $0)/results"
    try:
        result = UserModeLinux().run(job, timeout=BOOT_SECONDS)
    except GuestFailed as failed:
        return {"": str(failed)}
    lines = [json.loads(line) for line in result.files.get("results", "").splitlines()]
    return {"": f"the guest ended before this case:\n{result.output[-8000:]}"} | {
        line["name"]: line["failure"] for line in lines
    }


def cases() -> list[object]:
    """Every case of every suite."""
    found = []
    for module in MODULES:
        suite: Suite = module.SUITE
        found += [pytest.param(module.__name__, name, id=f"{module.__name__[13:]}-{name}") for name in suite.cases]
    return found


@pytest.mark.parametrize(("module", "name"), cases())
def test_in_user_mode_linux(module: str, name: str) -> None:
    results = outcome(module)
    failure = results.get(name, results[""])
    assert not failure, failure

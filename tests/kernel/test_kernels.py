"""The kernel back end against real kernels: each suite is one boot of a guest, each of its cases a test here.

User Mode Linux has no xfrm interfaces, so there policies hold for the whole host; what is special about the interfaces
is tried in qemu, where Python takes its time.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.kernel import others, peers, planes
from tests.kernel.machine import Qemu, UserModeLinux, missing

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(900),  # the first case of a suite waits for the whole boot
    pytest.mark.skipif(bool(missing()), reason=f"not there: {missing()}"),
]

ROOT = Path(__file__).parents[2]
BOOT_SECONDS = 700
IN_UML = (planes, peers, others)
IN_QEMU = {
    planes: ("policies_are_the_interface_s", "roads_quickly-kernel", "transport-esp-False",
             "a_move_goes_on_with_the_numbers-address", "foreign_states_stay"),
    # The commands themselves, whose start takes the longest.
    peers: ("a_full_tunnel_leaves_the_way_to_the_gateway_open",),
}  # fmt: skip


@functools.cache
def outcome(module: str, *names: str) -> dict[str, str]:
    """What came of each case of a suite: an empty text, or how it failed. One boot."""
    words = " ".join(names)
    patience = "export IKEWAY_TEST_PATIENCE=20; " if names else ""
    job = f"{patience}cd {ROOT} && exec {sys.executable} -m tests.kernel.guest {module} $(dirname $0)/results {words}"
    machine = Qemu() if names else UserModeLinux()
    result = machine.run(job, timeout=BOOT_SECONDS)
    lines = [json.loads(line) for line in result.files.get("results", "").splitlines()]
    return {"": f"the guest ended before this case:\n{result.output[-8000:]}"} | {
        line["name"]: line["failure"] for line in lines
    }


def cases() -> list[object]:
    """Every case of every suite."""
    return [
        pytest.param(module.__name__, name, id=f"{module.__name__.rpartition('.')[2]}-{name}")
        for module in IN_UML
        for name in module.SUITE.cases
    ]


@pytest.mark.parametrize(("module", "name"), cases())
def test_in_user_mode_linux(module: str, name: str) -> None:
    results = outcome(module)
    failure = results.get(name, results[""])
    assert not failure, failure


@pytest.mark.parametrize(
    ("module", "name"), [pytest.param(module, name, id=name) for module, names in IN_QEMU.items() for name in names]
)
def test_with_xfrm_interfaces(module: ModuleType, name: str) -> None:
    results = outcome(module.__name__, *IN_QEMU[module])
    failure = results.get(name, results[""])
    assert not failure, failure

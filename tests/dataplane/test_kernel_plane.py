"""What the kernel's data plane does beside the kernel: `tests/kernel` has it in real ones."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ikeway.dataplane.interface import DataPlaneDied
from ikeway.dataplane.kernel import plane as planes
from ikeway.dataplane.kernel.plane import KernelDataPlane
from ikeway.errors import HostError
from ikeway.host.linux import xfrm


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> KernelDataPlane:
    """One that was started, as far as it matters here."""
    plane = KernelDataPlane("vpn%d", [], [])
    plane._tunnel, plane._name = SimpleNamespace(name="vpn0", exists=lambda: False), "vpn0"
    plane._nl = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr(xfrm, "states", lambda nl: [])
    return plane


async def test_a_removed_interface_is_told_once(plane: KernelDataPlane) -> None:
    """However often somebody looks at the counters: a gateway begins anew for each time that it hears of it."""
    told: list[object] = []
    plane._on_event = told.append
    for _ in range(3):
        await plane.counters()
    assert told == [DataPlaneDied("somebody has removed the interface vpn0")]


async def test_a_status_may_be_asked_for_while_it_cannot_be_started_anew(
    plane: KernelDataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(self: object, changes: object) -> None:
        pass

    def refuse() -> None:
        raise OSError(93, "Protocol not supported")

    plane._tunnel.close = gone.__get__(plane._tunnel)  # type: ignore[union-attr, method-assign]
    monkeypatch.setattr(planes.xfrm, "open_xfrm", refuse)
    with pytest.raises(HostError, match="the kernel cannot carry ESP"):
        await plane.restart()
    assert plane.interface == "vpn0"
    with pytest.raises(HostError, match="does not run"):
        await plane.counters()

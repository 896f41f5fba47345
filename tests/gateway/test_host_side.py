"""What the gateway does to its host: one change at a time, each to its end, and nothing after the end."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ikeway.address import Address
from ikeway.errors import HostError
from ikeway.gateway.host_side import HostSide
from ikeway.host import GatewayConfiguration


class FakeNetwork:
    """A host whose every change takes until `go`."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.did: list[str] = []
        self.refusal: HostError | None = None

    async def configure_gateway(self, configuration: GatewayConfiguration) -> None:
        self.did.append(f"begun {configuration.pools[0]}")
        await self.go.wait()
        if self.refusal is not None:
            raise self.refusal
        self.did.append("done")

    async def close(self) -> None:
        self.did.append("closed")

    def outer_mtu(self, remote: Address) -> int:
        return 1500

    def local_addresses(self) -> tuple[ipaddress.IPv4Address, ...]:
        return ()


class Stage:
    def __init__(self) -> None:
        self.network = FakeNetwork()
        self.pools = [ipaddress.ip_network("10.0.0.0/24")]
        self.placement: Any = SimpleNamespace(routes=lambda worker: self.pools, routes_have_changed=False)
        host = SimpleNamespace(pools=(), addresses=(), mtu=0, forward=True, masquerade=False, masquerade_interfaces=())
        config: Any = SimpleNamespace(host=host, listen=())
        runner: Any = SimpleNamespace(interfaces=("ikeway0",), set_mtu=self._set_mtu)
        self.side = HostSide(self.network, runner, self.placement, lambda: config)  # type: ignore[arg-type]

    async def _set_mtu(self, mtu: int) -> None:
        self.mtu = mtu

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0)


async def test_changes_follow_one_another_and_the_later_one_is_of_then() -> None:
    stage = Stage()
    first = asyncio.create_task(stage.side.follow())
    await stage.until(lambda: bool(stage.network.did))
    second = asyncio.create_task(stage.side.follow())
    await asyncio.sleep(0.01)
    stage.pools[0] = ipaddress.ip_network("10.1.0.0/24")
    stage.network.go.set()
    await asyncio.gather(first, second)
    assert stage.network.did == ["begun 10.0.0.0/24", "done", "begun 10.1.0.0/24", "done"]
    assert stage.side.mtu == stage.mtu > 1000


async def test_a_change_is_carried_to_its_end_when_who_asked_for_it_has_gone() -> None:
    stage = Stage()
    client = asyncio.create_task(stage.side.follow())
    await stage.until(lambda: bool(stage.network.did))
    client.cancel()
    await asyncio.gather(client, return_exceptions=True)
    stage.network.go.set()
    await stage.until(lambda: "done" in stage.network.did)


async def test_the_end_waits_for_the_change_under_way_and_there_is_none_after_it() -> None:
    stage = Stage()
    changing = asyncio.create_task(stage.side.follow())
    await stage.until(lambda: bool(stage.network.did))
    closing = asyncio.create_task(stage.side.close())
    late = asyncio.create_task(stage.side.follow(anew=True))
    await asyncio.sleep(0.01)
    assert stage.network.did == ["begun 10.0.0.0/24"]
    stage.network.go.set()
    await asyncio.gather(changing, closing, late)
    assert stage.network.did == ["begun 10.0.0.0/24", "done", "closed"]


async def test_routes_that_could_not_be_made_are_still_to_be_made() -> None:
    stage = Stage()
    stage.network.go.set()
    stage.network.refusal = HostError("no")
    stage.placement.routes_have_changed = True
    with pytest.raises(HostError):
        await stage.side.follow()
    assert stage.placement.routes_have_changed
    stage.network.refusal = None
    await stage.side.follow()
    assert not stage.placement.routes_have_changed

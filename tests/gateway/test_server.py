"""The gateway around its engine: reloads while clients log in, the end, a data plane that is replaced."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ikeway.address import Address
from ikeway.auth.identity import Identity
from ikeway.dataplane.interface import DataPlaneDied
from ikeway.errors import HostError
from ikeway.gateway import server
from ikeway.gateway.config import GatewayConfig, load_gateway_config
from ikeway.gateway.server import Gateway
from ikeway.ike import events as ike
from ikeway.ike.questions import SelectConnection
from tests.config.material import make_pki, write_private

CONFIG = """\
[gateway]
certificate = "vpn.pem"
key = "vpn.key"
users = "users.toml"
[pools.office]
ipv4 = "10.99.0.0/24"
[connections.people]
login = "eap-mschapv2"
pools = "office"
"""
USERS = '[users.alice]\npassword = "hunter2"\n'


class FakeRunner:
    """As much of a `Runner` as the gateway looks at."""

    def __init__(self, settings: Any) -> None:
        self.started = False
        self.handlers: dict[type, Any] = {}
        self.listeners: list[Callable[[ike.Event], None]] = []
        self.closed: list[Any] = []
        self.responders: list[Any] = []
        self.restarts: list[bool] = []
        self.engine = SimpleNamespace(sas=[], reconfigure=self.responders.append, close_all=lambda now: None)
        self.driver = SimpleNamespace(
            listen=self._listen,
            answer_with=self.handlers.__setitem__,
            answer_of_sa=self.handlers.__setitem__,
            command=lambda action: action(0.0),
            on_refused_sa=None,
        )
        self.workers, self.interfaces, self.carries_esp_protocol = 1, ("ikeway0",), True
        self.is_started = False
        self.stopped = False
        self.ready_when_open: bool | None = None

    @property
    def interface(self) -> str:
        return self.interfaces[0]

    async def start(self) -> None:
        self.is_started = True
        asyncio.get_running_loop().call_soon(self._knock)

    def _knock(self) -> None:
        self.ready_when_open = SelectConnection in self.handlers

    def _listen(self, listener: Callable[[ike.Event], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def responder(self, wanted: Any) -> Any:
        return wanted

    async def set_mtu(self, mtu: int) -> None: ...

    async def counters(self) -> dict[Any, Any]:
        return {}

    async def restart_dataplane(self, worker: int = 0) -> bool:
        return self.restarts.pop(0)

    async def stop(self) -> None:
        self.stopped = True

    def tell(self, event: ike.Event) -> None:
        for listener in tuple(self.listeners):
            listener(event)


class FakeNetwork:
    def __init__(self) -> None:
        self.did: list[str] = []
        self.refusals = 0

    async def configure_gateway(self, configuration: Any) -> None:
        await asyncio.sleep(0)
        if self.refusals:
            self.refusals -= 1
            raise HostError("nft refused the rules")
        self.did.append("made")

    async def close(self) -> None:
        self.did.append("undone")

    def outer_mtu(self, remote: Address) -> int:
        return 1500

    def local_addresses(self) -> tuple[Any, ...]:
        return ()


class FakeSa:
    """An IKE SA of alice."""

    def __init__(self, runner: FakeRunner, config: GatewayConfig, *, established: bool) -> None:
        self.connection = config.candidates[0].connections[0]
        self.connection_id, self.established, self.successor = 7, established, None
        self.remote, self.local = Address("198.51.100.7", 4500), Address("192.0.2.1", 4500)
        self.eap_identity, self.remote_identity = b"alice", Identity.parse("alice")
        self.peer_certificate, self.proofs, self.created, self.children = None, (), 0.0, ()
        self._runner = runner
        runner.engine.sas.append(self)

    def close(self, now: float) -> None:
        self._runner.closed.append(self)
        self._runner.engine.sas.remove(self)
        self._runner.tell(ike.IkeClosed(self, None, True))  # type: ignore[arg-type]


class Stage:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = load_gateway_config(folder / "gateway.toml")
        self.network = FakeNetwork()

    async def start(self) -> Gateway:
        self.gateway = Gateway(self.config)
        self.runner: Any = self.gateway.runner
        await self.gateway.start()
        return self.gateway

    def disable(self) -> None:
        write_private(self.folder / "users.toml", USERS + "disabled = true\n")

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    make_pki(tmp_path)
    write_private(tmp_path / "users.toml", USERS)
    write_private(tmp_path / "gateway.toml", CONFIG)
    made = Stage(tmp_path)

    async def nothing_stale() -> list[Any]:
        return []

    monkeypatch.setattr(server, "Runner", FakeRunner)
    monkeypatch.setattr(server, "check_rights", lambda **_: None)
    monkeypatch.setattr(server, "recover_stale", nothing_stale)
    monkeypatch.setattr(server, "open_host_network", lambda: made.network)
    monkeypatch.setattr(server, "_PAUSES", (0.0, 0.0, 0.0))
    return made


async def test_who_knocks_as_soon_as_the_door_is_open_is_answered(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def listen(*_: object) -> None:
        await asyncio.sleep(0.01)

    monkeypatch.setattr(server.RadiusDesk, "start", listen)
    await stage.start()
    assert stage.runner.ready_when_open
    await stage.gateway.close()


async def test_a_log_in_that_was_under_way_at_a_reload_is_judged_by_what_holds_now(stage: Stage) -> None:
    gateway = await stage.start()
    sa = FakeSa(stage.runner, stage.config, established=False)
    stage.disable()
    assert await gateway.reload() == []
    assert not stage.runner.closed
    sa.established = True
    stage.runner.tell(ike.IkeEstablished(sa))  # type: ignore[arg-type]
    await stage.until(lambda: stage.runner.closed == [sa])
    await gateway.close()


async def test_a_log_in_after_the_reload_is_not_judged_twice(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = await stage.start()
    await gateway.reload()
    monkeypatch.setattr(gateway, "_is_welcome", None)  # would fail
    stage.runner.tell(ike.IkeEstablished(FakeSa(stage.runner, stage.config, established=True)))  # type: ignore[arg-type]
    assert not gateway._judging
    await gateway.close()


async def test_two_reloads_follow_one_another(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read first must not take effect last."""
    gateway = await stage.start()
    versions = iter(("first", "second"))
    slow = asyncio.Event()

    async def read(_: object) -> GatewayConfig:
        found = dataclasses.replace(stage.config, application_version=next(versions))
        if found.application_version == "first":
            await slow.wait()
        return found

    monkeypatch.setattr(server, "in_thread", read)
    reloads = [asyncio.create_task(gateway.reload()) for _ in range(2)]
    await asyncio.sleep(0.01)
    slow.set()
    await asyncio.gather(*reloads)
    assert gateway.config.application_version == "second"
    await gateway.close()


async def test_who_may_not_connect_any_more_has_to_go_whatever_the_host_says(stage: Stage) -> None:
    gateway = await stage.start()
    sa = FakeSa(stage.runner, stage.config, established=True)
    stage.disable()
    stage.network.refusals = 1
    with pytest.raises(HostError, match="nft"):
        await gateway.reload()
    assert stage.runner.closed == [sa]
    await gateway.close()


async def test_a_reload_that_the_end_overtakes_changes_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = await stage.start()
    proceed = asyncio.Event()

    async def read(_: object) -> GatewayConfig:
        await proceed.wait()
        return stage.config

    monkeypatch.setattr(server, "in_thread", read)
    reload = asyncio.create_task(gateway.reload())
    await asyncio.sleep(0.01)
    await gateway.close()
    proceed.set()
    with pytest.raises(HostError, match="about to end"):
        await reload
    assert stage.network.did == ["made", "undone"] and stage.runner.responders == [None]


async def test_what_fails_at_the_end_keeps_nothing_else_from_being_undone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await stage.start()

    async def fail(_: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(server.RadiusDesk, "close", fail)
    await gateway.close()
    assert stage.network.did == ["made", "undone"] and stage.runner.stopped
    assert "broken" in caplog.text
    await gateway.wait()


async def test_a_device_that_was_made_anew_gets_its_routes_also_when_the_host_first_refuses(stage: Stage) -> None:
    gateway = await stage.start()
    stage.runner.restarts = [True]  # made anew once; a worker that runs is not started beside itself
    stage.network.refusals = 1
    stage.runner.on_dataplane_died(DataPlaneDied("gone", 0))
    await stage.until(lambda: gateway._restarting is None)
    assert stage.network.did[-1] == "made" and stage.network.did.count("made") == 2
    assert not stage.runner.restarts and stage.runner.responders[-1] is not None
    await gateway.close()

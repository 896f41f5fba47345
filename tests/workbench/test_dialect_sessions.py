"""A whole log-in in AnyConnect's dialect on the workbench: shown, recorded, opened again, and with a relay between."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest
from rich.console import Console

from ikeway.address import Address
from ikeway.auth.identity import Identity
from ikeway.client.profile import load_profile
from ikeway.gateway.config import load_gateway_config
from ikeway.workbench.bench import Bench, BenchSettings, Hooks
from ikeway.workbench.bench.dialects import client_dialect
from ikeway.workbench.bench.running import Opened
from ikeway.workbench.bench.standin import GatewayStandIn, Knobs, call_with_eap, call_with_profile
from ikeway.workbench.paint import Painter
from ikeway.workbench.recording import Note, Recorder, load
from ikeway.workbench.recording.opening import open_all
from ikeway.workbench.recording.testcase import write_test
from ikeway.workbench.relay import Relay, Upstream
from tests.client.test_dialect import LIVE_GATEWAY, LIVE_PROFILE, PASSWORD
from tests.config.material import make_pki, write_private
from tests.workbench.test_recording import pytest_of

SETTINGS = BenchSettings(listen=("127.0.0.1",), port=0, nat_port=0)
SECONDS = 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_pki(tmp_path)
    write_private(tmp_path / "users.toml", '[users.alice]\npassword = "wonderland"\n')
    write_private(tmp_path / "gateway.toml", LIVE_GATEWAY.format(keys="", settings=""))
    write_private(tmp_path / "work.toml", LIVE_PROFILE.format(address="192.0.2.1", settings="", login=PASSWORD))
    return tmp_path


async def test_a_gateway_that_is_stood_in_for_takes_addresses_back(folder: Path) -> None:
    server = GatewayStandIn(load_gateway_config(folder / "gateway.toml"))
    given = []
    async with Bench(SETTINGS, server) as serving:
        for _ in range(3):
            client = call_with_profile(load_profile(folder / "work.toml"), None)
            async with asyncio.timeout(SECONDS), Bench(SETTINGS, client) as calling:
                calling.connect(client.connection, Address("127.0.0.1", serving.nat_port))
                given.append((await calling.established.get()).configuration)
            async with asyncio.timeout(SECONDS):
                await serving.wait_closed()
    assert given[0] and given == given[:1] * 3


async def test_a_known_dialect_is_held_nowhere_and_its_password_is_shown_nowhere(folder: Path) -> None:
    text = io.StringIO()
    painter = Painter(Console(file=text, width=200))
    server = GatewayStandIn(load_gateway_config(folder / "gateway.toml"))
    client = call_with_profile(load_profile(folder / "work.toml"), None)
    with Recorder(folder / "server.ikr", "responder") as recorder:
        async with (
            Bench(SETTINGS, server, recorder=recorder, painter=painter) as serving,
            Bench(SETTINGS, client) as calling,
        ):
            calling.connect(client.connection, Address("127.0.0.1", serving.nat_port))
            async with asyncio.timeout(SECONDS):
                await calling.established.get()
                await serving.established.get()
    shown = text.getvalue()
    assert 'type="auth-reply"' in shown and "<username>alice</username>" in shown, shown
    assert "<password>**********</password>" in shown
    assert "wonderland" not in shown
    recording = load(folder / "server.ikr")
    assert not [each for each in recording.entries if isinstance(each, Note) and each.kind == "held"]
    # Long messages went in Cisco's fragments; they open to the same.
    opened = list(open_all(recording))
    assert [str(each.error) for each in opened if each.error is not None] == []
    found = [each.message for each in opened]
    assert all(each.message in found for each in recording.messages)
    assert len(recording.datagrams) > len(opened)
    write_test(folder / "server.ikr", folder / "test_session.py")
    assert pytest_of(folder / "test_session.py") == 0


async def test_the_password_log_in_passes_a_relay_as_it_is(folder: Path) -> None:
    """AnyConnect-EAP gives no key: the relay needs a certificate that the client trusts, and nothing else."""
    server = GatewayStandIn(load_gateway_config(folder / "gateway.toml"))
    client = call_with_profile(load_profile(folder / "work.toml"), None)
    there = GatewayStandIn(load_gateway_config(folder / "gateway.toml"))
    dialect = client_dialect("anyconnect")
    assert dialect.identity is not None
    upstream_caller = call_with_eap(dialect.identity, Knobs(dialect=dialect))
    text = io.StringIO()
    tools = Opened(Hooks(), None, None, Painter(Console(file=text, width=200)))
    async with Bench(SETTINGS, server) as serving:
        upstream = Upstream(remote=Address("127.0.0.1", serving.nat_port), caller=upstream_caller, pass_eap=True)
        async with Relay(SETTINGS, there, upstream, tools) as relay, Bench(SETTINGS, client) as calling:
            calling.connect(client.connection, Address("127.0.0.1", relay.downstream.nat_port))
            async with asyncio.timeout(SECONDS):
                sa, other = await calling.established.get(), await serving.established.get()
            assert other.eap_identity == b"alice"
            assert sa.configuration and "wonderland" not in text.getvalue()


async def test_a_log_in_that_radius_judges_is_refused_with_the_way_out(folder: Path) -> None:
    """A stand-in sends no records of sessions that are none to the company's RADIUS servers."""
    path = folder / "radius.toml"
    text = (folder / "gateway.toml").read_text()
    head = text[: text.index("[connections")]
    path.write_text(
        f'{head}\n[radius.corp]\nservers = ["127.0.0.1:9"]\nsecret = "a secret of enough letters"\n\n'
        '[connections.people]\nlogin = "eap"\nradius = "corp"\npools = "office"\n'
    )
    path.chmod(0o600)
    server = GatewayStandIn(load_gateway_config(path))
    client = call_with_eap(Identity.parse("alice@lab.test"))
    async with Bench(SETTINGS, server) as serving, Bench(SETTINGS, client) as calling:
        calling.connect(client.connection, Address("127.0.0.1", serving.nat_port))
        async with asyncio.timeout(SECONDS):
            _, error = await serving.wait_closed()
    assert error is not None and "a stand-in asks none" in str(error) and "take `radius` out" in str(error)

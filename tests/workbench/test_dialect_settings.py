"""Settings of dialects on the workbench's command line; FortiGate's second factor on it: shown, held nowhere, relayed."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest
from rich.console import Console

from ikeway.address import Address
from ikeway.client.profile import load_profile
from ikeway.dialects.fortigate_eap import BEFORE_GTC
from ikeway.eap.packet import EapType, MethodType
from ikeway.errors import ConfigError, IkewayError
from ikeway.gateway.config import load_gateway_config
from ikeway.ike.settings import EapExpected
from ikeway.wire.message import Message
from ikeway.wire.payloads import Eap
from ikeway.wire.registry import ExchangeType
from ikeway.workbench.bench import Bench, BenchSettings, Hooks
from ikeway.workbench.bench.dialects import (
    CONNECTION_SECTIONS,
    PROFILE_SECTIONS,
    client_dialect,
    gateway_dialect,
    into_connections,
    into_profile,
    parse,
)
from ikeway.workbench.bench.running import Opened
from ikeway.workbench.bench.standin import GatewayStandIn, Knobs, call_with_eap, call_with_profile
from ikeway.workbench.explain import explain, unknowns
from ikeway.workbench.paint import Painter
from ikeway.workbench.recording import Note, Recorder, load
from ikeway.workbench.relay import Relay, Upstream
from tests.client.test_dialect import FORTI, LIVE_GATEWAY, LIVE_PROFILE, OURS, PASSWORD, SEED
from tests.config.material import make_pki, write_private

SETTINGS = BenchSettings(listen=("127.0.0.1",), port=0, nat_port=0)
SECONDS = 30
LOGIN = f'{PASSWORD}\nmethod = "eap-mschapv2"\ntotp = "{SEED}"'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_pki(tmp_path)
    write_private(tmp_path / "users.toml", f'[users.alice]\npassword = "wonderland"\ntotp = "{SEED}"\n')
    write_private(tmp_path / "gateway.toml", OURS + FORTI.replace('identities = "alice"\n', ""))
    text = LIVE_PROFILE.format(address="192.0.2.1", settings="", login=LOGIN)
    write_private(tmp_path / "work.toml", text.replace("anyconnect", "fortigate"))
    write_private(tmp_path / "cisco.toml", LIVE_PROFILE.format(address="192.0.2.1", settings="", login=PASSWORD))
    write_private(tmp_path / "cisco-gateway.toml", LIVE_GATEWAY.format(keys="", settings=""))
    return tmp_path


# --- settings ---------------------------------------------------------------------------------------------------------


def test_values_are_those_of_a_file_or_texts() -> None:
    texts = ["identity_type=11", "vendor_ids=0x0102", 'mac_addresses=["a", "b"]', "group=All of us", "host_scan=echo"]
    assert parse(texts, "anyconnect", PROFILE_SECTIONS) == {
        "identity_type": 11,
        "vendor_ids": "0x0102",
        "mac_addresses": ["a", "b"],
        "group": "All of us",
        "host_scan": "echo",
    }
    assert parse(["banner=7"], "anyconnect", CONNECTION_SECTIONS) == {"banner": "7"}
    assert parse(["notify=false", "network_id=7"], "fortigate", PROFILE_SECTIONS) == {"notify": False, "network_id": 7}


@pytest.mark.parametrize(
    "text,dialect,expected",
    [
        ("identity_type=0", "anyconnect", "out of range"),
        ("identity_type", "anyconnect", "KEY=VALUE"),
        ("colour=red", "anyconnect", "no setting of the dialect anyconnect"),
        ("notify=true", "windows", "it has no settings"),
        ("host_scan=a token", "anyconnect", "command lines"),
        ("second_factor=maybe", "fortigate", "second_factor"),
        ("group=a", "", "--dialect"),
    ],
)
def test_what_is_no_setting_is_refused_in_words(text: str, dialect: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        client_dialect(dialect, [text])
    assert expected in str(caught.value) and caught.value.remedy


def test_settings_of_stand_ins_without_a_file() -> None:
    made = client_dialect("anyconnect", ["identity_type=11", "vendor_ids=0x0102"])
    assert made.identity is not None and int(made.identity.type) == 11
    assert made.vendor_ids == (b"\x01\x02",)
    assert {int(each.type) for each in gateway_dialect("anyconnect", ["banner=Hello"]).replies} == {28672}
    assert len(client_dialect("fortigate", ["network_id=7"]).init_payloads) == 1


def test_settings_over_those_of_files(folder: Path) -> None:
    changed = load_profile(folder / "cisco.toml", change=into_profile(["identity_type=11"])).connection()
    assert int(changed.local_identity.type) == 11  # type: ignore[union-attr]
    found = load_gateway_config(folder / "cisco-gateway.toml", change=into_connections(["attempts=9"]))
    cisco = next(each.connections[0] for each in found.candidates if each.name == "cisco")
    assert isinstance(cisco.remote_expectation, EapExpected)
    (make,) = cisco.remote_expectation.new_authenticator(lambda question: None)._untried  # type: ignore[arg-type,return-value,attr-defined]
    assert make()._options.attempts == 9  # type: ignore[attr-defined]
    plain = write_private(folder / "plain.toml", '[gateway]\naddress = "a.example"\n[login]\nusername = "alice"\n')
    with pytest.raises(ConfigError, match="the file speaks none"):
        load_profile(plain, change=into_profile(["identity_type=11"]))
    assert load_profile(plain, change=into_profile([])).username == "alice"


# --- FortiGate's second factor ----------------------------------------------------------------------------------------

ODD = b"\x03\x08\x00\x05\x06"


def message_with(packet: bytes) -> Message:
    return Message(bytes(8), bytes(8), ExchangeType.IKE_AUTH, False, True, 5, (Eap(packet),))


def test_the_odd_success_is_explained_and_known_to_who_takes_it() -> None:
    text = "\n".join(line.text for line in explain(message_with(ODD)))
    assert "GTC comes next" in text
    assert unknowns(message_with(ODD), lambda method: method == BEFORE_GTC) == []
    assert unknowns(message_with(ODD), lambda method: method == MethodType(0, EapType.GTC))
    assert unknowns(message_with(ODD[:4] + b"\x1a"), lambda method: True)


async def test_the_second_factor_is_held_nowhere_and_shown(folder: Path) -> None:
    text = io.StringIO()
    server = GatewayStandIn(load_gateway_config(folder / "gateway.toml"))
    client = call_with_profile(load_profile(folder / "work.toml"), None)
    with Recorder(folder / "client.ikr", "initiator") as recorder:
        async with (
            Bench(SETTINGS, server) as serving,
            Bench(SETTINGS, client, recorder=recorder, painter=Painter(Console(file=text, width=200))) as calling,
        ):
            calling.connect(client.connection, Address("127.0.0.1", serving.nat_port))
            async with asyncio.timeout(SECONDS):
                await calling.established.get()
                other = await serving.established.get()
            assert other.eap_identity == b"alice"
    assert "GTC comes next" in text.getvalue() and "wonderland" not in text.getvalue()
    entries = load(folder / "client.ikr").entries
    assert not [each for each in entries if isinstance(each, Note) and each.kind == "held"]


@pytest.mark.parametrize("second_factor", [True, False], ids=["in the dialect", "without it"])
async def test_the_second_factor_passes_a_relay(folder: Path, second_factor: bool) -> None:
    """In the dialect alone: AUTH after it is made without a key, so that the relay can make it."""
    server = GatewayStandIn(load_gateway_config(folder / "gateway.toml"))
    there = GatewayStandIn(load_gateway_config(folder / "gateway.toml"))
    client = call_with_profile(load_profile(folder / "work.toml"), None)
    knobs = Knobs(dialect=client_dialect("fortigate"))
    assert client.connection.local_identity is not None
    upstream_caller = call_with_eap(client.connection.local_identity, knobs)
    tools = Opened(Hooks(), None, None, Painter(Console(file=io.StringIO(), width=200)))
    async with Bench(SETTINGS, server) as serving:
        upstream = Upstream(
            remote=Address("127.0.0.1", serving.nat_port),
            caller=upstream_caller,
            password="wonderland",
            pass_eap=True,
            second_factor=second_factor,
        )
        async with Relay(SETTINGS, there, upstream, tools) as relay, Bench(SETTINGS, client) as calling:
            sa = calling.connect(client.connection, Address("127.0.0.1", relay.downstream.nat_port))
            async with asyncio.timeout(SECONDS):
                if second_factor:
                    await calling.established.get()
                    assert (await serving.established.get()).eap_identity == b"alice"
                else:
                    closed, error = await calling.closed.get()
                    assert closed is sa and isinstance(error, IkewayError)

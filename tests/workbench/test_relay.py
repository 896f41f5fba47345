"""The relay on loopback: EAP passes octet for octet, unknown payloads pass, and what cannot pass is said."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from ikeway.address import Address
from ikeway.auth.identity import Identity
from ikeway.cli import build
from ikeway.eap.packet import EapCode, EapPacket, MethodType
from ikeway.errors import IkewayError
from ikeway.ike.questions import AssignAddresses
from ikeway.wire import (
    ConfigurationAttribute,
    ExchangeType,
    Notify,
    NotifyType,
    PayloadType,
    UnknownPayload,
    VendorId,
)
from ikeway.workbench.bench import (
    Bench,
    BenchSettings,
    Caller,
    Decision,
    Engineer,
    Go,
    Held,
    Hooks,
    Passing,
    StandIn,
    serve_psk,
)
from ikeway.workbench.bench.desk import HoldWhat
from ikeway.workbench.bench.running import Opened
from ikeway.workbench.bench.standin import call_with_psk
from ikeway.workbench.paint import Painter
from ikeway.workbench.recording import Note, Recorder, load
from ikeway.workbench.relay import Relay, RelayError, Upstream
from ikeway.workbench.relay.eap import EapPipe, PassingAuthenticator, PassingPeer

SECRET = b"correct horse battery staple"
ALICE = Identity.parse("alice@lab.test")
SETTINGS = BenchSettings(listen=("127.0.0.1",), port=0, nat_port=0, hold=HoldWhat.NOTHING)
SECONDS = 30


def loopback(port: int) -> Address:
    return Address("127.0.0.1", port)


@contextlib.asynccontextmanager
async def chain(
    server: StandIn,
    client: Caller,
    *,
    server_hooks: Hooks | None = None,
    client_hooks: Hooks | None = None,
    relay_hooks: Hooks | None = None,
    engineer: Engineer | None = None,
    recorder: Recorder | None = None,
) -> AsyncIterator[tuple[Bench, Bench, Relay]]:
    """client, relay, server."""
    text = io.StringIO()
    tools = Opened(relay_hooks or Hooks(), engineer, recorder, Painter(Console(file=text, width=200)))
    async with Bench(SETTINGS, server, hooks=server_hooks) as serving:
        upstream = Upstream(remote=loopback(serving.nat_port), caller=call_with_psk(SECRET, ALICE))
        async with (
            Relay(SETTINGS, serve_psk(SECRET), upstream, tools) as relay,
            Bench(SETTINGS, client, hooks=client_hooks) as calling,
        ):
            calling.connect(client.connection, loopback(relay.downstream.nat_port))
            yield calling, serving, relay


async def test_unknown_payloads_and_vendor_ids_pass_both_ways() -> None:
    mine, theirs = UnknownPayload(PayloadType(200), False, b"question"), Notify(NotifyType(45000), b"answer")
    heard: list[Passing] = []

    def client_hook(m: Passing) -> None:
        if m.sent and m.is_(ExchangeType.IKE_SA_INIT):
            m.add(VendorId(b"of the client"))
        if m.sent and m.is_(ExchangeType.IKE_AUTH):
            m.add(mine)
        heard.append(m)

    def server_hook(m: Passing) -> None:
        if m.sent and m.is_(ExchangeType.IKE_AUTH):
            m.add(theirs)
        heard.append(m)

    async with chain(
        replace(serve_psk(SECRET), address="192.0.2.77"), call_with_psk(SECRET, ALICE),
        server_hooks=Hooks([server_hook]), client_hooks=Hooks([client_hook]),
    ) as (calling, serving, _):  # fmt: skip
        async with asyncio.timeout(SECONDS):
            sa, other = await calling.established.get(), await serving.established.get()
        assert sa.configuration == other.configuration and sa.configuration[0].value == bytes([192, 0, 2, 77])
        assert b"of the client" in other.peer.vendor_ids
        assert other.remote_identity == ALICE
    came = [m for m in heard if m.received and m.is_(ExchangeType.IKE_AUTH)]
    assert any(mine in m.payloads for m in came if not m.is_response)
    assert any(theirs in m.payloads for m in came if m.is_response)


async def test_a_recording_says_which_side_a_message_is_of(tmp_path: Path) -> None:
    path = tmp_path / "relay.ikr"
    with Recorder(path, "relay") as recorder:
        async with chain(serve_psk(SECRET), call_with_psk(SECRET, ALICE), recorder=recorder) as (calling, _, _relay):
            async with asyncio.timeout(SECONDS):
                await calling.established.get()
    recording = load(path)
    labels = [each.label for each in recording.messages]
    assert labels[:2] == ["client", "client"] and labels.count("server") >= 4
    assert {each.label for each in recording.entries if isinstance(each, Note) and each.kind == "closed"} <= {
        "client",
        "server",
    }
    shown = CliRunner().invoke(build("workbench"), ["workbench", "show", str(path)]).output
    assert re.search(r"^client .*<-- .*IKE_AUTH request 1", shown, re.MULTILINE), shown
    assert re.search(r"^server .*--> .*IKE_AUTH request 1", shown, re.MULTILINE), shown


@pytest.mark.parametrize("who", ["client", "server"])
async def test_when_one_side_ends_so_does_the_other(who: str) -> None:
    async with chain(serve_psk(SECRET), call_with_psk(SECRET, ALICE)) as (calling, serving, relay):
        async with asyncio.timeout(SECONDS):
            sa, other = await calling.established.get(), await serving.established.get()
            ends, waits = (calling, serving) if who == "client" else (serving, calling)
            ends.driver.command((sa if who == "client" else other).close)
            await waits.wait_closed()
            await relay.upstream.wait_closed()
            await relay.downstream.wait_closed()
        assert not [each for bench in (relay.upstream, relay.downstream) for each in bench.engine.sas]
        assert not list(relay._links.values())


async def test_a_gateway_that_ends_while_the_client_still_logs_in_ends_the_client() -> None:
    """The relay has the gateway's consent, and asks something of its own before it answers the client."""
    asked, going_on = asyncio.Event(), asyncio.Event()

    async def assign(question: AssignAddresses) -> tuple[ConfigurationAttribute, ...]:
        asked.set()
        await going_on.wait()
        return ()

    async with chain(serve_psk(SECRET), call_with_psk(SECRET, ALICE)) as (calling, serving, relay):
        relay.downstream.driver.answer_with(AssignAddresses, assign)
        async with asyncio.timeout(SECONDS):
            await asked.wait()
            serving.driver.command((await serving.established.get()).close)
            await relay.upstream.wait_closed()
            going_on.set()
            await calling.wait_closed()
            await relay.downstream.wait_closed()


@pytest.mark.parametrize("who", ["relay", "client"])
async def test_who_ends_in_the_middle_of_a_log_in_leaves_no_gateway_behind(who: str) -> None:
    """The gateway has let the client in and waits for the relay, which holds its answer."""
    held = asyncio.Event()

    def hold(m: Passing) -> None:
        if m.received and m.is_(ExchangeType.IKE_AUTH, response=True):
            m.hold()
            held.set()

    async with chain(serve_psk(SECRET), call_with_psk(SECRET, ALICE), relay_hooks=Hooks([hold])) as (
        calling,
        serving,
        relay,
    ):
        async with asyncio.timeout(SECONDS):
            await held.wait()
            await serving.established.get()
            if who == "relay":
                await relay.__aexit__(None, None, None)
                assert "AUTHENTICATION_FAILED" in str((await calling.wait_closed())[1])
            else:  # the client's side of the relay gives up
                (sa,) = relay.downstream.engine.sas
                relay.downstream.driver.command(sa.close)
            assert "AUTHENTICATION_FAILED" in str((await serving.wait_closed())[1])


class OneAtATime:
    """An engineer who cannot be asked two things at once."""

    def __init__(self) -> None:
        self.busy = False
        self.numbers: list[int] = []

    async def decide(self, held: Held) -> Decision:
        assert not self.busy
        self.busy = True
        self.numbers.append(held.number)
        await asyncio.sleep(0.2)
        self.busy = False
        return Go()

    def mistaken(self, reason: str) -> None:
        raise AssertionError(reason)


async def test_the_two_sides_of_a_relay_ask_one_after_the_other() -> None:
    """While the client's next request is held, the gateway deletes the IKE SA."""
    engineer = OneAtATime()

    def hold(m: Passing) -> None:
        if m.received and m.is_(ExchangeType.INFORMATIONAL, response=False):
            m.hold()

    async with chain(serve_psk(SECRET), call_with_psk(SECRET, ALICE), relay_hooks=Hooks([hold]), engineer=engineer) as (
        calling,
        serving,
        _,
    ):
        async with asyncio.timeout(SECONDS):
            mine, theirs = await calling.established.get(), await serving.established.get()
            calling.driver.command(mine.close)
            serving.driver.command(theirs.close)
            await calling.wait_closed()
            await serving.wait_closed()
    assert engineer.numbers == [1, 2]


async def test_a_gateway_that_is_not_there_is_told_to_the_client() -> None:
    tools = Opened(Hooks(), None, None, Painter(Console(file=io.StringIO())))
    upstream = Upstream(remote=loopback(9), caller=call_with_psk(SECRET, ALICE))
    upstream = replace(upstream, caller=_impatient(upstream.caller))
    client = call_with_psk(SECRET, ALICE)
    async with Relay(SETTINGS, serve_psk(SECRET), upstream, tools) as relay, Bench(SETTINGS, client) as calling:
        calling.connect(client.connection, loopback(relay.downstream.nat_port))
        async with asyncio.timeout(SECONDS):
            _, error = await calling.wait_closed()
    assert error is not None and "AUTHENTICATION_FAILED" in str(error)


@pytest.mark.parametrize("dead", ["client", "server"])
async def test_a_side_that_dies_ends_the_other(dead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ikeway.workbench.relay.relay._LIVENESS_SECONDS", 0.3)
    tools = Opened(Hooks(), None, None, Painter(Console(file=io.StringIO())))
    patience = _impatient(call_with_psk(SECRET, ALICE)).connection.retransmission
    server = serve_psk(SECRET)
    below = serve_psk(SECRET)
    below.connection = replace(below.connection, retransmission=patience)
    client = call_with_psk(SECRET, ALICE)
    async with AsyncExitStack() as stack:
        serving = await stack.enter_async_context(Bench(SETTINGS, server))
        upstream = Upstream(remote=loopback(serving.nat_port), caller=_impatient(call_with_psk(SECRET, ALICE)))
        relay = await stack.enter_async_context(Relay(SETTINGS, below, upstream, tools))
        calling = await stack.enter_async_context(Bench(SETTINGS, client))
        calling.connect(client.connection, loopback(relay.downstream.nat_port))
        async with asyncio.timeout(SECONDS):
            await calling.established.get()
            dying, other = (calling, serving) if dead == "client" else (serving, calling)
            dying.sockets.on_datagram = lambda octets, local, remote: None
            await other.wait_closed()
            while relay.upstream.engine.sas or relay.downstream.engine.sas:
                await asyncio.sleep(0.01)


def _impatient(caller: Caller) -> Caller:
    from ikeway.ike.settings import Retransmission

    return Caller(replace(caller.connection, retransmission=Retransmission(first=0.5, tries=1)))


# --- EAP --------------------------------------------------------------------------------------------------------------


def request(kind: MethodType, data: bytes, identifier: int = 1) -> bytes:
    return EapPacket.of(EapCode.REQUEST, identifier, kind, data).encode()


def response(kind: MethodType, data: bytes, identifier: int = 1) -> bytes:
    return EapPacket.of(EapCode.RESPONSE, identifier, kind, data).encode()


async def ends(pipe: EapPipe) -> tuple[PassingPeer, PassingAuthenticator]:
    async def ask(question: object) -> bytes:
        found = question.pipe
        return await (found.for_client() if type(question).__name__ == "NextFromServer" else found.for_server())

    return PassingPeer(ask, pipe), PassingAuthenticator(ask, pipe)  # type: ignore[arg-type]


UNKNOWN = MethodType(9, 0x44425250)


async def test_an_unknown_method_without_a_key_passes_octet_for_octet() -> None:
    peer, authenticator = await ends(EapPipe())
    first = request(UNKNOWN, b"hello")
    answered = asyncio.create_task(peer.receive(first))
    assert await authenticator.start() == first
    said = response(UNKNOWN, b"init")
    following = asyncio.create_task(authenticator.receive(said))
    assert await answered == said
    success = bytes([3, 2, 0, 4])
    assert await peer.receive(success) is None
    assert await following == success
    assert peer.succeeded and authenticator.succeeded
    assert peer.msk is None and authenticator.msk is None


@pytest.mark.parametrize("kind", [13, 18, 21, 23, 25, 43, 50, 52, 55])
async def test_a_method_whose_key_only_its_ends_have_is_refused_with_the_way_out(kind: int) -> None:
    peer, _ = await ends(EapPipe("password"))
    with pytest.raises(RelayError, match="only its two ends have") as caught:
        await peer.receive(request(MethodType(0, kind), b""))
    assert "profile" in caught.value.remedy and peer.failed


async def test_mschapv2_needs_the_password() -> None:
    peer, _ = await ends(EapPipe())
    with pytest.raises(RelayError, match="follows from the user's password"):
        await peer.receive(request(MethodType(0, 26), b"\1"))


def test_the_key_of_mschapv2_is_that_of_both_ends() -> None:
    """RFC 3079 section 4.5.2's password and response, by way of a packet."""
    from ikeway.eap.mschapv2_crypto import master_session_key, nt_password_hash

    proof = bytes.fromhex("82309ecd8d708b5ea08faa3981cd83544233114a3d85d6df")
    pipe = EapPipe("clientPass")
    data = bytes([2, 1, 0, 54 + 4, 49]) + bytes(16) + bytes(8) + proof + b"\0" + b"User"
    pipe.from_client(response(MethodType(0, 26), data))
    assert pipe.msk == master_session_key(nt_password_hash("clientPass"), proof)


async def test_a_side_that_is_gone_wakes_the_other() -> None:
    pipe = EapPipe()
    _, authenticator = await ends(pipe)
    waiting = asyncio.create_task(authenticator.start())
    await asyncio.sleep(0)
    pipe.fail(RelayError("gone"))
    assert (await waiting)[0] == EapCode.FAILURE
    assert authenticator.failed and "gone" in authenticator.reason


async def test_a_client_that_leaves_wakes_the_gateway_s_side() -> None:
    pipe = EapPipe()
    peer, authenticator = await ends(pipe)
    waiting = asyncio.create_task(peer.receive(request(UNKNOWN, b"?")))
    await asyncio.sleep(0)
    authenticator.abandon(RelayError("left"))
    with pytest.raises(RelayError, match="left"):
        await waiting


async def test_eap_that_does_not_come_to_an_end_is_ended() -> None:
    pipe = EapPipe()
    with pytest.raises(IkewayError, match="does not come to an end"):
        for _ in range(1000):
            pipe.from_client(response(UNKNOWN, b""))


@given(packets=st.lists(st.binary(max_size=40), max_size=5))
def test_no_octets_of_either_side_raise_anything_but_our_errors(packets: list[bytes]) -> None:
    async def work() -> None:
        pipe = EapPipe("password")
        _, authenticator = await ends(pipe)
        for each in packets:
            with contextlib.suppress(IkewayError):
                pipe.from_server(each)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    assert isinstance(await authenticator.receive(each), bytes)

    asyncio.run(work())

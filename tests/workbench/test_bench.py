"""Stand-in peers on loopback: what they show, hold, change and answer, by script, by hand and from a recording."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import re
import signal
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ikeway.address import Address
from ikeway.auth.identity import Identity
from ikeway.eap.packet import EapCode, EapPacket, MethodType
from ikeway.errors import ConfigError, IkewayError
from ikeway.ike import events
from ikeway.ike.proposals import parse_proposals
from ikeway.ike.sa import IkeSa
from ikeway.ike.settings import EapCredential
from ikeway.wire import (
    Eap,
    ExchangeType,
    IdentificationType,
    IdInitiator,
    IdResponder,
    KeyExchangeMethod,
    Message,
    Notify,
    NotifyType,
    Payload,
    PayloadType,
    SecurityAssociation,
    TransformType,
    UnknownPayload,
    VendorId,
)
from ikeway.workbench.bench import (
    Answer,
    Ask,
    Bench,
    BenchSettings,
    Caller,
    Decision,
    Engineer,
    Go,
    Held,
    HookFailed,
    Hooks,
    Passing,
    Refuse,
    StandIn,
    load_hooks,
    running,
    serve_psk,
)
from ikeway.workbench.bench.desk import HoldWhat
from ikeway.workbench.bench.dialects import client_dialect, gateway_dialect
from ikeway.workbench.bench.engineers import FromRecording, Terminal, parse_decision
from ikeway.workbench.bench.replay import Replay
from ikeway.workbench.bench.running import Opened
from ikeway.workbench.bench.standin import Knobs, call_with_eap, call_with_psk
from ikeway.workbench.bench.words import parse_payloads
from ikeway.workbench.paint import Painter
from ikeway.workbench.recording import Note, Plaintext, Recorder, Recording, load
from tests.ports import unused_port

SECRET = b"correct horse battery staple"
ALICE = Identity.parse("alice@lab.test")
LOOPBACK = BenchSettings(listen=("127.0.0.1",), port=0, nat_port=0)
CISCO = MethodType(9, 0x44425250)
SECONDS = 30


def settings(hold: HoldWhat = HoldWhat.UNKNOWN) -> BenchSettings:
    return BenchSettings(listen=("127.0.0.1",), port=0, nat_port=0, hold=hold)


class Planned:
    """An engineer who knows what to say, and notes what was asked."""

    def __init__(self, *decisions: Decision) -> None:
        self._decisions = list(decisions)
        self.held: list[Held] = []
        self.mistakes: list[str] = []

    async def decide(self, held: Held) -> Decision:
        self.held.append(held)
        return self._decisions.pop(0)

    def mistaken(self, reason: str) -> None:
        self.mistakes.append(reason)


class Pair:
    """A stand-in that serves and one that connects, and what became of it."""

    def __init__(self, server: Bench, client: Bench, connection: Caller) -> None:
        self.server, self.client, self._caller = server, client, connection

    def call(self) -> IkeSa:
        return self.client.connect(self._caller.connection, Address("127.0.0.1", self.server.nat_port))

    async def established(self) -> tuple[IkeSa, IkeSa]:
        async with asyncio.timeout(SECONDS):
            return await self.client.established.get(), await self.server.established.get()

    async def closed(self, bench: Bench) -> IkewayError | None:
        async with asyncio.timeout(SECONDS):
            return (await bench.wait_closed())[1]


@contextlib.asynccontextmanager
async def pair(
    *,
    server: StandIn | None = None,
    client: Caller | None = None,
    server_hooks: Hooks | None = None,
    client_hooks: Hooks | None = None,
    server_engineer: Engineer | None = None,
    client_engineer: Engineer | None = None,
    recorder: Recorder | None = None,
    client_recorder: Recorder | None = None,
    painter: Painter | None = None,
    hold: HoldWhat = HoldWhat.UNKNOWN,
    client_hold: HoldWhat = HoldWhat.UNKNOWN,
) -> AsyncIterator[Pair]:
    caller = client or call_with_psk(SECRET, ALICE)
    serving = Bench(
        settings(hold), server or serve_psk(SECRET), hooks=server_hooks, engineer=server_engineer, recorder=recorder,
        painter=painter,
    )  # fmt: skip
    calling = Bench(
        settings(client_hold), caller, hooks=client_hooks, engineer=client_engineer, recorder=client_recorder
    )  # fmt: skip
    async with serving, calling:
        yield Pair(serving, calling, caller)


def eap(code: EapCode, method: MethodType, data: bytes, identifier: int = 1) -> Eap:
    return Eap(EapPacket.of(code, identifier, method, data).encode())


def notes(path: Path, kind: str) -> list[str]:
    return [each.text for each in load(path).entries if isinstance(each, Note) and each.kind == kind]


async def test_two_stand_ins_agree_and_everything_is_shown_and_recorded(tmp_path: Path) -> None:
    text = io.StringIO()
    painter = Painter(Console(file=text, width=200, highlight=False))
    with Recorder(tmp_path / "s.ikr", "responder") as recorder:
        async with pair(recorder=recorder, painter=painter) as made:
            made.call()
            mine, theirs = await made.established()
            assert mine.configuration and theirs.children
    shown = text.getvalue()
    for words in ("IKE_SA_INIT request 0", "ID_RFC822_ADDR 'alice@lab.test'", "it says who it is and proves it",
                  "INTERNAL_IP4_ADDRESS 192.0.2.1", "is logged in"):  # fmt: skip
        assert words in shown, shown
    recording = load(tmp_path / "s.ikr")
    assert [each.message.exchange_type for each in recording.messages[:4]] == [34, 34, 35, 35]
    assert recording.keys and recording.datagrams


async def test_knobs_of_the_command_line_are_on_the_wire() -> None:
    knobs = Knobs(
        identity=Identity(IdInitiator(201, b"").type, b"*$AnyConnectClient$*"), vendor_ids=(b"CISCO-ANYCONNECT-EAP",)
    )
    engineer = Planned(Go(), Go())
    caller = call_with_psk(SECRET, ALICE, knobs)
    async with pair(client=caller, server=serve_psk(SECRET, Knobs(vendor_ids=(b"ours",))), server_engineer=engineer,
                    hold=HoldWhat.ALL) as made:  # fmt: skip
        made.call()
        mine, theirs = await made.established()
        assert theirs.peer.vendor_ids == (b"CISCO-ANYCONNECT-EAP",)
        assert mine.peer.vendor_ids == (b"ours",)
    first = engineer.held[0].message
    identity = first.find(IdInitiator)
    assert identity is not None and (int(identity.type), identity.value) == (201, b"*$AnyConnectClient$*")


def script(tmp_path: Path, body: str) -> Hooks:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(body))
    return load_hooks(path)


async def test_a_script_adds_drops_and_replaces_payloads(tmp_path: Path) -> None:
    hooks = script(
        tmp_path,
        """
        from ikeway.wire import *

        def on_message(m):
            if m.sent and m.is_(ExchangeType.IKE_SA_INIT):
                m.add(VendorId(b"added"))
                m.drop(lambda each: isinstance(each, Notify) and each.type == NotifyType.IKEV2_FRAGMENTATION_SUPPORTED)
            if m.sent and m.is_(ExchangeType.IKE_AUTH, response=False):
                m.replace(m.find(Configuration), Configuration(ConfigurationType.CFG_REQUEST, ()))
                m.memory["count"] = m.memory.get("count", 0) + 1
                m.note(f"message {m.message_id}, count {m.memory['count']}")
        """,
    )
    with Recorder(tmp_path / "s.ikr", "initiator") as recorder:
        async with pair(client_hooks=hooks, client_recorder=recorder) as made:
            made.call()
            mine, theirs = await made.established()
            assert theirs.peer.vendor_ids == (b"added",)
            assert not theirs.peer.fragments
            assert mine.configuration == ()
    assert notes(tmp_path / "s.ikr", "script") == ["message 1, count 1"]
    changed = notes(tmp_path / "s.ikr", "changed")
    assert "+ V 'added'" in changed[0] and "- N(IKEV2_FRAGMENTATION_SUPPORTED)" in changed[0]


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("exchange", [ExchangeType.IKE_SA_INIT, ExchangeType.IKE_AUTH])
async def test_a_hook_that_raises_ends_the_exchange_and_names_its_line(
    tmp_path: Path, side: str, sent: bool, exchange: ExchangeType
) -> None:
    hooks = script(
        tmp_path,
        f"""
        def helper(m):
            return 1 / 0

        def on_message(m):
            if m.sent is {sent} and int(m.exchange) == {int(exchange)}:
                helper(m)
        """,
    )
    path = tmp_path / "s.ikr"
    with Recorder(path, side) as recorder:
        which = {f"{side}_hooks": hooks, "recorder" if side == "server" else "client_recorder": recorder}
        async with pair(**which) as made:
            made.call()
            if side == "client" or exchange == ExchangeType.IKE_AUTH:
                error = await made.closed(made.client if side == "client" else made.server)
                assert isinstance(error, HookFailed)
                assert (error.file, error.line) == (str(tmp_path / "script.py"), 3)
                assert "ZeroDivisionError" in error.reason
            if exchange == ExchangeType.IKE_AUTH:
                other = await made.closed(made.server if side == "client" else made.client)
                assert other is not None and "AUTHENTICATION_FAILED" in str(other)
            elif side == "server":
                other = await made.closed(made.client)
                assert other is not None  # refused without a state being kept
            # What a hook has broken leaves no IKE SA behind.
            assert not [sa for sa in (*made.server.engine.sas, *made.client.engine.sas) if sa.established]
    assert any(f"{tmp_path / 'script.py'}:3: ZeroDivisionError" in text for text in notes(path, "error"))
    assert load(path).errors == ()


@pytest.mark.parametrize("broken", [0, 34, 35])
async def test_serving_once_tells_how_it_ended(tmp_path: Path, broken: int) -> None:
    """`broken`: the exchange at which the script raises, also where no IKE SA has been made yet."""
    hooks = script(
        tmp_path, f"def on_message(m):\n    if m.received and m.exchange == {broken}:\n        raise ValueError('oh')\n"
    )
    port = unused_port()
    where = BenchSettings(listen=("127.0.0.1",), port=0, nat_port=port)
    tools = Opened(hooks if broken else Hooks([]), None, None, Painter())
    serving = asyncio.create_task(running.serve(where, serve_psk(SECRET), tools, once=True))
    caller = call_with_psk(SECRET, ALICE)
    async with asyncio.timeout(SECONDS), Bench(settings(), caller) as calling:
        calling.connect(caller.connection, Address("127.0.0.1", port))
        await (calling.wait_closed() if broken else calling.established.get())
    async with asyncio.timeout(SECONDS):
        if broken:
            with pytest.raises(HookFailed, match="oh"):
                await serving
        else:
            await serving


async def test_what_a_hook_returns_must_be_a_message(tmp_path: Path) -> None:
    hooks = script(tmp_path, "def on_message(m):\n    return m.sent and 7\n")
    async with pair(client_hooks=hooks) as made:
        made.call()
        error = await made.closed(made.client)
    assert isinstance(error, HookFailed) and "returned int" in error.reason


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        ("m.add(42)", "int is no payload"),
        ("m.payloads.append('text')", "str is no payload"),
        ("m.payloads.insert(0, None)", "NoneType is no payload"),
        ("m.payloads += [VendorId(b'fine'), b'octets']", "bytes is no payload"),
        ("m.payloads[0] = 7", "int is no payload"),
        ("m.payloads[:] = [7]", "int is no payload"),
        ("m.payloads = None", "NoneType where a list of payloads belongs"),
        ("m.add(VendorId(b'x' * 70000))", "a VendorId cannot be encoded"),
        ("m.add(VendorId('text'))", "a VendorId cannot be encoded"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("m.hold()", "only a message that came in can be held"),
    ],
)
async def test_nonsense_of_a_hook_is_told_with_the_line_of_the_deed(tmp_path: Path, deed: str, words: str) -> None:
    hooks = script(
        tmp_path,
        f"from ikeway.wire import VendorId\ndef on_message(m):\n    if m.sent:\n        {deed}\n    return None\n",
    )
    async with pair(client_hooks=hooks) as made:
        made.call()
        error = await made.closed(made.client)
    assert isinstance(error, HookFailed) and words in error.reason
    assert (error.file, error.line) == (str(tmp_path / "script.py"), 4)


async def test_a_message_that_cannot_be_sent_is_the_script_s_mistake(tmp_path: Path) -> None:
    body = """
        from dataclasses import replace
        def on_message(m):
            if m.sent:
                return replace(m.message, message_id=1 << 40)
        """
    async with pair(client_hooks=script(tmp_path, body)) as made:
        made.call()
        error = await made.closed(made.client)
    assert isinstance(error, HookFailed) and error.file == str(tmp_path / "script.py")
    assert "header does not fit" in error.reason


async def test_payloads_may_be_handled_like_any_list(tmp_path: Path) -> None:
    body = """
        from ikeway.wire import VendorId
        def on_message(m):
            if m.sent and int(m.exchange) == 34:
                m.payloads.append(VendorId(b"2"))
                m.payloads.insert(len(m.payloads) - 1, VendorId(b"1"))
                m.payloads += [VendorId(b"4")]
                m.payloads[-1] = VendorId(b"3")
                m.payloads = [*m.payloads, VendorId(b"4")]
        """
    async with pair(client_hooks=script(tmp_path, body)) as made:
        made.call()
        _, theirs = await made.established()
        assert theirs.peer.vendor_ids == (b"1", b"2", b"3", b"4")


async def test_a_script_without_an_end_can_be_interrupted(tmp_path: Path) -> None:
    hooks = script(
        tmp_path,
        """
        begun = []
        def on_message(m):
            while int(m.exchange) == 35:
                begun.append(0) if not begun else None
        """,
    )
    path = tmp_path / "s.ikr"
    begun: list[int] = hooks.hooks[0].on_message.__globals__["begun"]  # type: ignore[attr-defined]

    def interrupt() -> None:
        for _ in range(100 * SECONDS):  # not before: it would be Ctrl-C for all tests
            if begun:
                signal.pthread_kill(main, signal.SIGINT)
                return
            time.sleep(0.01)

    before = signal.getsignal(signal.SIGINT)
    main = threading.main_thread().ident
    assert main is not None
    with Recorder(path, "responder") as recorder:
        async with pair(server_hooks=hooks, recorder=recorder) as made:
            made.call()
            thread = threading.Thread(target=interrupt)
            thread.start()
            error = await made.closed(made.server)
            other = await made.closed(made.client)
            thread.join()
    assert isinstance(error, HookFailed) and "KeyboardInterrupt" in error.reason and error.line in (4, 5)
    assert other is not None and "AUTHENTICATION_FAILED" in str(other)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("wanted", ["'{201}:*$AnyConnectClient$*'", "Identity.parse('{201}:*$AnyConnectClient$*')"])
async def test_a_script_changes_who_we_are_and_auth_is_made_for_it(tmp_path: Path, side: str, wanted: str) -> None:
    body = f"""
        from ikeway.auth.identity import Identity
        def on_message(m):
            pass
        def on_identity(identity, sa):
            assert str(identity), sa.is_initiator
            return {wanted}
        """
    which = {f"{side}_hooks": script(tmp_path, body), "server": serve_psk(SECRET, Knobs(identity=ALICE))}
    async with pair(**which) as made:  # type: ignore[arg-type]
        made.call()
        mine, theirs = await made.established()
        seen, own = (theirs.remote_identity, mine) if side == "client" else (mine.remote_identity, theirs)
        assert seen == Identity.parse("{201}:*$AnyConnectClient$*") == own.local_identity


async def test_another_identity_after_auth_was_made_is_pointed_out(tmp_path: Path) -> None:
    def change(m: Passing) -> None:
        if m.sent and (payload := m.find(IdInitiator)) is not None:
            m.replace(payload, IdInitiator(payload.type, b"mallory@lab.test"))

    path = tmp_path / "s.ikr"
    with Recorder(path, "initiator") as recorder:
        async with pair(client_hooks=Hooks([change]), client_recorder=recorder) as made:
            made.call()
            await made.closed(made.client)
    assert any("on_identity" in text for text in notes(path, "changed"))


@pytest.mark.parametrize(
    ("deed", "words"),
    [("1 / 0", "ZeroDivisionError"), ("return 7", "returned int"), ("return 'a*'", "not an identity")],
)
async def test_nonsense_about_who_we_are_ends_the_log_in(tmp_path: Path, deed: str, words: str) -> None:
    hooks = script(tmp_path, f"def on_message(m): pass\ndef on_identity(identity, sa):\n    {deed}\n")
    async with pair(server_hooks=hooks) as made:
        made.call()
        error, other = await made.closed(made.server), await made.closed(made.client)
    assert words in str(error) and "AUTHENTICATION_FAILED" in str(other)
    if isinstance(error, HookFailed):
        assert error.file == str(tmp_path / "script.py") and error.line in (2, 3)


async def test_what_is_noted_stands_where_it_happened(tmp_path: Path) -> None:
    """The message that came in, what the script did to it, what it did to the answer, and the answer."""
    hooks = script(
        tmp_path,
        """
        from ikeway.wire import VendorId
        def on_message(m):
            if int(m.exchange) == 35:
                m.note("sent" if m.sent else "received")
                m.add(VendorId(b"1" if m.sent else b"2"))
        """,
    )
    path = tmp_path / "s.ikr"
    with Recorder(path, "responder") as recorder:
        async with pair(server_hooks=hooks, recorder=recorder) as made:
            made.call()
            await made.established()
    entries = [
        (each.kind, each.text.splitlines()[0])
        if isinstance(each, Note)
        else ("<>"[each.sent], int(each.message.message_id))
        for each in load(path).entries
        if isinstance(each, Note | Plaintext)
    ]
    at = entries.index(("<", 1))
    assert entries[at : at + 6] == [
        ("<", 1),
        ("script", "received"),
        ("changed", "IKE_AUTH request 1, before we act on it"),
        ("script", "sent"),
        ("changed", "IKE_AUTH response 1, before it is sent"),
        (">", 1),
    ]


async def test_ike_sa_init_goes_on_though_a_script_holds_everything(tmp_path: Path) -> None:
    hooks = script(tmp_path, "def on_message(m):\n    if m.received:\n        m.hold()\n")
    path = tmp_path / "s.ikr"
    engineers = Planned(Go(), Go()), Planned(Go(), Go())
    with Recorder(path, "responder") as recorder:
        async with pair(server_hooks=hooks, client_hooks=hooks, server_engineer=engineers[0],
                        client_engineer=engineers[1], recorder=recorder) as made:  # fmt: skip
            made.call()
            await made.established()
    assert [int(each.held[0].message.exchange_type) for each in engineers] == [35, 35]
    assert any("IKE_SA_INIT is never held" in text for text in notes(path, "script"))


class Sleeping:
    """An engineer who does not answer until told to."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision
        self.asked, self.wake = asyncio.Event(), asyncio.Event()

    async def decide(self, held: Held) -> Decision:
        self.asked.set()
        await self.wake.wait()
        return self._decision

    def mistaken(self, reason: str) -> None:
        raise AssertionError(reason)


async def test_who_ends_a_stand_in_is_asked_nothing_more() -> None:
    """The answer to its good-bye is held no more, which nobody would wait for."""
    engineer = Planned(Go())
    async with pair(client_engineer=engineer, client_hold=HoldWhat.ALL) as made:
        made.call()
        await made.established()
        await made.client.__aexit__(None, None, None)
        await made.closed(made.server)
        assert not made.client.engine.sas
    assert len(engineer.held) == 1


async def test_of_all_who_have_come_and_left_a_stand_in_keeps_the_last_ones_only() -> None:
    """It may serve for days, and nobody asks for each."""
    async with pair() as made:
        sa = made.call()
        for number in range(1000):
            made.server._on_event(events.IkeEstablished(sa))
            made.server._on_event(events.IkeClosed(sa, IkewayError(str(number)), False))
        kept = [made.server.closed.get_nowait()[1] for _ in range(made.server.closed.qsize())]
        assert 0 < len(kept) < 1000 and str(kept[-1]) == "999"
        assert 0 < made.server.established.qsize() < 1000


@pytest.mark.parametrize("side", ["server", "client"])
async def test_whoever_waits_for_a_stand_in_that_ends_is_told(tmp_path: Path, side: str) -> None:
    """The gateway is not left with an IKE SA that nobody has, nor a client with its repetitions."""
    engineer = Sleeping(Go())
    hooks = script(tmp_path, "def on_message(m):\n    if m.received and int(m.exchange) == 35:\n        m.hold()\n")
    async with pair(**{f"{side}_hooks": hooks, f"{side}_engineer": engineer}) as made:  # type: ignore[arg-type]
        made.call()
        async with asyncio.timeout(SECONDS):
            await engineer.asked.wait()
        ending, other = (made.server, made.client) if side == "server" else (made.client, made.server)
        await ending.__aexit__(None, None, None)
        error = await made.closed(other)
        assert error is not None and "AUTHENTICATION_FAILED" in str(error)
        assert not other.engine.sas


async def test_an_answer_that_comes_too_late_is_said_to_be(tmp_path: Path) -> None:
    engineer = Sleeping(Go())
    path = tmp_path / "s.ikr"
    with Recorder(path, "responder") as recorder:
        async with pair(server_engineer=engineer, hold=HoldWhat.ALL, recorder=recorder) as made:
            made.call()
            async with asyncio.timeout(SECONDS):
                await engineer.asked.wait()
                (sa,) = made.server.engine.sas
                made.server.driver.command(sa.close)
                await made.server.wait_closed()
                engineer.wake.set()
                while not notes(path, "gone"):
                    await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("body", "words", "line"),
    [
        ("import sys\nsys.exit(3)", "SystemExit: 3", 2),
        ("async def on_message(m):\n    pass", "coroutine", 1),
        ("x = 1\ndef on_message():\n    pass", "on_message cannot be called so", 2),
        ("def on_message(m, other):\n    pass", "on_message cannot be called so", 1),
        ("def on_message(m): pass\ndef on_identity(m): pass", "on_identity cannot be called so", 2),
    ],
)
def test_a_script_that_cannot_work_is_refused_before_anything_begins(
    tmp_path: Path, body: str, words: str, line: int
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        script(tmp_path, body)
    assert (caught.value.file, caught.value.line) == (str(tmp_path / "script.py"), line)


async def test_a_payload_that_nobody_knows_is_held_and_the_exchange_stays_open() -> None:
    engineer = Planned(Answer((Notify(NotifyType(16000)),) * 20000), Go())  # the first does not fit a message
    odd = UnknownPayload(PayloadType(200), False, b"what is this")

    def add(m: Passing) -> None:
        if m.sent and m.is_(ExchangeType.IKE_AUTH, response=False):
            m.add(odd)

    async with pair(client_hooks=Hooks([add]), server_engineer=engineer) as made:
        made.call()
        await made.established()
    first, second = engineer.held
    assert first.unknown == ("payload of type 200, 12 octets",)
    assert first.message == second.message and first.message.find(UnknownPayload) == odd
    assert len(engineer.mistakes) == 1


async def test_an_answer_of_a_script_that_cannot_be_sent_leaves_the_message_to_the_engineer() -> None:
    engineer = Planned(Go())

    def answer(m: Passing) -> None:
        if m.received and m.is_(ExchangeType.IKE_AUTH, response=False):
            m.answer(*(Notify(NotifyType(16000)),) * 20000)

    async with pair(server_hooks=Hooks([answer]), server_engineer=engineer) as made:
        made.call()
        async with asyncio.timeout(SECONDS):
            while not engineer.mistakes or not engineer.held:
                await asyncio.sleep(0.01)
    assert len(engineer.held) == 1


async def test_a_critical_payload_is_taken_out_by_hand() -> None:
    def add(m: Passing) -> None:
        if m.sent and m.is_(ExchangeType.IKE_AUTH, response=False):
            m.add(UnknownPayload(PayloadType(200), True, b"!"))

    asked: list[str] = []
    said: list[str] = []
    lines = iter(["", "go without 99", "go without 8 9", "nonsense"])

    async def read(prompt: str) -> str | None:
        asked.append(prompt)
        return lines_for(said, lines)

    def lines_for(said: Sequence[str], lines: object) -> str:
        text = next(lines)  # type: ignore[call-overload]
        return str(text) if "8 9" not in text else f"go without {count[0]}"

    count = [0]

    class Counting(Terminal):
        async def decide(self, held: Held) -> Decision:
            count[0] = len(held.message.payloads)
            return await super().decide(held)

    async with pair(client_hooks=Hooks([add]), server_engineer=Counting(read, said.append)) as made:
        made.call()
        await made.established()
    assert len(asked) == 3
    assert any("critical payload of type 200" in each for each in said)
    assert any("names no payloads" in each for each in said)


async def test_what_is_typed_need_not_be_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Octets that are no text are a mistake like others: the question comes again."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"answer vendor:\xff\xfe\ngo\n"), encoding="utf-8"))
    with running.opened(running.Tools(ask=True), "responder") as tools:
        async with pair(server_engineer=tools.engineer, hold=HoldWhat.ALL) as made:
            made.call()
            await made.established()


async def test_nobody_to_decide_keeps_the_exchange_open() -> None:
    def add(m: Passing) -> None:
        if m.sent and m.is_(ExchangeType.IKE_AUTH, response=False):
            m.add(UnknownPayload(PayloadType(200), False, b"?"))

    async with pair(client_hooks=Hooks([add])) as made:
        made.call()
        async with asyncio.timeout(SECONDS):
            while not any(sa.driver.held for sa in made.server.engine.sas):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        (held,) = made.server.engine.sas
        assert len(held.driver.held) == 1 and not held.established


async def test_refusing_ends_both_sides_with_the_notify() -> None:
    engineer = Planned(Refuse(NotifyType.FAILED_CP_REQUIRED, "no"))
    async with pair(server_engineer=engineer, hold=HoldWhat.ALL) as made:
        made.call()
        error = await made.closed(made.client)
        assert error is not None and "FAILED_CP_REQUIRED" in str(error)
        assert "no" in str(await made.closed(made.server))


HELLO = b"<config-auth client='vpn' type='hello'/>"
INIT = b"<config-auth client='vpn' type='init'/>"
REQUEST = b"<config-auth client='vpn' type='auth-request'/>"


def unknown_server(m: Passing) -> None:
    """A gateway with an EAP method that nobody here knows."""
    if not (m.received and m.is_(ExchangeType.IKE_AUTH, response=False)):
        return
    packet = m.find(Eap)
    if m.find(IdInitiator) is not None:
        m.answer(eap(EapCode.REQUEST, CISCO, HELLO, 1))
    elif packet is not None:
        answer = EapPacket.decode(packet.packet)
        assert answer.method == CISCO
        m.memory["said"] = answer.method_data
        m.answer(eap(EapCode.REQUEST, CISCO, REQUEST, answer.identifier + 1))


async def test_an_unknown_server_is_learnt_step_by_step(tmp_path: Path) -> None:
    """The way of the article: each answer brings out the next message in plaintext."""
    path = tmp_path / "client.ikr"
    own = eap(EapCode.RESPONSE, CISCO, INIT, 1)
    engineer = Planned(Ask(ExchangeType.IKE_AUTH, (own,)), Refuse())
    with Recorder(path, "initiator") as recorder:
        async with pair(
            client=call_with_eap(ALICE), client_engineer=engineer, client_recorder=recorder,
            server_hooks=Hooks([unknown_server]),
        ) as made:  # fmt: skip
            made.call()
            await made.closed(made.client)
            await made.closed(made.server)
    hello, request = (EapPacket.decode(held.message.find(Eap).packet) for held in engineer.held)  # type: ignore[union-attr]
    assert (hello.method_data, request.method_data) == (HELLO, REQUEST)
    assert engineer.held[0].unknown == (f"EAP method {CISCO}",)

    # And the recording gives the same answer the next time.
    again = FromRecording(load(path), otherwise=Planned(Refuse()))
    async with pair(
        client=call_with_eap(ALICE), client_engineer=again, server_hooks=Hooks([unknown_server]),
    ) as made:  # fmt: skip
        made.call()
        await made.closed(made.client)
        (sa,) = made.server.desk._memories
        assert made.server.desk._memories[sa]["said"] == INIT


async def test_an_answer_that_is_known_again_goes_to_the_engine() -> None:
    """Beside the engine for two exchanges, and then back: the engine takes the last response for that of its request."""
    engineer = Planned(
        Ask(ExchangeType.IKE_AUTH, (eap(EapCode.RESPONSE, CISCO, INIT, 1),)), Go()
    )  # fmt: skip

    def server(m: Passing) -> None:
        if not (m.received and m.is_(ExchangeType.IKE_AUTH, response=False)):
            return
        if m.find(IdInitiator) is not None:
            m.answer(eap(EapCode.REQUEST, CISCO, HELLO, 1))
        elif m.find(Eap) is not None:
            m.answer(Notify(NotifyType.AUTHENTICATION_FAILED))

    async with pair(client=call_with_eap(ALICE), client_engineer=engineer, server_hooks=Hooks([server])) as made:
        made.call()
        error = await made.closed(made.client)
    assert error is not None and "AUTHENTICATION_FAILED" in str(error)


@pytest.mark.parametrize("who", ["server", "client"])
async def test_a_recorded_server_answers_in_its_place(tmp_path: Path, who: str) -> None:
    """Whoever of the two recorded it."""
    path = tmp_path / "session.ikr"
    steps = (Ask(ExchangeType.IKE_AUTH, (eap(EapCode.RESPONSE, CISCO, INIT, 1),)), Refuse())
    with Recorder(path, "responder" if who == "server" else "initiator") as recorder:
        async with pair(
            client=call_with_eap(ALICE), client_engineer=Planned(*steps),
            server_hooks=Hooks([unknown_server]),
            **{"recorder" if who == "server" else "client_recorder": recorder},  # type: ignore[arg-type]
        ) as made:  # fmt: skip
            made.call()
            await made.closed(made.client)
    engineer = Planned(*steps)
    async with pair(
        client=call_with_eap(ALICE),
        client_engineer=engineer,
        server_engineer=FromRecording(load(path)),
        hold=HoldWhat.ALL,
    ) as made:
        made.call()
        await made.closed(made.client)
    data = [EapPacket.decode(held.message.find(Eap).packet).method_data for held in engineer.held]  # type: ignore[union-attr]
    assert data == [HELLO, REQUEST]


BAD_SCRIPTS = [
    ("def on_message(m:\n", 1, "no Python"),
    ("\n\nx = 1 / 0\ndef on_message(m): pass\n", 3, "ZeroDivisionError"),
    ("import nothing_like_this\n", 1, "ModuleNotFoundError"),
    ("def on_packet(m): pass\n", 0, "no on_message"),
    ("on_message = 3\n", 0, "no on_message"),
    ("\0", 1, "no Python"),
]


@pytest.mark.parametrize(("text", "line", "words"), BAD_SCRIPTS)
def test_a_script_that_cannot_be_used_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    path = tmp_path / "script.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load_hooks(path)
    assert (caught.value.file, caught.value.line) == (str(path), line)


def test_a_script_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_hooks(tmp_path / "none.py")


ASKED = Message(bytes(8), bytes(8), ExchangeType.IKE_AUTH, True, False, 1, (eap(EapCode.RESPONSE, CISCO, b"", 7),))
WORDS: list[tuple[str, Payload]] = [
    ("eap:03070004", Eap(bytes.fromhex("03070004"))),
    ("eap-request:26:0102", eap(EapCode.REQUEST, MethodType(0, 26), b"\1\2", 8)),
    ('eap-response:1:"alice b"', eap(EapCode.RESPONSE, MethodType(0, 1), b"alice b", 7)),
    ('eap-response:9:0x44425250:"a:b"', eap(EapCode.RESPONSE, CISCO, b"a:b", 7)),
    (
        "eap-response:9:0x44425250:0x0000001a\"<a b='c'/>\"00",
        eap(EapCode.RESPONSE, CISCO, b"\0\0\0\x1a<a b='c'/>\0", 7),
    ),
    ("vendor:\"it's\"'\"'", VendorId(b"it's\"")),
    ("eap-success", Eap(bytes([3, 7, 0, 4]))),
    ("notify:AUTHENTICATION_FAILED", Notify(NotifyType.AUTHENTICATION_FAILED)),
    ("notify:40001:0102", Notify(NotifyType(40001), b"\1\2")),
    ('vendor:"CISCO-DELETE-REASON"', VendorId(b"CISCO-DELETE-REASON")),
    ("payload:200:00ff", UnknownPayload(PayloadType(200), False, b"\0\xff")),
    ("payload:!200", UnknownPayload(PayloadType(200), True, b"")),
    ("payload:43:6162", VendorId(b"ab")),
]


@pytest.mark.parametrize(("text", "payload"), WORDS)
def test_payloads_in_words(text: str, payload: Payload) -> None:
    assert parse_payloads(text, ASKED) == (payload,)
    assert parse_decision(f"answer {text} {text}", ASKED) == Answer((payload, payload))
    assert parse_decision(f"ask INFORMATIONAL {text}", ASKED) == Ask(ExchangeType.INFORMATIONAL, (payload,))


@pytest.mark.parametrize(
    "text",
    ["what", "eap:0", "eap:xy", "eap-request:x:00", "eap-request:1:2:3:00", "eap-request:99999999:1:00", "notify:NO",
     "notify:70000", "payload:0:00", "payload:256", "payload:x", 'vendor:"open',
     'vendor:00"text"0', 'vendor:text"text"', "payload:33:0000"],
)  # fmt: skip
def test_words_that_are_none_are_mistakes(text: str) -> None:
    with pytest.raises(IkewayError):
        parse_payloads(text, ASKED)


async def _nobody(question: object) -> object:
    raise AssertionError(question)


LOOKED_FOR = (IdentificationType.ID_FQDN, b"gateway.example")
PECULIAR = Notify(NotifyType(41234), b"of this vendor")


async def test_a_recording_is_played_again_as_either_side(tmp_path: Path) -> None:
    """What a session had beside the standard is said again, by the engine of now, with keys and proofs of now."""

    def peculiar(m: Passing) -> None:
        if m.sent and m.exchange in (ExchangeType.IKE_SA_INIT, ExchangeType.IKE_AUTH):
            m.add(PECULIAR, first=True)
            if m.find(IdInitiator) is not None:
                m.add(IdResponder(*LOOKED_FOR))
            m.add(UnknownPayload(PayloadType(200), False, b"odd"), VendorId(b"vendor"))
            m.drop(lambda each: isinstance(each, Notify) and each.type == NotifyType.MOBIKE_SUPPORTED)

    server, client = tmp_path / "server.ikr", tmp_path / "client.ikr"
    with Recorder(server, "responder") as recorder, Recorder(client, "initiator") as other:
        async with pair(client_hooks=Hooks([peculiar]), server_hooks=Hooks([peculiar]), client_recorder=other,
                        recorder=recorder, hold=HoldWhat.NOTHING, client_engineer=Planned(Go(), Go())) as made:  # fmt: skip
            made.call()
            await made.established()
    for name, path in itertools.product(("server", "client"), (server, client)):  # whoever of the two recorded it
        replay = Replay(load(path), initiator=name == "client")
        heard: list[Message] = []

        def listen(m: Passing, heard: list[Message] = heard) -> None:
            if m.received:
                heard.append(m.message)

        hooks = {
            f"{name}_hooks": Hooks([replay]),
            "client_hooks" if name == "server" else "server_hooks": Hooks([listen]),
        }
        identity = replay.identity
        assert identity is not None
        caller = call_with_psk(SECRET, identity if name == "client" else ALICE)
        async with pair(client=caller, **hooks, hold=HoldWhat.NOTHING, client_engineer=Planned(Go(), Go())) as made:  # type: ignore[arg-type]
            made.call()
            await made.established()
        own = server if name == "server" else client
        then = [each.message for each in load(own).messages if each.sent][:2]
        assert [kinds(each) for each in heard[:2]] == [kinds(each) for each in then]
        assert all(each.payloads[0] == PECULIAR for each in heard[:2])
        assert name == "server" or heard[1].find(IdResponder) == IdResponder(*LOOKED_FOR)


def test_a_side_that_is_not_in_a_recording_cannot_be_played(tmp_path: Path) -> None:
    path = tmp_path / "nobody.ikr"
    with Recorder(path, "responder") as recorder:
        recorder.note("serving", "and nobody came")
    for initiator, words in ((True, "as the client"), (False, "as the gateway")):
        with pytest.raises(ConfigError, match=words):
            Replay(load(path), initiator=initiator)


def test_of_several_sessions_the_longest_is_said_again_and_of_several_answers_the_last() -> None:
    here, there = Address("192.0.2.1", 500), Address("192.0.2.2", 500)

    def said(spi: int, exchange: ExchangeType, number: int, name: bytes, *, sent: bool = True) -> Plaintext:
        head = (bytes([spi]) * 8, bytes(8), exchange, False, True, number)
        return Plaintext(0.0, sent, here, there, Message(*head, (VendorId(name),)))

    init, auth = ExchangeType.IKE_SA_INIT, ExchangeType.IKE_AUTH
    entries = (
        said(1, init, 0, b"first"),
        said(2, init, 0, b"cookie"),
        said(2, init, 0, b"second"),
        said(2, auth, 1, b"auth"),
        said(3, auth, 1, b"of an IKE SA that was rekeyed"),
        said(3, auth, 2, b"of an IKE SA that was rekeyed"),
        said(3, auth, 3, b"of an IKE SA that was rekeyed"),
        said(3, auth, 4, b"of an IKE SA that was rekeyed"),
        said(4, init, 0, b"what a relay heard of the gateway", sent=False),
    )
    recording = Recording("responder", entries=entries)
    names = [each.find(VendorId) for each in recording.said_by(initiator=False)]
    assert names == [VendorId(b"cookie"), VendorId(b"second"), VendorId(b"auth")]
    replay = Replay(recording, initiator=False)
    passing = Passing(Message(bytes(8), bytes(8), init, False, True, 0, ()), None, sent=True, memory={})
    replay(passing)
    assert passing.payloads == [VendorId(b"second")]
    (heard,) = replace(recording, role="relay").said_by(initiator=False)
    assert heard.find(VendorId) == VendorId(b"what a relay heard of the gateway")


def kinds(message: Message) -> list[object]:
    return [payload.type if isinstance(payload, Notify) else type(payload) for payload in message.payloads]


async def test_a_method_that_our_client_answers_is_not_held_and_any_other_is() -> None:
    """What is known depends on who asks: a client that knows no method holds even usual ones."""
    usual = eap(EapCode.REQUEST, MethodType(0, 26), b"\x01\x01\x00\x15\x10" + bytes(16), 1)

    def server(m: Passing) -> None:
        if m.received and m.find(IdInitiator) is not None:
            m.answer(usual)

    engineer = Planned(Refuse())
    async with pair(client=call_with_eap(ALICE), client_engineer=engineer, server_hooks=Hooks([server])) as made:
        made.call()
        await made.closed(made.client)
    assert engineer.held[0].unknown == ("EAP method MSCHAPV2",)


@pytest.mark.parametrize("name", ["anyconnect", "fortigate", "windows", "azure"])
async def test_a_dialect_is_a_knob_of_the_client(name: str) -> None:
    dialect = client_dialect(name)
    who = dialect.identity or ALICE
    engineer = Planned(Refuse())
    heard: list[Message] = []

    def listen(m: Passing) -> None:
        if m.received:
            heard.append(m.message)

    client = call_with_eap(who, Knobs(dialect=dialect))
    async with pair(client=client, server_engineer=engineer, server_hooks=Hooks([listen]), hold=HoldWhat.ALL) as made:
        made.call()
        await made.closed(made.client)
    init, auth = heard[0], heard[1]
    assert {each.value for each in init.find_all(VendorId)} >= set(dialect.vendor_ids)
    identity = auth.find(IdInitiator)
    assert identity is not None and Identity.from_payload(identity) == who
    if name == "anyconnect":
        assert (int(identity.type), identity.value) == (201, b"*$AnyConnectClient$*")
    if dialect.ike_proposals:  # Microsoft's: what gateways agree on that nobody has configured
        security = init.find(SecurityAssociation)
        assert security is not None
        offered = {(int(each.type), int(each.id)) for proposal in security.proposals for each in proposal.transforms}
        assert (TransformType.KE, KeyExchangeMethod.MODP_1024) in offered


def test_proposals_that_somebody_has_named_count_more_than_a_dialect_s() -> None:
    named = parse_proposals("aes256gcm16-prfsha384-ecp384")
    turned = Knobs(dialect=client_dialect("windows"), ike_proposals=named).over(call_with_psk(SECRET, ALICE).connection)
    assert turned.ike_proposals == named
    own = replace(call_with_psk(SECRET, ALICE).connection, ike_proposals=named)  # of a profile
    assert Knobs(dialect=client_dialect("windows")).over(own).ike_proposals == named


@pytest.mark.parametrize(
    ("identity", "said"),
    [("alice@lab.test", b"alice@lab.test"), ("{201}:*$AnyConnectClient$*", b"*$AnyConnectClient$*"),
     ("keyid:bob", b"bob"), ("192.0.2.7", b"192.0.2.7")],
)  # fmt: skip
async def test_a_client_that_logs_in_by_eap_says_its_identity_in_octets(identity: str, said: bytes) -> None:
    caller = call_with_eap(Identity.parse(identity))
    credential = caller.connection.local_credential
    assert isinstance(credential, EapCredential)
    peer = credential.new_peer(_nobody)
    answer = await peer.receive(EapPacket.of(EapCode.REQUEST, 1, MethodType(0, 1), b"").encode())
    assert answer is not None and EapPacket.decode(answer).data == said


async def test_eap_that_a_client_without_it_is_asked_for_is_held() -> None:
    """A gateway that answers a pre-shared key with EAP: nobody here has an answer, not even to who we are."""

    def server(m: Passing) -> None:
        if m.received and m.find(IdInitiator) is not None:
            m.answer(Eap(EapPacket.of(EapCode.REQUEST, 1, MethodType(0, 1), b"who?").encode()))

    engineer = Planned(Refuse())
    async with pair(client_engineer=engineer, server_hooks=Hooks([server])) as made:
        made.call()
        await made.closed(made.client)
    assert engineer.held[0].unknown == ("EAP method IDENTITY",)


async def test_what_the_network_says_is_shown_and_ends_nothing(tmp_path: Path) -> None:
    port = unused_port()
    path = tmp_path / "s.ikr"
    caller = call_with_psk(SECRET, ALICE)
    with Recorder(path, "initiator") as recorder:
        async with asyncio.timeout(SECONDS), Bench(settings(), caller, recorder=recorder) as calling:
            calling.connect(caller.connection, Address("127.0.0.1", port))
            while not notes(path, "network"):
                await asyncio.sleep(0.01)
            assert calling.engine.sas
    assert notes(path, "network") == [f"127.0.0.1:{port} is not reached: Connection refused (ICMP; nothing ends by it)"]


async def test_a_dialect_is_a_knob_of_the_gateway() -> None:
    dialect = gateway_dialect("anyconnect")
    server = serve_psk(SECRET, Knobs(dialect=dialect))
    client = call_with_psk(SECRET, ALICE, Knobs(dialect=client_dialect("anyconnect")))
    async with pair(server=server, client=client, client_engineer=Planned(Go(), Go())) as made:
        made.call()
        mine, _ = await made.established()
        assert set(mine.peer.vendor_ids) >= set(dialect.vendor_ids)


@pytest.mark.parametrize("make", [client_dialect, gateway_dialect])
def test_a_dialect_that_nobody_has_is_named(make: Callable[[str], object]) -> None:
    with pytest.raises(ConfigError, match="no dialect is called 'klingon'"):
        make("klingon")


def test_every_identity_that_the_documents_show_is_one() -> None:
    root = Path(__file__).parents[2]
    words = r"--identity(?:` \(type and octets:)? +('[^']+'|`[^`]+`|[^\s`\[<(]+@?[^\s`]*)"
    files = (root / "docs" / "workbench.md", root / "docs" / "commands.md", root / "README.md")
    shown = [found.strip("'`") for path in files for found in re.findall(words, path.read_text())]
    assert "{201}:*$AnyConnectClient$*" in shown and "alice@example.com" in shown
    for text in shown:
        if not text.isupper() and text != "<str>":
            Identity.parse(text)


def test_what_is_typed_in_the_worked_example_is_an_element_of_anyconnect() -> None:
    """Its XML stands behind its length."""
    text = (Path(__file__).parents[2] / "docs" / "workbench.md").read_text()
    (line,) = [each.partition("answer> ")[2] for each in text.splitlines() if "answer> ask IKE_AUTH" in each]
    decision = parse_decision(line, ASKED)
    assert isinstance(decision, Ask)
    (payload,) = decision.payloads
    assert isinstance(payload, Eap)
    data = EapPacket.decode(payload.packet).method_data
    assert int.from_bytes(data[:4]) == len(data[4:]) and data[4:].startswith(b"<config-auth")

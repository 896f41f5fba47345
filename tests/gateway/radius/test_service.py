"""Sessions that a server granted: accounts, limits, and what servers tell us."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import hmac
import ipaddress
import logging
import socket
import time
from collections.abc import AsyncIterator

import pytest

from ikeway.dataplane.interface import Counters, SaEnded
from ikeway.eap.questions import Granted, PasswordCheck
from ikeway.errors import AuthenticationFailed, Closed, HostError, PeerUnreachable
from ikeway.gateway.radius.accounting import TerminateCause
from ikeway.gateway.radius.dynamic import ErrorCause
from ikeway.gateway.radius.service import RadiusService
from ikeway.gateway.usage import UsageBook
from ikeway.ike import events as ike
from ikeway.ike.questions import SettleConnection
from tests.gateway.radius.fake import (
    ACCEPT,
    ACCOUNTING_RESPONSE,
    SECRET,
    FakeServer,
    answer,
    dynamic,
    encoded,
    sa,
    settings,
    start_both,
    take_apart,
)
from tests.ports import unused_port

DISCONNECT, DISCONNECT_ACK, DISCONNECT_NAK, COA, COA_ACK, COA_NAK = 40, 41, 42, 43, 44, 45
START, STOP, INTERIM = b"\0\0\0\1", b"\0\0\0\2", b"\0\0\0\3"
ADDRESS = ipaddress.ip_address("10.9.0.7")


class Host:
    """A gateway, as RADIUS sees it."""

    def __init__(self) -> None:
        self.ended: list[int] = []
        self.carried: dict[tuple[int, bool], Counters] = {}
        self.refusal: Exception | None = None
        self.leads_to = "people"

    def settle(self, sa, grant):
        if self.refusal is not None:
            raise self.refusal
        return dataclasses.make_dataclass("C", ["name"])(self.leads_to)

    def addresses_of(self, connection_id):
        return [ADDRESS]

    def disconnect(self, connection_id):
        self.ended.append(connection_id)
        return True

    async def counters(self):
        return self.carried


class Stage:
    """A service with one server for everything."""

    async def start(self, *, replies=(), silent=False, **changes):
        self.replies, self.silent = list(replies), silent
        self.server, self.accounts = FakeServer(self.login), FakeServer(self.account)
        port = await start_both(self.server, self.accounts)
        self.host, self.book = Host(), UsageBook()
        self.settings = settings(port, **({"accounting": True} | changes))
        self.service = RadiusService({"corp": self.settings}, self.host, self.book)
        await self.service.start()
        return self

    def login(self, got):
        return answer(got, ACCEPT, self.replies)

    def account(self, got):
        return None if self.silent else answer(got, ACCOUNTING_RESPONSE, signed=False)

    async def log_in(self, number=7):
        made = sa(number)
        verdict = await self.service.check(PasswordCheck(b"alice", b"x", "EAP-GTC"), made, "corp")
        assert isinstance(verdict, Granted)
        self.book.open(number)
        self.service.on_event(ike.IkeEstablished(made))
        return made

    def end(self, made, error=None):
        self.service.on_event(ike.IkeClosed(made, error, True))
        self.book.close(made.connection_id)

    async def records(self, count):
        async with asyncio.timeout(5):
            while len(self.accounts.requests) < count:
                await asyncio.sleep(0.01)
        return self.accounts.requests

    async def given_up(self):
        """Until the server of accounts was asked in vain."""
        async with asyncio.timeout(5):
            while self.service.status()[1].unanswered < 1:
                await asyncio.sleep(0.01)

    async def close(self):
        await self.service.close()
        self.server.close()
        self.accounts.close()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.close()


def number(got, kind):
    return int.from_bytes(got.one(kind))


async def test_an_account_from_beginning_to_end(stage):
    await stage.start(replies=[(25, b"class"), (25, b"other"), (1, b"alice@corp")])
    made = await stage.log_in()
    (start,) = await stage.records(1)
    assert start.is_accounted and start.code == 4 and start.one(40) == START
    assert (start.one(1), start.all(25), start.one(8)) == (b"alice@corp", [b"class", b"other"], ADDRESS.packed)
    stage.book.note(SaEnded(7, True, 10, 5 << 32, 1.0))
    stage.book.note(SaEnded(7, True, 1, 5, 1.0))
    stage.book.note(SaEnded(7, False, 3, 300, 1.0))
    stage.book.note(SaEnded(8, False, 3, 300, 1.0))
    stage.end(made, Closed("the peer closed the connection"))
    _, stop = await stage.records(2)
    assert (stop.one(40), number(stop, 49)) == (STOP, TerminateCause.USER_REQUEST)
    assert stop.one(44) == start.one(44) and start.octets[1] != stop.octets[1]
    assert [number(stop, kind) for kind in (42, 52, 47, 43, 53, 48)] == [5, 5, 11, 300, 0, 3]
    assert stage.service.grant_of(7) is None


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (None, TerminateCause.ADMIN_RESET),
        (PeerUnreachable("gone"), TerminateCause.LOST_CARRIER),
        (HostError("broken"), TerminateCause.NAS_ERROR),
        (AuthenticationFailed("x"), TerminateCause.NAS_REQUEST),
    ],
)
async def test_why_sessions_end(stage, error, cause):
    await stage.start()
    stage.end(await stage.log_in(), error)
    assert number((await stage.records(2))[1], 49) == cause


async def test_interim_records_say_what_was_carried_so_far(stage):
    await stage.start(interim=0.1)
    made = await stage.log_in()
    child = type("Child", (), {"spi_in": 1, "spi_out": 2})
    made.children.append(child)
    stage.host.carried = {(1, True): Counters(2, 200), (2, False): Counters(1, 100)}
    stage.book.note(SaEnded(7, True, 1, 50, 1.0))
    records = await stage.records(3)
    assert [got.one(40) for got in records[:3]] == [START, INTERIM, INTERIM]
    assert (number(records[2], 42), number(records[2], 43)) == (250, 100)
    stage.end(made)


async def test_a_silent_server_holds_up_nobody_and_the_end_is_bounded(stage, caplog):
    await stage.start(silent=True)
    began = time.monotonic()
    for each in range(50):
        stage.end(await stage.log_in(each + 1))
    with caplog.at_level(logging.WARNING, "ikeway.radius"):
        await stage.service.close()
    assert time.monotonic() - began < 6
    assert "not acknowledged" in caplog.text or "was lost" in caplog.text


async def test_records_are_sent_again_with_their_delay(stage, monkeypatch):
    monkeypatch.setattr("ikeway.gateway.radius.accounting._PAUSES", (1.0, 0.1))
    await stage.start(silent=True)
    await stage.log_in()
    await stage.given_up()
    stage.silent = False
    tried = len(stage.accounts.requests)
    records = await stage.records(tried + 1)
    assert records[0].one(44) == records[-1].one(44)
    assert number(records[-1], 41) >= 1 and records[-1].authenticator != records[0].authenticator


async def test_sessions_that_stand_at_the_end_are_closed_in_their_accounts(stage):
    await stage.start()
    await stage.log_in()
    stage.service.leave()
    await stage.service.close()
    assert number(stage.accounts.requests[-1], 49) == TerminateCause.ADMIN_REBOOT


async def test_a_login_that_fails_later_leaves_nothing(stage):
    await stage.start()
    made = sa(9)
    await stage.service.check(PasswordCheck(b"alice", b"x", "EAP-GTC"), made, "corp")
    settled = await stage.service.settled(SettleConnection(made.connection, 9, b"alice"))
    assert settled.connection.name == "people"
    stage.service.on_event(ike.IkeClosed(made, AuthenticationFailed("wrong key"), False))
    assert stage.service.grant_of(9) is None and not stage.accounts.requests
    with pytest.raises(AuthenticationFailed):
        await stage.service.settled(SettleConnection(made.connection, 9, b"alice"))


async def test_session_timeout_is_told_and_ends_it(stage):
    await stage.start(replies=[(27, b"\0\0\0\1")])
    made = await stage.log_in()
    assert (await stage.service.settled(SettleConnection(made.connection, 7, b"alice"))).lifetime == 1
    await asyncio.sleep(1.2)
    assert stage.host.ended == [7]
    stage.end(made)
    assert number((await stage.records(2))[1], 49) == TerminateCause.SESSION_TIMEOUT


async def test_idle_timeout_looks_at_what_passes(stage):
    await stage.start(replies=[(28, b"\0\0\0\1")])
    made = await stage.log_in()
    made.children.append(type("Child", (), {"spi_in": 1, "spi_out": 2}))

    async def just_used():
        return {(1, True): Counters(1, 1, last_used=time.clock_gettime(time.CLOCK_BOOTTIME))}

    stage.host.counters = just_used
    await asyncio.sleep(1.5)
    assert not stage.host.ended
    del stage.host.counters
    async with asyncio.timeout(10):
        while not stage.host.ended:
            await asyncio.sleep(0.01)
    assert stage.host.ended[:1] == [7]


async def test_reload_keeps_accounts_and_takes_other_servers(stage):
    await stage.start()
    made = await stage.log_in()
    await stage.records(1)
    other = FakeServer(stage.account)
    port = await other.start()
    try:
        await stage.service.reload({"corp": dataclasses.replace(stage.settings, servers=settings(port - 1).servers)})
        stage.end(made)
        async with asyncio.timeout(5):
            while not other.requests:
                await asyncio.sleep(0.01)
        assert other.requests[0].one(44) == stage.accounts.requests[0].one(44)
        await stage.service.reload({})
        with pytest.raises(AuthenticationFailed, match="any more"):
            await stage.service.check(PasswordCheck(b"alice", b"x", "EAP-GTC"), made, "corp")
    finally:
        other.close()


async def test_reload_listens_anew_with_another_secret_and_says_where_it_cannot(stage):
    port = unused_port()
    await stage.start(dynamic=dynamic(port=port))
    await stage.log_in()
    changed = dataclasses.replace(stage.settings, dynamic=dynamic(port=port, secret=b"another"))
    await stage.service.reload({"corp": changed})
    client = Client(stage)
    assert await client.is_silent(request(DISCONNECT, (1, b"alice")))
    assert (await client.ask(request(DISCONNECT, (1, b"alice"), secret=b"another"))).code == DISCONNECT_ACK
    client.sock.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        occupied = dynamic(port=taken.getsockname()[1])
        with pytest.raises(HostError, match="cannot be listened to"):
            await stage.service.reload({"corp": dataclasses.replace(changed, dynamic=occupied)})
    assert stage.service.grant_of(7) is not None  # the session goes on


async def test_a_session_that_ends_while_other_servers_are_taken_over_has_its_end_accounted(stage, monkeypatch):
    """Whatever the reload waits for on behalf of one group, the sessions of another go on."""
    await stage.start()
    first = dataclasses.replace(stage.settings, name="aaa")
    await stage.service.reload({"aaa": first, "corp": stage.settings})
    made = await stage.log_in()
    await stage.records(1)
    proceed = asyncio.Event()

    async def listen(member):
        await proceed.wait()

    monkeypatch.setattr(stage.service, "_listen", listen)
    reload = asyncio.create_task(
        stage.service.reload({"aaa": dataclasses.replace(first, timeout=0.06), "corp": stage.settings})
    )
    await asyncio.sleep(0.01)
    stage.end(made)
    assert (await stage.records(2))[1].one(40) == STOP
    await stage.log_in(8)
    assert (await stage.records(3))[2].one(40) == START
    proceed.set()
    await reload


async def test_accounts_are_closed_where_they_were_opened_when_there_are_to_be_none(stage):
    await stage.start()
    made = await stage.log_in()
    await stage.records(1)
    await stage.service.reload({"corp": dataclasses.replace(stage.settings, accounting=False)})
    other = await stage.log_in(8)
    stage.end(made)
    stage.end(other)
    start, stop = await stage.records(2)
    assert stop.one(40) == STOP and stop.one(44) == start.one(44)
    await stage.service.reload({"corp": dataclasses.replace(stage.settings, accounting=False, timeout=0.06)})
    assert not stage.service._former  # nothing is left that is kept for them
    await asyncio.sleep(0.1)
    assert len(stage.accounts.requests) == 2


async def test_log_ins_under_way_end_with_the_servers_that_they_began_with(stage):
    """However short the new ones' patience is."""
    await stage.start(timeout=0.3)
    stage.server.script = lambda got: None  # it takes its time
    made = sa(9)
    login = asyncio.create_task(stage.service.check(PasswordCheck(b"alice", b"x", "EAP-GTC"), made, "corp"))
    async with asyncio.timeout(5):
        while not stage.server.requests:
            await asyncio.sleep(0.01)
    await stage.service.reload({"corp": dataclasses.replace(stage.settings, timeout=0.01, tries=1)})
    await asyncio.sleep(0.1)
    stage.server.script = stage.login
    assert isinstance(await login, Granted)


async def test_the_end_of_a_session_is_not_told_before_its_beginning(stage, monkeypatch):
    monkeypatch.setattr("ikeway.gateway.radius.accounting._PAUSES", (0.4, 0.1))
    await stage.start(silent=True)
    made = await stage.log_in()
    await stage.given_up()
    tried = len(stage.accounts.requests)
    stage.silent = False  # back again, while the beginning waits for its next time
    stage.end(made)
    records = (await stage.records(tried + 2))[tried:]
    assert [got.one(40) for got in records] == [START, STOP]


async def test_what_waits_to_be_sent_again_is_sent_at_the_end(stage, monkeypatch):
    monkeypatch.setattr("ikeway.gateway.radius.accounting._PAUSES", (60.0,))
    await stage.start(silent=True)
    stage.end(await stage.log_in())
    await stage.given_up()
    tried = len(stage.accounts.requests)
    stage.silent = False
    await stage.service.close()
    assert [got.one(40) for got in stage.accounts.requests[tried:]] == [START, STOP]


async def test_an_interim_record_does_not_queue_behind_a_beginning_that_is_not_acknowledged(stage):
    await stage.start(interim=0.05, silent=True, timeout=2.0)
    made = await stage.log_in()
    await asyncio.sleep(0.3)
    (member,) = stage.service._members.values()
    assert member.accounting.pending <= 2  # the beginning, and for a moment whoever asks what was carried
    stage.silent = False
    stage.end(made)


# --- what servers tell us


def request(code, *pairs, stamped=True, secret=SECRET, identifier=1, signed=False):
    """A request of RFC 5176 section 2.3."""
    every = [*pairs, *([(55, int(time.time()).to_bytes(4))] if stamped else [])]
    attributes = (bytes((80, 18)) + bytes(16) if signed else b"") + encoded(every)
    head = bytes((code, identifier)) + (20 + len(attributes)).to_bytes(2)
    if signed:
        digest = hmac.new(secret, head + bytes(16) + attributes, hashlib.md5).digest()
        attributes = attributes[:2] + digest + attributes[18:]
    return head + hashlib.md5(head + bytes(16) + attributes + secret).digest() + attributes


class Client:
    """A server that asks."""

    def __init__(self, stage, address=None) -> None:
        (member,) = stage.service._members.values()
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.connect(address or member.dynamic.address)

    async def ask(self, octets, seconds=2.0):
        self.sock.send(octets)
        async with asyncio.timeout(seconds):
            return take_apart(await asyncio.get_running_loop().sock_recv(self.sock, 4096))

    async def is_silent(self, octets) -> bool:
        try:
            await self.ask(octets, 0.2)
        except TimeoutError:
            return True
        return False


@pytest.fixture
async def asked(stage) -> AsyncIterator[Client]:
    await stage.start(replies=[(11, b"staff"), (25, b"class")], dynamic=dynamic())
    await stage.log_in()
    client = Client(stage)
    yield client
    client.sock.close()


def cause(got):
    return number(got, 101)


@pytest.mark.parametrize(
    "pairs",
    [
        [(1, b"alice")],
        [(8, ADDRESS.packed)],
        [(25, b"class")],
        [(31, b"198.51.100.9")],
        [(1, b"alice"), (8, ADDRESS.packed), (32, b"vpn.example.com"), (4, bytes((127, 0, 0, 1)))],
    ],
)
@pytest.mark.parametrize("signed", [False, True])
async def test_disconnect(stage, asked, pairs, signed):
    octets = request(DISCONNECT, *pairs, (33, b"proxy"), signed=signed)
    got = await asked.ask(octets)
    assert got.code == DISCONNECT_ACK and stage.host.ended == [7] and got.one(33) == b"proxy"
    body = got.octets[:4] + take_apart(octets).authenticator + got.octets[20:]
    assert hashlib.md5(body + SECRET).digest() == got.authenticator
    again = await asked.ask(octets)
    assert again.octets == got.octets and stage.host.ended == [7]  # not twice
    recorded = Client(stage)  # another port
    assert (await recorded.ask(octets)).octets == got.octets and stage.host.ended == [7]
    recorded.sock.close()


async def test_disconnect_by_the_name_of_the_account(stage, asked):
    (start,) = await stage.records(1)
    assert (await asked.ask(request(DISCONNECT, (44, start.one(44))))).code == DISCONNECT_ACK
    assert stage.host.ended == [7]


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        ([(1, b"bob")], ErrorCause.SESSION_CONTEXT_NOT_FOUND),
        ([(1, b"alice"), (8, bytes(4))], ErrorCause.SESSION_CONTEXT_NOT_FOUND),
        ([(44, b"other")], ErrorCause.SESSION_CONTEXT_NOT_FOUND),
        ([], ErrorCause.MISSING_ATTRIBUTE),
        ([(1, b"alice"), (32, b"another")], ErrorCause.NAS_IDENTIFICATION_MISMATCH),
        ([(1, b"alice"), (4, bytes((10, 0, 0, 1)))], ErrorCause.NAS_IDENTIFICATION_MISMATCH),
        ([(1, b"alice"), (6, b"\0\0\0\x11")], ErrorCause.UNSUPPORTED_ATTRIBUTE),
        ([(1, b"alice"), (27, b"\0\0\0\1")], ErrorCause.UNSUPPORTED_ATTRIBUTE),
        ([(8, b"\1")], ErrorCause.INVALID_ATTRIBUTE_VALUE),
    ],
)
async def test_what_cannot_be_done_is_refused_with_its_cause(stage, asked, pairs, wanted):
    got = await asked.ask(request(DISCONNECT, *pairs))
    assert (got.code, cause(got)) == (DISCONNECT_NAK, wanted) and not stage.host.ended


async def test_what_is_not_authentic_is_met_with_silence(stage, asked):
    good = request(DISCONNECT, (1, b"alice"))
    wrong_signature = request(DISCONNECT, (80, bytes(16)), (1, b"alice"))
    old = request(DISCONNECT, (1, b"alice"), (55, int(time.time() - 400).to_bytes(4)), stamped=False)
    for octets in (
        request(DISCONNECT, (1, b"alice"), secret=b"other"),
        request(DISCONNECT, (1, b"alice"), stamped=False),
        good[:-1] + b"\0",
        wrong_signature,
        old,
        good[:10],
        b"",
        request(1, (1, b"alice")),
    ):
        assert await asked.is_silent(octets)
    assert not stage.host.ended


async def test_only_configured_clients_are_heard(stage):
    await stage.start(dynamic=dynamic(clients=frozenset({ipaddress.ip_address("127.0.0.2")})))
    await stage.log_in()
    client = Client(stage)
    assert await client.is_silent(request(DISCONNECT, (1, b"alice")))
    client.sock.close()
    assert not stage.host.ended


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
async def test_a_client_over_ipv4_is_known_where_both_are_listened_on(stage):
    await stage.start(dynamic=dynamic(listen=ipaddress.ip_address("::")))
    await stage.log_in()
    (member,) = stage.service._members.values()
    client = Client(stage, ("127.0.0.1", member.dynamic.address[1]))
    assert (await client.ask(request(DISCONNECT, (1, b"alice")))).code == DISCONNECT_ACK
    client.sock.close()


async def test_without_a_timestamp_by_wish_only(stage):
    await stage.start(dynamic=dynamic(require_timestamp=False))
    await stage.log_in()
    client = Client(stage)
    assert (await client.ask(request(DISCONNECT, (1, b"alice"), stamped=False))).code == DISCONNECT_ACK
    client.sock.close()


async def test_the_same_wish_is_a_new_one_after_a_while(stage, monkeypatch):
    """Of servers that send no time and always begin with the same identifier."""
    monkeypatch.setattr("ikeway.gateway.radius.dynamic._REMEMBERED_SECONDS", 0.3)
    await stage.start(dynamic=dynamic(require_timestamp=False))
    await stage.log_in()
    client = Client(stage)
    octets = request(DISCONNECT, (1, b"alice"), stamped=False)
    assert (await client.ask(octets)).code == DISCONNECT_ACK and stage.host.ended == [7]
    async with asyncio.timeout(5):
        while stage.host.ended == [7]:
            assert (await client.ask(octets)).code == DISCONNECT_ACK
    assert stage.host.ended == [7, 7]
    client.sock.close()


async def test_coa_changes_limits(stage, asked):
    assert (await asked.ask(request(COA, (1, b"alice"), (27, b"\0\0\0\1"), (85, b"\0\0\1\0")))).code == COA_ACK
    await asyncio.sleep(1.2)
    assert stage.host.ended == [7]


async def test_coa_takes_a_limit_away(stage, asked):
    await asked.ask(request(COA, (1, b"alice"), (27, b"\0\0\0\1")))
    await asked.ask(request(COA, (1, b"alice"), (27, bytes(4)), identifier=2))
    await asyncio.sleep(1.2)
    assert not stage.host.ended


async def test_coa_changes_groups_within_the_connection_only(stage, asked):
    assert (await asked.ask(request(COA, (1, b"alice"), (11, b"admins")))).code == COA_ACK
    assert stage.service.grant_of(7).groups == ("admins",)
    stage.host.leads_to = "guests"
    got = await asked.ask(request(COA, (1, b"alice"), (11, b"guests"), (27, b"\0\0\0\1"), identifier=2))
    assert (got.code, cause(got)) == (COA_NAK, ErrorCause.INVALID_ATTRIBUTE_VALUE)
    stage.host.refusal = AuthenticationFailed("no connection")
    got = await asked.ask(request(COA, (1, b"alice"), (11, b"nobody"), identifier=3))
    assert got.code == COA_NAK and stage.service.grant_of(7).groups == ("admins",)
    await asyncio.sleep(1.2)
    assert not stage.host.ended  # a refused request changes nothing


async def test_coa_with_nothing_to_change(asked):
    got = await asked.ask(request(COA, (1, b"alice")))
    assert (got.code, cause(got)) == (COA_NAK, ErrorCause.MISSING_ATTRIBUTE)


async def test_a_malformed_limit_changes_nothing(stage, asked):
    got = await asked.ask(request(COA, (1, b"alice"), (27, b"\1")))
    assert (got.code, cause(got)) == (COA_NAK, ErrorCause.INVALID_ATTRIBUTE_VALUE)


async def test_where_somebody_listens_already(stage):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        made = RadiusService({"corp": settings(1, dynamic=dynamic(port=taken.getsockname()[1]))}, Host(), UsageBook())
        with pytest.raises(HostError, match="cannot be listened to"):
            await made.start()
    await stage.start()

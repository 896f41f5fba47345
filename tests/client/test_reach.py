"""Trying the addresses of a gateway, with an engine that does what the test says."""

import asyncio
import errno
import socket
import time
from dataclasses import dataclass, field

import pytest

from ikeway.address import Address
from ikeway.client import reach
from ikeway.client.reach import Outcome, Path, Reach, resolve
from ikeway.daemon.loop import Driver
from ikeway.errors import AuthenticationFailed, PeerUnreachable
from ikeway.ike import events as ike
from tests.daemon.fakes import FakeDataPlane, FakeEngine, FakeTransport

HERE = Address("192.0.2.9", 500)
FIRST, SECOND, THIRD = (Address(f"198.51.100.{n}", 500) for n in (1, 2, 3))
SILENCE = PeerUnreachable("nothing answered")


@dataclass(eq=False)
class Sa:
    engine: "Engine"
    remote: Address
    connection_id: int = 0
    closed: list = field(default_factory=list)

    def close(self, now):
        self.closed.append(now)
        self.engine.bring([ike.IkeClosed(self, None, False)])


class Engine(FakeEngine):
    def __init__(self):
        super().__init__()
        self.sas = []

    def connect(self, connection, local, remote, now):
        self.sas.append(Sa(self, remote, len(self.sas)))
        return self.sas[-1]

    def tell(self, driver, *events):
        self.bring(events)
        driver.receive(b"", HERE, FIRST)


@pytest.fixture
async def stage(monkeypatch):
    monkeypatch.setattr(reach, "HEAD_START", 0.05)
    engine = Engine()
    driver = Driver(engine, FakeTransport([]), FakeDataPlane())
    yield engine, driver
    await driver.stop()


def begin(engine, driver, *remotes, failures=None):
    outcome = Outcome(failures or {})
    tried = Reach(driver, engine, None, [Path(HERE, each) for each in remotes], outcome, name="gw.test")
    return tried, asyncio.create_task(tried.establish())


def answered(sa):
    return ike.MessageReceived(sa, None, HERE, sa.remote)


async def test_first_address_answers(stage):
    engine, driver = stage
    _, task = begin(engine, driver, FIRST, SECOND)
    await asyncio.sleep(0)
    (sa,) = engine.sas
    engine.tell(driver, answered(sa), ike.IkeEstablished(sa))
    assert await task is sa
    await asyncio.sleep(0.1)
    assert len(engine.sas) == 1
    assert not sa.closed


async def test_second_one_gets_its_turn_after_the_head_start_and_wins(stage):
    engine, driver = stage
    _, task = begin(engine, driver, FIRST, SECOND)
    await asyncio.sleep(0.1)
    silent, quick = engine.sas
    assert quick.remote == SECOND
    engine.tell(driver, answered(quick))
    assert silent.closed  # before it can ask for a password
    engine.tell(driver, answered(silent), ike.IkeEstablished(quick))
    assert await task is quick
    assert not quick.closed


async def test_after_an_answer_no_other_address_is_begun(stage):
    engine, driver = stage
    _, task = begin(engine, driver, FIRST, SECOND)
    await asyncio.sleep(0)
    engine.tell(driver, answered(engine.sas[0]))
    await asyncio.sleep(0.1)
    assert len(engine.sas) == 1
    engine.tell(driver, ike.IkeEstablished(engine.sas[0]))
    await task


async def test_nobody_answers(stage):
    engine, driver = stage
    _, task = begin(engine, driver, FIRST, SECOND, failures={THIRD: "no route to it"})
    await asyncio.sleep(0.1)
    for sa in engine.sas:
        engine.tell(driver, ike.IkeClosed(sa, SILENCE, False))
    with pytest.raises(PeerUnreachable) as caught:
        await task
    said = str(caught.value)
    for part in (f"{THIRD}: no route to it", f"{FIRST}: no answer", f"{SECOND}: no answer", "gw.test", "UDP port 500"):
        assert part in said


async def test_failed_one_makes_way_for_the_next_at_once(stage):
    engine, driver = stage
    _, task = begin(engine, driver, FIRST, SECOND)
    await asyncio.sleep(0)
    engine.tell(driver, ike.IkeClosed(engine.sas[0], SILENCE, False))
    assert [sa.remote for sa in engine.sas] == [FIRST, SECOND]
    engine.tell(driver, answered(engine.sas[1]), ike.IkeEstablished(engine.sas[1]))
    await task
    await asyncio.sleep(0.1)
    assert len(engine.sas) == 2


async def test_refusal_of_the_one_that_answered_is_final(stage):
    engine, driver = stage
    _, task = begin(engine, driver, FIRST, SECOND)
    await asyncio.sleep(0)
    refusal = AuthenticationFailed("wrong password")
    engine.tell(driver, answered(engine.sas[0]), ike.IkeClosed(engine.sas[0], refusal, False))
    with pytest.raises(AuthenticationFailed) as caught:
        await task
    assert caught.value is refusal
    await asyncio.sleep(0.1)
    assert len(engine.sas) == 1


async def test_one_unreachable_is_not_believed_two_are(stage):
    engine, driver = stage
    tried, task = begin(engine, driver, FIRST)
    await asyncio.sleep(0)
    tried.on_unreachable(FIRST, errno.ECONNREFUSED)
    tried.on_unreachable(SECOND, errno.ECONNREFUSED)
    assert not engine.sas[0].closed
    tried.on_unreachable(FIRST, errno.ECONNREFUSED)
    assert engine.sas[0].closed
    with pytest.raises(PeerUnreachable, match=r"refused \(ICMP"):
        await task


async def test_who_has_answered_cannot_be_made_unreachable(stage):
    engine, driver = stage
    tried, task = begin(engine, driver, FIRST)
    await asyncio.sleep(0)
    engine.tell(driver, answered(engine.sas[0]))
    for _ in range(3):
        tried.on_unreachable(FIRST, errno.ECONNREFUSED)
    assert not engine.sas[0].closed
    engine.tell(driver, ike.IkeEstablished(engine.sas[0]))
    await task


async def test_a_port_that_refuses_after_an_answer_is_named_in_the_end(stage):
    """Port 500 answers, and 4500 is closed."""
    engine, driver = stage
    tried, task = begin(engine, driver, FIRST)
    await asyncio.sleep(0)
    engine.tell(driver, answered(engine.sas[0]))
    tried.on_unreachable(FIRST._replace(port=4500), errno.ECONNREFUSED)
    tried.on_unreachable(SECOND, errno.EHOSTUNREACH)
    engine.tell(driver, ike.IkeClosed(engine.sas[0], PeerUnreachable("and then nothing"), False))
    with pytest.raises(PeerUnreachable) as caught:
        await task
    assert caught.value.got.startswith(f"{FIRST.host}:4500: refused (ICMP")


async def test_no_path_at_all(stage):
    engine, driver = stage
    _, task = begin(engine, driver, failures={FIRST: "no route to it"})
    with pytest.raises(PeerUnreachable, match="no route to it"):
        await task


async def test_cancelled_one_leaves_nothing_behind(stage):
    engine, driver = stage
    _, task = begin(engine, driver, FIRST, SECOND)
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(sa.closed for sa in engine.sas)
    assert driver._listeners == []
    await asyncio.sleep(0.1)
    assert len(engine.sas) == 2


async def test_addresses_need_no_name_server():
    assert await resolve(Address("192.0.2.1", 500)) == [Address("192.0.2.1", 500)]
    assert await resolve(Address("2001:db8::1", 4501)) == [Address("2001:db8::1", 4501)]


async def test_unknown_name_is_told():
    with pytest.raises(PeerUnreachable, match=r"nowhere\.invalid leads to no address"):
        await resolve(Address("nowhere.invalid", 500))


async def test_name_server_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(reach, "_RESOLVE_SECONDS", 0.05)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(1))
    with pytest.raises(PeerUnreachable, match="no name server answered"):
        await resolve(Address("gw.test", 500))

import asyncio
import gc
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from ikeway.daemon import clock
from ikeway.daemon.loop import Driver
from ikeway.errors import AuthenticationFailed, HostError, IkewayError
from ikeway.ike import events as ike
from ikeway.questions import CurrentTime, Question
from tests.daemon.fakes import ELSEWHERE, HERE, THERE, FakeDataPlane, FakeEngine, FakeEsp, FakeSa, FakeTransport, Sent


@dataclass(frozen=True, eq=False)
class Password(Question[str]):
    user: str


@pytest.fixture
async def stage():
    engine, dataplane = FakeEngine(), FakeDataPlane()
    driver = Driver(engine, FakeTransport(dataplane.journal), dataplane)
    yield engine, driver, dataplane, dataplane.journal
    await driver.stop()


def child_up(spi, connection_id=1):
    return [
        ike.InboundAdded(FakeEsp(spi, connection_id), None),
        ike.OutboundAdded(FakeEsp(spi + 1, connection_id), None),
        ike.ChildUp(FakeSa(connection_id), None),
    ]


async def settled(driver):
    await asyncio.wait_for(driver.settle(), 2)


async def test_message_without_news_for_the_data_plane_goes_at_once(stage):
    engine, driver, _, journal = stage
    engine.script = lambda octets: ([], [Sent(b"re:" + octets, HERE, THERE)])
    driver.receive(b"hello", HERE, THERE)
    assert journal == [("sent", b"re:hello")]


async def test_answer_leaves_after_the_data_plane_has_the_sas(stage):
    engine, driver, dataplane, journal = stage
    told = []
    driver.listen(lambda event: told.append((type(event).__name__, list(journal))))
    dataplane.held[7] = asyncio.Event()
    engine.script = lambda octets: (child_up(7), [Sent(b"auth response", HERE, THERE)])
    driver.receive(b"auth", HERE, THERE)
    await asyncio.sleep(0.01)
    assert journal == []
    dataplane.held[7].set()
    await settled(driver)
    assert journal == [("in", 7), ("out", 8), ("sent", b"auth response")]
    assert told[-1] == ("ChildUp", [("in", 7), ("out", 8)])


async def test_later_message_to_the_same_peer_does_not_overtake(stage):
    engine, driver, dataplane, journal = stage
    dataplane.held[7] = asyncio.Event()
    outcomes = {
        b"auth": (child_up(7), [Sent(b"auth response", HERE, THERE)]),
        b"again": ([], [Sent(b"auth response", HERE, THERE)]),
    }
    engine.script = outcomes.get
    driver.receive(b"auth", HERE, THERE)
    driver.receive(b"again", HERE, THERE)  # the peer retransmits: the answer would tell it that the SA is there
    await asyncio.sleep(0.01)
    assert journal == []
    dataplane.held[7].set()
    await settled(driver)
    assert journal[2:] == [("sent", b"auth response")] * 2


async def test_other_connections_do_not_wait(stage):
    engine, driver, dataplane, journal = stage
    dataplane.held[7] = asyncio.Event()
    outcomes = {
        b"slow": (child_up(7, 1), [Sent(b"slow response", HERE, THERE)]),
        b"fast": (child_up(9, 2), [Sent(b"fast response", HERE, ELSEWHERE)]),
    }
    engine.script = outcomes.get
    driver.receive(b"slow", HERE, THERE)
    driver.receive(b"fast", HERE, ELSEWHERE)
    async with asyncio.timeout(10):
        while ("sent", b"fast response") not in journal:
            await asyncio.sleep(0.001)
    assert journal == [("in", 9), ("out", 10), ("sent", b"fast response")]
    dataplane.held[7].set()
    await settled(driver)
    assert journal[-1] == ("sent", b"slow response")


async def test_removal_waits_for_the_addition_of_the_same_spi(stage):
    engine, driver, dataplane, journal = stage
    dataplane.held[7] = asyncio.Event()
    engine.bring(child_up(7))
    driver.receive(b"", HERE, THERE)
    engine.bring([ike.InboundRemoved(7, None)])
    driver.receive(b"", HERE, THERE)
    await asyncio.sleep(0.01)
    dataplane.held[7].set()
    await settled(driver)
    assert journal == [("in", 7), ("out", 8), ("-in", 7)]


async def test_refused_sa_is_told_and_the_message_still_leaves(stage):
    engine, driver, dataplane, journal = stage
    refused = []
    driver.on_refused_sa = lambda event, error: refused.append((event.esp.spi, error))
    dataplane.refused = {8}
    engine.bring(child_up(7), [Sent(b"auth response", HERE, THERE)])
    driver.receive(b"", HERE, THERE)
    await settled(driver)
    assert journal == [("in", 7), ("sent", b"auth response")]
    assert [spi for spi, _ in refused] == [8]
    assert isinstance(refused[0][1], HostError)


async def test_worker_that_does_not_answer_is_given_up(stage, monkeypatch):
    engine, driver, dataplane, journal = stage
    monkeypatch.setattr("ikeway.daemon.loop._DATAPLANE_SECONDS", 0.05)
    refused = []
    driver.on_refused_sa = lambda event, error: refused.append(str(error))
    dataplane.held[7] = asyncio.Event()
    engine.bring(child_up(7), [Sent(b"response", HERE, THERE)])
    driver.receive(b"", HERE, THERE)
    await settled(driver)
    assert "does not answer" in refused[0]
    assert ("sent", b"response") in journal


async def test_path_and_keepalive(stage):
    engine, driver, _, journal = stage
    engine.bring([ike.PathChanged(FakeSa(3), HERE, ELSEWHERE, True), ike.KeepaliveDue(HERE, ELSEWHERE)])
    driver.receive(b"", HERE, THERE)
    await settled(driver)
    assert journal == [("move", 3, ELSEWHERE), ("keepalive", ELSEWHERE)]


async def test_slow_question_blocks_nobody(stage):
    engine, driver, _, journal = stage
    typed = asyncio.Event()

    async def prompt(question):
        await typed.wait()
        return f"secret of {question.user}"

    driver.answer_with(Password, prompt)
    question = Password("ann")
    engine.bring([ike.Asked(FakeSa(1), question)])
    driver.receive(b"", HERE, THERE)
    engine.bring([], [Sent(b"other", HERE, ELSEWHERE)])
    driver.receive(b"", HERE, ELSEWHERE)
    await asyncio.sleep(0.01)
    assert journal == [("sent", b"other")]
    assert engine.answers == []
    typed.set()
    await asyncio.sleep(0.01)
    assert engine.answers == [(question, "secret of ann")]


async def test_a_handler_may_know_which_sa_asks(stage):
    engine, driver, _, _ = stage

    async def tell(question, sa):
        return f"{question.user} of {sa.connection_id}"

    driver.answer_of_sa(Password, tell)
    question = Password("ann")
    engine.bring([ike.Asked(FakeSa(7), question)])
    driver.receive(b"", HERE, THERE)
    await asyncio.sleep(0.01)
    assert engine.answers == [(question, "ann of 7")]


async def test_refusal_defect_and_nobody_to_ask_all_come_back_as_errors(stage):
    engine, driver, _, _ = stage
    refusal = AuthenticationFailed("no such user")

    async def refuse(question):
        raise refusal if question.user == "ann" else ZeroDivisionError

    for user in ("ann", "bob"):
        driver.answer_with(Password, refuse)
        engine.bring([ike.Asked(None, Password(user))])
        driver.receive(b"", HERE, THERE)
        await asyncio.sleep(0.01)
    driver._handlers.clear()
    engine.bring([ike.Asked(None, Password("cy"))])
    driver.receive(b"", HERE, THERE)
    await asyncio.sleep(0.01)
    first, second, third = (answer for _, answer in engine.answers)
    assert first is refusal
    assert isinstance(second, IkewayError)
    assert "nobody here answers Password" in str(third)


async def test_every_driver_knows_the_time(stage):
    engine, driver, _, _ = stage
    before = datetime.now(UTC)
    engine.bring([ike.Asked(None, CurrentTime())])
    driver.receive(b"", HERE, THERE)
    await asyncio.sleep(0.01)
    [(_, answer)] = engine.answers
    assert before <= answer <= datetime.now(UTC)


async def test_question_of_a_closed_sa_is_dropped(stage):
    engine, driver, _, _ = stage
    dropped = asyncio.Event()

    async def prompt(question):
        try:
            await asyncio.sleep(60)
        finally:
            dropped.set()

    driver.answer_with(Password, prompt)
    sa = FakeSa()
    engine.bring([ike.Asked(sa, Password("ann"))])
    driver.receive(b"", HERE, THERE)
    await asyncio.sleep(0.01)
    engine.bring([ike.IkeClosed(sa, None, False)])
    driver.receive(b"", HERE, THERE)
    await asyncio.wait_for(dropped.wait(), 1)
    assert engine.answers == []


async def test_timer_follows_the_deadline(stage):
    engine, driver, _, _ = stage
    engine.due = clock.now() + 0.03
    driver.receive(b"", HERE, THERE)
    engine.bring([], [])
    await asyncio.sleep(0.1)
    assert len(engine.ticks) == 1


async def test_command_of_a_listener_follows_what_is_being_carried_out(stage):
    engine, driver, _, journal = stage

    def listener(event):
        if isinstance(event, ike.IkeEstablished):
            driver.command(lambda now: engine.bring([], [Sent(b"second", HERE, THERE)]))

    driver.listen(listener)
    engine.bring([ike.IkeEstablished(FakeSa())], [Sent(b"first", HERE, THERE)])
    driver.receive(b"", HERE, THERE)
    assert journal == [("sent", b"first"), ("sent", b"second")]


async def test_neither_engine_nor_listener_can_stop_the_loop(stage):
    engine, driver, _, journal = stage

    def broken(*_):
        raise ZeroDivisionError

    driver.listen(broken)
    engine.script = broken
    driver.receive(b"", HERE, THERE)
    engine.script = lambda octets: ([ike.IkeEstablished(FakeSa())], [Sent(b"alive", HERE, THERE)])
    driver.receive(b"", HERE, THERE)
    assert journal == [("sent", b"alive")]


async def test_stop_ends_everything_at_once(stage):
    engine, driver, dataplane, _ = stage
    dataplane.held[7] = asyncio.Event()

    async def forever(question):
        await asyncio.sleep(60)

    driver.answer_with(Password, forever)
    engine.bring([*child_up(7), ike.Asked(None, Password("ann"))])
    driver.receive(b"", HERE, THERE)
    engine.bring([ike.Asked(None, Password("ann"))])
    driver.receive(b"", HERE, THERE)
    await asyncio.sleep(0.01)
    await asyncio.wait_for(driver.stop(), 1)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_stop_ends_steps_that_others_wait_for(stage):
    engine, driver, dataplane, journal = stage
    dataplane.held[7] = asyncio.Event()
    engine.script = lambda octets: (child_up(7), [Sent(octets, HERE, THERE)])
    for octets in (b"first", b"second"):
        driver.receive(octets, HERE, THERE)
    await asyncio.sleep(0.01)
    await asyncio.wait_for(driver.stop(), 1)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
    dataplane.held[7].set()
    await asyncio.sleep(0.01)
    assert journal == []


async def test_asynchronous_generators_of_the_engine_are_not_the_event_loops(stage):
    engine, driver, _, _ = stage
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))

    async def method():
        yield await never()

    class never:
        def __await__(self):
            yield "a question"

    def begin(octets):
        generator = method()
        asking = generator.__anext__()
        assert asking.send(None) == "a question"
        return [], []  # the log-in is given up: the generator is dropped while it waits

    engine.script = begin
    driver.receive(b"", HERE, THERE)
    gc.collect()
    await asyncio.sleep(0.01)
    gc.collect()
    assert complaints == []


async def test_defects_do_not_fill_the_log(stage, caplog):
    engine, driver, _, _ = stage

    def broken(*_):
        raise ZeroDivisionError

    engine.script = broken
    for _ in range(100):
        driver.receive(b"", HERE, THERE)
    assert caplog.text.count("The engine failed") == 1
    assert "ZeroDivisionError" in caplog.text

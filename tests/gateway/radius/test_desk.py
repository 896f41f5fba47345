"""RADIUS as the gateway meets it."""

from __future__ import annotations

import io
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from ikeway.address import Address
from ikeway.cli.show_status import render
from ikeway.daemon.status import Status
from ikeway.dataplane.interface import SaEnded
from ikeway.eap.questions import Granted, PasswordCheck, Refused
from ikeway.eap.relay import PasswordRelay, RelayQuestion
from ikeway.errors import HostError
from ikeway.gateway.attempts import AttemptLimits, LoginAttempts, TooManyFailures
from ikeway.gateway.radius.desk import RadiusDesk
from ikeway.gateway.radius.errors import RadiusUnavailable
from ikeway.ike import events as ike
from tests.gateway.radius.fake import ACCEPT, ACCOUNTING_RESPONSE, REJECT, FakeServer, answer, dynamic, sa, settings


class Stage:
    def __init__(self) -> None:
        self.handlers: dict[type, Any] = {}
        driver = SimpleNamespace(answer_of_sa=self.handlers.__setitem__, answer_with=self.handlers.__setitem__)
        self.runner: Any = SimpleNamespace(driver=driver, on_sa_ended=None)
        self.answers: Any = SimpleNamespace(
            granted=lambda number: None,
            settle=lambda connection, grant: connection,
            pools=SimpleNamespace(leases_of=lambda number: ()),
        )
        self.attempts = LoginAttempts(AttemptLimits(per_user_and_address=2), lambda: 0.0)
        self.desk = RadiusDesk(self.answers, self.runner, self.attempts, lambda number: True)
        self.desk.attach()

    async def check(self, number: int = 7) -> Any:
        question = PasswordRelay("corp", PasswordCheck(b"alice", b"x", "EAP-GTC"))
        return await self.handlers[PasswordRelay](question, sa(number))


@pytest.fixture
async def server():
    made = FakeServer(
        lambda got: answer(got, ACCEPT) if got.code == 1 else answer(got, ACCOUNTING_RESPONSE, signed=False)
    )
    yield made
    made.close()


async def test_the_first_servers_may_come_with_a_reload(server):
    stage = Stage()
    await stage.desk.start({})
    assert stage.desk.status() == () and stage.desk.grant_of(7) is None
    corp = settings(await server.start())
    assert await stage.desk.reload({"corp": corp}) == []
    assert isinstance(await stage.check(), Granted)
    assert stage.answers.granted(7).user == "alice" and stage.desk.grant_of(7) is not None
    stage.desk.on_event(ike.IkeEstablished(sa()))
    stage.runner.on_sa_ended(SaEnded(7, True, 1, 10, 1.0))
    stage.desk.on_event(ike.IkeClosed(sa(), None, True))
    assert stage.desk.grant_of(7) is None
    await stage.desk.close()


async def test_a_reload_says_what_cannot_be_and_a_start_raises_it(server):
    port = await server.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        corp = settings(port, dynamic=dynamic(port=taken.getsockname()[1]))
        stage = Stage()
        (said,) = await stage.desk.reload({"corp": corp})
        assert "cannot be listened to" in said
        assert isinstance(await stage.check(), Granted)  # log-ins go on
        await stage.desk.close()
        stage = Stage()
        with pytest.raises(HostError):
            await stage.desk.start({"corp": corp})
        await stage.desk.close()


async def test_guesses_are_limited_before_the_server_is_asked(server):
    stage = Stage()
    await stage.desk.start({"corp": settings(await server.start())})
    for number in range(1, 3):
        await stage.check(number)
        stage.attempts.ended(number, proven=None, refused=True)
    asked = len(server.requests)
    with pytest.raises(TooManyFailures):
        await stage.check(3)
    with pytest.raises(TooManyFailures):
        await stage.handlers[RelayQuestion](RelayQuestion("corp", b"alice", b"\2\0\0\5\1"), sa(4))
    assert len(server.requests) == asked
    await stage.desk.close()


async def test_the_status_shows_how_the_servers_are(server):
    stage = Stage()
    corp = settings(await server.start(), 9, accounting=True)
    await stage.desk.start({"corp": corp})
    await stage.check()
    status = Status(role="gateway", name="g", state="up", version="1", pid=1, uptime=1.0, radius=stage.desk.status())
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render(Status.from_json(status.to_json())))
    text = console.export_text()
    assert f"{corp.servers[0]} authentication: answers, 1 of 1 requests answered" in text
    assert "127.0.0.1:10 accounting: not asked yet" in text and str(Address("127.0.0.1", 9)) in text
    await stage.desk.close()


async def test_servers_that_are_away_lock_nobody_out(server):
    """What nobody has looked at was no failure; a password that was refused is one."""
    stage = Stage()
    server.script = lambda got: None
    await stage.desk.start({"corp": settings(await server.start(), timeout=0.02, tries=1)})
    for number in range(1, 6):
        with pytest.raises(RadiusUnavailable):
            await stage.check(number)
        stage.attempts.ended(number, proven=None, refused=False)
    for number in range(6, 11):
        with pytest.raises(RadiusUnavailable):
            await stage.handlers[RelayQuestion](RelayQuestion("corp", b"alice", b"\2\0\0\5\1"), sa(number))
        stage.attempts.ended(number, proven=None, refused=False)
    assert len(stage.attempts) == 0 and not stage.attempts._under_way
    server.script = lambda got: answer(got, REJECT)
    for number in (11, 12):
        assert isinstance(await stage.check(number), Refused)
        stage.attempts.ended(number, proven=None, refused=True)
    with pytest.raises(TooManyFailures):
        await stage.check(13)
    await stage.desk.close()


async def test_who_gets_in_under_another_name_has_not_failed(server):
    """As with PEAP, whose outer name is anybody's: the server says who it is."""
    stage = Stage()
    server.script = lambda got: answer(got, ACCEPT, [(1, b"CORP\\alice")])
    await stage.desk.start({"corp": settings(await server.start())})
    for number in range(1, 6):
        question = RelayQuestion("corp", b"anonymous", b"\2\0\0\5\1")
        accepted = await stage.handlers[RelayQuestion](question, sa(number))
        assert accepted.identity == b"CORP\\alice"
        stage.attempts.ended(number, proven="CORP\\alice", refused=False)
    assert len(stage.attempts) == 0
    await stage.handlers[RelayQuestion](RelayQuestion("corp", b"anonymous", b"\2\0\0\5\1"), sa(6))
    stage.attempts.ended(6, proven=None, refused=True)  # let in, and then failed all the same
    assert len(stage.attempts) > 0
    await stage.desk.close()

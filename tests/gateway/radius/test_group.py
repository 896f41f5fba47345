"""Asking servers: repetition, fail-over, and answers that are not to be believed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack

import pytest

from ikeway.gateway.radius.attributes import Attr
from ikeway.gateway.radius.errors import RadiusUnavailable
from ikeway.gateway.radius.group import Group
from ikeway.gateway.radius.packets import Code
from ikeway.gateway.radius.port import IDENTIFIERS
from tests.gateway.radius.fake import ACCEPT, ACCOUNTING_RESPONSE, REJECT, FakeServer, Script, answer, settings
from tests.ports import unused_port

Make = Callable[..., Group]


def accept(got):
    return answer(got, ACCEPT)


def silent(got):
    return None


@pytest.fixture
async def closing() -> AsyncIterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


async def serve(closing: ExitStack, script: Script, port: int = 0) -> tuple[FakeServer, int]:
    server = FakeServer(script)
    port = await server.start(port)
    closing.callback(server.close)
    return server, port


def group(closing: ExitStack, *ports: int, **changes) -> Group:
    made = Group(settings(*ports, **changes))
    closing.callback(made.close)
    return made


async def test_says_who_it_is(closing):
    server, port = await serve(closing, accept)
    made = group(closing, port)
    reply, asked = await made.authenticate([(Attr.USER_NAME, b"alice")])
    assert reply.code is Code.ACCESS_ACCEPT and str(asked) == f"127.0.0.1:{port}"
    (got,) = server.requests
    assert got.is_signed
    assert (got.one(32), got.one(4), got.one(1)) == (b"vpn.example.com", bytes((127, 0, 0, 1)), b"alice")


async def test_repeats_the_same_octets(closing):
    server, port = await serve(closing, lambda got: answer(got, ACCEPT) if len(server.requests) > 2 else None)
    made = group(closing, port)
    await made.authenticate([])
    assert len({got.octets for got in server.requests}) == 1 and len(server.requests) == 3
    (status,) = made.status()
    assert (status.requests, status.repeated, status.answered, status.state) == (1, 2, 1, "answers")


async def test_a_dead_server_costs_one_login_and_is_asked_last_then(closing):
    dead, first = await serve(closing, silent)
    alive, second = await serve(closing, accept)
    made = group(closing, first, second)
    reply, _ = await made.authenticate([])
    assert reply.code is Code.ACCESS_ACCEPT and len(dead.requests) == 3
    await made.authenticate([])
    assert (len(dead.requests), len({got.octets for got in alive.requests})) == (3, 2)
    assert [each.state for each in made.status()] == ["dead", "answers"]
    assert "not answered 3 times" in made.status()[0].trouble


async def test_where_nothing_listens_the_next_one_is_asked_at_once(closing):
    _, second = await serve(closing, accept)
    made = group(closing, unused_port(), second, timeout=5.0)
    async with asyncio.timeout(4):
        await made.authenticate([])
    assert "nothing listening" in made.status()[0].trouble


async def test_the_only_server_is_waited_for_while_it_starts(closing):
    port = unused_port()
    made = group(closing, port, timeout=0.3)
    asked = asyncio.create_task(made.authenticate([]))
    await asyncio.sleep(0.1)
    await serve(closing, accept, port)
    reply, _ = await asked
    assert reply.code is Code.ACCESS_ACCEPT


async def test_a_dead_server_that_is_the_only_one_left_is_asked_again(closing):
    server, port = await serve(closing, silent)
    made = group(closing, port)
    with pytest.raises(RadiusUnavailable):
        await made.authenticate([])
    server.script = accept
    await made.authenticate([])
    (status,) = made.status()
    assert (status.state, status.trouble, status.unanswered, status.answered) == ("answers", "", 1, 1)


async def test_silence_ends_and_says_which_servers(closing):
    _, first = await serve(closing, silent)
    _, second = await serve(closing, silent)
    made = group(closing, first, second)
    async with asyncio.timeout(made.settings.longest + 0.5):
        with pytest.raises(RadiusUnavailable) as caught:
            await made.authenticate([])
    assert f":{first} has not answered" in caught.value.reason and f":{second}" in caught.value.reason
    assert "client" in caught.value.remedy


async def test_another_secret_is_named(closing, caplog):
    _, port = await serve(closing, lambda got: answer(got, ACCEPT, secret=b"another"))
    made = group(closing, port)
    with caplog.at_level(logging.WARNING, "ikeway.radius"), pytest.raises(RadiusUnavailable) as caught:
        await made.authenticate([])
    assert "secret differs" in caught.value.remedy
    assert any("secret differs" in line and str(port) in line for line in caplog.messages)
    assert made.status()[0].dropped == {"authenticator": 3}
    assert "testing123" not in caplog.text


async def test_a_forged_answer_does_not_keep_the_true_one_away(closing):
    """Whoever can send in the server's name must not be able to refuse or accept anybody."""
    _, port = await serve(
        closing,
        lambda got: (
            [answer(got, REJECT, secret=b"guess"), b"\2", b"", answer(got, ACCEPT, signed=False)] * 3
            + [answer(got, ACCEPT), answer(got, REJECT)]
        ),
    )
    made = group(closing, port)
    reply, _ = await made.authenticate([])
    assert reply.code is Code.ACCESS_ACCEPT
    assert made.status()[0].dropped == {"authenticator": 3, "unprotected": 3}


async def test_unsigned_answers_by_wish_only(closing):
    _, port = await serve(closing, lambda got: answer(got, ACCEPT, signed=False))
    with pytest.raises(RadiusUnavailable) as caught:
        await group(closing, port).authenticate([], password=b"x")
    assert "CVE-2024-3596" in caught.value.remedy
    reply, _ = await group(closing, port, require_message_authenticator=False).authenticate([], password=b"x")
    assert reply.code is Code.ACCESS_ACCEPT


async def test_more_requests_than_one_socket_has_identifiers(closing):
    held = []
    server, port = await serve(closing, lambda got: held.append(got))
    made = group(closing, port, timeout=5.0)
    asked = [asyncio.create_task(made.authenticate([(Attr.USER_NAME, str(n).encode())])) for n in range(600)]
    async with asyncio.timeout(20):
        while len(held) < 600:
            await asyncio.sleep(0.05)
    assert max(sum(1 for got in held if got.octets[1] == n) for n in range(IDENTIFIERS)) == 3  # on three sockets
    server.script = accept
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    await made.authenticate([])  # every identifier was given back


async def test_each_gets_its_own_answer(closing):
    def later(got):
        asyncio.get_running_loop().call_later(0.01 * (got.octets[1] % 5), send, got)

    def send(got):
        server.transport.sendto(answer(got, ACCEPT, [(18, got.one(1))]), addresses[got.octets])

    addresses = {}

    class Server(FakeServer):
        def datagram_received(self, data, addr):
            addresses[data] = addr
            super().datagram_received(data, addr)

    server = Server(later)
    port = await server.start()
    closing.callback(server.close)
    made = group(closing, port, timeout=2.0)
    names = [f"user{n}".encode() for n in range(300)]
    replies = await asyncio.gather(*(made.authenticate([(Attr.USER_NAME, name)]) for name in names))
    assert [reply.attributes.first(Attr.REPLY_MESSAGE) for reply, _ in replies] == names


async def test_what_does_not_fit_into_a_packet_fails_at_once(closing):
    server, port = await serve(closing, accept)
    with pytest.raises(RadiusUnavailable, match="does not fit"):
        await group(closing, port).authenticate([(Attr.STATE, bytes(250))] * 20)
    assert not server.requests


async def test_a_name_that_leads_nowhere(closing):
    from dataclasses import replace

    from ikeway.gateway.radius.settings import ServerAddress

    made = Group(replace(settings(1), servers=(ServerAddress("radius.invalid"),)))
    closing.callback(made.close)
    with pytest.raises(RadiusUnavailable, match=r"radius\.invalid cannot be looked up"):
        await made.authenticate([])


async def test_accounting_goes_to_the_port_after(closing):
    server, port = await serve(closing, lambda got: answer(got, ACCOUNTING_RESPONSE, signed=False))
    made = group(closing, port - 1, accounting=True)
    await made.account([(Attr.ACCT_SESSION_ID, b"x")])
    assert server.requests[0].is_accounted
    assert [each.role for each in made.status()] == ["authentication", "accounting"]

"""Names that are looked up inside an enclave: the engine's side, with a process that does nothing of its own."""

import asyncio
import json
import socket

import pytest

from ikeway.client.enclave.resolver import Resolver
from ikeway.errors import PeerUnreachable


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


async def test_more_questions_than_there_is_room_for(pair):
    """Name servers that are dead, and a client that asks for more and more: refused at once, and the rest is answered."""
    ours, theirs = pair
    resolver = Resolver(ours)
    asked = [asyncio.create_task(resolver.resolve(f"{number:03}" + "x" * 250)) for number in range(300)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    refused = [each for each in asked if each.done()]
    assert len(refused) > 300 - 256
    for each in refused:
        with pytest.raises(PeerUnreachable, match="too many names"):
            await each
    for _ in range(300 - len(refused)):
        number, host = json.loads(theirs.recv(4096))
        theirs.send(json.dumps([number, [[2, f"10.0.0.{int(host[:3]) % 250}"]], ""]).encode())
    for number, each in enumerate(asked):
        if each not in refused:
            assert await each == [(socket.AF_INET, f"10.0.0.{number % 250}")]
    resolver.close()


async def test_answers_nobody_waits_for_any_more_are_dropped(pair):
    ours, theirs = pair
    resolver = Resolver(ours)
    asked = asyncio.create_task(resolver.resolve("slow.test"))
    await asyncio.sleep(0)
    asked.cancel()
    number, _ = json.loads(theirs.recv(4096))
    theirs.send(json.dumps([number, [[2, "10.0.0.1"]], ""]).encode())
    again = asyncio.create_task(resolver.resolve("quick.test"))
    await asyncio.sleep(0)
    number, _ = json.loads(theirs.recv(4096))
    theirs.send(json.dumps([number, [], "no such name"]).encode())
    with pytest.raises(PeerUnreachable, match="no such name"):
        await again
    resolver.close()

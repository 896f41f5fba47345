"""The process that looks names up inside an enclave: one serves all, and it is replaced when it has ended."""

import asyncio
import json
import os
import socket

import pytest

from ikeway.client.enclave.enclave import Enclave
from ikeway.client.enclave.messages import Done, OpenResolver, receive, send
from ikeway.errors import HostError


class Keeper:
    """A keeper that opens resolvers, and these themselves."""

    def __init__(self):
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.enclave = Enclave(theirs)
        self.resolvers = []
        self.control.setblocking(False)
        asyncio.get_running_loop().add_reader(self.control, self._obey)

    def _obey(self):
        request, _ = receive(self.control)
        assert isinstance(request, OpenResolver)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            send(self.control, Done(request.number), (theirs.fileno(),))
        ours.setblocking(False)
        asyncio.get_running_loop().add_reader(ours, self._answer, ours)
        self.resolvers.append(ours)

    def _answer(self, resolver):
        if octets := resolver.recv(4096):
            number, host = json.loads(octets)
            resolver.send(json.dumps([number, [[2, f"10.0.0.{len(host)}"]], ""]).encode())

    def end_resolver(self):
        asyncio.get_running_loop().remove_reader(self.resolvers[-1])
        self.resolvers[-1].close()


@pytest.fixture
async def keeper():
    keeper = Keeper()
    yield keeper
    for each in (keeper.control, *keeper.resolvers):
        if each.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(each)
    await keeper.enclave.close()
    for each in (keeper.control, *keeper.resolvers):
        each.close()


async def test_many_at_once_share_one(keeper):
    before = len(os.listdir("/proc/self/fd"))
    found = await asyncio.gather(*(keeper.enclave.resolve("x" * (number + 1)) for number in range(20)))
    assert found == [[f"10.0.0.{number + 1}"] for number in range(20)]
    assert len(keeper.resolvers) == 1
    assert len(os.listdir("/proc/self/fd")) == before + 2


async def test_another_takes_the_place_of_one_that_has_ended(keeper):
    assert await keeper.enclave.resolve("one") == ["10.0.0.3"]
    keeper.end_resolver()
    await asyncio.sleep(0.01)
    assert await keeper.enclave.resolve("three") == ["10.0.0.5"]
    assert len(keeper.resolvers) == 2


async def test_a_request_that_waits_for_room_ends_with_the_enclave(keeper):
    """The keeper is stopped, as its job is, and then it is killed."""
    asyncio.get_running_loop().remove_reader(keeper.control)
    keeper.enclave._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    asked = [asyncio.create_task(keeper.enclave.new_socket()) for _ in range(200)]
    await asyncio.sleep(0.05)
    keeper.control.close()
    for each in asked:
        with pytest.raises(HostError):
            await asyncio.wait_for(each, 10)

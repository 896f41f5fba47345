"""The SOCKS proxy as its clients see it, and both with hostile ones."""

import asyncio
import contextlib
import errno
import socket
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ikeway.client.proxy.users import ProxyUsers
from ikeway.errors import ConfigError
from tests.client.proxy.stage import GREETING, HOST, USERS, Stage, request


@pytest.mark.parametrize("host", [HOST, b"db1.test"])
async def test_socks_carries_both_ways_and_closes_by_halves(host):
    async with Stage("socks") as stage:
        reader, writer = await stage.connect()
        writer.write(GREETING + request(host, stage.there))
        assert await reader.readexactly(2) == b"\5\0"
        assert (await reader.readexactly(10))[:4] == b"\5\0\0\1"
        writer.write(bytes(1_000_000))
        writer.write_eof()
        assert len(await reader.read()) == 1_000_000
        writer.close()


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        (request(HOST, 80, command=2), 7),  # BIND
        (request(HOST, 80, command=9), 7),
        (b"\5\1\0\7" + bytes(6), 8),
        (request(b"nowhere.test", 80), 1),
        (request(b"a\0b", 80), 1),
        (b"\5\1\0\3\0\0\x50", 1),
    ],
)
async def test_socks_refuses_politely(octets, reply):
    async with Stage("socks") as stage:
        assert (await stage.asked(GREETING + octets))[2:6] == bytes([5, reply, 0, 1])


@pytest.mark.parametrize(
    ("number", "reply"),
    [(errno.ECONNREFUSED, 5), (errno.ENETUNREACH, 3), (errno.EHOSTUNREACH, 4), (errno.ETIMEDOUT, 6), (errno.EPERM, 1)],
)
async def test_socks_says_why(number, reply):
    async with Stage("socks") as stage:
        stage.way_out.refusal = number
        assert (await stage.asked(GREETING + request(HOST, 80)))[3] == reply


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (b"\5\0", b"\5\xff"),
        (b"\5\1\1", b"\5\xff"),
        (b"\4\1\0\x50\x7f\0\0\1\0", b"\0\x5b\0\0\0\0\0\0"),
        (b"\7", b""),
    ],
)
async def test_socks_with_other_methods_and_versions(octets, said):
    async with Stage("socks") as stage:
        assert await stage.asked(octets) == said


async def test_http_at_the_socks_port_is_told():
    async with Stage("socks") as stage:
        assert b"This is a SOCKS5 proxy" in await stage.asked(b"GET / HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize(
    ("login", "admitted"),
    [
        (b"\1\3ann\x0bopen sesame", True),
        (b"\1\3ann\5wrong", False),
        (b"\1\3bob\x0bopen sesame", False),
        (b"\1\0\0", False),
        (b"\2\3ann\x0bopen sesame", False),
    ],
)
async def test_socks_login(login, admitted):
    async with Stage("socks", USERS) as stage:
        reader, writer = await stage.connect()
        writer.write(b"\5\2\0\2" + login)
        assert await reader.readexactly(2) == b"\5\2"
        assert await reader.readexactly(2) == bytes([1, 0 if admitted else 1])
        if admitted:
            writer.write(request(HOST, stage.there))
            assert (await reader.readexactly(10))[1] == 0
        else:
            assert await reader.read() == b""
        writer.close()


async def test_socks_without_the_login_that_is_asked_for():
    async with Stage("socks", USERS) as stage:
        assert await stage.asked(GREETING) == b"\5\xff"


async def associate(stage):
    reader, writer = await stage.connect()
    writer.write(GREETING + request("0.0.0.0", 0, command=3))
    assert await reader.readexactly(2) == b"\5\0"
    answer = await reader.readexactly(10)
    assert answer[1] == 0
    ours = socket.socket(type=socket.SOCK_DGRAM)
    ours.setblocking(False)
    ours.connect((socket.inet_ntoa(answer[4:8]), struct.unpack("!H", answer[8:])[0]))
    return ours, writer


@contextlib.contextmanager
def udp_echo():
    server = socket.socket(type=socket.SOCK_DGRAM)
    server.bind((HOST, 0))
    server.setblocking(False)

    def answer():
        octets, peer = server.recvfrom(2048)
        server.sendto(octets.upper(), peer)

    asyncio.get_running_loop().add_reader(server, answer)
    yield server.getsockname()[1]
    asyncio.get_running_loop().remove_reader(server)
    server.close()


async def test_datagrams():
    loop = asyncio.get_running_loop()
    async with Stage("socks") as stage:
        ours, control = await associate(stage)
        with udp_echo() as port:
            by_name = b"\0\0\0\3\x08db1.test" + struct.pack("!H", port)
            by_address = b"\0\0\0\1" + socket.inet_aton(HOST) + struct.pack("!H", port)
            for head in (by_name, by_address, by_name, by_address):
                await loop.sock_sendall(ours, head + b"word")
                answer = await asyncio.wait_for(loop.sock_recv(ours, 2048), 10)
                assert answer == by_address + b"WORD"
            # What is no datagram of SOCKS, is a fragment, or comes from another port is dropped.
            other = socket.socket(type=socket.SOCK_DGRAM)
            other.sendto(by_address + b"stranger", ours.getpeername())
            for octets in (b"", b"\0", b"\0\0\1\1" + bytes(6), b"\0\0\0\3\0", by_name[:8]):
                await loop.sock_sendall(ours, octets)
            await loop.sock_sendall(ours, by_address + b"last")
            assert await asyncio.wait_for(loop.sock_recv(ours, 2048), 10) == by_address + b"LAST"
            other.close()
        control.close()
        ours.close()


async def test_datagrams_end_with_the_connection():
    loop = asyncio.get_running_loop()
    async with Stage("socks") as stage:
        ours, control = await associate(stage)
        control.close()
        await control.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            while True:
                await loop.sock_sendall(ours, b"anybody?")
                await asyncio.sleep(0.01)
        ours.close()


# -- hostile clients


@pytest.mark.parametrize("kind", ["socks", "http"])
async def test_clients_that_say_nothing_are_given_up(kind):
    async with Stage(kind, request=0.2) as stage:
        assert await stage.asked(b"") == b""


@pytest.mark.parametrize("kind", ["socks", "http"])
async def test_clients_that_say_it_drop_by_drop_are_given_up(kind):
    async with Stage(kind, request=0.3) as stage:
        reader, writer = await stage.connect()
        with contextlib.suppress(ConnectionError):
            for octet in GREETING + b"\5" if kind == "socks" else b"GET http":
                writer.write(bytes([octet]))
                await asyncio.sleep(0.1)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()


@pytest.mark.parametrize("kind", ["socks", "http"])
async def test_too_many_connections(kind):
    async with Stage(kind, connections=3) as stage:
        held = [await stage.connect() for _ in range(3)]
        await asyncio.sleep(0.05)
        reader, writer = await stage.connect()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        assert stage.proxy.refused == 1
        writer.close()
        for _, each in held:
            each.close()


async def test_a_reader_that_does_not_read_is_not_fed():
    """Back-pressure: what the server can push into the proxy is bounded."""
    async with Stage("socks") as stage:
        pushed = 0

        async def serve(reader, writer):
            nonlocal pushed
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(bytes(1 << 16))
                    await writer.drain()
                    pushed += 1 << 16

        stage.serve = serve
        _, writer = await stage.connect()
        writer.transport.pause_reading()
        writer.write(GREETING + request(HOST, stage.there))
        before = -1
        while pushed != before or not pushed:
            before = pushed
            await asyncio.sleep(0.3)
        assert pushed < 32 << 20  # the buffers of three sockets, and ours
        writer.transport.abort()


@pytest.mark.parametrize("kind", ["socks", "http"])
async def test_a_reader_that_never_reads_is_given_up(kind):
    """Its host answers keep-alives all the while."""
    async with Stage(kind, idle=0.5) as stage:

        async def serve(reader, writer):
            if kind == "http":
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(bytes(1 << 16))
                    await writer.drain()

        stage.serve = serve
        _, writer = await stage.connect()
        writer.transport.pause_reading()
        ask = b"GET http://db1.test:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % stage.there
        writer.write(ask if kind == "http" else GREETING + request(HOST, stage.there))
        async with asyncio.timeout(20):
            while not stage.proxy._tasks:
                await asyncio.sleep(0.01)
            while stage.proxy._tasks:
                await asyncio.sleep(0.05)
        writer.transport.abort()


async def test_datagrams_that_do_not_come_end_the_association():
    async with Stage("socks", idle=0.3) as stage:
        reader, writer = await stage.connect()
        writer.write(GREETING + request("0.0.0.0", 0, command=3))
        assert (await reader.readexactly(12))[3] == 0
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("kind", ["socks", "http"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.binary(max_size=80), max_size=6))
def test_any_octets_come_to_an_end(kind, pieces):
    """And leave no connection behind."""

    async def play():
        async with Stage(kind, request=1.0) as stage:
            reader, writer = await stage.connect()
            with contextlib.suppress(ConnectionError):
                for piece in [GREETING, *pieces] if kind == "socks" else pieces:
                    writer.write(piece)
                    await writer.drain()
                writer.write_eof()
                await asyncio.wait_for(reader.read(), 10)
            writer.close()
            for _ in range(1000):
                if not stage.proxy._tasks:
                    return
                await asyncio.sleep(0.01)
            raise AssertionError("the connection is still served")

    asyncio.run(play())


# -- the file of users


def test_users_of_a_file(tmp_path):
    file = tmp_path / "users"
    file.touch(mode=0o600)
    file.write_text("# who may\nann:open: sesame\n\nbob:x\n")
    users = ProxyUsers.read(file)
    assert users.admits(b"ann", b"open: sesame")
    assert not users.admits(b"ann", b"")
    assert not users.admits(b"", b"")
    assert "sesame" not in repr(users)


@pytest.mark.parametrize(("text", "mode"), [("ann\n", 0o600), ("", 0o600), (":x\n", 0o600), ("ann:x\n", 0o644)])
def test_files_of_users_that_are_none(tmp_path, text, mode):
    file = tmp_path / "users"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(ConfigError):
        ProxyUsers.read(file)

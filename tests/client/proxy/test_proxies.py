"""Both proxies as their clients see them, friendly and hostile ones, with loopback as the way out."""

import asyncio
import base64
import contextlib
import errno
import os
import socket
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ikeway.client.proxy.http import HttpProxy
from ikeway.client.proxy.server import Limits, ProxyServer
from ikeway.client.proxy.socks import SocksProxy
from ikeway.client.proxy.users import ProxyUsers
from ikeway.errors import ConfigError, PeerUnreachable

HOST = "127.0.0.1"
USERS = ProxyUsers({b"ann": b"open sesame"})


class Loopback:
    """A way out that leads to this host; names are those it knows."""

    def __init__(self):
        self.names = {"db1.test": HOST}
        self.refusal = 0

    async def resolve(self, host):
        if host in (HOST, "::1"):
            return [host]
        if host not in self.names:
            raise PeerUnreachable("no such name")
        return [self.names[host]]

    async def new_socket(self, host="", *, datagrams=False):
        made = socket.socket(type=socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM)
        made.setblocking(False)
        return made

    async def connect(self, host, port):
        (address,) = await self.resolve(host)
        if self.refusal:
            raise PeerUnreachable("no") from OSError(self.refusal, os.strerror(self.refusal))
        made = await self.new_socket()
        try:
            await asyncio.get_running_loop().sock_connect(made, (address, port))
        except OSError as error:
            made.close()
            raise PeerUnreachable("no") from error
        return made


class Stage:
    """A proxy and a server that says what it is told."""

    def __init__(self, kind, users=None, **limits):
        self.way_out = Loopback()
        self.limits = Limits(**limits)
        proxy = {"socks": SocksProxy, "http": HttpProxy}[kind](self.way_out, users, self.limits)
        self.proxy = ProxyServer(kind, proxy.serve, self.limits)
        self.heard = []
        self.serve = self.echo

    async def __aenter__(self):
        self.port = await self.proxy.start(HOST, 0)
        self.server = await asyncio.start_server(lambda *streams: self.serve(*streams), HOST, 0)
        self.there = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        await self.proxy.close()

    async def echo(self, reader, writer):
        """Says everything again once all is said: shows that half-closed connections stay so."""
        whole = await reader.read()
        self.heard.append(whole)
        writer.write(whole)
        await writer.drain()
        writer.close()

    async def connect(self):
        return await asyncio.open_connection(HOST, self.port)

    async def asked(self, octets):
        """Everything that the proxy says to these octets, said at once, until it closes."""
        reader, writer = await self.connect()
        writer.write(octets)
        said = await reader.read()
        writer.close()
        return said


GREETING = b"\5\1\0"


def request(host, port, command=1):
    if isinstance(host, bytes):
        return struct.pack("!BBBBB", 5, command, 0, 3, len(host)) + host + struct.pack("!H", port)
    return struct.pack("!BBBB", 5, command, 0, 1) + socket.inet_aton(host) + struct.pack("!H", port)


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


# -- HTTP


async def page(reader, writer, body=b"a page", head=b""):
    """A server's one answer; returns the request's head."""
    said = await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), head, body))
    await writer.drain()
    writer.close()
    return said


async def test_http_connect_carries_both_ways_and_closes_by_halves():
    async with Stage("http") as stage:
        reader, writer = await stage.connect()
        writer.write(b"CONNECT db1.test:%d HTTP/1.1\r\nHost: db1.test\r\n\r\nearly" % stage.there)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.write(bytes(1_000_000))
        writer.write_eof()
        assert await reader.read() == b"early" + bytes(1_000_000)
        writer.close()


async def test_http_forwards_and_keeps_the_connection():
    async with Stage("http") as stage:

        async def serve(reader, writer):
            stage.heard.append(await page(reader, writer, head=b"Connection: X-Hop, close\r\nX-Hop: 1\r\nX-End: 2\r\n"))

        stage.serve = serve
        reader, writer = await stage.connect()
        for path in (b"/one?x=%20y", b""):
            writer.write(
                b"GET http://db1.test:%d%s HTTP/1.1\r\nHost: other.test\r\nX-Case: Kept\r\nConnection: X-Secret\r\n"
                b"X-Secret: 1\r\nProxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\n\r\n"
                % (stage.there, path)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"200 OK" in head
            assert b"X-End: 2\r\n" in head
            assert b"X-Hop" not in head
            assert await reader.readexactly(6) == b"a page"
        writer.close()
        assert stage.heard[0].startswith(b"GET /one?x=%20y HTTP/1.1\r\n")
        assert stage.heard[1].startswith(b"GET / HTTP/1.1\r\n")
        for heard in stage.heard:
            assert b"Host: db1.test:%d\r\n" % stage.there in heard
            assert b"X-Case: Kept\r\n" in heard
            assert b"Via: 1.1 ikeway\r\n" in heard
            for word in (b"other.test", b"Secret", b"Proxy", b"keep-alive"):
                assert word not in heard


async def test_http_bodies_both_ways_in_chunks():
    async with Stage("http") as stage:

        async def serve(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            stage.heard.append(await reader.readuntil(b"0\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
            await writer.drain()
            writer.close()

        stage.serve = serve
        said = await stage.asked(
            b"POST http://db1.test:%d/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            b"4\r\nbody\r\n0\r\n\r\n" % stage.there
        )
        assert b"4\r\nbody\r\n" in stage.heard[0]
        assert b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n" in said


async def test_http_100_continue_is_the_servers():
    async with Stage("http") as stage:

        async def serve(reader, writer):
            stage.heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            stage.heard.append(await reader.readexactly(4))
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            writer.close()

        stage.serve = serve
        reader, writer = await stage.connect()
        head = b"PUT http://db1.test:%d/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        writer.write(head % stage.there)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(b"body")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")
        writer.close()
        assert stage.heard[1] == b"body"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8118\r\n\r\n", 400),  # a web page that talks to the proxy itself
        (b"GET https://db1.test/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http:/// HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://db1.test:99999/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT db1.test HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT db1.test:443/x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT a@db1.test:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://nowhere.test/ HTTP/1.1\r\nHost: x\r\n\r\n", 502),
        (b"CONNECT nowhere.test:443 HTTP/1.1\r\nHost: x\r\n\r\n", 502),
        (b"nonsense\r\n\r\n", 400),
        (b"GET http://db1.test/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET http://db1.test/ HTTP/1.1\r\nX: " + bytes(40000), 431),
        (b"\x16\x03\x01" + bytes(200), 400),
    ],
)
async def test_http_refuses_politely(head, status):
    async with Stage("http") as stage:
        reader, writer = await stage.connect()
        writer.write(head)
        writer.write_eof()
        assert (await reader.read()).startswith(b"HTTP/1.1 %d " % status)
        writer.close()


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + bytes(50000), b"HTTP/1.1 20"])
async def test_http_servers_that_make_no_sense(answer):
    async with Stage("http") as stage:

        async def serve(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        stage.serve = serve
        said = await stage.asked(b"GET http://db1.test:%d/ HTTP/1.0\r\n\r\n" % stage.there)
        assert said.startswith(b"HTTP/1.1 502 ")


async def test_http_answers_that_are_cut_off_stay_so():
    async with Stage("http") as stage:

        async def serve(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            writer.close()

        stage.serve = serve
        reader, writer = await stage.connect()
        writer.write(b"GET http://db1.test:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % stage.there)
        with contextlib.suppress(ConnectionError):
            assert (await reader.read()).endswith(b"\r\n\r\nhalf")
        writer.close()


@pytest.mark.parametrize(
    ("credentials", "status"),
    [(b"ann:open sesame", 200), (b"ann:wrong", 407), (b"bob:open sesame", 407), (b"nonsense", 407), (None, 407)],
)
async def test_http_login(credentials, status):
    async with Stage("http", USERS) as stage:
        stage.serve = page
        login = b"" if credentials is None else b"Proxy-Authorization: Basic %s\r\n" % base64.b64encode(credentials)
        said = await stage.asked(b"GET http://db1.test:%d/ HTTP/1.0\r\n%s\r\n" % (stage.there, login))
        assert said.startswith(b"HTTP/1.1 %d " % status)
        assert (b'Proxy-Authenticate: Basic realm="ikeway proxy"' in said) == (status == 407)


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

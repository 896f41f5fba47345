"""The HTTP proxy as its clients and servers see it."""

import base64
import contextlib

import pytest

from tests.client.proxy.stage import USERS, Stage


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


async def test_http_lengths_beside_chunks_are_not_passed_on():
    """Two ends that believe different ones see different messages (request smuggling, RFC 9112 section 6.3)."""
    async with Stage("http") as stage:

        async def serve(reader, writer):
            stage.heard.append(await reader.readuntil(b"0\r\n\r\n"))
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n"
            )
            await writer.drain()
            writer.close()

        stage.serve = serve
        said = await stage.asked(
            b"POST http://db1.test:%d/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n"
            b"Connection: close\r\n\r\n4\r\nbody\r\n0\r\n\r\n" % stage.there
        )
        for octets, body in ((stage.heard[0], b"4\r\nbody\r\n0\r\n\r\n"), (said, b"3\r\none\r\n0\r\n\r\n")):
            assert b"content-length" not in octets.lower()
            assert octets.endswith(body)


async def test_http_a_length_that_is_called_hop_by_hop_is_passed_on():
    async with Stage("http") as stage:

        async def serve(reader, writer):
            stage.heard.append(await page(reader, writer))

        stage.serve = serve
        head = b"POST http://db1.test:%d/ HTTP/1.1\r\nHost: x\r\nConnection: content-length, close\r\nContent-Length: 4\r\n"
        assert b" 200 " in await stage.asked(head % stage.there + b"\r\nbody")
        assert b"Content-Length: 4\r\n" in stage.heard[0]


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
        (b"GET http://nowhere.test/ HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 33000 + b"\r\n\r\n", 431),  # whole at once
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

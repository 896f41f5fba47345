"""An HTTP proxy: CONNECT, and requests for http:// URLs (RFC 9110, RFC 9112; h11 reads and writes the messages).

Requests that name no host but the proxy itself are refused, so that a web page cannot use it by naming its address.
Each forwarded request gets a connection of its own to its server; the client's connection is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

from ikeway.client.proxy.server import BadRequest, Limits
from ikeway.client.proxy.users import ProxyUsers
from ikeway.client.proxy.way_out import WayOut, connect, network_errno
from ikeway.client.relay import PIECE, Stream, join
from ikeway.errors import IkewayError

_WRONG_LOGIN_SECONDS = 1.0
_HOP_BY_HOP = frozenset(
    {
        b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade",
        b"proxy-authorization", b"proxy-authenticate",
    }
)  # fmt: skip

Headers = list[tuple[bytes, bytes]]


class _Refused(Exception):
    """Answered with this status and these words."""

    def __init__(self, status: int, words: str, headers: Headers | None = None) -> None:
        super().__init__(words)
        self.status = status
        self.words = words
        self.headers = headers or []


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a request goes."""

    host: str
    port: int
    authority: bytes
    path: bytes = b""


class HttpProxy:
    """Serves connections (`serve`), however they came."""

    def __init__(self, way_out: WayOut, users: ProxyUsers | None = None, limits: Limits | None = None) -> None:
        self._way_out = way_out
        self._users = users or ProxyUsers()
        self._limits = limits or Limits()

    async def serve(self, client: Stream) -> None:
        """One connection: requests until one side wants no more, or a tunnel."""
        near = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.request_octets)
        patience = self._limits.request
        while True:
            try:
                async with asyncio.timeout(patience):
                    request = await _next(near, client)
            except h11.RemoteProtocolError as error:
                await self._refuse(
                    near, client, _Refused(error.error_status_hint, f"This is no HTTP request: {error}.")
                )
                raise BadRequest(str(error)) from error
            if not isinstance(request, h11.Request):
                return
            try:
                if await self._answer(near, client, request):
                    return
            except _Refused as refused:
                await self._refuse(near, client, refused)
                if near.their_state is not h11.DONE:
                    return  # a body that nobody wants
            if near.our_state is not h11.DONE or near.their_state is not h11.DONE:
                return
            near.start_next_cycle()
            patience = self._limits.keep_alive

    async def _answer(self, near: h11.Connection, client: Stream, request: h11.Request) -> bool:
        """True when the connection was used up."""
        if _size(request) > self._limits.request_octets:  # h11 bounds only what is not complete yet
            raise _Refused(431, "The head of the request is too long.")
        await self._check_login(request)
        if request.method == b"CONNECT":
            await self._tunnel(near, client, request)
            return True
        place = _place(request)
        far = await self._reach(place)
        try:
            await self._forward(near, client, request, place, far)
        finally:
            far.abort()
        return False

    async def _check_login(self, request: h11.Request) -> None:
        if not self._users:
            return
        given = [value for name, value in request.headers if name == b"proxy-authorization"]
        if len(given) != 1 or not self._users.admits_basic(given[0]):
            await asyncio.sleep(_WRONG_LOGIN_SECONDS if given else 0)
            challenge = [(b"Proxy-Authenticate", b'Basic realm="ikeway proxy"')]
            raise _Refused(407, "This proxy asks for a user name and a password.", challenge)

    async def _reach(self, place: _Place) -> Stream:
        try:
            return await connect(self._way_out, place.host, place.port)
        except IkewayError as error:
            status = 504 if network_errno(error) == errno.ETIMEDOUT else 502
            raise _Refused(status, f"Nothing through the tunnel: {error.reason}.") from error

    async def _tunnel(self, near: h11.Connection, client: Stream, request: h11.Request) -> None:
        """RFC 9110 section 9.3.6."""
        far = await self._reach(_authority(request.target, None))
        client.writer.write(
            near.send(h11.Response(status_code=200, headers=[], reason=b"Connection established")) or b""
        )
        early, _ = near.trailing_data
        far.writer.write(early)
        await join(client, far, idle=self._limits.idle, half_closed=self._limits.half_closed)

    async def _forward(
        self, near: h11.Connection, client: Stream, request: h11.Request, place: _Place, far: Stream
    ) -> None:
        """One request and its response, both ways at the same time: a server may answer before it was told all."""
        there = h11.Connection(h11.CLIENT, max_incomplete_event_size=self._limits.request_octets)
        headers = [(b"Host", place.authority), *_end_to_end(request, b"host"), (b"Via", b"1.1 ikeway")]
        headers += [(b"Transfer-Encoding", b"chunked")] if _is_chunked(request) else []
        try:
            head = h11.Request(method=request.method, target=place.path, headers=[*headers, (b"Connection", b"close")])
            far.writer.write(there.send(head) or b"")
        except h11.LocalProtocolError as error:
            raise _Refused(400, f"The request cannot be forwarded: {error}.") from error
        sending = asyncio.create_task(self._send_body(near, client, there, far))
        try:
            await self._send_response(near, client, there, far, request.http_version)
            if not sending.done() and near.their_state is not h11.SEND_BODY:
                await sending
        except (h11.RemoteProtocolError, OSError) as error:
            if near.our_state is not h11.SEND_RESPONSE:
                raise BadRequest("a response was cut off") from error
            raise _Refused(502, f"{place.host} gave no answer that makes sense: {error}.") from error
        except TimeoutError as error:
            if near.our_state is not h11.SEND_RESPONSE:
                raise
            raise _Refused(504, f"{place.host} gave no answer in time.") from error
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send_body(self, near: h11.Connection, client: Stream, there: h11.Connection, far: Stream) -> None:
        try:
            while isinstance(event := await self._event(near, client), h11.Data | h11.EndOfMessage):
                far.writer.write(there.send(_without_trailers(event)))
                await self._flush(far)
                if isinstance(event, h11.EndOfMessage):
                    return
        except BaseException:
            far.abort()
            raise
        far.abort()  # the client has gone in the midst of its request

    async def _send_response(
        self, near: h11.Connection, client: Stream, there: h11.Connection, far: Stream, version: bytes
    ) -> None:
        while True:
            event = await self._event(there, far)
            match event:
                case h11.InformationalResponse(status_code=code):
                    if version < b"1.1" or code == 101:
                        continue
                    octets = near.send(h11.InformationalResponse(status_code=code, headers=_end_to_end(event)))
                case h11.Response(status_code=code, reason=reason):
                    headers = [*_end_to_end(event), (b"Via", b"1.1 ikeway")]
                    octets = near.send(h11.Response(status_code=code, headers=headers, reason=reason))
                case h11.Data() | h11.EndOfMessage():
                    octets = near.send(_without_trailers(event))
                case _:
                    raise h11.RemoteProtocolError("it closed the connection")
            client.writer.write(octets)
            await self._flush(client)
            if isinstance(event, h11.EndOfMessage):
                return

    async def _refuse(self, near: h11.Connection, client: Stream, refused: _Refused) -> None:
        """Answer with an error, when that can still be said."""
        if near.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        body = f"{refused.words}\n".encode()
        headers = [
            (b"Content-Type", b"text/plain; charset=utf-8"),
            (b"Content-Length", b"%d" % len(body)),
            *refused.headers,
        ]
        if near.their_state is not h11.DONE:
            headers.append((b"Connection", b"close"))
        with contextlib.suppress(h11.LocalProtocolError):
            octets = near.send(h11.Response(status_code=refused.status, headers=headers)) or b""
            octets += near.send(h11.Data(data=body)) or b""
            octets += near.send(h11.EndOfMessage()) or b""
            client.writer.write(octets)
        await self._flush(client)

    async def _event(self, connection: h11.Connection, stream: Stream) -> object:
        async with asyncio.timeout(self._limits.idle):
            return await _next(connection, stream)

    async def _flush(self, stream: Stream) -> None:
        """Wait until there is room again; not for ever, as keep-alives tell nothing of a peer that does not read."""
        async with asyncio.timeout(self._limits.idle):
            await stream.writer.drain()


async def _next(connection: h11.Connection, stream: Stream) -> object:
    """The next event (`h11.RemoteProtocolError`)."""
    while True:
        event = connection.next_event()
        if event is not h11.NEED_DATA:
            return event
        connection.receive_data(await stream.reader.read(PIECE))


def _place(request: h11.Request) -> _Place:
    """Where an absolute-form request goes (RFC 9112 section 3.2.2)."""
    try:
        url = urlsplit(request.target.decode("ascii"))
    except (UnicodeDecodeError, ValueError):
        raise _Refused(400, "The URL makes no sense.") from None
    if url.scheme != "http" or not url.netloc:
        raise _Refused(400, "This is a proxy: it takes http:// URLs, and CONNECT for everything else.")
    found = _authority(url.netloc.rpartition("@")[2].encode(), 80)
    path = url.path or ("*" if request.method == b"OPTIONS" and not url.query else "/")
    return _Place(found.host, found.port, found.authority, (path + (f"?{url.query}" if url.query else "")).encode())


def _authority(octets: bytes, port: int | None) -> _Place:
    """A host and a port (RFC 3986 section 3.2); a port of None has to be there."""
    try:
        url = urlsplit(f"//{octets.decode('ascii')}")
        host, found = url.hostname, url.port or port
    except (UnicodeDecodeError, ValueError):
        host = found = None
    if not host or not found or url.path or url.query or url.fragment or url.username is not None:
        raise _Refused(400, "The host and port make no sense.")
    return _Place(host, found, octets)


def _end_to_end(head: h11.Request | h11.Response | h11.InformationalResponse, *without: bytes) -> Headers:
    """The headers that are for the other end (RFC 9110 section 7.6.1). A length beside chunks goes: who believes it sees
    the end of the message elsewhere (RFC 9112 section 6.3)."""
    named = {
        word.strip().lower() for name, value in head.headers if name == b"connection" for word in value.split(b",")
    }
    lengths = {b"content-length"}
    dropped = _HOP_BY_HOP | (named - lengths) | set(without) | (lengths if _is_chunked(head) else set())
    return [(name, value) for name, value in head.headers.raw_items() if name.lower() not in dropped]


def _is_chunked(head: h11.Request | h11.Response | h11.InformationalResponse) -> bool:
    return any(name == b"transfer-encoding" for name, _ in head.headers)


def _size(request: h11.Request) -> int:
    """Octets of a head, about."""
    return len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers)


def _without_trailers(event: h11.Data | h11.EndOfMessage) -> h11.Data | h11.EndOfMessage:
    return h11.EndOfMessage() if isinstance(event, h11.EndOfMessage) else h11.Data(data=event.data)

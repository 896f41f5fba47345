"""A SOCKS5 server: CONNECT and UDP ASSOCIATE, with a log-in by name and password where that is asked for.

BIND is refused: through a VPN's tunnel nobody could connect to the address that it would tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import OrderedDict

from ikeway.client.proxy import socks_wire as wire
from ikeway.client.proxy.server import BadRequest, Limits
from ikeway.client.proxy.socks_wire import Command, Malformed, Reply, Target
from ikeway.client.proxy.users import ProxyUsers
from ikeway.client.proxy.way_out import WayOut, connect, network_errno
from ikeway.client.relay import DatagramPort, Peer, Stream, join
from ikeway.errors import IkewayError

_WRONG_LOGIN_SECONDS = 1.0
_MOST_NAMES = 64  # of an association, remembered and being looked up
_NAME_SECONDS = 60.0
_MOST_HOSTS = 1024  # of an association, from which answers are taken
_SOCKS4_REFUSED = b"\0\x5b" + bytes(6)
_NOT_HTTP = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nThis is a SOCKS5 proxy, not one for HTTP.\r\n"


class SocksProxy:
    """Serves connections (`serve`), however they came."""

    def __init__(self, way_out: WayOut, users: ProxyUsers | None = None, limits: Limits | None = None) -> None:
        self._way_out = way_out
        self._users = users or ProxyUsers()
        self._limits = limits or Limits()

    async def serve(self, client: Stream) -> None:
        """One connection, from its greeting to its end."""
        async with asyncio.timeout(self._limits.request):
            await self._greet(client)
            command, target = await self._read_request(client)
        match command:
            case Command.CONNECT:
                await self._connect(client, target)
            case Command.UDP_ASSOCIATE:
                await self._associate(client)
            case _:
                raise await _refusal(client, Reply.COMMAND_NOT_SUPPORTED)

    async def _greet(self, client: Stream) -> None:
        """Agree on a method (RFC 1928 section 3), and log in."""
        version = (await client.reader.readexactly(1))[0]
        if version != wire.VERSION:
            said = _SOCKS4_REFUSED if version == 4 else _NOT_HTTP if chr(version) in "CDGHOPT" else b""
            client.writer.write(said)
            await client.writer.drain()
            await client.close()
            raise BadRequest(f"version {version}")
        methods = await client.reader.readexactly((await client.reader.readexactly(1))[0])
        wanted = wire.USERNAME_PASSWORD if self._users else wire.NO_AUTHENTICATION
        method = wanted if wanted in methods else wire.NO_METHOD
        client.writer.write(bytes([wire.VERSION, method]))
        if method == wire.NO_METHOD:
            await client.close()
            raise BadRequest("no method of authentication that we have")
        if method == wire.USERNAME_PASSWORD:
            await self._log_in(client)

    async def _log_in(self, client: Stream) -> None:
        """RFC 1929."""
        version, size = await client.reader.readexactly(2)
        name = await client.reader.readexactly(size)
        password = await client.reader.readexactly((await client.reader.readexactly(1))[0])
        admitted = version == wire.LOGIN_VERSION and self._users.admits(name, password)
        if not admitted:
            await asyncio.sleep(_WRONG_LOGIN_SECONDS)
        client.writer.write(bytes([wire.LOGIN_VERSION, 0 if admitted else 1]))
        if not admitted:
            await client.close()
            raise BadRequest("a wrong password")

    @staticmethod
    async def _read_request(client: Stream) -> tuple[int, Target]:
        version, command, _ = await client.reader.readexactly(3)
        if version != wire.VERSION:
            raise BadRequest(f"version {version} in a request")
        octets = b""
        try:
            while isinstance(found := wire.decode_target(octets), int):
                octets += await client.reader.readexactly(found - len(octets))
        except wire.UnknownKind:
            raise await _refusal(client, Reply.ADDRESS_TYPE_NOT_SUPPORTED) from None
        except Malformed as error:
            raise await _refusal(client, Reply.GENERAL_FAILURE) from error
        return command, found[0]

    async def _connect(self, client: Stream, target: Target) -> None:
        try:
            far = await connect(self._way_out, target.host, target.port)
        except IkewayError as error:
            raise await _refusal(client, wire.reply_for(network_errno(error))) from error
        host, port = far.writer.get_extra_info("sockname")[:2]
        client.writer.write(wire.encode_reply(Reply.SUCCEEDED, Target(host, port)))
        await join(client, far, idle=self._limits.idle, half_closed=self._limits.half_closed)

    async def _associate(self, client: Stream) -> None:
        """Datagrams, as long as the connection stands (RFC 1928 section 7)."""
        host, peer = client.writer.get_extra_info("sockname")[0], client.writer.get_extra_info("peername")[0]
        association = _Association(self._way_out, host, peer)
        try:
            port = association.start()
            client.writer.write(wire.encode_reply(Reply.SUCCEEDED, Target(host, port)))
            await client.writer.drain()
            await self._while_used(client, association)
        finally:
            association.close()

    async def _while_used(self, client: Stream, association: _Association) -> None:
        """Until the connection ends, or nothing was carried for too long."""
        end = asyncio.create_task(_end_of(client))
        try:
            while (left := association.used + self._limits.idle - time.monotonic()) > 0 and not end.done():
                await asyncio.wait([end], timeout=left)
        finally:
            end.cancel()
            await asyncio.gather(end, return_exceptions=True)


async def _end_of(client: Stream) -> None:
    """Nothing is to be said on a connection any more; wait for its end."""
    while await client.reader.read(1024):
        pass


async def _refusal(client: Stream, reply: Reply) -> BadRequest:
    """Say no, close, and return what to raise."""
    client.writer.write(wire.encode_reply(reply))
    with contextlib.suppress(OSError):
        await client.writer.drain()
    await client.close()
    return BadRequest(reply.name)


class _Association:
    """The datagrams of one client: a port on its side, and a socket of each family on the other."""

    def __init__(self, way_out: WayOut, host: str, client_host: str) -> None:
        """`client_host` is whose datagrams are taken; its port is that of the first one."""
        self._way_out = way_out
        self._host = host
        self._client_host = client_host
        self._client: Peer | None = None
        self._near: DatagramPort | None = None
        self._far: dict[bool, DatagramPort] = {}  # by: is IPv6
        self._names: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._spoken_to: OrderedDict[str, None] = OrderedDict()
        self._sending: set[asyncio.Task[None]] = set()

    def start(self) -> int:
        """Open the client's port and return its number (`OSError`)."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        near = socket.socket(family, socket.SOCK_DGRAM)
        try:
            near.bind((self._host, 0))
        except OSError:
            near.close()
            raise
        self._near = DatagramPort(near, self._from_client)
        return self._near.port

    @property
    def used(self) -> float:
        """When something was carried last."""
        return max((port.used for port in (self._near, *self._far.values()) if port is not None), default=0.0)

    def close(self) -> None:
        """Close all sockets."""
        for task in self._sending:
            task.cancel()
        for port in (self._near, *self._far.values()):
            if port is not None:
                port.close()

    def _from_client(self, octets: bytes, peer: Peer) -> None:
        if peer[0] != self._client_host or self._client not in (None, peer):
            return
        try:
            target, payload = wire.decode_datagram(octets)
        except Malformed:
            return
        self._client = peer
        known = self._known(target.host)
        if known and (far := self._far.get(":" in known)) is not None:
            self._spoken_with(known)
            far.send(payload, (known, target.port))
        elif len(self._sending) < _MOST_NAMES:
            task = asyncio.create_task(self._send_first(target, payload))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send_first(self, target: Target, payload: bytes) -> None:
        """To a name that is not known yet, or of a family that there is no socket for yet."""
        with contextlib.suppress(IkewayError, OSError):
            address = (await self._way_out.resolve(target.host))[0]
            self._names[target.host] = (time.monotonic() + _NAME_SECONDS, address)
            if len(self._names) > _MOST_NAMES:
                self._names.popitem(last=False)
            is_ipv6 = ":" in address
            if is_ipv6 not in self._far:
                made = await self._way_out.new_socket(address, datagrams=True)
                if is_ipv6 in self._far:
                    made.close()
                else:
                    self._far[is_ipv6] = DatagramPort(made, self._from_far)
            self._spoken_with(address)
            self._far[is_ipv6].send(payload, (address, target.port))

    def _known(self, host: str) -> str:
        until, address = self._names.get(host, (0.0, ""))
        return address if until > time.monotonic() else ""

    def _spoken_with(self, address: str) -> None:
        self._spoken_to[address] = None
        self._spoken_to.move_to_end(address)
        if len(self._spoken_to) > _MOST_HOSTS:
            self._spoken_to.popitem(last=False)

    def _from_far(self, octets: bytes, peer: Peer) -> None:
        """Answers, from hosts that were spoken to; nobody else's datagrams."""
        if self._near is not None and self._client is not None and peer[0] in self._spoken_to:
            self._near.send(wire.encode_datagram(Target(peer[0], peer[1]), octets), self._client)

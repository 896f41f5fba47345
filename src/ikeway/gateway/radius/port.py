"""UDP sockets towards one server: each has 256 identifiers (RFC 2865 section 3), so there are as many as it takes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import cast

from ikeway.errors import HostError

IDENTIFIERS = 256
MAX_PORTS = 16  # to one server; 4,096 requests under way
MAX_WAITING = 4096  # for an identifier, beyond these

Deliver = Callable[[bytes], None]


class Busy(HostError):
    """More requests are under way than a server will ever answer in time."""


class Port(asyncio.DatagramProtocol):
    """One socket, connected to the server: nobody else's datagrams come in."""

    def __init__(self, on_error: Callable[[OSError], None]) -> None:
        self._on_error = on_error
        self._transport: asyncio.DatagramTransport | None = None
        # Those that were used longest ago come first, so that a late answer meets nobody.
        self.free: deque[int] = deque(range(IDENTIFIERS))
        self._waiting: dict[int, Deliver] = {}
        self.unexpected = 0

    @property
    def local(self) -> str:
        """Our address as the server sees it, but for NATs."""
        assert self._transport is not None
        return str(self._transport.get_extra_info("sockname")[0])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Hand an answer to who waits for its identifier."""
        deliver = self._waiting.get(data[1]) if len(data) > 1 else None
        if deliver is None:
            self.unexpected += 1  # late, or sent twice
        else:
            deliver(data)

    def error_received(self, exc: Exception) -> None:
        """ICMP says that nobody listens there, or the like."""
        if isinstance(exc, OSError):
            self._on_error(exc)

    def send(self, octets: bytes) -> None:
        """Send; what the host does not take is lost, and sent again when its time has come."""
        assert self._transport is not None
        self._transport.sendto(octets)

    def wait_for(self, identifier: int, deliver: Deliver) -> None:
        """Give answers with this identifier to `deliver`."""
        self._waiting[identifier] = deliver

    def give_back(self, identifier: int) -> None:
        """Nobody waits for this identifier any more."""
        self._waiting.pop(identifier, None)
        self.free.append(identifier)

    def close(self) -> None:
        """Close the socket."""
        if self._transport is not None:
            self._transport.close()


class Ports:
    """The sockets towards one server, opened as they are needed."""

    def __init__(self, host: str, port: int, source: str | None, on_error: Callable[[OSError], None]) -> None:
        self._host, self._port, self._source = host, port, source
        self._on_error = on_error
        self._ports: list[Port] = []
        self._room = asyncio.Semaphore(MAX_PORTS * IDENTIFIERS)
        self._waiting = 0
        self._opening = asyncio.Lock()

    @property
    def unexpected(self) -> int:
        """Answers that nobody waited for."""
        return sum(port.unexpected for port in self._ports)

    @contextlib.asynccontextmanager
    async def identifier(self) -> AsyncGenerator[tuple[Port, int], None]:
        """A socket and an identifier on it, for one request. Raises `Busy`, and `HostError` when there is no way there."""
        if self._waiting >= MAX_WAITING:
            raise Busy(
                f"more than {MAX_PORTS * IDENTIFIERS + MAX_WAITING} requests wait for the RADIUS server {self._host}",
                remedy="see why the server is slow",
            )
        self._waiting += 1
        try:
            await self._room.acquire()
        finally:
            self._waiting -= 1
        try:
            port = await self._with_room()
            number = port.free.popleft()
            try:
                yield port, number
            finally:
                port.give_back(number)
        finally:
            self._room.release()

    async def _with_room(self) -> Port:
        async with self._opening:
            for port in self._ports:
                if port.free:
                    return port
            return await self._open()

    async def _open(self) -> Port:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise HostError(
                f"the name of the RADIUS server {self._host} cannot be looked up: {error.strerror}",
                remedy="correct the name in `servers`, or write the address",
            ) from None
        source = (self._source, 0) if self._source is not None else None
        last: OSError | None = None
        for family, _, _, _, (host, port, *_) in found:
            if self._source is not None and (":" in self._source) != (family == socket.AF_INET6):
                continue
            try:
                _, opened = await loop.create_datagram_endpoint(
                    lambda: Port(self._on_error), remote_addr=(str(host), int(port)), local_addr=source, family=family
                )
            except OSError as error:
                last = error
            else:
                self._ports.append(opened)
                return opened
        why = last.strerror if last is not None else "it has no address of the family of `source`"
        raise HostError(
            f"there is no way to the RADIUS server {self._host}: {why}", remedy="see routes, and `source` in [radius]"
        )

    def forget(self) -> None:
        """Close sockets that nobody uses: the server's name may lead elsewhere by now."""
        idle = [port for port in self._ports if len(port.free) == IDENTIFIERS]
        for port in idle:
            self._ports.remove(port)
            port.close()

    def close(self) -> None:
        """Close all."""
        for port in self._ports:
            port.close()
        self._ports.clear()

"""What both proxies have in common: accepting, and bounds to what clients may cost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ikeway.client.relay import PIECE, Stream, prepare
from ikeway.errors import HostError, IkewayError

log = logging.getLogger("ikeway.proxy")

_DESCRIPTORS_A_CONNECTION = 4  # SOCKS with datagrams: the connection, a relay socket, and one inside of each family
_DESCRIPTORS_OTHERWISE = 64
_WANTED_DESCRIPTORS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds. Times in seconds; `idle` is for connections that carry nothing in either direction."""

    connections: int = 1024
    request: float = 30.0  # until a request is complete
    idle: float = 7200.0
    half_closed: float = 600.0  # one side has said all it wants, and the other says nothing
    keep_alive: float = 60.0  # between two requests of an HTTP client
    request_octets: int = 32768  # of an HTTP request's head


class BadRequest(Exception):
    """What a client said makes no sense; the connection is closed."""


Serve = Callable[[Stream], Awaitable[None]]


class ProxyServer:
    """Listens, and has each connection served by `serve`."""

    def __init__(self, name: str, serve: Serve, limits: Limits) -> None:
        """Nothing listens before `start`."""
        self.name = name
        self.refused = 0  # connections above the limit
        self._serve = serve
        self._limits = limits
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._most = min(limits.connections, _affordable())

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port, which matters for port 0 (`HostError`)."""
        try:
            self._server = await asyncio.start_server(self._accept, host, port, limit=PIECE)
        except OSError as error:
            raise HostError(
                f"the {self.name} proxy cannot listen on {host} port {port}: {error.strerror}",
                remedy=f"end what listens there, or take another port (--{self.name.lower()} {port + 1})",
            ) from error
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    async def close(self) -> None:
        """Listen no more, and end all connections. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Stream(reader, writer)
        task = asyncio.current_task()
        if task is None or len(self._tasks) >= self._most:
            self.refused += 1
            client.abort()
            return
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            prepare(writer)
            await self._serve(client)
            await client.close()
        except (OSError, EOFError, TimeoutError, BadRequest, IkewayError) as error:
            log.debug("%s: %s", self.name, error)
        except asyncio.CancelledError:
            pass  # at the end of the program; the transport is closed below
        except Exception:
            log.exception("the %s proxy failed with a connection; this is a defect of Ikeway", self.name)
        finally:
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                client.abort()


def _affordable() -> int:
    """How many connections this process has descriptors for, once it has taken as many as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_WANTED_DESCRIPTORS, hard)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return max((soft - _DESCRIPTORS_OTHERWISE) // _DESCRIPTORS_A_CONNECTION, 1)

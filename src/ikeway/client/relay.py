"""Carrying octets between two TCP connections: bounded buffers, back-pressure, half-closed connections as they are.
And datagrams, which are lost where a buffer is full."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

PIECE = 1 << 16
_BUFFER = 1 << 18  # octets that wait for a slow reader before the fast writer is not read any more
_FLUSH_SECONDS = 60.0
_KEEPALIVE = ((socket.SO_KEEPALIVE, 1),)
_KEEPALIVE_TCP = ((4, 120), (5, 30), (6, 4))  # TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT: seconds, seconds, probes


@dataclass(frozen=True, slots=True)
class Stream:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def of(cls, connected: socket.socket) -> Stream:
        """The stream of a connected socket, which it then owns."""
        try:
            made = cls(*await asyncio.open_connection(sock=connected, limit=PIECE))
        except BaseException:
            connected.close()
            raise
        prepare(made.writer)
        return made

    def abort(self) -> None:
        """Close at once, whatever waits to be sent."""
        self.writer.transport.abort()

    async def close(self) -> None:
        """Send what waits, and close; whoever does not read is not waited for without end."""
        self.writer.close()
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                await self.writer.wait_closed()
        except (OSError, TimeoutError):
            self.abort()


def prepare(writer: asyncio.StreamWriter) -> None:
    """Bound the buffer of a connection, and notice a peer that is gone."""
    writer.transport.set_write_buffer_limits(high=_BUFFER)
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
        for option, value in _KEEPALIVE:
            raw.setsockopt(socket.SOL_SOCKET, option, value)
        for option, value in _KEEPALIVE_TCP:
            raw.setsockopt(socket.IPPROTO_TCP, option, value)


class _Clock:
    """When something was carried last."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def tick(self) -> None:
        self.last = time.monotonic()


async def join(one: Stream, other: Stream, *, idle: float | None = None, half_closed: float = 600.0) -> None:
    """Carry octets both ways until both sides have said all they want, then close both. A connection of which one side
    has gone silent is given up: after `idle` seconds, or `half_closed` when one direction has ended."""
    clock = _Clock()
    pumps = [asyncio.create_task(_pump(source, sink, clock)) for source, sink in ((one, other), (other, one))]
    try:
        while pending := [each for each in pumps if not each.done()]:
            patience = half_closed if len(pending) < len(pumps) else idle
            wait = None if patience is None else max(clock.last + patience - time.monotonic(), 0.0)
            done, _ = await asyncio.wait(pending, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            quiet = patience is not None and time.monotonic() >= clock.last + patience
            if any(each.exception() is not None for each in done) or (quiet and not done):
                break
    finally:
        whole = all(each.done() and not each.cancelled() and each.exception() is None for each in pumps)
        for each in pumps:
            each.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for stream in (one, other):
            if whole:
                await stream.close()
            else:
                stream.abort()


async def _pump(source: Stream, sink: Stream, clock: _Clock) -> None:
    while octets := await source.reader.read(PIECE):
        clock.tick()
        sink.writer.write(octets)
        await sink.writer.drain()
        clock.tick()
    if sink.writer.can_write_eof():
        sink.writer.write_eof()


LARGEST_DATAGRAM = 65535
_DATAGRAMS_A_TURN = 64
Peer = tuple[str, int]


class DatagramPort:
    """A UDP socket that is read on the event loop. It owns the socket."""

    def __init__(self, opened: socket.socket, on_datagram: Callable[[bytes, Peer], None]) -> None:
        """`on_datagram` gets each datagram and who sent it."""
        opened.setblocking(False)
        self._socket = opened
        self._on_datagram = on_datagram
        self.used = time.monotonic()  # when something was carried last
        asyncio.get_running_loop().add_reader(opened, self._read)

    @property
    def port(self) -> int:
        """Its own port."""
        number: int = self._socket.getsockname()[1]
        return number

    def send(self, octets: bytes, peer: Peer | None = None) -> None:
        """Send a datagram, to `peer` or to whom the socket is connected. What cannot be sent is lost."""
        self.used = time.monotonic()
        with contextlib.suppress(OSError):
            if peer is None:
                self._socket.send(octets)
            else:
                self._socket.sendto(octets, peer)

    def close(self) -> None:
        """Close. Idempotent."""
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()

    def _read(self) -> None:
        for _ in range(_DATAGRAMS_A_TURN):
            if self._socket.fileno() < 0:
                return
            try:
                octets, address = self._socket.recvfrom(LARGEST_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of an earlier datagram
            self.used = time.monotonic()
            self._on_datagram(octets, address[:2])

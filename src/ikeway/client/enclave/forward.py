"""Forwarding ports over the border of an enclave: `--publish` from the host to the inside, `--reach` the other way.

The relays run in the engine. Only their sockets differ: each was made on its side of the border.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address

from ikeway.client.enclave.enclave import Enclave
from ikeway.client.relay import DatagramPort, Peer, Stream, join, prepare
from ikeway.errors import ConfigError, HostError

log = logging.getLogger("ikeway.client")

LOOPBACK = "127.0.0.1"
_MOST_CONNECTIONS = 256
_MOST_PEERS = 256  # of a UDP port
_MOST_OPENING = 16  # whose sockets are being made
_PEER_SECONDS = 120.0  # without a datagram, until a peer is forgotten
_FORM = re.compile(r"(?:(?P<host>\[[^]]+\]|\d+(?:\.\d+){3}):)?(?P<ports>\d+(?::\d+)?)(?P<kind>/tcp|/udp)?", re.ASCII)

Connect = Callable[[], Awaitable[socket.socket]]


@dataclass(frozen=True, slots=True)
class Forward:
    """A port that is forwarded. `outward`: who is inside reaches the host; else the host reaches the inside."""

    listen: tuple[str, int]
    target: tuple[str, int]
    udp: bool = False
    outward: bool = False

    @classmethod
    def publish(cls, text: str) -> Forward:
        """`[HOST:]PORT:PORT[/udp]`: the host's address and port, and the port inside (`ConfigError`)."""
        host, ports, udp = _parse(text, "[HOST:]PORT:PORT[/udp], such as 8080:80")
        if len(ports) != 2:
            raise _malformed(text, "[HOST:]PORT:PORT[/udp], such as 8080:80")
        return cls((host, ports[0]), (LOOPBACK, ports[1]), udp)

    @classmethod
    def reach(cls, text: str) -> Forward:
        """`[HOST:]PORT[:PORT][/udp]`: the service's address and port, and its port inside (`ConfigError`)."""
        host, ports, udp = _parse(text, "[HOST:]PORT[:PORT][/udp], such as 5432")
        return cls((LOOPBACK, ports[-1]), (host, ports[0]), udp, outward=True)

    def __str__(self) -> str:
        """Say what it does."""
        (listen, at), (target, to) = self.listen, self.target
        kind = "UDP" if self.udp else "TCP"
        if self.outward:
            return f"{listen} port {at} inside leads to {target} port {to} of this host ({kind})"
        return f"{listen} port {at} of this host leads to port {to} inside ({kind})"


def _parse(text: str, form: str) -> tuple[str, list[int], bool]:
    found = _FORM.fullmatch(text)
    if found is None:
        raise _malformed(text, form)
    host = (found["host"] or LOOPBACK).strip("[]")
    ports = [int(each) for each in found["ports"].split(":")]
    try:
        ip_address(host)
    except ValueError:
        raise _malformed(text, f"{form}; HOST is an IP address, IPv6 in brackets") from None
    if not all(0 < each < 65536 for each in ports):
        raise _malformed(text, "ports from 1 to 65535")
    return host, ports, found["kind"] == "/udp"


def _malformed(text: str, form: str) -> ConfigError:
    return ConfigError("this is no port to forward", expected=form, got=text, remedy="write it so")


class Forwarder:
    """One forwarded port at work."""

    def __init__(self, enclave: Enclave, forward: Forward) -> None:
        """Nothing listens before `start`."""
        self._enclave = enclave
        self._forward = forward
        self._server: asyncio.Server | None = None
        self._datagrams: _Datagrams | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen (`HostError`)."""
        host, port = self._forward.listen
        try:
            if self._forward.outward:
                listener = await self._enclave.listen(host, port, datagrams=self._forward.udp)
            else:
                listener = _listen(host, port, datagrams=self._forward.udp)
        except (OSError, HostError) as error:
            reason = error.strerror if isinstance(error, OSError) else error.reason
            where = "inside" if self._forward.outward else "of this host"
            raise HostError(
                f"cannot listen on {host} port {port} {where}: {reason}", remedy="take another port"
            ) from error
        if self._forward.udp:
            self._datagrams = _Datagrams(listener, self._new_datagram_socket)
        else:
            self._server = await asyncio.start_server(self._accept, sock=listener, limit=1 << 16)

    async def close(self) -> None:
        """Listen no more, and end all connections."""
        if self._server is not None:
            self._server.close()
        if self._datagrams is not None:
            self._datagrams.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _new_socket(self, *, datagrams: bool) -> socket.socket:
        host, _ = self._forward.target
        if not self._forward.outward:
            return await self._enclave.new_socket(host, datagrams=datagrams)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.socket(family, socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM)
        made.setblocking(False)
        return made

    async def _new_datagram_socket(self) -> socket.socket:
        made = await self._new_socket(datagrams=True)
        made.connect(self._forward.target)
        return made

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        near = Stream(reader, writer)
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= _MOST_CONNECTIONS:
            near.abort()
            return
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            prepare(writer)
            await join(near, await self._connect())
        except (OSError, HostError) as error:
            log.info("A forwarded connection was not taken: %s", error)
            near.abort()
        except asyncio.CancelledError:
            near.abort()

    async def _connect(self) -> Stream:
        made = await self._new_socket(datagrams=False)
        try:
            await asyncio.get_running_loop().sock_connect(made, self._forward.target)
        except BaseException:
            made.close()
            raise
        return await Stream.of(made)


class _Datagrams:
    """A UDP port: the near socket, and one on the far side for each peer, of which the longest unused is forgotten."""

    def __init__(self, listener: socket.socket, new_socket: Connect) -> None:
        self._near = DatagramPort(listener, self._on_datagram)
        self._new_socket = new_socket
        self._far: dict[Peer, DatagramPort] = {}
        self._opening: dict[Peer, asyncio.Task[None]] = {}

    def close(self) -> None:
        """Close all sockets."""
        for task in self._opening.values():
            task.cancel()
        for each in (self._near, *self._far.values()):
            each.close()

    def _on_datagram(self, octets: bytes, peer: Peer) -> None:
        if peer in self._far:
            self._far[peer].send(octets)
        elif peer not in self._opening and len(self._opening) < _MOST_OPENING:
            self._opening[peer] = asyncio.create_task(self._open(peer, octets))

    async def _open(self, peer: Peer, first: bytes) -> None:
        try:
            self._make_room()
            made = await self._new_socket()
            self._far[peer] = DatagramPort(made, lambda octets, _: self._near.send(octets, peer))
            self._far[peer].send(first)
        except (OSError, HostError) as error:
            log.info("A forwarded datagram was lost: %s", error)
        finally:
            del self._opening[peer]

    def _make_room(self) -> None:
        old = time.monotonic() - _PEER_SECONDS
        unused = [peer for peer, port in self._far.items() if port.used < old]
        if not unused and len(self._far) >= _MOST_PEERS:
            unused = [min(self._far, key=lambda peer: self._far[peer].used)]
        for peer in unused:
            self._far.pop(peer).close()


def _listen(host: str, port: int, *, datagrams: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM)
    try:
        if not datagrams:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        if not datagrams:
            made.listen(128)
        made.setblocking(False)
    except OSError as error:
        made.close()
        raise OSError(error.errno, os.strerror(error.errno or 0)) from None
    return made


@contextlib.asynccontextmanager
async def forwarding(enclave: Enclave, forwards: tuple[Forward, ...]) -> AsyncIterator[None]:
    """Forward these ports while the block runs (`HostError`)."""
    started: list[Forwarder] = []
    try:
        for each in forwards:
            forwarder = Forwarder(enclave, each)
            await forwarder.start()
            started.append(forwarder)
        yield
    finally:
        for forwarder in started:
            await forwarder.close()

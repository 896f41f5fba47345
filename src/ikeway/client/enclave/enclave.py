"""`Enclave`: the engine's hold on a keeper, as asyncio sees it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import ikeway
from ikeway.client.enclave.messages import (
    Configure,
    Done,
    Ended,
    Entered,
    Failed,
    MakeSocket,
    Message,
    OpenResolver,
    OpenTun,
    Request,
    Signal,
    Start,
    receive,
    send,
)
from ikeway.client.enclave.resolver import Resolver
from ikeway.errors import HostError, PeerUnreachable
from ikeway.host.tun import TunDevice

_BUFFER = 1 << 20
_CONNECT_SECONDS = 20.0  # for one address of a name
_END_SECONDS = 10.0


class Command:
    """A command that runs inside."""

    def __init__(self, enclave: Enclave, pid: int, code: asyncio.Future[int]) -> None:
        self.pid = pid
        self._enclave = enclave
        self._code = code

    async def wait(self) -> int:
        """Its exit code, 128 and more for a signal. Raises `HostError` when the enclave ends first."""
        return await asyncio.shield(self._code)

    async def send_signal(self, number: int) -> None:
        """Send it a signal; nothing happens when it has ended."""
        await self._enclave.request(Signal(self._enclave.number(), self.pid, number))


class Enclave:
    """See `ikeway.client.enclave`. Made on a running event loop, from the socket of a keeper or with `start`."""

    def __init__(self, control: socket.socket, process: subprocess.Popen[bytes] | None = None) -> None:
        """`process` is the keeper when it is ours to wait for."""
        control.setblocking(False)
        self._control = control
        self._process = process
        self._numbers = itertools.count(1)
        loop = asyncio.get_running_loop()
        self._entered: asyncio.Future[Entered] = loop.create_future()
        self._answers: dict[int, asyncio.Future[tuple[Done, tuple[int, ...]]]] = {}
        self._commands: dict[int, asyncio.Future[int]] = {}
        self._early: dict[int, int] = {}  # commands that ended before we had their number
        self._resolver: Resolver | None = None
        self._opening = asyncio.Lock()  # of the resolver: one serves all
        self._has_room = asyncio.Event()
        self._sending = asyncio.Lock()
        self.ended = asyncio.Event()
        loop.add_reader(control, self._receive)

    @classmethod
    async def start(cls) -> Enclave:
        """Start a keeper (`HostError` when this host does not allow it)."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        place = str(Path(ikeway.__file__).parents[1])
        path = os.pathsep.join(filter(None, (place, os.environ.get("PYTHONPATH", ""))))
        with theirs:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            process = subprocess.Popen(  # noqa: ASYNC220 - our own interpreter; forks in no time
                [sys.executable, "-P", "-m", "ikeway.client.enclave.keeper", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": path},
            )
        made = cls(ours, process)
        try:
            await made.entered()
        except BaseException:
            await made.close()
            raise
        return made

    async def entered(self) -> bool:
        """Wait until the keeper is inside (`HostError`). False when names cannot be looked up there."""
        return (await asyncio.shield(self._entered)).has_names

    async def close(self) -> None:
        """End all that runs inside, and the enclave with it. Idempotent."""
        if self._resolver is not None:
            self._resolver.close()
        self._hang_up("it was closed")
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_SECONDS):
                    while process.poll() is None:  # noqa: ASYNC110 - nothing tells us of it
                        await asyncio.sleep(0.01)
            if process.poll() is None:
                process.kill()
                process.wait()

    # -- what is made inside

    async def open_tun(self, name: str) -> TunDevice:
        """Make a TUN device inside; its descriptor is ours (`HostError`)."""
        done, (fd,) = await self.request(OpenTun(self.number(), name))
        return TunDevice(fd, done.text, vnet_header=True)

    async def configure(
        self,
        interface: str,
        mtu: int,
        *,
        addresses: Sequence[object] = (),
        routes: Sequence[object] = (),
        refused: Sequence[object] = (),
        dns_servers: Sequence[object] = (),
        search_domains: Sequence[str] = (),
    ) -> None:
        """Make the network inside look so (`HostError`)."""
        words = [tuple(map(str, each)) for each in (addresses, routes, refused, dns_servers, search_domains)]
        await self.request(Configure(self.number(), interface, mtu, *words))

    async def new_socket(self, host: str = "", *, datagrams: bool = False) -> socket.socket:
        """A TCP or UDP socket that lives inside, of the family of `host`, which it is to speak to (`HostError`)."""
        _, (fd,) = await self.request(MakeSocket(self.number(), ":" in host, datagrams))
        return _adopt(fd)

    async def listen(self, host: str, port: int, *, datagrams: bool = False, backlog: int = 128) -> socket.socket:
        """A socket inside that is bound, and that listens unless it is for datagrams (`HostError`)."""
        backlog = 0 if datagrams else backlog
        _, (fd,) = await self.request(MakeSocket(self.number(), ":" in host, datagrams, host, port, backlog))
        return _adopt(fd)

    async def resolve(self, host: str) -> list[str]:
        """The addresses of a name as what is inside finds them (`PeerUnreachable`). An address is itself, but not one with
        a zone: that would be the number of an interface of the host."""
        if "%" in host:
            raise PeerUnreachable("this is no host name", got=repr(host[:60]))
        try:
            return [str(ip_address(host))]
        except ValueError:
            pass
        resolver = await self._running_resolver()
        return [address for _, address in await resolver.resolve(host)]

    async def _running_resolver(self) -> Resolver:
        """Another one when the process inside has ended, for want of memory perhaps."""
        async with self._opening:
            if self._resolver is None or self._resolver.is_closed:
                _, (fd,) = await self.request(OpenResolver(self.number()))
                self._resolver = Resolver(socket.socket(fileno=fd))
            return self._resolver

    async def connect(self, host: str, port: int) -> socket.socket:
        """A TCP connection through the tunnel, not blocking. The name is looked up inside (`PeerUnreachable`)."""
        reason, last = "the name has no address", None
        for address in await self.resolve(host):
            made = await self.new_socket(address)
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await asyncio.get_running_loop().sock_connect(made, (address, port))
            except OSError as error:  # a time-out is one as well
                made.close()
                reason, last = os.strerror(error.errno) if error.errno else "no answer", error
            except BaseException:
                made.close()
                raise
            else:
                return made
        raise PeerUnreachable(f"cannot connect to {host} port {port}: {reason}") from last

    async def open_connection(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As `asyncio.open_connection`, through the tunnel (`PeerUnreachable`)."""
        made = await self.connect(host, port)
        return await asyncio.open_connection(sock=made)

    async def start_command(
        self,
        *words: str,
        standard: tuple[int, int, int] | None = None,
        directory: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> Command:
        """Start a command inside (`HostError`), with these standard descriptors or with ours. Exit codes 127 and 126 say
        that there is none of that name, and that it cannot be started."""
        variables = tuple(f"{name}={value}" for name, value in (environment or {}).items())
        done, _ = await self.request(Start(self.number(), words, directory, variables), standard or ())
        pid = int(done.text)
        code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if pid in self._early:
            code.set_result(self._early.pop(pid))
        else:
            self._commands[pid] = code
        return Command(self, pid, code)

    # -- speaking to the keeper

    def number(self) -> int:
        """For the next request."""
        return next(self._numbers)

    async def request(self, request: Request, descriptors: tuple[int, ...] = ()) -> tuple[Done, tuple[int, ...]]:
        """Ask the keeper, and wait for its answer (`HostError`)."""
        answer: asyncio.Future[tuple[Done, tuple[int, ...]]] = asyncio.get_running_loop().create_future()
        self._answers[request.number] = answer
        try:
            await self._send(request, descriptors)
            return await answer
        except OSError as error:
            raise HostError("the enclave has ended") from error
        finally:
            del self._answers[request.number]

    async def _send(self, request: Request, descriptors: tuple[int, ...]) -> None:
        """Send, when there is room: a keeper that is stopped does not read."""
        async with self._sending:
            while True:
                try:
                    send(self._control, request, descriptors)
                except BlockingIOError:
                    await self._room()
                else:
                    return

    async def _room(self) -> None:
        loop = asyncio.get_running_loop()
        self._has_room.clear()
        loop.add_writer(self._control, self._has_room.set)
        try:
            await self._has_room.wait()
        finally:
            if self._control.fileno() >= 0:
                loop.remove_writer(self._control)

    def _receive(self) -> None:
        while self._control.fileno() >= 0:
            try:
                received = receive(self._control)
            except BlockingIOError:
                return
            except OSError:
                received = None
            if received is None:
                self._hang_up("its keeper has ended")
                return
            self._on_message(*received)

    def _on_message(self, message: Message, descriptors: tuple[int, ...]) -> None:
        match message:
            case Done(number=number) if number in self._answers and not self._answers[number].done():
                self._answers[number].set_result((message, descriptors))
                return
            case Failed(number=number) if number in self._answers and not self._answers[number].done():
                self._answers[number].set_exception(message.error())
            case Failed(number=0) if not self._entered.done():
                self._entered.set_exception(message.error())
            case Entered() if not self._entered.done():
                self._entered.set_result(message)
            case Ended(pid=pid, code=code):
                if pid in self._commands:
                    self._commands.pop(pid).set_result(code)
                else:
                    self._early[pid] = code
        for fd in descriptors:  # nobody waits for them any more
            os.close(fd)

    def _hang_up(self, reason: str) -> None:
        if self._control.fileno() < 0:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._control)
        loop.remove_writer(self._control)
        self._control.close()
        self._has_room.set()  # who waits for it hears that there is nobody to send to
        waiting: list[asyncio.Future[Any]] = [self._entered, *self._answers.values(), *self._commands.values()]
        for each in waiting:
            if not each.done():
                each.set_exception(HostError(f"the enclave is no more: {reason}"))
                each.exception()  # whether or not anybody waits for it
        self._commands.clear()
        self.ended.set()


def _adopt(fd: int) -> socket.socket:
    made = socket.socket(fileno=fd)
    made.setblocking(False)
    return made

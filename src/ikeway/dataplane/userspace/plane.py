"""The daemon's side of the userspace data plane: starts the worker, speaks to it, and sends IKE beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import ikeway
from ikeway.address import Address
from ikeway.dataplane.interface import Counters, DataPlaneDied, DataPlaneEvent
from ikeway.dataplane.userspace.messages import (
    AddInbound,
    AddOutbound,
    Configure,
    CounterEntry,
    CounterPage,
    Done,
    Failed,
    Message,
    Move,
    ReadCounters,
    RemoveInbound,
    RemoveOutbound,
    Request,
    SetMtu,
    SocketRole,
    decode,
    encode,
)
from ikeway.dataplane.userspace.sockets import NON_ESP_MARKER, accept_merged, is_unspecified, send_datagram
from ikeway.errors import HostError, Side
from ikeway.esp.parameters import EspSa
from ikeway.host.tun import TunDevice

_LARGEST_MESSAGE = 1 << 18
_CONTROL_BUFFER = 1 << 20
_KEEPALIVE = b"\xff"
_PATIENCE = 10.0  # seconds for any answer of the worker
_MESSAGES_A_TURN = 64  # so that a flood of IKE messages leaves the event loop some air


class UserspaceDataPlane:
    """ESP in a worker process (`ikeway.dataplane.interface.DataPlane`).

    It owns the TUN device and the sockets from now on: `stop` closes them. Of the sockets the worker reads and this
    process only sends: `send_ike` and `send_keepalive` use them as well, so IKE and ESP leave from the same port as
    NAT traversal needs. IKE messages that arrive there come back as `IkeReceived` events.

    Open sockets with `sockets.open_udp` and `sockets.open_esp` (IPv4 and IPv6 each, as needed). `mtu` is the TUN
    device's, which TCP's MSS is clamped to. After `DataPlaneDied` the SAs are lost: a new data plane must get new
    SAs with new keys, since sequence numbers begin anew.
    """

    def __init__(
        self,
        tun: TunDevice,
        udp: Sequence[socket.socket],
        *,
        esp: Sequence[socket.socket] = (),
        mtu: int = 1400,
        clamp_mss: bool = True,
    ) -> None:
        self._tun = tun
        self._udp = tuple(udp)
        self._esp = tuple(esp)
        self._mtu = mtu
        self._clamp_mss = clamp_mss
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._on_event: Callable[[DataPlaneEvent], None] = _ignore
        self._waiting: deque[bytes] = deque()
        self._answers: dict[int, asyncio.Future[Done | tuple[CounterEntry, ...]]] = {}
        self._pages: dict[int, list[CounterEntry]] = {}
        self._requests = 0
        self._closing = False

    @property
    def pid(self) -> int | None:
        """The worker's process id while it runs."""
        return self._process.pid if self._process is not None else None

    async def start(self, on_event: Callable[[DataPlaneEvent], None]) -> None:
        """Start the worker. Events are delivered on the running event loop."""
        self._on_event = on_event
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            for end in (ours, theirs):
                end.setblocking(False)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CONTROL_BUFFER)
            descriptors = (theirs.fileno(), self._tun.fd, *(s.fileno() for s in (*self._udp, *self._esp)))
            try:
                self._process = subprocess.Popen(  # noqa: ASYNC220 - our own interpreter; forks in no time
                    [sys.executable, "-P", "-m", "ikeway.dataplane.userspace.worker", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    pass_fds=descriptors,
                    env=_environment(),
                )
            except OSError as error:
                ours.close()
                raise HostError(f"cannot start the data plane: {error.strerror}") from error
        self._control = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._receive)
        roles = [(s, raw_esp) for sockets, raw_esp in ((self._udp, False), (self._esp, True)) for s in sockets]
        await self._request(
            lambda number: Configure(
                number,
                self._tun.fd,
                self._tun.vnet_header,
                self._mtu,
                self._clamp_mss,
                tuple(SocketRole(s.fileno(), s.family == socket.AF_INET6, raw_esp) for s, raw_esp in roles),
            )
        )

    async def stop(self) -> None:
        """End the worker, close the device and the sockets. Idempotent."""
        self._closing = True
        self._close_control("it was stopped")
        process, self._process = self._process, None
        if process is not None:
            await _end(process)
        for sock in (*self._udp, *self._esp):
            sock.close()
        self._tun.close()

    async def add_inbound(self, sa: EspSa) -> None:
        """Begin to accept ESP on `sa.spi`."""
        await self._request(lambda number: AddInbound(number, sa))

    async def add_outbound(self, sa: EspSa) -> None:
        """Begin to send on `sa`, in preference to older ones of the same `child_id`."""
        await self._request(lambda number: AddOutbound(number, sa))

    async def remove_inbound(self, spi: int) -> None:
        """Stop accepting ESP on `spi`. Unknown: no error."""
        await self._request(lambda number: RemoveInbound(number, spi))

    async def remove_outbound(self, spi: int, remote: Address) -> None:
        """Stop sending on `spi`. Unknown: no error."""
        await self._request(lambda number: RemoveOutbound(number, spi, remote))

    async def move(self, connection_id: int, local: Address, remote: Address, udp: bool) -> None:
        """Give all SAs of a connection new outer addresses, and UDP encapsulation or none."""
        await self._request(lambda number: Move(number, connection_id, local, remote, udp))

    async def set_mtu(self, mtu: int) -> None:
        """Say that the TUN device has another MTU."""
        self._mtu = mtu
        await self._request(lambda number: SetMtu(number, mtu))

    async def counters(self) -> dict[tuple[int, bool], Counters]:
        """Counters of all SAs by (spi, inbound), and under (0, True)/(0, False) what belongs to no SA.

        Two peers may have chosen the same SPI; then their outbound SAs are summed.
        """
        entries = await self._request(ReadCounters)
        result: dict[tuple[int, bool], Counters] = {}
        for entry in entries if isinstance(entries, tuple) else ():
            counters = result.setdefault((entry.spi, entry.inbound), Counters())
            counters.packets += entry.packets
            counters.octets += entry.octets
            counters.last_used = max(counters.last_used, entry.last_used)
            for drop in entry.dropped:
                counters.dropped[drop.reason] = counters.dropped.get(drop.reason, 0) + drop.count
        return result

    def send_ike(self, octets: bytes, local: Address, remote: Address) -> bool:
        """Send an IKE message with the non-ESP marker in front (RFC 3948 section 2.2).

        False when no socket fits or the host did not take it; IKE retransmits.
        """
        return self._send(NON_ESP_MARKER + octets, local, remote)

    def send_keepalive(self, local: Address, remote: Address) -> bool:
        """Send a NAT keep-alive (RFC 3948 section 2.3)."""
        return self._send(_KEEPALIVE, local, remote)

    def _send(self, octets: bytes, local: Address, remote: Address) -> bool:
        for sock in self._udp:
            if sock.fileno() < 0 or (sock.family == socket.AF_INET6) != remote.is_ipv6:
                continue
            host, port = sock.getsockname()[:2]
            if (is_unspecified(host) or host == local.host) and local.port in (0, port):
                return send_datagram(sock, octets, local, remote)
        return False

    async def _request(self, make: Callable[[int], Request]) -> Done | tuple[CounterEntry, ...]:
        """Send a request and wait for its answer. Raises `HostError`."""
        if self._control is None:
            raise HostError("the data plane does not run")
        self._requests = number = self._requests + 1 & 0xFFFFFFFF
        answer: asyncio.Future[Done | tuple[CounterEntry, ...]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            self._waiting.append(encode(make(number)))
            self._flush()
            async with asyncio.timeout(_PATIENCE):  # wait_for() of Python 3.11 may swallow a cancellation
                return await answer
        except TimeoutError as error:
            raise HostError(f"the data plane did not answer within {_PATIENCE:.0f} seconds") from error
        finally:
            self._answers.pop(number, None)
            self._pages.pop(number, None)

    def _flush(self) -> None:
        """Send what waits for the worker, as far as it reads."""
        control = self._control
        if control is None:
            return
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                control.send(self._waiting[0])
                self._waiting.popleft()
        except BlockingIOError:
            loop.add_writer(control.fileno(), self._flush)
        except OSError:
            self._died()
        else:
            loop.remove_writer(control.fileno())

    def _receive(self) -> None:
        """Take in what the worker says."""
        for _ in range(_MESSAGES_A_TURN):
            if self._control is None:
                return
            try:
                octets = self._control.recv(_LARGEST_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                octets = b""
            if not octets:
                self._died()
                return
            self._dispatch(decode(octets))

    def _dispatch(self, message: Message) -> None:
        if isinstance(message, Done | Failed | CounterPage):
            answer = self._answers.get(message.request)
            if answer is None or answer.done():
                return
            if isinstance(message, Done):
                answer.set_result(message)
            elif isinstance(message, Failed):
                answer.set_exception(HostError(message.reason, remedy=message.remedy))
            else:
                pages = self._pages.setdefault(message.request, [])
                pages.extend(message.entries)
                if message.last:
                    answer.set_result(tuple(pages))
        elif not isinstance(message, Request):
            self._on_event(message)

    def _died(self) -> None:
        """The worker closed its end: report how it ended."""
        process = self._process
        reason = _last_words(process) if process is not None else "it ended"
        self._close_control(reason)
        if not self._closing:
            self._on_event(DataPlaneDied(reason))

    def _close_control(self, reason: str) -> None:
        control, self._control = self._control, None
        if control is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(control.fileno())
            loop.remove_writer(control.fileno())
            control.close()
            for sock in self._udp:  # the worker wanted several datagrams at once; nobody else does
                accept_merged(sock, False)
        self._waiting.clear()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(HostError(f"the data plane does not answer: {reason}", side=Side.HOST))


def _ignore(event: DataPlaneEvent) -> None:
    """Nobody listens yet."""


def _environment() -> dict[str, str]:
    """Ours, with the place where this package lies, should it not be installed."""
    place = str(Path(ikeway.__file__).parents[1])
    known = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (place, known)))}


def _last_words(process: subprocess.Popen[bytes]) -> str:
    """How the worker ended, with the last line it wrote."""
    try:
        code = process.wait(0.5)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    words = ""
    if process.stderr is not None:
        with process.stderr:
            words = process.stderr.read().decode(errors="replace").strip().rpartition("\n")[2]
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"it was killed by {signal.Signals(-code).name}" + (f" ({words})" if words else "")
    return f"it ended with code {code}" + (f": {words}" if words else "")


async def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a worker whose control socket is closed; kill it if it hangs."""
    for _ in range(100):
        if process.poll() is not None:
            break
        await asyncio.sleep(0.02)
    else:
        process.kill()
        process.wait()
    if process.stderr is not None:
        process.stderr.close()

"""Traffic through a tunnel: pings that are counted and transfers whose hash is checked."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import ipaddress
import os
import socket
import struct
import threading
import time
from dataclasses import dataclass

from ikeway.host.namespaces import Namespace
from tests.interop.network import socket_in
from tests.interop.waiting import PATIENCE

MEGABYTE = 1_000_000
_PIECE = 256 * 1024


@functools.cache
def _content(size: int) -> tuple[memoryview, bytes]:
    """Random octets and their hash, made once."""
    octets = os.urandom(size)
    return memoryview(octets), hashlib.sha256(octets).digest()


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer that arrived whole."""

    octets: int
    seconds: float

    @property
    def megabits_per_second(self) -> float:
        return self.octets * 8 / self.seconds / 1e6


class RunningTransfer:
    """A TCP connection from one namespace to a host in another, filled from a thread. `result()` waits for it."""

    def __init__(
        self,
        sender: Namespace,
        receiver: Namespace,
        host: str,
        *,
        megabytes: int = 100,
        timeout: float = 60,
        source: str = "",
    ) -> None:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        self._octets, self._hash = _content(megabytes * MEGABYTE)
        self._timeout = timeout
        self._received = 0
        self._digest = hashlib.sha256()
        self._errors: list[BaseException] = []
        self._started = time.monotonic()
        self._ended = 0.0
        self._listener = socket_in(receiver, family, socket.SOCK_STREAM)
        self._listener.bind((host, 0))
        self._listener.listen(1)
        self._listener.settimeout(timeout)
        self._sending = socket_in(sender, family, socket.SOCK_STREAM)
        self._sending.settimeout(timeout)
        if source:
            self._sending.bind((source, 0))
        self._threads = [
            threading.Thread(target=self._guard, args=(call,), daemon=True) for call in (self._send, self._receive)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def received(self) -> int:
        """Octets that have arrived so far."""
        return self._received

    def wait_for(self, octets: int) -> None:
        """Wait until so much has arrived."""
        deadline = time.monotonic() + self._timeout
        while self._received < octets and not self._errors and time.monotonic() < deadline:
            time.sleep(0.005)
        assert self._received >= octets, f"only {self._received} octets arrived: {self._errors}"

    def result(self) -> Transfer:
        """Wait for the end and check what arrived."""
        for thread in self._threads:
            thread.join(self._timeout)
        for open_socket in (self._sending, self._listener):
            open_socket.close()
        assert not self._errors, f"transfer broke after {self._received} octets: {self._errors}"
        assert self._received == len(self._octets), f"{self._received} of {len(self._octets)} octets arrived"
        assert self._digest.digest() == self._hash, "the octets that arrived are not those that were sent"
        return Transfer(self._received, self._ended - self._started)

    def _guard(self, call) -> None:
        try:
            call()
        except BaseException as error:
            self._errors.append(error)

    def _send(self) -> None:
        self._sending.connect(self._listener.getsockname()[:2])
        self._sending.sendall(self._octets)
        self._sending.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(self._timeout)
        room = bytearray(_PIECE)
        view = memoryview(room)
        with connection:
            while count := connection.recv_into(room):
                self._digest.update(view[:count])
                self._received += count
        self._ended = time.monotonic()


def transfer(
    sender: Namespace, receiver: Namespace, host: str, *, megabytes: int = 100, timeout: float = 60
) -> Transfer:
    """Send so much to `host`, which is an address of the receiver's namespace, and check it."""
    return RunningTransfer(sender, receiver, host, megabytes=megabytes, timeout=timeout).result()


@dataclass(frozen=True, slots=True)
class PingResult:
    """What a ping counted."""

    sent: int
    received: int

    @property
    def lost(self) -> int:
        return self.sent - self.received


class Pulse:
    """A numbered datagram every few milliseconds to an echo in another namespace, until `stop()`: none may be lost."""

    def __init__(self, sender: Namespace, receiver: Namespace, host: str, *, interval: float = 0.01) -> None:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        self._echo = socket_in(receiver, family, socket.SOCK_DGRAM)
        self._echo.bind((host, 0))
        self._socket = socket_in(sender, family, socket.SOCK_DGRAM)
        self._socket.connect(self._echo.getsockname()[:2])
        for opened in (self._echo, self._socket):
            opened.settimeout(0.1)
        self._interval = interval
        self._sent: list[float] = []
        self._returned: set[int] = set()
        self._ending, self._ended = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=call, daemon=True) for call in (self._beat, self._send_back, self._collect)
        ]
        for thread in self._threads:
            thread.start()

    def wait_for(self, count: int) -> None:
        """Until so many are sent, however slow the machine is."""
        deadline = time.monotonic() + 30
        while len(self._sent) < count:
            assert time.monotonic() < deadline, f"{len(self._sent)} of {count} datagrams sent"
            time.sleep(self._interval)

    def stop(self) -> PingResult:
        """Stop, wait for the last echoes, and count."""
        self._ending.set()
        self._threads[0].join()
        deadline = time.monotonic() + 2 * PATIENCE
        while len(self._returned) < len(self._sent) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._echo.close()
        self._socket.close()
        return PingResult(len(self._sent), len(self._returned))

    def _beat(self) -> None:
        while not self._ending.wait(self._interval):
            with contextlib.suppress(OSError):
                self._socket.send(len(self._sent).to_bytes(4, "big").ljust(200, b"."))
            self._sent.append(time.monotonic())

    def _send_back(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError):
                octets, source = self._echo.recvfrom(2048)
                self._echo.sendto(octets, source)

    def _collect(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError):
                self._returned.add(int.from_bytes(self._socket.recv(2048)[:4], "big"))


def ping(
    namespace: Namespace, host: str, *, count: int = 3, interval: float = 0.05, timeout: float = 2 * PATIENCE
) -> PingResult:
    """A few pings. Every answer within the time-out counts; ping(8) waits for the last one only as long as for others."""
    if ipaddress.ip_address(host).version == 6:
        family, protocol, request = socket.AF_INET6, socket.IPPROTO_ICMPV6, 128
    else:
        family, protocol, request = socket.AF_INET, socket.IPPROTO_ICMP, 8
    answered: set[int] = set()
    with socket_in(namespace, family, socket.SOCK_DGRAM, protocol) as opened:  # the kernel adds identifier and checksum
        for number in range(count):
            with contextlib.suppress(OSError):  # no route yet: not answered
                opened.sendto(struct.pack("!BBHHH", request, 0, 0, 0, number) + bytes(56), (host, 0))
            _gather(opened, answered, interval if number < count - 1 else timeout, count)
    return PingResult(count, len(answered))


def _gather(opened: socket.socket, answered: set[int], seconds: float, enough: int) -> None:
    """Take answers for some time, or until there are enough."""
    deadline = time.monotonic() + seconds
    while len(answered) < enough and (left := deadline - time.monotonic()) > 0:
        opened.settimeout(left)
        with contextlib.suppress(OSError):
            answered.add(int.from_bytes(opened.recv(2048)[6:8], "big"))

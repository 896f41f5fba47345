"""Traffic through a tunnel: pings that are counted and transfers whose hash is checked."""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import os
import re
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass

from tests.interop.network import Network, socket_in

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

    def __init__(self, sender: str, receiver: str, host: str, *, megabytes: int = 100, timeout: float = 60) -> None:
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


def transfer(sender: str, receiver: str, host: str, *, megabytes: int = 100, timeout: float = 60) -> Transfer:
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


class Pings:
    """Pings at a steady pace until `stop()`."""

    def __init__(self, namespace: str, host: str, *, interval: float = 0.01) -> None:
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, "ping", "-n", "-q", "-i", str(interval), "-W", "2", host],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def stop(self) -> PingResult:
        """Stop, wait for the last answers, and count."""
        time.sleep(0.1)
        self._process.send_signal(signal.SIGINT)
        output, _ = self._process.communicate(timeout=10)
        return _count(output)


def ping(network: Network, namespace: str, host: str, *, count: int = 3, timeout: float = 2) -> PingResult:
    """A few pings, quickly."""
    options = ["-n", "-q", "-c", str(count), "-i", "0.05", "-W", str(timeout)]
    return _count(network.run(namespace, "ping", *options, host, check=False))


def _count(output: str) -> PingResult:
    found = re.search(r"(\d+) packets transmitted, (\d+) received", output)
    assert found, f"ping said: {output}"
    return PingResult(int(found[1]), int(found[2]))

"""What the demonstration sends through the tunnel: pings that are counted, downloads whose hash is checked."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import socket
import struct
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ikeway.errors import PeerUnreachable
from ikeway.host.namespaces import Namespace

_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_ICMP = struct.Struct("!BBHHH")
_IPV4_HEADER = 20
_PIECE = 1 << 18
_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Pings:
    """How a series of pings went. Times in seconds; `gap` is the longest time without an answer."""

    sent: int
    received: int
    round_trip: float  # the median
    gap: float

    @property
    def lost(self) -> int:
        """How many went without an answer."""
        return self.sent - self.received


@dataclass(frozen=True, slots=True)
class Download:
    """A download that arrived whole."""

    octets: int
    seconds: float

    @property
    def megabits(self) -> float:
        """Megabits in a second."""
        return self.octets * 8 / self.seconds / 1e6


@contextlib.contextmanager
def pinging(namespace: Namespace, address: str, interval: float = 0.02) -> Iterator[Callable[[], Pings]]:
    """Ping an IPv4 address all the time. The function that comes says how it went so far, or in all after the block."""
    pinger = _Pinger(namespace, address, interval)
    try:
        yield pinger.result
    finally:
        pinger.stop()


class _Pinger:
    """A thread inside the namespace that sends echo requests and another that counts the answers (RFC 792)."""

    def __init__(self, namespace: Namespace, address: str, interval: float) -> None:
        self._socket = namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
        self._socket.connect((address, 0))
        self._socket.settimeout(0.1)
        self._interval = interval
        self._identifier = os.getpid() & 0xFFFF
        self._sent: dict[int, float] = {}
        self._answered: dict[int, float] = {}
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Send no more, wait for the last answers, and end."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def result(self) -> Pings:
        """How it went. The most recent request may still be under way and is left out unless it was answered."""
        sent, answered = dict(self._sent), dict(self._answered)
        if not self._stopping.is_set() and sent and max(sent) not in answered:
            del sent[max(sent)]
        if not answered:
            raise PeerUnreachable("no ping was answered", remedy="see the messages of both programs above")
        trips = sorted(answered[number] - sent[number] for number in answered if number in sent)
        moments = [min(sent.values()), *sorted(answered.values())]
        gap = max(later - earlier for earlier, later in itertools.pairwise(moments))
        return Pings(len(sent), len(trips), trips[len(trips) // 2], gap)

    def _send(self) -> None:
        for number in itertools.count():
            if self._stopping.wait(self._interval):
                return
            self._sent[number] = time.monotonic()
            with contextlib.suppress(OSError):  # no route for a moment: the ping is lost like any other
                self._socket.send(_echo_request(self._identifier, number))

    def _receive(self) -> None:
        linger = 0
        while linger < 3:  # answers to the last requests may be under way
            try:
                packet = self._socket.recv(2048)
            except OSError:
                linger += self._stopping.is_set()
                continue
            if len(packet) >= _IPV4_HEADER + _ICMP.size:
                kind, _, _, identifier, number = _ICMP.unpack_from(packet, _IPV4_HEADER)
                if kind == _ECHO_REPLY and identifier == self._identifier:
                    whole = max((each for each in self._sent if each & 0xFFFF == number), default=None)
                    if whole is not None:
                        self._answered.setdefault(whole, time.monotonic())


def _echo_request(identifier: int, number: int) -> bytes:
    body = bytes(40)
    header = _ICMP.pack(_ECHO_REQUEST, 0, 0, identifier, number & 0xFFFF)
    total = sum(struct.unpack(f"!{(len(header) + len(body)) // 2}H", header + body))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return _ICMP.pack(_ECHO_REQUEST, 0, ~total & 0xFFFF, identifier, number & 0xFFFF) + body


def fetch(namespace: Namespace, url: str, expected_hash: str) -> Download:
    """Download a file from inside a namespace; its SHA-256 must be the expected one (`PeerUnreachable`)."""
    return namespace.call(lambda: _fetch(url, expected_hash))


def _fetch(url: str, expected_hash: str) -> Download:
    digest, octets = hashlib.sha256(), 0
    started = time.monotonic()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_TIMEOUT) as response:
            while piece := response.read(_PIECE):
                digest.update(piece)
                octets += len(piece)
    except OSError as error:
        raise PeerUnreachable(f"{url} could not be downloaded after {octets} octets: {error}") from error
    seconds = time.monotonic() - started
    if digest.hexdigest() != expected_hash:
        raise PeerUnreachable(f"{url} arrived damaged", expected=expected_hash, got=digest.hexdigest())
    return Download(octets, seconds)


@contextlib.contextmanager
def downloading(namespace: Namespace, url: str, expected_hash: str) -> Iterator[list[Download]]:
    """Download a file again and again. The list that comes has all downloads after the block; a failure is raised."""
    stopping = threading.Event()
    done: list[Download] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not stopping.is_set():
                done.append(fetch(namespace, url, expected_hash))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield done
    finally:
        stopping.set()
        thread.join()
    if errors:
        raise errors[0]

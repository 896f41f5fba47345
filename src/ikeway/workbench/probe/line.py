"""Asking over UDP: one question at a time, at a bounded rate, with the network's refusals heard.

The socket is connected, so that the kernel lets only this peer's datagrams in and reports what ICMP says of ours.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ikeway.address import Address
from ikeway.errors import ConfigError, HostError, WireError
from ikeway.ike.protection import NON_ESP_MARKER
from ikeway.wire.errors import UnsupportedVersion
from ikeway.wire.message import Header, Message
from ikeway.workbench.probe import icmp, isakmp

T = TypeVar("T")

SLOW_GAP = 0.25  # seconds between datagrams to a gateway that has shown a limit
MAX_DATAGRAMS = 64  # looked at for one question: whoever floods us gets no further
_REFUSALS = {
    errno.ECONNREFUSED: icmp.PORT_UNREACHABLE,
    errno.EHOSTUNREACH: "no way to the host",
    errno.ENETUNREACH: "no way to the network",
    errno.EACCES: "a firewall forbids it",
    errno.EPERM: "the firewall of this host forbids it",
    errno.EPROTO: "the network refuses it (ICMP)",
}


@dataclass(frozen=True, slots=True)
class Heard(Generic[T]):
    """What came of a question, or why nothing did. `seconds` from the last sending to the answer."""

    message: T | None
    refusal: str = ""  # what ICMP said; empty when nothing came at all
    seconds: float = 0.0

    @property
    def silent(self) -> bool:
        """Nothing came."""
        return self.message is None and not self.refusal


Answer = Heard[Message]


class Pace:
    """Keeps datagrams at least `1 / rate` seconds apart, on all lines together."""

    def __init__(self, rate: float) -> None:
        self.gap = 1 / rate
        self._next = 0.0

    def wait(self) -> None:
        """Sleep until the next datagram may go."""
        now = time.monotonic()
        if self._next > now:
            time.sleep(self._next - now)
        self._next = max(now, self._next) + self.gap

    def slow_down(self, seconds: float) -> None:
        """Send nothing for so long, and less often from then on."""
        self.gap = max(2 * self.gap, SLOW_GAP)
        self._next = time.monotonic() + seconds


class Line:
    """One UDP port of the gateway. `marked`: IKE has the non-ESP marker in front there (RFC 3948 section 2.2)."""

    def __init__(self, remote: Address, pace: Pace, *, marked: bool, patience: float, zone: str = "") -> None:
        """Connect the socket, which sends nothing. Raises `HostError` without a route, `ConfigError` for the address of
        a whole network; `zone` is the interface of a link-local address."""
        self.remote, self.marked, self.pace = remote, marked, pace
        self._patience = patience
        self.round_trip: float | None = None
        self.malformed = 0
        self.other_versions: set[int] = set()  # major versions in which IKEv2 was answered
        family = socket.AF_INET6 if remote.is_ipv6 else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect((*remote, 0, socket.if_nametoindex(zone)) if zone else tuple(remote))
        except OSError as error:
            self._socket.close()
            raise _no_way(remote, error) from None
        icmp.listen(self._socket)
        host, port = self._socket.getsockname()[:2]
        self.local = Address(host.partition("%")[0], port)

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._socket.close()

    @property
    def timeout(self) -> float:
        """Seconds to wait for an answer: several round trips, once one was seen, and what the gateway computes."""
        return self._patience if self.round_trip is None else min(self._patience, 0.3 + 4 * self.round_trip)

    def ask(self, question: Message, tries: int = 2) -> Answer:
        """Send, and wait for the response to it; once more when none comes."""
        return self._ask(question.encode(), tries, lambda octets: self._response(question, octets))

    def ask_ikev1(self, octets: bytes, cookie: bytes, tries: int = 2) -> Heard[isakmp.Reply]:
        """The same in IKEv1."""
        return self._ask(octets, tries, lambda received: isakmp.parse(received, cookie))

    def send(self, octets: bytes) -> str:
        """Send an IKE message; returns what the network says against it."""
        self.pace.wait()
        try:
            self._socket.send(NON_ESP_MARKER + octets if self.marked else octets)
        except OSError as error:
            return self._refusal(error)
        return ""

    def receive(self, until: float) -> bytes | str | None:
        """The next IKE message; a text when the network refuses; None when the time (`time.monotonic`) is up."""
        for _ in range(MAX_DATAGRAMS):
            left = until - time.monotonic()
            if left <= 0:
                break
            self._socket.settimeout(left)
            try:
                octets = self._socket.recv(65535)
            except TimeoutError:
                break
            except OSError as error:
                return self._refusal(error)
            if not self.marked:
                return octets
            if octets[:4] == NON_ESP_MARKER:
                return octets[4:]
        return None

    def _ask(self, octets: bytes, tries: int, understand: Callable[[bytes], T | None]) -> Heard[T]:
        answer: Heard[T] = Heard(None)
        for _ in range(tries):
            refusal = self.send(octets)
            if refusal:  # against this one or the one before
                answer = Heard(None, refusal)
                continue
            answer = self._await(understand)
            if not answer.silent:
                break
        return answer

    def _await(self, understand: Callable[[bytes], T | None]) -> Heard[T]:
        begun = time.monotonic()
        until = begun + self.timeout
        for _ in range(MAX_DATAGRAMS):
            received = self.receive(until)
            if received is None:
                break
            if isinstance(received, str):
                return Heard(None, received)
            seconds = time.monotonic() - begun
            try:
                understood = understand(received)
            except WireError:
                self.malformed += 1
                continue
            if understood is not None:
                self.round_trip = seconds if self.round_trip is None else max(self.round_trip, seconds)
                return Heard(understood, seconds=seconds)
        return Heard(None)

    def _response(self, question: Message, octets: bytes) -> Message | None:
        """The response to this question; None for what answers another one. Raises `WireError`."""
        try:
            header = Header.decode(octets)
        except UnsupportedVersion as error:
            if error.header.initiator_spi == question.initiator_spi:
                self.other_versions.add(error.header.major_version)
            return None
        if header.initiator_spi != question.initiator_spi or not header.is_response:
            return None
        if header.exchange_type != question.exchange_type or header.message_id != question.message_id:
            return None
        return Message.decode(octets, refuse_critical=False)

    def _refusal(self, error: OSError) -> str:
        said = icmp.words(self._socket, self.remote.host)
        return said or _REFUSALS.get(error.errno or 0, str(error.strerror))

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()


def ready(lines: Iterable[Line], until: float) -> list[Line]:
    """The lines on which something has come in; none of them when the time (`time.monotonic`) is up."""
    found, _, _ = select.select(list(lines), (), (), max(until - time.monotonic(), 0))
    return found


def _no_way(remote: Address, error: OSError) -> HostError | ConfigError:
    if error.errno == errno.EACCES and not remote.is_ipv6:
        # What Linux says to a socket that may not broadcast, which ours never may.
        return ConfigError(
            f"{remote.host} is the broadcast address of a network",
            expected="the address of one host",
            remedy="probe each gateway that you are responsible for by itself; Ikeway does not scan",
        )
    return HostError(f"no route to {remote.host}: {error.strerror}", remedy="check the network connection of this host")

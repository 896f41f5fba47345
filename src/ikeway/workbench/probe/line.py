"""Asking over UDP: one question at a time, at a bounded rate, with the network's refusals heard.

The socket is connected, so that the kernel lets only this peer's datagrams in and reports what ICMP says of ours.
"""

from __future__ import annotations

import errno
import socket
import time
from dataclasses import dataclass

from ikeway.address import Address
from ikeway.errors import HostError, WireError
from ikeway.ike.protection import NON_ESP_MARKER
from ikeway.wire.message import Header, Message

MAX_DATAGRAMS = 64  # looked at for one question: whoever floods us gets no further
_REFUSALS = {
    errno.ECONNREFUSED: "the port is closed (ICMP port unreachable)",
    errno.EHOSTUNREACH: "no way to the host (ICMP host unreachable)",
    errno.ENETUNREACH: "no way to the network (ICMP network unreachable)",
    errno.EACCES: "a firewall forbids it (ICMP administratively prohibited)",
    errno.EPERM: "the firewall of this host forbids it",
    errno.EPROTO: "the network refuses it (ICMP)",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question: a message, or why there is none. `seconds` from the last sending to the answer."""

    message: Message | None
    octets: bytes = b""
    refusal: str = ""  # what ICMP said; empty when nothing came at all
    seconds: float = 0.0

    @property
    def silent(self) -> bool:
        """Nothing came."""
        return self.message is None and not self.refusal


class Pace:
    """Keeps datagrams at least `1 / rate` seconds apart, on all lines together."""

    def __init__(self, rate: float) -> None:
        self._gap = 1 / rate
        self._next = 0.0

    def wait(self) -> None:
        """Sleep until the next datagram may go."""
        now = time.monotonic()
        if self._next > now:
            time.sleep(self._next - now)
        self._next = max(now, self._next) + self._gap


class Line:
    """One UDP port of the gateway. `marked`: IKE has the non-ESP marker in front there (RFC 3948 section 2.2)."""

    def __init__(self, remote: Address, pace: Pace, *, marked: bool, patience: float) -> None:
        """Connect the socket, which sends nothing. Raises `HostError` without a route."""
        self.remote, self.marked = remote, marked
        self._pace, self._patience = pace, patience
        self.round_trip: float | None = None
        self.malformed = 0
        family = socket.AF_INET6 if remote.is_ipv6 else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(tuple(remote))
        except OSError as error:
            self._socket.close()
            raise HostError(
                f"no route to {remote.host}: {error.strerror}", remedy="check the network connection of this host"
            ) from None
        host, port = self._socket.getsockname()[:2]
        self.local = Address(host, port)

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._socket.close()

    @property
    def timeout(self) -> float:
        """Seconds to wait for an answer: several round trips, once one was seen, and what the gateway computes."""
        return self._patience if self.round_trip is None else min(self._patience, 0.3 + 4 * self.round_trip)

    def ask(self, question: Message, tries: int = 2) -> Answer:
        """Send, and wait for the response to it; once more when none comes."""
        answer = Answer(None)
        octets = question.encode()
        for _ in range(tries):
            refusal = self.send(octets)
            if not refusal:
                answer = self._await(question.initiator_spi)
                refusal = answer.refusal
            if answer.message is not None:
                return answer
            if refusal:
                answer = Answer(None, refusal=refusal)
        return answer

    def send(self, octets: bytes) -> str:
        """Send an IKE message; returns what the network says against it."""
        self._pace.wait()
        try:
            self._socket.send(NON_ESP_MARKER + octets if self.marked else octets)
        except OSError as error:
            return _REFUSALS.get(error.errno or 0, str(error.strerror))
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
                return _REFUSALS.get(error.errno or 0, str(error.strerror))
            if not self.marked:
                return octets
            if octets[:4] == NON_ESP_MARKER:
                return octets[4:]
        return None

    def _await(self, initiator_spi: bytes) -> Answer:
        begun = time.monotonic()
        until = begun + self.timeout
        for _ in range(MAX_DATAGRAMS):
            received = self.receive(until)
            if received is None:
                break
            if isinstance(received, str):
                return Answer(None, refusal=received)
            seconds = time.monotonic() - begun
            try:
                header = Header.decode(received)
                if header.initiator_spi != initiator_spi or not header.is_response:
                    continue
                message = Message.decode(received, refuse_critical=False)
            except WireError:
                self.malformed += 1
                continue
            self.round_trip = seconds if self.round_trip is None else max(self.round_trip, seconds)
            return Answer(message, received, seconds=seconds)
        return Answer(None)

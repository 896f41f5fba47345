"""Traffic generators, one a process: `python generators.py ROLE ARGUMENTS...`. They need nothing but Python.

A sink prints `ready` when it listens, and in the end what it has got; a source prints what it has sent.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable

WARM_UP = 0.5  # seconds of a TCP transfer that do not count
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_BURST = 64  # datagrams between two looks at the clock
_ICMP = struct.Struct("!BBHHH")
_IPV4_HEADER, _ECHO_REQUEST, _ECHO_REPLY = 20, 8, 0


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def tcp_sink(host: str, port: str, seconds: str, flows: str) -> None:
    """Take so many flows; print the megabits that arrive in a second, after the warm-up."""
    listener = socket.create_server((host, int(port)), family=_family(host))
    listener.settimeout(10)
    print("ready", flush=True)
    accepted = [listener.accept()[0] for _ in range(int(flows))]
    room, now = bytearray(1 << 20), time.monotonic
    poll = select.epoll()
    for flow in accepted:
        poll.register(flow.fileno(), select.EPOLLIN)
    by_fd = {flow.fileno(): flow for flow in accepted}
    start, octets = now() + WARM_UP, 0
    while (at := now()) < start + float(seconds):
        ready = poll.poll(10)
        if not ready:
            break
        for fd, _ in ready:
            count = by_fd[fd].recv_into(room)
            if at >= start:
                octets += count
    print(octets * 8 / (now() - start) / 1e6)


def tcp_source(host: str, port: str, flows: str) -> None:
    """Send on so many flows until the other side hangs up."""

    def send() -> None:
        load = bytes(1 << 18)
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 10) as flow:
            flow.settimeout(10)
            while True:
                flow.sendall(load)

    for _ in range(int(flows)):
        threading.Thread(target=send).start()


def udp_sink(host: str, port: str) -> None:
    """Count datagrams until none has come for a second."""
    sock = socket.socket(_family(host), socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
    sock.bind((host, int(port)))
    sock.settimeout(10)
    print("ready", flush=True)
    room, count, receive = bytearray(65536), 0, sock.recv_into
    with contextlib.suppress(TimeoutError):
        receive(room)
        count = 1
        sock.settimeout(1)
        while True:
            receive(room)
            count += 1
    print(count)


def udp_source(host: str, port: str, octets: str, rate: str, seconds: str) -> None:
    """Send datagrams with so many octets, `rate` a second (0: as fast as it goes). Prints how many, in how long."""
    sock = socket.socket(_family(host), socket.SOCK_DGRAM)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 4 << 20)
    sock.connect((host, int(port)))
    load, sent, send, now, wanted = bytes(int(octets)), 0, sock.send, time.monotonic, float(rate)
    start = now()
    end = start + float(seconds)
    while now() < end:
        due = int((now() - start) * wanted) if wanted else sent + _BURST
        if due <= sent:
            time.sleep(0.0002)
        for _ in range(min(due - sent, _BURST)):
            send(load)
            sent += 1
    print(sent, now() - start)


def ping(host: str, seconds: str, interval: str) -> None:
    """Send ICMP echo requests; print the round trips in milliseconds, and how many were sent before them."""
    identifier, body = os.getpid() & 0xFFFF, bytes(48)
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    sock.connect((host, 0))
    trips, sent, end = [], 0, time.monotonic() + float(seconds)
    while time.monotonic() < end:
        begun = time.monotonic()
        sock.send(_echo(identifier, sent & 0xFFFF, body))
        if _answered(sock, identifier, sent & 0xFFFF):
            trips.append((time.monotonic() - begun) * 1000)
        sent += 1
        time.sleep(max(begun + float(interval) - time.monotonic(), 0))
    print(sent, *trips)


def _answered(sock: socket.socket, identifier: int, number: int) -> bool:
    """Wait for the answer to this request, at most a second."""
    end = time.monotonic() + 1
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            packet = sock.recv(2048)
        except TimeoutError:
            return False
        kind, _, _, whose, which = _ICMP.unpack_from(packet, _IPV4_HEADER)
        if (kind, whose, which) == (_ECHO_REPLY, identifier, number):
            return True
    return False


def _echo(identifier: int, number: int, body: bytes) -> bytes:
    words = struct.unpack(
        f"!{(_ICMP.size + len(body)) // 2}H", _ICMP.pack(_ECHO_REQUEST, 0, 0, identifier, number) + body
    )
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return _ICMP.pack(_ECHO_REQUEST, 0, ~total & 0xFFFF, identifier, number) + body


ROLES: dict[str, Callable[..., None]] = {
    "tcp-sink": tcp_sink,
    "tcp-source": tcp_source,
    "udp-sink": udp_sink,
    "udp-source": udp_source,
    "ping": ping,
}

if __name__ == "__main__":
    ROLES[sys.argv[1]](*sys.argv[2:])

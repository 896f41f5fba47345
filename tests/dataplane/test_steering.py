"""Packets reach the worker whose number their SPI has: the programs on real sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.address import Address
from ikeway.dataplane.userspace.sockets import open_udp
from ikeway.dataplane.userspace.steering import MOST_WORKERS, open_group, open_raw, spi_mask, worker_of
from ikeway.errors import HostError
from tests.dataplane.namespaces import inside, ip

REST = struct.pack("!I", 1) + bytes(40)


def takers(sockets: Sequence[socket.socket]) -> list[int]:
    """Which of them have got a datagram."""
    found = []
    for number, each in enumerate(sockets):
        with contextlib.suppress(BlockingIOError):
            each.recv(2048)
            found.append(number)
    return found


def flows(host: str, count: int) -> list[socket.socket]:
    """Senders with other ports each: a group without a program would tell them apart by that."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return [socket.socket(family, socket.SOCK_DGRAM) for _ in range(count)]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("workers", [2, 3, 4, MOST_WORKERS])
def test_udp_is_steered_by_the_spi_and_ike_goes_to_the_daemon(host: str, workers: int) -> None:
    with contextlib.ExitStack() as stack:
        members = [stack.enter_context(each) for each in open_group(Address(host, 0), workers)]
        assert len(members) == workers + 1
        there = members[0].getsockname()[:2]
        for sender in (stack.enter_context(each) for each in flows(host, 8)):
            for number in range(spi_mask(workers) + 1):
                spi = 0xABCD0000 + number
                sender.sendto(struct.pack("!I", spi) + REST, there)
                assert takers(members) == [worker_of(spi, workers)]
            sender.sendto(bytes(4) + REST, there)
            assert takers(members) == [workers]
            sender.sendto(b"\xff", there)
            assert takers(members) == [0]


def test_nobody_else_may_have_the_port() -> None:
    with open_udp(Address("127.0.0.1", 0)) as other, pytest.raises(HostError, match="cannot listen"):
        open_group(Address(*other.getsockname()), 2)
    members = open_group(Address("127.0.0.1", 0), 2)
    with pytest.raises(HostError, match="cannot listen"):  # not even another gateway of ours
        open_group(Address(*members[0].getsockname()), 2)
    for each in members:
        each.close()


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"ikesteer-{os.getpid()}"
    ip("netns", "add", name)
    ip("link", "set", "lo", "up", namespace=name)
    yield name
    ip("netns", "del", name)


@pytest.mark.root
@pytest.mark.parametrize(("host", "options"), [("127.0.0.1", b""), ("127.0.0.1", b"\x01" * 8), ("::1", b"")])
def test_raw_esp_is_filtered_by_the_spi(namespace: str, host: str, options: bytes) -> None:
    """An IPv4 header may be longer than usual."""
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(each) for each in inside(namespace, lambda: open_raw(host, 3))]
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sender = stack.enter_context(inside(namespace, lambda: socket.socket(family, socket.SOCK_RAW, 50)))
        if options:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, options)
        for spi in range(0x1000, 0x1010):
            sender.sendto(struct.pack("!I", spi) + REST, (host, 0))
            assert takers(workers) == ([] if spi & 3 == 3 else [spi & 3])


@given(st.integers(1, MOST_WORKERS), st.integers(256, 0xFFFFFFFF))
def test_every_spi_has_a_worker(workers: int, spi: int) -> None:
    assert 0 <= worker_of(spi, workers) < workers
    for number in range(workers):
        assert worker_of(spi & ~spi_mask(workers) | number, workers) == number

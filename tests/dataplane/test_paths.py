"""Sending where an earlier packet's error (an ICMP message) waits on the socket: it must not cost the packet at hand."""

from __future__ import annotations

import errno

import pytest

from ikeway.address import Address
from ikeway.dataplane.userspace.paths import CANNOT_SEGMENT, OuterSocket, Path, Paths
from ikeway.esp.parameters import Encapsulation


class Socket:
    """Takes packets, after an error or more."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.sent: list[bytes] = []

    def sendmsg(self, frames, ancillary, flags, destination) -> int:
        if self.errors:
            raise OSError(self.errors.pop(0), "earlier")
        self.sent += map(bytes, frames)
        return 0


HERE, THERE = Address("192.0.2.1", 4500), Address("192.0.2.2", 4500)


def outer(sock: Socket) -> OuterSocket:
    return OuterSocket(sock, ipv6=False, raw_esp=False, host=HERE.host, port=HERE.port)  # type: ignore[arg-type]


def path(sock: Socket) -> Path:
    return Path(outer(sock), HERE, THERE)


@pytest.mark.parametrize("code", sorted({*CANNOT_SEGMENT, errno.ECONNREFUSED, errno.EHOSTUNREACH}))
def test_an_earlier_error_costs_nothing(code: int) -> None:
    sock = Socket(code)
    assert path(sock).send([b"one"], 0, 1.0) == (0, None)
    assert sock.sent == [b"one"]


def test_an_earlier_error_does_not_stop_segmentation() -> None:
    sock = Socket(errno.EMSGSIZE)
    way = path(sock)
    assert way.send([b"one", b"two"], 0, 1.0) == (0, None)
    assert way.merge_from == 0
    assert sock.sent == [b"one", b"two"]


def test_an_error_of_its_own_does() -> None:
    sock = Socket(errno.EMSGSIZE, errno.EMSGSIZE)
    way = path(sock)
    assert way.send([b"one", b"two"], 0, 1.0) == (0, None)
    assert way.merge_from > 1.0
    assert sock.sent == [b"one", b"two"]


def test_what_icmp_tells_is_news_only_where_it_changes_something() -> None:
    """Anybody can send it, as often as he likes; for news all that is known of flows is thrown away."""
    paths = Paths([outer(Socket())])
    known = paths.find(HERE, THERE, Encapsulation.UDP)
    assert not paths.learn_mtu("192.0.2.99", 1300, 1.0)
    assert not paths.learn_mtu(THERE.host, 68, 1.0)
    assert paths.learn_mtu(THERE.host, 1300, 1.0)
    assert not paths.learn_mtu(THERE.host, 1300, 500.0)
    assert known.room(1000.0) == 1300 - 28  # it is remembered from the last message on
    assert paths.learn_mtu(THERE.host, 1200, 1.0)

"""Queues of the kernel that overflow, counted by the kernel."""

from __future__ import annotations

import contextlib
import socket
from ipaddress import ip_interface

import pytest

from ikeway.daemon.overflow import device_overflow, socket_overflow
from ikeway.host.linux.links import add_address, set_link
from ikeway.host.linux.netlink import Netlink
from ikeway.host.namespaces import Namespace
from ikeway.host.tun import open_tun


def test_a_socket_that_nobody_reads() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out,
    ):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.bind(("127.0.0.1", 0))
        assert socket_overflow([sock]) == 0
        for _ in range(100):
            out.sendto(bytes(1000), sock.getsockname())
        sock.setblocking(False)
        waiting = 0
        with pytest.raises(BlockingIOError):
            while sock.recv(2000):
                waiting += 1
        assert socket_overflow([sock, out]) == 100 - waiting
        with sock.dup() as other:  # of the same socket
            assert socket_overflow([other]) == 100 - waiting
    assert socket_overflow([sock]) == 0  # closed


@pytest.mark.root
def test_a_device_that_nobody_reads() -> None:
    def overflow() -> tuple[int, int]:
        tun = open_tun("ikeway%d")
        try:
            with Netlink() as nl:
                set_link(nl, tun.name, up=True)
                add_address(nl, tun.name, ip_interface("10.1.1.1/24"), prefix_route=True)
            before = device_overflow([tun.name])
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
                for _ in range(20_000):
                    with contextlib.suppress(BlockingIOError):
                        out.sendto(b"x", ("10.1.1.2", 9))
            return before, device_overflow([tun.name])
        finally:
            tun.close()

    with Namespace("overflow") as namespace:
        before, after = namespace.call(overflow)
    assert before == 0
    assert after > 10_000  # its queue holds 2,000
    assert device_overflow(["no such device"]) == 0

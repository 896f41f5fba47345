"""Packets that overflowed queues of the kernel on their way to a worker that does not keep up: it never sees them."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

_SO_MEMINFO = 55  # Linux 4.12
_MEMINFO = struct.Struct("=9I")
_DROPS = 8
_DEVICES = Path("/proc/thread-self/net/dev")  # of the network namespace that we are in
_TX_DROPPED = 11


def socket_overflow(sockets: Iterable[socket.socket]) -> int:
    """Datagrams that found the receive queues of these sockets full."""
    total = 0
    for sock in sockets:
        with contextlib.suppress(OSError, struct.error):
            total += _MEMINFO.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[_DROPS]
    return total


def device_overflow(interfaces: Iterable[str]) -> int:
    """Packets that found the queues of these TUN devices full. Of devices in another namespace nothing is known."""
    wanted, total = set(interfaces), 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in _DEVICES.read_text().splitlines():
            name, _, fields = line.partition(":")
            if name.strip() in wanted:
                total += int(fields.split()[_TX_DROPPED])
    return total

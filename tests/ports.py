"""Ports for programs that have to be told one."""

from __future__ import annotations

import itertools
import os
import socket

_FIRST, _COUNT = 20_000, 12_000  # below those that Linux gives to who asks for any (net.ipv4.ip_local_port_range)

# Tests run in several processes, which begin at different places.
_numbers = itertools.count(os.getpid() * 97)


def unused_port(kind: socket.SocketKind = socket.SOCK_DGRAM) -> int:
    """A port of the loopback that nobody has, and that nobody is given meanwhile."""
    for number in itertools.islice(_numbers, _COUNT):
        port = _FIRST + number % _COUNT
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("all ports are taken")

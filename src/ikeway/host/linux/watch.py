"""Hearing of changes of the network (rtnetlink's multicast groups) and of the machine's return from sleep."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable

from ikeway.host.interface import ChangeKind, NetworkChanged
from ikeway.host.linux import netlink
from ikeway.host.linux.netlink import NETLINK_ROUTE, decode_attributes, split_messages
from ikeway.host.linux.routes import PROTOCOL

_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # links, IPv4 and IPv6 addresses, IPv4 and IPv6 routes
_QUIET = 0.3  # seconds without a change that end a burst
_LONGEST_BURST = 2.0
_SLEEP_CHECK = 5.0
_SHORTEST_SLEEP = 2.0

_RTM_F_CLONED = 0x200  # an entry of the route cache, e.g. a learned path MTU
_RTA_OIF = 4
_TABLE_LOCAL = 255
_KINDS = {
    netlink.RTM_NEWLINK: ChangeKind.LINKS,
    netlink.RTM_DELLINK: ChangeKind.LINKS,
    netlink.RTM_NEWADDR: ChangeKind.ADDRESSES,
    netlink.RTM_DELADDR: ChangeKind.ADDRESSES,
    netlink.RTM_NEWROUTE: ChangeKind.ROUTES,
    netlink.RTM_DELROUTE: ChangeKind.ROUTES,
}
_EVERYTHING = frozenset({ChangeKind.LINKS, ChangeKind.ADDRESSES, ChangeKind.ROUTES})


async def watch_network(is_own_interface: Callable[[int], bool]) -> AsyncIterator[NetworkChanged]:
    """Yield changes until the iterator is closed. What concerns interfaces of ours alone is left out."""
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_ROUTE
    ) as groups:
        groups.bind((0, _GROUPS))
        slept = _slept()
        while True:
            kinds = await _burst(groups, is_own_interface)
            pause, slept = _slept() - slept, _slept()
            if pause >= _SHORTEST_SLEEP:
                yield NetworkChanged(kinds | {ChangeKind.RESUMED}, pause)
            elif kinds:
                yield NetworkChanged(kinds)


async def _burst(groups: socket.socket, is_own_interface: Callable[[int], bool]) -> frozenset[ChangeKind]:
    """Wait for changes that belong together; an empty set when it is time to look whether we have slept."""
    loop = asyncio.get_running_loop()
    kinds: frozenset[ChangeKind] = frozenset()
    deadline = None
    while True:
        now = loop.time()
        wait = _SLEEP_CHECK if deadline is None else min(_QUIET, deadline - now)
        if wait <= 0:
            return kinds
        try:
            async with asyncio.timeout(wait):
                await _readable(groups)
        except TimeoutError:
            return kinds
        kinds |= _read(groups, is_own_interface)
        if kinds and deadline is None:
            deadline = now + _LONGEST_BURST


async def _readable(groups: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(groups, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(groups)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _read(groups: socket.socket, is_own_interface: Callable[[int], bool]) -> frozenset[ChangeKind]:
    kinds = set()
    is_own_interface = functools.cache(is_own_interface)  # a router may tell of thousands of routes at once
    with contextlib.suppress(BlockingIOError):
        while True:
            try:
                octets = groups.recv(1 << 16)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                return _EVERYTHING  # more than the socket could hold: something is lost
            for kind, _, _, body in split_messages(octets):
                if kind in _KINDS and _matters(kind, body, is_own_interface):
                    kinds.add(_KINDS[kind])
    return frozenset(kinds)


def _matters(kind: int, body: bytes, is_own_interface: Callable[[int], bool]) -> bool:
    if kind in (netlink.RTM_NEWROUTE, netlink.RTM_DELROUTE):
        _, _, _, _, table, protocol, _, _, flags = struct.unpack_from("=BBBBBBBBI", body)
        if protocol == PROTOCOL or table == _TABLE_LOCAL or flags & _RTM_F_CLONED:
            return False
        index = int.from_bytes(decode_attributes(body[12:]).get(_RTA_OIF, b""), "little")
    elif kind in (netlink.RTM_NEWADDR, netlink.RTM_DELADDR):
        (index,) = struct.unpack_from("=I", body, 4)
    else:
        (index,) = struct.unpack_from("=i", body, 4)
    return not is_own_interface(index)


def _slept() -> float:
    """Seconds that the machine has been suspended since boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)

"""Least privilege: once sockets and devices are open, a daemon keeps only what undoing its work needs.

- CAP_NET_ADMIN stays: addresses, routes, name servers and firewall rules are changed while a connection lives (MOBIKE,
  a restarted data plane) and undone at its end.
- CAP_KILL stays: the data plane's worker is another user, and one that hangs has to be ended.
- CAP_NET_RAW stays only where ESP travels as IP protocol 50, for a restarted data plane.
- Everything else goes, for good and for all children: the bounding set is emptied too, and no program that is started
  later can gain rights (no_new_privs). Files are then reached as their owner only, root's own included.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import resource
from collections.abc import Iterable

CAP_KILL = 5
CAP_NET_ADMIN = 12
CAP_NET_RAW = 13

_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 24, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63

log = logging.getLogger("ikeway.daemon")


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def capabilities() -> frozenset[int]:
    """What this process may use at the moment, by number."""
    libc = ctypes.CDLL(None, use_errno=True)
    held = (_Sets * 2)()
    if libc.capget(ctypes.byref(_Header(_CAPABILITY_VERSION_3, 0)), ctypes.byref(held)):
        return frozenset()
    bits = held[0].effective | held[1].effective << 32
    return frozenset(number for number in range(_LAST_CAPABILITY + 1) if bits >> number & 1)


def keep_what_a_daemon_needs(*, esp_protocol: bool) -> frozenset[int]:
    """Give up the rest. `esp_protocol`: ESP may travel as IP protocol 50. Returns what is left."""
    return keep_only([CAP_KILL, CAP_NET_ADMIN, *([CAP_NET_RAW] if esp_protocol else [])])


def keep_only(wanted: Iterable[int]) -> frozenset[int]:
    """Give up every capability but `wanted` (those that we have of them), for good. Returns what is left.

    Also keeps keys out of core dumps. What the kernel refuses is logged: a daemon with more rights than it needs
    still works.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    kept = capabilities().intersection(wanted)
    for number in range(_LAST_CAPABILITY + 1):
        if number not in kept:
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # refused without CAP_SETPCAP, and for numbers not in use
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    bits = sum(1 << number for number in kept)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    sets = (_Sets * 2)(_Sets(low, low, 0), _Sets(high, high, 0))
    if libc.capset(ctypes.byref(_Header(_CAPABILITY_VERSION_3, 0)), ctypes.byref(sets)):
        log.warning("Capabilities could not be given up: %s", os.strerror(ctypes.get_errno()))
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return capabilities()

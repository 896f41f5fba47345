"""Sending sealed frames by the native core: many datagrams with one system call, equal ones cut by the kernel."""

from __future__ import annotations

import errno
import select
import socket
from ctypes import byref

from ikeway.dataplane.userspace.paths import CANNOT_SEGMENT, FULL, SEND_PATIENCE_MS, UNMERGED_SECONDS, Path
from ikeway.dataplane.userspace.sockets import is_unspecified
from ikeway.esp.drops import Drop
from ikeway.native import Core
from ikeway.native.layout import SendJob


def prepare(job: SendJob, path: Path) -> None:
    """Let a job go this way."""
    outer = path.outer
    family = socket.AF_INET6 if outer.ipv6 else socket.AF_INET
    job.fd, job.ipv6 = outer.sock.fileno(), outer.ipv6
    job.port = 0 if outer.raw_esp else path.remote.port
    remote = socket.inet_pton(family, path.remote.host)
    job.remote[: len(remote)] = [*remote]
    if not is_unspecified(path.local.host):
        local = socket.inet_pton(family, path.local.host)
        job.source_given = 1
        job.local[: len(local)] = [*local]


def merges(path: Path, now: float) -> bool:
    """Whether the kernel cuts runs of equal length."""
    return not path.outer.raw_esp and now >= path.merge_from


def finish(core: Core, job: SendJob, path: Path, code: int, now: float) -> tuple[int, Drop | None]:
    """Go on after a send that ended with this errno. (How many frames failed, why), as `Path.send`."""
    failed, reason, retried = 0, None, -1
    while code:
        if retried != job.next:  # first of all it may be an earlier packet's error (an ICMP message), or a full buffer
            retried = job.next
            if code == errno.EAGAIN:
                poll = select.poll()
                poll.register(job.fd, select.POLLOUT)
                poll.poll(SEND_PATIENCE_MS)
        elif code in CANNOT_SEGMENT and job.run > 1:
            path.merge_from = now + UNMERGED_SECONDS
        else:
            failed += job.run
            reason = Drop.SEND_BUFFER if code in FULL else Drop.SEND_FAILED
            job.next += job.run
        job.merge = merges(path, now)
        code = core.ikw_send(byref(job))
    return failed, reason

"""Sending sealed frames by the native core: many datagrams with one system call, equal ones cut by the kernel."""

from __future__ import annotations

import errno
import select
import socket
from ctypes import byref
from weakref import WeakKeyDictionary

from ikeway.dataplane.userspace.paths import CANNOT_SEGMENT, FULL, SEND_PATIENCE_MS, UNMERGED_SECONDS, Path
from ikeway.dataplane.userspace.sockets import is_unspecified
from ikeway.esp.drops import Drop
from ikeway.native import Core
from ikeway.native.layout import SendJob


class FrameSender:
    """Sends frames that lie in one buffer. `octets` and `frames` are the addresses of both."""

    def __init__(self, core: Core, octets: int, frames: int) -> None:
        self._core = core
        self._octets = octets
        self._frames = frames
        self._jobs: WeakKeyDictionary[Path, SendJob] = WeakKeyDictionary()

    def send(self, path: Path, count: int, now: float) -> tuple[int, Drop | None]:
        """Send the first `count` frames. (How many failed, why), as `Path.send`."""
        job = self._jobs.get(path)
        if job is None:
            job = self._jobs[path] = self._new_job(path)
        job.count, job.next = count, 0
        failed, reason, retried = 0, None, -1
        while True:
            job.merge = not path.outer.raw_esp and now >= path.merge_from
            code = self._core.ikw_send(byref(job))
            if not code:
                return failed, reason
            if code in CANNOT_SEGMENT and job.run > 1:
                path.merge_from = now + UNMERGED_SECONDS
            elif retried != job.next and code not in CANNOT_SEGMENT:  # an earlier packet's error, or a full buffer
                retried = job.next
                if code == errno.EAGAIN:
                    poll = select.poll()
                    poll.register(job.fd, select.POLLOUT)
                    poll.poll(SEND_PATIENCE_MS)
            else:
                failed += job.run
                reason = Drop.SEND_BUFFER if code in FULL else Drop.SEND_FAILED
                job.next += job.run

    def _new_job(self, path: Path) -> SendJob:
        outer = path.outer
        family = socket.AF_INET6 if outer.ipv6 else socket.AF_INET
        job = SendJob(frames_octets=self._octets, frames=self._frames, fd=outer.sock.fileno(), ipv6=outer.ipv6)
        job.port = 0 if outer.raw_esp else path.remote.port
        remote = socket.inet_pton(family, path.remote.host)
        job.remote[: len(remote)] = [*remote]
        if not is_unspecified(path.local.host):
            local = socket.inet_pton(family, path.local.host)
            job.source_given = 1
            job.local[: len(local)] = [*local]
        return job

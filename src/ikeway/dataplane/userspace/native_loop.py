"""The core's own loop: while nothing needs Python, packets do not wait for it."""

from __future__ import annotations

import select
from collections.abc import Sequence
from ctypes import addressof, byref

from ikeway.dataplane.userspace.native_in import NativeIncoming
from ikeway.dataplane.userspace.native_out import NativeOutgoing
from ikeway.dataplane.userspace.paths import OuterSocket
from ikeway.native import Core
from ikeway.native.layout import LOOP_IN, LOOP_OTHER, LOOP_OUT, MOST_SOCKETS, LoopJob


class NativeLoop:
    """Both directions. `epoll` has the TUN device, the sockets, and whatever else is waited for."""

    def __init__(
        self,
        core: Core,
        outgoing: NativeOutgoing,
        incoming: NativeIncoming,
        sockets: Sequence[OuterSocket],
        epoll: select.epoll,
    ) -> None:
        self._core = core
        self._outgoing, self._incoming = outgoing, incoming
        self._sockets = tuple(sockets[:MOST_SOCKETS])  # those beyond are read when the loop has ended for them
        jobs = [incoming.job(outer) for outer in self._sockets]
        self._job = LoopJob(out=addressof(outgoing.job), in_count=len(jobs), epoll_fd=epoll.fileno())
        for number, job in enumerate(jobs):
            self._job.in_[number] = addressof(job)
        self._reference = byref(self._job)

    def begin(self) -> None:
        """Once Python has had its say: SAs may have come or gone."""
        self._outgoing.begin()
        self._incoming.begin()

    def wait(self) -> int:
        """Forward packets until something needs Python. Settle then, and `go_on`."""
        return self._core.ikw_loop(self._reference)

    def settle(self, now: float) -> None:
        """Take over what was counted."""
        self._outgoing.settle(now)
        self._incoming.settle(now)

    def go_on(self, reason: int, now: float) -> bool:
        """See to what the loop has ended for; False when that is not a matter of packets. Raises `HostError` when the
        TUN device is gone, `OSError` for an error of the path."""
        if reason == LOOP_OUT:
            self._outgoing.go_on(self._job.attention, now)
        elif reason == LOOP_IN:
            self._incoming.go_on(self._sockets[self._job.number], self._job.attention, now)
        return reason != LOOP_OTHER

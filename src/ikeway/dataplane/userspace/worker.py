"""The worker process: an epoll loop over the control socket, the TUN device and the outer sockets.

Started by `launch` as `python -m ikeway.dataplane.userspace.worker FD`; its device and sockets come with the first
message. It ends when the control socket closes, so it never outlives the daemon, however that ends. Within one turn
control messages come before packets: an SA that the daemon has added is there before its first packet is looked at.

It may die at any moment and be started again: `ledger` has what the next one must know of the SAs.
"""

from __future__ import annotations

import errno
import gc
import select
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import replace
from typing import NoReturn

from ikeway import native
from ikeway.dataplane.interface import HardExpired, SoftExpired, Unreachable
from ikeway.dataplane.userspace.associations import Associations, Receiving, Sending
from ikeway.dataplane.userspace.incoming import Incoming
from ikeway.dataplane.userspace.ledger import Ledger
from ikeway.dataplane.userspace.messages import (
    AddInbound,
    AddOutbound,
    Begin,
    Configure,
    CounterEntry,
    CounterPage,
    Done,
    DropCount,
    Failed,
    LearnMtu,
    Message,
    Move,
    PathNarrowed,
    ReadCounters,
    RemoveInbound,
    RemoveOutbound,
    Reply,
    SetMtu,
    WorkerEvent,
    decode,
    encode,
)
from ikeway.dataplane.userspace.native_in import NativeIncoming
from ikeway.dataplane.userspace.native_loop import NativeLoop
from ikeway.dataplane.userspace.native_out import NativeOutgoing
from ikeway.dataplane.userspace.outgoing import Outgoing
from ikeway.dataplane.userspace.paths import OuterSocket, Paths, inherited
from ikeway.dataplane.userspace.privileges import drop_privileges
from ikeway.dataplane.userspace.sockets import accept_merged, path_errors
from ikeway.dataplane.userspace.tun_io import TunIo
from ikeway.errors import HostError, IkewayError

_LARGEST_MESSAGE = 1 << 18
_MOST_WAITING = 512  # messages for a daemon that does not read; events beyond are dropped, replies never
_ENTRIES_A_PAGE = 256
_HINTS_A_SECOND = 10

# The exit code of a worker that says why it cannot work: starting it again as it is would lead to the same.
REFUSED = 3

_MOST_DESCRIPTORS = 250  # Linux passes 253 at once

_READABLE = select.EPOLLIN | select.EPOLLERR | select.EPOLLHUP


class DaemonGone(Exception):
    """The control socket was closed."""


class Control:
    """The worker's end of the socket pair."""

    def __init__(self, sock: socket.socket, epoll: select.epoll) -> None:
        self._sock = sock
        self._epoll = epoll
        self._waiting: deque[bytes] = deque()
        self._held_up = False
        sock.setblocking(False)
        epoll.register(sock.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        """The descriptor."""
        return self._sock.fileno()

    def receive(self) -> Message | None:
        """The next message; None when there is none. Raises `DaemonGone`."""
        try:
            octets = self._sock.recv(_LARGEST_MESSAGE)
        except BlockingIOError:
            return None
        except OSError as error:
            raise DaemonGone from error
        if not octets:
            raise DaemonGone
        return decode(octets)

    def receive_first(self) -> tuple[Message, list[int]]:
        """The first message, and the descriptors that come with it. Raises `DaemonGone`."""
        octets, descriptors, _, _ = socket.recv_fds(self._sock, _LARGEST_MESSAGE, _MOST_DESCRIPTORS)
        if not octets:
            raise DaemonGone
        return decode(octets), descriptors

    def emit(self, event: WorkerEvent) -> bool:
        """Send an event; False when too many wait already."""
        if len(self._waiting) >= _MOST_WAITING:
            return False
        self._send(encode(event))
        return True

    def reply(self, reply: Reply) -> None:
        """Send an answer, however many wait."""
        self._send(encode(reply))

    def _send(self, octets: bytes) -> None:
        self._waiting.append(octets)
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the daemon reads."""
        try:
            while self._waiting:
                self._sock.send(self._waiting[0])
                self._waiting.popleft()
        except BlockingIOError:
            pass
        except OSError as error:
            raise DaemonGone from error
        if bool(self._waiting) is not self._held_up:
            self._held_up = bool(self._waiting)
            self._epoll.modify(self.fileno(), select.EPOLLIN | (select.EPOLLOUT if self._held_up else 0))


class Worker:
    """The process's state: everything is touched by the one loop only."""

    def __init__(self, control: socket.socket) -> None:
        self._epoll = select.epoll()
        self._control = Control(control, self._epoll)
        configure = self._first_message()
        self._hints_second = self._hints_told = 0
        self._ledger = Ledger(configure.ledger_fd)
        self._sockets = {role.fd: inherited(role.fd, role.ipv6, role.raw_esp) for role in configure.sockets}
        self._paths = Paths(list(self._sockets.values()))
        self._associations = Associations(self._paths)
        unclaimed = self._associations.unclaimed
        self._tun = TunIo(configure.tun_fd, configure.vnet_header, unclaimed[True], unclaimed[False])
        self._outgoing, self._incoming, self._native = self._both_ways()
        self._outgoing.mtu = self._incoming.mtu = configure.mtu
        self._outgoing.clamp = self._incoming.clamp = configure.clamp_mss
        for outer in self._sockets.values():
            if not outer.raw_esp:
                accept_merged(outer.sock)
        if not drop_privileges():
            raise HostError("the data plane could not give up its capabilities")
        self._control.reply(Done(configure.request))

    def _both_ways(self) -> tuple[Outgoing, Incoming, NativeLoop | None]:
        """By the native core where it is there."""
        known, tun = self._associations, self._tun
        outgoing, incoming = (known, tun, self._check_outbound), (known, tun, self._control.emit, self._catch_up)
        library = native.core()
        if library is None:
            return Outgoing(*outgoing), Incoming(*incoming, self._check_inbound), None

        def ledger_of(user: Sending | Receiving) -> int:
            return self._ledger.address(user.slot)

        there = NativeOutgoing(library, *outgoing, ledger_of)
        back = NativeIncoming(library, *incoming, self._check_inbound, ledger_of)
        return there, back, NativeLoop(library, there, back, list(self._sockets.values()), self._epoll)

    def _first_message(self) -> Configure:
        self._epoll.poll()
        message, descriptors = self._control.receive_first()
        if not isinstance(message, Configure) or len(descriptors) != 2 + len(message.sockets):
            raise HostError("the data plane was not told what to do", got=type(message).__name__)
        # The numbers in the message are the daemon's; the descriptors have come in the same order.
        tun, ledger, *rest = descriptors
        sockets = tuple(replace(role, fd=fd) for role, fd in zip(message.sockets, rest, strict=True))
        return replace(message, tun_fd=tun, ledger_fd=ledger, sockets=sockets)

    def run(self) -> NoReturn:
        """Carry packets until the daemon is gone."""
        tun_fd, control_fd = self._tun.fileno(), self._control.fileno()
        while True:
            ready = self._forward(self._native) if self._native is not None else self._epoll.poll()
            if any(fd == control_fd for fd, _ in ready):
                self._drain_control()
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            for fd, flags in ready:
                if fd == control_fd:
                    if flags & select.EPOLLOUT:
                        self._control.flush()
                elif fd == tun_fd:
                    self._outgoing.turn(now)
                else:
                    self._read_socket(self._sockets[fd], flags, now)

    def _forward(self, loop: NativeLoop) -> list[tuple[int, int]]:
        """Let the native core carry packets until something else is ready, and say what."""
        while True:
            loop.begin()
            reason = loop.wait()
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            try:
                only_packets = loop.go_on(reason, now)
            except OSError:  # an ICMP error of an earlier packet; the error queue has the details
                only_packets = False
            loop.settle(now)
            if not only_packets:
                return self._epoll.poll(0)

    def _read_socket(self, outer: OuterSocket, flags: int, now: float) -> None:
        if flags & select.EPOLLERR:
            for error in path_errors(outer.sock):
                if error.code == errno.EMSGSIZE:
                    self._learn_mtu(error.remote.host, error.mtu, now)
                    self._tell(PathNarrowed(error.remote.host, error.mtu), now)
                elif not outer.raw_esp:
                    # IKE that this socket carried may have met a closed port: who connects wants to know.
                    self._tell(Unreachable(error.remote, error.code), now)
        try:
            self._incoming.receive(outer, now)
        except OSError:  # an ICMP error of an earlier packet; the error queue has the details
            return

    def _learn_mtu(self, host: str, mtu: int, now: float) -> None:
        """Strangers' messages that tell nothing new do not make us forget which flow goes where."""
        if self._paths.learn_mtu(host, mtu, now):
            self._associations.generation += 1

    def _tell(self, hint: Unreachable | PathNarrowed, now: float) -> None:
        """Hand on what ICMP said. Strangers can send it at will."""
        if int(now) != self._hints_second:
            self._hints_second, self._hints_told = int(now), 0
        if self._hints_told < _HINTS_A_SECOND:
            self._hints_told += 1
            self._control.emit(hint)

    def _catch_up(self) -> None:
        """In the middle of a batch: SAs may come and go, and what was sent so far is to be counted before."""
        if self._native is not None:
            self._native.settle(time.clock_gettime(time.CLOCK_BOOTTIME))
        self._drain_control()

    def _drain_control(self) -> None:
        while (message := self._control.receive()) is not None:
            try:
                self._obey(message)
            except (IkewayError, ValueError) as error:
                remedy = error.remedy if isinstance(error, IkewayError) else ""
                reason = error.reason if isinstance(error, IkewayError) else str(error)
                self._control.reply(Failed(getattr(message, "request", 0), reason, remedy))

    def _obey(self, message: Message) -> None:
        match message:
            case AddInbound():
                self._associations.add_inbound(message.sa, message.past)
            case AddOutbound():
                sending = self._associations.add_outbound(message.sa, message.past)
                sending.mark = self._ledger.read(sending.slot).mark
            case Begin():
                gc.freeze()
                for fd in (self._tun.fileno(), *self._sockets):
                    self._epoll.register(fd, _READABLE)
            case RemoveInbound():
                self._associations.remove_inbound(message.spi)
            case RemoveOutbound():
                self._associations.remove_outbound(message.spi, message.remote)
            case Move():
                self._associations.move(message.connection_id, message.local, message.remote, message.udp)
            case SetMtu():
                self._outgoing.mtu = self._incoming.mtu = message.mtu
            case LearnMtu():
                self._learn_mtu(message.host, message.mtu, time.clock_gettime(time.CLOCK_BOOTTIME))
            case ReadCounters():
                self._send_counters(message.request)
                return
            case _:
                raise HostError(f"the data plane takes no {type(message).__name__}")
        self._control.reply(Done(message.request))

    def _send_counters(self, request: int) -> None:
        entries = [
            CounterEntry(
                spi,
                inbound,
                usage.packets,
                usage.octets,
                usage.last_used,
                tuple(DropCount(reason, count) for reason, count in usage.dropped.items()),
            )
            for spi, inbound, usage in self._associations.usages()
        ]
        for at in range(0, len(entries), _ENTRIES_A_PAGE):
            last = at + _ENTRIES_A_PAGE >= len(entries)
            self._control.reply(CounterPage(request, last, tuple(entries[at : at + _ENTRIES_A_PAGE])))

    def _check_outbound(self, sending: Sending) -> None:
        """After each batch of an SA."""
        sa = sending.sa
        sending.mark = self._ledger.ahead(sending.slot, sending.mark, sa.sequence, sa.usage)
        self._check(sending, sa.parameters.spi, False)

    def _check_inbound(self, receiving: Receiving) -> None:
        """After each batch of an SA has been opened, and before the host gets it."""
        sa = receiving.sa
        self._ledger.seen(receiving.slot, sa.window.highest, sa.usage)
        self._check(receiving, sa.parameters.spi, True)

    def _check(self, user: Sending | Receiving, spi: int, inbound: bool) -> None:
        """Tell the daemon once about each limit that was reached."""
        if user.sa.soft_due and not user.told_soft:
            user.told_soft = self._control.emit(SoftExpired(spi, inbound))
        if user.sa.hard_due and not user.told_hard:
            user.told_hard = self._control.emit(HardExpired(spi, inbound))


def main(arguments: list[str]) -> int:
    """Run on the control socket whose descriptor is the only argument."""
    # A terminal sends these to its whole group, systemd to the whole unit: the daemon decides.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=int(arguments[0]))
    try:
        # SAs are made of thousands of objects that stay for hours: looking through them all would hold up packets.
        gc.set_threshold(10_000, 50, 1000)
        Worker(control).run()
    except DaemonGone:
        return 0
    except IkewayError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the daemon reads it
        return REFUSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

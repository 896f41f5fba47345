"""The keeper: the process inside an enclave. See `ikeway.client.enclave` for what it is there for.

Either it is forked off by `ikeway run`, which then is the engine's parent and the command's (`Front`), or an engine
starts it as `python -m ikeway.client.enclave.keeper FD`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import signal
import socket
import sys
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network

from ikeway.client.enclave import commands, resolver
from ikeway.client.enclave.messages import (
    Configure,
    Done,
    Ended,
    Entered,
    Failed,
    MakeSocket,
    Message,
    OpenResolver,
    OpenTun,
    Request,
    Signal,
    Start,
    receive,
    send,
)
from ikeway.client.enclave.signals import Arrived, SignalQueue
from ikeway.errors import HostError
from ikeway.host.linux.enclave import Furniture, Inside
from ikeway.host.tun import open_tun
from ikeway.host.userns import may_make_namespaces

_QUEUED = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH,
    signal.SIGTSTP, signal.SIGCONT, signal.SIGCHLD,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Front:
    """What a keeper that a shell has started knows: the engine, which is its child, and the command."""

    engine: int
    words: tuple[str, ...]
    user: pwd.struct_passwd | None = None


class Keeper:
    """See the module. One thread; `run` returns when the engine has gone."""

    def __init__(self, control: socket.socket, front: Front | None = None) -> None:
        self._control = control
        self._front = front
        self._furniture = Furniture()
        self._signals = SignalQueue(_QUEUED)
        self._running: set[int] = set()  # commands
        self._main = 0  # the command that signals are passed on to
        self._resolvers: set[int] = set()
        self._code: int | None = None  # of the main command
        self._engine_status: int | None = None

    def run(self) -> int:
        """Go inside, serve the engine to its end, and return an exit code: the command's, or the engine's."""
        try:
            commands.become_subreaper()
            self._enter()
            self._serve()
        finally:
            self._control.close()
            commands.end_descendants(self._spared())
        engine = self._wait_for_engine()
        if self._code is not None:
            return self._code
        return engine or int(self._main > 0)

    def _enter(self) -> None:
        """What is refused is the engine's to tell."""
        try:
            self._furniture.enter(rootless=not may_make_namespaces())
        except HostError as error:
            self._send(Failed.of(0, error))
        except OSError as error:
            place = error.filename2 or error.filename
            where = f" ({place})" if place else ""
            self._send(Failed.of(0, HostError(f"the enclave cannot be furnished: {error.strerror}{where}")))
        else:
            commands.keep_out_of_core_dumps()
            self._send(Entered(self._furniture.has_resolv_conf))

    def _serve(self) -> None:
        poll = select.poll()
        for each in (self._control, self._signals):
            poll.register(each.fileno(), select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._signals.fileno() in ready:
                for arrived in self._signals.take():
                    self._on_signal(arrived)
            if self._control.fileno() in ready:
                received = receive(self._control)
                if received is None:
                    break
                self._on_request(*received)
        if self._main and self._code is None:
            print("ikeway run: the connection has ended, and the command is ended with it", file=sys.stderr)  # noqa: T201

    # -- the engine's wishes

    def _on_request(self, message: Message, descriptors: tuple[int, ...]) -> None:
        assert isinstance(message, Request)
        try:
            self._obey(message, descriptors)
        except (HostError, OSError) as error:
            self._send(Failed.of(message.number, error))
        finally:
            for fd in descriptors:
                os.close(fd)

    def _obey(self, request: Request, descriptors: tuple[int, ...]) -> None:
        match request:
            case OpenTun(number=number, name=name):
                self._furniture.forget_device()
                device = open_tun(name)
                self._send(Done(number, device.name), device.fd)
                device.close()
            case Configure(number=number):
                self._furniture.apply(_inside(request))
                self._send(Done(number))
            case MakeSocket(number=number):
                with _make_socket(request) as made:
                    self._send(Done(number), made.fileno())
            case OpenResolver(number=number):
                pid, ours = resolver.start(self._control)
                self._resolvers.add(pid)
                with ours:
                    self._send(Done(number), ours.fileno())
            case Start(number=number):
                self._send(Done(number, str(self._start(request, descriptors))))
            case Signal(number=number, pid=pid, signal=which):
                if pid in self._running:
                    os.kill(pid, which)
                self._send(Done(number))
            case _:
                raise HostError(f"a keeper takes no {type(request).__name__}")

    def _start(self, request: Start, descriptors: tuple[int, ...]) -> int:
        environment = dict(each.split("=", 1) for each in request.environment) or None
        words, user = request.words, None
        if self._front is not None and not words:
            words, user = self._front.words, self._front.user
        pid = commands.start(
            words, user=user, directory=request.directory, environment=environment, standard=descriptors
        )
        self._running.add(pid)
        if self._front is not None and not request.words:
            self._main = pid
            _let_go_of_standard_streams()
        return pid

    # -- signals and children

    def _on_signal(self, arrived: Arrived) -> None:
        """The terminal's signals come from the kernel, which has sent them to the command as well."""
        if arrived.signal == signal.SIGCHLD:
            self._reap()
        elif self._front is None:
            return
        elif not self._main:
            if arrived.from_process and arrived.signal not in (signal.SIGWINCH, signal.SIGCONT):
                self._pass_on(self._front.engine, arrived.signal)
            elif arrived.signal == signal.SIGTSTP:
                os.kill(os.getpid(), signal.SIGSTOP)
        elif arrived.from_process or arrived.signal == signal.SIGCONT:
            self._pass_on(self._main, arrived.signal)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if not pid:
                return
            if os.WIFSTOPPED(status):
                self._on_stopped(pid)
            elif self._front is not None and pid == self._front.engine:
                self._engine_status = status
            elif pid in self._running:
                self._on_ended(pid, commands.exit_code(status))
            self._resolvers.discard(pid)

    def _on_stopped(self, pid: int) -> None:
        """Stop as well, so that the shell sees it; when it lets us go on, the command does too."""
        if pid == self._main:
            os.kill(os.getpid(), signal.SIGSTOP)
            self._pass_on(self._main, signal.SIGCONT)

    def _on_ended(self, pid: int, code: int) -> None:
        self._running.discard(pid)
        if pid == self._main:
            self._code = code
            commands.end_descendants(self._spared())
        self._send(Ended(pid, code))

    def _spared(self) -> set[int]:
        """Who is not ended with the command."""
        return {self._front.engine, *self._resolvers} if self._front is not None else set(self._resolvers)

    def _wait_for_engine(self) -> int:
        if self._front is None:
            return 0
        if self._engine_status is None:
            with contextlib.suppress(ChildProcessError):
                _, self._engine_status = os.waitpid(self._front.engine, 0)
        return commands.exit_code(self._engine_status or 0)

    def _send(self, message: Message, *descriptors: int) -> None:
        """An engine that has gone is noticed when its next request does not come."""
        with contextlib.suppress(ConnectionError):
            send(self._control, message, descriptors)

    @staticmethod
    def _pass_on(pid: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _inside(request: Configure) -> Inside:
    return Inside(
        interface=request.interface,
        mtu=request.mtu,
        addresses=tuple(map(ip_interface, request.addresses)),
        routes=tuple(map(ip_network, request.routes)),
        refused=tuple(map(ip_network, request.refused)),
        dns_servers=tuple(map(ip_address, request.dns_servers)),
        search_domains=request.search_domains,
    )


def _make_socket(request: MakeSocket) -> socket.socket:
    family = socket.AF_INET6 if request.ipv6 else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM if request.datagrams else socket.SOCK_STREAM)
    try:
        if request.ipv6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if request.host:
            if request.backlog:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((request.host, request.port))
        if request.backlog:
            made.listen(request.backlog)
    except BaseException:
        made.close()
        raise
    return made


def _let_go_of_standard_streams() -> None:
    """They are the command's: whoever reads its output is to see the end of it when the command ends."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(nothing, fd)
    os.close(nothing)


def main(arguments: list[str]) -> int:
    """Serve the engine on the control socket whose descriptor is the only argument."""
    return Keeper(socket.socket(fileno=int(arguments[0]))).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

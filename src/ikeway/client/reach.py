"""Reaching a gateway: every address that its name has, until one of them answers.

The first one is given a head start; when it stays silent the next one is tried beside it, as RFC 8305 does for TCP.
The first that answers is taken, and the others are given up before they can ask for a password. IKE may not trust
ICMP (RFC 7296 section 2.4), so an "unreachable" counts only when it comes again for a retransmission.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from ikeway.address import Address
from ikeway.daemon.loop import Driver
from ikeway.daemon.threads import in_thread
from ikeway.errors import Closed, HostError, PeerUnreachable, Side
from ikeway.ike import events as ike
from ikeway.ike.settings import Connection

if TYPE_CHECKING:
    from ikeway.ike.engine import Engine
    from ikeway.ike.sa import IkeSa

HEAD_START = 2.0  # seconds
_BELIEVED_AFTER = 2  # reports that an address is unreachable
_RESOLVE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Path:
    """Where to connect from and to."""

    local: Address
    remote: Address


@dataclass(slots=True)
class _Try:
    path: Path
    unreachable: int = 0
    code: int = 0
    refusing: Address | None = None  # what ICMP was about, after an answer had come


@dataclass(slots=True)
class Outcome:
    """What became of the addresses that did not answer, for the error message."""

    failures: dict[Address, str] = field(default_factory=dict)

    def error(self, name: str) -> PeerUnreachable:
        """The error that says all of it."""
        tried = "; ".join(f"{remote}: {what}" for remote, what in self.failures.items())
        ports = sorted({remote.port for remote in self.failures})
        return PeerUnreachable(
            f"the gateway {name} cannot be reached (tried {tried or 'nothing'})",
            expected="an answer to IKE_SA_INIT",
            got="none",
            side=Side.NETWORK,
            remedy="see whether the address is right, the gateway runs, and UDP port "
            f"{' and '.join(map(str, ports)) or '500'} is open all the way",
        )


async def resolve(remote: Address) -> list[Address]:
    """Every address of a host name, in the order of preference (RFC 6724). Raises PeerUnreachable."""
    try:
        async with asyncio.timeout(_RESOLVE_SECONDS):
            found = await in_thread(partial(socket.getaddrinfo, remote.host, remote.port, type=socket.SOCK_DGRAM))
    except TimeoutError:
        reason = f"no name server answered within {_RESOLVE_SECONDS:.0f} s"
    except socket.gaierror as error:
        reason = str(error.strerror)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
    else:
        hosts = [str(each[4][0]).partition("%")[0] for each in found]
        return [Address(host, remote.port) for host in dict.fromkeys(hosts)]
    raise PeerUnreachable(
        f"the gateway's name {remote.host} leads to no address: {reason}",
        remedy="see whether the name is right and this host is on the network",
    )


class Reach:
    """One try to establish an IKE SA over one of several paths."""

    def __init__(
        self,
        driver: Driver,
        engine: Engine,
        connection: Connection,
        paths: Sequence[Path],
        outcome: Outcome,
        *,
        name: str,
        on_begin: Callable[[Path], None] = lambda path: None,
    ) -> None:
        """`outcome` may hold failures already: addresses to which there is no path at all."""
        self._driver = driver
        self._engine = engine
        self._connection = connection
        self._waiting = deque(paths)
        self._outcome = outcome
        self._name = name
        self._on_begin = on_begin
        self._tries: dict[IkeSa, _Try] = {}
        self._answered: IkeSa | None = None
        self._established: asyncio.Future[IkeSa] = asyncio.get_running_loop().create_future()
        self._head_start: asyncio.TimerHandle | None = None

    async def establish(self) -> IkeSa:
        """The SA, once both sides are authenticated. Raises what it failed with; leaves nothing behind then."""
        stop_listening = self._driver.listen(self._on_event)
        try:
            self._begin_next()
            return await self._established
        finally:
            stop_listening()
            if self._head_start:
                self._head_start.cancel()
            if not self._succeeded:
                self._give_up_all()

    @property
    def _succeeded(self) -> bool:
        done = self._established
        return done.done() and not done.cancelled() and done.exception() is None

    def on_unreachable(self, remote: Address, code: int) -> None:
        """The network says that nothing at `remote` can be reached."""
        for sa, attempt in list(self._tries.items()):
            if sa is self._answered:  # somebody is there, maybe not at the port that the conversation has moved to
                if attempt.path.remote.host == remote.host:
                    attempt.refusing, attempt.code = remote, code
            elif attempt.path.remote == remote:
                attempt.unreachable += 1
                attempt.code = code
                if attempt.unreachable >= _BELIEVED_AFTER:
                    self._driver.command(sa.close)

    def _begin_next(self) -> None:
        if self._established.done() or self._answered is not None:
            return
        if not self._waiting:
            if not self._tries:
                self._established.set_exception(self._outcome.error(self._name))
            return
        path = self._waiting.popleft()
        self._on_begin(path)
        try:
            sa = self._driver.command(lambda now: self._engine.connect(self._connection, path.local, path.remote, now))
        except HostError as error:
            self._outcome.failures[path.remote] = error.reason
            self._begin_next()
            return
        self._tries[sa] = _Try(path)
        if self._waiting:
            self._head_start = asyncio.get_running_loop().call_later(HEAD_START, self._begin_next)

    def _on_event(self, event: ike.Event) -> None:
        match event:
            case ike.MessageReceived(sa=sa) if sa in self._tries and self._answered is None:
                assert sa is not None
                self._answered = sa
                for other in [each for each in self._tries if each is not sa]:
                    del self._tries[other]
                    self._driver.command(other.close)
            case ike.IkeEstablished(sa=sa) if sa is self._answered and not self._established.done():
                self._established.set_result(sa)
            case ike.IkeClosed(sa=sa, error=error) if sa in self._tries:
                self._on_closed(sa, error)

    def _on_closed(self, sa: IkeSa, error: BaseException | None) -> None:
        attempt = self._tries.pop(sa)
        if self._established.done():
            return
        if sa is self._answered:
            error = error or Closed("the connection was closed")
            if isinstance(error, PeerUnreachable) and attempt.refusing is not None:
                error.got = f"{attempt.refusing}: {_network_said(attempt.code)}"
            self._established.set_exception(error)
            return
        if attempt.unreachable:
            self._outcome.failures[attempt.path.remote] = _network_said(attempt.code)
        else:
            self._outcome.failures[attempt.path.remote] = "no answer"
        if self._head_start:
            self._head_start.cancel()
        self._begin_next()

    def _give_up_all(self) -> None:
        for sa in list(self._tries):
            self._driver.command(sa.close)
        self._tries.clear()


def _network_said(code: int) -> str:
    """An errno of the network in words."""
    if code == errno.ECONNREFUSED:
        return "refused (ICMP says that nothing listens there)"
    return os.strerror(code).lower()

"""`Client`: a connection to one gateway that is kept up.

Theory of operation. A client has one engine for its whole life and at most one connection (`Link`) in it. What happens
to the connection comes in as events; what takes time is done by tasks that end with the client:

- `_keep` waits for the end of the connection and makes a new one, with growing pauses, until it is told to stop or the
  gateway refuses us for good;
- `_watch` hears of changes of the network and of sleep, and moves the connection (MOBIKE) or drops it, for `_keep`;
- `_adapt` makes the host follow what was agreed, each time that something in it has changed.

The host's settings stay while the client reconnects: what is to go through the tunnel must not leave beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import logging
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ikeway
from ikeway.address import Address
from ikeway.client import reach
from ikeway.client.answers import attach
from ikeway.client.assigned import Assigned
from ikeway.client.attachment import Attachment
from ikeway.client.card import ClientCard
from ikeway.client.enclave.network import EnclaveNetwork
from ikeway.client.link import Link
from ikeway.client.profile import Profile
from ikeway.client.roaming import Roaming
from ikeway.client.secrets import ClientSecrets
from ikeway.client.tunnel import inside
from ikeway.config.secrets import Prompt
from ikeway.daemon import clock
from ikeway.daemon.privileges import keep_what_a_daemon_needs
from ikeway.daemon.runner import Runner, RunnerSettings, local_path
from ikeway.daemon.sockets import IKE_PORT, NAT_PORT, Listen
from ikeway.daemon.status import Status, drops, session_status
from ikeway.dataplane.interface import DataPlaneDied
from ikeway.errors import AuthenticationFailed, Closed, ConfigError, HostError, IkewayError, PeerUnreachable
from ikeway.host import (
    HostNetwork,
    TunnelConfiguration,
    check_rights,
    open_host_network,
    recover_stale,
)
from ikeway.ike import events as ike

if TYPE_CHECKING:
    from ikeway.client.enclave.enclave import Enclave
    from ikeway.dataplane.userspace.launch import Launched
    from ikeway.ike.sa import IkeSa

log = logging.getLogger("ikeway.client")

_STOP_SECONDS = 10.0  # for undoing what was done to the host
_FIRST_PAUSE = 1.0  # before connecting again; doubled each time
_HOPELESS_SECONDS = 600.0  # a second worker that is given up within this time ends the client
_REFUSALS = 3  # log-ins refused in a row that make us give up reconnecting: more may lock the account


class ClientState(enum.Enum):
    """What a client is at."""

    CONNECTING = "connecting"
    UP = "up"
    WAITING = "waiting"  # to connect again
    CLOSING = "closing"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Progress:
    """One step, for people. `step` is a fixed word, `text` says what happened."""

    step: str
    text: str


Tell = Callable[[Progress], None]
Observe = Callable[[Runner], None]


class Client:
    """A connection to one gateway that is kept up. `start` it, then `wait` for its end or `close` it."""

    def __init__(
        self,
        profile: Profile,
        *,
        prompt: Prompt | None = None,
        tell: Tell = lambda progress: None,
        observers: Sequence[Observe] = (),
        drop_privileges: bool = False,
        enclave: Enclave | None = None,
        launched: Launched | None = None,
    ) -> None:
        """`prompt` asks a person for secrets (blocking; in a thread). `observers` get the `Runner` when it is there, to
        trace what it does. `drop_privileges` gives up, for this whole process, what is not needed once it is up.
        `enclave` is where the tunnel's inner side is to be, in place of this host. `launched` is a worker that was
        started ahead."""
        self.profile = profile if enclave is None else dataclasses.replace(profile, host=inside(profile.host))
        self.state = ClientState.CONNECTING
        self.error: IkewayError | None = None  # why it is not up
        self.runner = Runner(
            RunnerSettings(
                listen=Listen(fallback=True),
                interface=profile.host.interface or "ikeway%d",
                esp_protocol=not profile.connection().force_udp_encapsulation,
                data_plane=profile.host.data_plane,
            ),
            open_device=enclave.open_tun if enclave is not None else None,
            launched=launched,
        )
        self._enclave = enclave
        self._connection = profile.connection()
        if enclave is not None:  # another one of the same profile may run, and they would push each other out for ever
            self._connection = dataclasses.replace(self._connection, initial_contact=False)
        self._secrets = ClientSecrets(profile, prompt)
        self._card = ClientCard(profile)
        self._tell = tell
        self._observers = tuple(observers)
        self._drop_privileges = drop_privileges
        self._gateways: list[Address] = []
        self._attachment: Attachment | None = None
        self._link: Link | None = None
        self._reach: reach.Reach | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()  # something that the host has to follow
        self._wake = asyncio.Event()  # do not wait longer before connecting again
        self._ended = asyncio.Event()
        self._failure: IkewayError | None = None  # why it ended by itself
        self._started = clock.now()
        self._dataplane_died = False
        self._given_up: float | None = None  # when a worker was, that died again and again
        self._hopeless: HostError | None = None  # no other try makes sense
        self._closing: asyncio.Task[None] | None = None

    # -- for the user

    @property
    def link(self) -> Link | None:
        """The connection of now; None while there is none."""
        return self._link if self._link is not None and not self._link.ended.is_set() else None

    @property
    def assigned(self) -> Assigned:
        """What the gateway assigned: addresses, name servers, domains, networks."""
        return self._link.assigned if self._link is not None else Assigned()

    @property
    def interface(self) -> str:
        """The tunnel interface."""
        return self.runner.interface

    @property
    def inside(self) -> Enclave:
        """The namespace that the tunnel stands in, when it has one of its own."""
        assert self._enclave is not None, "the tunnel is this host's"
        return self._enclave

    @property
    def configuration(self) -> TunnelConfiguration | None:
        """What was done to this host; None before."""
        return self._attachment.configuration if self._attachment is not None else None

    async def start(self) -> None:
        """Connect, and make the host use the tunnel. Raises the error of the first try; nothing is left then."""
        if self._enclave is not None and self.profile.host.data_plane == "kernel":
            self._report("warning", "ESP is carried in userspace: the kernel's is for a tunnel of this host itself")
        try:
            self._attachment = Attachment(self.profile, self.runner, await self._network())
            await self.runner.start()
            if not self.runner.carries_esp_protocol:
                self._connection = dataclasses.replace(self._connection, force_udp_encapsulation=True)
            self._set_up_driver()
            await self._connect()
            await self._follow()
            if self._drop_privileges:
                keep_what_a_daemon_needs(esp_protocol=self.runner.carries_esp_protocol)
        except BaseException:
            await self.close()
            raise
        for work in (self._keep(), self._watch(), self._adapt()):
            task = asyncio.create_task(work)
            task.add_done_callback(self._on_task_done)
            self._tasks.append(task)

    async def wait(self) -> None:
        """Wait until the client has ended. Raises why, when that was not our wish."""
        await self._ended.wait()
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        """Delete the SAs, undo what was done to the host, and end. Takes a bounded time; idempotent."""
        await asyncio.shield(self._begin_to_close())

    async def status(self) -> Status:
        """All that there is to tell."""
        now, link, configuration = clock.now(), self.link, self.configuration
        sessions = []
        counters = await self.runner.counters() if self.runner.is_started else {}
        if link is not None:
            addresses = [each.ip for each in link.assigned.addresses]
            session = session_status(link.sa, counters, now, addresses=addresses)
            sessions.append(dataclasses.replace(session, age=now - link.since))
        return Status(
            role="client",
            name=self.profile.name,
            state=self.state.value,
            version=ikeway.__version__,
            pid=os.getpid(),
            uptime=now - self._started,
            interface=self.interface if self.runner.is_started else "",
            mtu=configuration.mtu if configuration else 0,
            routes=tuple(map(str, configuration.routes)) if configuration else (),
            dns=tuple(map(str, configuration.dns_servers)) if configuration else (),
            domains=configuration.search_domains if configuration else (),
            sessions=tuple(sessions),
            workers=self.runner.worker_states(),
            counters=self.runner.totals() if self.runner.is_started else {},
            dropped=drops(counters),
            error=str(self.error) if self.error is not None else "",
        )

    def reconnect(self) -> None:
        """Do not wait any longer before the next try."""
        self._wake.set()

    # -- connecting

    async def _network(self) -> HostNetwork:
        """What is to look as agreed: this host, or an enclave that leaves it alone."""
        if self._enclave is not None:
            return EnclaveNetwork(self._enclave)
        check_rights(tun=True)
        for each in await recover_stale():
            log.warning("Cleaned up after a client or gateway that was killed: %s", "; ".join(each.undone))
        return open_host_network()

    def _set_up_driver(self) -> None:
        driver = self.runner.driver
        driver.listen(self._on_event)
        driver.on_refused_sa = self._on_refused_sa
        attach(driver, self._secrets, self._card)
        self.runner.sockets.on_unreachable = self._on_unreachable
        self.runner.on_dataplane_died = self._on_dataplane_died
        for observe in self._observers:
            observe(self.runner)

    async def _connect(self) -> None:
        """One try, over all addresses of the gateway. Raises what it failed with."""
        self.state = ClientState.CONNECTING
        self._report("resolve", f"looking for {self.profile.remote.host}")
        await self._find_gateways()
        outcome = reach.Outcome()
        self._reach = reach.Reach(
            self.runner.driver,
            self.runner.engine,
            self._connection,
            self._paths(outcome),
            outcome,
            name=self.profile.remote.host,
            on_begin=lambda path: self._report("connect", f"from {path.local} to {path.remote}"),
        )
        try:
            sa = await self._reach.establish()
        finally:
            self._reach = None
        link = self._link
        if link is None or not link.owns(sa):
            raise Closed("the connection was closed at once")
        await link.wait_for_children([each.name for each in self._connection.children])
        if self._dataplane_died:  # before there was this link to be dropped with it
            error = HostError("the data plane died during the log-in", remedy="it is started again; see the log")
            link.drop(error)
            raise error
        self.state, self.error = ClientState.UP, None
        self._changed.set()

    async def _find_gateways(self) -> None:
        assert self._attachment is not None
        try:
            self._gateways = await reach.resolve(self.profile.remote)
        except PeerUnreachable as error:
            # The name server may be behind the very tunnel that is broken.
            if not self._gateways:
                raise
            log.info("%s; the addresses of last time are tried", error.reason)
        await self._attachment.allow(self._gateways)

    def _paths(self, outcome: reach.Outcome) -> list[reach.Path]:
        """A path to each address that can be reached from here."""
        assert self._attachment is not None
        found = []
        for remote in self._gateways:
            local = self._attachment.local_address(remote)
            wanted = self.profile.local_address
            if local is not None and wanted is not None and not self._attachment.has_address(wanted):
                outcome.failures[remote] = f"this host does not have `local_address` {wanted}"
                continue
            if local is None:
                outcome.failures[remote] = "no route to it"
                continue
            try:
                found += [reach.Path(local_path(self.runner, local, each), each) for each in self._ports(local, remote)]
            except HostError as error:
                outcome.failures[remote] = error.reason
        return found

    def _ports(self, local: str, remote: Address) -> list[Address]:
        """Without a port 500 of our own, the gateway's 4500 is tried first (RFC 7296 section 2.23 allows it): packet
        filters that know IKE by 500 on both sides exist, while 4500 has to be open from any port, for NAT."""
        if remote.port != IKE_PORT or self.runner.sockets.local_port(local, nat=False) == IKE_PORT:
            return [remote]
        return [remote._replace(port=NAT_PORT), remote]

    # -- what happens

    def _on_event(self, event: ike.Event) -> None:
        match event:
            case ike.PeerSeen(what=what):
                self._report("peer", what)
            case ike.MessageSent(message=message, remote=remote, retransmission=count) if count:
                what = message.exchange_type.name
                self._report("retransmit", f"no answer from {remote} yet: {what} is sent again ({count})")
            case ike.IkeEstablished(sa=sa) if self._is_new(sa):
                self._report("established", f"the gateway is {sa.remote_identity}")
                self._link = Link(self.runner.driver, sa, self._report, self._changed.set)
                return
        if self._link is not None:
            self._link.on_event(event)

    def _is_new(self, sa: IkeSa) -> bool:
        return self._reach is not None and (self._link is None or self._link.ended.is_set()) and sa.is_initiator

    def _on_refused_sa(self, event: ike.Event, error: HostError) -> None:
        """The data plane cannot carry an SA: without it the connection is worth nothing. One that it is slow to remove
        does no harm."""
        carries = isinstance(event, ike.InboundAdded | ike.OutboundAdded | ike.PathChanged)
        if carries and self._link is not None and not self._dataplane_died:
            self._link.drop(error)

    def _on_unreachable(self, remote: Address, code: int) -> None:
        if self._reach is not None:
            self._reach.on_unreachable(remote, code)

    def _on_dataplane_died(self, died: DataPlaneDied) -> None:
        self._dataplane_died = True
        self._report("dataplane", f"the data plane died: {died.reason}")
        if died.repeatedly:
            now, before = clock.now(), self._given_up
            self._given_up = now
            if before is not None and now - before < _HOPELESS_SECONDS:
                self._hopeless = HostError(
                    f"the data plane dies again and again: {died.reason}",
                    remedy="see the log for what it said, and report it; IKEWAY_NATIVE=0 goes without the native core",
                )
        if self._link is not None:
            self._link.drop(HostError(f"the data plane died: {died.reason}", remedy="it is started again; see the log"))
        self._wake.set()

    # -- staying connected

    async def _keep(self) -> None:
        """Connect again whenever the connection ends."""
        try:
            while True:
                assert self._link is not None
                await self._link.ended.wait()
                error = self._link.error or Closed("the connection was closed")
                self.error = error
                if not self.profile.session.reconnect:
                    raise error
                self._report("lost", str(error))
                await self._reconnect()
        except IkewayError as error:
            self.error = self._failure = error
            self._begin_to_close()

    async def _reconnect(self) -> None:
        """Try until it works. Raises what makes further tries useless."""
        pause, refusals = _FIRST_PAUSE, 0
        while True:
            if self._hopeless is not None:
                raise self._hopeless
            try:
                if self._dataplane_died:
                    await self._restart_dataplane()
                if self._link is not None:  # one that came up and was dropped again: there is one at a time
                    await self._link.ended.wait()
                await self._connect()
            except ConfigError:
                raise
            except IkewayError as error:
                refusals = refusals + 1 if isinstance(error, AuthenticationFailed) else 0
                if refusals >= _REFUSALS:
                    raise
                self.error = error
            else:
                return
            self.state = ClientState.WAITING
            self._report("retry", f"{self.error}; next try in {pause:.0f} s")
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause * random.uniform(0.8, 1.2)):  # noqa: S311 - spreads many clients
                    await self._wake.wait()
            pause = min(pause * 2, max(self.profile.session.retry_limit, _FIRST_PAUSE))

    async def _restart_dataplane(self) -> None:
        assert self._attachment is not None
        if await self.runner.restart_dataplane():
            await self._attachment.device_replaced()
        self._dataplane_died = False

    async def _watch(self) -> None:
        """Follow changes of the network."""
        assert self._attachment is not None
        roaming = Roaming(self._attachment, self.runner, self._report)
        async for change in self._attachment.watch():
            self._wake.set()
            try:
                await self._attachment.refresh()
            except HostError as error:
                log.warning("The host could not be set up anew after a change of the network: %s", error)
            if (link := self.link) is not None and link.sa.is_alive:
                await roaming.follow(link, change, self._gateways)

    # -- the host

    async def _adapt(self) -> None:
        """Make the host follow what was agreed."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._follow()
            except HostError as error:
                log.error("The host could not be set up: %s", error)
                if self._link is not None:
                    self._link.drop(error)

    async def _follow(self) -> None:
        if self._link is None or not self._link.is_up or self.state is not ClientState.UP:
            return
        assert self._attachment is not None
        if changed := await self._attachment.follow(self._link):
            shown = ", ".join(map(str, changed.routes)) or "nothing"
            self._report("up", f"{self.interface} carries {shown} (MTU {changed.mtu})")

    # -- the end

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        """A client without one of its tasks only seems to work."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("The client failed; this is a defect of Ikeway", exc_info=error)
        self.error = self._failure = HostError(f"the client failed: {type(error).__name__}: {error}")
        self._begin_to_close()

    def _begin_to_close(self) -> asyncio.Task[None]:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        return self._closing

    async def _close(self) -> None:
        self.state = ClientState.CLOSING
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            if self._link is not None:
                await self._link.close()
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_SECONDS):
                    if self._attachment is not None:
                        await self._attachment.close()
            await self.runner.stop()
            self._secrets.forget()
            self.state = ClientState.CLOSED
            self._ended.set()

    def _report(self, step: str, text: str) -> None:
        self._tell(Progress(step, text))

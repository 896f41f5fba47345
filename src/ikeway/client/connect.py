"""`connect`: a tunnel to a gateway, as an async context manager, that stays up.

Theory of operation. A `Client` has one engine for its whole life and at most one connection (`_sa`) in it. What
happens to the connection comes in as events; what takes time is done by tasks that end with the client:

- `_keep` waits for the end of the connection and makes a new one, with growing pauses, until it is told to stop or the
  gateway refuses us for good;
- `_watch` hears of changes of the network and of sleep, and moves the connection (MOBIKE) or makes it anew;
- `_adapt` makes the host look like what was agreed, each time that something in it has changed.

The host's settings stay while the client reconnects: what is to go through the tunnel must not leave beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import collapse_addresses
from pathlib import Path
from typing import TYPE_CHECKING

from ikeway.address import Address
from ikeway.auth.questions import PskQuestion
from ikeway.client import reach
from ikeway.client.assigned import Assigned, read_assigned
from ikeway.client.profile import Profile, load_profile
from ikeway.client.secrets import ClientSecrets
from ikeway.client.tunnel import Agreed, tunnel_configuration
from ikeway.config.secrets import Prompt
from ikeway.daemon import clock
from ikeway.daemon.privileges import CAP_NET_ADMIN, CAP_NET_RAW, keep_only
from ikeway.daemon.runner import Runner, RunnerSettings, local_path
from ikeway.daemon.sockets import Listen
from ikeway.eap.questions import PasswordQuestion
from ikeway.errors import (
    AuthenticationFailed,
    Closed,
    ConfigError,
    HostError,
    IkewayError,
    NegotiationFailed,
    PeerUnreachable,
)
from ikeway.host import (
    ChangeKind,
    HostNetwork,
    IpNetwork,
    NetworkChanged,
    TunnelConfiguration,
    check_rights,
    open_host_network,
    recover_stale,
)
from ikeway.ike import events as ike
from ikeway.ike.selectors import networks

if TYPE_CHECKING:
    from ikeway.ike.child import ChildSa
    from ikeway.ike.sa import IkeSa

log = logging.getLogger("ikeway.client")

_CHILDREN_SECONDS = 60.0  # for the child SAs after the log-in
_CLOSE_SECONDS = 3.0  # for the gateway's answer to our delete
_STOP_SECONDS = 10.0  # for everything else at the end
_FIRST_PAUSE = 1.0  # before connecting again; doubled each time
_NO_NETWORK_SECONDS = 5.0  # without a path to the gateway's address, until its other addresses are tried
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
    """One step, for people. `step` is a short fixed word, `text` says what happened."""

    step: str
    text: str


Tell = Callable[[Progress], None]
Observe = Callable[[Runner], None]


@dataclass(slots=True)
class _Connected:
    """What belongs to the connection of now."""

    sa: IkeSa
    since: float
    assigned: Assigned = field(default_factory=Assigned)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    error: IkewayError | None = None
    settled: dict[str, IkewayError | None] = field(default_factory=dict)  # child SAs by name: up, or why not


class Client:
    """A connection to one gateway that is kept up. `start`, then `wait` for its end or `close` it."""

    def __init__(
        self,
        profile: Profile,
        *,
        prompt: Prompt | None = None,
        tell: Tell = lambda progress: None,
        observers: Sequence[Observe] = (),
        drop_privileges: bool = False,
    ) -> None:
        """`prompt` asks a person for secrets (blocking; in a thread). `observers` get the `Runner` when it is there, to
        trace what it does. `drop_privileges` gives up, for this whole process, what is not needed once it is up."""
        self.profile = profile
        self.state = ClientState.CONNECTING
        self.error: IkewayError | None = None  # why it ended by itself
        self.attempts = 0
        self.gateway_addresses: list[Address] = []
        self.configuration: TunnelConfiguration | None = None
        self._connection = profile.connection()
        self._secrets = ClientSecrets(profile, prompt)
        self._tell = tell
        self._observers = tuple(observers)
        self._drop_privileges = drop_privileges
        self._runner = Runner(
            RunnerSettings(
                listen=Listen(fallback=True),
                interface=profile.host.interface or "ikeway%d",
                esp_protocol=not self._connection.force_udp_encapsulation,
            )
        )
        self._host: HostNetwork | None = None
        self._now: _Connected | None = None
        self._reach: reach.Reach | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()  # something that the host has to follow
        self._wake = asyncio.Event()  # do not wait longer before connecting again
        self._ended = asyncio.Event()
        self._dataplane_died = ""
        self._closing: asyncio.Task[None] | None = None

    # -- for the user

    @property
    def runner(self) -> Runner:
        """Sockets, engine and data plane."""
        return self._runner

    @property
    def sa(self) -> IkeSa | None:
        """The IKE SA of now."""
        return self._now.sa if self._now else None

    @property
    def since(self) -> float:
        """When the connection came up, by `ikeway.daemon.clock.now`; 0.0 while it is not."""
        return self._now.since if self._now else 0.0

    @property
    def assigned(self) -> Assigned:
        """What the gateway assigned."""
        return self._now.assigned if self._now else Assigned()

    @property
    def interface(self) -> str:
        """The tunnel interface."""
        return self._runner.interface

    async def start(self) -> None:
        """Connect, and make the host use the tunnel. Raises the error of the first try; nothing is left then."""
        try:
            check_rights(tun=True)
            for each in await recover_stale():
                log.warning("Cleaned up after a client or gateway that was killed: %s", "; ".join(each.undone))
            self._host = open_host_network()
            await self._runner.start()
            self._set_up_driver()
            await self._connect()
            await self._follow()
            if self._drop_privileges:
                raw = [CAP_NET_RAW] if self._runner.settings.esp_protocol else []
                keep_only([CAP_NET_ADMIN, *raw])
        except BaseException as error:
            self.error = error if isinstance(error, IkewayError) else None
            await self.close()
            raise
        for work in (self._keep(), self._watch(), self._adapt()):
            self._tasks.append(asyncio.create_task(work))

    async def wait(self) -> None:
        """Wait until the client has ended. Raises why, when that was not our wish."""
        await self._ended.wait()
        if self.error is not None:
            raise self.error

    async def close(self) -> None:
        """Delete the SAs, undo what was done to the host, and end. Takes a bounded time; idempotent."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    def reconnect(self) -> None:
        """Do not wait any longer before the next try."""
        self._wake.set()

    # -- connecting

    def _set_up_driver(self) -> None:
        driver = self._runner.driver
        driver.listen(self._on_event)
        driver.on_refused_sa = self._on_refused_sa
        driver.answer_with(PasswordQuestion, self._secrets.password)
        driver.answer_with(PskQuestion, lambda question: self._secrets.psk())
        self._runner.sockets.on_unreachable = self._on_unreachable
        self._runner.on_dataplane_died = self._on_dataplane_died
        for observe in self._observers:
            observe(self._runner)

    async def _connect(self) -> None:
        """One try, over all addresses of the gateway. Raises what it failed with."""
        self.state = ClientState.CONNECTING
        self.attempts += 1
        self._report("resolve", f"looking for {self.profile.remote.host}")
        await self._find_addresses()
        outcome = reach.Outcome()
        paths = self._paths(outcome)
        self._reach = reach.Reach(
            self._runner.driver,
            self._runner.engine,
            self._connection,
            paths,
            outcome,
            name=self.profile.remote.host,
            on_begin=lambda path: self._report("connect", f"from {path.local.host} to {path.remote}"),
        )
        try:
            sa = await self._reach.establish()
        finally:
            self._reach = None
        # Between the event and here its child SAs may have come up already; `_on_event` has made `_now`.
        if self._now is None or self._now.sa.connection_id != sa.connection_id:
            raise Closed("the connection was closed at once")
        await self._wait_for_children(self._now)
        self.state = ClientState.UP
        self._changed.set()

    async def _find_addresses(self) -> None:
        try:
            self.gateway_addresses = await reach.resolve(self.profile.remote)
        except PeerUnreachable as error:
            # The name server may be behind the very tunnel that is broken.
            if not self.gateway_addresses:
                raise
            log.info("%s; the addresses of last time are tried", error.reason)
            return
        # While a full tunnel stands, the way to a new address must lead past it.
        if self.configuration is not None and self._host is not None:
            await self._configure(self.configuration)

    def _paths(self, outcome: reach.Outcome) -> list[reach.Path]:
        """A path to each address that can be reached from here."""
        assert self._host is not None
        found = []
        wanted = self.profile.local_address
        for remote in self.gateway_addresses:
            if wanted is not None:
                local = str(wanted) if (wanted.version == 6) == remote.is_ipv6 else None
            else:
                local = self._host.local_address(remote)
            if local is None:
                outcome.failures[remote] = "no route to it"
                continue
            try:
                found.append(reach.Path(local_path(self._runner, local, remote), remote))
            except HostError as error:
                outcome.failures[remote] = error.reason
        return found

    async def _wait_for_children(self, connected: _Connected) -> None:
        """All child SAs are up or refused; at least one must be up. Raises why none is."""
        wanted = [each.name for each in self._connection.children]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CHILDREN_SECONDS):
                while not connected.ended.is_set() and any(name not in connected.settled for name in wanted):
                    self._changed.clear()
                    await self._changed.wait()
        if connected.ended.is_set():
            raise connected.error or Closed("the connection was closed")
        up = [child.name for child in connected.sa.live_children]
        if up or not wanted:
            return
        error = next((each for each in connected.settled.values() if each), None)
        error = error or NegotiationFailed("no child SA came up", remedy="see the gateway's log")
        self._drop(connected, error)
        raise error

    def _drop(self, connected: _Connected, error: IkewayError) -> None:
        """Close a connection from our side, because of `error`."""
        connected.error = connected.error or error
        self._runner.driver.command(connected.sa.close)

    # -- what happens to the connection

    def _on_event(self, event: ike.Event) -> None:
        match event:
            case ike.PeerSeen(what=what):
                self._report("peer", what)
            case ike.MessageSent(message=message, remote=remote, retransmission=count) if count:
                self._report(
                    "retransmit", f"no answer from {remote} yet: {message.exchange_type.name} sent again ({count})"
                )
            case ike.IkeEstablished(sa=sa, replaces=replaces):
                self._on_established(sa, replaces)
            case ike.IkeRekeyed(sa=sa, old=old) if self._now and self._now.sa is old:
                self._now.sa = sa
            case ike.IkeClosed(sa=sa, error=error) if self._now and self._now.sa is sa:
                self._now.error = self._now.error or error
                self._now.ended.set()
                self._changed.set()
            case ike.ConfigurationReceived(sa=sa, attributes=attributes):
                self._on_configuration(sa, read_assigned(attributes))
            case ike.ChildUp(sa=sa, child=child) if self._is_ours(sa):
                self._settle(child.name, None)
            case ike.ChildFailed(sa=sa, settings=settings, error=error) if self._is_ours(sa):
                self._report("child", f"child SA {settings.name} was not made: {error}")
                self._settle(settings.name, error)
            case ike.ChildDown(sa=sa, child=child, error=error) if self._is_ours(sa):
                self._on_child_down(child, error)
            case ike.PathChanged(sa=sa, remote=remote) if self._is_ours(sa):
                self._report("move", f"now from {sa.local.host} to {remote}")
                self._changed.set()

    def _is_ours(self, sa: IkeSa) -> bool:
        return self._now is not None and self._now.sa.connection_id == sa.connection_id

    def _on_established(self, sa: IkeSa, replaces: IkeSa | None) -> None:
        known = self._now
        if replaces is not None and known is not None and known.sa is replaces:
            # Reauthentication (make before break): the old one will go without a word.
            fresh = _Connected(sa, known.since, known.assigned)
            fresh.settled = dict(known.settled)
            known.sa, known.assigned = sa, read_assigned(sa.configuration)
        else:
            self._now = _Connected(sa, clock.now(), read_assigned(sa.configuration))
            for child in sa.live_children:
                self._now.settled[child.name] = None
        self._report("established", f"the gateway is {sa.remote_identity}")
        self._changed.set()

    def _on_configuration(self, sa: IkeSa, assigned: Assigned) -> None:
        for each in assigned.ignored:
            log.warning("The gateway assigned something that makes no sense: %s", each)
        if self._is_ours(sa):
            assert self._now is not None
            self._now.assigned = assigned
        told = ", ".join(str(each.ip) for each in assigned.addresses)
        self._report("address", f"the gateway assigned {told or 'no address'}")
        self._changed.set()

    def _settle(self, name: str, error: IkewayError | None) -> None:
        assert self._now is not None
        self._now.settled[name] = error
        self._changed.set()

    def _on_child_down(self, child: ChildSa, error: IkewayError | None) -> None:
        """The gateway deleted a child SA on its own: asked for once more, the connection is worth nothing without."""
        self._changed.set()
        connected = self._now
        if connected is None or connected.ended.is_set() or self._closing or not connected.sa.is_alive:
            return
        log.info("Child SA %s went down%s", child.name, f": {error}" if error else "")
        if error is not None and connected.settled.get(child.name, error) is None:
            connected.settled[child.name] = error
            settings = child.settings
            self._runner.driver.command(lambda now: connected.sa.create_child(settings, now))
        elif not connected.sa.live_children:
            self._drop(connected, error or Closed("the gateway closed the last child SA"))

    def _on_refused_sa(self, event: ike.Event, error: HostError) -> None:
        """The data plane cannot carry an SA: without it the connection is worth nothing."""
        if self._now is not None and not self._dataplane_died:
            self._drop(self._now, error)

    def _on_unreachable(self, remote: Address, code: int) -> None:
        if self._reach is not None:
            self._reach.on_unreachable(remote, code)

    def _on_dataplane_died(self, reason: str) -> None:
        self._dataplane_died = reason
        self._report("dataplane", f"the data plane died ({reason}); it is started again")
        error = HostError(f"the data plane died: {reason}", remedy="see the log; it has been started again")
        if self._now is not None and not self._now.ended.is_set():
            self._drop(self._now, error)
        self._wake.set()

    # -- staying connected

    async def _keep(self) -> None:
        """Connect again whenever the connection ends."""
        try:
            while True:
                assert self._now is not None
                connected = self._now
                while not connected.ended.is_set():
                    self._watch_end = connected  # keeps the object that is waited for visible to a debugger
                    await connected.ended.wait()
                error = connected.error or Closed("the connection was closed")
                self._now = None
                if not self.profile.session.reconnect:
                    raise error
                self._report("lost", str(error))
                await self._reconnect()
        except IkewayError as error:
            self.error = error
            await self._end_by_itself()

    async def _reconnect(self) -> None:
        """Try until it works. Raises what makes further tries useless."""
        pause, refusals = _FIRST_PAUSE, 0
        while True:
            if self._dataplane_died:
                await self._runner.restart_dataplane()
                self._dataplane_died = ""
            try:
                await self._connect()
            except AuthenticationFailed as error:
                refusals += 1
                if refusals >= _REFUSALS:
                    raise
                failure: IkewayError = error
            except ConfigError:
                raise
            except IkewayError as error:
                failure = error
            else:
                return
            self.state = ClientState.WAITING
            self._report("retry", f"{failure}; next try in {pause:.0f} s")
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause * random.uniform(0.8, 1.2)):  # noqa: S311 - spreads many clients
                    await self._wake.wait()
            pause = min(pause * 2, max(self.profile.session.retry_limit, _FIRST_PAUSE))

    async def _end_by_itself(self) -> None:
        # From a task that `close` cancels, so not awaited there.
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())

    async def _watch(self) -> None:
        """Follow changes of the network."""
        assert self._host is not None
        async for change in self._host.watch():
            self._wake.set()
            connected = self._now
            with contextlib.suppress(HostError):
                await self._host.refresh()
            if connected is None or connected.ended.is_set() or not connected.sa.is_alive:
                continue
            await self._on_network_changed(connected, change)

    async def _on_network_changed(self, connected: _Connected, change: NetworkChanged) -> None:
        assert self._host is not None
        sa = connected.sa
        local = self._path_from(sa.remote)
        if local is None:
            await self._wait_for_network(connected)
            return
        if local != sa.local.host:
            self._report("network", f"this host's address is {local} now, it was {sa.local.host}")
            if sa.mobike:
                moved = sa.local._replace(host=local)
                self._runner.driver.command(lambda now: sa.move(moved, None, now))
            else:
                self._drop(connected, Closed(f"this host's address changed to {local}, and the gateway has no MOBIKE"))
        elif ChangeKind.RESUMED in change.kinds:
            self._report("resumed", f"back after {change.slept:.0f} s of sleep: asking whether the gateway is there")
            self._runner.driver.command(sa.check_liveness)

    def _path_from(self, remote: Address) -> str | None:
        assert self._host is not None
        local = self._host.local_address(remote)
        wanted = self.profile.local_address
        # A local address that was asked for is kept as long as there is a path at all.
        return str(wanted) if wanted is not None and local is not None else local

    async def _wait_for_network(self, connected: _Connected) -> None:
        """There is no way to the gateway's address. A short gap is ridden out; then its other addresses are tried."""
        self._report("network", f"no way to {connected.sa.remote.host} at the moment")
        await asyncio.sleep(_NO_NETWORK_SECONDS)
        if connected.ended.is_set() or self._path_from(connected.sa.remote) is not None:
            return
        if any(self._path_from(each) for each in self.gateway_addresses):
            self._drop(connected, Closed(f"there is no way to {connected.sa.remote.host} any more"))

    # -- the host

    async def _adapt(self) -> None:
        """Make the host follow what was agreed."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self.state is not ClientState.UP:
                continue
            try:
                await self._follow()
            except HostError as error:
                log.error("The host could not be set up: %s", error)
                if self._now is not None and not self._now.ended.is_set():
                    self._drop(self._now, error)

    async def _follow(self) -> None:
        """Configure the host, when it has to look otherwise than it does."""
        connected = self._now
        if connected is None or connected.ended.is_set() or not connected.sa.live_children:
            return
        assert self._host is not None
        sa = connected.sa
        wanted = tunnel_configuration(
            self.profile.host, self._agreed(connected), self.interface, self._host.outer_mtu(sa.remote)
        )
        if wanted == self.configuration:
            return
        await self._configure(wanted)
        shown = ", ".join(map(str, wanted.routes)) or "nothing"
        self._report("up", f"{self.interface} carries {shown} (MTU {wanted.mtu})")

    async def _configure(self, wanted: TunnelConfiguration) -> None:
        import dataclasses

        assert self._host is not None
        others = tuple(each for each in self.gateway_addresses if each.host != wanted.gateway.host)
        wanted = dataclasses.replace(wanted, other_gateways=others)
        await self._host.configure_tunnel(wanted)
        if self.configuration is None or self.configuration.mtu != wanted.mtu:
            await self._runner.set_mtu(wanted.mtu)
        self.configuration = wanted

    def _agreed(self, connected: _Connected) -> Agreed:
        sa = connected.sa
        children = sa.live_children
        found = networks(selector for child in children for selector in child.remote_selectors)
        merged: list[IpNetwork] = []
        for version in (4, 6):
            merged += collapse_addresses(each for each in found if each.version == version)  # type: ignore[type-var]
        return Agreed(
            gateway=sa.remote,
            assigned=connected.assigned,
            networks=tuple(merged),
            transforms=tuple(dict.fromkeys(child.esp_out.transforms for child in children)),
            udp=sa.udp_encapsulation,
        )

    # -- the end

    async def _close(self) -> None:
        self.state = ClientState.CLOSING
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        connected = self._now
        try:
            if connected is not None and not connected.ended.is_set():
                self._runner.driver.command(connected.sa.close)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CLOSE_SECONDS):
                        await connected.ended.wait()
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_SECONDS):
                    if self._host is not None:
                        await self._host.close()
                    await self._runner.stop()
            self._secrets.forget()
            self.state = ClientState.CLOSED
            self._ended.set()

    def _report(self, step: str, text: str) -> None:
        self._tell(Progress(step, text))


@asynccontextmanager
async def connect(
    profile: Profile | str | Path,
    *,
    prompt: Prompt | None = None,
    tell: Tell = lambda progress: None,
) -> AsyncIterator[Client]:
    """A tunnel to a gateway while the block runs. `profile` may be its name or the path of its file.

        async with ikeway.connect("work") as tunnel:
            print(tunnel.assigned.addresses)

    Raises `ConfigError` for a mistake in the profile, `HostError` for what this host refuses, and `PeerError` for what
    the gateway does (`AuthenticationFailed`, `NegotiationFailed`, `PeerUnreachable`).
    """
    if not isinstance(profile, Profile):
        profile = await asyncio.to_thread(functools.partial(load_profile, profile, prompt))
    client = Client(profile, prompt=prompt, tell=tell)
    await client.start()
    try:
        yield client
    finally:
        await client.close()

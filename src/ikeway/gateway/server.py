"""`Gateway`: serves the clients of a configuration, as an async context manager.

Theory of operation. The engine answers the clients; what it asks (which connection, which password, which address) is
answered by `GatewayAnswers` from the configuration, the users and the pools. This module opens and closes what is
around the engine, makes the host forward, gives addresses back when a session ends, and carries a new configuration
into the running gateway: it holds for sessions to come, and ends those whose user may not connect any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from cryptography.x509 import Certificate

import ikeway
from ikeway.auth.binding import carried_identities
from ikeway.auth.questions import PskQuestion
from ikeway.config.eap import AUTHENTICATORS
from ikeway.config.secrets import Prompt
from ikeway.daemon import clock
from ikeway.daemon.privileges import keep_what_a_daemon_needs
from ikeway.daemon.runner import Runner, RunnerSettings
from ikeway.daemon.sockets import Listen
from ikeway.daemon.status import CountersBySa, PoolStatus, SessionStatus, Status, drops, session_status
from ikeway.daemon.threads import in_thread
from ikeway.dataplane.interface import DataPlaneDied
from ikeway.eap.questions import PasswordCheck, SecretQuestion
from ikeway.errors import AuthenticationFailed, HostError, IkewayError
from ikeway.gateway.answers import GatewayAnswers
from ikeway.gateway.attempts import LoginAttempts
from ikeway.gateway.config import GatewayConfig, load_gateway_config
from ikeway.gateway.host_side import HostSide
from ikeway.gateway.radius.desk import RadiusDesk
from ikeway.gateway.radius.errors import RadiusUnavailable
from ikeway.gateway.users import EVERYONE
from ikeway.host import check_rights, open_host_network, recover_stale
from ikeway.ike import events as ike
from ikeway.ike.exchanges.auth_eap import EapRefused
from ikeway.ike.questions import SelectConnection, SettleConnection, Settled
from ikeway.ike.settings import Connection

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa

Answer = TypeVar("Answer")

log = logging.getLogger("ikeway.gateway")

_CLOSE_SECONDS = 3.0  # for the clients' answers to our deletes
_STOP_SECONDS = 10.0  # for everything else at the end
_PAUSES = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)  # before a data plane that keeps dying is started again

Observe = Callable[[Runner], None]


class Gateway:
    """A gateway that runs while the block does, or from `start` to `close`.

    async with ikeway.Gateway("/etc/ikeway/gateway.toml") as gateway:
        await gateway.wait()
    """

    def __init__(
        self,
        config: GatewayConfig | Path | str,
        *,
        prompt: Prompt | None = None,
        observers: Sequence[Observe] = (),
        drop_privileges: bool = False,
    ) -> None:
        """`config` may be the path of the file. `observers` get the `Runner` when it is there, to trace what it does.
        `drop_privileges` gives up, for this whole process, what is not needed once the gateway runs. Raises
        `ConfigErrors`."""
        self.config = config if isinstance(config, GatewayConfig) else load_gateway_config(config, prompt)
        self.dataplane_deaths = 0
        self._prompt = prompt
        self._observers = tuple(observers)
        self._drop_privileges = drop_privileges
        self._answers = GatewayAnswers(self.config)
        self._attempts = LoginAttempts(self.config.attempts, clock.now)
        self._runner = Runner(
            RunnerSettings(
                listen=Listen(
                    hosts=tuple(map(str, self.config.listen)),
                    ike_port=self.config.port,
                    nat_port=self.config.nat_port,
                ),
                interface=self.config.host.interface or "ikeway%d",
                esp_protocol=not self.config.responder.force_udp_encapsulation,
                responder=self.config.responder,
                data_plane=self.config.host.data_plane,
                workers=self.config.host.workers,
                steer=self._answers.placement.of,
            )
        )
        self._started = clock.now()
        self._since: dict[int, float] = {}  # by connection, rekeyings and all
        self._host: HostSide | None = None
        self._ended = asyncio.Event()
        self._error: HostError | None = None
        self._closing: asyncio.Task[None] | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._reloading = asyncio.Lock()
        self._unjudged: set[int] = set()  # connections whose log-in was under way at a reload
        self._judging: set[asyncio.Task[None]] = set()
        self._radius = RadiusDesk(self._answers, self._runner, self._attempts, self.disconnect)
        self._dead: deque[int] = deque()  # workers that were given up and have to be replaced

    # -- for the user

    @property
    def runner(self) -> Runner:
        """Sockets, engine and data plane."""
        return self._runner

    @property
    def answers(self) -> GatewayAnswers:
        """What the gateway knows, its pools among it."""
        return self._answers

    @property
    def interface(self) -> str:
        """The tunnel interface."""
        return self._runner.interface

    async def __aenter__(self) -> Gateway:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def start(self) -> None:
        """Listen, and make the host forward. Raises `HostError`; nothing is left then."""
        try:
            check_rights(tun=True, ports=(self.config.port, self.config.nat_port))
            for each in await recover_stale():
                log.warning("Cleaned up after a client or gateway that was killed: %s", "; ".join(each.undone))
            self._host = HostSide(open_host_network(), self._runner, self._answers.placement, lambda: self.config)
            await self._radius.start(self.config.radius)
            await self._runner.start()
            # Clients may knock from here on, and find everything ready: nothing is waited for before.
            self._answers.serve_by(max(self._runner.workers, 1))
            self._answers.on_routes_changed = self._host.follow
            self._set_up_driver()
            await self._host.follow()
            if self._drop_privileges:
                keep_what_a_daemon_needs(esp_protocol=self._runner.carries_esp_protocol)
        except BaseException:
            await self.close()
            raise

    async def wait(self) -> None:
        """Wait until the gateway has ended. Raises why, when that was not our wish."""
        await self._ended.wait()
        if self._error is not None:
            raise self._error

    async def close(self) -> None:
        """Tell all clients, undo what was done to the host, and end. Takes a bounded time; idempotent."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    def established(self) -> list[IkeSa]:
        """The IKE SAs of all clients that are logged in."""
        return [sa for sa in self._runner.engine.sas if sa.established and sa.successor is None]

    async def sessions(self) -> list[SessionStatus]:
        """Who is connected, with counters; the oldest first."""
        return self._sessions(await self._runner.counters())

    def _sessions(self, counters: CountersBySa) -> list[SessionStatus]:
        now = clock.now()
        found = []
        for sa in self.established():
            leases = self._answers.pools.leases_of(sa.connection_id)
            status = session_status(sa, counters, now, addresses=[lease.address for lease in leases])
            found.append(dataclasses.replace(status, age=now - self._since.get(sa.connection_id, sa.created)))
        return sorted(found, key=lambda session: -session.age)

    async def status(self) -> Status:
        """All that there is to tell."""
        engine, now = self._runner.engine, clock.now()
        counters = await self._runner.counters()
        pools = [
            PoolStatus(name=one.name, addresses=one.addresses, size=one.size, used=one.used)
            for one in self._answers.pools.usage()
        ]
        return Status(
            role="gateway",
            name=self.config.path.stem,
            state="restarting" if self._restarting is not None else "up",
            version=ikeway.__version__,
            pid=os.getpid(),
            uptime=now - self._started,
            interface=", ".join(self._runner.interfaces),
            mtu=self._host.mtu if self._host is not None else 0,
            routes=tuple(map(str, self.config.host.pools)),
            sessions=tuple(self._sessions(counters)),
            half_open=sum(not sa.established for sa in engine.sas),
            pools=tuple(pools),
            workers=self._runner.worker_states(),
            radius=self._radius.status(),
            counters=self._runner.totals(),
            dropped=drops(counters),
            error=str(self._error) if self._error is not None else "",
        )

    def disconnect(self, connection_id: int) -> bool:
        """End one session. False when there is none of this number."""
        wanted = [sa for sa in self.established() if sa.connection_id == connection_id]
        for sa in wanted:
            self._runner.driver.command(sa.close)
        return bool(wanted)

    async def reload(self) -> list[str]:
        """Read the configuration anew and go on with it. Returns what needs a restart to take effect, and who was
        disconnected, as lines for people. Raises `ConfigErrors`, and changes nothing then."""
        async with self._reloading:  # one after the other, or what was read first might take effect last
            # Who may not connect any more has to go, whatever the host then says to the rest.
            said = await self._take_over()
            for sa in self.established():
                said += await self._dismiss_unwelcome(sa)
            if self._host is not None:
                await self._host.follow()
            return said

    async def _take_over(self) -> list[str]:
        load = functools.partial(load_gateway_config, self.config.path, self._prompt)
        async with self._answers.passwords.standing_still:  # one that is changed meanwhile must not be lost
            fresh = await in_thread(load)
            if self._closing is not None:
                raise HostError("the gateway is about to end", remedy="start it again")
            old, self.config = self.config, fresh
            self._answers.reload(fresh)
        self._attempts.limits = fresh.attempts
        self._unjudged.update(sa.connection_id for sa in self._runner.engine.sas if not sa.established)
        said = await self._radius.reload(fresh.radius)
        if self._restarting is None and self._closing is None:  # else it is taken up when the data plane runs again
            self._runner.engine.reconfigure(self._runner.responder(fresh.responder))
        return said + [f"`{name}` has changed, and takes effect with a restart" for name in _fixed_changes(old, fresh)]

    # -- inside

    def _set_up_driver(self) -> None:
        driver = self._runner.driver
        driver.listen(self._on_event)
        driver.on_refused_sa = self._on_refused_sa
        self._answers.attach(driver)
        # Counted is what can be guessed; nobody guesses the key of a card.
        passwords = self._answers.passwords
        driver.answer_of_sa(SelectConnection, self._select)
        driver.answer_of_sa(SecretQuestion, self._counted(passwords.secret))
        driver.answer_of_sa(PasswordCheck, self._counted(passwords.check))
        driver.answer_of_sa(PskQuestion, self._counted(self._answers.psk))
        driver.answer_with(SettleConnection, self._settled)
        self._radius.attach()
        self._runner.on_dataplane_died = self._on_dataplane_died
        for observe in self._observers:
            observe(self._runner)

    def _counted(self, handler: Callable[[Any], Awaitable[Answer]]) -> Callable[[Any, IkeSa], Awaitable[Answer]]:
        """Look secrets up for those only who have not failed too often."""

        async def counted(question: SecretQuestion | PasswordCheck | PskQuestion, sa: IkeSa) -> Answer:
            if isinstance(question, PskQuestion):
                name = str(question.remote_identity)
            else:
                name = question.identity.decode(errors="replace")  # as `user_of` says it
            self._attempts.admit(sa.connection_id, sa.remote, name, guess=True)
            return await handler(question)

        return counted

    async def _settled(self, question: SettleConnection) -> Settled:
        """Whom the connection is for: as the users file says, or RADIUS where it has judged."""
        client = self.config.clients.get(question.connection.name)
        if client is None or not client.radius:
            return await self._answers.settled(question)
        await self._answers.refuse_disabled(question.identity.decode("utf-8", "replace"))
        return await self._radius.settled(question)

    async def _select(self, question: SelectConnection, sa: IkeSa) -> Connection:
        self._attempts.admit(sa.connection_id, question.remote, str(question.initiator_identity))
        assert self._host is not None
        return dataclasses.replace(await self._answers.select(question), additional_addresses=self._host.addresses())

    def _on_event(self, event: ike.Event) -> None:
        self._radius.on_event(event)
        match event:
            case ike.IkeEstablished(sa=sa):
                self._since[sa.connection_id] = clock.now()
                also = [proof.identity for proof in sa.proofs]
                self._attempts.ended(sa.connection_id, proven=user_of(sa), also=also, refused=False)
                if sa.connection_id in self._unjudged:
                    self._unjudged.discard(sa.connection_id)
                    self._judge(sa)
            case ike.PathChanged(sa=sa, remote=remote):
                self._answers.move(sa.connection_id, remote)
            case ike.IkeClosed(sa=sa, error=error):
                self._since.pop(sa.connection_id, None)
                self._unjudged.discard(sa.connection_id)
                self._attempts.ended(sa.connection_id, proven=None, refused=_counts(error))
                self._answers.release(sa.connection_id)

    def _on_refused_sa(self, event: ike.Event, error: HostError) -> None:
        """The data plane cannot carry an SA: the client had better know than send into nothing."""
        if isinstance(event, ike.InboundAdded | ike.OutboundAdded) and self._restarting is None:
            child = event.child
            log.error("The data plane refused %s of %s: %s", child, user_of(child.sa), error)
            self._runner.driver.command(functools.partial(child.sa.delete_child, child))

    def _judge(self, sa: IkeSa) -> None:
        """A log-in that began under the former configuration has come to its end under this one."""

        async def judge() -> None:
            for line in await self._dismiss_unwelcome(sa):
                log.warning("%s", line)

        task = asyncio.get_running_loop().create_task(judge())
        self._judging.add(task)
        task.add_done_callback(self._judging.discard)

    async def _dismiss_unwelcome(self, sa: IkeSa) -> list[str]:
        """End the session of who may not connect any more; says so."""
        if await self._is_welcome(sa):
            return []
        self.disconnect(sa.connection_id)
        return [f"{user_of(sa)} may not connect any more, and was disconnected"]

    async def _is_welcome(self, sa: IkeSa) -> bool:
        """Whether the configuration of now would let this client in, as far as it can be told without a log-in."""
        candidate = next((each for each in self.config.candidates if each.name == sa.connection.name), None)
        if candidate is None:
            return False
        names = [user_of(sa)]
        if isinstance(sa.peer_certificate, Certificate):
            names += map(str, carried_identities(sa.peer_certificate))
        found = [user for name in names if (user := await self.config.users.find(name)) is not None]
        if any(user.disabled for user in found):
            return False
        if (grant := self._radius.grant_of(sa.connection_id)) is not None:
            return self.config.clients[candidate.name].radius == grant.server
        if found:
            return True
        if candidate.login == "psk":
            everyone = await self.config.users.find(EVERYONE)
            return everyone is not None and not everyone.disabled
        judges_certificates = any(
            method in AUTHENTICATORS and not AUTHENTICATORS[method].users
            for method in self.config.clients[candidate.name].logins[0]
        )
        return candidate.login == "certificate" or judges_certificates

    def _on_dataplane_died(self, died: DataPlaneDied) -> None:
        self.dataplane_deaths += 1
        self._dead.append(died.worker)
        if self._restarting is None and self._closing is None:
            self._restarting = asyncio.create_task(self._restart_dataplane())

    async def _restart_dataplane(self) -> None:
        """Workers were given up: end the sessions whose traffic they carried, so that these clients connect again, and
        start others. Those of other workers go on meanwhile."""
        self._runner.engine.reconfigure(None)  # nobody new, until there is something to carry their traffic
        try:
            while self._dead:
                if not await self._replace_worker(self._dead.popleft()):
                    self._closing = asyncio.create_task(self._close())
                    return
            self._error = None
            self._runner.engine.reconfigure(self._runner.responder(self.config.responder))
            log.warning("The data plane runs again")
        finally:
            self._restarting = None

    async def _replace_worker(self, worker: int) -> bool:
        """False when that cannot be."""
        lost = [sa for sa in self._runner.engine.sas if self._answers.placement.worker_of(sa.connection_id) == worker]
        for sa in lost:
            self._runner.driver.command(sa.close)
        log.error("%d sessions are ended, as their data plane is gone; clients may connect again", len(lost))
        assert self._host is not None
        is_anew: bool | None = None  # its interface, once the worker runs again
        for pause in _PAUSES:
            await asyncio.sleep(pause)
            try:
                if is_anew is None:
                    is_anew = await self._runner.restart_dataplane(worker)
                if is_anew:
                    await self._host.follow(anew=True)
            except HostError as error:
                log.error("The data plane cannot be started again: %s", error)
                self._error = error
            else:
                return True
        return False

    async def _close(self) -> None:
        try:
            if self._restarting is not None:
                self._restarting.cancel()
            if self._runner.is_started:
                await self._say_goodbye()
        finally:
            await _within(_STOP_SECONDS, self._radius.close())
            if self._host is not None:
                await _within(_STOP_SECONDS, self._host.close())
            await _within(_STOP_SECONDS, self._runner.stop())
            self._ended.set()

    async def _say_goodbye(self) -> None:
        self._runner.engine.reconfigure(None)  # nobody new
        self._radius.leave()
        gone = asyncio.Event()

        def listen(event: ike.Event) -> None:
            if isinstance(event, ike.IkeClosed) and not self.established():
                gone.set()

        stop_listening = self._runner.driver.listen(listen)
        self._runner.driver.command(self._runner.engine.close_all)
        if self.established():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await gone.wait()
        stop_listening()


async def _within(seconds: float, step: Awaitable[None]) -> None:
    """One step of the end: neither its failure nor its length keeps the others from being done."""
    try:
        async with asyncio.timeout(seconds):
            await step
    except TimeoutError:
        log.error("A step of the end took longer than %.0f s, and was given up", seconds)
    except Exception:
        log.exception("A step of the end failed; this is a defect of Ikeway")


def _counts(error: IkewayError | None) -> bool:
    """Whether a log-in that ended so has failed by the client's doing: a RADIUS server that is dead says nothing of it."""
    cause = error.cause if isinstance(error, EapRefused) else error
    return isinstance(error, AuthenticationFailed) and not isinstance(cause, RadiusUnavailable)


def user_of(sa: IkeSa) -> str:
    """Who it is: the EAP user where EAP told one, else the peer's identity."""
    return sa.eap_identity.decode(errors="replace") if sa.eap_identity is not None else str(sa.remote_identity)


def _fixed_changes(old: GatewayConfig, new: GatewayConfig) -> list[str]:
    """What sockets and devices were opened with."""
    fixed = {
        "listen": (old.listen, new.listen),
        "port": (old.port, new.port),
        "nat_port": (old.nat_port, new.nat_port),
        "interface": (old.host.interface, new.host.interface),
        "data_plane": (old.host.data_plane, new.host.data_plane),
        "workers": (old.host.workers, new.host.workers),
    }
    return [name for name, (before, after) in fixed.items() if before != after]

"""RADIUS as the gateway meets it: questions of log-ins, news of sessions, and a configuration that may change.

What needs pyrad (`service`) is imported when the first `[radius.NAME]` is configured: most gateways have none.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from ikeway.config.fields import IpAddress
from ikeway.daemon.runner import Runner
from ikeway.daemon.status import CountersBySa, RadiusServerStatus
from ikeway.eap.questions import Granted, Verdict
from ikeway.eap.relay import Accepted, PasswordRelay, RelayAnswer, RelayQuestion
from ikeway.errors import HostError
from ikeway.gateway.answers import GatewayAnswers
from ikeway.gateway.attempts import LoginAttempts
from ikeway.gateway.radius.errors import RadiusUnavailable
from ikeway.gateway.radius.grant import Grant
from ikeway.gateway.radius.settings import RadiusSettings
from ikeway.gateway.usage import UsageBook
from ikeway.ike import events as ike
from ikeway.ike.questions import SettleConnection, Settled
from ikeway.ike.settings import Connection

if TYPE_CHECKING:
    from ikeway.gateway.radius.service import RadiusService
    from ikeway.ike.sa import IkeSa

log = logging.getLogger("ikeway.radius")


class RadiusDesk:
    """See the module."""

    def __init__(
        self, answers: GatewayAnswers, runner: Runner, attempts: LoginAttempts, end_session: Callable[[int], bool]
    ) -> None:
        self._answers, self._runner, self._attempts = answers, runner, attempts
        self._end_session = end_session
        self._usage = UsageBook()
        self._service: RadiusService | None = None

    async def start(self, settings: Mapping[str, RadiusSettings]) -> None:
        """Begin. Raises HostError."""
        if settings:
            await self._new_service(settings).start()

    async def reload(self, settings: Mapping[str, RadiusSettings]) -> list[str]:
        """Go on with other servers; returns what cannot be, for people."""
        try:
            if self._service is not None:
                await self._service.reload(settings)
            else:
                await self.start(settings)
        except HostError as error:
            return [str(error)]
        return []

    def attach(self) -> None:
        """Answer the questions of log-ins, and count what sessions carry."""
        driver = self._runner.driver
        driver.answer_of_sa(RelayQuestion, self._relay)
        driver.answer_of_sa(PasswordRelay, self._relay_password)
        self._runner.on_sa_ended = self._usage.note

    def on_event(self, event: ike.Event) -> None:
        """To be told before addresses are given back."""
        if isinstance(event, ike.IkeEstablished):
            self._usage.open(event.sa.connection_id)
        if self._service is not None:
            self._service.on_event(event)
        if isinstance(event, ike.IkeClosed):
            self._usage.close(event.sa.connection_id)

    async def settled(self, question: SettleConnection) -> Settled:
        """Which agreement holds with a client that a server let in."""
        return await self._asked.settled(question)

    def grant_of(self, connection_id: int) -> Grant | None:
        """What a client was granted; None for one that no server let in."""
        return self._service.grant_of(connection_id) if self._service is not None else None

    def status(self) -> tuple[RadiusServerStatus, ...]:
        """How the servers are."""
        return self._service.status() if self._service is not None else ()

    def leave(self) -> None:
        """The gateway is about to end all sessions."""
        if self._service is not None:
            self._service.leave()

    async def close(self) -> None:
        """Send the last accounts, for a bounded time, and end."""
        if self._service is not None:
            await self._service.close()

    # -- what the service asks of the gateway (`RadiusHost`)

    def settle(self, sa: IkeSa, grant: Grant) -> Connection:
        """The connection that a client with this grant gets."""
        return self._answers.settle(sa.connection, grant)

    def addresses_of(self, connection_id: int) -> list[IpAddress]:
        """What a client has got."""
        return [lease.address for lease in self._answers.pools.leases_of(connection_id)]

    def disconnect(self, connection_id: int) -> bool:
        """End a session."""
        return self._end_session(connection_id)

    async def counters(self) -> CountersBySa:
        """Of all SAs."""
        return await self._runner.counters()

    # -- inside

    def _new_service(self, settings: Mapping[str, RadiusSettings]) -> RadiusService:
        from ikeway.gateway.radius.service import RadiusService

        self._service = RadiusService(settings, self, self._usage)
        self._answers.granted = self._service.grant_of
        return self._service

    @property
    def _asked(self) -> RadiusService:
        assert self._service is not None, "a connection with RADIUS needs [radius.NAME]"
        return self._service

    async def _relay(self, question: RelayQuestion, sa: IkeSa) -> RelayAnswer:
        # The secret is the server's: a guess is one log-in, with however many packets.
        begins = question.state is None
        with self._guess(question.identity, sa, counts=begins) as name:
            answer = await self._asked.relay(question, sa)
        if isinstance(answer, Accepted):
            self._attempts.was_right(sa.connection_id, name)
        return answer

    async def _relay_password(self, question: PasswordRelay, sa: IkeSa) -> Verdict:
        with self._guess(question.check.identity, sa) as name:
            verdict = await self._asked.check(question.check, sa, question.server)
        if isinstance(verdict, Granted):
            self._attempts.was_right(sa.connection_id, name)
        return verdict

    @contextlib.contextmanager
    def _guess(self, identity: bytes, sa: IkeSa, *, counts: bool = True) -> Iterator[str]:
        """Ask for those only who have not failed too often; gives the name that is counted.

        What no server has looked at was no failure: an outage must not lock users out for longer than it lasts.
        """
        name = identity.decode(errors="replace")
        self._attempts.admit(sa.connection_id, sa.remote, name, guess=counts)
        try:
            yield name
        except RadiusUnavailable:
            if counts:
                self._attempts.withdraw(sa.connection_id, name)
            raise

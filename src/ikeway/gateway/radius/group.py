"""The servers of one `[radius.NAME]`: which of them is asked, and who is asked when that one is silent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from ikeway.daemon.status import RadiusServerStatus
from ikeway.errors import HostError
from ikeway.gateway.radius.attributes import Attr, Pair, address_pair, text
from ikeway.gateway.radius.errors import RadiusUnavailable
from ikeway.gateway.radius.packets import Code, Reply, Request
from ikeway.gateway.radius.server import NoAnswer, Server
from ikeway.gateway.radius.settings import RadiusSettings


class Group:
    """See the module. Made and used on one running event loop."""

    def __init__(self, settings: RadiusSettings) -> None:
        self.settings = settings
        self._servers = [Server(settings, address, address.port) for address in settings.servers]
        self._accounting = [
            Server(settings, address, address.accounting_port) for address in settings.servers if settings.accounting
        ]

    async def authenticate(
        self, pairs: Sequence[Pair], *, password: bytes | None = None, server: Server | None = None
    ) -> tuple[Reply, Server]:
        """Send an Access-Request, and say who has answered. `server`: it has begun this log-in, and nobody else knows
        the State of it. Raises `RadiusUnavailable`."""
        protected = self.settings.require_message_authenticator
        servers = [server] if server is not None else _in_order(self._servers)
        return await self._ask(Code.ACCESS_REQUEST, pairs, servers, password=password, protected=protected)

    async def account(self, pairs: Sequence[Pair]) -> None:
        """Send an Accounting-Request. Raises `RadiusUnavailable`."""
        await self._ask(Code.ACCOUNTING_REQUEST, pairs, _in_order(self._accounting))

    def status(self) -> tuple[RadiusServerStatus, ...]:
        """How the servers are."""
        roles = (("authentication", self._servers), ("accounting", self._accounting))
        return tuple(self._status_of(each, role) for role, servers in roles for each in servers)

    def close(self) -> None:
        """Close all sockets."""
        for server in (*self._servers, *self._accounting):
            server.close()

    async def _ask(
        self,
        code: Code,
        pairs: Sequence[Pair],
        servers: Sequence[Server],
        *,
        password: bytes | None = None,
        protected: bool = True,
    ) -> tuple[Reply, Server]:
        silent: list[NoAnswer] = []
        for server in servers:

            def make(identifier: int, local: str) -> Request:
                every = [*self._nas(local), *pairs]
                return Request(code, identifier, self.settings.secret, every, password=password)

            try:
                return await server.ask(make, protected=protected, hurry=server is not servers[-1]), server
            except NoAnswer as error:
                silent.append(error)
            except HostError as error:
                silent.append(NoAnswer(error.reason, error.remedy))
            except ValueError as error:
                raise RadiusUnavailable(
                    f"the request does not fit: {error}", remedy="let the client send smaller EAP fragments"
                ) from None
        raise RadiusUnavailable(
            f"no RADIUS server of {self.settings.name!r} answers: {'; '.join(error.why for error in silent)}",
            remedy=silent[-1].remedy,
        )

    def _nas(self, local: str) -> Iterable[Pair]:
        """Who we are (RFC 2865 section 4.1)."""
        return (
            (Attr.NAS_IDENTIFIER, text(self.settings.nas_identifier)),
            address_pair(local, Attr.NAS_IP_ADDRESS, Attr.NAS_IPV6_ADDRESS),
        )

    def _status_of(self, server: Server, role: str) -> RadiusServerStatus:
        now = asyncio.get_running_loop().time()
        tally = server.tally
        return RadiusServerStatus(
            name=self.settings.name,
            server=str(server),
            role=role,
            state="dead" if server.is_dead else "answers" if server.last_answer is not None else "not asked yet",
            requests=tally.requests,
            repeated=tally.repeated,
            answered=tally.answered,
            unanswered=tally.unanswered,
            dropped=dict(tally.dropped),
            idle=now - server.last_answer if server.last_answer is not None else None,
            trouble=server.trouble,
        )


def _in_order(servers: Sequence[Server]) -> list[Server]:
    """As configured, but those that were silent of late come last: they are asked when nobody else is left."""
    return sorted(servers, key=lambda server: server.is_dead)

"""The control commands of a running gateway: status, watch, rekey, terminate, reload, stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING

from ikeway.daemon.commands import Watch, number, rekey, text
from ikeway.daemon.control import Command, Json
from ikeway.daemon.runner import Runner
from ikeway.daemon.status import Status
from ikeway.errors import HostError, IkewayError
from ikeway.gateway.server import Gateway

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa

_MOST_SESSIONS = float(1 << 53)


class GatewayControl:
    """Give `commands` to a `ControlServer` and `observe` to the gateway."""

    def __init__(self) -> None:
        """The gateway comes with `attach`, as it wants `observe` when it is made."""
        self._gateway: Gateway | None = None
        self._watch = Watch(self._status)
        self._leaving: asyncio.Task[None] | None = None

    def attach(self, gateway: Gateway) -> None:
        """Serve this gateway."""
        self._gateway = gateway

    def observe(self, runner: Runner) -> None:
        """Hear of its events."""
        runner.driver.listen(self._watch.on_event)

    @property
    def commands(self) -> dict[str, Command]:
        """The commands by name."""
        return {
            "status": self.status,
            "watch": self.watch,
            "rekey": self.rekey,
            "terminate": self.terminate,
            "reload": self.reload,
            "stop": self.stop,
        }

    async def status(self, arguments: Mapping[str, Json]) -> Json:
        """All that there is to tell."""
        return (await self._attached.status()).to_json()

    def watch(self, arguments: Mapping[str, Json]) -> AsyncGenerator[Json, None]:
        """The same again and again; argument `seconds`."""
        return self._watch.stream(arguments)

    async def rekey(self, arguments: Mapping[str, Json]) -> Json:
        """Arguments `session` (its number or user), `what` (ike, child) and `child` (a name)."""
        what = text(arguments, "what", "child")
        if what == "login":
            raise IkewayError("a gateway cannot log in anew on behalf of a client", expected="ike or child")
        driver = self._attached.runner.driver
        begun = [
            f"{words} of session {sa.connection_id}"
            for sa in await self._find(arguments)
            for words in rekey(driver, sa, what, text(arguments, "child"))
        ]
        return {"begun": begun}

    async def terminate(self, arguments: Mapping[str, Json]) -> Json:
        """End sessions: argument `session`, a number or a user, or `all` true."""
        gateway = self._attached
        wanted = gateway.established() if arguments.get("all") is True else await self._find(arguments)
        ended = [sa.connection_id for sa in wanted if gateway.disconnect(sa.connection_id)]
        return {"ended": ended}

    async def reload(self, arguments: Mapping[str, Json]) -> Json:
        """Read the configuration anew."""
        return {"said": await self._attached.reload()}

    async def stop(self, arguments: Mapping[str, Json]) -> Json:
        """End. The answer comes first; that the socket closes says that it is done."""
        gateway = self._attached
        self._leaving = asyncio.create_task(gateway.close())
        return {"pid": (await gateway.status()).pid}

    async def _find(self, arguments: Mapping[str, Json]) -> list[IkeSa]:
        """The sessions of that number, or of that user."""
        gateway = self._attached
        wanted = arguments.get("session", "")
        if isinstance(wanted, int):
            number(arguments, "session", 0, low=0, high=_MOST_SESSIONS)
        name = str(wanted).casefold()
        sessions = await gateway.sessions()
        ids = {
            session.id
            for session in sessions
            if name in {str(session.id), session.remote_identity.casefold(), session.eap_identity.casefold()} - {""}
        }
        if not ids:
            raise IkewayError(
                f"there is no session {wanted!r}",
                expected="the number of a session, or the name of its user",
                remedy="see `ikeway gateway status`",
            )
        return [sa for sa in gateway.established() if sa.connection_id in ids]

    async def _status(self) -> Status:
        return await self._attached.status()

    @property
    def _attached(self) -> Gateway:
        if self._gateway is None:
            raise HostError("the gateway is still starting", remedy="try again in a moment")
        return self._gateway

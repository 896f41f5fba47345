"""The control commands of a running client: status, watch, rekey, reconnect, down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

from ikeway.client.client import Client
from ikeway.daemon.commands import Watch, rekey, text
from ikeway.daemon.control import Command, Json
from ikeway.daemon.runner import Runner
from ikeway.daemon.status import Status
from ikeway.errors import HostError


class ClientControl:
    """Give `commands` to a `ControlServer` and `observe` to the client."""

    def __init__(self) -> None:
        """The client comes with `attach`, as it wants `observe` when it is made."""
        self._client: Client | None = None
        self._watch = Watch(self._status)
        self._leaving: asyncio.Task[None] | None = None

    def attach(self, client: Client) -> None:
        """Serve this client."""
        self._client = client

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
            "reconnect": self.reconnect,
            "down": self.down,
        }

    async def status(self, arguments: Mapping[str, Json]) -> Json:
        """All that there is to tell."""
        return (await self._attached.status()).to_json()

    def watch(self, arguments: Mapping[str, Json]) -> AsyncGenerator[Json, None]:
        """The same again and again; argument `seconds`."""
        return self._watch.stream(arguments)

    async def rekey(self, arguments: Mapping[str, Json]) -> Json:
        """Arguments `what` (ike, child, login) and `child` (a name)."""
        client = self._attached
        if client.link is None:
            raise HostError("the connection is not up", remedy="wait until it is, and try again")
        begun = rekey(client.runner.driver, client.link.sa, text(arguments, "what", "child"), text(arguments, "child"))
        return {"begun": begun}

    async def reconnect(self, arguments: Mapping[str, Json]) -> Json:
        """Do not wait any longer before the next try."""
        self._attached.reconnect()
        return {}

    async def down(self, arguments: Mapping[str, Json]) -> Json:
        """End. The answer comes first; that the socket closes says that it is done."""
        client = self._attached
        self._leaving = asyncio.create_task(client.close())
        return {"pid": (await client.status()).pid}

    async def _status(self) -> Status:
        return await self._attached.status()

    @property
    def _attached(self) -> Client:
        if self._client is None:
            raise HostError("the client is still starting", remedy="try again in a moment")
        return self._client

"""One server in one role: requests, repeated until an authentic answer comes or its time is over."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ikeway.daemon.log import event
from ikeway.gateway.radius.packets import Dropped, Fault, Reply, Request
from ikeway.gateway.radius.port import Port, Ports
from ikeway.gateway.radius.settings import RadiusSettings, ServerAddress, waits

log = logging.getLogger("ikeway.radius")

_JITTER = 0.1

# Makes the request for an identifier; gets our address towards the server, for NAS-IP-Address.
Make = Callable[[int, str], Request]


@dataclass(slots=True)
class Tally:
    """What became of the requests."""

    requests: int = 0
    repeated: int = 0
    answered: int = 0
    unanswered: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


class NoAnswer(Exception):
    """One server did not answer; `why` in words, with a remedy."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why)
        self.why, self.remedy = why, remedy


class Server:
    """See the module. `port` is that of its role."""

    def __init__(self, settings: RadiusSettings, address: ServerAddress, port: int) -> None:
        self.address = address
        self.port = port
        self.tally = Tally()
        self.dead_until = 0.0  # on the event loop's clock
        self.last_answer: float | None = None
        self.trouble = ""  # why it is dead
        self._settings = settings
        source = str(settings.source) if settings.source is not None else None
        self._ports = Ports(address.host, port, source, self._on_error)
        self._refused = asyncio.Event()

    def __str__(self) -> str:
        host = f"[{self.address.host}]" if ":" in self.address.host else self.address.host
        return f"{host}:{self.port}"

    @property
    def is_dead(self) -> bool:
        """True when it did not answer of late, and others are to be asked first."""
        return self.dead_until > asyncio.get_running_loop().time()

    async def ask(self, make: Make, *, protected: bool = True, hurry: bool = False) -> Reply:
        """The answer to a request. `protected`: it needs a Message-Authenticator. `hurry`: there are other servers, so
        give up at once when nothing listens there. Raises `NoAnswer`, and `HostError` when there is no way there."""
        self.tally.requests += 1
        async with self._ports.identifier() as (port, identifier):
            request = make(identifier, port.local)
            answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            faults: list[Fault] = []
            port.wait_for(identifier, lambda octets: self._judge(request, octets, answer, faults, protected=protected))
            reply = await self._repeat(port, request, answer, hurry=hurry)
        if reply is None:
            self._give_up(faults)
        assert reply is not None
        self.tally.answered += 1
        self._alive()
        return reply

    def close(self) -> None:
        """Close its sockets."""
        self._ports.close()

    async def _repeat(
        self, port: Port, request: Request, answer: asyncio.Future[Reply], *, hurry: bool
    ) -> Reply | None:
        """The same octets again (RFC 5080 section 2.2.1): only so does the server know a duplicate."""
        self._refused.clear()
        for count, wait in enumerate(waits(self._settings)):
            port.send(request.octets)
            self.tally.repeated += count > 0
            refused = asyncio.ensure_future(self._refused.wait())
            awaited: set[asyncio.Future[Any]] = {answer, refused} if hurry else {answer}
            try:
                await asyncio.wait(
                    awaited,
                    timeout=wait * random.uniform(1 - _JITTER, 1 + _JITTER),  # noqa: S311 - no secret
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                refused.cancel()
            if answer.done():
                return answer.result()
            if hurry and self._refused.is_set():
                return None
        return None

    def _judge(
        self, request: Request, octets: bytes, answer: asyncio.Future[Reply], faults: list[Fault], *, protected: bool
    ) -> None:
        """What is not authentic is as if it had not come: the true answer may still follow."""
        if answer.done():
            return
        try:
            answer.set_result(request.judge(octets, protected=protected))
        except Dropped as dropped:
            fault = dropped.fault
            faults.append(fault)
            del faults[:-8]
            name = fault.name.lower()
            self.tally.dropped[name] = self.tally.dropped.get(name, 0) + 1
            event(
                log,
                logging.WARNING,
                "radius-dropped",
                f"an answer of the RADIUS server {self} was dropped: {fault.words}; {fault.remedy}",
                {"server": str(self), "radius": self._settings.name, "reason": fault.words, "remedy": fault.remedy},
                limited=str(self),
            )

    def _give_up(self, faults: list[Fault]) -> None:
        self.tally.unanswered += 1
        if faults:
            why, remedy = f"answers {faults[-1].words}", faults[-1].remedy
        elif self._refused.is_set():
            why, remedy = "has nothing listening there", "start the RADIUS server, or correct its address in `servers`"
        else:
            why = f"has not answered {self._settings.tries} times"
            remedy = (
                "see that it runs, that it knows this gateway as a client (its log says unknown ones), and that UDP "
                f"port {self.port} passes"
            )
        loop = asyncio.get_running_loop()
        if not self.is_dead and self._settings.dead_time:
            text = f"the RADIUS server {self} {why}: others are asked first for a while; {remedy}"
            event(log, logging.WARNING, "radius-dead", text, {"server": str(self), "radius": self._settings.name})
        self.dead_until = loop.time() + self._settings.dead_time
        self.trouble = why
        self._ports.forget()
        raise NoAnswer(f"{self} {why}", remedy)

    def _alive(self) -> None:
        if self.trouble:
            text = f"the RADIUS server {self} answers again"
            event(log, logging.INFO, "radius-alive", text, {"server": str(self), "radius": self._settings.name})
        self.dead_until, self.trouble = 0.0, ""
        self.last_answer = asyncio.get_running_loop().time()

    def _on_error(self, error: OSError) -> None:
        log.debug("the RADIUS server %s: %s", self, error.strerror)
        if isinstance(error, ConnectionRefusedError):
            self._refused.set()

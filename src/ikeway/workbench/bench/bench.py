"""`Bench`: one stand-in peer with its sockets, its desk, its recording and its view. It needs no TUN device and, on ports
above 1023, no rights."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, TypeVar

from ikeway.address import Address
from ikeway.daemon import clock
from ikeway.daemon.loop import Driver
from ikeway.daemon.sockets import IkeSockets, Listen, local_address_for
from ikeway.eap.packet import EapType, MethodType
from ikeway.errors import Closed, IkewayError
from ikeway.ike import events
from ikeway.ike.engine import Engine
from ikeway.ike.sa import IkeSa
from ikeway.ike.settings import Connection, EapCredential, EngineSettings, ResponderSettings
from ikeway.questions import Question
from ikeway.workbench.bench.decisions import Engineer
from ikeway.workbench.bench.desk import Desk, HoldWhat, Turn
from ikeway.workbench.bench.hooks import HookFailed, Hooks
from ikeway.workbench.bench.quiet import QuietDataPlane
from ikeway.workbench.paint import Painter
from ikeway.workbench.recording import Recorder

Answer = TypeVar("Answer")
Told = TypeVar("Told")

PATIENT_SECONDS = 24 * 3600.0  # an exchange that is held must not end because we gave up
_GOODBYE_SECONDS = 1.0
_MAX_UNREACHABLE = 100
_MAX_TOLD = 256  # of IKE SAs that began or ended, for who asks: a stand-in may serve for days, and nobody does
_ALWAYS = (MethodType(0, EapType.IDENTITY), MethodType(0, EapType.NOTIFICATION))


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """Where to listen (port 0: any), and what is held."""

    listen: tuple[str, ...] = ("0.0.0.0", "::")  # noqa: S104 - a stand-in for a gateway listens as one
    port: int = 500
    nat_port: int = 4500
    hold: HoldWhat = HoldWhat.UNKNOWN
    label: str = ""  # for the view, where there are two


class Role(Protocol):
    """Which peer a bench stands in for: it answers the engine's questions."""

    @property
    def responder(self) -> ResponderSettings | None:
        """How to answer strangers; None for one that only connects."""
        ...

    def set_up(self, driver: Driver) -> None:
        """Answer the questions of this driver's engine."""
        ...


class Bench:
    """An async context manager. `closed` tells of each IKE SA that ended, with its error, and (None) of each that a
    script did not let begin; of many that nobody has asked for, the last ones. `turn` is shared by benches with the same
    engineer."""

    def __init__(
        self,
        settings: BenchSettings,
        role: Role,
        *,
        hooks: Hooks | None = None,
        engineer: Engineer | None = None,
        recorder: Recorder | None = None,
        painter: Painter | None = None,
        turn: Turn | None = None,
    ) -> None:
        self.settings, self.role = settings, role
        self._recorder, self._painter = recorder, painter
        self._begun = clock.now()
        self.desk = Desk(hooks or Hooks(), engineer, self._remark, hold=settings.hold, turn=turn)
        listen = Listen(hosts=settings.listen, ike_port=settings.port, nat_port=settings.nat_port)
        self.sockets = IkeSockets(listen)
        self.closed: asyncio.Queue[tuple[IkeSa | None, IkewayError | None]] = asyncio.Queue(_MAX_TOLD)
        self.established: asyncio.Queue[IkeSa] = asyncio.Queue(_MAX_TOLD)
        self._driver: Driver | None = None
        self._unreachable: set[tuple[Address, int]] = set()

    @property
    def driver(self) -> Driver:
        """Only while it runs."""
        assert self._driver is not None, "not started"
        return self._driver

    @property
    def engine(self) -> Engine:
        """Only while it runs."""
        engine = self.driver.engine
        assert isinstance(engine, Engine)
        return engine

    @property
    def nat_port(self) -> int:
        """The port with the non-ESP marker."""
        return self.sockets.nat_sockets[0].port

    @property
    def ports(self) -> tuple[int, ...]:
        """All ports that are listened on."""
        return tuple(dict.fromkeys(each.port for each in self.sockets.sockets))

    def note(self, kind: str, text: str) -> None:
        """Tell what was done, on the terminal and in the recording."""
        self._say(kind, text)
        if self._recorder is not None:
            self._recorder.note(kind, text, self.settings.label)

    def _say(self, kind: str, text: str) -> None:
        if self._painter is not None:
            self._painter.note(kind, text, clock.now() - self._begun, label=self.settings.label)

    def _remark(self, kind: str, text: str) -> None:
        self.engine.remark(kind, text)

    def connect(self, connection: Connection, remote: Address) -> IkeSa:
        """Begin to connect. A gateway at another port than 500 is spoken to with the marker, as at 4500. Raises
        `HostError` without a route."""
        self.desk.takes = _methods(connection)
        host = local_address_for(remote)
        nat = remote.port != 500
        local = Address(host, self.sockets.local_port(host, nat=nat))
        return self.driver.command(lambda now: self.engine.connect(connection, local, remote, now))

    async def __aenter__(self) -> Bench:
        """Listen. Raises `HostError`."""
        self.sockets.open()
        engine = Engine(
            EngineSettings(
                responder=self.role.responder,
                epoch=clock.epoch(),
                local_nat_port=self.nat_port,
                login_seconds=PATIENT_SECONDS,
                interception=self.desk,
            )
        )
        self._driver = driver = Driver(engine, self.sockets, QuietDataPlane())
        self.desk.command = driver.command
        self.role.set_up(driver)
        driver.listen(self._on_event)
        if self._recorder is not None:
            self.sockets.tap = self._recorder.tap
        self.sockets.on_datagram = driver.receive
        self.sockets.on_unreachable = self._on_unreachable
        self.sockets.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take leave of all peers, and close. The recording is the caller's to close."""
        if self._driver is None:
            return
        await self.refuse_held()
        self._driver.command(self.engine.close_all)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                while self.engine.sas:
                    await self.closed.get()
        await self._driver.stop()
        self.sockets.close()

    async def refuse_held(self) -> None:
        """Ask the engineer no more; log-ins that wait for an answer are refused."""
        await self.desk.stop()
        self.driver.command(lambda now: self.desk.refuse_all(self.engine.sas, now))

    def leave(self, sa: IkeSa) -> None:
        """End one IKE SA; a log-in that waits for an answer is refused."""

        def end(now: float) -> None:
            self.desk.refuse_all((sa,), now)
            sa.close(now)

        self.driver.command(end)

    async def wait_closed(self) -> tuple[IkeSa | None, IkewayError | None]:
        """The next IKE SA that ends."""
        return await self.closed.get()

    def _on_unreachable(self, remote: Address, code: int) -> None:
        """What the network says of what was sent, once each: anybody can forge it, so nothing ends by it."""
        if (remote, code) not in self._unreachable and len(self._unreachable) < _MAX_UNREACHABLE:
            self._unreachable.add((remote, code))
            self.note("network", f"{remote} is not reached: {os.strerror(code)} (ICMP; nothing ends by it)")

    def _on_event(self, event: events.Event) -> None:
        match event:  # first: a terminal that is gone must not keep who waits for an end from hearing of it
            case events.Refused(error=HookFailed() as error, rate_limited=True):
                _put(self.closed, (None, error))  # over IKE_SA_INIT: no IKE SA was made
            case events.IkeClosed(sa=sa, error=error):
                _put(self.closed, (sa, error))
            case events.IkeEstablished(sa=sa):
                _put(self.established, sa)
        if self._recorder is not None:
            self._recorder.observe(event, self.settings.label)
        if isinstance(event, events.Remark):
            self.note(event.kind, event.text)
        self._show(event)

    def _show(self, event: events.Event) -> None:
        if self._painter is None:
            return
        t, label = clock.now() - self._begun, self.settings.label
        match event:
            case events.MessageSent(message=message, local=local, remote=remote, retransmission=again):
                self._painter.message(message, local, remote, sent=True, t=t, again=again, label=label)
            case events.MessageReceived(message=message, local=local, remote=remote):
                self._painter.message(message, local, remote, sent=False, t=t, label=label)
            case events.IkeEstablished(sa=sa):
                self._say("up", f"{sa.remote_identity} is logged in ({sa.suite})")
            case events.ChildUp(child=child):
                self._say("up", f"{child} ({child.suite}); what is sent on it is dropped")
            case events.PeerSeen(what=what):
                self._say("step", what)
            case events.Refused(remote=remote, error=error):
                self._say("error", f"{remote} was refused: {error}")
            case events.IkeClosed(error=error):
                kind = "closed" if error is None or isinstance(error, Closed) else "error"
                self._say(kind, str(error) if error else "by us")


def _put(queue: asyncio.Queue[Told], told: Told) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(told)


def _methods(connection: Connection) -> frozenset[MethodType]:
    """What the engine answers in EAP for this client; nothing when it has no log-in by EAP."""
    credentials = (connection.local_credential, *(each.credential for each in connection.further_credentials))
    peers = [each.new_peer(_nobody) for each in credentials if isinstance(each, EapCredential)]
    return frozenset(_ALWAYS).union(*(each.takes for each in peers)) if peers else frozenset()


async def _nobody(question: Question[Answer]) -> Answer:
    raise IkewayError("nobody is asked")

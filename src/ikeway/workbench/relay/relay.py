"""`Relay`: a stand-in gateway and a stand-in client, joined.

Theory of operation. The client's IKE_SA_INIT is answered at once. Its first IKE_AUTH says what it wants; with that a
stand-in client connects to the real gateway: the same identities, configuration request, traffic selectors, vendor IDs, and
whatever in it nobody here knows. The client is answered when the gateway has answered: with the gateway's addresses,
selectors and unknown payloads. EAP passes as it is (`eap`), or ends on both sides where the relay has a log-in of its own.
When one side ends, so does the other. What follows the log-in (liveness, new keys) each side does by itself, and traffic
is not carried.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from ikeway.address import Address
from ikeway.auth.identity import Identity, IdentityPattern
from ikeway.daemon.loop import Driver
from ikeway.errors import AuthenticationFailed, IkewayError, PeerError
from ikeway.ike import events
from ikeway.ike.questions import AssignAddresses, SelectConnection
from ikeway.ike.sa import IkeSa
from ikeway.ike.settings import (
    ChildSettings,
    Connection,
    EapCredential,
    EapExpected,
    PskCredential,
    ResponderSettings,
)
from ikeway.wire.message import Message
from ikeway.wire.payloads import (
    Configuration,
    ConfigurationAttribute,
    IdInitiator,
    IdResponder,
    Notify,
    Payload,
    TrafficSelectorsInitiator,
    TrafficSelectorsResponder,
    UnknownPayload,
    VendorId,
)
from ikeway.wire.registry import ExchangeType, NotifyType
from ikeway.workbench.bench.bench import Bench, BenchSettings
from ikeway.workbench.bench.desk import Turn
from ikeway.workbench.bench.hooks import Hooks, Passing
from ikeway.workbench.bench.running import Opened
from ikeway.workbench.bench.standin import Caller
from ikeway.workbench.relay.eap import EapPipe, NextFromClient, NextFromServer, PassingAuthenticator, PassingPeer

AUTH = ExchangeType.IKE_AUTH
_GOODBYE_SECONDS = 1.0
_LIVENESS_SECONDS = 30.0  # a side that is dead ends the other one, which we would keep alive
CLIENT, SERVER = "client", "server"


class Downstream(Protocol):
    """A stand-in gateway: `StandIn` or `GatewayStandIn`."""

    @property
    def responder(self) -> ResponderSettings | None:
        """How it answers strangers."""
        ...

    def set_up(self, driver: Driver) -> None:
        """Answer the engine's questions."""
        ...

    async def select(self, question: SelectConnection) -> Connection:
        """Which agreement holds with this client."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The real gateway, and what we connect to it with. `pass_eap`: EAP passes as it is, and `password` is that of
    the user, for EAP-MSCHAPv2; else the caller logs in with its own credential. `second_factor`: as with `EapPipe`.
    `keep_identity`: say who the caller's connection says, not who the client says it is."""

    remote: Address
    caller: Caller
    password: str | None = field(default=None, repr=False)
    pass_eap: bool = False
    second_factor: bool = False
    keep_identity: bool = False


@dataclass(slots=True, eq=False)
class _Link:
    """One client and its way to the gateway."""

    client: IkeSa
    request: Message
    pipe: EapPipe | None
    up: asyncio.Future[IkeSa]
    server: IkeSa | None = None
    reply: Message | None = None  # the gateway's last response in IKE_AUTH


class Relay:
    """An async context manager. `tools` as for a bench."""

    def __init__(self, settings: BenchSettings, downstream: Downstream, upstream: Upstream, tools: Opened) -> None:
        self._down, self._up = downstream, upstream
        self._links: WeakKeyDictionary[IkeSa, _Link] = WeakKeyDictionary()  # by either IKE SA
        self._requests: WeakKeyDictionary[IkeSa, Message] = WeakKeyDictionary()
        self._stack = AsyncExitStack()
        common: dict[str, Any] = {"engineer": tools.engineer, "recorder": tools.recorder, "painter": tools.painter}
        common["turn"] = Turn()
        hooks = tools.hooks.hooks
        self.downstream = Bench(
            replace(settings, label=CLIENT), _Serving(self), hooks=Hooks([*hooks, self._at_client]), **common
        )
        self.upstream = Bench(
            replace(settings, port=0, nat_port=0, label=SERVER),
            _Calling(upstream.caller),
            hooks=Hooks([self._at_server, *hooks]),
            **common,
        )

    async def __aenter__(self) -> Relay:
        """Listen. Raises `HostError`."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.upstream)
            await stack.enter_async_context(self.downstream)
            self._stack = stack.pop_all()
        self.downstream.driver.listen(self._on_event)
        self.upstream.driver.listen(self._on_event)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take leave of both sides: log-ins under way are refused."""
        for bench in (self.upstream, self.downstream):
            await bench.refuse_held()
        for link in set(self._links.values()):
            _fail(link, AuthenticationFailed("the relay ends"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                while any(not sa.established for sa in self.downstream.engine.sas):
                    await self.downstream.closed.get()
        await self._stack.aclose()

    # --- the log-in -------------------------------------------------------------------------------------------------

    async def select(self, question: SelectConnection, sa: IkeSa) -> Connection:
        """The client has said what it wants: ask the gateway for it."""
        connection = replace(await self._down.select(question), dpd_seconds=_LIVENESS_SECONDS)
        request = self._requests.get(sa)
        if request is None:
            raise AuthenticationFailed("the client said nothing that could be passed on")
        passes_eap = self._up.pass_eap and isinstance(connection.remote_expectation, EapExpected)
        pipe = EapPipe(self._up.password, self._up.second_factor) if passes_eap else None
        link = _Link(sa, request, pipe, asyncio.Future())
        self._links[sa] = link
        link.server = self.upstream.connect(self._connection(link), self._up.remote)
        if pipe is not None:
            self.upstream.desk.takes = None  # the client's answers are as good as our own
        self._links[link.server] = link
        if pipe is not None:
            return replace(connection, remote_expectation=EapExpected(lambda ask: PassingAuthenticator(ask, pipe)))
        server = await asyncio.shield(link.up)
        identity = connection.local_identity
        if isinstance(connection.local_credential, PskCredential) and server.remote_identity is not None:
            identity = server.remote_identity
        return replace(connection, local_identity=identity)

    async def assign(self, question: AssignAddresses) -> tuple[ConfigurationAttribute, ...]:
        """What the gateway has given us is the client's."""
        for sa, link in self._links.items():
            if sa.connection_id == question.connection_id and sa is link.client:
                return (await asyncio.shield(link.up)).configuration
        return ()

    def _connection(self, link: _Link) -> Connection:
        """What the client wants, with our credentials."""
        base, request = self._up.caller.connection, link.request
        identity, responder = request.find(IdInitiator), request.find(IdResponder)
        configuration = request.find(Configuration)
        ours, theirs = request.find(TrafficSelectorsInitiator), request.find(TrafficSelectorsResponder)
        changes: dict[str, Any] = {
            "request_configuration": configuration.attributes if configuration is not None else (),
            "children": (
                ChildSettings(
                    name="relayed",
                    local_selectors=ours.selectors if ours is not None else (),
                    remote_selectors=theirs.selectors if theirs is not None else (),
                ),
            ),
            "vendor_ids": tuple(dict.fromkeys((*base.vendor_ids, *link.client.peer.vendor_ids))),
            "dpd_seconds": _LIVENESS_SECONDS,
        }
        if link.pipe is not None:
            pipe = link.pipe
            changes["local_credential"] = EapCredential(lambda ask: PassingPeer(ask, pipe))
        if identity is not None and not self._up.keep_identity:
            changes["local_identity"] = Identity.from_payload(identity)
        if base.remote_identity is None:
            exact = Identity.from_payload(responder) if responder is not None else None
            changes["remote_identity"] = IdentityPattern.of(exact) if exact is not None else None
            changes["send_idr"] = exact is not None
        return replace(base, **changes)

    # --- what passes ------------------------------------------------------------------------------------------------

    def _at_client(self, m: Passing) -> None:
        """Towards the client: note what it wants, answer with the gateway's selectors and what is unknown."""
        if m.sa is None or not m.is_(AUTH):
            return
        if m.received and m.find(IdInitiator) is not None:
            self._requests[m.sa] = m.message
        link = self._links.get(m.sa)
        if not m.sent or link is None or link.reply is None or m.find(TrafficSelectorsResponder) is None:
            return
        for kind in (TrafficSelectorsInitiator, TrafficSelectorsResponder):
            mine, theirs = m.find(kind), link.reply.find(kind)
            if mine is not None and theirs is not None:
                m.replace(mine, theirs)
        m.add(*_strange(link.reply.payloads))

    def _at_server(self, m: Passing) -> None:
        """Towards the gateway: add what in the client's request is unknown here; note what comes back."""
        link = self._links.get(m.sa) if m.sa is not None else None
        if link is None or not m.is_(AUTH):
            return
        if m.sent and m.message_id == 1:
            m.add(*_strange(link.request.payloads))
        elif m.received:
            link.reply = m.message

    # --- what happens -----------------------------------------------------------------------------------------------

    def _on_event(self, event: events.Event) -> None:
        match event:
            case events.IkeEstablished(sa=sa):
                self._stands(sa)
            case events.IkeRekeyed(sa=sa, old=old):
                self._follow(sa, old)
            case events.IkeClosed(sa=sa, error=error):
                self._close_other(sa, error)

    def _stands(self, sa: IkeSa) -> None:
        link = self._links.get(sa)
        if link is None:
            return
        if sa is link.server and not link.up.done():
            link.up.set_result(sa)
        elif sa is link.client and link.server not in self._links:
            # The gateway's side has ended while the client was still logging in to us.
            asyncio.get_running_loop().call_soon(lambda: self.downstream.leave(sa))

    def _follow(self, sa: IkeSa, old: IkeSa) -> None:
        link = self._links.get(old)
        if link is None:
            return
        self._links[sa] = link
        if old is link.client:
            link.client = sa
        else:
            link.server = sa

    def _close_other(self, sa: IkeSa, error: IkewayError | None) -> None:
        link = self._links.pop(sa, None)
        if link is None:
            return
        reason = error or PeerError("the other side of the relay has ended")
        _fail(link, _told(reason))
        other, bench = (link.server, self.upstream) if sa is link.client else (link.client, self.downstream)
        if other is not None and other in self._links and (other.established or sa is link.client):
            asyncio.get_running_loop().call_soon(lambda: bench.leave(other))


class _Serving:
    """The relay's face towards clients."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    @property
    def responder(self) -> ResponderSettings | None:
        """As the stand-in."""
        return self._relay._down.responder

    def set_up(self, driver: Driver) -> None:
        """The stand-in's secrets, and the gateway's answers."""
        self._relay._down.set_up(driver)
        driver.answer_of_sa(SelectConnection, self._relay.select)
        driver.answer_with(AssignAddresses, self._relay.assign)
        driver.answer_with(NextFromServer, lambda question: question.pipe.for_client())


class _Calling:
    """The relay's face towards the gateway."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    @property
    def responder(self) -> None:
        """It serves nobody."""
        return

    def set_up(self, driver: Driver) -> None:
        """The profile's secrets, and the client's answers."""
        self._caller.set_up(driver)
        driver.answer_with(NextFromClient, lambda question: question.pipe.for_server())


def _strange(payloads: Iterable[Payload]) -> list[Payload]:
    """What no engine takes out of a message: unknown payloads and notifies, vendor IDs."""
    return [
        each
        for each in payloads
        if isinstance(each, UnknownPayload | VendorId) or (isinstance(each, Notify) and not each.type.is_known)
    ]


def _fail(link: _Link, error: IkewayError) -> None:
    if not link.up.done():
        link.up.set_exception(error)
        link.up.exception()  # somebody may wait for it, or nobody
    if link.pipe is not None:
        link.pipe.fail(error)


def _told(error: IkewayError) -> IkewayError:
    """The gateway's refusal, for the client: the same notify."""
    if isinstance(error, PeerError) and error.notify:
        return error
    return AuthenticationFailed(
        f"the gateway was not reached, or refused: {error.reason}",
        notify=NotifyType.AUTHENTICATION_FAILED,
        remedy=error.remedy,
    )

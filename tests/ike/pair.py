"""Two engines in memory with a network between them that the test rules: delay, loss, duplicates, order."""

from __future__ import annotations

import itertools
import random as random_module
from dataclasses import dataclass, field
from typing import Any

from ikeway.address import Address
from ikeway.auth.identity import Identity, IdentityPattern
from ikeway.auth.questions import PskQuestion
from ikeway.errors import IkewayError, NegotiationFailed
from ikeway.ike import events
from ikeway.ike.channel import Datagram
from ikeway.ike.engine import Engine
from ikeway.ike.proposals import parse_proposals
from ikeway.ike.questions import AssignAddresses, ReserveSpi, SelectConnection
from ikeway.ike.sa import IkeSa, IkeState
from ikeway.ike.selectors import selector
from ikeway.ike.settings import (
    ChildSettings,
    Connection,
    EngineSettings,
    PskCredential,
    PskExpected,
    ResponderSettings,
)
from ikeway.wire.registry import ProtocolId

A = Address("192.0.2.1", 500)
B = Address("198.51.100.1", 500)

# MODP and RSA are slow; tests of the engine need only be right.
IKE = parse_proposals("aes128gcm16-prfsha256-x25519")
ESP = parse_proposals("aes128gcm16-x25519", ProtocolId.ESP)


def child(name: str = "net", **changes: Any) -> ChildSettings:
    """A child SA between two fixed networks."""
    values: dict[str, Any] = {
        "name": name,
        "local_selectors": (selector("10.1.0.0/16"),),
        "remote_selectors": (selector("10.2.0.0/16"),),
        "proposals": ESP,
        "rekey_seconds": 0.0,
    }
    return ChildSettings(**(values | changes))


def mirrored(settings: ChildSettings) -> ChildSettings:
    """The same as the other side has it."""
    import dataclasses

    return dataclasses.replace(
        settings, local_selectors=settings.remote_selectors, remote_selectors=settings.local_selectors
    )


def connection(**changes: Any) -> Connection:
    """Side a's agreement: PSK, one child SA."""
    values: dict[str, Any] = {
        "name": "pair",
        "local_identity": Identity.parse("a.example"),
        "local_credential": PskCredential(b"a secret"),
        "remote_identity": IdentityPattern.parse("b.example"),
        "remote_expectation": PskExpected(b"a secret"),
        "ike_proposals": IKE,
        "children": (child(),),
        "dpd_seconds": 0.0,
        "rekey_seconds": 0.0,
    }
    return Connection(**(values | changes))


def connection_b(**changes: Any) -> Connection:
    """Side b's agreement with side a."""
    values: dict[str, Any] = {
        "local_identity": Identity.parse("b.example"),
        "remote_identity": IdentityPattern.parse("a.example"),
        "children": (mirrored(child()),),
    }
    return connection(**(values | changes))


@dataclass
class Host:
    """An engine, what it told, and what its data plane would hold."""

    name: str
    address: Address
    engine: Engine
    connection: Connection
    answers: dict[type, Any] = field(default_factory=dict)
    log: list[events.Event] = field(default_factory=list)
    inbound: dict[int, Any] = field(default_factory=dict)
    outbound: dict[int, Any] = field(default_factory=dict)

    def take_events(self, now: float) -> None:
        """Note the events, answer the questions, keep the data plane's books."""
        while found := self.engine.events():
            for event in found:
                self.log.append(event)
                self._take(event, now)

    def _take(self, event: events.Event, now: float) -> None:
        match event:
            case events.InboundAdded(esp=esp):
                assert esp.spi not in self.inbound
                self.inbound[esp.spi] = esp
            case events.OutboundAdded(esp=esp):
                assert esp.spi not in self.outbound
                self.outbound[esp.spi] = esp
            case events.InboundRemoved(spi=spi):
                del self.inbound[spi]
            case events.OutboundRemoved(spi=spi):
                del self.outbound[spi]
            case events.Asked(question=question):
                self.engine.answer(question, self._answer(question), now)
            case _:
                pass

    def _answer(self, question: Any) -> Any:
        given = self.answers.get(type(question))
        if given is not None:
            return given(question) if callable(given) else given
        if isinstance(question, SelectConnection):
            return self.connection
        if isinstance(question, AssignAddresses):
            return NegotiationFailed("no pool", notify=36)
        if isinstance(question, PskQuestion):
            return b"a secret"
        if isinstance(question, ReserveSpi):
            return len(self.inbound) + 0x1000
        raise AssertionError(question)

    def happened(self, kind: type) -> list[Any]:
        """All events of a kind so far."""
        return [event for event in self.log if isinstance(event, kind)]

    @property
    def sa(self) -> IkeSa:
        """The only living IKE SA."""
        (found,) = [sa for sa in self.engine.sas if sa.state is not IkeState.CLOSED]
        return found

    @property
    def errors(self) -> list[IkewayError]:
        """Why IKE SAs ended."""
        return [event.error for event in self.happened(events.IkeClosed) if event.error is not None]


class Pair:
    """Side a (initiator) and side b (responder)."""

    def __init__(
        self,
        a: Connection | None = None,
        b: Connection | None = None,
        *,
        responder: ResponderSettings | None = None,
        seed: int = 1,
        latency: float = 0.01,
        **engine: Any,
    ) -> None:
        source = random_module.Random(seed)
        self.source = source
        self.now = 1000.0
        self.latency = latency
        a = a or connection()
        b = b or connection_b()
        responder = responder or ResponderSettings(ike_proposals=b.ike_proposals, cookie_threshold=1000)
        self.a = Host("a", A, Engine(EngineSettings(**engine), random=source.randbytes), a)
        self.b = Host("b", B, Engine(EngineSettings(responder=responder, **engine), random=source.randbytes), b)
        self.wire: list[tuple[float, int, Datagram]] = []
        self.sent: list[Datagram] = []
        self.serial = itertools.count()
        # What the network does to a datagram: the delays of its copies.
        self.network = lambda datagram: [self.latency]

    def connect(self) -> None:
        """Side a connects, and everything settles."""
        self.a.engine.connect(self.a.connection, self.a.address, self.b.address, self.now)
        self.run()

    def collect(self) -> None:
        """Take events and datagrams of both sides."""
        for host in (self.a, self.b):
            host.take_events(self.now)
            for datagram in host.engine.outgoing():
                self.sent.append(datagram)
                for delay in self.network(datagram):
                    self.wire.append((self.now + delay, next(self.serial), datagram))
        self.wire.sort(key=lambda entry: entry[:2])

    def step(self, until: float) -> bool:
        """The next thing that happens, if it happens before `until`."""
        self.collect()
        times = [self.wire[0][0]] if self.wire else []
        times += [at for host in (self.a, self.b) if (at := host.engine.deadline()) is not None]
        if not times or min(times) > until:
            return False
        self.now = max(self.now, min(times))
        if self.wire and self.wire[0][0] <= self.now:
            _, _, datagram = self.wire.pop(0)
            self.deliver(datagram)
        else:
            for host in (self.a, self.b):
                host.engine.tick(self.now)
        self.collect()
        return True

    def deliver(self, datagram: Datagram) -> None:
        """Hand a datagram to whom it is addressed to."""
        for host in (self.a, self.b):
            if host.address.host == datagram.remote.host:
                host.engine.receive(datagram.octets, datagram.remote, datagram.local, self.now)

    def run(self, seconds: float = 0.5) -> None:
        """Let virtual time pass."""
        until = self.now + seconds
        while self.step(until):
            pass
        self.now = until

    def agree(self) -> None:
        """Both sides hold the same SAs, or neither holds any."""
        assert set(self.a.inbound) == set(self.b.outbound), "what a takes, b sends"
        assert set(self.b.inbound) == set(self.a.outbound), "what b takes, a sends"
        for spi, esp in self.a.inbound.items():
            assert self.b.outbound[spi].encryption_key == esp.encryption_key
            assert self.b.outbound[spi].remote_selectors == esp.local_selectors
        for spi, esp in self.b.inbound.items():
            assert self.a.outbound[spi].encryption_key == esp.encryption_key

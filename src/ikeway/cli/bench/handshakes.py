"""IKE in memory: two engines that shake hands, as often as wanted. No sockets, no data plane."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ikeway.address import Address
from ikeway.auth.identity import Identity, IdentityPattern
from ikeway.auth.questions import PskQuestion
from ikeway.errors import IkewayError
from ikeway.esp.parameters import EspSa
from ikeway.ike import events
from ikeway.ike.engine import Engine
from ikeway.ike.proposals import parse_proposals
from ikeway.ike.questions import ReserveSpi, SelectConnection
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

IKE_SUITE = "aes128gcm16-prfsha256-x25519"
_SECRET = b"of this benchmark only"
_NAMES = ("initiator.bench", "responder.bench")
_NO_LIMIT = 10**9
_WAITS = 2  # round trips: IKE_SA_INIT, IKE_AUTH


@dataclass(frozen=True, slots=True)
class Handshakes:
    """How it went: of so many, the seconds of one core that each role spent on all of them."""

    count: int
    initiator_seconds: float
    responder_seconds: float


@dataclass
class Side:
    """An engine, and what its data plane would hold."""

    engine: Engine
    connection: Connection
    inbound: list[EspSa] = field(default_factory=list)
    outbound: list[EspSa] = field(default_factory=list)
    spent: float = 0.0

    def take_events(self, now: float) -> None:
        """Answer questions, and note the SAs. Raises what ended a connection."""
        while found := self.engine.events():
            for event in found:
                match event:
                    case events.InboundAdded(esp=esp):
                        self.inbound.append(esp)
                    case events.OutboundAdded(esp=esp):
                        self.outbound.append(esp)
                    case events.Asked(sa=sa, question=question):
                        self.engine.answer(question, self._answer(question), now, sa=sa)
                    case events.IkeClosed(error=IkewayError() as error):
                        raise error

    def _answer(self, question: object) -> object:
        if isinstance(question, SelectConnection):
            return self.connection
        if isinstance(question, ReserveSpi):
            return len(self.inbound) + 0x1000
        if isinstance(question, PskQuestion):
            return _SECRET
        raise TypeError(f"nobody here answers {question!r}")


class Pair:
    """An initiator and a responder who share a secret. `networks` are what lies behind each of them."""

    def __init__(self, esp_suite: str, networks: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
        self._now = time.monotonic()
        self.sides = tuple(self._side(number, esp_suite, networks) for number in (0, 1))

    def connect(self, local: Address, remote: Address) -> None:
        """One handshake, with one child SA."""
        initiator, responder = self.sides
        begun = time.perf_counter()
        initiator.engine.connect(initiator.connection, local, remote, self._now)
        initiator.take_events(self._now)
        initiator.spent += time.perf_counter() - begun
        for _ in range(_WAITS):
            self._deliver(initiator, responder)
            self._deliver(responder, initiator)

    def _deliver(self, sender: Side, receiver: Side) -> None:
        datagrams = sender.engine.outgoing()
        begun = time.perf_counter()
        for datagram in datagrams:
            receiver.engine.receive(datagram.octets, datagram.remote, datagram.local, self._now)
            receiver.take_events(self._now)
        receiver.spent += time.perf_counter() - begun

    def _side(self, number: int, esp_suite: str, networks: tuple[tuple[str, ...], tuple[str, ...]]) -> Side:
        child = ChildSettings(
            name="bench",
            local_selectors=tuple(map(selector, networks[number])),
            remote_selectors=tuple(map(selector, networks[1 - number])),
            proposals=parse_proposals(esp_suite, ProtocolId.ESP),
            rekey_seconds=0.0,
        )
        proposals = parse_proposals(IKE_SUITE)
        connection = Connection(
            name="bench",
            local_identity=Identity.parse(_NAMES[number]),
            local_credential=PskCredential(_SECRET),
            remote_identity=IdentityPattern.parse(_NAMES[1 - number]),
            remote_expectation=PskExpected(_SECRET),
            ike_proposals=proposals,
            children=(child,),
            dpd_seconds=0.0,
            rekey_seconds=0.0,
            initial_contact=False,
            force_udp_encapsulation=True,
        )
        responder = ResponderSettings(
            ike_proposals=proposals, cookie_threshold=_NO_LIMIT, half_open_per_address=_NO_LIMIT
        )
        return Side(Engine(EngineSettings(responder=responder if number else None)), connection)


def shake_hands(seconds: float) -> Handshakes:
    """Handshakes for about so long, each from an address of its own."""
    pair = Pair("aes128gcm16", (("10.1.0.0/16",), ("10.2.0.0/16",)))
    responder = Address("198.51.100.1", 4500)
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        pair.connect(Address(f"10.{count >> 16}.{count >> 8 & 255}.{count & 255}", 4500), responder)
        count += 1
    if len(pair.sides[1].inbound) != count:
        raise IkewayError(f"of {count} handshakes only {len(pair.sides[1].inbound)} came to an end")
    return Handshakes(count, pair.sides[0].spent, pair.sides[1].spent)

"""A recorded log-in once more, in memory: what the engine of today says to the peer of then.

Theory of operation. Two engines, no sockets and no clock. One stands for the recorded peer: it is set up with what the peer
offered or chose (algorithms, identity, selectors, address), and a `Replay` puts into its messages what was in them then.
The other one is under test: what we offered or chose in the recording, and nothing else of it. Keys belong to one session,
and a certificate's to its owner, so both log in by a key of this test's own: AUTH is another one, and where the session went
on by EAP, it ends here with the first IKE_AUTH. What comes out is the same each time, but for random octets, which no
summary shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ikeway.address import Address
from ikeway.auth.identity import Identity
from ikeway.crypto.key_exchange import key_exchange_methods
from ikeway.errors import IkewayError
from ikeway.ike import events
from ikeway.ike.engine import Engine
from ikeway.ike.proposals import DEFAULT_ESP_PROPOSALS, DEFAULT_IKE_PROPOSALS
from ikeway.ike.questions import AssignAddresses, SelectConnection
from ikeway.ike.sa import IkeSa
from ikeway.ike.settings import (
    ChildSettings,
    Connection,
    EngineSettings,
    PskCredential,
    PskExpected,
    ResponderSettings,
)
from ikeway.wire.message import Message
from ikeway.wire.payloads import (
    Configuration,
    ConfigurationAttribute,
    IdInitiator,
    IdResponder,
    KeyExchange,
    Payload,
    Proposal,
    SecurityAssociation,
    TrafficSelectorsInitiator,
    TrafficSelectorsResponder,
)
from ikeway.wire.registry import ConfigurationAttributeType, ExchangeType, ProtocolId, TransformType
from ikeway.wire.render import summary
from ikeway.workbench.bench.hooks import Passing
from ikeway.workbench.bench.replay import Replay
from ikeway.workbench.bench.standin import EVERYWHERE
from ikeway.workbench.recording import Recording

P = TypeVar("P", bound=Payload)
_KEY = b"of a log-in in memory only"
_CLIENT, _GATEWAY = Address("192.0.2.1", 500), Address("198.51.100.1", 500)
_ROUNDS = 20
_ADDRESSES = (ConfigurationAttributeType.INTERNAL_IP4_ADDRESS, ConfigurationAttributeType.INTERNAL_IP6_ADDRESS)


def log_in_again(recording: Recording) -> tuple[str, ...]:
    """What went to and fro, a line each: "<" came from the peer of then, ">" is the engine's of now; and in the last one
    what became of it. Raises `ConfigError` when one of the sides is not in the recording."""
    ours = recording.role == "initiator"
    sides = {initiator: _Side.of(recording, initiator=initiator) for initiator in (True, False)}
    peer = Replay(recording, initiator=not ours)
    client, gateway = sides[True], sides[False].serving(sides[True])
    calling = _Watch(None if ours else peer)
    serving = _Watch(peer if ours else None)
    engines = (
        Engine(EngineSettings(interception=calling)),
        Engine(EngineSettings(responder=ResponderSettings(ike_proposals=gateway.ike), interception=serving)),
    )
    engines[0].connect(_caller(client), _CLIENT, _GATEWAY, 0.0)
    return tuple(_run(engines, gateway, watched=0 if ours else 1))


class _Watch:
    """An interception that lets the peer say what it said."""

    def __init__(self, replay: Replay | None) -> None:
        self._replay = replay

    def sending(self, sa: IkeSa, message: Message) -> Message:
        """Put into it what was in it then."""
        passing = Passing(message, sa, sent=True, memory={})
        if self._replay is not None:
            self._replay(passing)
        return passing.message

    def received(self, sa: IkeSa | None, message: Message) -> Message:
        """Nothing is changed."""
        return message


@dataclass(frozen=True, slots=True)
class _Side:
    """What one side had to say of itself, as the settings of an engine."""

    identity: Identity | None
    ike: tuple[Proposal, ...]
    child: ChildSettings
    wishes: tuple[ConfigurationAttribute, ...]

    @classmethod
    def of(cls, recording: Recording, *, initiator: bool) -> _Side:
        """Out of its messages."""
        said = [each for each in recording.said_by(initiator=initiator) if each.is_response is not initiator]
        init = [each for each in said if each.exchange_type == ExchangeType.IKE_SA_INIT]
        auth = [each for each in said if each.exchange_type == ExchangeType.IKE_AUTH]
        identity = _first(auth, IdInitiator if initiator else IdResponder)
        security, configuration = _first(auth, SecurityAssociation), _first(auth, Configuration)
        mine, theirs = _first(auth, TrafficSelectorsInitiator), _first(auth, TrafficSelectorsResponder)
        selectors = [each.selectors if each is not None else EVERYWHERE for each in (mine, theirs)]
        return cls(
            identity=Identity.from_payload(identity) if isinstance(identity, IdInitiator | IdResponder) else None,
            ike=_usable(init) or DEFAULT_IKE_PROPOSALS,
            child=ChildSettings(
                name="net",
                local_selectors=selectors[0],
                remote_selectors=selectors[1],
                proposals=tuple(_without_spi(security)) or DEFAULT_ESP_PROPOSALS,
            ),
            wishes=configuration.attributes if configuration is not None else (),
        )

    def serving(self, client: _Side) -> _Side:
        """A gateway that grants what this client wishes, or the address that it gave it then."""
        gives = bool(_addresses(self.wishes, client.wishes))
        child = replace(self.child, local_selectors=EVERYWHERE, remote_selectors=() if gives else EVERYWHERE)
        return replace(self, child=child)


def _addresses(
    given: Sequence[ConfigurationAttribute], asked: Sequence[ConfigurationAttribute]
) -> tuple[ConfigurationAttribute, ...]:
    types = {each.type for each in asked}
    return tuple(each for each in given if each.type in _ADDRESSES and each.type in types and each.value)


def _first(messages: Sequence[Message], kind: type[P]) -> P | None:
    return next((found for each in messages if (found := each.find(kind)) is not None), None)


def _usable(init: Sequence[Message]) -> tuple[Proposal, ...]:
    """The proposals of IKE_SA_INIT, with key exchange methods that we have; that of the KE payload first."""
    security, key = _first(init, SecurityAssociation), _first(init, KeyExchange)
    known = key_exchange_methods()
    found = []
    for proposal in security.proposals if security is not None else ():
        kept = [each for each in proposal.transforms if each.type != TransformType.KE or each.id in known]
        kept.sort(key=lambda each: each.type == TransformType.KE and (key is None or each.id != key.method))
        if proposal.protocol == ProtocolId.IKE and any(each.type == TransformType.KE for each in kept):
            found.append(replace(proposal, transforms=tuple(kept)))
    return tuple(found)


def _without_spi(security: SecurityAssociation | None) -> Iterator[Proposal]:
    for each in security.proposals if security is not None else ():
        yield replace(each, spi=b"")


def _caller(side: _Side) -> Connection:
    return replace(
        _connection(side),
        local_identity=side.identity or Identity.parse("client.invalid"),
        request_configuration=side.wishes,
    )


def _connection(side: _Side) -> Connection:
    return Connection(
        name="again",
        local_identity=side.identity,
        local_credential=PskCredential(_KEY),
        remote_identity=None,
        remote_expectation=PskExpected(_KEY),
        ike_proposals=side.ike,
        children=(side.child,),
        dpd_seconds=0.0,
        rekey_seconds=0.0,
    )


@dataclass(slots=True)
class _Story:
    """What the engine under test told."""

    lines: list[str] = field(default_factory=list)
    up: str = ""
    closed: IkewayError | None = None

    def hear(self, event: events.Event) -> None:
        """Note what belongs to it."""
        match event:
            case events.MessageSent(message=message, retransmission=0):
                self.lines.append(f"> {summary(message)}")
            case events.MessageReceived(message=message):
                self.lines.append(f"< {summary(message)}")
            case events.IkeEstablished(sa=sa):
                self.up = f"logged in, {sa.suite}"
            case events.ChildUp(child=child):
                self.up += f"; a child SA, {child.suite}"
            case events.Refused(error=error) | events.IkeClosed(error=IkewayError() as error):
                self.closed = self.closed or error


def _run(engines: tuple[Engine, Engine], gateway: _Side, *, watched: int) -> Iterator[str]:
    """Carry what is sent until nobody has anything more to say."""
    story = _Story()
    for step in range(_ROUNDS):
        now = step * 0.001
        for number, (engine, other) in enumerate((engines, engines[::-1])):
            for event in engine.events():
                if number == watched:
                    story.hear(event)
                if isinstance(event, events.Asked):
                    engine.answer(event.question, _answer(event, gateway), now, sa=event.sa)
            for datagram in engine.outgoing():
                other.receive(datagram.octets, datagram.remote, datagram.local, now)
    yield from story.lines
    yield story.up or f"not logged in: {story.closed.reason if story.closed is not None else 'nobody answers'}"


def _answer(event: events.Asked, gateway: _Side) -> object:
    match event.question:
        case SelectConnection(responder_identity=wanted):
            return replace(_connection(gateway), local_identity=gateway.identity or wanted)
        case AssignAddresses(requested=requested):
            return _addresses(gateway.wishes, requested)
    return IkewayError(f"{type(event.question).__name__} is not asked in this log-in")

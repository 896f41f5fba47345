"""A dialect: what a vendor does otherwise, as a value, and how it gets into a connection.

Most of it is data (vendor IDs, IDi, notifies, configuration attributes). Where a vendor has something of its own to do,
there is a function: what a CFG_REPLY means, a fragmentation, the hash of a signature. EAP methods of a vendor are EAP
methods like others. Values are made by the modules beside this one, from the options of a configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ikeway.auth.identity import Identity
from ikeway.ike.interception import combine
from ikeway.ike.own_fragments import NewOwnFragmentation, OwnFragmentation
from ikeway.ike.settings import Connection, ResponderSettings
from ikeway.wire.message import Message
from ikeway.wire.payloads import Configuration, ConfigurationAttribute, Eap, Payload, Proposal, VendorId
from ikeway.wire.registry import (
    ConfigurationAttributeType,
    ConfigurationType,
    ExchangeType,
    HashAlgorithm,
    PseudorandomFunction,
)

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa

Attributes = tuple[ConfigurationAttribute, ...]
Random = Callable[[int], bytes]

INIT, AUTH = ExchangeType.IKE_SA_INIT, ExchangeType.IKE_AUTH


@dataclass(frozen=True, slots=True)
class Reading:
    """A CFG_REPLY as the engine's side understands it, and what of it is for people."""

    attributes: Attributes
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """See the module. All fields but the name are what a vendor changes; the defaults change nothing.

    `vendor_ids` are sent in IKE_SA_INIT: by an initiator always, by a responder to who `is_spoken_by`, by its vendor IDs.
    `claims`: by IDi, the clients that a gateway serves in this dialect and no others; None: the dialect says nothing of
    it. `init_payloads` go into IKE_SA_INIT, `auth_payloads` into the first message of IKE_AUTH, behind the others (before
    EAP), made anew for each IKE SA.
    `requests` is added to an initiator's CFG_REQUEST; `replies` to a responder's CFG_REPLY, of them what was asked for.
    """

    name: str
    vendor_ids: tuple[bytes, ...] = ()
    is_spoken_by: Callable[[Sequence[bytes]], bool] = lambda vendor_ids: True
    identity: Identity | None = None
    claims: Callable[[Identity], bool] | None = None
    init_payloads: tuple[Payload, ...] = ()
    auth_payloads: Callable[[IkeSa], tuple[Payload, ...]] = lambda sa: ()
    requests: Attributes = ()
    replies: Attributes = ()
    read_reply: Callable[[Attributes], Reading] | None = None
    fragmentation: Callable[[], OwnFragmentation] | None = None
    fragments_with: Callable[[Sequence[bytes]], bool] = lambda vendor_ids: False
    hash_of_method_1: Callable[[PseudorandomFunction], HashAlgorithm] | None = None
    ike_proposals: tuple[Proposal, ...] = ()  # for an initiator's user who names none; empty: the usual ones
    esp_proposals: tuple[Proposal, ...] = ()
    sends_idr: bool = True
    any_certificate_name: bool = False  # the gateway's IDr may be another name of its certificate than the wanted one
    # One object for connections and responder: what was asked before the connection was known is answered after it.
    interception: DialectInterception = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "interception", DialectInterception(self))

    @property
    def own_fragmentation(self) -> NewOwnFragmentation | None:
        """As the engine takes it."""
        make = self.fragmentation
        if make is None:
            return None
        return lambda vendor_ids: make() if self.fragments_with(vendor_ids) else None


@dataclass(frozen=True, slots=True)
class DialectInterception:
    """Puts into messages what the dialect adds, and reads what it changes."""

    dialect: Dialect
    _asked: WeakKeyDictionary[IkeSa, frozenset[ConfigurationAttributeType]] = field(
        default_factory=WeakKeyDictionary, repr=False, compare=False
    )

    def sending(self, sa: IkeSa, message: Message) -> Message:
        """Add."""
        dialect = self.dialect
        if message.exchange_type == INIT:
            return _with(message, self._of_init(sa, message))
        if message.exchange_type != AUTH:
            return message
        if message.message_id == 1:
            message = _with(message, dialect.auth_payloads(sa))
        if (configuration := message.find(Configuration)) is not None:
            message = _replaced(message, configuration, self._configuration(sa, configuration))
        return message

    def received(self, sa: IkeSa | None, message: Message) -> Message:
        """Note what was asked for; understand what was answered."""
        if sa is None or message.exchange_type != AUTH:
            return message
        configuration = message.find(Configuration)
        if configuration is None:
            return message
        if configuration.type == ConfigurationType.CFG_REQUEST:
            self._asked[sa] = frozenset(attribute.type for attribute in configuration.attributes)
        elif configuration.type == ConfigurationType.CFG_REPLY and self.dialect.read_reply is not None:
            from ikeway.ike.events import PeerSeen

            reading = self.dialect.read_reply(configuration.attributes)
            for note in reading.notes:
                sa.report(PeerSeen(sa, note))
            return _replaced(message, configuration, replace(configuration, attributes=reading.attributes))
        return message

    def _of_init(self, sa: IkeSa, message: Message) -> tuple[Payload, ...]:
        if message.is_response and not self.dialect.is_spoken_by(sa.peer.vendor_ids):
            return ()
        there = {payload.value for payload in message.find_all(VendorId)}
        ids = tuple(VendorId(octets) for octets in self.dialect.vendor_ids if octets not in there)
        return (*self.dialect.init_payloads, *ids)

    def _configuration(self, sa: IkeSa, configuration: Configuration) -> Configuration:
        if configuration.type == ConfigurationType.CFG_REQUEST:
            extra = self.dialect.requests
        else:
            asked = self._asked.get(sa, frozenset())
            extra = tuple(attribute for attribute in self.dialect.replies if attribute.type in asked)
        return replace(configuration, attributes=(*configuration.attributes, *extra))


def _with(message: Message, extra: tuple[Payload, ...]) -> Message:
    """The message with more payloads: before EAP, where there is one, else at the end."""
    if not extra:
        return message
    at = next((i for i, payload in enumerate(message.payloads) if isinstance(payload, Eap)), len(message.payloads))
    return replace(message, payloads=(*message.payloads[:at], *extra, *message.payloads[at:]))


def _replaced(message: Message, old: Payload, new: Payload) -> Message:
    return replace(message, payloads=tuple(new if payload is old else payload for payload in message.payloads))


def for_client(dialect: Dialect, connection: Connection) -> Connection:
    """The connection of an initiator that speaks it. What the connection says itself (IDi) stays."""
    return replace(
        _both(dialect, connection),
        local_identity=connection.local_identity or dialect.identity,
        send_idr=connection.send_idr and dialect.sends_idr,
        any_certificate_name=dialect.any_certificate_name,
    )


def for_gateway(dialect: Dialect, connection: Connection) -> Connection:
    """The connection of a responder with clients that speak it. `for_responder` belongs to it."""
    return _both(dialect, connection)


def _both(dialect: Dialect, connection: Connection) -> Connection:
    return replace(
        connection,
        interception=combine(dialect.interception, connection.interception),
        own_fragmentation=dialect.own_fragmentation or connection.own_fragmentation,
        hash_of_method_1=dialect.hash_of_method_1 or connection.hash_of_method_1,
    )


def for_responder(dialects: Iterable[Dialect], settings: ResponderSettings) -> ResponderSettings:
    """What a responder of these dialects says in IKE_SA_INIT, before it knows which of its connections is meant."""
    for dialect in dialects:
        settings = replace(
            settings,
            interception=combine(dialect.interception, settings.interception),
            own_fragmentation=_either(dialect.own_fragmentation, settings.own_fragmentation),
        )
    return settings


def _either(first: NewOwnFragmentation | None, second: NewOwnFragmentation | None) -> NewOwnFragmentation | None:
    if first is None or second is None:
        return first or second
    return lambda vendor_ids: first(vendor_ids) or second(vendor_ids)

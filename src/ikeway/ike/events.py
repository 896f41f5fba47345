"""What the engine tells the outside. Frozen values, in the order in which they happened.

Events that install or remove SAs must be carried out before the datagrams of `Engine.outgoing()` are sent: the peer may
use a new SA as soon as it has our message.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ikeway.address import Address
from ikeway.crypto import ChildKeys, IkeKeys
from ikeway.errors import IkewayError
from ikeway.esp.parameters import EspSa
from ikeway.ike.proposals import Suite
from ikeway.questions import Question
from ikeway.wire.message import Message
from ikeway.wire.payloads import ConfigurationAttribute

if TYPE_CHECKING:
    from ikeway.ike.child import ChildSa
    from ikeway.ike.sa import IkeSa
    from ikeway.ike.settings import ChildSettings


@dataclass(frozen=True, slots=True)
class Asked:
    """The engine needs an answer: call `Engine.answer(question, answer_or_error, now)`, at once or later."""

    sa: IkeSa | None
    question: Question[Any]


@dataclass(frozen=True, slots=True)
class InboundAdded:
    """Begin to accept ESP on this SA."""

    esp: EspSa
    child: ChildSa


@dataclass(frozen=True, slots=True)
class OutboundAdded:
    """Begin to send on this SA, in place of older ones of the same `child_id`."""

    esp: EspSa
    child: ChildSa


@dataclass(frozen=True, slots=True)
class InboundRemoved:
    """Stop accepting ESP on this SPI."""

    spi: int
    child: ChildSa


@dataclass(frozen=True, slots=True)
class OutboundRemoved:
    """Stop sending on this SPI."""

    spi: int
    remote: Address
    child: ChildSa


@dataclass(frozen=True, slots=True)
class ChildUp:
    """A child SA carries traffic; `replaces` is the one that it was rekeyed from."""

    sa: IkeSa
    child: ChildSa
    replaces: ChildSa | None = None


@dataclass(frozen=True, slots=True)
class ChildDown:
    """A child SA is gone and nothing has replaced it. `error` None: it was deleted on purpose."""

    sa: IkeSa
    child: ChildSa
    error: IkewayError | None = None


@dataclass(frozen=True, slots=True)
class ChildFailed:
    """A child SA could not be made; the IKE SA lives on."""

    sa: IkeSa
    settings: ChildSettings
    error: IkewayError


@dataclass(frozen=True, slots=True)
class IkeEstablished:
    """Both sides are authenticated. `replaces` is the SA whose reauthentication this is."""

    sa: IkeSa
    replaces: IkeSa | None = None


@dataclass(frozen=True, slots=True)
class IkeRekeyed:
    """`sa` has taken over from `old`, child SAs included."""

    sa: IkeSa
    old: IkeSa


@dataclass(frozen=True, slots=True)
class IkeClosed:
    """The IKE SA and its child SAs are gone. `error` None: closed by us on purpose; else why.

    `established` False: it never was. Not told of SAs that were replaced by rekeying.
    """

    sa: IkeSa
    error: IkewayError | None
    established: bool


@dataclass(frozen=True, slots=True)
class ConfigurationReceived:
    """Initiator: the CFG_REPLY (RFC 7296 section 3.15)."""

    sa: IkeSa
    attributes: tuple[ConfigurationAttribute, ...]


@dataclass(frozen=True, slots=True)
class PathChanged:
    """The outer addresses of a connection changed (MOBIKE or NAT): tell the data plane."""

    sa: IkeSa
    local: Address
    remote: Address
    udp_encapsulation: bool


@dataclass(frozen=True, slots=True)
class KeepaliveDue:
    """Send one NAT-keepalive octet 0xFF (RFC 3948 section 2.3)."""

    local: Address
    remote: Address


@dataclass(frozen=True, slots=True)
class Refused:
    """A peer or its message was refused. `rate_limited` marks what a stranger can cause at will."""

    local: Address
    remote: Address
    error: IkewayError
    rate_limited: bool = False


@dataclass(frozen=True, slots=True)
class PeerSeen:
    """A step of the log-in for people to see: `what` in a few words (server identity, chosen proposal...)."""

    sa: IkeSa
    what: str


@dataclass(frozen=True, slots=True)
class Weak:
    """A proof of identity is weaker than it should be, for the sake of a peer that can do no better."""

    sa: IkeSa
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class MessageSent:
    """A message that goes out, in plaintext; `retransmission` counts from 0."""

    sa: IkeSa | None
    message: Message
    local: Address
    remote: Address
    retransmission: int = 0


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """An authentic (or, in IKE_SA_INIT, well-formed) message that came in, in plaintext."""

    sa: IkeSa | None
    message: Message
    local: Address
    remote: Address


@dataclass(frozen=True, slots=True)
class Remark:
    """What an interception has to say of a message, in its place among the messages."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class IkeKeysDerived:
    """For key logs only."""

    sa: IkeSa
    initiator_spi: bytes
    responder_spi: bytes
    suite: Suite
    keys: IkeKeys = field(repr=False)


@dataclass(frozen=True, slots=True)
class ChildKeysDerived:
    """For key logs only: the two directions of a child SA."""

    inbound: EspSa
    outbound: EspSa
    keys: ChildKeys = field(repr=False)


Event = (
    Asked
    | InboundAdded
    | OutboundAdded
    | InboundRemoved
    | OutboundRemoved
    | ChildUp
    | ChildDown
    | ChildFailed
    | IkeEstablished
    | IkeRekeyed
    | IkeClosed
    | ConfigurationReceived
    | PathChanged
    | KeepaliveDue
    | Refused
    | PeerSeen
    | Weak
    | MessageSent
    | MessageReceived
    | Remark
    | IkeKeysDerived
    | ChildKeysDerived
)

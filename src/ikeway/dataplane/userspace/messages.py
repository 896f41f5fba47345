"""What the daemon and the worker say to each other over their socket pair: one message a datagram.

A request carries a number, its answer the same one. Events have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ikeway.address import Address
from ikeway.dataplane.interface import HardExpired, IkeReceived, PeerMoved, SoftExpired, UnknownSpi, Unreachable
from ikeway.dataplane.userspace.codec import (
    ADDRESS,
    BOOL,
    FLOAT,
    I32,
    OCTETS,
    TEXT,
    U8,
    U16,
    U32,
    U64,
    Choice,
    CodecError,
    Cursor,
    Many,
    Maybe,
    Number,
    Record,
)
from ikeway.esp.drops import Drop
from ikeway.esp.parameters import Encapsulation, EspLimits, EspSa, EspTransforms, Mode
from ikeway.wire.payloads import TrafficSelector
from ikeway.wire.registry import EncryptionAlgorithm, IntegrityAlgorithm, TrafficSelectorType


@dataclass(frozen=True, slots=True)
class SocketRole:
    """An inherited socket: its family, and whether it carries raw ESP instead of UDP."""

    fd: int
    ipv6: bool
    raw_esp: bool


@dataclass(frozen=True, slots=True)
class Configure:
    """First of all: the inherited descriptors and what to do with them."""

    request: int
    tun_fd: int
    vnet_header: bool
    mtu: int
    clamp_mss: bool
    ledger_fd: int
    sockets: tuple[SocketRole, ...]


@dataclass(frozen=True, slots=True)
class Begin:
    """All SAs that there were are installed again: read the device and the sockets from now on."""

    request: int


@dataclass(frozen=True, slots=True)
class DropCount:
    """How many packets were dropped for a reason."""

    reason: Drop
    count: int


@dataclass(frozen=True, slots=True)
class Past:
    """Where an SA goes on: its slot in the ledger, and what earlier workers have done with it.

    `mark` is the last sequence number that may have been used or, inbound, the highest one authenticated.
    """

    slot: int
    mark: int = 0
    iv_base: int = 0  # outbound only
    packets: int = 0
    octets: int = 0
    last_used: float = 0.0
    dropped: tuple[DropCount, ...] = ()


@dataclass(frozen=True, slots=True)
class AddInbound:
    """Begin to accept."""

    request: int
    sa: EspSa
    past: Past


@dataclass(frozen=True, slots=True)
class AddOutbound:
    """Begin to send."""

    request: int
    sa: EspSa
    past: Past


@dataclass(frozen=True, slots=True)
class RemoveInbound:
    """Stop accepting."""

    request: int
    spi: int


@dataclass(frozen=True, slots=True)
class RemoveOutbound:
    """Stop sending."""

    request: int
    spi: int
    remote: Address


@dataclass(frozen=True, slots=True)
class Move:
    """New outer addresses."""

    request: int
    connection_id: int
    local: Address
    remote: Address
    udp: bool


@dataclass(frozen=True, slots=True)
class SetMtu:
    """The TUN device has another MTU now."""

    request: int
    mtu: int


@dataclass(frozen=True, slots=True)
class LearnMtu:
    """Another process was told by ICMP that a router on the way to `host` passes only so much."""

    request: int
    host: str
    mtu: int


@dataclass(frozen=True, slots=True)
class PathNarrowed:
    """ICMP says that a router on the way to `host` passes only so much. Unauthenticated: a hint only. Rate-limited."""

    host: str
    mtu: int


@dataclass(frozen=True, slots=True)
class ReadCounters:
    """Answered by one or more `CounterPage`."""

    request: int


@dataclass(frozen=True, slots=True)
class Done:
    """The request is carried out."""

    request: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The request was refused."""

    request: int
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class CounterEntry:
    """The counters of one SA."""

    spi: int
    inbound: bool
    packets: int
    octets: int
    last_used: float
    dropped: tuple[DropCount, ...]


@dataclass(frozen=True, slots=True)
class CounterPage:
    """Some of the counters; `last` ends the answer."""

    request: int
    last: bool
    entries: tuple[CounterEntry, ...]


Request = (
    Configure
    | Begin
    | AddInbound
    | AddOutbound
    | RemoveInbound
    | RemoveOutbound
    | Move
    | SetMtu
    | LearnMtu
    | ReadCounters
)
Reply = Done | Failed | CounterPage
WorkerEvent = SoftExpired | HardExpired | PeerMoved | UnknownSpi | Unreachable | IkeReceived | PathNarrowed
Message = Request | Reply | WorkerEvent

_SELECTOR = Record(
    TrafficSelector,
    type=Number("B", TrafficSelectorType),
    protocol=U8,
    start_port=U16,
    end_port=U16,
    start_address=OCTETS,
    end_address=OCTETS,
)
_TRANSFORMS = Record(
    EspTransforms,
    encryption=Number("H", EncryptionAlgorithm),
    key_bits=Maybe(U16),
    integrity=Maybe(Number("H", IntegrityAlgorithm)),
    extended_sequence_numbers=BOOL,
)
_LIMITS = Record(EspLimits, soft_bytes=U64, hard_bytes=U64, soft_packets=U64, hard_packets=U64)
_SA = Record(
    EspSa,
    spi=U32,
    child_id=U64,
    connection_id=U64,
    transforms=_TRANSFORMS,
    encryption_key=OCTETS,
    integrity_key=OCTETS,
    mode=Choice(Mode),
    encapsulation=Choice(Encapsulation),
    local=ADDRESS,
    remote=ADDRESS,
    local_selectors=Many(_SELECTOR),
    remote_selectors=Many(_SELECTOR),
    replay_window=U32,
    limits=_LIMITS,
    follow_peer=BOOL,
)
_DROPS = Many(Record(DropCount, reason=Choice(Drop), count=U64))
_PAST = Record(Past, slot=U32, mark=U64, iv_base=U64, packets=U64, octets=U64, last_used=FLOAT, dropped=_DROPS)
_ENTRY = Record(
    CounterEntry,
    spi=U32,
    inbound=BOOL,
    packets=U64,
    octets=U64,
    last_used=FLOAT,
    dropped=_DROPS,
)

_FORMS: tuple[Record[Any], ...] = (
    Record(
        Configure,
        request=U32,
        tun_fd=I32,
        vnet_header=BOOL,
        mtu=U32,
        clamp_mss=BOOL,
        ledger_fd=I32,
        sockets=Many(Record(SocketRole, fd=I32, ipv6=BOOL, raw_esp=BOOL)),
    ),
    Record(Begin, request=U32),
    Record(AddInbound, request=U32, sa=_SA, past=_PAST),
    Record(AddOutbound, request=U32, sa=_SA, past=_PAST),
    Record(RemoveInbound, request=U32, spi=U32),
    Record(RemoveOutbound, request=U32, spi=U32, remote=ADDRESS),
    Record(Move, request=U32, connection_id=U64, local=ADDRESS, remote=ADDRESS, udp=BOOL),
    Record(SetMtu, request=U32, mtu=U32),
    Record(LearnMtu, request=U32, host=TEXT, mtu=U32),
    Record(ReadCounters, request=U32),
    Record(Done, request=U32),
    Record(Failed, request=U32, reason=TEXT, remedy=TEXT),
    Record(CounterPage, request=U32, last=BOOL, entries=Many(_ENTRY)),
    Record(SoftExpired, spi=U32, inbound=BOOL),
    Record(HardExpired, spi=U32, inbound=BOOL),
    Record(PeerMoved, spi=U32, remote=ADDRESS),
    Record(UnknownSpi, spi=U32, remote=ADDRESS),
    Record(IkeReceived, octets=OCTETS, local=ADDRESS, remote=ADDRESS),
    Record(Unreachable, remote=ADDRESS, code=U32),
    Record(PathNarrowed, host=TEXT, mtu=U32),
)
_NUMBERS = {form.kind: number for number, form in enumerate(_FORMS)}


def encode(message: Message) -> bytes:
    """The octets of a message."""
    number = _NUMBERS[type(message)]
    out = bytearray((number,))
    _FORMS[number].write(message, out)
    return bytes(out)


def decode(octets: bytes) -> Message:
    """The message in octets. Raises `CodecError`."""
    cursor = Cursor(octets)
    number = cursor.take(1)[0]
    if number >= len(_FORMS):
        raise CodecError(f"there is no control message {number}")
    message: Message = _FORMS[number].read(cursor)
    if cursor.at != len(octets):
        raise CodecError("the control message is too long", expected=f"{cursor.at} octets", got=str(len(octets)))
    return message

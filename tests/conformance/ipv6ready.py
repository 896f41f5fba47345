"""What the cases of the IPv6 Ready IKEv2 conformance specification have in common: names, peers, and a tester.

The specification has every case twice: between end nodes (EN, transport mode) and between security gateways (SGW, tunnel
mode). The engine is the node under test; the tester (a `Stranger` with the keys of a peer) writes every message by hand.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import pytest

from ikeway.esp.parameters import Mode
from ikeway.ike import events
from ikeway.ike.proposals import parse_proposals, with_numbers
from ikeway.ike.selectors import selector
from ikeway.ike.settings import ChildSettings, Retransmission
from ikeway.wire.message import Message
from ikeway.wire.payloads import (
    Authentication,
    Nonce,
    Notify,
    Payload,
    Proposal,
    SecurityAssociation,
    TrafficSelectorsInitiator,
    TrafficSelectorsResponder,
    Transform,
)
from ikeway.wire.registry import ExchangeType, NotifyType, ProtocolId, TransformType
from tests.ike.pair import A, B, Pair, child, connection, connection_b, mirrored
from tests.ike.stranger import IKE_AUTH, Stranger, after_init
from tests.vectors import vector

FILE = "conformance/ipv6ready-ikev2-conformance-v2.0.0a.jsonl"
COVERED: set[str] = set()
ESP = parse_proposals("aes128gcm16", ProtocolId.ESP)
TESTER_SPI = bytes.fromhex("abcd1234")
TESTER_NONCE = bytes(range(32))
QUICK = Retransmission(first=0.5, factor=1.5, tries=4, limit=2)


@functools.cache
def titles() -> dict[str, str]:
    """The cases of the specification."""
    entries = [json.loads(line) for line in vector(FILE).read_text(encoding="utf-8").splitlines()]
    return {entry["id"]: entry["title"] for entry in entries}


def covers(*cases: str, nodes: tuple[str, ...] = ("EN", "SGW")) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Mark a test with the cases that it carries out; it gets each kind of `node` for which the case exists."""
    COVERED.update(f"IKEv2.{node}.{case}" for node in nodes for case in cases)
    return pytest.mark.parametrize("node", nodes)


# --- peers ------------------------------------------------------------------------------------------------------------


def settings(node: str, **changes: Any) -> ChildSettings:
    """The child SA of side a: host to host in transport mode, or net to net in tunnel mode."""
    values: dict[str, Any] = {"proposals": ESP}
    if node == "EN":
        values["mode"] = Mode.TRANSPORT
        values["local_selectors"] = (selector(f"{A.host}/32"),)
        values["remote_selectors"] = (selector(f"{B.host}/32"),)
    return child(**(values | changes))


def pair_of(node: str, a: dict[str, Any] | None = None, b: dict[str, Any] | None = None, **engine: Any) -> Pair:
    """Two engines that can agree; `a` and `b` are changes of their connections."""
    one = settings(node)
    common: dict[str, Any] = {"retransmission": QUICK}
    return Pair(
        connection(**(common | {"children": (one,)} | (a or {}))),
        connection_b(**(common | {"children": (mirrored(one),)} | (b or {}))),
        **engine,
    )


def logged_in(pair: Pair) -> Stranger:
    """The tester is an initiator that has logged in by hand; the responder is under test. Its next request has id 2."""
    tester = after_init(pair)
    identity = tester.identity()
    answer = tester.ask(IKE_AUTH, identity, tester.psk_auth(identity), *tester.child_offer())
    assert answer.find(Authentication) is not None, answer
    return tester


def connected(pair: Pair) -> Stranger:
    """Both engines have connected; from now on the tester speaks for the responder, and the initiator is under test.

    Its first request has id 0, and the initiator's next one 2.
    """
    pair.connect()
    pair.network = lambda datagram: []
    return Stranger(pair, pair.b.sa, pair.a.sa, acts_as_initiator=False)


def children_of(tester: Stranger) -> int:
    """How many child SAs the node under test has in its data plane, in both directions."""
    assert len(tester.host.inbound) == len(tester.host.outbound)
    return len(tester.host.inbound)


# --- messages ---------------------------------------------------------------------------------------------------------


def sent_by_initiator(pair: Pair, exchange: ExchangeType) -> Message:
    """The latest request of this exchange that side a has sent."""
    pair.a.take_events(pair.now)
    found = [event.message for event in pair.a.happened(events.MessageSent)]
    return next(message for message in reversed(found) if message.exchange_type == exchange and not message.is_response)


def chosen(request: Message, spi: bytes = TESTER_SPI, number: int = 0) -> SecurityAssociation:
    """The answer to an offer: one of its proposals, one transform of each type."""
    offer = request.find(SecurityAssociation)
    assert offer is not None
    proposal = offer.proposals[number]
    first: dict[TransformType, Transform] = {}
    for transform in proposal.transforms:
        first.setdefault(transform.type, transform)
    return SecurityAssociation((Proposal(proposal.number, proposal.protocol, spi, tuple(first.values())),))


def granted(request: Message, spi: bytes = TESTER_SPI) -> tuple[Payload, ...]:
    """All that grants a child SA as it was asked for, but a key exchange; in CREATE_CHILD_SA a nonce goes with it."""
    selectors = request.find(TrafficSelectorsInitiator), request.find(TrafficSelectorsResponder)
    assert selectors[0] is not None and selectors[1] is not None
    nonce = (Nonce(TESTER_NONCE),) if request.find(Nonce) is not None else ()
    mode = request.notifies(NotifyType.USE_TRANSPORT_MODE)
    return (*mode, chosen(request, spi), *nonce, *selectors)


def esp_offer(text: str, spi: bytes = TESTER_SPI) -> SecurityAssociation:
    """Several ESP proposals, as text."""
    return SecurityAssociation(with_numbers(parse_proposals(text, ProtocolId.ESP), spi))


def ike_offer(text: str, spi: bytes = b"") -> SecurityAssociation:
    """Several IKE proposals, as text."""
    return SecurityAssociation(with_numbers(parse_proposals(text), spi))


def rekey_notify(spi: int) -> Notify:
    """REKEY_SA of one of the tester's own child SAs."""
    return Notify(NotifyType.REKEY_SA, b"", ProtocolId.ESP, spi.to_bytes(4, "big"))


def twice(tester: Stranger, octets: bytes) -> list[list[bytes]]:
    """Deliver a request two times; what is sent each time."""
    tester.answers()
    found = []
    for _ in range(2):
        tester.deliver(octets)
        tester.host.take_events(tester.pair.now)
        found.append([datagram.octets for datagram in tester.host.engine.outgoing()])
        assert len(found[-1]) == 1
    return found


# --- reserved fields --------------------------------------------------------------------------------------------------

# Where the bodies of payloads have RESERVED octets; SA and TS have more of them inside. (Those of ID are covered by
# AUTH and tested apart.)
_RESERVED = {34: range(2, 4), 39: range(1, 4), 44: range(1, 4), 45: range(1, 4), 47: range(1, 4)}


def with_reserved_set(first: int, octets: bytes) -> bytes:
    """A chain of payloads with all RESERVED bits and octets not zero."""
    dirty, kind, at = bytearray(octets), first, 0
    while kind and at < len(dirty):
        following, length = dirty[at], int.from_bytes(dirty[at + 2 : at + 4], "big")
        dirty[at + 1] |= 0x7F
        for place in _RESERVED.get(kind, ()):
            dirty[at + 4 + place] = 0xA5
        if kind == 33:
            _set_in_proposals(dirty, at + 4, at + length)
        kind, at = (0 if kind in (46, 53) else following), at + length
    return bytes(dirty)


def _set_in_proposals(dirty: bytearray, at: int, end: int) -> None:
    while at < end:
        dirty[at + 1] = 0xA5
        length, inner = int.from_bytes(dirty[at + 2 : at + 4], "big"), at + 8 + dirty[at + 6]
        while inner < at + length:
            dirty[inner + 1] = dirty[inner + 5] = 0xA5
            inner += int.from_bytes(dirty[inner + 2 : inner + 4], "big")
        at += length


def set_reserved_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every message of both engines goes out with its RESERVED fields set."""
    from ikeway.ike import protection
    from ikeway.wire import message

    encode = message.encode_payloads

    def dirty(payloads: Any) -> tuple[Any, bytes]:
        first, octets = encode(payloads)
        return first, with_reserved_set(int(first), octets)

    monkeypatch.setattr(message, "encode_payloads", dirty)
    monkeypatch.setattr(protection, "encode_payloads", dirty)

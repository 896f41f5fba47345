"""IPv6 Ready IKEv2 conformance: the engine as initiator on an IKE SA that is there. See test_ipv6ready.py.

Collisions (I.1.2.6.*) are played between two engines here, and message by message in test_exchange_scenarios.py.
"""

from __future__ import annotations

import pytest

from ikeway.ike import events
from ikeway.ike.child import ChildState
from ikeway.ike.proposals import parse_proposals
from ikeway.ike.sa import IkeState
from ikeway.wire.message import Message
from ikeway.wire.payloads import (
    Delete,
    KeyExchange,
    Notify,
    SecurityAssociation,
    UnknownPayload,
)
from ikeway.wire.registry import (
    ExchangeType,
    KeyExchangeMethod,
    NotifyType,
    PayloadType,
    ProtocolId,
)
from tests.conformance.ipv6ready import (
    TESTER_SPI,
    children_of,
    connected,
    covers,
    granted,
    ike_offer,
    pair_of,
    sent_by_initiator,
    settings,
)
from tests.ike.pair import A, B, Pair, mirrored
from tests.ike.stranger import CREATE_CHILD_SA, IKE_AUTH, INFORMATIONAL, Stranger, kinds

SA_INIT = ExchangeType.IKE_SA_INIT
UNKNOWN_TYPES = [1, 32, 200, 255]


def begun(pair: Pair) -> Message:
    """The initiator has sent its first request."""
    pair.a.engine.connect(pair.a.connection, pair.a.address, pair.b.address, pair.now)
    pair.a.engine.outgoing()
    return sent_by_initiator(pair, SA_INIT)


def answered(pair: Pair, *payloads, responder_spi: bytes = bytes(8)) -> Message | None:
    """Answer IKE_SA_INIT; returns what the initiator says to that."""
    (sa,) = pair.a.engine.sas
    message = Message(sa.spi, responder_spi, SA_INIT, False, True, 0, payloads)
    pair.a.engine.receive(message.encode(), A, B, pair.now)
    pair.a.take_events(pair.now)
    found = pair.a.engine.outgoing()
    return Message.decode(found[-1].octets) if found else None


def log_in(tester: Stranger, *payloads) -> None:
    """Answer IKE_AUTH with IDr, AUTH and these."""
    identity = tester.identity()
    tester.deliver(tester.seal(IKE_AUTH, identity, tester.psk_auth(identity), *payloads, is_response=True))
    tester.host.take_events(tester.pair.now)


def reply(tester: Stranger, request: Message, *payloads) -> list[Message]:
    """Answer a request of the initiator's; returns what it sends then."""
    tester.deliver(tester.seal(request.exchange_type, *payloads, message_id=request.message_id, is_response=True))
    return tester.answers()


# --- CREATE_CHILD_SA: child SAs ---------------------------------------------------------------------------------------


def rekeying(pair: Pair) -> tuple[Stranger, Message]:
    """The initiator has asked to rekey its child SA."""
    tester = connected(pair)
    tester.there.rekey_child(tester.there.children[0], pair.now)
    (request,) = tester.answers()
    return tester, request


@covers("I.1.2.1.1", "I.1.2.3.1", "I.1.2.3.2", "I.1.2.3.8")
def test_a_child_sa_is_rekeyed_and_the_old_one_closed(node: str) -> None:
    tester, request = rekeying(pair_of(node))
    (old,) = tester.there.children
    assert (request.exchange_type, request.message_id) == (CREATE_CHILD_SA, 2)
    notify = request.payloads[0]
    assert notify == Notify(NotifyType.REKEY_SA, b"", ProtocolId.ESP, old.spi_in_octets)
    wanted = ["SecurityAssociation", "Nonce", "TrafficSelectorsInitiator", "TrafficSelectorsResponder"]
    assert [kind for kind in kinds(request)[1:] if kind != "USE_TRANSPORT_MODE"] == wanted
    (delete,) = reply(tester, request, *granted(request))
    assert delete.payloads == (Delete(ProtocolId.ESP, (old.spi_in_octets,)),)
    assert set(tester.host.outbound) == {int.from_bytes(TESTER_SPI, "big")} and len(tester.host.inbound) == 2
    reply(tester, delete, Delete(ProtocolId.ESP, (old.spi_out_octets,)))
    tester.pair.run(10)
    assert children_of(tester) == 1 and old.state is ChildState.DELETED


@covers("I.1.2.2.1", "I.1.2.2.2")
def test_a_request_is_sent_again_until_it_is_answered(node: str) -> None:
    tester, request = rekeying(pair_of(node))
    tester.pair.sent.clear()
    tester.pair.run(2)
    assert len(tester.pair.sent) > 1 and len({datagram.octets for datagram in tester.pair.sent}) == 1
    (delete,) = reply(tester, request, *granted(request))
    reply(tester, delete)
    tester.pair.sent.clear()
    tester.pair.run(20)
    assert not tester.pair.sent


@covers("I.1.2.3.3")
def test_the_lifetime_of_a_child_sa_leads_to_its_rekeying(node: str) -> None:
    one = settings(node, rekey_seconds=60.0, jitter=0.0)
    tester = connected(pair_of(node, {"children": (one,)}))
    tester.pair.run(59)
    assert not tester.pair.a.sa.channel.outstanding
    tester.pair.run(2)
    request = sent_by_initiator(tester.pair, CREATE_CHILD_SA)
    assert request.notify(NotifyType.REKEY_SA) is not None


@covers("I.1.2.3.4", "I.1.2.3.5")
def test_a_rekeying_offers_all_transforms_and_proposals(node: str) -> None:
    one = settings(node, proposals=parse_proposals("aes128gcm16-aes256gcm16, aes256-sha256", ProtocolId.ESP))
    _, request = rekeying(pair_of(node, {"children": (one,)}, {"children": (mirrored(one),)}))
    offered = [proposal.transforms for proposal in request.find(SecurityAssociation).proposals]
    assert offered == [proposal.transforms for proposal in one.proposals]


@covers("I.1.2.3.6")
def test_a_refused_rekeying_leaves_the_old_child_sa(node: str) -> None:
    tester, request = rekeying(pair_of(node))
    assert reply(tester, request, Notify(NotifyType.NO_PROPOSAL_CHOSEN)) == []
    assert children_of(tester) == 1 and tester.there.children[0].state is ChildState.INSTALLED
    assert tester.ask(INFORMATIONAL, message_id=0).payloads == ()


@covers("I.1.2.3.7", "I.1.1.6.7")
def test_perfect_forward_secrecy_and_a_demand_for_another_key_exchange(node: str) -> None:
    one = settings(node, proposals=parse_proposals("aes128gcm16-ecp256-x25519", ProtocolId.ESP))
    tester, request = rekeying(pair_of(node, {"children": (one,)}, {"children": (mirrored(one),)}))
    assert request.find(KeyExchange).method == KeyExchangeMethod.ECP_256
    (again,) = reply(tester, request, Notify(NotifyType.INVALID_KE_PAYLOAD, b"\x00\x1f"))
    assert again.find(KeyExchange).method == KeyExchangeMethod.CURVE25519
    assert again.message_id == request.message_id + 1 and again.payloads[0] == request.payloads[0]
    offers = [message.find(SecurityAssociation).proposals[0].transforms for message in (request, again)]
    assert offers[0] == offers[1]


@covers("I.1.1.4.1")
@pytest.mark.parametrize("unknown", UNKNOWN_TYPES)
def test_unknown_payloads_are_skipped(node: str, unknown: int) -> None:
    tester, request = rekeying(pair_of(node))
    strange = UnknownPayload(PayloadType(unknown), False, b"")
    (delete,) = reply(tester, request, strange, *granted(request))
    assert kinds(delete) == ["Delete"]
    assert int.from_bytes(TESTER_SPI, "big") in tester.host.outbound


@covers("I.1.1.4.2")
@pytest.mark.parametrize("unknown", UNKNOWN_TYPES)
def test_an_answer_with_unknown_critical_payloads_is_refused(node: str, unknown: int) -> None:
    tester, request = rekeying(pair_of(node))
    strange = UnknownPayload(PayloadType(unknown), True, b"")
    reply(tester, request, strange, *granted(request))
    assert int.from_bytes(TESTER_SPI, "big") not in tester.host.outbound


@covers("I.1.2.5.1", "I.1.2.5.2")
def test_another_child_sa_is_made(node: str) -> None:
    one, two = settings(node), settings(node, name="second")
    pair = pair_of(node)
    tester = connected(pair)
    tester.there.create_child(two, pair.now)
    (request,) = tester.answers()
    assert request.notify(NotifyType.REKEY_SA) is None and one.name != two.name
    assert reply(tester, request, *granted(request)) == []
    assert children_of(tester) == 2 and TESTER_SPI in {child.spi_out_octets for child in tester.there.children}


# --- CREATE_CHILD_SA: the IKE SA --------------------------------------------------------------------------------------


@covers("I.1.2.4.1", "I.1.2.4.2", "I.1.2.4.4", "I.1.2.4.5", "I.1.2.4.6", "I.1.2.4.7")
@pytest.mark.parametrize("prf", ["prfsha256", "prfsha384"])
def test_the_ike_sa_is_rekeyed_and_the_old_one_closed(node: str, prf: str) -> None:
    text = f"aes128gcm16-aes256gcm16-{prf}-x25519-ecp256, aes256-sha256-x25519"
    pair = pair_of(node)
    pair.connect()
    old = pair.a.sa
    import dataclasses

    for host in (pair.a, pair.b):
        host.sa.connection = dataclasses.replace(host.sa.connection, ike_proposals=parse_proposals(text))
    old.rekey(pair.now)
    pair.run(2)
    request = next(
        event.message for event in pair.a.happened(events.MessageSent) if event.message.exchange_type == CREATE_CHILD_SA
    )
    assert kinds(request) == ["SecurityAssociation", "Nonce", "KeyExchange"]
    spi = request.find(SecurityAssociation).proposals[0].spi
    assert request.find(SecurityAssociation) == ike_offer(text, spi) and spi == pair.a.sa.spi
    last = [event.message for event in pair.a.happened(events.MessageSent) if event.sa is old][-1]
    assert last.payloads == (Delete(ProtocolId.IKE),) and old.state is IkeState.CLOSED
    assert pair.a.sa.children and not old.children and pair.a.sa.channel.next_id == 0
    pair.a.sa.rekey_child(pair.a.sa.children[0], pair.now)
    pair.run(10)
    pair.agree()
    assert len(pair.a.inbound) == 1


@covers("I.1.2.4.3")
def test_the_lifetime_of_the_ike_sa_leads_to_its_rekeying(node: str) -> None:
    pair = pair_of(node, {"rekey_seconds": 60.0, "jitter": 0.0})
    pair.connect()
    old = pair.a.sa
    pair.run(59)
    assert pair.a.sa is old
    pair.run(2)
    assert pair.a.sa is not old and pair.b.happened(events.IkeRekeyed)


# --- INFORMATIONAL ----------------------------------------------------------------------------------------------------


@covers("I.1.1.3.5")
def test_a_silent_peer_is_asked_whether_it_lives(node: str) -> None:
    pair = pair_of(node, {"dpd_seconds": 10.0})
    tester = connected(pair)
    pair.run(9)
    tester.pair.sent.clear()
    pair.run(1.2)
    assert tester.pair.sent
    probe = sent_by_initiator(pair, INFORMATIONAL)
    assert (probe.message_id, probe.find(Delete)) == (2, None)
    assert reply(tester, probe) == []
    assert tester.there.state is IkeState.ESTABLISHED


@covers("I.1.1.3.2", "I.1.1.3.8")
def test_unprotected_messages_change_nothing(node: str) -> None:
    pair = pair_of(node, {"dpd_seconds": 10.0})
    tester = connected(pair)
    channel = tester.sa.channel
    pair.run(9)
    for kind in (NotifyType.INVALID_IKE_SPI, NotifyType.INVALID_SPI, NotifyType.AUTHENTICATION_FAILED):
        spis = channel.initiator_spi, channel.responder_spi
        for is_response in (False, True):
            message = Message(*spis, INFORMATIONAL, False, is_response, 0, (Notify(kind, bytes(4)),))
            tester.deliver(message.encode())
        assert tester.answers() == []
    assert tester.there.state is IkeState.ESTABLISHED and children_of(tester) == 1
    # They do not count as a sign of life.
    tester.pair.sent.clear()
    pair.run(1.2)
    assert tester.pair.sent


@covers("I.1.1.3.6")
def test_closing_tells_the_peer(node: str) -> None:
    tester = connected(pair_of(node))
    tester.there.close(tester.pair.now)
    (request,) = tester.answers()
    assert (request.exchange_type, request.payloads) == (INFORMATIONAL, (Delete(ProtocolId.IKE),))
    assert reply(tester, request) == []
    assert tester.there.state is IkeState.CLOSED and children_of(tester) == 0


# --- collisions -------------------------------------------------------------------------------------------------------


@covers("I.1.2.6.1", "I.1.2.6.2", "I.1.2.6.3", "I.1.2.6.4", "I.1.2.6.5", "I.1.2.6.6", "I.1.2.6.14", "I.1.2.6.15")
@pytest.mark.parametrize("lossy", [False, True])
@pytest.mark.parametrize("wishes", ["child child", "ike ike", "drop drop", "close close", "ike close", "close ike"])
def test_both_at_once(node: str, wishes: str, lossy: bool) -> None:
    pair = pair_of(node)
    pair.connect()
    seen = set()
    if lossy:  # every message is lost once

        def network(datagram):
            known, _ = datagram.octets in seen, seen.add(datagram.octets)
            return [0.01] if known else []

        pair.network = network
    for host, wish in zip((pair.a, pair.b), wishes.split(), strict=True):
        sa = host.sa
        {
            "child": lambda sa=sa: sa.rekey_child(sa.children[0], pair.now),
            "drop": lambda sa=sa: sa.delete_child(sa.children[0], pair.now),
            "ike": lambda sa=sa: sa.rekey(pair.now),
            "close": lambda sa=sa: sa.close(pair.now),
        }[wish]()
    pair.run(60)
    pair.agree()
    closed = "close" in wishes
    assert len(pair.a.engine.sas) == len(pair.b.engine.sas) == (0 if closed else 1)
    assert len(pair.a.inbound) == (0 if closed or "drop" in wishes else 1)

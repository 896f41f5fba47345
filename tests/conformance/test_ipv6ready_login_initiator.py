"""IPv6 Ready IKEv2 conformance: the engine as initiator of IKE_SA_INIT and IKE_AUTH. See test_ipv6ready.py."""

from __future__ import annotations

import pytest

from ikeway.errors import NegotiationFailed, PeerUnreachable
from ikeway.ike import events
from ikeway.ike.proposals import parse_proposals
from ikeway.ike.sa import IkeState
from ikeway.wire.message import Header, Message
from ikeway.wire.payloads import (
    Configuration,
    ConfigurationAttribute,
    IdInitiator,
    KeyExchange,
    Nonce,
    Notify,
    Proposal,
    SecurityAssociation,
    TrafficSelectorsInitiator,
    TrafficSelectorsResponder,
)
from ikeway.wire.registry import (
    ConfigurationAttributeType,
    ConfigurationType,
    ExchangeType,
    IdentificationType,
    KeyExchangeMethod,
    NotifyType,
    ProtocolId,
    TransformType,
)
from tests.conformance.ipv6ready import (
    TESTER_SPI,
    children_of,
    covers,
    granted,
    ike_offer,
    pair_of,
    sent_by_initiator,
    set_reserved_fields,
    settings,
)
from tests.ike.pair import A, B, Pair
from tests.ike.stranger import IKE_AUTH, INFORMATIONAL, Stranger, impostor, kinds

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


# --- IKE_SA_INIT ------------------------------------------------------------------------------------------------------


@covers("I.1.1.1.1")
def test_the_first_request_is_formed_as_it_should_be(node: str) -> None:
    pair = pair_of(node)
    pair.a.engine.connect(pair.a.connection, pair.a.address, pair.b.address, pair.now)
    (datagram,) = pair.a.engine.outgoing()
    octets = datagram.octets
    assert any(octets[:8]) and octets[8:16] == bytes(8)
    # SA first, version 2.0, IKE_SA_INIT, the initiator flag and nothing else, message id 0, the length.
    assert octets[16:20] == bytes([33, 0x20, 34, 0x08]) and octets[20:24] == bytes(4)
    assert int.from_bytes(octets[24:28], "big") == len(octets)
    message = Message.decode(octets)
    security, key, nonce = message.payloads[:3]
    assert [type(payload) for payload in message.payloads[:3]] == [SecurityAssociation, KeyExchange, Nonce]
    assert [proposal.number for proposal in security.proposals] == [1] and security.proposals[0].spi == b""
    assert key.method == KeyExchangeMethod.CURVE25519 and len(nonce.value) >= 16


@covers("I.1.1.6.3", "I.1.1.6.4")
def test_several_transforms_and_proposals_are_offered(node: str) -> None:
    text = "aes128gcm16-aes256gcm16-prfsha256-prfsha512-x25519-ecp256, aes256-sha256-x25519"
    pair = pair_of(node, {"ike_proposals": parse_proposals(text)})
    offer = begun(pair).find(SecurityAssociation)
    assert offer == ike_offer(text)
    assert [proposal.number for proposal in offer.proposals] == [1, 2]


@covers("I.1.1.2.1", "I.1.1.2.2", "I.1.1.3.3")
def test_the_first_request_is_sent_again_until_it_is_answered_or_given_up(node: str) -> None:
    pair = pair_of(node)
    pair.a.engine.connect(pair.a.connection, pair.a.address, pair.b.address, pair.now)
    pair.network = lambda datagram: [0.01] if len(pair.sent) > 2 else []
    pair.run(30)
    first = pair.sent[0].octets
    assert [datagram.octets for datagram in pair.sent].count(first) == 3 and pair.sent[2].octets == first
    assert len(pair.a.inbound) == 1

    silent = pair_of(node)
    silent.network = lambda datagram: []
    silent.connect()
    silent.run(100)
    assert isinstance(silent.a.errors[0], PeerUnreachable)
    assert len({datagram.octets for datagram in silent.sent}) == 1 and len(silent.sent) == 5


@covers("I.1.1.5.1")
def test_a_cookie_is_sent_back_first_with_all_else_unchanged(node: str) -> None:
    pair = pair_of(node)
    first = begun(pair)
    second = answered(pair, Notify(NotifyType.COOKIE, b"a cookie"))
    assert second is not None
    assert second.payloads == (Notify(NotifyType.COOKIE, b"a cookie"), *first.payloads)
    assert (second.message_id, second.responder_spi) == (0, bytes(8))


@covers("I.1.1.5.2", "I.1.1.5.3", "I.1.1.6.11")
@pytest.mark.parametrize("fresh", [False, True])
def test_a_cookie_and_another_key_exchange(node: str, fresh: bool) -> None:
    text = "aes128gcm16-prfsha256-ecp256-x25519"
    pair = pair_of(node, {"ike_proposals": parse_proposals(text)})
    first = begun(pair)
    assert first.find(KeyExchange).method == KeyExchangeMethod.ECP_256
    answered(pair, Notify(NotifyType.COOKIE, b"one"))
    third = answered(pair, Notify(NotifyType.INVALID_KE_PAYLOAD, b"\x00\x1f"))
    assert third is not None
    if fresh:
        third = answered(pair, Notify(NotifyType.COOKIE, b"two"))
    assert third.payloads[0] == Notify(NotifyType.COOKIE, b"two" if fresh else b"one")
    assert third.find(KeyExchange).method == KeyExchangeMethod.CURVE25519
    others = [payload for payload in third.payloads[1:] if not isinstance(payload, KeyExchange)]
    assert others == [payload for payload in first.payloads if not isinstance(payload, KeyExchange)]


def ends_without_a_log_in(pair: Pair) -> None:
    """At once or, as such an answer may be forged, when no better one comes (RFC 7296 section 2.21.1)."""
    pair.network = lambda datagram: []
    pair.run(100)
    assert not pair.a.engine.sas
    assert all(datagram.octets[18] == SA_INIT for datagram in pair.sent)


@covers("I.1.1.6.8")
def test_no_proposal_chosen_ends_it(node: str) -> None:
    pair = pair_of(node)
    begun(pair)
    assert answered(pair, Notify(NotifyType.NO_PROPOSAL_CHOSEN)) is None
    ends_without_a_log_in(pair)
    assert isinstance(pair.a.errors[0], NegotiationFailed)


@covers("I.1.1.6.9")
def test_a_choice_that_was_not_offered_is_refused(node: str) -> None:
    pair = pair_of(node)
    first = begun(pair)
    key = first.find(KeyExchange)
    assert answered(pair, ike_offer("aes256-sha256-x25519"), key, Nonce(bytes(32)), responder_spi=b"TESTERSP") is None
    ends_without_a_log_in(pair)
    assert pair.a.errors


@covers("I.1.1.11.3")
def test_the_version_bit_is_ignored(node: str) -> None:
    pair = pair_of(node)
    pair.a.engine.connect(pair.a.connection, pair.a.address, pair.b.address, pair.now)
    (request,) = pair.a.engine.outgoing()
    pair.b.engine.receive(request.octets, B, A, pair.now)
    (answer,) = pair.b.engine.outgoing()
    octets = bytearray(answer.octets)
    octets[19] |= 0x10
    pair.a.engine.receive(bytes(octets), A, B, pair.now)
    pair.a.take_events(pair.now)
    (following,) = pair.a.engine.outgoing()
    assert Header.decode(following.octets).exchange_type == IKE_AUTH


# --- IKE_AUTH ---------------------------------------------------------------------------------------------------------


@covers("I.1.1.1.2", "I.1.1.6.5", "I.1.1.6.6")
def test_the_log_in_is_formed_as_it_should_be(node: str) -> None:
    one = settings(node, proposals=parse_proposals("aes128gcm16-aes256gcm16, aes256-sha256", ProtocolId.ESP))
    tester = impostor(pair_of(node, {"children": (one,)}))
    request = sent_by_initiator(tester.pair, IKE_AUTH)
    assert (request.is_initiator, request.is_response, request.message_id) == (True, False, 1)
    assert isinstance(request.payloads[0], IdInitiator)
    wanted = ["IdInitiator", "Authentication", "SecurityAssociation"]
    wanted += ["TrafficSelectorsInitiator", "TrafficSelectorsResponder"]
    assert [kind for kind in kinds(request) if kind in wanted] == wanted
    assert ("USE_TRANSPORT_MODE" in kinds(request)) is (node == "EN")
    proposals = request.find(SecurityAssociation).proposals
    assert [proposal.number for proposal in proposals] == [1, 2] and len({one.spi for one in proposals}) == 1
    # No key exchange: that of IKE_SA_INIT is used (RFC 7296 section 1.2).
    types = {transform.type for proposal in proposals for transform in proposal.transforms}
    assert types == {TransformType.ENCR, TransformType.INTEG, TransformType.ESN}
    assert request.find(TrafficSelectorsInitiator).selectors == one.local_selectors
    assert request.find(TrafficSelectorsResponder).selectors == one.remote_selectors
    log_in(tester, *granted(request))
    assert children_of(tester) == 1


@covers("I.1.1.2.3", "I.1.1.2.4")
def test_a_log_in_is_sent_again_until_it_is_answered(node: str) -> None:
    tester = impostor(pair_of(node))
    tester.pair.run(2)
    sent = [datagram.octets for datagram in tester.pair.sent if datagram.octets[18] == IKE_AUTH]
    assert len(sent) > 2 and len(set(sent)) == 1
    log_in(tester, *granted(sent_by_initiator(tester.pair, IKE_AUTH)))
    tester.pair.sent.clear()
    tester.pair.run(30)
    assert not tester.pair.sent and children_of(tester) == 1


@covers("I.1.1.6.10")
def test_a_choice_for_the_child_sa_that_was_not_offered_is_refused(node: str) -> None:
    tester = impostor(pair_of(node))
    request = sent_by_initiator(tester.pair, IKE_AUTH)
    _security, *rest = [payload for payload in granted(request) if not isinstance(payload, Notify)]
    wrong = parse_proposals("aes256-sha256", ProtocolId.ESP)[0]
    changed = SecurityAssociation((Proposal(1, ProtocolId.ESP, TESTER_SPI, wrong.transforms),))
    log_in(tester, *request.notifies(NotifyType.USE_TRANSPORT_MODE), changed, *rest)
    assert children_of(tester) == 0 and tester.host.happened(events.ChildFailed)
    # What the peer holds for a child SA is deleted.
    sent = tester.answers()
    assert [kinds(message) for message in sent if message.exchange_type == INFORMATIONAL] == [["Delete"]]


@covers("I.1.1.6.12")
def test_an_ike_sa_without_its_child_sa_lives(node: str) -> None:
    tester = impostor(pair_of(node))
    log_in(tester, Notify(NotifyType.NO_PROPOSAL_CHOSEN))
    assert tester.there.state is IkeState.ESTABLISHED and children_of(tester) == 0
    assert tester.ask(INFORMATIONAL, message_id=0).payloads == ()


@covers("I.1.1.7.1")
def test_the_responder_may_narrow_the_traffic_selectors(node: str) -> None:
    tester = impostor(pair_of(node))
    request = sent_by_initiator(tester.pair, IKE_AUTH)
    *rest, offered_i, offered_r = granted(request)
    tcp_i, tcp_r = (
        type(offered)((type(offered.selectors[0])(7, 6, 0, 65535, *_range(offered.selectors[0])),))
        for offered in (offered_i, offered_r)
    )
    log_in(tester, *rest, tcp_i, tcp_r)
    (inbound,) = tester.host.inbound.values()
    assert inbound.local_selectors == tcp_i.selectors and inbound.remote_selectors == tcp_r.selectors


def _range(one) -> tuple[bytes, bytes]:
    return one.start_address, one.end_address


@covers("I.1.1.11.4")
def test_an_unknown_error_fails_the_log_in(node: str) -> None:
    """The request has failed entirely (RFC 7296 section 3.10.1)."""
    tester = impostor(pair_of(node))
    request = sent_by_initiator(tester.pair, IKE_AUTH)
    log_in(tester, *granted(request), Notify(NotifyType(16383)))
    assert children_of(tester) == 0 and tester.there.state is IkeState.CLOSED
    assert [kinds(message) for message in tester.answers()] == [["AUTHENTICATION_FAILED"]]


@covers("I.1.1.11.5")
def test_an_unknown_status_is_ignored(node: str) -> None:
    tester = impostor(pair_of(node))
    request = sent_by_initiator(tester.pair, IKE_AUTH)
    log_in(tester, *granted(request), Notify(NotifyType(65535)))
    assert children_of(tester) == 1


@covers("I.1.1.11.2")
def test_reserved_octets_of_an_identity_are_ignored_and_proven(node: str) -> None:
    tester = impostor(pair_of(node))
    identity = type(tester.identity())(IdentificationType.ID_FQDN, b"b.example", b"\x01\x02\x03")
    request = sent_by_initiator(tester.pair, IKE_AUTH)
    tester.deliver(tester.seal(IKE_AUTH, identity, tester.psk_auth(identity), *granted(request), is_response=True))
    tester.host.take_events(tester.pair.now)
    assert children_of(tester) == 1


# --- configuration ----------------------------------------------------------------------------------------------------

IP4 = ConfigurationAttributeType.INTERNAL_IP4_ADDRESS
CP = {"request_configuration": (ConfigurationAttribute(IP4),)}
ADDRESS = ConfigurationAttribute(IP4, bytes([10, 9, 0, 7]))
STRANGE = ConfigurationAttribute(ConfigurationAttributeType(30000), b"?")


@covers("I.2.1.1.1", "I.2.1.2.1", "I.2.1.2.2", "I.2.1.2.4", "I.2.1.2.5", nodes=("EN",))
@pytest.mark.parametrize("attributes", [(ADDRESS,), (), (ADDRESS, STRANGE), (STRANGE,)])
def test_an_address_is_asked_for_and_whatever_comes_the_ike_sa_lives(node: str, attributes: tuple) -> None:
    tester = impostor(pair_of(node, CP))
    request = sent_by_initiator(tester.pair, IKE_AUTH)
    assert request.find(Configuration) == Configuration(ConfigurationType.CFG_REQUEST, CP["request_configuration"])
    reply_ = (Configuration(ConfigurationType.CFG_REPLY, attributes),) if attributes else ()
    log_in(tester, *reply_, *granted(request))
    assert tester.ask(INFORMATIONAL, message_id=0).payloads == ()
    found = [event.attributes for event in tester.host.happened(events.ConfigurationReceived)]
    assert found == ([attributes] if attributes else [])


@covers("I.2.1.2.3", nodes=("EN",))
def test_reserved_fields_of_a_configuration_are_ignored(node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_reserved_fields(monkeypatch)
    tester = impostor(pair_of(node, CP))
    request = sent_by_initiator(tester.pair, IKE_AUTH)
    log_in(tester, Configuration(ConfigurationType.CFG_REPLY, (ADDRESS,)), *granted(request))
    assert tester.host.happened(events.ConfigurationReceived)[0].attributes == (ADDRESS,)

"""IPv6 Ready IKEv2 conformance: the engine as responder of IKE_SA_INIT and IKE_AUTH. See test_ipv6ready.py."""

from __future__ import annotations

import pytest

from ikeway.crypto import initiate_key_exchange
from ikeway.ike import events
from ikeway.ike.channel import Datagram
from ikeway.ike.proposals import parse_proposals
from ikeway.ike.sa import IkeState
from ikeway.ike.selectors import selector
from ikeway.ike.settings import ResponderSettings
from ikeway.wire.message import Message
from ikeway.wire.payloads import (
    Authentication,
    IdInitiator,
    KeyExchange,
    Nonce,
    Notify,
    SecurityAssociation,
    TrafficSelector,
    TrafficSelectorsInitiator,
    TrafficSelectorsResponder,
)
from ikeway.wire.registry import (
    EncryptionAlgorithm,
    ExchangeType,
    IdentificationType,
    KeyExchangeMethod,
    NotifyType,
    ProtocolId,
    PseudorandomFunction,
    TransformType,
)
from tests.conformance.ipv6ready import (
    TESTER_NONCE,
    children_of,
    covers,
    esp_offer,
    ike_offer,
    pair_of,
    settings,
    twice,
)
from tests.ike.pair import A, B, Pair, mirrored
from tests.ike.stranger import CREATE_CHILD_SA, IKE_AUTH, INFORMATIONAL, after_init, kinds

# --- IKE_SA_INIT ------------------------------------------------------------------------------------------------------


def first_request(pair: Pair) -> Datagram:
    """Side a's IKE_SA_INIT request, for the tester to change."""
    pair.a.engine.connect(pair.a.connection, pair.a.address, pair.b.address, pair.now)
    (datagram,) = pair.a.engine.outgoing()
    return datagram


def answer_of(pair: Pair, octets: bytes) -> Message | None:
    """What the responder says to a datagram."""
    pair.b.engine.receive(octets, B, A, pair.now)
    pair.b.take_events(pair.now)
    found = pair.b.engine.outgoing()
    return Message.decode(found[0].octets) if found else None


@covers("R.1.1.1.1")
def test_the_first_response_is_formed_as_it_should_be(node: str) -> None:
    pair = pair_of(node)
    request = first_request(pair)
    pair.b.engine.receive(request.octets, B, A, pair.now)
    (datagram,) = pair.b.engine.outgoing()
    octets = datagram.octets
    assert octets[:8] == request.octets[:8] and any(octets[8:16])
    # SA first, version 2.0, IKE_SA_INIT, the response flag and nothing else, message id 0, the length.
    assert octets[16:20] == bytes([33, 0x20, 34, 0x20]) and octets[20:24] == bytes(4)
    assert int.from_bytes(octets[24:28], "big") == len(octets)
    message = Message.decode(octets)
    assert [type(payload) for payload in message.payloads[:3]] == [SecurityAssociation, KeyExchange, Nonce]
    (proposal,) = message.payloads[0].proposals
    assert (proposal.number, proposal.protocol, proposal.spi) == (1, ProtocolId.IKE, b"")
    assert len({transform.type for transform in proposal.transforms}) == len(proposal.transforms) == 3
    assert message.payloads[1].method == KeyExchangeMethod.CURVE25519 and len(message.payloads[1].public_value) == 32
    assert 16 <= len(message.payloads[2].value) <= 256


@covers("R.1.1.4.1")
def test_a_later_minor_version_is_accepted(node: str) -> None:
    pair = pair_of(node)
    octets = bytearray(first_request(pair).octets)
    octets[17] = 0x21
    answer = answer_of(pair, bytes(octets))
    assert answer is not None and answer.find(SecurityAssociation) and answer.version == 0x20


@covers("R.1.1.4.2")
def test_a_later_major_version_is_told_ours(node: str) -> None:
    """RFC 7296 has the version in the header of the answer, and no more in the notify's data."""
    pair = pair_of(node)
    octets = bytearray(first_request(pair).octets)
    octets[17] = 0x30
    answer = answer_of(pair, bytes(octets))
    assert answer is not None and kinds(answer) == ["INVALID_MAJOR_VERSION"] and answer.version == 0x20
    assert not pair.b.engine.sas


@covers("R.1.1.4.5")
def test_payloads_may_come_in_any_order(node: str) -> None:
    """RFC 4306 wanted them refused; RFC 7296 section 2.5 says MUST NOT."""
    pair = pair_of(node)
    request = Message.decode(first_request(pair).octets)
    security, key, nonce, *rest = request.payloads
    shuffled = Message(
        request.initiator_spi, bytes(8), ExchangeType.IKE_SA_INIT, True, False, 0, (*rest, nonce, key, security)
    )
    answer = answer_of(pair, shuffled.encode())
    assert answer is not None and answer.find(SecurityAssociation)


@covers("R.1.1.11.3")
def test_the_version_bit_is_ignored(node: str) -> None:
    pair = pair_of(node)
    octets = bytearray(first_request(pair).octets)
    octets[19] |= 0x10
    answer = answer_of(pair, bytes(octets))
    assert answer is not None and answer.find(SecurityAssociation)


@covers("R.1.1.11.4")
def test_a_request_with_the_response_bit_is_none(node: str) -> None:
    pair = pair_of(node)
    octets = bytearray(first_request(pair).octets)
    octets[19] |= 0x20
    assert answer_of(pair, bytes(octets)) is None and not pair.b.engine.sas


@covers("R.1.1.2.1")
def test_the_first_request_again_gets_the_same_answer(node: str) -> None:
    pair = pair_of(node)
    request = first_request(pair)
    first = answer_of(pair, request.octets)
    assert first is not None and answer_of(pair, request.octets) == first
    assert len(pair.b.engine.sas) == 1


@covers("R.1.1.6.3", "R.1.1.6.4")
@pytest.mark.parametrize(
    "offered",
    [
        "aes256gcm16-aes128gcm16-prfsha256-x25519",  # several transforms of each kind in one proposal
        "aes128gcm16-aes256gcm16-prfsha512-prfsha256-x25519",
        "aes128gcm16-prfsha256-x25519-ecp256",
        "aes256-sha512-ecp521, aes128gcm16-prfsha256-x25519",  # several proposals
        "aes128gcm16-prfsha256-x25519, aes256-sha512-modp2048",
    ],
)
def test_what_is_acceptable_is_found_among_much(node: str, offered: str) -> None:
    pair = pair_of(node)
    request = Message.decode(first_request(pair).octets)
    key = initiate_key_exchange(KeyExchangeMethod.CURVE25519)
    payloads = (
        SecurityAssociation(ike_offer(offered).proposals),
        KeyExchange(key.method, key.public_value),
        Nonce(TESTER_NONCE),
    )
    changed = Message(request.initiator_spi, bytes(8), ExchangeType.IKE_SA_INIT, True, False, 0, payloads)
    answer = answer_of(pair, changed.encode())
    assert answer is not None
    (proposal,) = answer.find(SecurityAssociation).proposals
    picked = {transform.type: (transform.id, transform.key_length) for transform in proposal.transforms}
    assert picked[TransformType.ENCR] == (EncryptionAlgorithm.ENCR_AES_GCM_16, 128)
    assert picked[TransformType.PRF] == (PseudorandomFunction.PRF_HMAC_SHA2_256, None)
    assert picked[TransformType.KE] == (KeyExchangeMethod.CURVE25519, None)


@covers("R.1.1.6.8", "R.1.1.5.4")
@pytest.mark.parametrize("cookie", [False, True])
def test_another_key_exchange_is_demanded_and_cookies_go_with_it(node: str, cookie: bool) -> None:
    proposals = parse_proposals("aes128gcm16-prfsha256-ecp256-x25519")
    liked = parse_proposals("aes128gcm16-prfsha256-x25519-ecp256")
    responder = ResponderSettings(ike_proposals=liked, cookie_threshold=0 if cookie else 100)
    pair = pair_of(node, {"ike_proposals": proposals}, {"ike_proposals": liked}, responder=responder)
    pair.connect()
    said = [event.message for event in pair.b.happened(events.MessageSent)]
    notifies = [notify for message in said for notify in message.find_all(Notify)]
    (demand,) = [notify for notify in notifies if notify.type == NotifyType.INVALID_KE_PAYLOAD]
    assert demand.value == int(KeyExchangeMethod.CURVE25519).to_bytes(2, "big")
    assert any(notify.type == NotifyType.COOKIE for notify in notifies) is cookie
    assert pair.b.sa.suite.key_exchange == KeyExchangeMethod.CURVE25519


# --- IKE_AUTH ---------------------------------------------------------------------------------------------------------


@covers("R.1.1.1.2")
def test_the_answer_to_a_log_in_is_formed_as_it_should_be(node: str) -> None:
    tester = after_init(pair_of(node))
    identity = tester.identity()
    answer = tester.ask(IKE_AUTH, identity, tester.psk_auth(identity), *tester.child_offer())
    assert (answer.exchange_type, answer.is_initiator, answer.is_response) == (IKE_AUTH, False, True)
    wanted = ["IdResponder", "Authentication", "SecurityAssociation"]
    wanted += ["TrafficSelectorsInitiator", "TrafficSelectorsResponder"]
    assert [kind for kind in kinds(answer) if kind in wanted] == wanted
    assert ("USE_TRANSPORT_MODE" in kinds(answer)) is (node == "EN")
    (proposal,) = answer.find(SecurityAssociation).proposals
    assert proposal.protocol == ProtocolId.ESP and len(proposal.spi) == 4
    assert children_of(tester) == 1


@covers("R.1.1.2.2")
def test_a_log_in_again_gets_the_same_answer(node: str) -> None:
    tester = after_init(pair_of(node))
    identity = tester.identity()
    octets = tester.seal(IKE_AUTH, identity, tester.psk_auth(identity), *tester.child_offer())
    answers = twice(tester, octets)
    assert answers[0] == answers[1] and children_of(tester) == 1


@covers("R.1.1.6.5", "R.1.1.6.6")
@pytest.mark.parametrize("offered", ["aes256gcm16-aes128gcm16", "aes256-sha256, aes128gcm16"])
def test_what_is_acceptable_for_a_child_sa_is_found_among_much(node: str, offered: str) -> None:
    tester = after_init(pair_of(node))
    identity = tester.identity()
    rest = [payload for payload in tester.child_offer() if not isinstance(payload, SecurityAssociation)]
    answer = tester.ask(IKE_AUTH, identity, tester.psk_auth(identity), esp_offer(offered), *rest)
    (proposal,) = answer.find(SecurityAssociation).proposals
    assert {(transform.type, transform.key_length) for transform in proposal.transforms} >= {(TransformType.ENCR, 128)}


@covers("R.1.1.6.9", "R.1.2.4.1")
def test_an_ike_sa_without_its_child_sa_lives(node: str) -> None:
    tester = after_init(pair_of(node))
    identity = tester.identity()
    rest = [payload for payload in tester.child_offer() if not isinstance(payload, SecurityAssociation)]
    answer = tester.ask(IKE_AUTH, identity, tester.psk_auth(identity), esp_offer("aes256-sha512"), *rest)
    assert answer.find(Authentication) is not None and answer.notify(NotifyType.NO_PROPOSAL_CHOSEN) is not None
    assert children_of(tester) == 0
    assert tester.ask(INFORMATIONAL, message_id=2).payloads == ()
    refused = tester.ask(CREATE_CHILD_SA, esp_offer("aes256-sha512"), Nonce(TESTER_NONCE), *rest, message_id=3)
    assert kinds(refused) == ["NO_PROPOSAL_CHOSEN"]


TCP = 6


def _only_tcp(one: TrafficSelector) -> TrafficSelector:
    return TrafficSelector(one.type, TCP, one.start_port, one.end_port, one.start_address, one.end_address)


@covers("R.1.1.7.1", "R.1.1.7.3")
@pytest.mark.parametrize("several", [False, True])
def test_traffic_selectors_are_narrowed(node: str, several: bool) -> None:
    wide = settings(node)
    narrow = settings(
        node,
        local_selectors=tuple(map(_only_tcp, wide.local_selectors)),
        remote_selectors=tuple(map(_only_tcp, wide.remote_selectors)),
    )
    pair = pair_of(node, b={"children": (mirrored(narrow),)})
    tester = after_init(pair)
    identity = tester.identity()
    offer = list(tester.child_offer())
    if several:
        outside = (selector("203.0.113.0/24"),)
        offer = [payload for payload in offer if not isinstance(payload, TrafficSelectorsInitiator)]
        offer.insert(1, TrafficSelectorsInitiator(wide.local_selectors + outside))
    answer = tester.ask(IKE_AUTH, identity, tester.psk_auth(identity), *offer)
    assert answer.find(TrafficSelectorsInitiator).selectors == narrow.local_selectors
    assert answer.find(TrafficSelectorsResponder).selectors == narrow.remote_selectors
    (inbound,) = tester.host.inbound.values()
    assert inbound.local_selectors == narrow.remote_selectors


@covers("R.1.1.7.2")
def test_foreign_traffic_selectors_are_unacceptable(node: str) -> None:
    tester = after_init(pair_of(node))
    identity = tester.identity()
    foreign = (selector("203.0.113.0/24"),)
    offer = [payload for payload in tester.child_offer() if isinstance(payload, SecurityAssociation | Notify)]
    selectors_ = TrafficSelectorsInitiator(foreign), TrafficSelectorsResponder(foreign)
    answer = tester.ask(IKE_AUTH, identity, tester.psk_auth(identity), *offer, *selectors_)
    assert answer.find(Authentication) is not None and answer.notify(NotifyType.TS_UNACCEPTABLE) is not None
    assert children_of(tester) == 0


@covers("R.1.2.8.1")
def test_a_wrong_proof_is_refused(node: str) -> None:
    tester = after_init(pair_of(node))
    identity = tester.identity()
    answer = tester.ask(IKE_AUTH, identity, tester.psk_auth(identity, b"wrong"), *tester.child_offer())
    assert kinds(answer) == ["AUTHENTICATION_FAILED"]
    assert tester.there.state is IkeState.CLOSED and children_of(tester) == 0


@covers("R.1.1.11.5")
@pytest.mark.parametrize("unknown", [16383, 65535])
def test_unknown_notifies_in_a_request_are_ignored(node: str, unknown: int) -> None:
    tester = after_init(pair_of(node))
    identity = tester.identity()
    strange = Notify(NotifyType(unknown), b"?")
    answer = tester.ask(IKE_AUTH, identity, tester.psk_auth(identity), *tester.child_offer(), strange)
    assert answer.find(SecurityAssociation) is not None and children_of(tester) == 1


@covers("R.1.1.11.2")
def test_reserved_octets_of_an_identity_are_ignored_and_proven(node: str) -> None:
    """AUTH covers them as they are (RFC 7296 section 2.15)."""
    tester = after_init(pair_of(node))
    identity = IdInitiator(IdentificationType.ID_FQDN, b"a.example", b"\x01\x02\x03")
    answer = tester.ask(IKE_AUTH, identity, tester.psk_auth(identity), *tester.child_offer())
    assert answer.find(Authentication) is not None and children_of(tester) == 1


@covers("R.1.1.3.3")
def test_initial_contact_closes_what_is_left_of_a_crash(node: str) -> None:
    pair = pair_of(node)
    pair.connect()
    old = pair.b.sa
    pair.a.engine.connect(pair.a.connection, pair.a.address, pair.b.address, pair.now)
    pair.run()
    assert old.state is IkeState.CLOSED and len(pair.b.engine.sas) == 1 and len(pair.b.inbound) == 1

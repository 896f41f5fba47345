"""IPv6 Ready IKEv2 conformance: the engine as responder, against a tester that writes every message by hand.

`covers` names the cases (IKEv2.EN.* and IKEv2.SGW.*). Where RFC 7296 has changed what RFC 4306 said, the RFC is right and
the test says so. What is not here needs hosts and packets (Echo over ESP, ICMP), which tests/interop does, or algorithms
of another time.
"""

from __future__ import annotations

import pytest

from ikeway.crypto import initiate_key_exchange
from ikeway.esp.parameters import Mode
from ikeway.ike import events
from ikeway.ike.channel import Datagram
from ikeway.ike.proposals import parse_proposals
from ikeway.ike.questions import AssignAddresses
from ikeway.ike.sa import IkeState
from ikeway.ike.selectors import selector
from ikeway.ike.settings import ResponderSettings
from ikeway.wire.message import Header, Message
from ikeway.wire.payloads import (
    Authentication,
    Configuration,
    ConfigurationAttribute,
    Delete,
    IdInitiator,
    IdResponder,
    KeyExchange,
    Nonce,
    Notify,
    SecurityAssociation,
    TrafficSelector,
    TrafficSelectorsInitiator,
    TrafficSelectorsResponder,
    UnknownPayload,
)
from ikeway.wire.registry import (
    ConfigurationAttributeType,
    ConfigurationType,
    EncryptionAlgorithm,
    ExchangeType,
    IdentificationType,
    KeyExchangeMethod,
    NotifyType,
    PayloadType,
    ProtocolId,
    PseudorandomFunction,
    TransformType,
)
from tests.conformance import test_ipv6ready_initiator as _initiator  # registers its cases
from tests.conformance.ipv6ready import (
    COVERED,
    ESP,
    TESTER_NONCE,
    TESTER_SPI,
    children_of,
    covers,
    esp_offer,
    ike_offer,
    logged_in,
    pair_of,
    rekey_notify,
    set_reserved_fields,
    settings,
    titles,
)
from tests.ike.pair import A, B, Pair, mirrored
from tests.ike.stranger import CREATE_CHILD_SA, IKE_AUTH, INFORMATIONAL, Stranger, after_init, kinds

UNKNOWN_TYPES = [1, 32, 200, 255]  # the specification has 49 for 200; RFC 6467 has given it a meaning since


def test_the_cases_exist() -> None:
    assert _initiator.__name__
    assert set(titles()) >= COVERED, COVERED - set(titles())
    assert len(titles()) == 294


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


@covers("R.1.1.1.1", "R.1.1.6.1")
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


@covers("R.1.1.1.2", "R.1.1.6.2")
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
    answers = _twice(tester, octets)
    assert answers[0] == answers[1] and children_of(tester) == 1


def _twice(tester: Stranger, octets: bytes) -> list[list[bytes]]:
    tester.answers()
    found = []
    for _ in range(2):
        tester.deliver(octets)
        tester.host.take_events(tester.pair.now)
        found.append([datagram.octets for datagram in tester.host.engine.outgoing()])
        assert len(found[-1]) == 1
    return found


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


# --- reserved fields, everywhere --------------------------------------------------------------------------------------


@covers("R.1.1.11.1", "R.1.1.11.2", "R.1.2.9.1", "R.1.3.3.1", "I.1.1.11.1", "I.1.1.11.2", "I.1.2.7.1")
def test_reserved_fields_are_ignored(node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_reserved_fields(monkeypatch)
    pair = pair_of(node)
    pair.connect()
    pair.agree()
    assert pair.sent[0].octets[29] == 0x7F  # of the first payload
    for host in (pair.a, pair.b):
        host.sa.rekey_child(host.sa.live_children[0], pair.now)
        pair.run(10)
        host.sa.rekey(pair.now)
        pair.run(10)
        host.sa.check_liveness(pair.now)
        pair.run(1)
    pair.agree()
    assert len(pair.a.inbound) == 1 and not pair.a.errors and not pair.b.errors
    pair.a.sa.close(pair.now)
    pair.run(1)
    assert not pair.b.engine.sas


CP = {"request_configuration": (ConfigurationAttribute(ConfigurationAttributeType.INTERNAL_IP4_ADDRESS),)}
ASSIGNED = (ConfigurationAttribute(ConfigurationAttributeType.INTERNAL_IP4_ADDRESS, bytes([10, 9, 0, 7])),)


@covers("R.2.1.2.3", nodes=("SGW",))
def test_reserved_fields_of_a_configuration_are_ignored(node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_reserved_fields(monkeypatch)
    pair = pair_of(node, CP)
    pair.b.answers[AssignAddresses] = ASSIGNED
    pair.connect()
    assert pair.a.happened(events.ConfigurationReceived)[0].attributes == ASSIGNED


@covers("R.2.1.2.1", "R.2.1.2.5", nodes=("SGW",))
def test_an_address_is_given_and_what_is_unknown_is_left_out(node: str) -> None:
    tester = after_init(pair_of(node))
    tester.host.answers[AssignAddresses] = ASSIGNED
    identity = tester.identity()
    asked = (
        ConfigurationAttribute(ConfigurationAttributeType.INTERNAL_IP6_ADDRESS),
        ConfigurationAttribute(ConfigurationAttributeType.INTERNAL_IP4_ADDRESS),
        ConfigurationAttribute(ConfigurationAttributeType(30000), b"?"),
    )
    request = Configuration(ConfigurationType.CFG_REQUEST, asked)
    answer = tester.ask(IKE_AUTH, identity, tester.psk_auth(identity), request, *tester.child_offer())
    assert answer.find(Configuration) == Configuration(ConfigurationType.CFG_REPLY, ASSIGNED)
    assert isinstance(answer.payloads[0], IdResponder)


@covers("R.2.1.2.4", nodes=("SGW",))
def test_a_gateway_may_insist_on_giving_an_address(node: str) -> None:
    tester = after_init(pair_of(node, b={"require_configuration_request": True}))
    identity = tester.identity()
    answer = tester.ask(IKE_AUTH, identity, tester.psk_auth(identity), *tester.child_offer())
    assert answer.notify(NotifyType.FAILED_CP_REQUIRED) is not None and children_of(tester) == 0


# --- CREATE_CHILD_SA: unknown payloads --------------------------------------------------------------------------------


@covers("R.1.1.4.3")
@pytest.mark.parametrize("unknown", UNKNOWN_TYPES)
def test_unknown_payloads_are_skipped(node: str, unknown: int) -> None:
    tester = logged_in(pair_of(node))
    strange = UnknownPayload(PayloadType(unknown), False, b"")
    answer = tester.ask(CREATE_CHILD_SA, strange, *_rekeying(tester), message_id=2)
    assert answer.find(SecurityAssociation) is not None


@covers("R.1.1.4.4")
@pytest.mark.parametrize("unknown", UNKNOWN_TYPES)
def test_unknown_critical_payloads_are_refused(node: str, unknown: int) -> None:
    tester = logged_in(pair_of(node))
    strange = UnknownPayload(PayloadType(unknown), True, b"")
    first, *rest = _rekeying(tester)
    answer = tester.ask(CREATE_CHILD_SA, first, strange, *rest, message_id=2)
    assert kinds(answer) == ["UNSUPPORTED_CRITICAL_PAYLOAD"] and answer.payloads[0].value == bytes([unknown])
    assert children_of(tester) == 1 and tester.ask(INFORMATIONAL, message_id=3).payloads == ()


def _rekeying(tester: Stranger, offer: SecurityAssociation | None = None) -> tuple:
    """A request to rekey the tester's child SA."""
    (old,) = tester.there.children
    _security, *rest = tester.child_offer()
    fresh = offer or esp_offer("aes128gcm16", b"\xab\xcd\x56\x78")
    return (rekey_notify(old.spi_out), fresh, Nonce(TESTER_NONCE), *rest)


# --- CREATE_CHILD_SA: child SAs ---------------------------------------------------------------------------------------


@covers("R.1.2.1.1", "R.1.2.5.1", "R.1.2.5.2", "R.1.2.5.6", "R.1.2.7.1")
def test_a_child_sa_is_rekeyed(node: str) -> None:
    tester = logged_in(pair_of(node))
    (old,) = tester.there.children
    answer = tester.ask(CREATE_CHILD_SA, *_rekeying(tester), message_id=2)
    wanted = ["SecurityAssociation", "Nonce", "TrafficSelectorsInitiator", "TrafficSelectorsResponder"]
    assert [kind for kind in kinds(answer) if kind != "USE_TRANSPORT_MODE"] == wanted
    (new,) = [child for child in tester.there.children if child is not old]
    assert answer.find(SecurityAssociation).proposals[0].spi == new.spi_in_octets
    # The new one is accepted at once; the old one is in use until it is deleted.
    assert set(tester.host.inbound) == {old.spi_in, new.spi_in} and set(tester.host.outbound) == {old.spi_out}
    deleted = tester.ask(INFORMATIONAL, Delete(ProtocolId.ESP, (TESTER_SPI,)), message_id=3)
    assert deleted.payloads == (Delete(ProtocolId.ESP, (old.spi_in_octets,)),)
    assert set(tester.host.outbound) == {new.spi_out}
    tester.pair.run(10)
    assert set(tester.host.inbound) == {new.spi_in}


@covers("R.1.2.5.3", "R.1.2.5.4")
@pytest.mark.parametrize("offered", ["aes256gcm16-aes128gcm16", "aes256-sha256, aes128gcm16"])
def test_a_child_sa_is_rekeyed_with_one_of_several(node: str, offered: str) -> None:
    tester = logged_in(pair_of(node))
    answer = tester.ask(CREATE_CHILD_SA, *_rekeying(tester, esp_offer(offered, b"\xab\xcd\x56\x78")), message_id=2)
    (proposal,) = answer.find(SecurityAssociation).proposals
    assert {(transform.type, transform.key_length) for transform in proposal.transforms} >= {(TransformType.ENCR, 128)}


@covers("R.1.2.5.5", "R.1.1.6.7")
def test_perfect_forward_secrecy_and_a_demand_for_another_key_exchange(node: str) -> None:
    one = settings(node, proposals=parse_proposals("aes128gcm16-x25519-ecp256", ProtocolId.ESP))
    tester = logged_in(pair_of(node, {"children": (one,)}, {"children": (mirrored(one),)}))
    offer = esp_offer("aes128gcm16-ecp256-x25519", b"\xab\xcd\x56\x78")
    notify, security, nonce, *rest = _rekeying(tester, offer)
    wrong = initiate_key_exchange(KeyExchangeMethod.ECP_256)
    right = initiate_key_exchange(KeyExchangeMethod.CURVE25519)
    demand = tester.ask(
        CREATE_CHILD_SA, notify, security, nonce, KeyExchange(wrong.method, wrong.public_value), *rest, message_id=2
    )
    assert kinds(demand) == ["INVALID_KE_PAYLOAD"] and demand.payloads[0].value == b"\x00\x1f"
    key = KeyExchange(right.method, right.public_value)
    answer = tester.ask(CREATE_CHILD_SA, notify, security, nonce, key, *rest, message_id=3)
    assert answer.find(KeyExchange).method == KeyExchangeMethod.CURVE25519
    assert len(tester.there.children) == 2


@covers("R.1.2.2.1")
def test_a_request_again_gets_the_same_answer(node: str) -> None:
    tester = logged_in(pair_of(node))
    answers = _twice(tester, tester.seal(CREATE_CHILD_SA, *_rekeying(tester), message_id=2))
    assert answers[0] == answers[1] and len(tester.there.children) == 2


@covers("R.1.2.3.1")
def test_several_child_sas_are_deleted_at_once(node: str) -> None:
    tester = logged_in(pair_of(node))
    _security, *rest = tester.child_offer()
    second = esp_offer("aes128gcm16", b"\xab\xcd\x56\x78")
    tester.ask(CREATE_CHILD_SA, second, Nonce(TESTER_NONCE), *rest, message_id=2)
    own = {child.spi_in_octets for child in tester.there.children}
    assert len(own) == 2
    both = Delete(ProtocolId.ESP, (TESTER_SPI, b"\xab\xcd\x56\x78"))
    answer = tester.ask(INFORMATIONAL, both, message_id=3)
    (payload,) = answer.payloads
    assert set(payload.spis) == own and children_of(tester) == 0


# --- CREATE_CHILD_SA: the IKE SA --------------------------------------------------------------------------------------


def _ike_rekeying(text: str, method: KeyExchangeMethod = KeyExchangeMethod.CURVE25519) -> tuple:
    key = initiate_key_exchange(method)
    return ike_offer(text, b"TESTERSP"), Nonce(TESTER_NONCE), KeyExchange(key.method, key.public_value)


@covers("R.1.2.6.1", "R.1.2.6.2", "R.1.2.6.5", "R.1.2.6.6")
@pytest.mark.parametrize(
    "offered",
    [
        "aes128gcm16-prfsha256-x25519",
        "aes256gcm16-aes128gcm16-prfsha256-x25519-ecp256",
        "aes256-sha512-ecp521, aes128gcm16-prfsha256-x25519",
    ],
)
def test_the_ike_sa_is_rekeyed(node: str, offered: str) -> None:
    tester = logged_in(pair_of(node))
    answer = tester.ask(CREATE_CHILD_SA, *_ike_rekeying(offered), message_id=2)
    assert kinds(answer) == ["SecurityAssociation", "Nonce", "KeyExchange"]
    (proposal,) = answer.find(SecurityAssociation).proposals
    assert proposal.protocol == ProtocolId.IKE and len(proposal.spi) == 8
    new = tester.host.sa if len(tester.host.engine.sas) == 1 else tester.there.successor
    assert proposal.spi == new.spi and new.children and not tester.there.children
    # What comes on the old one is still answered.
    assert tester.ask(INFORMATIONAL, message_id=3).payloads == ()
    assert tester.ask(INFORMATIONAL, Delete(ProtocolId.IKE), message_id=4).payloads == ()
    assert tester.there.state is IkeState.CLOSED and children_of(tester) == 1


@covers("R.1.2.6.3", "R.1.2.6.4", "R.1.2.6.7")
def test_the_new_ike_sa_has_its_own_keys_prf_and_message_ids(node: str) -> None:
    two = "aes128gcm16-prfsha256-x25519, aes128gcm16-prfsha384-x25519"
    pair = pair_of(node, {"ike_proposals": parse_proposals(two)}, {"ike_proposals": parse_proposals(two)})
    pair.connect()
    import dataclasses

    sa = pair.a.sa
    sa.connection = dataclasses.replace(sa.connection, ike_proposals=parse_proposals(two.split(", ")[1]))
    sa.rekey(pair.now)
    pair.run(2)
    assert pair.b.sa.suite.prf == PseudorandomFunction.PRF_HMAC_SHA2_384 and pair.a.sa is not sa
    before = len(pair.sent)
    pair.a.sa.check_liveness(pair.now)
    pair.run(1)
    request, answer = (Header.decode(datagram.octets) for datagram in pair.sent[before:])
    assert (request.message_id, answer.message_id) == (0, 0) and answer.is_response
    assert len(pair.b.engine.sas) == 1 and sa.state is IkeState.CLOSED


@covers("R.1.2.6.8", "R.1.2.6.9")
@pytest.mark.parametrize("offered", ["aes256-sha512-ecp521", "aes128gcm16-prfsha256"])
def test_an_unacceptable_rekeying_of_the_ike_sa_changes_nothing(node: str, offered: str) -> None:
    """The second offer has no key exchange, which an IKE SA cannot do without (RFC 7296 section 3.3.3)."""
    tester = logged_in(pair_of(node))
    method = KeyExchangeMethod.ECP_521 if "ecp521" in offered else KeyExchangeMethod.CURVE25519
    security, nonce, key = _ike_rekeying("aes128gcm16-prfsha256-x25519", method)
    if "ecp521" in offered:
        security = ike_offer(offered, b"TESTERSP")
    else:
        (proposal,) = security.proposals
        bare = tuple(transform for transform in proposal.transforms if transform.type != TransformType.KE)
        security = SecurityAssociation((type(proposal)(1, ProtocolId.IKE, proposal.spi, bare),))
    answer = tester.ask(CREATE_CHILD_SA, security, nonce, key, message_id=2)
    assert kinds(answer) == ["NO_PROPOSAL_CHOSEN"]
    assert tester.there.state is IkeState.ESTABLISHED and children_of(tester) == 1


# --- INFORMATIONAL ----------------------------------------------------------------------------------------------------


@covers("R.1.3.1.1", "R.1.1.3.4", "R.1.3.2.1")
def test_a_liveness_check_is_answered_every_time_it_comes(node: str) -> None:
    tester = logged_in(pair_of(node))
    assert tester.ask(INFORMATIONAL, message_id=2).payloads == ()
    answers = _twice(tester, tester.seal(INFORMATIONAL, message_id=3))
    assert answers[0] == answers[1]


@covers("R.1.1.3.5")
def test_the_peer_closes_the_ike_sa(node: str) -> None:
    tester = logged_in(pair_of(node))
    assert tester.ask(INFORMATIONAL, Delete(ProtocolId.IKE), message_id=2).payloads == ()
    assert tester.there.state is IkeState.CLOSED and children_of(tester) == 0


@covers("R.1.1.3.6")
def test_the_peer_closes_a_child_sa(node: str) -> None:
    tester = logged_in(pair_of(node))
    (spi,) = tester.host.inbound
    answer = tester.ask(INFORMATIONAL, Delete(ProtocolId.ESP, (TESTER_SPI,)), message_id=2)
    assert answer.payloads == (Delete(ProtocolId.ESP, (spi.to_bytes(4, "big"),)),)
    assert children_of(tester) == 0 and tester.there.state is IkeState.ESTABLISHED


@covers("R.1.1.3.2")
def test_unprotected_messages_change_nothing(node: str) -> None:
    tester = logged_in(pair_of(node))
    channel = tester.sa.channel
    for kind in (NotifyType.INVALID_IKE_SPI, NotifyType.INVALID_SPI, NotifyType.AUTHENTICATION_FAILED):
        spis = channel.initiator_spi, channel.responder_spi
        message = Message(*spis, INFORMATIONAL, True, False, 2, (Notify(kind, bytes(4)),))
        tester.deliver(message.encode())
        assert tester.answers() == []
    assert tester.there.state is IkeState.ESTABLISHED and children_of(tester) == 1
    assert tester.ask(INFORMATIONAL, message_id=2).payloads == ()


@covers("R.1.1.8.2")
def test_authentic_octets_that_are_no_message_are_invalid_syntax(node: str) -> None:
    tester = logged_in(pair_of(node))
    cut_short = UnknownPayload(PayloadType.NONCE, False, b"too short")
    answer = tester.ask(CREATE_CHILD_SA, *_rekeying(tester)[:2], cut_short, message_id=2)
    assert kinds(answer) == ["INVALID_SYNTAX"] and children_of(tester) == 1 - (tester.there.state is IkeState.CLOSED)


def test_modes_are_those_of_the_nodes() -> None:
    assert settings("EN").mode is Mode.TRANSPORT and settings("SGW").mode is Mode.TUNNEL and len(ESP) == 1

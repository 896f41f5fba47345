"""IPv6 Ready IKEv2 conformance: the engine as responder on an IKE SA that is there. See test_ipv6ready.py."""

from __future__ import annotations

import pytest

from ikeway.crypto import initiate_key_exchange
from ikeway.ike import events
from ikeway.ike.proposals import parse_proposals
from ikeway.ike.questions import AssignAddresses
from ikeway.ike.sa import IkeState
from ikeway.wire.message import Header, Message
from ikeway.wire.payloads import (
    Configuration,
    ConfigurationAttribute,
    Delete,
    IdResponder,
    KeyExchange,
    Nonce,
    Notify,
    SecurityAssociation,
    UnknownPayload,
)
from ikeway.wire.registry import (
    ConfigurationAttributeType,
    ConfigurationType,
    KeyExchangeMethod,
    NotifyType,
    PayloadType,
    ProtocolId,
    PseudorandomFunction,
    TransformType,
)
from tests.conformance.ipv6ready import (
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
    twice,
)
from tests.ike.pair import mirrored
from tests.ike.stranger import CREATE_CHILD_SA, IKE_AUTH, INFORMATIONAL, Stranger, after_init, kinds

UNKNOWN_TYPES = [1, 32, 200, 255]  # the specification has 49 for 200; RFC 6467 has given it a meaning since


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


@covers("R.1.2.1.1", "R.1.2.5.1", "R.1.2.5.2", "R.1.2.5.6")
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
    answers = twice(tester, tester.seal(CREATE_CHILD_SA, *_rekeying(tester), message_id=2))
    assert answers[0] == answers[1] and len(tester.there.children) == 2


@covers("R.1.2.3.1", "R.1.2.7.1")
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
    answers = twice(tester, tester.seal(INFORMATIONAL, message_id=3))
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

"""What a peer with keys but without honesty can try, against both roles: each attack fails and costs little."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
from tests.ike.pair import Pair, child, connection, connection_b, mirrored
from tests.ike.stranger import CREATE_CHILD_SA, IKE_AUTH, INFORMATIONAL, after_init, impostor, kinds, offer

from ikeway.address import Address
from ikeway.auth.octets import psk_mac
from ikeway.auth.questions import PskQuestion
from ikeway.crypto import initiate_key_exchange
from ikeway.ike import authentication, events
from ikeway.ike.child import ChildState
from ikeway.ike.negotiation import MAX_CHILDREN
from ikeway.ike.proposals import parse_proposals
from ikeway.ike.questions import AssignAddresses
from ikeway.ike.sa import IkeState
from ikeway.ike.selectors import parse_selector, selector
from ikeway.ike.settings import PskCredential, PskExpected, ResponderSettings
from ikeway.wire.message import Message
from ikeway.wire.payloads import (
    Authentication,
    Configuration,
    ConfigurationAttribute,
    Delete,
    Eap,
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
    AuthenticationMethod,
    ConfigurationAttributeType,
    ConfigurationType,
    ExchangeType,
    IdentificationType,
    KeyExchangeMethod,
    NotifyType,
    PayloadType,
    ProtocolId,
    TrafficSelectorType,
)

CFG_REQUEST = Configuration(
    ConfigurationType.CFG_REQUEST, (ConfigurationAttribute(ConfigurationAttributeType.INTERNAL_IP4_ADDRESS),)
)


def IDENTITY(name: str) -> IdInitiator:
    return IdInitiator(IdentificationType.ID_FQDN, name.encode())


def logged_in(pair: Pair | None = None):
    """A stranger that is none any more: authenticated by its pre-shared key, free to misbehave."""
    peer = after_init(pair)
    identity = peer.identity()
    answer = peer.ask(IKE_AUTH, identity, peer.psk_auth(identity), *peer.child_offer())
    assert "Authentication" in kinds(answer), kinds(answer)
    return peer


# --- IKE_AUTH at a responder ------------------------------------------------------------------------------------------


def test_a_second_conversation_beside_the_first_cannot_lend_its_identity():
    """The first request proves an identity; a second one, while we still look up the first, must not replace it."""
    peer = after_init(Pair(b=connection_b(remote_identity=None)))
    asked = []
    peer.host.answers[AssignAddresses] = lambda question: asked.append(question.identity) or ()
    mallory, admin = peer.identity("mallory.example"), peer.identity("admin.example")
    peer.answers()
    peer.deliver(peer.seal(IKE_AUTH, mallory, peer.psk_auth(mallory), CFG_REQUEST, *peer.child_offer()))
    peer.deliver(peer.seal(IKE_AUTH, admin, message_id=2))
    answers = peer.answers()
    assert [answer.message_id for answer in answers] == [1]
    assert len(peer.host.happened(events.Asked)) == 2  # for the connection and the addresses
    assert [str(identity) for identity in asked] == ["mallory.example"]
    assert str(peer.there.remote_identity) == "mallory.example"


def test_a_peer_cannot_begin_more_than_its_window():
    peer = after_init(Pair(b=connection_b(window=4)))
    identity = peer.identity()
    peer.answers()
    for message_id in range(1, 50):
        peer.deliver(peer.seal(IKE_AUTH, identity, message_id=message_id))
    assert len(peer.there.driver._all) == 1
    assert len([event for event in peer.host.engine.events() if isinstance(event, events.Asked)]) == 1


def test_another_log_in_on_an_established_sa_changes_nobody():
    peer = logged_in()
    admin = peer.identity("admin.example")
    answer = peer.ask(IKE_AUTH, admin, peer.psk_auth(admin), *peer.child_offer(), message_id=2)
    assert kinds(answer) == ["INVALID_SYNTAX"]
    assert str(peer.there.remote_identity) == "a.example" and len(peer.host.inbound) == 1


@pytest.mark.parametrize("exchange", [CREATE_CHILD_SA, ExchangeType.IKE_SA_INIT, ExchangeType(240)])
def test_nothing_but_log_ins_before_the_log_in(exchange):
    peer = after_init()
    peer.answers()
    peer.deliver(peer.seal(exchange, *peer.child_offer(), Nonce(bytes(32))))
    assert all(kinds(answer) == ["INVALID_SYNTAX"] for answer in peer.answers())
    assert not peer.host.inbound and not peer.host.happened(events.IkeEstablished)
    assert peer.there.state is IkeState.CONNECTING


def test_deletes_and_errors_before_the_log_in_end_it():
    for payload in (Delete(ProtocolId.IKE), Notify(NotifyType.AUTHENTICATION_FAILED)):
        peer = after_init()
        assert kinds(peer.ask(INFORMATIONAL, payload)) == []
        assert peer.there.state is IkeState.CLOSED


def test_auth_of_another_session_is_worth_nothing():
    recorded = after_init(Pair(seed=5))
    old = recorded.psk_auth(recorded.identity())
    peer = after_init()
    answer = peer.ask(IKE_AUTH, peer.identity(), old, *peer.child_offer())
    assert kinds(answer) == ["AUTHENTICATION_FAILED"]


def test_the_gateways_own_auth_sent_back_to_it_is_worth_nothing():
    """With one secret for both directions; each side signs with a key of its own (SK_pi, SK_pr)."""
    peer = after_init(Pair(b=connection_b(remote_identity=None)))
    own = IdResponder(IdentificationType.ID_FQDN, b"b.example")
    mac = psk_mac(peer.sa.prf, b"a secret", authentication.own_octets(peer.there, own))
    reflected = Authentication(AuthenticationMethod.SHARED_KEY_MIC, mac)
    answer = peer.ask(IKE_AUTH, peer.identity("b.example"), reflected, *peer.child_offer())
    assert kinds(answer) == ["AUTHENTICATION_FAILED"]


@pytest.mark.parametrize("method", [0, 1, 3, 9, 10, 11, 13, 14, 200])
def test_auth_by_another_method_than_expected_is_refused(method):
    peer = after_init()
    identity = peer.identity()
    right = peer.psk_auth(identity)
    answer = peer.ask(IKE_AUTH, identity, Authentication(AuthenticationMethod(method), right.value))
    assert kinds(answer) == ["AUTHENTICATION_FAILED"]
    assert peer.there.state is IkeState.CLOSED


@pytest.mark.parametrize("value", [b"", b"\0", bytes(31), bytes(32), bytes(64), bytes(60000)])
def test_auth_of_any_size_is_refused(value):
    peer = after_init()
    answer = peer.ask(IKE_AUTH, peer.identity(), Authentication(AuthenticationMethod.SHARED_KEY_MIC, value))
    assert kinds(answer) == ["AUTHENTICATION_FAILED"]


def test_of_two_identities_the_one_that_auth_proves_counts():
    mallory, admin = IDENTITY("mallory.example"), IDENTITY("admin.example")
    for first, second, proven in ((mallory, admin, True), (admin, mallory, False)):
        peer = after_init(Pair(b=connection_b(remote_identity=None)))
        answer = peer.ask(IKE_AUTH, first, second, peer.psk_auth(mallory), *peer.child_offer())
        assert ("Authentication" in kinds(answer)) == proven
        if proven:
            assert str(peer.there.remote_identity) == "mallory.example"


def test_of_two_auth_payloads_one_must_not_cover_for_the_other():
    peer = after_init()
    identity = peer.identity()
    wrong = Authentication(AuthenticationMethod.SHARED_KEY_MIC, bytes(32))
    answer = peer.ask(IKE_AUTH, identity, wrong, peer.psk_auth(identity), *peer.child_offer())
    assert kinds(answer) == ["AUTHENTICATION_FAILED"]


def test_each_identity_has_its_own_secret():
    """The secret is that of the identity that AUTH covers, whatever else is named."""
    secrets = {"a.example": b"secret of a", "admin.example": b"secret of admin"}
    b = connection_b(remote_identity=None, remote_expectation=PskExpected(), local_credential=PskCredential())
    for claimed in ("admin.example", "a.example"):
        peer = after_init(Pair(b=b))
        peer.host.answers[PskQuestion] = lambda question: secrets.get(str(question.remote_identity))
        identity = peer.identity(claimed)
        answer = peer.ask(
            IKE_AUTH, identity, IDENTITY("a.example"), peer.psk_auth(identity, b"secret of a"), *peer.child_offer()
        )
        assert ("Authentication" in kinds(answer)) == (claimed == "a.example")


def test_a_stranger_cannot_push_others_out_by_initial_contact():
    pair = Pair()
    pair.connect()
    first = pair.b.sa
    peer = after_init(pair)
    answer = peer.ask(
        IKE_AUTH,
        peer.identity(),
        peer.psk_auth(peer.identity(), b"a guess"),
        Notify(NotifyType.INITIAL_CONTACT),
        *peer.child_offer(),
    )
    assert kinds(answer) == ["AUTHENTICATION_FAILED"]
    assert first.state is IkeState.ESTABLISHED and len(pair.b.inbound) == 1


def test_a_suite_that_the_connection_does_not_allow_is_refused():
    """The gateway speaks a weaker suite for others; whose connection demands more does not get by with it."""
    weak, strong = parse_proposals("aes128-sha256-x25519"), parse_proposals("aes256gcm16-prfsha384-x25519")
    for allowed, let_in in ((weak, True), (strong, False)):
        responder = ResponderSettings(ike_proposals=strong + weak, cookie_threshold=1000)
        pair = Pair(connection(ike_proposals=weak), connection_b(ike_proposals=allowed), responder=responder)
        pair.connect()
        assert bool(pair.b.inbound) == let_in
        if not let_in:
            assert pair.a.errors and pair.b.happened(events.Refused)[0].error.remedy


# --- the header -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"is_initiator": False},
        {"is_response": True},
        {"initiator_spi": b"another!"},
        {"responder_spi": b"another!"},
        {"responder_spi": bytes(8)},
    ],
)
def test_a_header_that_does_not_fit_is_dropped_unread(change):
    peer = after_init()
    identity = peer.identity()
    peer.answers()
    peer.deliver(peer.seal(IKE_AUTH, identity, peer.psk_auth(identity), *peer.child_offer(), **change))
    assert peer.answers() == [] and peer.there.channel.expected_id == 1
    assert not peer.host.happened(events.Asked)


def test_a_message_in_the_clear_is_nothing():
    peer = logged_in()
    channel = peer.sa.channel
    for is_response in (True, False):
        for payload in (Delete(ProtocolId.IKE), Notify(NotifyType.INVALID_IKE_SPI), Notify(NotifyType.INVALID_SYNTAX)):
            message = Message(
                channel.initiator_spi, channel.responder_spi, INFORMATIONAL, True, is_response, 2, (payload,)
            )
            peer.deliver(message.encode())
    assert peer.answers() == [] and peer.there.state is IkeState.ESTABLISHED


def test_critical_payloads_that_nobody_knows_are_named_and_the_sa_lives():
    peer = logged_in()
    answer = peer.ask(INFORMATIONAL, UnknownPayload(PayloadType(99), True, b"?"), Delete(ProtocolId.IKE), message_id=2)
    (notify,) = answer.find_all(Notify)
    assert (notify.type, notify.value) == (NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD, b"\x63")
    assert peer.there.state is IkeState.ESTABLISHED
    # Not critical: passed over.
    assert kinds(peer.ask(INFORMATIONAL, UnknownPayload(PayloadType(99), False, b"?"), message_id=3)) == []


def test_authentic_octets_that_are_no_payloads_end_the_sa():
    peer = logged_in()
    answer = peer.ask(INFORMATIONAL, UnknownPayload(PayloadType.NONCE, False, b"short"), message_id=2)
    assert kinds(answer) == ["INVALID_SYNTAX"]
    assert peer.there.state is IkeState.CLOSED and not peer.host.inbound


# --- child SAs --------------------------------------------------------------------------------------------------------


def many_children(**changes) -> Pair:
    """A gateway that asks for no key exchange of further child SAs."""
    proposals = parse_proposals("aes128gcm16", ProtocolId.ESP)
    return Pair(connection(), connection_b(children=(mirrored(child(proposals=proposals)),), **changes))


def ranges(*values: tuple[int, int, int, bytes, bytes]) -> tuple[TrafficSelector, ...]:
    return tuple(TrafficSelector(TrafficSelectorType.TS_IPV4_ADDR_RANGE, *value) for value in values)


BACKWARDS = ranges((0, 0, 65535, b"\x0a\x01\xff\xff", b"\x0a\x01\0\0"))
NO_PORTS = ranges((6, 9, 3, b"\x0a\x01\0\0", b"\x0a\x01\xff\xff"))
STRANGE = (TrafficSelector(TrafficSelectorType(9), 0, 0, 0, b"\0\0\0\1", b""),)


@pytest.mark.parametrize("odd", [(), BACKWARDS, NO_PORTS, STRANGE, BACKWARDS * 255], ids=str)
@pytest.mark.parametrize("which", ["tsi", "tsr"])
def test_selectors_that_hold_nothing_are_not_granted(which, odd):
    peer = logged_in(many_children())
    answer = peer.ask(CREATE_CHILD_SA, *offer(peer, **{which: odd}), message_id=2)
    assert kinds(answer) == ["TS_UNACCEPTABLE"]
    assert len(peer.host.inbound) == 1 and peer.there.state is IkeState.ESTABLISHED


def test_everything_is_narrowed_to_what_is_granted():
    peer = logged_in(many_children())
    everything = (selector("0.0.0.0/0"), selector("::/0"))
    answer = peer.ask(CREATE_CHILD_SA, *offer(peer, tsi=everything, tsr=everything), message_id=2)
    assert answer.find(TrafficSelectorsInitiator).selectors == (selector("10.1.0.0/16"),)
    assert answer.find(TrafficSelectorsResponder).selectors == (selector("10.2.0.0/16"),)


def test_hundreds_of_selectors_are_answered_in_bounded_time_and_size():
    settings = dataclasses.replace(
        mirrored(child(proposals=parse_proposals("aes128gcm16", ProtocolId.ESP))),
        remote_selectors=tuple(selector(f"10.1.{number}.0/24") for number in range(200)),
    )
    peer = logged_in(Pair(b=connection_b(children=(settings,))))
    pieces = tuple(parse_selector(f"10.1.0.0/16[tcp/{number}]") for number in range(1, 256))
    started = time.process_time()
    answer = peer.ask(CREATE_CHILD_SA, *offer(peer, tsi=pieces), message_id=2)
    assert time.process_time() - started < 2
    assert 1 <= len(answer.find(TrafficSelectorsInitiator).selectors) <= 255


@pytest.mark.parametrize("spi", [bytes(4), b"\xab\xcd\x12\x34"])
def test_an_spi_that_is_none_or_taken_is_refused(spi):
    """ABCD1234 is the one that the first child SA of the stranger has."""
    peer = logged_in(many_children())
    answer = peer.ask(CREATE_CHILD_SA, *offer(peer, spi), message_id=2)
    assert kinds(answer) == ["INVALID_SYNTAX"]
    assert len(peer.host.inbound) == 1


def test_nobody_makes_child_sas_without_end():
    peer = logged_in(many_children())
    for number in range(2, MAX_CHILDREN + 10):
        answer = peer.ask(CREATE_CHILD_SA, *offer(peer, (0x1000 + number).to_bytes(4, "big")), message_id=number)
    assert kinds(answer) == ["NO_ADDITIONAL_SAS"]
    assert len(peer.host.inbound) == MAX_CHILDREN == len(peer.host.engine._shared.esp_spis)
    # Rekeying one again and again is no way around it.
    rekeyed = Notify(NotifyType.REKEY_SA, b"", ProtocolId.ESP, b"\xab\xcd\x12\x34")
    for again in range(number + 1, number + 2 * MAX_CHILDREN):
        peer.ask(CREATE_CHILD_SA, rekeyed, *offer(peer, (0x1000 + again).to_bytes(4, "big")), message_id=again)
    assert len(peer.host.inbound) <= 2 * MAX_CHILDREN


def test_deletes_of_what_is_not_there_do_nothing_and_cost_nothing():
    peer = logged_in()
    spis = tuple(number.to_bytes(4, "big") for number in range(4000))
    for message_id, payload in enumerate(
        (
            Delete(ProtocolId.ESP, (bytes(4),)),
            Delete(ProtocolId.ESP, spis),
            Delete(ProtocolId.ESP),
            Delete(ProtocolId.AH, spis),
            Delete(ProtocolId(77), (b"x",)),
        ),
        2,
    ):
        assert kinds(peer.ask(INFORMATIONAL, payload, message_id=message_id)) == []
    assert len(peer.host.inbound) == 1 and len(peer.there.early_deletes) < 100


def test_early_deletes_are_bounded():
    """While a child SA of ours is being made the peer may delete it before we know it; but not thousands."""
    peer = logged_in(many_children())
    peer.there.rekey_child(peer.there.children[0], peer.pair.now)
    spis = [number.to_bytes(4, "big") for number in range(0x1000, 0x1000 + 40000)]
    for message_id in range(2, 12):
        batch = tuple(spis[(message_id - 2) * 4000 : (message_id - 1) * 4000])
        peer.ask(INFORMATIONAL, Delete(ProtocolId.ESP, batch), message_id=message_id)
    assert len(peer.there.early_deletes) <= 4096


@pytest.mark.parametrize("spi", [bytes(8), b"", b"1234", bytes(4)])
def test_an_ike_sa_is_rekeyed_to_a_proper_spi_or_not_at_all(spi):
    peer = logged_in()
    exchange = initiate_key_exchange(KeyExchangeMethod.CURVE25519)
    proposals = tuple(dataclasses.replace(one, number=1, spi=spi) for one in peer.pair.a.connection.ike_proposals)
    answer = peer.ask(
        CREATE_CHILD_SA,
        SecurityAssociation(proposals),
        Nonce(bytes(32)),
        KeyExchange(exchange.method, exchange.public_value),
        message_id=2,
    )
    assert answer.find(SecurityAssociation) is None
    assert not peer.host.happened(events.IkeRekeyed)


# --- a stranger in the gateway's place --------------------------------------------------------------------------------


def deceived(*payloads, **pair) -> Any:
    """What an initiator makes of an IKE_AUTH response."""
    peer = impostor(Pair(**pair))
    peer.answers()
    made = payloads[0](peer) if callable(payloads[0]) else payloads
    peer.deliver(peer.seal(IKE_AUTH, *made, is_response=True))
    return peer, peer.answers()


def not_deceived(peer, sent) -> None:
    assert not peer.host.happened(events.IkeEstablished)
    assert not peer.host.inbound and not peer.host.outbound and len(peer.host.errors) == 1
    # It says so, and leaves nothing.
    assert [kinds(message) for message in sent] == [["AUTHENTICATION_FAILED"]]
    peer.pair.run(30)
    assert not peer.host.engine._shared.table and not peer.host.engine._shared.esp_spis


@pytest.mark.parametrize(
    "made",
    [
        lambda peer: (peer.identity(), *peer.child_offer()),
        lambda peer: (peer.identity(), peer.psk_auth(peer.identity(), b"a guess"), *peer.child_offer()),
        lambda peer: (peer.identity("c.example"), peer.psk_auth(peer.identity("c.example")), *peer.child_offer()),
        lambda peer: (peer.psk_auth(peer.identity()), *peer.child_offer()),
        lambda peer: (IDENTITY("b.example"), peer.psk_auth(peer.identity()), *peer.child_offer()),
        lambda peer: (peer.identity("c.example"), peer.identity(), peer.psk_auth(peer.identity())),
        lambda peer: (Notify(NotifyType.INITIAL_CONTACT),),
        lambda peer: (Eap(b"\1\0\0\5\1"), peer.identity()),
    ],
)
def test_an_impostor_is_not_believed(made):
    not_deceived(*deceived(made))


def test_an_impostors_refusal_is_a_refusal_and_no_more():
    peer, sent = deceived(Notify(NotifyType.AUTHENTICATION_FAILED))
    assert not sent and peer.host.errors[0].notify == NotifyType.AUTHENTICATION_FAILED
    peer.pair.run(30)
    assert not peer.host.engine._shared.esp_spis


@pytest.mark.parametrize(
    ("exchange", "payload"),
    [(INFORMATIONAL, Delete(ProtocolId.IKE)), (INFORMATIONAL, Notify(NotifyType.INVALID_SYNTAX)), (IKE_AUTH, None)],
)
def test_requests_to_an_initiator_that_is_not_through_are_not_heard(exchange, payload):
    """Neither answered nor counted: the same message id serves once the SA is up."""
    peer = impostor()
    peer.answers()
    payloads = (payload,) if payload is not None else (peer.identity(), peer.psk_auth(peer.identity()))
    for message_id in (0, 1):
        peer.deliver(peer.seal(exchange, *payloads, message_id=message_id))
    assert peer.answers() == [] and peer.there.state is IkeState.CONNECTING
    assert peer.there.channel.expected_id == 0


def true_gateway(*extra, tsi=None, tsr=None, sa=None):
    """A gateway with the right secret and wrong wishes for the child SA."""

    def made(peer):
        security, one, other = (sa, None, None) if sa is not None else (None, None, None)
        proposals = peer.child_offer()[0].proposals
        mine = peer.pair.a.connection.children[0]
        security = security or SecurityAssociation(proposals[:1])
        one = TrafficSelectorsInitiator(tsi if tsi is not None else mine.local_selectors)
        other = TrafficSelectorsResponder(tsr if tsr is not None else mine.remote_selectors)
        return (peer.identity(), peer.psk_auth(peer.identity()), security, one, other, *extra)

    return made


@pytest.mark.parametrize(
    "keywords",
    [
        {"tsi": (selector("0.0.0.0/0"),)},
        {"tsr": (selector("10.0.0.0/8"),)},
        {"tsr": (selector("10.2.0.0/16"), selector("10.3.0.0/16"))},
        {"tsi": ()},
        {"tsr": BACKWARDS},
        {"tsr": STRANGE},
    ],
    ids=str,
)
def test_a_gateway_cannot_widen_what_it_was_offered(keywords):
    peer, _ = deceived(true_gateway(**keywords))
    assert peer.host.happened(events.IkeEstablished)
    (failed,) = peer.host.happened(events.ChildFailed)
    assert failed.error.reason
    assert not peer.host.inbound and not peer.host.engine._shared.esp_spis


def test_a_client_takes_only_its_assigned_address_whatever_the_gateway_grants():
    address = ConfigurationAttribute(ConfigurationAttributeType.INTERNAL_IP4_ADDRESS, bytes([10, 9, 0, 7]))
    reply = Configuration(ConfigurationType.CFG_REPLY, (address,))
    everything = (selector("0.0.0.0/0"),)
    a = connection(
        request_configuration=CFG_REQUEST.attributes,
        children=(child(local_selectors=(), remote_selectors=everything),),
    )
    peer, _ = deceived(true_gateway(reply, tsi=everything, tsr=everything), a=a)
    (esp,) = peer.host.inbound.values()
    assert esp.local_selectors == (selector("10.9.0.7"),) and esp.remote_selectors == everything


# --- MOBIKE -----------------------------------------------------------------------------------------------------------


def established_gateway() -> Any:
    """The other way round: the engine under test is the initiator, its SA is up, the stranger is the gateway."""
    peer, _ = deceived(
        true_gateway(Notify(NotifyType.MOBIKE_SUPPORTED)), a=connection(initial_contact=False), b=connection_b()
    )
    assert peer.there.mobike and len(peer.host.inbound) == 1
    return peer


UPDATE = Notify(NotifyType.UPDATE_SA_ADDRESSES)


def test_the_responder_of_the_first_sa_moves_nobody():
    peer = established_gateway()
    before = peer.there.remote
    peer.deliver(peer.seal(INFORMATIONAL, UPDATE, message_id=0), Address("203.0.113.66", 4500))
    peer.answers()
    assert peer.there.remote == before and not peer.host.happened(events.PathChanged)


def test_an_update_without_mobike_moves_nobody():
    peer = logged_in()
    assert not peer.there.mobike
    before = peer.there.remote
    peer.deliver(peer.seal(INFORMATIONAL, UPDATE, message_id=2), Address("203.0.113.66", 4500))
    peer.answers()
    assert peer.there.remote == before and not peer.host.happened(events.PathChanged)


@pytest.mark.parametrize("returned", [(), (Notify(NotifyType.COOKIE2, bytes(16)),), (Notify(NotifyType.COOKIE2),)])
def test_a_wrong_cookie2_ends_the_sa(returned):
    peer = established_gateway()
    peer.there.move(Address("192.0.2.55", 4500), None, peer.pair.now)
    (update,) = peer.answers()
    assert update.notify(NotifyType.COOKIE2)
    peer.deliver(peer.seal(INFORMATIONAL, *returned, message_id=update.message_id, is_response=True))
    peer.answers()
    assert peer.there.state is IkeState.CLOSED and not peer.host.inbound


def test_addresses_of_a_gateway_are_bounded_and_real():
    peer = established_gateway()
    addresses = [Notify(NotifyType.ADDITIONAL_IP4_ADDRESS, bytes([203, 0, 113, number])) for number in range(100)]
    addresses += [Notify(NotifyType.ADDITIONAL_IP6_ADDRESS, bytes(size)) for size in (0, 1, 15, 17, 300)]
    peer.ask(INFORMATIONAL, *addresses, message_id=0)
    assert len(peer.there.peer_addresses) == 16


def test_of_two_updates_out_of_order_the_later_one_stands():
    """With a window of more than one (RFC 4555 section 3.5)."""
    peer = after_init(Pair(b=connection_b(window=4)))
    identity = peer.identity()
    mobike = Notify(NotifyType.MOBIKE_SUPPORTED)
    peer.ask(IKE_AUTH, identity, peer.psk_auth(identity), *peer.child_offer(), mobike)
    assert peer.there.mobike
    older, later = (peer.seal(INFORMATIONAL, UPDATE, message_id=message_id) for message_id in (2, 3))
    peer.deliver(later, Address("203.0.113.3", 4500))
    peer.deliver(older, Address("203.0.113.2", 4500))
    peer.answers()
    assert peer.there.remote == Address("203.0.113.3", 4500)


# --- rekeying, with worthless answers ---------------------------------------------------------------------------------


def rekeying_answered(kind: str, value: bytes) -> Any:
    """The engine under test rekeys; the peer answers with a key exchange value that is worth nothing."""
    peer = logged_in(Pair(b=connection_b(children=(mirrored(child()),))))
    sa = peer.there
    if kind == "ike":
        sa.rekey(peer.pair.now)
    else:
        sa.rekey_child(sa.children[0], peer.pair.now)
    (request,) = [message for message in peer.answers() if not message.is_response]
    security = request.find(SecurityAssociation)
    spi = b"newspi!!" if kind == "ike" else b"new!"
    proposal = dataclasses.replace(security.proposals[0], spi=spi)
    key = request.find(KeyExchange)
    answer = [SecurityAssociation((proposal,)), Nonce(bytes(32)), KeyExchange(key.method, value)]
    if kind == "child":
        answer += [request.find(TrafficSelectorsInitiator), request.find(TrafficSelectorsResponder)]
    peer.deliver(peer.seal(CREATE_CHILD_SA, *answer, message_id=request.message_id, is_response=True))
    return peer, peer.answers()


@pytest.mark.parametrize("value", [bytes(32), bytes(5), b""])
@pytest.mark.parametrize("kind", ["ike", "child"])
def test_a_rekeying_with_a_worthless_public_value_fails_and_is_tried_again(kind, value):
    peer, _ = rekeying_answered(kind, value)
    assert peer.there.state is IkeState.ESTABLISHED
    assert peer.there.children[0].state is ChildState.INSTALLED
    assert not peer.host.happened(events.IkeRekeyed) and len(peer.host.inbound) == 1
    assert peer.there.timers.get("rekey" if kind == "ike" else ("child-rekey", peer.there.children[0])) is not None
    assert len(peer.host.engine._shared.esp_spis) == 1

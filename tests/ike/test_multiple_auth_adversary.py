"""Who has one of two proofs gets nothing (RFC 4739): peers that leave out, repeat, reorder or forge the second one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ike.pair import Pair
from tests.ike.stranger import CREATE_CHILD_SA, IKE_AUTH, INFORMATIONAL, Stranger, after_init, impostor, kinds, offer
from tests.ike.test_eap import eap_response
from tests.ike.test_multiple_auth import by_certificate, by_eap, by_psk, several

from ikeway.auth.octets import eap_mac
from ikeway.eap.packet import EapCode, EapPacket
from ikeway.ike import authentication, events
from ikeway.ike.questions import SettleConnection, Settled
from ikeway.ike.sa import IkeState
from ikeway.ike.settings import FurtherExpectation
from ikeway.wire.payloads import Authentication, Delete, Eap, Nonce, Notify, Payload
from ikeway.wire.registry import AuthenticationMethod, NotifyType, ProtocolId

SUPPORTED, MORE = Notify(NotifyType.MULTIPLE_AUTH_SUPPORTED), Notify(NotifyType.ANOTHER_AUTH_FOLLOWS)
SECRET = b"known to nobody else"  # the second one, which the stranger lacks


def nothing_given(peer: Stranger) -> None:
    """The engine under test has taken nobody for authenticated."""
    assert peer.there.state in (IkeState.CONNECTING, IkeState.CLOSED) and not peer.there.established
    assert not peer.host.happened(events.IkeEstablished) and not peer.host.happened(events.ChildUp)
    assert not peer.host.inbound and not peer.host.outbound


def half_way(pair: Pair | None = None, *extra: Payload) -> Stranger:
    """A client that has given the first of its two proofs, and said that it will give another."""
    peer = after_init(pair or several(by_psk(), by_psk(SECRET, SECRET)))
    own = peer.identity()
    answer = peer.ask(IKE_AUTH, own, peer.psk_auth(own), MORE, SUPPORTED, *peer.child_offer(), *extra)
    assert kinds(answer) == ["IdResponder", "Authentication"]
    nothing_given(peer)
    return peer


def sk_p_auth(peer: Stranger) -> Authentication:
    """AUTH as after an EAP method without a key: everybody can make it."""
    octets = authentication.own_octets(peer.sa, peer.identity())
    return Authentication(AuthenticationMethod.SHARED_KEY_MIC, eap_mac(peer.sa.prf, peer.sa.keys.sk_pi, octets))


# --- a client that has one of two proofs ------------------------------------------------------------------------------


@pytest.mark.parametrize("second", [by_psk(SECRET, SECRET), by_certificate(), by_eap()])
def test_the_first_proof_alone_is_no_log_in(second):
    peer = after_init(several(by_psk(), second))
    own = peer.identity()
    answer = peer.ask(IKE_AUTH, own, peer.psk_auth(own), SUPPORTED, *peer.child_offer())
    assert kinds(answer) == ["AUTHENTICATION_FAILED"]
    nothing_given(peer)
    assert peer.there.state is IkeState.CLOSED


@pytest.mark.parametrize("beside", [(), (MORE,)])
def test_a_client_that_does_not_do_several_is_refused_at_once(beside):
    peer = after_init(several(by_psk(), by_eap()))
    own = peer.identity()
    assert kinds(peer.ask(IKE_AUTH, own, peer.psk_auth(own), *beside)) == ["AUTHENTICATION_FAILED"]
    nothing_given(peer)


def _second(peer: Stranger, name: str) -> tuple[Payload, ...]:
    own, other = peer.identity(), peer.identity("admin.example")
    return {
        "nothing": (),
        "the child SA alone": peer.child_offer(),
        "the first proof again": (own, peer.psk_auth(own)),
        "the first proof again, without an identity": (peer.psk_auth(own),),
        "the first proof for another identity": (other, peer.psk_auth(other)),
        "an AUTH that needs no secret": (own, sk_p_auth(peer)),
        "an identity and no AUTH": (own,),
        "another identity and no AUTH": (other,),
        "EAP-Success": (own, Eap(EapPacket(EapCode.SUCCESS, 0).encode())),
        "an empty AUTH": (own, Authentication(AuthenticationMethod.SHARED_KEY_MIC, b"")),
        "NULL authentication": (own, Authentication(AuthenticationMethod.NULL, bytes(32))),
        "a promise": (own, peer.psk_auth(own), MORE),
    }[name]


SECONDS = [
    "nothing",
    "the child SA alone",
    "the first proof again",
    "the first proof again, without an identity",
    "the first proof for another identity",
    "an AUTH that needs no secret",
    "an identity and no AUTH",
    "another identity and no AUTH",
    "EAP-Success",
    "an empty AUTH",
    "NULL authentication",
    "a promise",
]


@pytest.mark.parametrize("name", SECONDS)
def test_nothing_else_stands_for_the_second_proof(name):
    peer = half_way()
    answer = peer.ask(IKE_AUTH, *_second(peer, name), *peer.child_offer(), message_id=2)
    assert kinds(answer) in (["AUTHENTICATION_FAILED"], ["INVALID_SYNTAX"])
    assert peer.there.state is IkeState.CLOSED
    nothing_given(peer)


@pytest.mark.parametrize("name", SECONDS)
def test_nothing_else_stands_for_the_second_proof_by_eap(name):
    peer = half_way(several(by_psk(), by_eap()))
    answer = peer.ask(IKE_AUTH, *_second(peer, name), *peer.child_offer(), message_id=2)
    if answer.find(Eap) is None:
        assert kinds(answer) in (["AUTHENTICATION_FAILED"], ["INVALID_SYNTAX"])
    else:
        assert kinds(answer) == ["Eap"]  # it may begin, and has to prove itself
        answer = peer.ask(IKE_AUTH, sk_p_auth(peer), *peer.child_offer(), message_id=3)
        assert kinds(answer) == ["AUTHENTICATION_FAILED"]
    nothing_given(peer)


def test_eap_without_its_auth_is_not_the_end_of_the_first_log_in():
    """EAP succeeds, and the client begins the second log-in instead of binding the first one."""
    peer = after_init(several(by_eap(), by_psk()))
    answer = peer.ask(IKE_AUTH, peer.identity(), SUPPORTED, *peer.child_offer())
    message_id = 2
    while EapPacket.decode((eap := answer.find(Eap)).packet).code is EapCode.REQUEST:
        answer = peer.ask(IKE_AUTH, eap_response(eap.packet), message_id=message_id)
        message_id += 1
    own = peer.identity()
    answer = peer.ask(IKE_AUTH, own, peer.psk_auth(own), MORE, *peer.child_offer(), message_id=message_id)
    assert kinds(answer) == ["AUTHENTICATION_FAILED"]
    nothing_given(peer)


def test_the_second_log_in_first():
    """The order is the connection's: a client cannot choose which proof it gives."""
    peer = after_init(several(by_eap(), by_psk()))
    own = peer.identity()
    answer = peer.ask(IKE_AUTH, own, peer.psk_auth(own), MORE, SUPPORTED, *peer.child_offer())
    assert kinds(answer) == ["AUTHENTICATION_FAILED"]
    nothing_given(peer)


def test_no_end_of_log_ins():
    """One more is announced again and again: it ends where the connection's ends."""
    peer = half_way(several(by_psk(), by_psk()))
    own = peer.identity()
    answer = peer.ask(IKE_AUTH, own, peer.psk_auth(own), MORE, message_id=2)
    assert kinds(answer) == ["AUTHENTICATION_FAILED"]
    nothing_given(peer)


def test_waiting_for_ever_ends():
    peer = half_way()
    peer.pair.run(200)
    assert peer.there.state is IkeState.CLOSED
    nothing_given(peer)
    peer.pair.run(20)
    assert not peer.host.engine.sas and not len(peer.host.engine._half_open)


# --- other exchanges in between ---------------------------------------------------------------------------------------


def _between(peer: Stranger, name: str) -> tuple[int, tuple[Payload, ...]]:
    rekey = replace(peer.pair.a.connection.ike_proposals[0], spi=bytes(7) + b"\1")
    from ikeway.wire.payloads import SecurityAssociation

    return {
        "a child SA": (CREATE_CHILD_SA, offer(peer)),
        "a rekeyed IKE SA": (CREATE_CHILD_SA, (SecurityAssociation((rekey,)), Nonce(bytes(32)))),
        "a rekeyed child SA": (
            CREATE_CHILD_SA,
            (Notify(NotifyType.REKEY_SA, b"", ProtocolId.ESP, b"\x11\x22\x33\x44"), *offer(peer)),
        ),
        "a sign of life": (INFORMATIONAL, ()),
        "a status": (INFORMATIONAL, (Notify(NotifyType.INITIAL_CONTACT),)),
        "a new address": (INFORMATIONAL, (Notify(NotifyType.UPDATE_SA_ADDRESSES),)),
        "its end": (INFORMATIONAL, (Delete(ProtocolId.IKE, ()),)),
        "a failure": (INFORMATIONAL, (Notify(NotifyType.AUTHENTICATION_FAILED),)),
        "a new IKE_SA_INIT": (34, (Nonce(bytes(32)),)),
    }[name]


BETWEEN = [
    "a child SA",
    "a rekeyed IKE SA",
    "a rekeyed child SA",
    "a sign of life",
    "a status",
    "a new address",
    "its end",
    "a failure",
    "a new IKE_SA_INIT",
]


@pytest.mark.parametrize("name", BETWEEN)
def test_no_other_exchange_gets_anything_between_the_log_ins(name):
    peer = half_way()
    exchange, payloads = _between(peer, name)
    peer.deliver(peer.seal(exchange, *payloads, message_id=2))
    for answer in peer.answers():
        assert all(kind not in kinds(answer) for kind in ("SecurityAssociation", "Configuration"))
    nothing_given(peer)
    assert len(peer.host.engine.sas) <= 1


@pytest.mark.parametrize("name", ["a child SA", "a sign of life"])
def test_after_it_the_second_proof_is_due_as_before(name):
    peer = half_way()
    exchange, payloads = _between(peer, name)
    assert kinds(peer.ask(exchange, *payloads, message_id=2)) == ["INVALID_SYNTAX"]
    own = peer.identity()
    answer = peer.ask(IKE_AUTH, own, peer.psk_auth(own), message_id=3)
    assert kinds(answer) == ["AUTHENTICATION_FAILED"]
    nothing_given(peer)


def test_after_it_the_right_second_proof_stands():
    peer = half_way()
    peer.ask(INFORMATIONAL, message_id=2)
    own = peer.identity()
    answer = peer.ask(IKE_AUTH, own, peer.psk_auth(own, SECRET), message_id=3)
    assert "SecurityAssociation" in kinds(answer)
    assert peer.host.happened(events.IkeEstablished)


def test_what_the_second_request_asks_for_counts_for_nothing():
    """The child SA is the one of the first request, whatever comes later."""
    peer = half_way()
    own = peer.identity()
    answer = peer.ask(IKE_AUTH, own, peer.psk_auth(own, SECRET), *offer(peer, spi=b"\xff\xff\xff\xff"), message_id=2)
    assert "SecurityAssociation" in kinds(answer)
    assert list(peer.host.outbound) == [0xABCD1234]


MOVES = st.one_of(
    st.tuples(st.just("auth"), st.sampled_from(SECONDS)),
    st.tuples(st.just("between"), st.sampled_from(BETWEEN)),
)


@settings(max_examples=150, deadline=None)
@given(three=st.booleans(), moves=st.lists(MOVES, max_size=6), pauses=st.lists(st.floats(0, 60), max_size=6))
def test_no_sequence_of_moves_gets_in(three, moves, pauses):
    """A stranger with the first secret only, in whatever order it tries things."""
    second = by_psk(SECRET, SECRET)
    peer = half_way(several(by_psk(), by_psk(), second) if three else several(by_psk(), second))
    message_id = 2
    for index, (kind, name) in enumerate(moves):
        exchange, payloads = (IKE_AUTH, _second(peer, name)) if kind == "auth" else _between(peer, name)
        peer.deliver(peer.seal(exchange, *payloads, *(MORE,) * (index % 2), message_id=message_id))
        answered = [answer for answer in peer.answers() if answer.is_response]
        message_id += bool(answered)
        peer.pair.run(pauses[index] if index < len(pauses) else 0)
        nothing_given(peer)


# --- a gateway that has one of two proofs -----------------------------------------------------------------------------


def before_gateway() -> Stranger:
    """A client that expects two proofs of its gateway has sent its first request; the stranger knows one secret."""
    return impostor(several(by_psk(), of_gateway=(by_psk(), by_psk(SECRET, SECRET))))


def _answer(peer: Stranger, *payloads: Payload, message_id: int = 1) -> None:
    peer.deliver(peer.seal(IKE_AUTH, *payloads, message_id=message_id, is_response=True))
    peer.answers()


def test_a_gateway_with_the_first_proof_alone_is_not_believed():
    peer = before_gateway()
    own = peer.identity()
    _answer(peer, own, peer.psk_auth(own), *peer.child_offer())
    assert "does not go on" in str(peer.host.errors[0])
    nothing_given(peer)


@pytest.mark.parametrize("name", ["nothing", "the child SA", "the first proof again", "another promise"])
def test_nothing_else_stands_for_the_gateways_second_proof(name):
    peer = before_gateway()
    own = peer.identity()
    _answer(peer, own, peer.psk_auth(own), MORE, *peer.child_offer())
    nothing_given(peer)
    second = {
        "nothing": (),
        "the child SA": peer.child_offer(),
        "the first proof again": (own, peer.psk_auth(own), *peer.child_offer()),
        "another promise": (own, peer.psk_auth(own), MORE),
    }[name]
    _answer(peer, *second, message_id=2)
    assert peer.host.errors
    nothing_given(peer)


def test_a_gateway_that_was_not_asked_for_a_second_proof():
    peer = impostor(Pair())
    own = peer.identity()
    _answer(peer, own, peer.psk_auth(own), MORE, *peer.child_offer())
    assert "none is expected" in str(peer.host.errors[0])
    nothing_given(peer)


def test_a_gateway_whose_proofs_never_end():
    peer = impostor(several(by_psk(), of_gateway=(by_psk(), by_psk())))
    own = peer.identity()
    for message_id in (1, 2):
        nothing_given(peer)
        _answer(peer, own, peer.psk_auth(own), MORE, message_id=message_id)
    assert "none is expected" in str(peer.host.errors[0])
    nothing_given(peer)


def test_a_gateway_that_grants_all_before_our_second_log_in():
    """It is not established until both of ours are given, and what it granted too early is not used."""
    peer = impostor(several(by_psk(), by_psk()))
    own = peer.identity()
    _answer(peer, own, peer.psk_auth(own), *peer.child_offer())
    nothing_given(peer)
    _answer(peer, message_id=2)
    assert not peer.host.inbound and not peer.host.outbound


# --- another connection in the middle ---------------------------------------------------------------------------------


@pytest.mark.parametrize("supported", [True, False])
def test_a_connection_that_is_settled_on_later_gets_all_that_it_demands(supported):
    """RADIUS says who the client is, and that connection wants a second proof, which the first one did not."""
    client, server = by_eap()
    pair = several((client, replace(server, settles=True)), by_psk(SECRET, SECRET))
    strict = pair.b.connection
    pair.b.connection = replace(strict, name="before", further_expectations=())
    pair.b.answers[SettleConnection] = Settled(strict)
    if not supported:
        pair.a.connection = replace(pair.a.connection, further_credentials=())
    pair.connect()
    assert pair.b.happened(events.Refused) or supported
    assert bool(pair.b.happened(events.IkeEstablished)) is supported
    assert bool(pair.b.inbound) is supported
    if supported:
        assert len(pair.b.sa.proofs) == 2 and pair.b.sa.connection is strict


def test_a_connection_that_is_settled_on_last_gets_all_that_it_demands():
    client, server = by_eap()
    pair = several(by_psk(), (client, replace(server, settles=True)))
    strict = replace(
        pair.b.connection,
        further_expectations=(*pair.b.connection.further_expectations, FurtherExpectation(by_psk()[1])),
    )
    pair.b.answers[SettleConnection] = Settled(strict)
    pair.connect()
    (event,) = pair.b.happened(events.Refused)
    assert "stops before the further authentication" in str(event.error)
    assert not pair.b.happened(events.IkeEstablished) and not pair.b.inbound

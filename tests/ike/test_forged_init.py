"""An initiator, and somebody on the way who answers IKE_SA_INIT before the gateway does (RFC 7296 section 2.21.1)."""

from __future__ import annotations

import dataclasses

import pytest
from tests.ike.pair import IKE, Pair, connection, connection_b

from ikeway.errors import NegotiationFailed, ProtocolViolation
from ikeway.ike import events
from ikeway.ike.exchanges.init import REFUSAL_SECONDS
from ikeway.ike.proposals import parse_proposals
from ikeway.ike.sa import IkeState
from ikeway.ike.settings import ResponderSettings
from ikeway.wire.message import Message
from ikeway.wire.payloads import KeyExchange, Nonce, Notify, Payload, SecurityAssociation
from ikeway.wire.registry import ExchangeType, KeyExchangeMethod, NotifyType

INIT = ExchangeType.IKE_SA_INIT
TWO_METHODS = parse_proposals("aes128gcm16-prfsha256-x25519-ecp256")


def forged(sa, *payloads: Payload, **changes) -> bytes:
    values = {
        "initiator_spi": sa.spi,
        "responder_spi": bytes(8),
        "exchange_type": INIT,
        "is_initiator": False,
        "is_response": True,
        "message_id": 0,
        "payloads": payloads,
    }
    return Message(**(values | changes)).encode()


def attacked(*payloads: Payload, a=None, b=None, times: int = 1, **changes) -> Pair:
    """The answers of the attacker are there first; what the gateway says comes after."""
    pair = Pair(a, b)
    sa = pair.a.engine.connect(pair.a.connection, pair.a.address, pair.b.address, pair.now)
    pair.collect()
    for _ in range(times):
        pair.a.engine.receive(forged(sa, *payloads, **changes), sa.local, sa.remote, pair.now)
    pair.run()
    return pair


def unharmed(pair: Pair) -> None:
    assert len(pair.a.inbound) == 1, pair.a.errors
    pair.agree()
    assert len(pair.a.engine.sas) == 1


@pytest.mark.parametrize(
    "payloads",
    [
        (Notify(NotifyType.NO_PROPOSAL_CHOSEN),),
        (Notify(NotifyType.AUTHENTICATION_FAILED),),
        (Notify(NotifyType.INVALID_SYNTAX),),
        (Notify(NotifyType.INVALID_MAJOR_VERSION),),
        (Notify(NotifyType(4711)),),
        (),
        (Nonce(bytes(32)),),
        (SecurityAssociation(IKE), KeyExchange(KeyExchangeMethod.CURVE25519, bytes(32))),
        (Notify(NotifyType.INVALID_KE_PAYLOAD, b""),),
        (Notify(NotifyType.INVALID_KE_PAYLOAD, b"\0\x0e\0"),),
        (Notify(NotifyType.INVALID_KE_PAYLOAD, (14).to_bytes(2, "big")),),
        (Notify(NotifyType.COOKIE, b""),),
        (Notify(NotifyType.COOKIE, bytes(65)),),
    ],
)
def test_a_forged_refusal_is_outlived(payloads):
    pair = attacked(*payloads, times=3)
    unharmed(pair)
    assert len(pair.sent) == 4  # not even a message more


@pytest.mark.parametrize(
    "changes",
    [
        {"exchange_type": ExchangeType.IKE_AUTH},
        {"exchange_type": ExchangeType.INFORMATIONAL},
        {"message_id": 1},
        {"is_response": False},
        {"is_response": False, "exchange_type": ExchangeType.INFORMATIONAL},
        {"is_response": False, "exchange_type": ExchangeType.IKE_AUTH, "message_id": 1},
        {"is_initiator": True},
    ],
)
def test_what_is_no_answer_to_ike_sa_init_changes_nothing(changes):
    pair = attacked(Notify(NotifyType.NO_PROPOSAL_CHOSEN), **changes)
    unharmed(pair)
    # The gateway's own first request is heard: nobody has used up its message id.
    pair.b.sa.check_liveness(pair.now)
    pair.run(5)
    assert pair.b.sa.channel.outstanding == 0


def test_a_true_refusal_is_believed_after_a_moment():
    pair = Pair(connection(ike_proposals=parse_proposals("aes256gcm16-prfsha384-x25519")))
    sa = pair.a.engine.connect(pair.a.connection, pair.a.address, pair.b.address, pair.now)
    pair.run(REFUSAL_SECONDS)
    assert sa.state is IkeState.CONNECTING
    pair.run(0.1)
    (error,) = pair.a.errors
    assert isinstance(error, NegotiationFailed) and error.notify == NotifyType.NO_PROPOSAL_CHOSEN
    assert len(pair.sent) == 2
    pair.run(60)
    assert not pair.a.engine._shared.table


def test_a_refusal_that_nothing_better_follows_ends_the_attempt_once():
    pair = Pair()
    pair.network = lambda datagram: []
    sa = pair.a.engine.connect(pair.a.connection, pair.a.address, pair.b.address, pair.now)
    pair.collect()
    for kind in (NotifyType.NO_PROPOSAL_CHOSEN, NotifyType.INVALID_SYNTAX):
        pair.a.engine.receive(forged(sa, Notify(kind)), sa.local, sa.remote, pair.now)
    pair.run(1)
    (error,) = pair.a.errors
    assert error.notify == NotifyType.NO_PROPOSAL_CHOSEN
    assert len(pair.a.happened(events.IkeClosed)) == 1


def test_a_forged_cookie_of_a_proper_size_costs_a_round_and_is_sent_as_it_came():
    cookie = Notify(NotifyType.COOKIE, bytes(64), 3, b"spi!")
    pair = Pair()
    pair.network = lambda datagram: []
    sa = pair.a.engine.connect(pair.a.connection, pair.a.address, pair.b.address, pair.now)
    pair.collect()
    pair.a.engine.receive(forged(sa, cookie), sa.local, sa.remote, pair.now)
    pair.collect()
    again = Message.decode(pair.sent[-1].octets)
    assert again.payloads[0] == Notify(NotifyType.COOKIE, bytes(64))


def test_endless_demands_end():
    pair = Pair()
    pair.network = lambda datagram: []
    sa = pair.a.engine.connect(pair.a.connection, pair.a.address, pair.b.address, pair.now)
    for number in range(20):
        pair.collect()
        pair.a.engine.receive(forged(sa, Notify(NotifyType.COOKIE, bytes([number]))), sa.local, sa.remote, pair.now)
    pair.run(1)
    assert isinstance(pair.a.errors[0], ProtocolViolation)
    assert len(pair.sent) < 10


def test_a_forged_demand_for_another_method_is_put_right_by_the_gateway():
    """The initiator goes over to the method that the forger named; the gateway insists on its own."""
    a, b = connection(ike_proposals=TWO_METHODS), connection_b()
    method = int(KeyExchangeMethod.ECP_256).to_bytes(2, "big")
    pair = attacked(Notify(NotifyType.INVALID_KE_PAYLOAD, method), a=a, b=b)
    unharmed(pair)
    assert pair.a.sa.suite.key_exchange == KeyExchangeMethod.CURVE25519


def test_nobody_on_the_way_can_take_proposals_out():
    """The downgrade: AUTH covers the offer as it was sent, so that both sides notice."""
    strong = parse_proposals("aes256gcm16-prfsha384-ecp256, aes128gcm16-prfsha256-x25519")
    pair = Pair(connection(ike_proposals=strong), connection_b(ike_proposals=strong))
    deliver = pair.deliver

    def weakened(datagram):
        message = Message.decode(datagram.octets)
        security = message.find(SecurityAssociation)
        if security is not None and not message.is_response:
            kept = SecurityAssociation((dataclasses.replace(security.proposals[1], number=2),))
            payloads = tuple(
                kept
                if one is security
                else (
                    KeyExchange(KeyExchangeMethod.CURVE25519, bytes([9]) + bytes(31))
                    if isinstance(one, KeyExchange)
                    else one
                )
                for one in message.payloads
            )
            datagram = dataclasses.replace(datagram, octets=dataclasses.replace(message, payloads=payloads).encode())
        deliver(datagram)

    pair.deliver = weakened
    pair.connect()
    pair.run(200)
    assert not pair.a.happened(events.IkeEstablished) and not pair.b.happened(events.IkeEstablished)


@pytest.mark.parametrize("value", [bytes(32), bytes(31), bytes(33), b""])
def test_a_gateway_with_a_worthless_public_value_is_refused_without_a_trace(value):
    pair = Pair()
    deliver = pair.deliver

    def worthless(datagram):
        message = Message.decode(datagram.octets)
        if message.is_response and message.exchange_type == INIT:
            payloads = tuple(
                KeyExchange(one.method, value) if isinstance(one, KeyExchange) else one for one in message.payloads
            )
            datagram = dataclasses.replace(datagram, octets=dataclasses.replace(message, payloads=payloads).encode())
        deliver(datagram)

    pair.deliver = worthless
    pair.connect()
    (error,) = pair.a.errors
    assert not any(pair.a.happened(events.IkeClosed)[0].sa.channel.responder_spi), error
    pair.run(60)
    assert not pair.a.engine._shared.table and not pair.b.engine._shared.table


@pytest.mark.parametrize("value", [bytes(32), bytes(31), b""])
def test_a_client_with_a_worthless_public_value_leaves_no_state(value):
    pair = Pair()
    pair.a.engine.connect(pair.a.connection, pair.a.address, pair.b.address, pair.now)
    pair.network = lambda datagram: []
    pair.collect()
    message = Message.decode(pair.sent[0].octets)
    payloads = tuple(
        KeyExchange(one.method, value) if isinstance(one, KeyExchange) else one for one in message.payloads
    )
    octets = dataclasses.replace(message, payloads=payloads).encode()
    pair.b.engine.receive(octets, pair.b.address, pair.a.address, pair.now)
    (answer,) = pair.b.engine.outgoing()
    assert Message.decode(answer.octets).notify(NotifyType.INVALID_SYNTAX)
    assert not pair.b.engine._shared.table


@pytest.mark.parametrize("side", ["a", "b"])
def test_key_exchanges_that_nobody_carries_out_are_refused(side):
    """Both offer ke1_...: an SA without IKE_INTERMEDIATE would look stronger than it is."""
    proposals = parse_proposals("aes128gcm16-prfsha256-x25519-ke1_ecp256")
    changes = {"ike_proposals": proposals}
    if side == "b":
        pair = Pair(connection(**changes), connection_b(**changes))
    else:
        # A gateway that would carry it out.
        responder = ResponderSettings(ike_proposals=proposals)
        pair = Pair(connection(**changes), connection_b(**changes), responder=responder)
    pair.connect()
    assert not pair.a.happened(events.IkeEstablished) and pair.a.errors
    assert not pair.b.happened(events.IkeEstablished)

"""A message that an interception holds waits, and its exchange stays open, until somebody decides."""

from __future__ import annotations

import dataclasses

import pytest
from tests.ike.pair import IKE as PROPOSALS
from tests.ike.pair import Pair, connection, connection_b
from tests.ike.test_interception import Witness, responder

from ikeway.errors import AuthenticationFailed, IkewayError
from ikeway.ike import interception
from ikeway.ike.interception import Hold
from ikeway.ike.sa import IkeState
from ikeway.wire.payloads import Notify, UnknownPayload
from ikeway.wire.registry import ExchangeType, NotifyType, PayloadType

AUTH = ExchangeType.IKE_AUTH


class Holding(Witness):
    """Holds the messages of IKE_AUTH that come in, once each."""

    def __init__(self) -> None:
        super().__init__(self._hold)
        self.held = []

    def _hold(self, way, message):
        if way == "received" and message.exchange_type == AUTH and message not in self.held:
            self.held.append(message)
            raise Hold
        return message


def held_at(side: str) -> tuple[Pair, Holding]:
    hook = Holding()
    pair = Pair(connection(interception=hook)) if side == "a" else Pair(
        None, connection_b(interception=hook), responder=responder(hook)
    )  # fmt: skip
    pair.connect()
    assert len(hook.held) == 1
    return pair, hook


@pytest.mark.parametrize("side", ["a", "b"])
def test_a_held_message_waits_and_then_goes_on(side):
    pair, hook = held_at(side)
    sa = getattr(pair, side).sa
    assert sa.state is IkeState.CONNECTING
    assert interception.is_held(sa, hook.held[0])
    interception.release(sa, hook.held[0], pair.now)
    pair.run()
    pair.agree()
    interception.release(sa, hook.held[0], pair.now)  # it is not held any more
    pair.agree()


def test_repetitions_of_a_held_request_are_dropped_and_the_peer_waits():
    pair, hook = held_at("b")
    pair.run(20.0)  # the initiator sends it again and again
    assert len(hook.held) == 1 and not pair.a.errors
    assert pair.b.sa.channel.counters.duplicates > 0
    interception.release(pair.b.sa, hook.held[0], pair.now)
    pair.run()
    pair.agree()


def test_a_request_is_answered_in_place_of_the_conversation():
    pair, hook = held_at("b")
    refusal = Notify(NotifyType.AUTHENTICATION_FAILED)
    interception.answer_held(pair.b.sa, hook.held[0], (refusal,), pair.now)
    assert not interception.is_held(pair.b.sa, hook.held[0])
    pair.run()
    assert isinstance(pair.a.errors[0], AuthenticationFailed)


@pytest.mark.parametrize("side", ["a", "b"])
def test_what_is_held_can_be_refused(side):
    pair, hook = held_at(side)
    host, other = (pair.a, pair.b) if side == "a" else (pair.b, pair.a)
    error = AuthenticationFailed("no", notify=NotifyType.AUTHENTICATION_FAILED)
    interception.refuse_held(host.sa, hook.held[0], error, pair.now)
    pair.run()
    assert host.errors == [error]
    if side == "b":
        assert isinstance(other.errors[0], AuthenticationFailed)
    assert not [sa for sa in (*pair.a.engine.sas, *pair.b.engine.sas) if sa.established and sa.is_alive]


def test_another_message_may_go_on_in_its_place():
    pair, hook = held_at("b")
    changed = dataclasses.replace(
        hook.held[0], payloads=(*hook.held[0].payloads, UnknownPayload(PayloadType(200), True, b""))
    )
    hook.held.append(changed)  # so that it passes
    interception.release(pair.b.sa, hook.held[0], pair.now, changed=changed)
    pair.run()
    # It has to be understood, and is not (RFC 7296 section 2.5).
    assert isinstance(pair.a.errors[0], IkewayError) and "UNSUPPORTED_CRITICAL_PAYLOAD" in str(pair.a.errors[0])


def test_the_request_that_makes_an_ike_sa_cannot_be_held():
    def hold(way, message):
        raise Hold

    pair = Pair(None, connection_b(), responder=dataclasses.replace(responder(Witness(hold)), ike_proposals=PROPOSALS))
    pair.connect()
    assert not pair.b.engine.sas
    assert pair.a.errors


def test_a_request_beside_the_conversation_has_its_response_seen():
    pair, hook = held_at("a")
    number = interception.request_beside(pair.a.sa, ExchangeType.INFORMATIONAL, (), pair.now)
    pair.run(1.0)
    assert any(way == "received" and message.message_id == number for way, message in hook.seen)
    interception.release(pair.a.sa, hook.held[0], pair.now)
    pair.run()
    pair.agree()

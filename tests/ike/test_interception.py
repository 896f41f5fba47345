"""Interceptions see and change every plaintext message of an IKE SA, both roles, and their errors end it."""

from __future__ import annotations

import dataclasses

import pytest
from tests.ike.pair import IKE as PROPOSALS
from tests.ike.pair import Pair, connection, connection_b

from ikeway.errors import AuthenticationFailed, ProtocolViolation, Side
from ikeway.ike import events
from ikeway.ike.interception import InterceptionFailed
from ikeway.ike.sa import IkeState
from ikeway.ike.settings import ResponderSettings
from ikeway.wire.message import Message
from ikeway.wire.payloads import Notify, UnknownPayload, VendorId
from ikeway.wire.registry import ExchangeType, NotifyType, PayloadType

INIT, AUTH, CHILD = ExchangeType.IKE_SA_INIT, ExchangeType.IKE_AUTH, ExchangeType.CREATE_CHILD_SA
INFORMATIONAL = ExchangeType.INFORMATIONAL


class Witness:
    """Notes what passes; `change` may make something else of it."""

    def __init__(self, change=lambda way, message: message) -> None:
        self.seen: list[tuple[str, Message]] = []
        self.sas: list[object] = []
        self.change = change

    def sending(self, sa, message):
        return self._note("sending", sa, message)

    def received(self, sa, message):
        return self._note("received", sa, message)

    def _note(self, way, sa, message):
        self.seen.append((way, message))
        self.sas.append(sa)
        return self.change(way, message)

    @property
    def steps(self):
        return [(way, message.exchange_type, message.is_response) for way, message in self.seen]


def at(way, exchange, *, response, act):
    """A change that concerns one message only."""

    def change(passing, message):
        if passing == way and message.exchange_type == exchange and message.is_response is response:
            return act(message)
        return message

    return change


def adding(*payloads):
    return lambda message: dataclasses.replace(message, payloads=(*message.payloads, *payloads))


def raising(error):
    def act(message):
        raise error

    return act


def responder(hook=None) -> ResponderSettings:
    return ResponderSettings(ike_proposals=PROPOSALS, cookie_threshold=1000, interception=hook)


def at_initiator(hook) -> Pair:
    return Pair(connection(interception=hook))


def at_responder(hook) -> Pair:
    """Before the connection is known and after it: as a gateway with a single connection has it."""
    return Pair(None, connection_b(interception=hook), responder=responder(hook))


EXCHANGES = [("sending", INIT, False), ("received", INIT, True), ("sending", AUTH, False), ("received", AUTH, True)]
MIRRORED = [("received", INIT, False), ("sending", INIT, True), ("received", AUTH, False), ("sending", AUTH, True)]


# --- what it sees -----------------------------------------------------------------------------------------------------


def test_the_initiator_shows_every_message_in_plaintext():
    hook = Witness()
    pair = at_initiator(hook)
    pair.connect()
    pair.agree()
    assert len(pair.a.inbound) == 1
    assert hook.steps == EXCHANGES
    assert all(sa is pair.a.sa for sa in hook.sas)
    assert [message for _, message in hook.seen] == [
        event.message for event in pair.a.log if isinstance(event, events.MessageSent | events.MessageReceived)
    ]


def test_the_responder_shows_the_first_request_before_there_is_an_sa():
    hook = Witness()
    pair = at_responder(hook)
    pair.connect()
    pair.agree()
    assert hook.steps == MIRRORED
    assert hook.sas[0] is None
    assert all(sa is pair.b.sa for sa in hook.sas[1:])


def test_a_responder_without_one_for_its_connection_shows_only_what_came_before_it():
    hook = Witness()
    pair = Pair(responder=responder(hook))
    pair.connect()
    pair.agree()
    assert hook.steps == MIRRORED[:3]


@pytest.mark.parametrize("side", ["a", "b"])
def test_that_of_the_engine_sees_all_and_stands_next_to_the_wire(side):
    order: list[tuple[str, str]] = []

    def noting(name):
        def change(way, message):
            order.append((name, way))
            return message

        return Witness(change)

    inner, outer = noting("inner"), noting("outer")
    hosts = {
        "a": {"a": connection(interception=inner)},
        "b": {"b": connection_b(interception=inner), "responder": responder(inner)},
    }
    pair = Pair(**hosts[side])
    host = getattr(pair, side)
    host.engine._shared.settings = host.engine.settings = dataclasses.replace(host.engine.settings, interception=outer)
    pair.connect()
    pair.agree()
    assert len(outer.seen) == 4
    for first, second in zip(order[::2], order[1::2], strict=True):
        assert first[1] == second[1]
        expected = ("inner", "outer") if first[1] == "sending" else ("outer", "inner")
        assert (first[0], second[0]) == expected


def test_retransmissions_and_duplicates_are_not_shown_again():
    hook = Witness()
    pair = at_responder(hook)
    pair.network = lambda datagram: [0.01, 0.02, 0.03]
    pair.connect()
    pair.run(5)
    pair.agree()
    assert hook.steps == MIRRORED


def test_it_goes_on_after_the_ike_sa_was_rekeyed():
    hook, other = Witness(), Witness()
    pair = Pair(connection(interception=hook), connection_b(interception=other))
    pair.connect()
    pair.a.sa.rekey(pair.now)
    pair.run()
    before = len(hook.seen)
    pair.a.sa.check_liveness(pair.now)
    pair.run()
    assert hook.steps[before:] == [("sending", INFORMATIONAL, False), ("received", INFORMATIONAL, True)]
    assert other.steps[-2:] == [("received", INFORMATIONAL, False), ("sending", INFORMATIONAL, True)]
    assert hook.sas[-1] is pair.a.sa


# --- what it changes --------------------------------------------------------------------------------------------------

MARK = VendorId(b"a vendor's mark, sixteen and more")


@pytest.mark.parametrize("exchange", [INIT, AUTH])
@pytest.mark.parametrize("response", [False, True])
def test_what_it_adds_goes_out_and_auth_signs_it(exchange, response):
    """An IKE_SA_INIT that was changed is signed as it went out: else IKE_AUTH would fail."""
    hook = Witness(at("sending", exchange, response=response, act=adding(MARK)))
    pair = at_responder(hook) if response else at_initiator(hook)
    pair.connect()
    pair.agree()
    assert len(pair.a.inbound) == 1, pair.a.errors + pair.b.errors
    taker = pair.a if response else pair.b
    arrived = [event.message for event in taker.happened(events.MessageReceived)]
    assert [MARK in message.payloads for message in arrived] == [exchange == INIT, exchange == AUTH]


@pytest.mark.parametrize("side", ["a", "b"])
def test_what_it_changes_of_what_came_in_is_what_the_engine_acts_on(side):
    hook = Witness(at("received", INIT, response=side == "a", act=adding(MARK)))
    pair = at_initiator(hook) if side == "a" else at_responder(hook)
    pair.connect()
    pair.agree()
    assert getattr(pair, side).sa.peer.vendor_ids == (MARK.value,)


def test_it_gets_unknown_critical_payloads_and_may_take_them_out():
    unknown = UnknownPayload(PayloadType(200), True, b"?")
    sender = Witness(at("sending", AUTH, response=False, act=adding(unknown)))

    def remove(message):
        return dataclasses.replace(message, payloads=tuple(one for one in message.payloads if one != unknown))

    taker = Witness(at("received", AUTH, response=False, act=remove))
    pair = Pair(connection(interception=sender), connection_b(), responder=responder(taker))
    pair.connect()
    pair.agree()
    assert len(pair.a.inbound) == 1
    assert unknown in taker.seen[2][1].payloads


@pytest.mark.parametrize("exchange", [INIT, AUTH])
def test_unknown_critical_payloads_that_it_leaves_are_refused_as_ever(exchange):
    unknown = UnknownPayload(PayloadType(200), True, b"?")
    sender = Witness(at("sending", exchange, response=False, act=adding(unknown)))
    pair = Pair(connection(interception=sender), connection_b(), responder=responder(Witness()))
    pair.connect()
    (error,) = pair.a.errors
    assert error.notify == NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD
    assert not pair.a.inbound and not pair.b.inbound


# --- when it raises ---------------------------------------------------------------------------------------------------


def no_state(pair: Pair) -> None:
    """Nothing is left, once what only answers duplicates has gone."""
    pair.run(60)
    for host in (pair.a, pair.b):
        assert host.engine.sas == []
        assert not host.engine._shared.table
        assert not host.inbound and not host.outbound
        assert not host.engine._shared.esp_spis
        assert len(host.engine._half_open) == 0


@pytest.mark.parametrize("way,exchange,response", EXCHANGES)
def test_a_defect_at_the_initiator_ends_the_attempt(way, exchange, response):
    hook = Witness(at(way, exchange, response=response, act=lambda message: message.payloads[1000]))
    pair = at_initiator(hook)
    pair.connect()
    (error,) = pair.a.errors
    assert isinstance(error, InterceptionFailed)
    assert error.side is Side.LOCAL
    assert "IndexError" in error.reason
    assert "test_interception.py, line " in error.reason
    if exchange == AUTH:
        (told,) = pair.b.errors
        assert told.notify == NotifyType.AUTHENTICATION_FAILED
    no_state(pair)


@pytest.mark.parametrize("way,exchange,response", MIRRORED)
def test_a_defect_at_the_responder_is_answered_with_a_notify(way, exchange, response):
    hook = Witness(at(way, exchange, response=response, act=lambda message: message.payloads[1000]))
    pair = at_responder(hook)
    pair.connect()
    pair.run(2)
    (told,) = pair.a.errors
    if exchange == INIT:
        assert told.notify == NotifyType.INVALID_SYNTAX
        (refused,) = pair.b.happened(events.Refused)
        assert isinstance(refused.error, InterceptionFailed)
    else:
        assert told.notify == NotifyType.AUTHENTICATION_FAILED
        (error,) = pair.b.errors
        assert isinstance(error, InterceptionFailed)
    no_state(pair)


@pytest.mark.parametrize("way,exchange,response", MIRRORED)
def test_a_peer_error_brings_its_own_notify(way, exchange, response):
    wrong = AuthenticationFailed("not with me", notify=NotifyType.SINGLE_PAIR_REQUIRED)
    pair = at_responder(Witness(at(way, exchange, response=response, act=raising(wrong))))
    pair.connect()
    pair.run(2)
    (told,) = pair.a.errors
    assert told.notify == NotifyType.SINGLE_PAIR_REQUIRED
    seen = pair.b.errors or [event.error for event in pair.b.happened(events.Refused)]
    assert seen == [wrong]
    no_state(pair)


def test_a_peer_error_over_an_answer_that_anybody_can_forge_ends_nothing():
    """The first IKE_SA_INIT response is displeasing, the next one is good: as if a stranger had been faster."""
    answers = []

    def displeased_once(message):
        answers.append(message)
        if len(answers) == 1:
            raise ProtocolViolation("no vendor ID of ours")
        return message

    pair = at_initiator(Witness(at("received", INIT, response=True, act=displeased_once)))
    pair.connect()
    pair.run(20)  # the request goes out again, and so does the answer
    pair.agree()
    assert len(pair.a.inbound) == 1
    assert len(answers) == 2
    assert [str(event.error) for event in pair.a.happened(events.Refused)] == ["no vendor ID of ours"]


@pytest.mark.parametrize("way,response", [("sending", False), ("received", True)])
def test_a_defect_later_deletes_the_ike_sa(way, response):
    pair = at_initiator(Witness(at(way, CHILD, response=response, act=lambda message: 1 / 0)))
    pair.connect()
    pair.a.sa.rekey_child(pair.a.sa.children[0], pair.now)
    pair.run()
    (error,) = pair.a.errors
    assert "ZeroDivisionError" in error.reason
    assert pair.b.happened(events.IkeClosed)
    no_state(pair)


@pytest.mark.parametrize("way,response", [("received", False), ("sending", True)])
def test_a_defect_over_a_later_request_is_answered(way, response):
    pair = at_responder(Witness(at(way, INFORMATIONAL, response=response, act=lambda message: None)))
    pair.connect()
    pair.a.sa.check_liveness(pair.now)
    pair.run()
    (error,) = pair.b.errors
    assert error.got == "NoneType"
    last = pair.a.happened(events.MessageReceived)[-1].message
    assert last.payloads == (Notify(NotifyType.INVALID_SYNTAX),)
    pair.a.engine.close_all(pair.now)
    pair.run(300)
    no_state(pair)


def test_the_place_is_in_the_interception_and_not_in_what_it_calls():
    """`replace` is the standard library's; the line that calls it is what its author has to look at."""
    hook = Witness(at("sending", AUTH, response=False, act=lambda message: dataclasses.replace(message, nonsense=1)))
    pair = at_initiator(hook)
    pair.connect()
    (error,) = pair.a.errors
    assert "(test_interception.py, line " in error.reason


def test_a_hook_of_another_shape_is_a_defect_too():
    class Wrong:
        def sending(self):
            raise AssertionError("never called")

        received = sending

    pair = at_initiator(Wrong())
    pair.connect()
    (error,) = pair.a.errors
    assert "TypeError" in error.reason and "could not be called" in error.reason


def test_what_cannot_be_encoded_is_a_defect_of_the_interception():
    broken = adding(Notify(NotifyType.MOBIKE_SUPPORTED, bytes(70000)))
    pair = at_initiator(Witness(at("sending", AUTH, response=False, act=broken)))
    pair.connect()
    (error,) = pair.a.errors
    assert isinstance(error, InterceptionFailed)
    assert "cannot be encoded" in error.reason
    no_state(pair)


def test_a_defect_in_every_message_still_ends():
    pair = Pair(connection(interception=Witness(lambda way, message: None)))
    pair.connect()
    assert len(pair.a.errors) == 1
    assert pair.a.engine.sas == []
    assert all(sa.state is not IkeState.ESTABLISHED for sa in pair.b.engine.sas)
    no_state(pair)

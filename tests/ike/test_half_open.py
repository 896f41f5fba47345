"""Strangers at a responder: what they may occupy, by one address and by many, forged and true."""

from __future__ import annotations

import pytest
from tests.ike.pair import IKE, Pair, connection, connection_b
from tests.ike.stranger import IKE_AUTH, after_init

from ikeway.address import Address
from ikeway.ike import events
from ikeway.ike.channel import MAX_REPEATS
from ikeway.ike.engine import MAX_INIT_OCTETS, Engine
from ikeway.ike.half_open import Admission, HalfOpen
from ikeway.ike.sa import IkeState
from ikeway.ike.settings import EngineSettings, PskCredential, ResponderSettings
from ikeway.wire.message import Message
from ikeway.wire.payloads import Notify, Payload, VendorId
from ikeway.wire.registry import ExchangeType, NotifyType

GATEWAY = Address("198.51.100.1", 500)
CLIENT = Address("192.0.2.1", 500)


def settings(**changes) -> ResponderSettings:
    return ResponderSettings(**({"ike_proposals": IKE} | changes))


def request(number: int = 0, *extra: Payload) -> bytes:
    """An IKE_SA_INIT request, with an SPI and nonce of its own for each number."""
    engine = Engine(EngineSettings(), random=lambda size: (number + 1).to_bytes(size, "big"))
    engine.connect(connection(), CLIENT, GATEWAY, 0.0)
    octets = engine.outgoing()[0].octets
    message = Message.decode(octets)
    values = {name: getattr(message, name) for name in ("initiator_spi", "responder_spi", "exchange_type")}
    return Message(
        **values, is_initiator=True, is_response=False, message_id=0, payloads=(*extra, *message.payloads)
    ).encode()


def gateway(**changes) -> Engine:
    return Engine(EngineSettings(responder=settings(**changes)))


def answer(engine: Engine) -> Message:
    engine.events()
    (datagram,) = engine.outgoing()
    return Message.decode(datagram.octets)


def occupied(engine: Engine) -> int:
    return len(engine._half_open)


def gone(engine: Engine) -> bool:
    half_open = engine._half_open
    return not engine._shared.table and not half_open._sas and not half_open._sources


# --- one address, and many --------------------------------------------------------------------------------------------


def test_forged_requests_of_a_victims_address_do_not_lock_it_out():
    engine = gateway(half_open_per_address=8)
    for number in range(100):
        engine.receive(request(number), GATEWAY, CLIENT, 1.0)
    assert occupied(engine) == 4  # half of what the address may have; then cookies, which the forger never sees
    engine.outgoing()
    for number in range(200, 210):
        engine.receive(request(number), GATEWAY, CLIENT, 1.0)
        cookie = answer(engine).notify(NotifyType.COOKIE)
        if cookie is None:
            break
        engine.receive(request(number, cookie), GATEWAY, CLIENT, 1.0)
        if occupied(engine) == 8:
            break
        assert answer(engine).notify(NotifyType.COOKIE) is None
    assert occupied(engine) == 8
    engine.outgoing()
    engine.receive(request(300), GATEWAY, CLIENT, 1.0)
    assert not engine.outgoing() and engine.counters.half_open_dropped == 1
    engine.receive(request(300), GATEWAY, Address("192.0.2.2", 500), 1.0)
    assert occupied(engine) == 9  # nobody else is concerned
    engine.tick(1000.0)
    engine.tick(2000.0)
    assert gone(engine)


def test_forged_requests_of_many_addresses_are_asked_for_cookies():
    engine = gateway(cookie_threshold=10, half_open_limit=20)
    for number in range(500):
        engine.receive(request(number), GATEWAY, Address(f"10.0.{number // 250}.{number % 250}", 500), 1.0)
    assert occupied(engine) == 10 == len(engine.sas)
    assert engine.counters.cookies_demanded == 490


def test_one_spi_with_ever_new_nonces_takes_a_place_each_time():
    """Else one client would count as one, with as many SAs as it likes."""
    engine = gateway(half_open_per_address=1000, cookie_threshold=10)
    for number in range(50):
        engine.receive(request(0, VendorId(bytes([number]))), GATEWAY, CLIENT, 1.0)
    assert occupied(engine) == 10 == len(engine.sas)
    engine.tick(1000.0)
    engine.tick(2000.0)
    assert gone(engine)


def test_the_same_request_again_takes_no_place_and_gets_the_same_answer():
    engine, octets = gateway(), request()
    for _ in range(5):
        engine.receive(octets, GATEWAY, CLIENT, 1.0)
    assert occupied(engine) == 1
    assert len({datagram.octets for datagram in engine.outgoing()}) == 1


def test_the_addresses_of_an_ipv6_site_count_as_one():
    engine = gateway(half_open_per_address=4)
    for number in range(50):
        engine.receive(request(number), Address("2001:db8:1::1", 500), Address(f"2001:db8::{number:x}", 500), 1.0)
    assert occupied(engine) == 2
    engine.receive(request(99), Address("2001:db8:1::1", 500), Address("2001:db8:0:1::1", 500), 1.0)
    assert occupied(engine) == 3


def test_a_limit_of_one_still_lets_one_in():
    half_open = HalfOpen()
    assert half_open.admission(settings(half_open_per_address=1), CLIENT) is Admission.FREE
    assert half_open.admission(settings(cookie_threshold=0), CLIENT) is Admission.COOKIE
    assert half_open.admission(settings(half_open_limit=0), CLIENT) is Admission.FULL


# --- cookies ----------------------------------------------------------------------------------------------------------


def test_a_wrong_cookie_costs_a_new_one_and_no_state():
    engine = gateway(cookie_threshold=0)
    for value in (b"", b"x", bytes(17), bytes(60000)):
        octets = request(1, Notify(NotifyType.COOKIE, value[:MAX_INIT_OCTETS]))
        engine.receive(octets, GATEWAY, CLIENT, 1.0)
        for datagram in engine.outgoing():
            assert Message.decode(datagram.octets).notify(NotifyType.COOKIE)
    assert gone(engine) and engine.counters.cookies_wrong == 3


def test_a_cookie_is_worth_nothing_from_another_address():
    engine = gateway(cookie_threshold=0)
    engine.receive(request(1), GATEWAY, CLIENT, 1.0)
    cookie = answer(engine).notify(NotifyType.COOKIE)
    assert cookie is not None
    engine.receive(request(1, cookie), GATEWAY, Address("192.0.2.9", 500), 1.0)
    assert gone(engine)
    engine.receive(request(1, cookie), GATEWAY, CLIENT, 1.0)
    assert occupied(engine) == 1


def test_a_cookie_that_nobody_asked_for_is_no_obstacle():
    engine = gateway()
    engine.receive(request(1, Notify(NotifyType.COOKIE, b"from another gateway")), GATEWAY, CLIENT, 1.0)
    assert occupied(engine) == 1


# --- what a request must be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"initiator_spi": bytes(8)},
        {"responder_spi": b"12345678"},
        {"message_id": 1},
        {"is_initiator": False},
    ],
)
def test_a_header_that_begins_nothing_is_dropped(change):
    message = Message.decode(request())
    names = ("initiator_spi", "responder_spi", "exchange_type", "is_initiator", "is_response", "message_id", "payloads")
    values = {name: getattr(message, name) for name in names} | change
    engine = gateway()
    engine.receive(Message(**values).encode(), GATEWAY, CLIENT, 1.0)
    assert not engine.outgoing() and gone(engine)


def test_our_own_request_sent_back_to_us_is_dropped():
    """A side that is client and gateway must not begin to talk to itself."""
    engine = Engine(EngineSettings(responder=settings()))
    engine.connect(connection(), CLIENT, GATEWAY, 0.0)
    (sent,) = engine.outgoing()
    engine.receive(sent.octets, CLIENT, GATEWAY, 0.1)
    assert not engine.outgoing() and occupied(engine) == 0


def test_a_huge_request_is_dropped():
    engine = gateway()
    engine.receive(request(0, VendorId(bytes(MAX_INIT_OCTETS))), GATEWAY, CLIENT, 1.0)
    assert not engine.outgoing() and gone(engine) and engine.counters.malformed == 1


def test_what_is_kept_of_a_stranger_is_small():
    hashes = b"".join(number.to_bytes(2, "big") for number in range(7000))
    engine = gateway()
    engine.receive(request(0, Notify(NotifyType.SIGNATURE_HASH_ALGORITHMS, hashes)), GATEWAY, CLIENT, 1.0)
    (sa,) = engine.sas
    assert sa.peer.hashes is not None and 0 < len(sa.peer.hashes) < 10


# --- how a place becomes free -----------------------------------------------------------------------------------------


def test_a_place_is_free_after_the_log_in():
    pair = Pair()
    pair.connect()
    assert occupied(pair.b.engine) == 0 and not pair.b.engine._half_open._sources


def test_failing_fast_is_no_way_around_the_limits():
    """A closed SA answers duplicates for a while, and keeps its place as long: guessing secrets is slow, memory bounded."""
    pair = Pair(
        connection(local_credential=PskCredential(b"a guess")),
        responder=settings(half_open_per_address=4, cookie_threshold=1000),
    )
    for _ in range(20):
        pair.a.engine.connect(pair.a.connection, pair.a.address, pair.b.address, pair.now)
    pair.run(2)
    assert len(pair.b.happened(events.IkeClosed)) == 4
    assert len(pair.b.engine._shared.table) == 4
    pair.network = lambda datagram: []
    pair.run(300)
    assert gone(pair.b.engine)


def test_a_stranger_that_falls_silent_is_forgotten():
    peer = after_init()
    assert peer.there.state is IkeState.CONNECTING
    peer.pair.run(31)
    assert peer.there.state is IkeState.CLOSED
    peer.pair.run(11)
    assert gone(peer.host.engine)


def test_a_log_in_that_has_begun_has_its_time_and_no_more():
    peer = after_init(Pair(b=connection_b(), login_seconds=100.0))
    peer.host.take_events(peer.pair.now)
    peer.deliver(peer.seal(IKE_AUTH, peer.identity()))  # the connection is asked for, and nobody answers
    peer.host.engine.events()
    peer.pair.run(60)
    assert peer.there.state is IkeState.CONNECTING
    for message_id in range(2, 5):  # more requests do not prolong it
        peer.deliver(peer.seal(IKE_AUTH, peer.identity(), message_id=message_id))
    peer.pair.run(41)
    assert peer.there.state is IkeState.CLOSED
    peer.pair.run(11)
    assert gone(peer.host.engine)


def test_replayed_first_requests_lead_nowhere():
    """Recorded and sent again after the log-in: another half-open SA at most, which its initiator knows nothing of."""
    pair = Pair()
    pair.connect()
    first = next(one for one in pair.sent if one.octets[18] == ExchangeType.IKE_SA_INIT)
    for _ in range(10):
        pair.deliver(first)
    pair.run(5)
    pair.agree()
    assert occupied(pair.b.engine) == 1 and len(pair.a.inbound) == 1
    pair.run(60)
    assert occupied(pair.b.engine) == 0 and len(pair.a.inbound) == 1


def test_an_answer_is_not_repeated_without_end_to_whom_nobody_knows():
    """The source of the request may be forged, and the answer is larger than it."""
    engine, octets = gateway(), request()
    for number in range(500):
        engine.receive(octets, GATEWAY, CLIENT, 1.0 + number / 100)
    assert len(engine.outgoing()) == 1 + MAX_REPEATS


def test_sas_that_are_gone_are_let_go_of_though_they_had_plans():
    """A rekeying in four hours must not keep a closed SA in memory until then."""
    pair = Pair(connection(rekey_seconds=14400.0), connection_b(rekey_seconds=14400.0))
    for _ in range(150):
        pair.connect()
        for sa in pair.a.engine.sas:
            sa.close(pair.now)
        pair.run(12)
    assert not pair.a.engine._shared.table and not pair.b.engine._shared.table
    assert len(pair.a.engine._deadlines) < 100 and len(pair.b.engine._deadlines) < 100


def test_a_login_that_goes_no_further_is_told_in_the_end():
    """Else a closed port 4500 would leave no trace at the gateway."""
    peer = after_init()
    peer.pair.run(peer.pair.b.engine.settings.responder.half_open_seconds + 1)
    (refused,) = peer.pair.b.happened(events.Refused)
    assert refused.rate_limited and "no IKE_AUTH" in str(refused.error) and "4500" in refused.error.remedy


# --- the same request, with a cookie and without ----------------------------------------------------------------------


def both_admitted(first_cookie: bool) -> tuple[Engine, Engine, list[bytes]]:
    """A client whose request came twice: once it met a demand for a cookie, once a free place; its two requests."""
    client, responder = Engine(EngineSettings()), gateway(cookie_threshold=0)
    sa = client.connect(connection(), CLIENT, GATEWAY, 0.0)
    plain = client.outgoing()[0].octets
    responder.receive(plain, GATEWAY, CLIENT, 0.0)
    client.receive(responder.outgoing()[0].octets, CLIENT, GATEWAY, 0.1)
    with_cookie = client.outgoing()[0].octets
    assert len(with_cookie) > len(plain)
    responder.reconfigure(settings(cookie_threshold=32))
    requests = [with_cookie, plain] if first_cookie else [plain, with_cookie]
    assert sa.state is IkeState.CONNECTING
    return client, responder, requests


@pytest.mark.parametrize("first_cookie", [False, True])
def test_a_request_with_and_without_a_cookie_is_one_ike_sa(first_cookie):
    """The client signs the request that it has sent last, whichever of the two was answered."""
    client, responder, requests = both_admitted(first_cookie)
    answers = []
    for octets in requests:
        responder.receive(octets, GATEWAY, CLIENT, 0.2)
        answers.append(responder.outgoing()[0].octets)
    assert answers[0] == answers[1]
    assert occupied(responder) == 1
    client.receive(answers[0], CLIENT, GATEWAY, 0.3)
    (login,) = client.outgoing()
    responder.receive(login.octets, login.remote, login.local, 0.4)
    asked = next(event for event in responder.events() if isinstance(event, events.Asked))
    responder.answer(asked.question, connection_b(), 0.4)
    (reply,) = responder.outgoing()
    client.receive(reply.octets, reply.remote, reply.local, 0.5)
    assert [sa.established for sa in (*client.sas, *responder.sas)] == [True, True]
    responder.receive(requests[0], GATEWAY, CLIENT, 0.6)  # very late
    assert responder.sas[0].established


def test_either_request_is_answered_again_and_neither_when_the_login_has_gone_on():
    _, responder, (plain, with_cookie) = both_admitted(first_cookie=False)
    for octets in (plain, with_cookie, plain, with_cookie):
        responder.receive(octets, GATEWAY, CLIENT, 0.2)
        assert len(responder.outgoing()) == 1
    (sa,) = responder.sas
    sa.channel._answered.clear()  # as after the second request of an EAP log-in
    sa.channel.expected_id = 3
    for octets in (plain, with_cookie):
        responder.receive(octets, GATEWAY, CLIENT, 0.3)
    _, other, (plain, with_cookie) = both_admitted(first_cookie=False)
    other.receive(plain, GATEWAY, CLIENT, 0.2)
    (sa,) = other.sas
    other.outgoing()
    sa.channel._answered.clear()
    sa.channel.expected_id = 3
    other.receive(with_cookie, GATEWAY, CLIENT, 0.3)
    assert not responder.outgoing() and not other.outgoing()


def test_what_else_differs_makes_another_ike_sa():
    """A request whose proposals somebody has changed must not stand for the one that the client signs."""
    _, responder, (plain, with_cookie) = both_admitted(first_cookie=False)
    message = Message.decode(plain)
    values = {name: getattr(message, name) for name in ("initiator_spi", "responder_spi", "exchange_type")}
    changed = Message(
        **values, is_initiator=True, is_response=False, message_id=0, payloads=(*message.payloads, VendorId(b"x"))
    ).encode()
    responder.receive(changed, GATEWAY, CLIENT, 0.2)
    responder.receive(with_cookie, GATEWAY, CLIENT, 0.2)
    assert occupied(responder) == 2
    assert {sa.init_request for sa in responder.sas} == {changed, with_cookie}


def test_a_forged_cookie_changes_no_ike_sa():
    _, responder, (plain, _) = both_admitted(first_cookie=False)
    responder.receive(plain, GATEWAY, CLIENT, 0.2)
    message = Message.decode(plain)
    values = {name: getattr(message, name) for name in ("initiator_spi", "responder_spi", "exchange_type")}
    forged = Message(
        **values,
        is_initiator=True,
        is_response=False,
        message_id=0,
        payloads=(Notify(NotifyType.COOKIE, b"forged"), *message.payloads),
    ).encode()
    responder.receive(forged, GATEWAY, CLIENT, 0.2)
    assert plain in {sa.init_request for sa in responder.sas}

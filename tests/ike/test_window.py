"""SET_WINDOW_SIZE between two engines (RFC 7296 section 2.3): several requests at a time, answered in any order."""

from __future__ import annotations

import pytest
from tests.ike.pair import Pair, child, connection, connection_b, mirrored
from tests.ike.stranger import IKE_AUTH, INFORMATIONAL, after_init, kinds, offer

from ikeway.ike import events
from ikeway.ike.proposals import parse_proposals
from ikeway.ike.questions import ReserveSpi
from ikeway.ike.selectors import selector
from ikeway.wire.message import Header
from ikeway.wire.registry import ExchangeType, ProtocolId

SETTINGS = tuple(child(f"net{number}", remote_selectors=(selector(f"10.{number}.0.0/16"),)) for number in range(2, 8))


def windows(a: int, b: int, **changes) -> Pair:
    pair = Pair(
        connection(window=a, children=SETTINGS[:1]),
        connection_b(window=b, children=tuple(map(mirrored, SETTINGS))),
        **changes,
    )
    pair.connect()
    assert len(pair.a.inbound) == 1
    return pair


@pytest.mark.parametrize(("a", "b", "agreed"), [(1, 1, 1), (4, 1, 1), (1, 4, 1), (4, 2, 2), (2, 4, 2), (4, 4, 4)])
def test_each_side_uses_what_the_other_grants_and_no_more_than_it_grants_itself(a, b, agreed):
    pair = windows(a, b)
    assert pair.a.sa.channel.peer_window == pair.b.sa.channel.peer_window == agreed
    assert (pair.a.sa.channel.window, pair.b.sa.channel.window) == (a, b)


def test_several_child_sas_are_made_at_once():
    pair = windows(4, 4)
    pair.network = lambda datagram: [0.2]
    for settings in SETTINGS[1:]:
        pair.a.sa.create_child(settings, pair.now)
    assert pair.a.sa.channel.outstanding == 4
    started = pair.now
    while len(pair.a.inbound) < 6:
        assert pair.step(pair.now + 10)
    assert pair.now - started < 0.9  # two rounds instead of five
    pair.run(1)
    pair.agree()


@pytest.mark.parametrize("seed", range(8))
def test_requests_out_of_order_lost_and_doubled(seed):
    pair = windows(4, 4, seed=seed)
    source = pair.source
    pair.network = lambda datagram: [source.uniform(0.01, 2.0) for _ in range(source.randint(0, 2))]
    for settings in SETTINGS[1:]:
        pair.a.sa.create_child(settings, pair.now)
    pair.b.sa.check_liveness(pair.now)
    pair.run(120)
    pair.network = lambda datagram: [0.01]
    pair.run(120)
    assert len(pair.a.inbound) == 6
    pair.agree()
    taken = [
        event.message.message_id
        for event in pair.b.happened(events.MessageReceived)
        if not event.message.is_response and event.message.exchange_type == ExchangeType.CREATE_CHILD_SA
    ]
    assert len(taken) == len(set(taken))


def test_a_slow_answer_holds_up_no_other():
    """The gateway waits for an SPI of its data plane; meanwhile it answers what came after."""
    without_pfs = mirrored(child(proposals=parse_proposals("aes128gcm16", ProtocolId.ESP)))
    peer = after_init(Pair(b=connection_b(window=3, children=(without_pfs,)), external_spis=True))
    identity = peer.identity()
    assert "Authentication" in kinds(peer.ask(IKE_AUTH, identity, peer.psk_auth(identity), *peer.child_offer()))
    engine = peer.host.engine
    peer.deliver(peer.seal(ExchangeType.CREATE_CHILD_SA, *offer(peer), message_id=2))
    peer.deliver(peer.seal(INFORMATIONAL, message_id=3))
    (asked,) = [event for event in engine.events() if isinstance(event, events.Asked)]
    assert isinstance(asked.question, ReserveSpi)
    assert [Header.decode(datagram.octets).message_id for datagram in engine.outgoing()] == [3]
    engine.answer(asked.question, 0x7777, peer.pair.now)
    assert [Header.decode(datagram.octets).message_id for datagram in engine.outgoing()] == [2]


def test_an_sa_that_replaces_another_keeps_its_window():
    pair = windows(4, 4)
    pair.a.sa.rekey(pair.now)
    pair.run(5)
    assert pair.a.sa.channel.peer_window == pair.b.sa.channel.peer_window == 4
    assert pair.a.sa.channel.window == pair.b.sa.channel.window == 4

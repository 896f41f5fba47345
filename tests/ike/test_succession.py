"""A log-in anew beside the old one: the responder sends on the new child SA when the initiator has it."""

from __future__ import annotations

import pytest
from tests.ike.pair import Pair, connection, connection_b

from ikeway.ike import events
from ikeway.ike.sa import IkeSa, IkeState


def beside(**options) -> Pair:
    """Two hosts that have a tunnel; INITIAL_CONTACT would end the old one at once."""
    pair = Pair(connection(initial_contact=False), connection_b(), **options)
    pair.connect()
    return pair


def watch(pair: Pair) -> list[set[int]]:
    """Note, at each datagram's arrival, what b sends on (the last one added is what carries)."""
    carrying = []
    deliver = pair.deliver

    def delivered(datagram):
        deliver(datagram)
        pair.collect()
        carrying.append((list(pair.b.outbound)[-1:], set(pair.a.inbound)))

    pair.deliver = delivered
    return carrying


def half_way(pair: Pair) -> IkeSa:
    """Log in anew, and lose b's answer: its new SA."""
    pair.a.sa.reauthenticate(pair.now)
    while len(established := pair.b.happened(events.IkeEstablished)) < 2:
        assert pair.step(pair.now + 10)
    pair.wire.clear()
    return established[1].sa


@pytest.mark.parametrize("rekeyed", [False, True])
def test_what_the_responder_sends_on_is_always_known_to_the_initiator(rekeyed):
    pair = beside()
    if rekeyed:
        pair.a.sa.rekey_child(pair.a.sa.children[0], pair.now)
        pair.run(30)
    carrying = watch(pair)
    pair.a.sa.reauthenticate(pair.now)
    pair.run(10)
    assert carrying and all(sends and set(sends) <= accepts for sends, accepts in carrying)
    assert len(pair.b.outbound) == len(pair.a.inbound) == 1
    pair.agree()


def test_an_initiator_that_lost_the_old_one_waits_three_seconds_at_most():
    pair = beside()
    (old,) = pair.b.outbound
    pair.a.engine = Pair().a.engine  # it starts again from nothing
    pair.a.inbound, pair.a.outbound = {}, {}
    pair.connect()
    pair.run(2)
    assert list(pair.b.outbound) == [old]
    pair.run(2)
    assert len(pair.b.outbound) == 2
    assert set(pair.a.inbound) <= set(pair.b.outbound)


def test_another_peer_s_refused_log_in_changes_nothing():
    pair = beside()
    (old,), new = pair.b.outbound, half_way(pair)
    pair.b.engine.connect(pair.b.connection, pair.b.address, pair.a.address, pair.now)
    stranger = next(sa for sa in pair.b.engine.sas if sa.state is IkeState.CONNECTING)
    stranger.local_identity, stranger.remote_identity = new.local_identity, new.remote_identity
    stranger.terminate(None)
    pair.collect()
    assert list(pair.b.outbound) == [old]


def test_the_end_of_the_new_one_before_it_takes_over_leaves_the_old():
    pair = beside()
    (old,), new = pair.b.outbound, half_way(pair)
    pair.network = lambda datagram: []
    new.terminate(None)
    pair.run(4)
    assert list(pair.b.outbound) == [old]

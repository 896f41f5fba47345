"""Rekeyings that begin before another one is over, as strongSwan was seen to do: a second one by the peer while ours is
still on its way, and ours of the IKE SA while the peer lacks our answer."""

from __future__ import annotations

import pytest
from tests.ike.pair import Pair, child, connection_b, mirrored
from tests.ike.test_rekey import up, watched

from ikeway.ike import events
from ikeway.ike.lifetimes import AWAIT_DELETE_SECONDS
from ikeway.ike.selectors import selector

RESPONSE = 0x20  # in the flags of the header


@pytest.mark.parametrize("by", ["a", "b"])
def test_the_second_rekeying_is_as_final_as_the_first(by):
    pair = up()
    problems = watched(pair)
    slow, fast = (pair.a, pair.b) if by == "a" else (pair.b, pair.a)
    hears = pair.now + 3  # until then our requests are lost, and only they

    def network(datagram):
        lost = datagram.local.host == slow.address.host and not datagram.octets[19] & RESPONSE and pair.now < hears
        return [] if lost else [pair.latency]

    pair.network = network
    slow.sa.rekey_child(slow.sa.live_children[0], pair.now)
    for _ in range(2):
        pair.run(0.5)
        fast.sa.rekey_child(fast.sa.live_children[0], pair.now)
    pair.run(1)
    assert slow.sa.live_children[0].spi_in == fast.sa.live_children[0].spi_out
    pair.run(20)
    pair.agree()
    assert len(pair.a.inbound) == len(pair.b.inbound) == 1
    assert not pair.a.happened(events.ChildDown)
    assert not pair.b.happened(events.ChildDown)
    assert not problems


def test_a_child_sa_of_which_the_peer_has_not_heard_yet_is_not_lost():
    second = child("second", remote_selectors=(selector("10.3.0.0/16"),))
    pair = Pair(b=connection_b(children=(mirrored(child()), mirrored(second))))
    pair.connect()
    hears, lost = pair.now + 3, pair.b.address.host  # until then its answers are lost

    def network(datagram):
        answer = datagram.local.host == lost and datagram.octets[19] & RESPONSE
        return [] if answer and pair.now < hears else [pair.latency]

    pair.network = network
    pair.a.sa.create_child(second, pair.now)
    pair.run(0.5)
    made = next(each for each in pair.b.sa.children if each.name == "second")
    pair.b.sa.rekey_child(made, pair.now)
    pair.run(60)
    pair.agree()
    assert sorted(each.name for each in pair.a.sa.live_children) == ["net", "second"]
    assert made.successor is not None and not pair.b.happened(events.ChildDown)


@pytest.mark.parametrize("by", ["a", "b"])
def test_the_ike_sa_waits_until_the_peer_has_ended_its_rekeying(by):
    pair = up()
    asking, answering = (pair.a, pair.b) if by == "a" else (pair.b, pair.a)
    hears = pair.now + 3  # until then answers are lost
    asked = []

    def network(datagram):
        ours = datagram.local.host == answering.address.host
        if ours and not datagram.octets[19] & RESPONSE:
            asked.append(pair.now)
        return [] if ours and pair.now < hears else [pair.latency]

    pair.network = network
    old = answering.sa
    asking.sa.rekey_child(asking.sa.live_children[0], pair.now)
    pair.run(0.5)
    answering.sa.rekey(pair.now)
    pair.run(2)
    assert not asked and len(answering.sa.children) == 2
    pair.run(20)
    pair.agree()
    assert asked and min(asked) > hears
    assert answering.sa is not old and len(pair.a.inbound) == len(pair.b.inbound) == 1


def test_the_ike_sa_waits_for_no_peer_that_never_ends_its_rekeying():
    pair = up()
    begun, sent = pair.now, {pair.a.address.host: [], pair.b.address.host: []}

    def network(datagram):
        if datagram.octets[19] & RESPONSE:
            return [pair.latency]
        requests = sent[datagram.local.host]
        requests.append(pair.now)
        return [pair.latency] if requests is asked or len(requests) == 1 else []

    asked = sent[pair.b.address.host]
    pair.network = network
    pair.a.sa.rekey_child(pair.a.sa.live_children[0], pair.now)
    pair.run(0.5)
    pair.b.sa.rekey(pair.now)
    pair.run(45)
    assert asked and AWAIT_DELETE_SECONDS <= asked[0] - begun < 45

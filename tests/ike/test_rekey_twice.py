"""The peer rekeys a child SA twice while our own rekeying of it is still on its way, as strongSwan was seen to do."""

from __future__ import annotations

import pytest
from tests.ike.test_rekey import up, watched

from ikeway.ike import events

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

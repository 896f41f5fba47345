"""SPIs of ESP say which worker serves them; those of IKE say nothing."""

from __future__ import annotations

from tests.ike.pair import Pair

from ikeway.ike import events


def test_every_esp_spi_of_a_connection_carries_its_bits():
    asked = []

    def steer(sa):
        asked.append((sa.connection_id, sa.connection.name, sa.remote))
        return 0b111, 0b101

    pair = Pair(steer=steer)
    pair.connect()
    for host in (pair.a, pair.b):
        host.sa.rekey(pair.now)
        pair.run(2)
        host.sa.rekey_child(host.sa.live_children[0], pair.now)
        pair.run(10)
    pair.agree()
    spis = {event.esp.spi for host in (pair.a, pair.b) for event in host.happened(events.InboundAdded)}
    assert len(spis) == 6
    assert {spi & 0b111 for spi in spis} == {0b101}
    assert len({spi >> 3 for spi in spis}) == 6
    assert {name for _, name, _ in asked} == {pair.b.sa.connection.name, pair.a.sa.connection.name}
    assert {number for number, _, _ in asked} == {pair.a.sa.connection_id, pair.b.sa.connection_id}


def test_spis_of_ike_are_left_alone():
    pairs = [Pair(seed=seed, steer=lambda sa: (0xFF, 7)) for seed in range(4)]
    for pair in pairs:
        pair.connect()
    assert {pair.a.sa.spi[-1] for pair in pairs} != {7}

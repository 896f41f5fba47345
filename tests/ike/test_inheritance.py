"""What goes over to the IKE SA that replaces another: clocks, what is still to be done, the path, and who closes what."""

from __future__ import annotations

import pytest
from tests.ike.pair import Pair, child, connection, connection_b, mirrored
from tests.ike.test_rekey import up

from ikeway.ike import events, lifetimes, window
from ikeway.ike.sa import IkeSa, IkeState
from ikeway.ike.selectors import selector
from ikeway.ike.settings import Retransmission
from ikeway.wire.message import Header
from ikeway.wire.registry import ExchangeType

RESPONSE = 0x20  # in the flags of the header
SECOND = child("second", remote_selectors=(selector("10.3.0.0/16"),))


def replaced(pair: Pair) -> IkeSa:
    """Side b rekeys; returns what a had before, as soon as a has another one."""
    old = pair.a.sa
    pair.b.sa.rekey(pair.now)
    while not pair.a.happened(events.IkeRekeyed):
        assert pair.step(pair.now + 10)
    assert old.state is IkeState.REKEYED
    return old


@pytest.mark.parametrize("by", ["a", "b"])
@pytest.mark.parametrize("told", [False, True])
def test_a_rekeying_does_not_put_off_the_next_log_in(by, told):
    pair = Pair(connection(reauthenticate_seconds=0.0 if told else 100.0), connection_b(reauthenticate_seconds=100.0))
    pair.connect()
    if told:
        lifetimes.log_in_within(pair.a.sa, 100.0)
    due = pair.a.sa.timers.get("reauthenticate")
    pair.run(50)
    getattr(pair, by).sa.rekey(pair.now)
    pair.run(10)
    assert pair.a.sa.timers.get("reauthenticate") == due
    assert pair.b.sa.timers.get("reauthenticate") is None  # side b has not logged in
    pair.run(45)
    assert [event.replaces is not None for event in pair.a.happened(events.IkeEstablished)] == [False, True]
    pair.run(60)
    pair.agree()
    assert len(pair.a.inbound) == 1


def test_a_responder_asks_for_another_log_in():
    pair = Pair(connection(), connection_b(reauthenticate_seconds=300.0))
    pair.connect()
    assert pair.a.sa.timers.get("reauthenticate") == pytest.approx(pair.now + 270, abs=1)
    assert pair.b.sa.timers.get("reauthenticate") is None
    pair.run(280)
    assert len(pair.a.happened(events.IkeEstablished)) == 2
    pair.agree()


def test_a_log_in_anew_that_finds_nobody_is_tried_again():
    pair = Pair(connection(reauthenticate_seconds=30.0, retransmission=Retransmission(first=1, tries=2)))
    pair.connect()
    old, recovers = pair.a.sa, pair.now + 60

    def network(datagram):
        begins = datagram.octets[18] == ExchangeType.IKE_SA_INIT
        return [] if begins and pair.now < recovers else [pair.latency]

    pair.network = network
    pair.run(50)
    assert pair.a.sa is old
    pair.run(150)
    assert pair.a.sa is not old and pair.a.sa.connection_id != old.connection_id
    assert old.state is IkeState.CLOSED
    pair.agree()


@pytest.mark.parametrize("seed", range(8))
def test_a_child_sa_that_has_to_wait_is_made_on_the_ike_sa_that_comes(seed):
    pair = Pair(
        connection(children=(child(), SECOND)), connection_b(children=(mirrored(child()), mirrored(SECOND))), seed=seed
    )
    pair.connect()
    pair.a.sa.delete_child(next(each for each in pair.a.sa.children if each.name == "second"), pair.now)
    pair.run(1)
    pair.b.sa.rekey(pair.now)  # each refuses the other's for now
    pair.a.sa.create_child(SECOND, pair.now)
    pair.run(60)
    assert pair.a.happened(events.IkeRekeyed)
    assert sorted(each.name for each in pair.a.sa.live_children) == ["net", "second"]
    pair.agree()


def test_a_task_that_waited_is_told_to_the_peer_behind_our_response():
    pair = up()
    pair.network = lambda datagram: [] if datagram.local.host == pair.a.address.host else [pair.latency]
    pair.a.sa.check_liveness(pair.now)
    pair.a.sa.rekey_child(pair.a.sa.children[0], pair.now)  # waits for the window
    pair.collect()
    pair.sent.clear()
    old = replaced(pair)
    mine = [Header.decode(each.octets) for each in pair.sent if each.local.host == pair.a.address.host]
    assert [header.is_response for header in mine] == [True, False]
    assert mine[0].initiator_spi == old.channel.initiator_spi != mine[1].initiator_spi
    pair.network = lambda datagram: [pair.latency]
    pair.run(60)
    pair.agree()


@pytest.mark.parametrize("by", ["a", "b"])
def test_a_log_in_anew_ends_what_the_old_ike_sa_was_rekeyed_to(by):
    pair = up()
    old = pair.a.sa
    old.reauthenticate(pair.now)
    getattr(pair, by).engine.sas[0].rekey(pair.now)
    pair.run(300)
    assert old.successor is not None
    assert pair.a.sa.connection_id != old.connection_id
    assert len(pair.b.engine.sas) == 1 and len(pair.a.inbound) == len(pair.b.inbound) == 1
    pair.agree()
    assert not pair.a.happened(events.ChildDown)


def test_a_log_in_anew_that_is_done_in_the_middle_of_a_rekeying():
    pair = up()
    old, hears = pair.a.sa, pair.now + 3
    old.reauthenticate(pair.now)
    old.rekey(pair.now)
    spi = old.channel.initiator_spi

    def network(datagram):
        return [] if datagram.octets[:8] == spi and pair.now < hears else [pair.latency]

    pair.network = network
    pair.run(300)
    assert pair.a.sa.connection_id != old.connection_id
    assert len(pair.b.engine.sas) == 1 and len(pair.a.inbound) == len(pair.b.inbound) == 1
    pair.agree()


@pytest.mark.parametrize("seed", range(6))
def test_nobody_hears_of_the_end_of_an_ike_sa_that_lost_a_collision(seed):
    pair = up(seed=seed)
    pair.a.sa.rekey(pair.now)
    pair.b.sa.rekey(pair.now)

    def losers():
        return [sa for host in (pair.a, pair.b) for sa in host.engine.sas if sa.state is IkeState.DELETING and sa.spi]

    known = {sa.spi for host in (pair.a, pair.b) for sa in host.engine.sas}
    while not (found := [sa for sa in losers() if sa.spi not in known]):
        assert pair.step(pair.now + 10)
    lost = found[0].channel.initiator_spi
    pair.wire.clear()
    pair.network = lambda datagram: [] if datagram.octets[:8] == lost else [pair.latency]
    pair.run(400)
    assert not pair.a.happened(events.IkeClosed) and not pair.b.happened(events.IkeClosed)
    assert pair.a.sa.channel.initiator_spi == pair.b.sa.channel.initiator_spi
    pair.agree()


def test_who_has_not_heard_of_a_rekeying_closes_the_connection_all_the_same():
    pair = up()
    replaced(pair).close(pair.now)
    pair.run(300)
    assert not pair.a.engine._shared.table and not pair.b.engine._shared.table
    (closed,), (told,) = pair.a.happened(events.IkeClosed), pair.b.happened(events.IkeClosed)
    assert closed.sa is pair.a.happened(events.IkeRekeyed)[0].sa and closed.error is None
    assert told.sa is pair.b.happened(events.IkeRekeyed)[0].sa


def test_who_has_not_heard_of_a_rekeying_rekeys_what_there_is():
    pair = up()
    old = replaced(pair)
    spi = pair.a.inbound.copy()
    old.rekey_child(old.successor.children[0], pair.now)
    pair.run(20)
    pair.agree()
    assert pair.a.inbound.keys() != spi.keys()


def test_an_outage_when_the_ike_sa_is_rekeyed():
    """The response is lost with all that follows for more than a minute; repeated until then, the request is answered."""
    pair = up()
    back = pair.now + 70
    pair.network = lambda datagram: [pair.latency] if not datagram.octets[19] & RESPONSE or pair.now > back else []
    pair.a.sa.rekey(pair.now)
    pair.run(200)
    assert pair.a.happened(events.IkeRekeyed) and pair.b.happened(events.IkeRekeyed)
    assert not pair.a.happened(events.IkeClosed) and not pair.b.happened(events.IkeClosed)
    assert pair.a.sa.channel.initiator_spi == pair.b.sa.channel.initiator_spi
    pair.agree()


def test_a_peer_that_deletes_nothing_fills_no_memory_with_what_it_has_rekeyed():
    pair = up()
    for _ in range(20):
        pair.b.sa.rekey(pair.now)
        while pair.b.engine.sas[-1].channel.outstanding:
            assert pair.step(pair.now + 1)
        # Side b sends no delete.
        for sa in pair.b.engine.sas:
            if sa.state is IkeState.DELETING:
                sa.terminate(None)
        pair.wire.clear()
        pair.run(0.1)
    assert len(pair.a.engine.sas) == 2


@pytest.mark.parametrize("by", ["a", "b"])
def test_windows_of_several_requests_hold_for_the_ike_sa_for_which_they_were_announced(by, monkeypatch):
    pair = Pair(connection(window=4), connection_b(window=4))
    pair.connect()
    assert pair.a.sa.channel.peer_window == 4
    monkeypatch.setattr(window, "announce", lambda sa: ())
    getattr(pair, by).sa.rekey(pair.now)
    pair.run(5)
    assert pair.a.sa.channel.peer_window == pair.b.sa.channel.peer_window == 1

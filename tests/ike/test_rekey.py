"""Rekeying, deleting and their lifetimes between two engines."""

from __future__ import annotations

import gc

import pytest
from tests.ike.pair import Pair, child, connection, connection_b, mirrored

from ikeway.errors import Closed, PeerUnreachable
from ikeway.ike import events
from ikeway.ike.child import ChildState
from ikeway.ike.proposals import parse_proposals
from ikeway.ike.sa import IkeState
from ikeway.ike.selectors import selector
from ikeway.ike.settings import Retransmission
from ikeway.wire.registry import ProtocolId


def up(**engine) -> Pair:
    pair = Pair(**engine)
    pair.connect()
    pair.agree()
    return pair


def watched(pair: Pair) -> list[str]:
    """Check at every step that what one side sends on, the other accepts: no packet is lost."""
    problems = []
    collect = pair.collect

    def checked() -> None:
        collect()
        for here, there in ((pair.a, pair.b), (pair.b, pair.a)):
            if not here.outbound:
                problems.append(f"{here.name} sends on nothing")
            newest = list(here.outbound)[-1:] or []
            problems.extend(
                f"{here.name} sends on {spi:08x}, which is not accepted" for spi in newest if spi not in there.inbound
            )

    pair.collect = checked
    return problems


@pytest.mark.parametrize("by", ["a", "b"])
@pytest.mark.parametrize("esp", ["aes128gcm16", "aes128gcm16-x25519", "aes128gcm16-ecp256"])
def test_rekey_of_a_child_sa_loses_nothing(by, esp):
    proposals = parse_proposals(esp, ProtocolId.ESP)
    settings = child(proposals=proposals)
    pair = Pair(connection(children=(settings,)), connection_b(children=(mirrored(settings),)))
    pair.connect()
    problems = watched(pair)
    host = getattr(pair, by)
    old = host.sa.children[0]
    host.sa.rekey_child(old, pair.now)
    pair.run(2)
    (new,) = host.sa.live_children
    assert new.spi_in != old.spi_in and new.child_id == old.child_id
    assert len(pair.a.inbound) == 2  # the old one lingers
    pair.run(10)
    pair.agree()
    assert len(pair.a.inbound) == 1
    assert not problems
    assert not pair.a.happened(events.ChildDown) and not pair.b.happened(events.ChildDown)
    assert bool(new.suite.key_exchange) is ("-" in esp)


@pytest.mark.parametrize("by", ["a", "b"])
def test_rekey_of_the_ike_sa_keeps_the_child_sas(by):
    pair = up()
    problems = watched(pair)
    host = getattr(pair, by)
    old, spis = host.sa, set(pair.a.inbound)
    old.rekey(pair.now)
    pair.run(2)
    assert host.sa is not old and host.sa.connection_id == old.connection_id
    assert set(pair.a.inbound) == spis
    assert pair.a.happened(events.IkeRekeyed) and pair.b.happened(events.IkeRekeyed)
    assert not pair.a.happened(events.IkeClosed) and not pair.b.happened(events.IkeClosed)
    # Everything works on the new one.
    pair.a.sa.rekey_child(pair.a.sa.children[0], pair.now)
    pair.run(20)
    pair.b.sa.rekey(pair.now)
    pair.run(20)
    pair.agree()
    assert not problems
    assert len(pair.a.engine._shared.table) == 1 and len(pair.b.engine._shared.table) == 1


@pytest.mark.parametrize("seed", range(12))
def test_both_rekey_the_child_sa_at_once(seed):
    pair = up(seed=seed)
    problems = watched(pair)
    pair.a.sa.rekey_child(pair.a.sa.children[0], pair.now)
    pair.b.sa.rekey_child(pair.b.sa.children[0], pair.now)
    pair.run(20)
    pair.agree()
    assert len(pair.a.inbound) == 1 and len(pair.a.sa.children) == 1 and len(pair.b.sa.children) == 1
    assert not problems
    assert not pair.a.happened(events.ChildDown) and not pair.b.happened(events.ChildDown)


@pytest.mark.parametrize("seed", range(12))
def test_both_rekey_the_ike_sa_at_once(seed):
    pair = up(seed=seed)
    pair.a.sa.rekey(pair.now)
    pair.b.sa.rekey(pair.now)
    pair.run(60)
    pair.agree()
    assert len(pair.a.inbound) == 1
    assert pair.a.sa.channel.initiator_spi == pair.b.sa.channel.initiator_spi
    assert len(pair.a.engine._shared.table) == 1 and len(pair.b.engine._shared.table) == 1
    pair.a.sa.rekey_child(pair.a.sa.children[0], pair.now)
    pair.run(20)
    pair.agree()


def test_a_crossing_of_ike_and_child_rekeying_is_retried():
    pair = up()
    spi = pair.a.sa.children[0].spi_in
    pair.a.sa.rekey_child(pair.a.sa.children[0], pair.now)
    old = pair.b.sa
    pair.b.sa.rekey(pair.now)
    pair.run(60)
    pair.agree()
    assert pair.a.sa.children[0].spi_in != spi and pair.b.sa is not old


@pytest.mark.parametrize("by", ["a", "b"])
def test_delete_of_the_ike_sa(by):
    pair = up()
    getattr(pair, by).sa.close(pair.now)
    pair.run(1)
    assert not pair.a.inbound and not pair.b.inbound and not pair.a.outbound and not pair.b.outbound
    here, there = (pair.a, pair.b) if by == "a" else (pair.b, pair.a)
    assert here.happened(events.IkeClosed)[0].error is None
    assert isinstance(there.happened(events.IkeClosed)[0].error, Closed)
    pair.run(60)
    assert not pair.a.engine._shared.table and not pair.b.engine._shared.table


@pytest.mark.parametrize("by", ["a", "b"])
def test_delete_of_a_child_sa(by):
    pair = up()
    host = getattr(pair, by)
    host.sa.delete_child(host.sa.children[0], pair.now)
    pair.run(1)
    assert not pair.a.inbound and not pair.b.inbound and not pair.a.outbound and not pair.b.outbound
    assert pair.a.happened(events.ChildDown) and pair.b.happened(events.ChildDown)
    assert pair.a.sa.is_alive and pair.b.sa.is_alive


def test_both_delete_at_once():
    pair = up()
    pair.a.sa.close(pair.now)
    pair.b.sa.close(pair.now)
    pair.run(60)
    assert not pair.a.engine._shared.table and not pair.b.engine._shared.table
    assert len(pair.a.happened(events.IkeClosed)) == len(pair.b.happened(events.IkeClosed)) == 1


def test_lifetimes_over_half_an_hour_leave_nothing_behind():
    settings = child(rekey_seconds=20.0)
    pair = Pair(
        connection(children=(settings,), rekey_seconds=60.0, dpd_seconds=5.0),
        connection_b(children=(mirrored(settings),), rekey_seconds=70.0, dpd_seconds=7.0),
    )
    pair.connect()
    problems = watched(pair)
    pair.run(1800)
    pair.run(10)
    assert not problems
    assert pair.a.sa.is_alive and pair.b.sa.is_alive
    assert len(pair.a.happened(events.ChildUp)) > 80
    assert len(pair.a.happened(events.IkeRekeyed)) > 25
    assert len(pair.a.sa.children) <= 2 and len(pair.a.inbound) <= 2
    assert len(pair.a.engine._shared.table) <= 2
    assert len(pair.a.engine._shared.esp_spis) <= 4
    assert len(pair.a.engine._deadlines) < 50
    assert not pair.a.happened(events.IkeClosed) and not pair.a.happened(events.ChildDown)


def test_memory_does_not_grow_with_rekeyings():
    settings = child(rekey_seconds=20.0)
    pair = Pair(
        connection(children=(settings,), rekey_seconds=60.0, dpd_seconds=5.0),
        connection_b(children=(mirrored(settings),), rekey_seconds=70.0, dpd_seconds=7.0),
    )
    pair.connect()

    def alive(seconds):
        """How many objects of ours there are after that time, but those that the test keeps."""
        pair.run(seconds)
        for kept in (pair.a.log, pair.b.log, pair.sent):
            kept.clear()
        gc.collect()
        return sum(str(type(each).__module__).startswith("ikeway.") for each in gc.get_objects())  # may be a descriptor

    at_first = max(alive(100) for _ in range(3))
    assert min(alive(400) for _ in range(3)) <= at_first


def test_a_dead_peer_is_noticed():
    pair = Pair(connection(dpd_seconds=5.0, retransmission=Retransmission(first=1, tries=3)))
    pair.connect()
    pair.network = lambda datagram: []
    pair.run(60)
    (closed,) = pair.a.happened(events.IkeClosed)
    assert isinstance(closed.error, PeerUnreachable) and closed.established
    assert not pair.a.inbound and not pair.a.outbound


def test_a_living_peer_is_not_asked_while_it_talks():
    pair = Pair(connection(dpd_seconds=5.0))
    pair.connect()
    sent = len(pair.sent)
    for _ in range(20):
        pair.run(2)
        pair.a.sa.traffic_seen(pair.now)
    assert len(pair.sent) == sent
    pair.run(6)
    assert len(pair.sent) == sent + 2


def test_reauthentication_makes_before_it_breaks():
    pair = Pair(connection(reauthenticate_seconds=30.0, initial_contact=False))
    pair.connect()
    first = pair.a.sa
    pair.run(53)
    assert pair.a.sa is not first and first.state is IkeState.CLOSED
    assert pair.a.happened(events.IkeEstablished)[1].replaces is first
    pair.agree()
    assert len(pair.a.inbound) == 1
    assert not pair.a.happened(events.ChildDown)


def test_a_hard_limit_of_a_child_sa_deletes_it():
    pair = up()
    victim = pair.a.sa.children[0]
    pair.a.sa.expire_child(victim, pair.now)
    pair.run(1)
    assert not pair.a.inbound and not pair.b.inbound and not pair.b.outbound
    assert victim.state is ChildState.DELETED
    # Nobody wished it: whoever needs the child SA has to see that.
    for host in (pair.a, pair.b):
        (down,) = host.happened(events.ChildDown)
        assert isinstance(down.error, Closed)


def test_a_child_sa_that_the_peer_lost_is_made_anew():
    pair = up()
    lost = pair.b.sa.children[0]
    pair.b.sa.remove_child(lost)
    pair.a.sa.rekey_child(pair.a.sa.children[0], pair.now)
    pair.run(5)
    pair.agree()
    assert len(pair.a.inbound) == 1


def test_a_window_of_several_requests():
    settings = tuple(child(f"n{i}", remote_selectors=(selector(f"10.{i}.0.0/16"),)) for i in range(2, 8))
    pair = Pair(
        connection(children=settings, window=4),
        connection_b(children=tuple(map(mirrored, settings)), window=4),
    )
    pair.connect()
    pair.run(5)
    pair.agree()
    assert len(pair.a.inbound) == 6
    assert pair.a.sa.channel.peer_window == 4

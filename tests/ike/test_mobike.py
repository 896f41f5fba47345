"""MOBIKE (RFC 4555) and NAT mappings that change (RFC 7296 section 2.23) between two engines."""

from __future__ import annotations

import pytest
from tests.ike.pair import A, B, Pair, connection, connection_b

from ikeway.address import Address
from ikeway.errors import NegotiationFailed
from ikeway.esp.parameters import Encapsulation
from ikeway.ike import events
from ikeway.wire.registry import NotifyType

ELSEWHERE = "203.0.113.77"


class Roaming(Pair):
    """A pair in which side a may have several addresses, and a NAT may stand before it."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.a_hosts = {A.host, ELSEWHERE}
        self.nat: dict[Address, Address] = {}  # inside -> outside
        self.dead: set[str] = set()

    def deliver(self, datagram) -> None:
        if datagram.local.host in self.dead or datagram.remote.host in self.dead:
            return
        source = self.nat.get(datagram.local, datagram.local)
        inside = {outside: inner for inner, outside in self.nat.items()}
        target = inside.get(datagram.remote, datagram.remote)
        if target.host in self.a_hosts:
            self.a.engine.receive(datagram.octets, target, source, self.now)
        elif target.host == B.host:
            self.b.engine.receive(datagram.octets, target, source, self.now)


def up(a=None, b=None, nat: dict | None = None) -> Roaming:
    pair = Roaming(a, b)
    pair.nat = nat or {}
    pair.connect()
    assert pair.a.sa.mobike == (pair.a.connection.mobike and pair.b.connection.mobike)
    return pair


def test_the_ports_of_nat_traversal_are_used_from_the_start():
    pair = up()
    assert pair.a.sa.remote == Address(B.host, 4500) and pair.b.sa.remote == Address(A.host, 4500)


def test_a_move_takes_the_sas_along():
    pair = up()
    spis = set(pair.a.inbound)
    pair.dead.add(A.host)
    pair.a.sa.move(Address(ELSEWHERE, 4500), None, pair.now)
    pair.run(2)
    assert pair.b.sa.remote == Address(ELSEWHERE, 4500)
    assert [event.local.host for event in pair.a.happened(events.PathChanged)] == [ELSEWHERE]
    assert [event.remote.host for event in pair.b.happened(events.PathChanged)] == [ELSEWHERE]
    assert set(pair.a.inbound) == spis
    # Everything goes on, from either side.
    pair.b.sa.rekey_child(pair.b.sa.children[0], pair.now)
    pair.run(10)
    pair.a.sa.rekey(pair.now)
    pair.run(10)
    pair.agree()
    # After a rekeying of the IKE SA by the responder too, the first initiator decides on the path.
    pair.b.sa.rekey(pair.now)
    pair.run(10)
    pair.dead = {ELSEWHERE}
    pair.a.sa.move(Address(A.host, 4500), None, pair.now)
    pair.run(5)
    assert pair.b.sa.remote == Address(A.host, 4500)
    assert set(pair.b.outbound) == set(pair.a.inbound)


def test_a_move_in_the_middle_of_an_exchange():
    pair = up()
    pair.dead.add(A.host)
    pair.a.sa.rekey_child(pair.a.sa.children[0], pair.now)
    pair.run(1)
    pair.a.sa.move(Address(ELSEWHERE, 4500), None, pair.now)
    pair.run(10)
    pair.agree()
    assert pair.b.sa.remote.host == ELSEWHERE
    assert len(pair.a.inbound) == 1


def test_two_moves_one_after_the_other():
    pair = up()
    pair.a.sa.move(Address(ELSEWHERE, 4500), None, pair.now)
    pair.collect()
    pair.a.sa.move(Address(A.host, 4500), None, pair.now)
    pair.run(10)
    assert pair.b.sa.remote.host == A.host == pair.a.sa.local.host


def test_a_move_behind_a_nat_switches_encapsulation_on():
    pair = up()
    assert not pair.a.sa.udp_encapsulation
    pair.nat = {Address(ELSEWHERE, 4500): Address("192.0.2.200", 61000)}
    pair.a.sa.move(Address(ELSEWHERE, 4500), None, pair.now)
    pair.run(5)
    assert pair.a.sa.nat.self_behind_nat and pair.b.sa.nat.peer_behind_nat
    (change,) = pair.a.happened(events.PathChanged)
    assert change.udp_encapsulation
    assert pair.b.happened(events.PathChanged)[-1].remote == Address("192.0.2.200", 61000)


def test_return_routability_is_checked():
    pair = up()
    pair.a.sa.move(Address(ELSEWHERE, 4500), None, pair.now)
    pair.run(5)
    asked = [
        event.message
        for event in pair.a.happened(events.MessageReceived)
        if not event.message.is_response and event.message.notify(NotifyType.COOKIE2)
    ]
    assert len(asked) == 1
    # libreswan 4.10 answers without COOKIE2 where these are not.
    assert asked[0].notify(NotifyType.NAT_DETECTION_SOURCE_IP)
    assert asked[0].notify(NotifyType.NAT_DETECTION_DESTINATION_IP)


def test_no_nats_allowed():
    pair = up(connection(no_nats=True))
    pair.a.sa.move(Address(ELSEWHERE, 4500), None, pair.now)
    pair.run(5)
    assert pair.b.sa.remote.host == ELSEWHERE
    pair.nat = {Address(A.host, 4500): Address("192.0.2.200", 61000)}
    pair.a.sa.move(Address(A.host, 4500), None, pair.now)
    pair.run(5)
    (refused,) = pair.a.happened(events.Refused)
    assert refused.error.notify == NotifyType.UNEXPECTED_NAT_DETECTED
    assert pair.b.sa.remote.host == ELSEWHERE


def test_without_mobike_a_move_is_refused():
    pair = up(connection(mobike=False))
    with pytest.raises(NegotiationFailed):
        pair.a.sa.move(Address(ELSEWHERE, 4500), None, pair.now)


@pytest.mark.parametrize("rekeyed", [False, True])
def test_another_address_of_the_gateway_is_tried(rekeyed):
    pair = up(b=connection_b(additional_addresses=("198.51.100.2",)))
    assert pair.a.sa.peer_addresses == ("198.51.100.2",)
    deliver = pair.deliver

    def moved(datagram):
        if datagram.remote.host == "198.51.100.2":
            source = pair.nat.get(datagram.local, datagram.local)
            pair.b.engine.receive(datagram.octets, datagram.remote, source, pair.now)
        else:
            deliver(datagram)

    pair.deliver = moved
    if rekeyed:
        pair.a.sa.rekey(pair.now)
        pair.run(1)
    pair.dead.add(B.host)
    pair.a.sa.check_liveness(pair.now)
    pair.run(400)
    assert pair.a.sa.remote.host == "198.51.100.2" and pair.b.sa.local.host == "198.51.100.2"
    assert not pair.a.happened(events.IkeClosed)


def test_a_new_nat_mapping_is_followed_without_mobike():
    outside = Address("192.0.2.200", 61000)
    pair = up(connection(mobike=False), nat={A: Address(outside.host, 50500), Address(A.host, 4500): outside})
    assert pair.b.sa.remote == outside
    assert next(iter(pair.b.outbound.values())).encapsulation is Encapsulation.UDP
    assert next(iter(pair.b.inbound.values())).follow_peer
    fresh = Address("192.0.2.201", 62000)
    pair.nat[Address(A.host, 4500)] = fresh
    pair.a.sa.check_liveness(pair.now)
    pair.run(5)
    assert pair.b.sa.remote == fresh
    assert pair.b.happened(events.PathChanged)[-1].remote == fresh
    # The data plane may be the first to see it.
    pair.b.sa.peer_moved(Address("192.0.2.202", 1), pair.now)
    assert pair.b.sa.remote == Address("192.0.2.202", 1)


def test_a_forged_source_address_moves_nobody():
    pair = up(connection(mobike=False))
    pair.a.sa.check_liveness(pair.now)
    pair.collect()
    (_, _, datagram) = pair.wire.pop()
    forged = Address("203.0.113.13", 13)
    pair.b.engine.receive(datagram.octets[:-1] + b"\0", datagram.remote, forged, pair.now)
    pair.b.engine.receive(datagram.octets, datagram.remote, forged, pair.now)
    pair.run(5)
    assert pair.b.sa.remote.host == A.host  # no NAT was found, so authentic octets do not move it either


def test_a_new_nat_mapping_is_noticed_with_mobike_too():
    """The client sees in the answer to its liveness check that the gateway sees it elsewhere (RFC 4555 section 3.8)."""
    outside = Address("192.0.2.200", 61000)
    pair = up(connection(dpd_seconds=30.0), nat={A: Address(outside.host, 50500), Address(A.host, 4500): outside})
    assert pair.b.sa.remote == outside
    pair.run(100)
    settled = len(pair.a.happened(events.MessageSent))
    fresh = Address("192.0.2.201", 62000)
    pair.nat[Address(A.host, 4500)] = fresh
    pair.run(40)
    assert pair.b.sa.remote == fresh == pair.b.happened(events.PathChanged)[-1].remote
    updates = [
        event
        for event in pair.a.happened(events.MessageSent)[settled:]
        if event.message.notify(NotifyType.UPDATE_SA_ADDRESSES)
    ]
    assert len(updates) == 1
    # Nothing more to say as long as the mapping stays.
    pair.run(200)
    assert [
        event.message.notify(NotifyType.UPDATE_SA_ADDRESSES) for event in pair.a.happened(events.MessageSent)[-5:]
    ] == [None] * 5


def test_the_mapping_of_a_nat_that_comes_later_is_kept_alive():
    pair = up(connection(nat_keepalive_seconds=20.0))
    pair.run(60)
    assert not pair.a.happened(events.KeepaliveDue)
    pair.nat = {Address(ELSEWHERE, 4500): Address("192.0.2.200", 61000)}
    pair.a.sa.move(Address(ELSEWHERE, 4500), None, pair.now)
    pair.run(100)
    sent = pair.a.happened(events.KeepaliveDue)
    assert 3 <= len(sent) <= 6 and sent[0].local == Address(ELSEWHERE, 4500)
    pair.nat = {}
    pair.a.sa.move(Address(A.host, 4500), None, pair.now)
    pair.run(1)
    sent = pair.a.happened(events.KeepaliveDue)
    pair.run(100)
    assert pair.a.happened(events.KeepaliveDue) == sent


def test_a_move_whose_answer_is_lost_when_the_gateway_rekeys():
    pair = up()
    hears = pair.now + 1

    def network(datagram):
        answer = datagram.local.host == B.host and datagram.octets[19] & 0x20
        return [] if answer and pair.now < hears else [pair.latency]

    pair.network = network
    pair.a.sa.move(Address(ELSEWHERE, 4500), None, pair.now)
    pair.run(0.3)
    assert not pair.a.happened(events.PathChanged) and pair.b.sa.remote.host == ELSEWHERE
    pair.b.sa.rekey(pair.now)
    pair.run(30)
    assert pair.a.happened(events.IkeRekeyed)
    assert [event.local.host for event in pair.a.happened(events.PathChanged)] == [ELSEWHERE]
    pair.agree()


@pytest.mark.parametrize("seed", range(6))
def test_a_move_while_both_rekey_the_ike_sa(seed):
    pair = Roaming(seed=seed)
    pair.connect()
    old, hears, heard = pair.a.sa, pair.now + 1, []

    def network(datagram):
        if datagram.local.host == B.host:
            heard.append(datagram)
            if len(heard) > 1 and pair.now < hears:
                return []  # all but the rekeying
        return [pair.latency]

    pair.network = network
    pair.a.sa.rekey(pair.now)
    pair.b.sa.rekey(pair.now)
    pair.run(0.3)
    assert old.rekeyed_by_peer is not None
    pair.dead.add(A.host)
    old.move(Address(ELSEWHERE, 4500), None, pair.now)
    pair.run(300)  # until what lost the collision is gone: nobody says where it is now
    assert pair.a.happened(events.IkeRekeyed) and pair.a.sa.local.host == pair.b.sa.remote.host == ELSEWHERE
    assert pair.a.happened(events.PathChanged)[-1].local.host == ELSEWHERE
    pair.agree()


@pytest.mark.parametrize("by", ["a", "b"])
def test_a_rekeying_behind_a_nat_is_no_move(by):
    """The hashes of NAT detection are others on the new IKE SA, and say the same."""
    outside = Address("192.0.2.200", 61000)
    pair = up(connection(dpd_seconds=30.0), nat={A: Address(outside.host, 50500), Address(A.host, 4500): outside})
    pair.run(50)
    getattr(pair, by).sa.rekey(pair.now)
    pair.run(100)
    assert not pair.a.happened(events.PathChanged) and not pair.b.happened(events.PathChanged)
    # A mapping that changes at that very moment is noticed.
    getattr(pair, by).sa.rekey(pair.now)
    pair.run(1)
    fresh = Address("192.0.2.201", 62000)
    pair.nat[Address(A.host, 4500)] = fresh
    pair.run(60)
    assert pair.b.sa.remote == fresh == pair.b.happened(events.PathChanged)[-1].remote

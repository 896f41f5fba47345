"""Two engines over a network that loses, doubles, delays and reorders: in the end both agree (hypothesis)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ike.pair import Pair, child, connection, connection_b, mirrored

from ikeway.ike import events
from ikeway.ike.settings import Retransmission

QUICK = Retransmission(first=0.5, factor=1.5, tries=12, limit=5)
WISHES = st.sampled_from(
    [
        "rekey-child-a",
        "rekey-child-b",
        "rekey-ike-a",
        "rekey-ike-b",
        "dpd-a",
        "dpd-b",
        "delete-child-a",
        "delete-child-b",
        "expire-child-a",
        "expire-child-b",
        "create-child-a",
        "create-child-b",
        "wait",
    ]
)


def wish(pair: Pair, what: str) -> None:
    kind, _, side = what.rpartition("-")
    host = pair.a if side == "a" else pair.b
    for sa in host.engine.sas:
        if not sa.is_alive:
            continue
        children = sa.live_children
        if kind == "rekey-child" and children:
            sa.rekey_child(children[-1], pair.now)
        elif kind == "rekey-ike":
            sa.rekey(pair.now)
        elif kind == "dpd":
            sa.check_liveness(pair.now)
        elif kind == "delete-child" and children:
            sa.delete_child(children[-1], pair.now)
        elif kind == "expire-child" and children:
            sa.expire_child(children[-1], pair.now)
        elif kind == "create-child":
            sa.create_child(sa.connection.children[0], pair.now)


def lossy(seed: int, loss: float, double: float, spread: float) -> Pair:
    one = child()
    pair = Pair(
        connection(children=(one,), retransmission=QUICK, dpd_seconds=20.0),
        connection_b(children=(mirrored(one),), retransmission=QUICK, dpd_seconds=20.0),
        seed=seed,
    )
    source = pair.source

    def network(datagram):
        if source.random() < loss:
            return []
        copies = 2 if source.random() < double else 1
        return [source.uniform(0.001, spread) for _ in range(copies)]

    pair.network = network
    return pair


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.floats(0, 0.35),
    double=st.floats(0, 0.5),
    spread=st.floats(0.01, 3.0),
    wishes=st.lists(st.tuples(WISHES, st.floats(0, 4)), max_size=12),
)
def test_in_the_end_both_sides_agree(seed, loss, double, spread, wishes):
    pair = lossy(seed, loss, double, spread)
    pair.a.engine.connect(pair.a.connection, pair.a.address, pair.b.address, pair.now)
    pair.run(20)
    for what, pause in wishes:
        wish(pair, what)
        pair.run(pause)
    # The network recovers; whatever was under way comes to its end.
    pair.network = lambda datagram: [0.01]
    pair.run(400)
    pair.agree()
    assert len(pair.a.engine.sas) == len(pair.b.engine.sas) <= 1, (pair.a.engine.sas, pair.b.engine.sas)
    for host in (pair.a, pair.b):
        ups, downs = host.happened(events.IkeEstablished), host.happened(events.IkeClosed)
        assert len(host.engine._shared.table) == len(host.engine.sas)
        assert len(ups) - sum(down.established for down in downs) == len(host.engine.sas)
        assert len(host.engine._shared.esp_spis) == len(host.inbound)
        assert not host.engine._half_open and not host.engine._half_open._sources


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), wishes=st.lists(st.tuples(WISHES, st.floats(0, 0.03)), min_size=2, max_size=8))
def test_collisions_end_in_agreement(seed, wishes):
    pair = lossy(seed, 0, 0, 0.02)
    pair.connect()
    for what, pause in wishes:
        wish(pair, what)
        pair.run(pause)
    pair.run(300)
    pair.agree()
    deleted = any(what.startswith(("delete", "expire")) for what, _ in wishes)
    created = sum(what.startswith("create") for what, _ in wishes)
    assert len(pair.a.engine.sas) == 1 == len(pair.b.engine.sas)
    assert deleted or len(pair.a.inbound) >= 1
    assert len(pair.a.inbound) <= 1 + created


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), at=st.integers(0, 40), seconds=st.floats(0, 5000))
def test_a_jump_of_the_clock_does_no_harm(seed, at, seconds):
    pair = lossy(seed, 0.1, 0.1, 0.5)
    pair.a.engine.connect(pair.a.connection, pair.a.address, pair.b.address, pair.now)
    for _ in range(at):
        pair.step(pair.now + 100)
    pair.now += seconds  # both slept
    pair.network = lambda datagram: [0.01]
    pair.run(400)
    pair.agree()


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), noise=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 255)), max_size=6))
def test_forged_datagrams_change_nothing(seed, noise):
    pair = lossy(seed, 0, 0, 0.02)
    deliver = pair.deliver

    def forged(datagram):
        octets = bytearray(datagram.octets)
        for place, value in noise:
            octets[(seed + place * 37) % len(octets)] ^= value
        deliver(datagram)
        if bytes(octets) != datagram.octets:
            deliver(type(datagram)(bytes(octets), datagram.local, datagram.remote))

    pair.connect()
    pair.deliver = forged
    pair.a.sa.rekey_child(pair.a.sa.children[0], pair.now)
    pair.run(10)
    pair.b.sa.rekey(pair.now)
    pair.run(50)
    pair.agree()
    assert len(pair.a.inbound) == 1

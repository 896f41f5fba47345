"""Child SAs between a client with an assigned address and its gateway, whichever side begins."""

from __future__ import annotations

import dataclasses

import pytest
from tests.ike.pair import Pair, child, connection, connection_b

from ikeway.ike import negotiation
from ikeway.ike.negotiation import ChildOffer, Grant
from ikeway.ike.questions import AssignAddresses
from ikeway.ike.selectors import selector
from ikeway.wire.payloads import ConfigurationAttribute, TrafficSelectorsInitiator, TrafficSelectorsResponder
from ikeway.wire.registry import ConfigurationAttributeType

ADDRESS = ConfigurationAttributeType.INTERNAL_IP4_ADDRESS
INSIDE, LAN = selector("10.99.0.7"), selector("10.2.0.0/16")


def client_and_gateway() -> Pair:
    pair = Pair(
        connection(
            children=(child(local_selectors=(), remote_selectors=(selector("0.0.0.0/0"),)),),
            request_configuration=(ConfigurationAttribute(ADDRESS),),
        ),
        connection_b(children=(child(local_selectors=(LAN,), remote_selectors=()),)),
    )
    pair.b.answers[AssignAddresses] = (ConfigurationAttribute(ADDRESS, bytes([10, 99, 0, 7])),)
    pair.connect()
    return pair


@pytest.mark.parametrize("by", ["a", "b"])
def test_rekeying_keeps_the_assigned_address(by):
    pair = client_and_gateway()
    host = getattr(pair, by)
    (old,) = host.sa.live_children
    for _ in range(2):  # the second time, the gateway may be the one that answered before
        host.sa.rekey_child(host.sa.live_children[0], pair.now)
        pair.run(10)
    (ours,), (theirs,) = pair.a.sa.live_children, pair.b.sa.live_children
    assert old not in (ours, theirs)
    assert (ours.local_selectors, ours.remote_selectors) == ((INSIDE,), (LAN,))
    assert (theirs.local_selectors, theirs.remote_selectors) == ((LAN,), (INSIDE,))
    assert not pair.a.errors and not pair.b.errors


@pytest.mark.parametrize("by", ["a", "b"])
def test_either_side_makes_another_child_sa(by):
    pair = client_and_gateway()
    host = getattr(pair, by)
    host.sa.create_child(dataclasses.replace(host.connection.children[0]), pair.now)
    pair.run(10)
    assert len(pair.a.sa.live_children) == len(pair.b.sa.live_children) == 2
    assert {one.local_selectors for one in pair.a.sa.live_children} == {(INSIDE,)}
    assert {one.remote_selectors for one in pair.b.sa.live_children} == {(INSIDE,)}


@pytest.mark.parametrize("by", ["a", "b"])
def test_one_address_of_zeros_is_the_one_that_is_assigned(by, monkeypatch):
    """As OpenIKED's clients have it with `from dynamic`, in what they offer and in their answers to our rekeyings."""
    zeros = selector("0.0.0.0")
    offered, granted = ChildOffer.payloads, Grant

    def as_openiked(payloads, kind):
        return tuple(kind((zeros,)) if isinstance(one, kind) and one.selectors != (LAN,) else one for one in payloads)

    monkeypatch.setattr(ChildOffer, "payloads", lambda offer: as_openiked(offered(offer), TrafficSelectorsInitiator))
    monkeypatch.setattr(
        negotiation,
        "Grant",
        lambda one, payloads: granted(one, as_openiked(payloads, TrafficSelectorsResponder)),
    )
    pair = client_and_gateway()
    for _ in range(3):
        (theirs,) = pair.b.sa.live_children
        assert (theirs.local_selectors, theirs.remote_selectors) == ((LAN,), (INSIDE,))
        host = getattr(pair, by)
        host.sa.rekey_child(host.sa.live_children[0], pair.now)
        pair.run(10)
        assert host.sa.live_children != [theirs]
    assert not pair.a.errors and not pair.b.errors


def test_zeros_are_nobody_where_no_address_is_assigned():
    pair = Pair(connection(children=(child(local_selectors=(selector("0.0.0.0"),)),)))
    pair.connect()
    assert not pair.b.sa.live_children


@pytest.mark.parametrize("rekeyed", [False, True])
def test_a_login_anew_asks_for_the_address_that_is_there(rekeyed):
    """What runs through the tunnel has that address: with another one it would break."""
    pair = client_and_gateway()
    asked = []
    given = pair.b.answers[AssignAddresses]
    pair.b.answers[AssignAddresses] = lambda question: asked.append(question.requested) or given
    if rekeyed:
        pair.a.sa.rekey(pair.now)
        pair.run(1)
    pair.a.sa.reauthenticate(pair.now)
    pair.run(10)
    assert asked == [given]
    assert len(pair.a.inbound) == len(pair.b.inbound) == 1
    assert pair.a.sa.configuration == given


def test_an_address_that_the_user_named_is_wished_for_again():
    wish = (ConfigurationAttribute(ADDRESS, bytes([10, 99, 0, 1])),)
    pair = Pair(connection(request_configuration=wish), connection_b())
    asked = []
    given = (ConfigurationAttribute(ADDRESS, bytes([10, 99, 0, 7])),)
    pair.b.answers[AssignAddresses] = lambda question: asked.append(question.requested) or given
    pair.connect()
    pair.a.sa.reauthenticate(pair.now)
    pair.run(10)
    assert asked == [wish, wish]

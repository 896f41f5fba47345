"""Transport mode: what is agreed on are the outer addresses, as each side sees them (RFC 7296 section 2.23.1)."""

from __future__ import annotations

import pytest
from tests.ike.pair import A, B, Pair, child, connection, connection_b

from ikeway.address import Address
from ikeway.errors import NegotiationFailed
from ikeway.esp.parameters import Encapsulation, Mode
from ikeway.ike import events
from ikeway.ike.questions import AssignAddresses
from ikeway.ike.selectors import Selectors, selector
from ikeway.ike.settings import ChildSettings
from ikeway.wire.payloads import ConfigurationAttribute
from ikeway.wire.registry import ConfigurationAttributeType, NotifyType

A_OUTSIDE, B_OUTSIDE = "203.0.113.9", "203.0.113.77"


class Translated(Pair):
    """A network in which a host may have another address for others than for itself."""

    outside: dict[str, str]

    def connect(self) -> None:
        target = Address(self.outside.get(B.host, B.host), B.port)
        self.a.engine.connect(self.a.connection, self.a.address, target, self.now)
        self.run()

    def deliver(self, datagram) -> None:
        source = Address(self.outside.get(datagram.local.host, datagram.local.host), datagram.local.port)
        for host in (self.a, self.b):
            own = host.address.host
            if self.outside.get(own, own) == datagram.remote.host:
                host.engine.receive(datagram.octets, Address(own, datagram.remote.port), source, self.now)


def transport(**changes) -> tuple[ChildSettings, ...]:
    values = {"local_selectors": (), "remote_selectors": (), "mode": Mode.TRANSPORT}
    return (child(**(values | changes)),)


def connected(
    outside: dict[str, str] | None = None,
    *,
    a: dict | None = None,
    b: dict | None = None,
    assigned: tuple[ConfigurationAttribute, ...] = (),
) -> Translated:
    pair = Translated(
        connection(**{"children": transport()} | (a or {})), connection_b(**{"children": transport()} | (b or {}))
    )
    pair.outside = outside or {}
    pair.b.answers[AssignAddresses] = assigned
    pair.connect()
    return pair


def agreed(host) -> tuple[Selectors, Selectors]:
    (one,) = host.sa.live_children
    assert one.mode is Mode.TRANSPORT
    return one.local_selectors, one.remote_selectors


def between(one: str, other: str) -> tuple[Selectors, Selectors]:
    return (selector(one),), (selector(other),)


def test_the_outer_addresses_are_offered_and_no_more():
    """libreswan refuses an offer that it would have to narrow."""
    pair = connected()
    pair.agree()
    assert agreed(pair.a) == between(A.host, B.host)
    (keys,) = pair.b.happened(events.ChildKeysDerived)
    assert keys.inbound.mode is Mode.TRANSPORT
    wide = connected(b={"children": transport(local_selectors=(selector("0.0.0.0/0"),))})
    assert agreed(wide.b) == between(B.host, A.host)


def test_who_also_asks_for_an_address_protects_the_outer_one():
    kind = ConfigurationAttributeType.INTERNAL_IP4_ADDRESS
    pair = connected(
        a={"request_configuration": (ConfigurationAttribute(kind),)},
        assigned=(ConfigurationAttribute(kind, bytes([10, 99, 0, 7])),),
    )
    assert agreed(pair.a) == between(A.host, B.host)


@pytest.mark.parametrize("by", ["a", "b"])
@pytest.mark.parametrize("outside", [{A.host: A_OUTSIDE}, {B.host: B_OUTSIDE}, {A.host: A_OUTSIDE, B.host: B_OUTSIDE}])
def test_each_side_names_a_host_behind_a_nat_as_it_sees_it(outside, by):
    pair = connected(outside)
    seen_a, seen_b = outside.get(A.host, A.host), outside.get(B.host, B.host)
    for _ in range(3):
        assert agreed(pair.a) == between(A.host, seen_b)
        assert agreed(pair.b) == between(B.host, seen_a)
        (esp,) = pair.a.outbound.values()
        assert esp.encapsulation is Encapsulation.UDP
        host = getattr(pair, by)
        host.sa.rekey_child(host.sa.live_children[0], pair.now)
        pair.run(10)
    assert not pair.a.errors and not pair.b.errors


def test_behind_a_nat_only_single_addresses_are_replaced():
    """A network that the peer claims is not turned into its address."""
    pair = connected({A.host: A_OUTSIDE}, a={"children": transport(local_selectors=(selector("192.0.2.0/24"),))})
    (failed,) = pair.a.happened(events.ChildFailed)
    assert isinstance(failed.error, NegotiationFailed) and failed.error.notify == NotifyType.TS_UNACCEPTABLE


def test_ports_and_protocol_stay():
    """As L2TP has it."""
    narrow = selector(B.host, protocol=17, ports=(1701, 1701))
    pair = connected({A.host: A_OUTSIDE}, a={"children": transport(remote_selectors=(narrow,))})
    assert agreed(pair.b) == ((narrow,), (selector(A_OUTSIDE),))

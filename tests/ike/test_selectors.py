"""Traffic selectors against a model of plain sets: every packet that a selector holds, over small ranges."""

from __future__ import annotations

import ipaddress
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ikeway.errors import ConfigError
from ikeway.ike import selectors
from ikeway.ike.selectors import ANY_PORT, OPAQUE, format_selector, parse_selector, selector
from ikeway.wire.payloads import TrafficSelector
from ikeway.wire.registry import TrafficSelectorType

V4, V6 = TrafficSelectorType.TS_IPV4_ADDR_RANGE, TrafficSelectorType.TS_IPV6_ADDR_RANGE
FEW_PORTS = (0, 1, 2, 3, 65534, 65535)  # those at which the ranges below begin and end
PROTOCOLS = (1, 6, 17)

Packet = tuple[int, int, int, int | None]
"""Type, protocol, last octet of the address, port; None for a port that cannot be seen (OPAQUE)."""


def octets(kind: int, last: int) -> bytes:
    return bytes(3 if kind == V4 else 15) + bytes((last,))


def make(kind: int, protocol: int, ports: tuple[int, int], first: int, last: int) -> TrafficSelector:
    return TrafficSelector(TrafficSelectorType(kind), protocol, *ports, octets(kind, first), octets(kind, last))


def packets(ts: TrafficSelector) -> set[Packet]:
    """What a selector holds. ANY ports hold packets without visible ports too (RFC 7296 section 3.13.1)."""
    if ts.type not in (V4, V6):
        return set()
    ports: set[int | None] = {port for port in FEW_PORTS if ts.start_port <= port <= ts.end_port}
    if (ts.start_port, ts.end_port) in (OPAQUE, ANY_PORT):
        ports.add(None)
    protocols = PROTOCOLS if ts.protocol == 0 else (ts.protocol,)
    addresses = range(ts.start_address[-1], ts.end_address[-1] + 1)
    return set(itertools.product((int(ts.type),), protocols, addresses, ports))


def all_packets(many) -> set[Packet]:
    return set().union(*map(packets, many))


port_ranges = st.sampled_from([ANY_PORT, OPAQUE, (1, 2), (2, 3), (2, 2), (0, 0), (0, 65534), (3, 65535), (3, 1)])
any_selector = st.builds(
    make,
    st.sampled_from([V4, V6]),
    st.sampled_from((0, *PROTOCOLS)),
    port_ranges,
    st.integers(0, 7),
    st.integers(0, 7),
)
several = st.lists(any_selector, max_size=5)


@given(any_selector, any_selector)
def test_intersection_holds_what_both_hold(one, other):
    cut = selectors.intersect(one, other)
    assert (packets(cut) if cut is not None else set()) == packets(one) & packets(other)
    assert cut == selectors.intersect(other, one)


@given(any_selector, any_selector)
def test_one_contains_the_other(outer, inner):
    if packets(inner):
        assert selectors.contains(outer, inner) == (packets(inner) <= packets(outer))
    else:
        assert not selectors.contains(outer, inner)  # nothing at all (first behind last) is never granted


@settings(max_examples=200)
@given(several, several)
def test_narrowing_grants_exactly_what_both_want(offered, granted):
    narrowed = selectors.narrow(offered, granted)
    assert all_packets(narrowed) == all_packets(offered) & all_packets(granted)
    assert all(packets(ts) for ts in narrowed)
    # Each lies within one that was offered, so an initiator accepts it; none is there for nothing.
    assert not narrowed or selectors.is_subset(narrowed, offered)
    for ts in narrowed:
        assert not any(other is not ts and selectors.contains(other, ts) for other in narrowed)


@given(several, several)
def test_a_subset_is_never_wider(inner, outer):
    if selectors.is_subset(inner, outer):
        assert inner and all_packets(inner) <= all_packets(outer)
    elif len(outer) == 1 and inner and all(map(packets, inner)):
        assert not all_packets(inner) <= all_packets(outer)


@given(several)
def test_merging_loses_nothing(many):
    merged = selectors.merge(many)
    assert all_packets(merged) == all_packets(many)
    assert len(merged) == len(set(merged)) <= len(many)


def test_types_nobody_knows_are_never_granted():
    strange = TrafficSelector(TrafficSelectorType(9), 0, 0, 65535, b"\0\0\0\1", b"")
    assert selectors.narrow([strange], [strange, selector("0.0.0.0/0")]) == ()
    assert not selectors.is_subset([strange], [strange])
    assert format_selector(strange) == "type 9"
    assert selectors.networks([strange]) == []


def test_opaque_ports_meet_any_and_themselves():
    opaque, every, one = (make(V4, 6, ports, 0, 7) for ports in (OPAQUE, ANY_PORT, (80, 80)))
    assert selectors.intersect(opaque, every) == opaque == selectors.intersect(opaque, opaque)
    assert selectors.intersect(opaque, one) is None
    assert selectors.contains(every, opaque) and not selectors.contains(opaque, every)


def test_icmp_has_type_and_code_for_ports():
    echo = TrafficSelector(V4, 1, 0x0800, 0x0800, bytes(4), b"\xff" * 4)  # type 8, code 0
    unreachable = TrafficSelector(V4, 1, 0x0300, 0x03FF, bytes(4), b"\xff" * 4)  # type 3, any code
    assert selectors.narrow([echo], [parse_selector("0.0.0.0/0[icmp]")]) == (echo,)
    assert selectors.narrow([echo], [unreachable]) == ()
    assert selectors.narrow([echo], [parse_selector("0.0.0.0/0[tcp]")]) == ()


def test_a_host_is_cut_out_of_a_network_with_protocol_and_port():
    (cut,) = selectors.narrow([parse_selector("10.0.0.0/8[tcp]")], [parse_selector("10.1.2.3[0/80]")])
    assert format_selector(cut) == "10.1.2.3/32[tcp/80]"


networks4 = st.builds(
    lambda number, bits: ipaddress.ip_network((number, bits), strict=False),
    *[st.integers(0, 2**32 - 1), st.integers(0, 32)],
)
networks6 = st.builds(
    lambda number, bits: ipaddress.ip_network((number, bits), strict=False),
    *[st.integers(2**32, 2**128 - 1), st.integers(8, 128)],
)
ranges = st.builds(lambda one, two: "-".join(map(str, sorted((one, two)))), *[st.ip_addresses(v=4)] * 2) | st.builds(
    lambda one, two: "-".join(map(str, sorted((one, two)))), *[st.ip_addresses(v=6)] * 2
)


@given(
    (networks4 | networks6).map(str) | ranges,
    st.integers(0, 255),
    st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(sorted) | st.just(ANY_PORT),
)
def test_text_is_read_back(where, protocol, ports):
    ts = selector(where, protocol=protocol, ports=tuple(ports))
    assert parse_selector(format_selector(ts)) == ts


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("10.1.0.0/16", "10.1.0.0/16"),
        ("10.1.2.3", "10.1.2.3/32"),
        (" 10.1.2.3/8 ", "10.0.0.0/8"),
        ("10.0.0.1-10.0.0.9", "10.0.0.1-10.0.0.9"),
        ("10.0.0.0-10.0.0.255", "10.0.0.0/24"),
        ("fd00::/8[udp]", "fd00::/8[udp]"),
        ("10.1.0.0/16[TCP/80]", "10.1.0.0/16[tcp/80]"),
        ("10.1.0.0/16[6/1000-2000]", "10.1.0.0/16[tcp/1000-2000]"),
        ("10.1.0.0/16[89/any]", "10.1.0.0/16[89]"),
        ("10.1.0.0/16[any/any]", "10.1.0.0/16"),
        ("10.1.0.0/16[any/opaque]", "10.1.0.0/16[any/opaque]"),
    ],
)
def test_notations(text, written):
    assert format_selector(parse_selector(text)) == written


@pytest.mark.parametrize(
    "text",
    [
        "", "10.1.0.0/33", "10.0.0.9-10.0.0.1", "10.0.0.1-::1", "host.example", "10.0.0.0/8[tcp", "10.0.0.0/8[tcp/80]x",
        "10.0.0.0/8[256]", "10.0.0.0/8[tcp/70000]", "10.0.0.0/8[tcp/9-1]", "10.0.0.0/8[nothing]", "10.0.0.0/8[tcp/-1]",
    ],
)  # fmt: skip
def test_what_is_no_selector_is_refused_with_a_remedy(text):
    with pytest.raises(ConfigError) as caught:
        parse_selector(text)
    assert caught.value.expected


@pytest.mark.parametrize("ports", [ANY_PORT, OPAQUE, (9, 3)])
@pytest.mark.parametrize(("kind", "first", "last"), [(V4, 9, 3), (V6, 200, 100)])
def test_a_range_that_ends_before_it_begins_can_be_shown(kind, first, last, ports):
    """A peer may send it, and a log line says what it sent."""
    text = format_selector(make(kind, 6, ports, first, last))
    assert str(ipaddress.ip_address(octets(kind, first))) in text


def test_routes_cover_the_addresses():
    found = selectors.networks([parse_selector("10.0.0.1-10.0.0.2"), selector("fd00::/64"), selector("fd00::/64")])
    assert [str(network) for network in found] == ["10.0.0.1/32", "10.0.0.2/32", "fd00::/64"]


def test_a_peer_cannot_make_narrowing_expensive_or_its_answer_too_long():
    offered = [make(V4, 6, (number, number), 0, 7) for number in range(255)]
    granted = [make(V4, 0, ANY_PORT, first, first) for first in range(0, 200, 2)]
    offered += [make(V4, 17, (0, 65535), 0, 255 - number) for number in range(255)]
    narrowed = selectors.narrow(offered, granted)
    assert 0 < len(narrowed) <= selectors.MAX_SELECTORS <= 255  # the count has one octet on the wire

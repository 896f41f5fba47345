"""Traffic selectors of IKE as the kernel's: exactly the same packets."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.dataplane.kernel.identity import Identity, Reqids
from ikeway.dataplane.kernel.selectors import MOST, blocks, selectors
from ikeway.errors import HostError
from ikeway.wire.payloads import TrafficSelector
from ikeway.wire.registry import TrafficSelectorType

ports = st.integers(0, 0xFFFF)


def selector(first: str, last: str, protocol: int = 0, start: int = 0, end: int = 0xFFFF) -> TrafficSelector:
    addresses = ip_address(first), ip_address(last)
    kind = (
        TrafficSelectorType.TS_IPV6_ADDR_RANGE if addresses[0].version == 6 else TrafficSelectorType.TS_IPV4_ADDR_RANGE
    )
    return TrafficSelector(kind, protocol, start, end, addresses[0].packed, addresses[1].packed)


@given(ports, ports, st.lists(ports, max_size=30))
def test_blocks_match_the_range_and_nothing_else(one, other, probes):
    first, last = min(one, other), max(one, other)
    found = list(blocks(first, last))
    assert len(found) <= 30
    for port in {first, last, max(first - 1, 0), min(last + 1, 0xFFFF), *probes}:
        assert any(port & mask == value for value, mask in found) == (first <= port <= last)


def test_ranges_become_networks_of_one_family():
    here = (selector("10.0.0.0", "10.0.0.255"), selector("fd00::", "fd00::ffff"))
    there = (selector("10.1.0.1", "10.1.0.2"),)
    found = selectors(here, there)
    assert {(each.source, each.destination) for each in found} == {
        (ip_network("10.0.0.0/24"), ip_network("10.1.0.1/32")),
        (ip_network("10.0.0.0/24"), ip_network("10.1.0.2/32")),
    }


def test_protocols_that_differ_have_nothing_in_common():
    assert selectors((selector("10.0.0.1", "10.0.0.1", 6),), (selector("10.0.0.2", "10.0.0.2", 17),)) == []


def test_icmp_has_its_type_and_code_in_the_ports():
    echo = selector("10.0.0.1", "10.0.0.1", 1, 8 << 8, 8 << 8 | 0xFF)
    (found,) = selectors((echo,), (selector("10.0.0.2", "10.0.0.2"),))
    assert (found.protocol, found.source_port, found.source_port_mask) == (1, 8, 0xFFFF)
    assert found.destination_port_mask == 0


@pytest.mark.parametrize(
    "refused",
    [
        (selector("10.0.0.1", "10.0.0.1", 17, 0xFFFF, 0),),
        (selector("10.0.0.1", "10.0.0.1", 1, 8 << 8, 9 << 8),),
        (selector("0.0.0.1", "255.255.255.254", 17, 1, 0xFFFE),) * 2,
    ],
)
def test_what_the_kernel_cannot_say_is_refused_with_a_remedy(refused):
    with pytest.raises(HostError) as error:
        selectors(refused, (selector("0.0.0.1", "255.255.255.254", 0, 1, 0xFFFE),))
    assert "userspace" in error.value.remedy
    assert MOST == 1024


def test_child_sas_of_the_same_selectors_share_a_reqid():
    reqids = Reqids(Identity(3))
    first, again, other = reqids.take(1, "a"), reqids.take(1, "a"), reqids.take(2, "b")
    assert first == again == 0x40000000 + (3 << 20)
    assert other == first + 1
    assert reqids.take(9, "a") == first
    reqids.give_back(1)
    reqids.give_back(1)
    assert reqids.take(10, "a") == first  # child 9 still has it
    reqids.give_back(9)
    reqids.give_back(10)
    assert reqids.take(11, "a") != first  # numbers are not used again at once

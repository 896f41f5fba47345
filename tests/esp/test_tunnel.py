"""Inner packets: parsing, selectors, ECN, TFC padding, transport mode."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop

from ikeway.address import Address
from ikeway.esp import ecn
from ikeway.esp.checksum import adjusted, checksum
from ikeway.esp.drops import Drop
from ikeway.esp.inbound import InboundSa, Opened
from ikeway.esp.inner import OPAQUE, cache_key, parse
from ikeway.esp.parameters import Encapsulation, Mode
from ikeway.esp.selectors import SelectorPair
from ikeway.esp.tunnel import Unwrapper, wrap
from tests.esp.material import esp_sa, network

TCP4 = bytes(IP(src="10.1.0.1", dst="10.2.0.1") / TCP(sport=1000, dport=443) / (b"x" * 20))
TCP6 = bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / TCP(sport=1000, dport=443) / (b"x" * 20))


def unwrapper(**changes: object) -> Unwrapper:
    return Unwrapper(InboundSa(esp_sa(**changes)))


def unwrapped(packet: bytes, next_header: int = 4, outer: int = 0, **changes: object) -> object:
    result = unwrapper(**changes).unwrap(Opened(memoryview(packet), next_header), outer)
    return result if isinstance(result, Drop) else bytes(result)


@given(st.binary(max_size=100))
def test_parsing_is_total(octets: bytes) -> None:
    flow = parse(octets)
    cache_key(octets)
    if flow is not None:
        assert flow.header <= flow.length <= len(octets)


@given(start=st.sampled_from((TCP4, TCP6)), at=st.integers(0, 59), value=st.integers(0, 255), end=st.integers(0, 100))
def test_parsing_and_unwrapping_are_total_near_real_packets(start: bytes, at: int, value: int, end: int) -> None:
    changed = bytearray(start)
    changed[at] = value
    octets = bytes(changed[:end])
    parse(octets)
    for next_header in (4, 41, 6, 17, 0):
        for mode in Mode:
            assert isinstance(unwrapped(octets, next_header, 3, mode=mode), bytes | Drop)


def test_ports_of_what_has_some() -> None:
    assert parse(TCP4)[3:5] == (1000, 443)
    assert parse(TCP6)[3:5] == (1000, 443)
    assert parse(bytes(IP() / ICMP(type=8, code=3)))[3:5] == (0x803, 0x803)
    assert parse(bytes(IPv6() / ICMPv6EchoRequest()))[3:5] == (0x8000, 0x8000)
    assert parse(bytes(IP(proto=47) / b"gre"))[3:5] == (OPAQUE, OPAQUE)


def test_fragments_have_no_ports() -> None:
    later = bytes(IP(proto=6, frag=10) / (b"x" * 20))
    assert parse(later)[3:5] == (OPAQUE, OPAQUE)
    assert cache_key(later) is None
    first = bytes(IP(flags="MF") / TCP(sport=7, dport=8))
    assert parse(first)[3:5] == (7, 8)
    later6 = bytes(IPv6() / IPv6ExtHdrFragment(nh=6, offset=10) / (b"x" * 20))
    assert (parse(later6).protocol, *parse(later6)[3:5]) == (6, OPAQUE, OPAQUE)
    assert parse(bytes(IPv6() / IPv6ExtHdrHopByHop() / UDP(sport=5, dport=6)))[3:5] == (5, 6)


def test_too_many_extension_headers_are_refused() -> None:
    packet = IPv6()
    for _ in range(12):
        packet = packet / IPv6ExtHdrHopByHop()
    assert parse(bytes(packet / UDP())) is None


@pytest.mark.parametrize(
    ("selector", "allowed"),
    [
        (network("10.2.0.0/24"), True),
        (network("10.2.0.1/32"), True),
        (network("10.3.0.0/24"), False),
        (network("::/0"), False),
        (network("10.2.0.0/24", protocol=6), True),
        (network("10.2.0.0/24", protocol=17), False),
        (network("10.2.0.0/24", protocol=6, ports=(443, 443)), True),
        (network("10.2.0.0/24", protocol=6, ports=(444, 65535)), False),
        (network("10.2.0.0/24", protocol=6, ports=(65535, 0)), False),
    ],
)
def test_selectors(selector: object, allowed: bool) -> None:
    flow = parse(TCP4)
    assert SelectorPair((network("10.1.0.0/16"),), (selector,)).allows_outbound(flow) == allowed
    assert SelectorPair((selector,), (network("10.1.0.0/16"),)).allows_inbound(flow) == allowed
    assert not SelectorPair((network("10.9.0.0/16"),), (selector,)).allows_outbound(flow)


def test_fragments_pass_only_where_ports_do_not_matter() -> None:
    flow = parse(bytes(IP(src="10.1.0.1", dst="10.2.0.1", proto=6, frag=10) / (b"x" * 20)))
    ours = (network("10.1.0.0/16"),)
    assert SelectorPair(ours, (network("10.2.0.0/24", protocol=6),)).allows_outbound(flow)
    assert not SelectorPair(ours, (network("10.2.0.0/24", 6, (443, 443)),)).allows_outbound(flow)
    assert SelectorPair(ours, (network("10.2.0.0/24", 6, (65535, 0)),)).allows_outbound(flow)


def test_icmp_types_are_selected_as_ports() -> None:
    flow = parse(bytes(IP(src="10.1.0.1", dst="10.2.0.1") / ICMP(type=8)))
    echo = network("10.2.0.0/24", 1, (0x0800, 0x08FF))
    assert SelectorPair((network("10.1.0.0/16"),), (echo,)).allows_outbound(flow)
    assert not SelectorPair((network("10.1.0.0/16"),), (network("10.2.0.0/24", 1, (0, 0xFF)),)).allows_outbound(flow)


def test_inner_packets_outside_the_selectors_are_dropped_cached_or_not() -> None:
    ours, theirs = (network("10.2.0.0/16"),), (network("10.1.0.0/16"),)
    inbound = unwrapper(local_selectors=ours, remote_selectors=theirs)
    foreign = bytes(IP(src="10.9.0.1", dst="10.2.0.1") / TCP(sport=1000, dport=443))
    for _ in range(2):
        assert bytes(inbound.unwrap(Opened(TCP4, 4), 0)) == TCP4
        assert inbound.unwrap(Opened(foreign, 4), 0) == Drop.SELECTORS


def test_lying_lengths_are_dropped_cached_or_not() -> None:
    inbound = unwrapper()
    for packet, at in ((TCP4, 2), (TCP6, 4)):
        next_header = 4 if packet is TCP4 else 41
        for length in (0, 3, len(packet) + 1, 65535):
            lying = packet[:at] + struct.pack(">H", length) + packet[at + 2 :]
            assert inbound.unwrap(Opened(lying, next_header), 0) == Drop.MALFORMED
            inbound.unwrap(Opened(packet, next_header), 0)
            assert inbound.unwrap(Opened(lying, next_header), 0) == Drop.MALFORMED


@pytest.mark.parametrize("packet", [TCP4, TCP6], ids=["ipv4", "ipv6"])
def test_tfc_padding_is_cut_off(packet: bytes) -> None:
    assert unwrapped(packet + b"\xaa" * 333, 4 if packet is TCP4 else 41) == packet


def test_next_header_and_version_must_agree() -> None:
    assert unwrapped(TCP4, 41) == Drop.MALFORMED
    assert unwrapped(TCP6, 4) == Drop.MALFORMED
    assert unwrapped(b"", 4) == Drop.MALFORMED
    assert unwrapped(TCP4, 6) == Drop.NEXT_HEADER
    assert unwrapped(TCP4, 4, mode=Mode.TRANSPORT) == Drop.NEXT_HEADER


# RFC 6040 figure 4: rows are the inner field, columns the outer one: Not-ECT, ECT(0), ECT(1), CE.
FIGURE_4 = {0b00: (0, 0, 0, None), 0b10: (2, 2, 1, 3), 0b01: (1, 1, 1, 3), 0b11: (3, 3, 3, 3)}


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("inner", FIGURE_4)
def test_ecn_leaves_the_tunnel_as_rfc_6040_says(inner: int, ipv6: bool) -> None:
    for outer, expected in zip((0b00, 0b10, 0b01, 0b11), FIGURE_4[inner], strict=True):
        field = 0xB8 | inner
        head = IPv6(tc=field) if ipv6 else IP(tos=field)
        result = unwrapped(bytes(head / UDP()), 41 if ipv6 else 4, 0x28 | outer)
        if expected is None:
            assert result == Drop.ECN
            continue
        again = IPv6(result) if ipv6 else IP(result)
        assert (again.tc if ipv6 else again.tos) == 0xB8 | expected  # DSCP stays the inner one
        assert ipv6 or checksum(result[:20]) == 0


def test_traffic_class_of_both_families() -> None:
    assert ecn.traffic_class(bytes(IP(tos=0xAB))) == 0xAB
    assert ecn.traffic_class(bytes(IPv6(tc=0xAB, fl=0x12345))) == 0xAB


@given(st.binary(min_size=2, max_size=60).filter(lambda octets: len(octets) % 2 == 0), st.integers(0, 65535))
def test_incremental_checksums(octets: bytes, word: int) -> None:
    changed = word.to_bytes(2, "big") + octets[2:]
    result = adjusted(checksum(octets), int.from_bytes(octets[:2], "big"), word)
    assert result % 0xFFFF == checksum(changed) % 0xFFFF


@pytest.mark.parametrize("encapsulation", Encapsulation)
@pytest.mark.parametrize("upper", [TCP(sport=1, dport=2), UDP(sport=1, dport=2), ICMP()], ids=["tcp", "udp", "icmp"])
def test_transport_mode_rebuilds_the_packet(upper: object, encapsulation: Encapsulation) -> None:
    sent = bytes(IP(src="192.168.1.5", dst="192.0.2.1") / upper / b"payload")
    payload, next_header = wrap(sent, Mode.TRANSPORT)
    nat = encapsulation is Encapsulation.UDP  # then the receiver sees the NAT's address
    received = unwrapped(
        bytes(payload),
        next_header,
        mode=Mode.TRANSPORT,
        encapsulation=encapsulation,
        remote=Address("198.51.100.1" if nat else "192.168.1.5", 4500),
    )
    expected = IP(src="198.51.100.1" if nat else "192.168.1.5", dst="192.0.2.1", flags="DF", id=0) / upper / b"payload"
    assert received == bytes(expected)  # scapy computes the checksums


def test_transport_mode_between_ipv6_hosts() -> None:
    sent = bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=1, dport=2) / b"payload")
    payload, next_header = wrap(sent, Mode.TRANSPORT)
    hosts = {"local": Address("2001:db8::2", 4500), "remote": Address("2001:db8::9", 4500)}
    selectors = {"remote_selectors": (network("2001:db8::1/128"),), "local_selectors": (network("2001:db8::2/128"),)}
    received = unwrapped(bytes(payload), next_header, mode=Mode.TRANSPORT, **hosts, **selectors)
    assert received == sent


@pytest.mark.parametrize(
    "packet",
    [
        IP(options=b"\x94\x04\0\0") / UDP(),
        IP(flags="MF") / UDP(),
        IP(frag=3) / b"x",
        IPv6() / IPv6ExtHdrFragment() / UDP(),
        IPv6() / IPv6ExtHdrHopByHop() / UDP(),
    ],
    ids=["options", "first-fragment", "fragment", "ipv6-fragment", "hop-by-hop"],
)
def test_transport_mode_does_not_carry_everything(packet: object) -> None:
    assert wrap(bytes(packet), Mode.TRANSPORT) == Drop.TRANSPORT
    assert not isinstance(wrap(bytes(packet), Mode.TUNNEL), Drop)

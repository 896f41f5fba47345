"""What keeps packets small enough: MSS clamping and "too big" messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, UDPerror
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment

from ikeway.dataplane.userspace.clamp import clamp_mss
from ikeway.dataplane.userspace.too_big import may_fragment, packet_too_big

HEADS = {"ipv4": IP(src="10.0.0.1", dst="10.0.0.2"), "ipv6": IPv6(src="2001:db8::1", dst="2001:db8::2")}


def clamped(packet: object, mtu: int) -> bytes:
    octets = bytearray(bytes(packet))
    clamp_mss(octets, mtu)
    return bytes(octets)


@pytest.mark.parametrize("family", HEADS)
@pytest.mark.parametrize("flags", ["S", "SA"])
@pytest.mark.parametrize(
    "before",
    [[], [("NOP", None)], [("NOP", None)] * 3, [("SAckOK", b""), ("NOP", None)], [("Timestamp", (1, 2))]],
    ids=["first", "odd", "odd3", "after-sack", "after-timestamp"],
)
def test_mss_of_a_syn_is_lowered_with_its_checksum(family: str, flags: str, before: list) -> None:
    def syn(mss: int) -> bytes:
        upper = TCP(sport=1, dport=2, seq=12345, flags=flags, options=[*before, ("MSS", mss), ("WScale", 7)])
        return bytes(HEADS[family] / upper / b"fast open")

    fits = 1400 - (40 if family == "ipv4" else 60)
    assert clamped(syn(1460), 1400) == syn(fits)  # scapy made both checksums
    assert clamped(syn(536), 1400) == syn(536)


@pytest.mark.parametrize(
    "packet",
    [
        HEADS["ipv4"] / TCP(flags="A", options=[("MSS", 9000)]),
        HEADS["ipv4"] / UDP() / bytes(40),
        HEADS["ipv6"] / UDP() / bytes(40),
        IP(frag=5, proto=6) / bytes(b"\2" * 40),
        HEADS["ipv4"] / TCP(flags="S"),
    ],
)
def test_other_packets_are_left_alone(packet: object) -> None:
    assert clamped(packet, 600) == bytes(packet)


@given(
    options=st.binary(max_size=40),
    family=st.sampled_from(sorted(HEADS)),
    cut=st.integers(0, 40),
    doff=st.integers(0, 15),
)
def test_any_options_are_survived(options: bytes, family: str, cut: int, doff: int) -> None:
    head = bytes(HEADS[family] / TCP(flags="S", dataofs=doff))
    octets = bytearray(head + options)
    octets = octets[: len(octets) - min(cut, len(options) + 10)]
    length = len(octets)
    clamp_mss(octets, 1300)
    assert len(octets) == length


def test_ipv4_sender_is_told_what_fits() -> None:
    packet = bytes(
        HEADS["ipv4"].__class__(src="10.0.0.1", dst="10.0.0.2", flags="DF") / UDP(sport=7, dport=8) / bytes(1400)
    )
    assert not may_fragment(packet)
    message = packet_too_big(packet, 1300)
    assert message is not None
    parsed = IP(message)
    assert (parsed.src, parsed.dst, len(message)) == ("10.0.0.2", "10.0.0.1", 576)
    assert (parsed[ICMP].type, parsed[ICMP].code, parsed[ICMP].nexthopmtu) == (3, 4, 1300)
    assert parsed[IPerror].src == "10.0.0.1"
    assert parsed[UDPerror].dport == 8
    again = IP(message)
    del again.chksum, again[ICMP].chksum
    assert bytes(again) == message


def test_ipv6_sender_is_told_what_fits_but_never_less_than_1280() -> None:
    packet = bytes(HEADS["ipv6"] / UDP() / bytes(1400))
    for mtu, told in ((1350, 1350), (1000, 1280)):
        message = packet_too_big(packet, mtu)
        assert message is not None
        parsed = IPv6(message)
        assert parsed[ICMPv6PacketTooBig].mtu == told
        assert len(message) <= 1280
        again = IPv6(message)
        del again[ICMPv6PacketTooBig].cksum
        assert bytes(again) == message


@pytest.mark.parametrize(
    "packet",
    [
        IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(type=3) / bytes(1400),
        IP(src="10.0.0.1", dst="10.0.0.2", frag=9) / bytes(1400),
        IP(src="10.0.0.1", dst="224.0.0.1") / UDP() / bytes(1400),
        IP(src="0.0.0.0", dst="10.0.0.2") / UDP() / bytes(1400),
        IPv6(src="2001:db8::1", dst="2001:db8::2") / ICMPv6DestUnreach() / bytes(1400),
        IPv6(src="2001:db8::1", dst="ff02::1") / UDP() / bytes(1400),
        IPv6(src="::", dst="2001:db8::2") / UDP() / bytes(1400),
    ],
)
def test_some_packets_are_never_answered(packet: object) -> None:
    assert packet_too_big(bytes(packet), 1300) is None


def test_only_ipv4_without_df_may_be_fragmented() -> None:
    assert may_fragment(bytes(IP() / UDP()))
    assert not may_fragment(bytes(IPv6() / IPv6ExtHdrFragment() / UDP()))

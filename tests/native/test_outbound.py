"""What leaves for the network is the same by both paths, octet by octet."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from ikeway.dataplane.userspace.segments import GSO_NONE, VNET_HEADER
from ikeway.esp.drops import Drop
from ikeway.esp.inbound import InboundSa, Opened
from ikeway.esp.parameters import EspLimits, EspSa, Mode
from ikeway.esp.sequence import LAST_SHORT
from tests.dataplane.test_segments import HEADS, super_packet
from tests.esp.material import SUITES, esp_sa
from tests.native.both import PATHS, ends

PLAIN = VNET_HEADER.pack(0, GSO_NONE, 0, 0, 0, 0)
RANDOM_IV = ("aes256-sha256", "3des-sha1", "aes128-xcbc")


def by_both(sa: EspSa, packets: list[bytes], sequence: int = 0, **options: object) -> list[tuple[list[bytes], object]]:
    """Datagrams and counters of each path."""
    results = []
    for kind in PATHS:
        with ends(kind, **options) as path:
            sender = path.add(sa, sequence=sequence)
            datagrams = path.out(packets)
            results.append((datagrams, (sender.sa.usage, sender.sa.sequence, path.known.unclaimed)))
    return results


def opened(sa: EspSa, datagrams: list[bytes], highest: int = 0) -> list[object]:
    """What the datagrams carry; for transforms with random IVs."""
    receiver = InboundSa(sa, highest)
    return [
        (len(datagram), bytes(found.payload)) if isinstance(found := receiver.open(datagram), Opened) else found
        for datagram in datagrams
    ]


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("esn", [False, True], ids=["", "esn"])
def test_every_suite(suite: str, esn: bool) -> None:
    sa = esp_sa(suite, esn=esn)
    sequence = LAST_SHORT - 5 if esn else 7
    upper = TCP(sport=1, dport=2, seq=2**32 - 200, flags="PAFC")
    packets = [bytes(super_packet(HEADS["ipv4"](), upper, os.urandom(1030), 100))]
    packets += [
        PLAIN + bytes(IP(dst="10.0.0.2") / UDP() / bytes(length)) for length in (0, 1, 2, 3, 13, 14, 15, 16, 1200)
    ]
    (pure, counted), (native, counted_too) = by_both(sa, packets, sequence)
    assert len(native) == 11 + 9
    assert counted == counted_too
    if suite in RANDOM_IV:
        assert len({datagram[8:16] for datagram in native}) == len(native)
        pure, native = opened(sa, pure, sequence), opened(sa, native, sequence)
    assert native == pure


@given(
    family=st.sampled_from(sorted(HEADS)),
    size=st.sampled_from((6, 7, 100, 101, 536, 1348)),
    length=st.integers(1, 5000),
    tcp=st.booleans(),
    flags=st.sampled_from(("A", "PA", "FA", "FPAC", "CE")),
    sequence=st.sampled_from((1, 2**32 - 3000)),
    suite=st.sampled_from(("aes128gcm16", "chacha20poly1305", "aes192gcm8", "aes128ccm12")),
)
@settings(max_examples=120)
def test_super_packets_are_cut_and_sealed_alike(
    family: str, size: int, length: int, tcp: bool, flags: str, sequence: int, suite: str
) -> None:
    upper = TCP(sport=1, dport=2, seq=sequence, flags=flags) if tcp else UDP(sport=1, dport=2)
    packet = bytes(super_packet(HEADS[family](), upper, os.urandom(length), size))
    pure, native = by_both(esp_sa(suite), [packet])
    assert native == pure


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=120).map(lambda octets: PLAIN + octets),
            st.binary(max_size=120),
            st.builds(
                lambda head, octets: VNET_HEADER.pack(*head) + octets,
                st.tuples(
                    st.integers(0, 1), st.sampled_from((0, 1, 3, 4, 5, 0x81)), st.integers(0, 99), st.integers(0, 99),
                    st.integers(0, 99), st.integers(0, 99),
                ),
                st.binary(min_size=1, max_size=200).map(lambda o: bytes((o[0] & 15 | 0x40,)) + o[1:]),
            ),
        ).filter(len),
        min_size=1,
        max_size=6,
    )
)  # fmt: skip
@settings(max_examples=150)
def test_octets_that_are_no_packets(packets: list[bytes]) -> None:
    """The host would not write these; neither path may fall over them, and both come to the same."""
    pure, native = by_both(esp_sa(), packets)
    assert native == pure


def test_several_sas_in_one_batch_keep_their_order() -> None:
    first, second = esp_sa(spi=1), esp_sa(spi=2)
    packets = [
        PLAIN + bytes(IP(dst=f"10.0.0.{number % 2}", tos=number % 3) / UDP(sport=number) / bytes((number,) * 40))
        for number in range(40)
    ]
    results = []
    for kind in PATHS:
        with ends(kind) as path:
            path.add(first, b"\0")
            path.add(second, b"\1")
            for packet in packets:
                path.inside.send(packet)
            path.outgoing.turn(1.0)
            if kind == "pure":
                path.outgoing.turn(1.0)
            datagrams = path.out([])
            results.append({spi: [d for d in datagrams if d[3] == spi] for spi in (1, 2)})
    assert results[0] == results[1]
    assert len(results[1][1]) == len(results[1][2]) == 20


@pytest.mark.parametrize("limits", [EspLimits(hard_packets=7), EspLimits(hard_bytes=1000)])
def test_limits_end_at_the_same_packet(limits: EspLimits) -> None:
    upper = TCP(sport=1, dport=2, flags="A")
    packets = [bytes(super_packet(HEADS["ipv4"](), upper, bytes(1030), 200))] * 2
    pure, native = by_both(esp_sa(limits=limits), packets)
    assert native == pure
    assert native[1][0].dropped[Drop.EXPIRED] > 0


def test_the_last_sequence_number_is_the_last() -> None:
    packets = [PLAIN + bytes(IP(dst="10.0.0.2") / ICMP())] * 4
    pure, native = by_both(esp_sa(), packets, LAST_SHORT - 2)
    assert native == pure
    assert len(native[0]) == 2
    assert native[1][0].dropped == {Drop.SEQUENCE_END: 2}


@pytest.mark.parametrize("suite", ["aes128gcm16", "null-sha384"])
@pytest.mark.parametrize("mode", Mode)
def test_what_the_core_does_not_do_goes_the_other_way(suite: str, mode: Mode) -> None:
    packets = [PLAIN + bytes(IP(dst="10.0.0.2", proto=6) / TCP(flags="S", options=[("MSS", 1460)])), PLAIN + b"\x45"]
    packets.append(bytes(super_packet(HEADS["ipv6"](), TCP(flags="A"), bytes(900), 300)))
    pure, native = by_both(esp_sa(suite, mode=mode), packets, clamp=True)
    assert native == pure


def test_what_is_too_big_is_told_to_the_sender() -> None:
    packets = [
        PLAIN + bytes(IP(dst="10.0.0.2", src="10.0.0.1", flags="DF") / UDP() / bytes(1300)),
        PLAIN + bytes(IP(dst="10.0.0.2", src="10.0.0.1") / UDP() / bytes(1300)),
        bytes(super_packet(IP(dst="10.0.0.2", src="10.0.0.1", flags="DF"), TCP(flags="A"), bytes(5000), 1300)),
        bytes(super_packet(IPv6(src="fd00::1", dst="fd00::2"), TCP(flags="A"), bytes(5000), 1300)),
        PLAIN + bytes(IP(dst="10.0.0.2", src="10.0.0.1", flags="DF") / UDP() / bytes(300)),
    ]
    sa, results = esp_sa(), []
    for kind in PATHS:
        with ends(kind) as path:
            sender = path.add(sa)
            sender.path.learn_mtu(1290, 1.0)
            sent = path.out(packets)
            told = path.inside.recv(2000), path.inside.recv(2000), path.inside.recv(2000)
            results.append((sent, told, sender.sa.usage))
    assert results[0] == results[1]
    assert results[1][2].dropped == {Drop.TOO_BIG: 9}


def test_without_virtio_net_hdr() -> None:
    packets = [bytes(IP(dst="10.0.0.2", tos=0xB8) / UDP() / bytes(length)) for length in (5, 5, 6)]
    pure, native = by_both(esp_sa(), packets, vnet_header=False)
    assert native == pure
    assert len(native[0]) == 3

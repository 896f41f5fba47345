"""What reaches the host is the same by both paths: packets, verdicts, counters, the window."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment

from ikeway.address import Address
from ikeway.dataplane.interface import IkeReceived, PeerMoved
from ikeway.dataplane.userspace.segments import GSO_TCPV4, GSO_UDP, VNET_HEADER, single_segments, taken
from ikeway.esp.drops import Drop
from ikeway.esp.outbound import OutboundSa
from ikeway.esp.parameters import EspLimits, EspSa, Mode
from ikeway.esp.sequence import LAST_SHORT
from tests.dataplane.test_segments import HEADS, super_packet
from tests.esp.material import SUITES, esp_sa, network
from tests.native.both import PATHS, Ends, drain, ends, packets_of


def sealed(sender: OutboundSa, packet: bytes, next_header: int = 0) -> bytes:
    octets = sender.seal(packet, next_header or (41 if packet[0] >> 4 == 6 else 4))
    assert isinstance(octets, bytes)
    return octets


def state(path: Ends, sa: EspSa) -> tuple[object, ...]:
    receiver = path.known.inbound[sa.spi]
    window = receiver.sa.window
    return (
        receiver.sa.usage,
        window.highest,
        bytes(window._ring),
        path.known.unclaimed,
        [event.octets for event in path.events if isinstance(event, IkeReceived)],
    )


def by_flow(packets: list[bytes]) -> dict[bytes, list[bytes]]:
    """Packets of different flows may change places: by addresses, protocol and ports."""
    flows: dict[bytes, list[bytes]] = {}
    for packet in packets:
        key = packet[9:10] + packet[12:24] if packet[0] >> 4 == 4 else packet[6:7] + packet[8:44]
        flows.setdefault(key, []).append(packet)
    return flows


def by_both(
    sa: EspSa, datagrams: list[bytes], merged: int = 0, highest: int = 0, **options: object
) -> tuple[list[bytes], object]:
    """What the host gets by either path, which must be the same."""
    results = []
    for kind in PATHS:
        with ends(kind, **options) as path:
            path.accept(sa, highest)
            packets = (
                packets_of(path.into(datagrams, merged)) if options.get("vnet_header", True) else path.into(datagrams)
            )
            results.append((packets, state(path, sa)))
    assert by_flow(results[1][0]) == by_flow(results[0][0])
    assert results[1][1] == results[0][1]
    return results[1]


def tcp_train(count: int, size: int = 100, flow: int = 1, family: str = "ipv4", **fields: object) -> list[bytes]:
    upper = TCP(sport=flow, dport=2, **{"flags": "A", "seq": 2**32 - 250, **fields})
    packet = taken(super_packet(HEADS[family](), upper, os.urandom(count * size), size))
    assert packet is not None
    return [bytes(segment) for segment in single_segments(packet)]


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("esn", [False, True], ids=["", "esn"])
@pytest.mark.parametrize("merging", [False, True], ids=["alone", "merged"])
def test_every_suite(suite: str, esn: bool, merging: bool) -> None:
    sa, highest = esp_sa(suite, esn=esn), LAST_SHORT - 3 if esn else 7
    sender = OutboundSa(sa, sequence=highest)
    train = tcp_train(9, flags="PA")
    datagrams = [sealed(sender, packet) for packet in train]
    found, (usage, *_) = by_both(sa, datagrams, len(datagrams[0]) if merging else 0, highest)
    assert found == train
    assert (usage.packets, usage.octets, usage.dropped) == (9, sum(map(len, train)), {})


@given(
    order=st.permutations(range(12)),
    forged=st.sets(st.integers(0, 11), max_size=4),
    swap=st.booleans(),
    window=st.sampled_from((0, 1, 4, 64, 65536)),
    esn=st.booleans(),
    suite=st.sampled_from(("aes128gcm16", "chacha20poly1305", "aes128ccm12", "aes256-sha256", "aes128ctr-sha512")),
    merging=st.booleans(),
)
@settings(max_examples=150)
def test_reordered_repeated_and_forged(
    order: list[int], forged: set[int], swap: bool, window: int, esn: bool, suite: str, merging: bool
) -> None:
    sa = esp_sa(suite, esn=esn, replay_window=window)
    highest = LAST_SHORT - 5 if esn else 0
    sender = OutboundSa(sa, sequence=highest)
    datagrams = [sealed(sender, packet) for packet in tcp_train(12)]
    if swap:
        datagrams = [datagrams[number] for number in order]
    for number in forged:
        datagrams[number] = datagrams[number][:-1] + bytes((datagrams[number][-1] ^ 1,))
    datagrams += datagrams[::-1]
    by_both(sa, datagrams, len(datagrams[0]) if merging else 0, highest)


def odd_packets() -> list[bytes]:
    """One of everything that is not a plain segment."""
    v4 = {"src": "10.0.0.1", "dst": "10.0.0.2"}
    plain = bytes(IP(**v4) / UDP(sport=5, dport=6) / b"octets")
    return [
        plain,
        plain[:20] + plain[20:26] + b"\0\0" + plain[28:],  # UDP without a checksum
        bytes(IP(**v4, options=b"\1\1\1\1") / UDP(sport=5, dport=6) / b"options"),
        bytes(IP(**v4, flags="MF", id=9) / UDP(sport=5, dport=6) / bytes(8)),
        bytes(IP(**v4, frag=1, id=9, proto=17) / bytes(16)),
        *[bytes(IP(**v4) / ICMP() / b"ping")] * 2,
        bytes(IP(**v4) / ICMP(type=3) / b"another type"),
        bytes(IP(**v4, len=22) / ICMP() / b"cut"),
        bytes(IP(**v4, len=21) / ICMP() / b"cut"),
        bytes(IPv6(src="fd00::1", dst="fd00::2") / ICMPv6EchoRequest(data=b"ping")),
        bytes(IPv6(src="fd00::1", dst="fd00::2", plen=1) / ICMPv6EchoRequest(data=b"ping")),
        bytes(IP(**v4) / TCP(flags="S", options=[("MSS", 1460)])),
        bytes(IP(**v4, options=b"\1\1\1\1") / TCP(flags="S", options=[("MSS", 1460)])),
        bytes(IP(**v4) / TCP(flags="FA", seq=9) / b"end"),
        bytes(IP(**v4) / TCP(flags="A", seq=9)),
        bytes(IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=1, dport=2) / b"six"),
        bytes(IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrDestOpt() / UDP(sport=1, dport=2) / b"six"),
        bytes(IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrFragment(offset=0, m=1) / UDP(sport=1, dport=2) / bytes(8)),
        bytes(IPv6(src="fd00::1", dst="fd00::2") / TCP(flags="S", options=[("MSS", 1440)])),
        plain + bytes(40),  # TFC padding
        plain[:2] + b"\0\x10" + plain[4:],  # its length lies
        plain[:2] + b"\5\0" + plain[4:],
        plain[:20], plain[:23], plain[:1], b"\x46" + plain[1:21],
    ]  # fmt: skip


@pytest.mark.parametrize("suite", ["aes128gcm16", "aes256-sha256"])
@pytest.mark.parametrize("clamp", [False, True])
def test_odd_packets_between_segments(suite: str, clamp: bool) -> None:
    sa = esp_sa(suite)
    sender = OutboundSa(sa)
    train = tcp_train(40)
    datagrams = []
    for packet in odd_packets():
        datagrams += [sealed(sender, train.pop(0)), sealed(sender, packet)]
    for padding, next_header in ((4, 4), (0, 6), (0, 59), (0, 41)):  # wrong padding; what tunnel mode does not carry
        datagrams.append(sender.seal_padded(b"E" + bytes(61) + bytes((padding, next_header)), 62))
    found, (usage, *_) = by_both(sa, datagrams, clamp=clamp)
    assert {Drop.PADDING, Drop.NEXT_HEADER, Drop.DUMMY, Drop.MALFORMED} == set(usage.dropped)
    assert len(found) > 30


@pytest.mark.parametrize("inner", range(4))
@pytest.mark.parametrize("outer", range(4))
def test_ecn(inner: int, outer: int) -> None:
    sa = esp_sa()
    packets = [bytes(IP(src="10.0.0.1", dst="10.0.0.2", tos=0xA8 | inner) / UDP() / bytes((n,))) for n in range(4)]
    packets += [bytes(IPv6(src="fd00::1", dst="fd00::2", tc=0xA8 | inner) / TCP(seq=n) / b"x") for n in range(4)]
    results = []
    for kind in PATHS:
        with ends(kind) as path:
            sender = OutboundSa(sa)
            path.accept(sa)
            path.peer.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, outer)
            results.append((packets_of(path.into([sealed(sender, packet) for packet in packets])), state(path, sa)))
    (pure, counted), (native, counted_too) = results
    assert sorted(native) == sorted(pure)
    assert counted_too == counted


@given(
    st.lists(st.tuples(st.integers(1, 70), st.integers(1, 3)), min_size=1, max_size=80),
    st.sampled_from(("ipv4", "ipv6")),
    st.booleans(),
)
@settings(max_examples=60)
def test_interleaved_flows_keep_their_order(draws: list[tuple[int, int]], family: str, merging: bool) -> None:
    """Also more flows than the core tells apart."""
    flows = {flow: tcp_train(100, flow=flow, family=family) for flow, _ in draws}
    sa = esp_sa()
    sender = OutboundSa(sa)
    packets = [flows[flow].pop(0) for flow, count in draws for _ in range(count) if flows[flow]]
    datagrams = [sealed(sender, packet) for packet in packets][:60]
    by_both(sa, datagrams, len(datagrams[0]) if merging else 0)


def writes_of(packets: list[bytes], exact: bool = True) -> list[tuple[int, int, int]]:
    """(GSO type, segment, octets) of what is written to the device for packets that come in together."""
    with ends("native") as path:
        sa = esp_sa()
        path.accept(sa)
        sender = OutboundSa(sa)
        for packet in packets:
            path.peer.sendto(sealed(sender, packet), ("127.0.0.1", path.outer.port))
        for _ in packets:
            path.incoming.receive(path.outer, 1.0)
        writes = drain(path.inside)
        assert not exact or by_flow(packets_of(writes)) == by_flow(packets)
        return [(write[1], int.from_bytes(write[4:6], "little"), len(write) - VNET_HEADER.size) for write in writes]


def test_single_datagrams_are_merged_too() -> None:
    assert writes_of(tcp_train(4)) == [(GSO_TCPV4, 100, 440)]
    two = [packet for pair in zip(tcp_train(4, flow=1), tcp_train(4, flow=9), strict=True) for packet in pair]
    assert writes_of(two) == [(GSO_TCPV4, 100, 440)] * 2
    assert writes_of(tcp_train(3)[::2]) == [(0, 0, 140)] * 2  # one is missing


def udp_packets(sizes: list[int], **fields: object) -> list[bytes]:
    head = {"src": "10.0.0.1", "dst": "10.0.0.2", **fields}
    return [bytes(IP(**head, id=n) / UDP(sport=1, dport=2) / bytes((n,) * size)) for n, size in enumerate(sizes)]


def test_udp_is_merged() -> None:
    assert writes_of(udp_packets([100, 100, 100])) == [(GSO_UDP, 100, 328)]
    assert writes_of(udp_packets([100, 100, 60, 100])) == [(GSO_UDP, 100, 288), (0, 0, 128)]
    assert writes_of(udp_packets([100, 0, 200])) == [(0, 0, 128), (0, 0, 28), (0, 0, 228)]
    unsummed = [packet[:26] + b"\0\0" + packet[28:] for packet in udp_packets([100, 100])]
    assert writes_of(unsummed) == [(0, 0, 128)] * 2
    damaged = [packet[:-1] + b"!" for packet in udp_packets([100, 100])]
    assert writes_of(damaged) == [(0, 0, 128)] * 2
    assert writes_of(udp_packets([10] * 30) * 2) == [(GSO_UDP, 10, 328)] * 2  # other identifications
    assert writes_of([udp_packets([10])[0]] * 2) == [(0, 0, 38)] * 2
    assert writes_of(udp_packets([10] * 2, flags="DF")[::-1], exact=False) == [(GSO_UDP, 10, 48)]


def test_selectors() -> None:
    sa = esp_sa(local_selectors=(network("10.0.0.2/32", 6, (2, 2)),))
    sender = OutboundSa(sa)
    packets = tcp_train(20) + udp_packets([5] * 5) + tcp_train(20, flow=3)
    _, (usage, *_) = by_both(sa, [sealed(sender, packet) for packet in packets])
    assert usage.dropped == {Drop.SELECTORS: 5}
    sender = OutboundSa(sa)
    train = [sealed(sender, packet) for packet in tcp_train(45)]
    by_both(sa, train, len(train[0]))


@pytest.mark.parametrize("merging", [False, True])
def test_a_limit_of_packets(merging: bool) -> None:
    sa = esp_sa(limits=EspLimits(hard_packets=8))
    sender = OutboundSa(esp_sa(encryption_key=sa.encryption_key))
    train = [sealed(sender, packet) for packet in tcp_train(12)]
    _, (usage, *_) = by_both(sa, train, len(train[0]) if merging else 0)
    assert (usage.packets, usage.dropped) == (8, {Drop.EXPIRED: 4})


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("suite", ["aes128gcm16", "null-sha384"])
def test_what_the_core_does_not_do_goes_the_other_way(suite: str, mode: Mode) -> None:
    sa = esp_sa(suite, mode=mode, local_selectors=(network("10.0.0.2/32"),), remote_selectors=(network("10.0.0.1/32"),))
    sender = OutboundSa(sa)
    packets = [
        packet if mode is Mode.TUNNEL else packet[20:] for packet in tcp_train(5) + udp_packets([3, 3], flags="DF")
    ]
    numbers = [4] * 7 if mode is Mode.TUNNEL else [6] * 5 + [17] * 2
    by_both(sa, [sealed(sender, packet, number) for packet, number in zip(packets, numbers, strict=True)])


@given(
    st.lists(st.binary(max_size=80), min_size=1, max_size=20),
    st.sampled_from(sorted(SUITES)),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=200)
def test_hostile_octets(datagrams: list[bytes], suite: str, esn: bool, known: bool) -> None:
    sa = esp_sa(suite, esn=esn)
    if known:
        datagrams = [sa.spi.to_bytes(4, "big") + datagram for datagram in datagrams]
    found, _ = by_both(sa, [datagram for datagram in datagrams if datagram] or [b"\xff"])
    assert not found


@given(st.binary(min_size=1, max_size=2000), st.integers(1, 90))
@settings(max_examples=100)
def test_hostile_trains(octets: bytes, size: int) -> None:
    found, _ = by_both(esp_sa(), [octets[: size * 60]], size)
    assert not found


def test_ike_and_keepalives_between() -> None:
    sa = esp_sa()
    sender = OutboundSa(sa)
    datagrams = [bytes(4) + b"IKE message", b"\xff", sealed(sender, tcp_train(1)[0]), b"\xff\xff", bytes(4), bytes(3)]
    results = []
    for kind in PATHS:
        with ends(kind) as path:
            path.accept(sa)
            packets = packets_of(path.into(datagrams))
            events = [(type(event).__name__, event.octets, event.local.host) for event in path.events]
            results.append((packets, events, path.known.unclaimed))
    assert results[0] == results[1]
    assert len(results[1][1]) == 2
    assert results[1][2][True].dropped == {Drop.KEEPALIVE: 1, Drop.TOO_SHORT: 2}


def test_a_peer_that_moves_and_spis_that_nobody_knows() -> None:
    sa = esp_sa(follow_peer=True)
    stranger = esp_sa(spi=99)
    results = []
    for kind in PATHS:
        with ends(kind) as path:
            receiver = path.accept(sa)
            receiver.told_remote = path.peer.getsockname()
            sender = OutboundSa(sa)
            path.into([sealed(sender, packet) for packet in tcp_train(3)])
            assert not path.events
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.bind(("127.0.0.1", 0))
                for packet in tcp_train(3):
                    other.sendto(sealed(sender, packet), ("127.0.0.1", path.outer.port))
                    other.sendto(sealed(OutboundSa(stranger), packet), ("127.0.0.1", path.outer.port))
                path.incoming.receive(path.outer, 1.0)
                assert receiver.told_remote == other.getsockname()
            results.append(([type(event).__name__ for event in path.events], path.known.unclaimed))
    assert set(results[0][0]) == set(results[1][0]) == {"PeerMoved", "UnknownSpi"}
    assert results[0][1] == results[1][1]


@pytest.mark.parametrize("kind", PATHS)
def test_a_daemon_that_does_not_read_hears_of_a_peer_that_has_moved_when_it_does(kind: str) -> None:
    sa = esp_sa(follow_peer=True)
    with ends(kind) as path:
        receiver, sender = path.accept(sa), OutboundSa(sa)
        receiver.told_remote = ("192.0.2.1", 4500)
        path.daemon.reads = False
        path.into([sealed(sender, packet) for packet in tcp_train(2)])
        assert not path.events
        path.daemon.reads = True
        path.into([sealed(sender, packet) for packet in tcp_train(2)])
        path.into([sealed(sender, packet) for packet in tcp_train(2)])
        assert path.events == [PeerMoved(sa.spi, Address(*path.peer.getsockname()))]


def test_without_virtio_net_hdr() -> None:
    sa = esp_sa()
    sender = OutboundSa(sa)
    train = tcp_train(5)
    found, _ = by_both(sa, [sealed(sender, packet) for packet in train], vnet_header=False)
    assert found == train

"""Trace files: others read them."""

from __future__ import annotations

from pathlib import Path

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6

from ikeway.address import Address
from ikeway.cli.capture import read_udp
from ikeway.daemon.pcap import PcapWriter, ip_packet
from ikeway.errors import HostError

HERE, THERE = Address("192.0.2.1", 500), Address("198.51.100.1", 4500)
HERE6, THERE6 = Address("2001:db8::1", 500), Address("2001:db8::2", 4500)


def test_dpkt_reads_it(tmp_path: Path) -> None:
    with PcapWriter(tmp_path / "x.pcapng") as packets:
        packets.udp(b"one", HERE, THERE, True)
        packets.udp(b"four", HERE, THERE, False)
        packets.udp(b"sixsix", HERE6, THERE6, True)
    with (tmp_path / "x.pcapng").open("rb") as file:
        reader = dpkt.pcapng.Reader(file)
        assert reader.datalink() == 101
        frames = [frame for _, frame in reader]
    first, second, third = dpkt.ip.IP(frames[0]), dpkt.ip.IP(frames[1]), dpkt.ip6.IP6(frames[2])
    assert (first.data.sport, first.data.dport, first.data.data) == (500, 4500, b"one")
    assert (second.data.sport, second.data.dport, second.data.data) == (4500, 500, b"four")
    assert (third.data.sport, third.data.data) == (500, b"sixsix")


@given(st.binary(max_size=100), st.sampled_from([(HERE, THERE), (HERE6, THERE6)]))
def test_checksums(octets: bytes, addresses: tuple[Address, Address]) -> None:
    """Scapy computes the same packet when it may fill the checksums in itself."""
    packet = ip_packet(octets, *addresses)
    parsed = IPv6(packet) if addresses[0].is_ipv6 else IP(packet)
    given_udp = parsed["UDP"].chksum
    del parsed["UDP"].chksum
    if not addresses[0].is_ipv6:
        given_ip = parsed.chksum
        del parsed.chksum
        assert IP(bytes(parsed)).chksum == given_ip
    again = type(parsed)(bytes(parsed))
    assert again["UDP"].chksum == given_udp
    assert given_udp != 0


@given(st.lists(st.tuples(st.binary(max_size=200), st.booleans(), st.booleans()), max_size=5))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[tuple[bytes, bool, bool]]
) -> None:
    path = tmp_path_factory.mktemp("pcap") / "x.pcapng"
    with PcapWriter(path) as packets:
        for octets, ipv6, sent in payloads:
            packets.udp(octets, *((HERE6, THERE6) if ipv6 else (HERE, THERE)), sent)
    found = list(read_udp(path.read_bytes()))
    assert [packet.octets for packet in found] == [octets for octets, _, _ in payloads]
    assert [packet.source.port for packet in found] == [500 if sent else 4500 for _, _, sent in payloads]


def test_the_file_is_whole_before_it_is_closed(tmp_path: Path) -> None:
    packets = PcapWriter(tmp_path / "x.pcapng")
    packets.udp(b"one", HERE, THERE, True)
    assert [packet.octets for packet in read_udp((tmp_path / "x.pcapng").read_bytes())] == [b"one"]
    packets.close()
    packets.close()
    assert (tmp_path / "x.pcapng").stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be written") as caught:
        PcapWriter(tmp_path / "none" / "x.pcapng")
    assert caught.value.remedy

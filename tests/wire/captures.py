"""UDP payloads of the shared captures that are IKE, with the non-ESP marker removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dpkt

IKE_PORTS = {500, 4500}


def ike_payloads(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number of the frame (1-based) and IKE octets, as they stand: whole or cut short by the capture."""
    with path.open("rb") as file:
        reader = dpkt.pcapng.Reader(file) if path.suffix == ".pcapng" else dpkt.pcap.Reader(file)
        link = reader.datalink() & 0xFFFF  # above stand the length of the frame check sequence and unknown bits
        for number, (_, frame) in enumerate(reader, 1):
            yield from ((number, octets) for octets in _ike(_network(link, frame)))


def _network(link: int, frame: bytes) -> bytes:
    """The IP packet of a frame, cut out by hand: dpkt refuses frames that lie about their lengths."""
    match link:
        case dpkt.pcap.DLT_EN10MB:
            return frame[14:]
        case dpkt.pcap.DLT_NULL | dpkt.pcap.DLT_LOOP:
            return frame[4:]
        case dpkt.pcap.DLT_LINUX_SLL:
            return frame[16:]
        case dpkt.pcap.DLT_RAW:
            return frame
    raise ValueError(f"link type {link} of a capture is not known here")


def _ike(packet: bytes) -> Iterator[bytes]:
    if not packet:
        return
    if packet[0] >> 4 == 4:
        header, protocol = (packet[0] & 15) * 4, packet[9:10]
    else:
        header, protocol = 40, packet[6:7]
    udp = packet[header:]
    if protocol != b"\x11" or len(udp) < 8:
        return
    ports = {int.from_bytes(udp[0:2], "big"), int.from_bytes(udp[2:4], "big")}
    if not ports & IKE_PORTS:
        return
    octets = udp[8:]
    if 4500 in ports:
        if octets[:4] != bytes(4):
            return  # ESP or a keep-alive
        octets = octets[4:]
    yield octets

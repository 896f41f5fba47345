"""What a capture sees of ESP: SPIs and sequence numbers."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from ipaddress import ip_address

_ETHERTYPE_ALL = socket.htons(3)
_SO_RCVBUFFORCE = 33


def packet_socket() -> socket.socket:
    """To be called in the namespace that is to be watched."""
    return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, _ETHERTYPE_ALL)


class Sequences:
    """Watches ESP that a host sends from one IPv4 address, in UDP or not, until `stop`."""

    def __init__(self, tap: socket.socket, source: str) -> None:
        self._seen: list[tuple[int, int]] = []
        self._source = ip_address(source).packed
        self._tap = tap
        self._tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 256 << 20)
        self._tap.settimeout(0.1)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> list[tuple[int, int]]:
        """All (SPI, sequence number), in order."""
        self._ending.set()
        self._thread.join()
        self._tap.close()
        return self._seen

    def _watch(self) -> None:
        while not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                octets, (_, ethertype, kind, *_) = self._tap.recvfrom(65536)
                if ethertype != 0x0800 or kind != socket.PACKET_OUTGOING or octets[12:16] != self._source:
                    continue
                payload = octets[(octets[0] & 15) * 4 :]
                if octets[9] == 17:
                    payload = payload[8:]
                if octets[9] in (17, 50) and len(payload) > 8 and payload[:4] != bytes(4):
                    # A super-datagram (UDP_SEGMENT) shows itself before it is cut.
                    self._seen += [struct.unpack_from("!II", payload, at) for at in _starts(payload)]


def _starts(payload: bytes) -> Iterator[int]:
    """Where the ESP packets of a super-datagram begin: with its SPI, and the number after the one before."""
    at, spi = 0, payload[:4]
    while at >= 0 and at + 8 <= len(payload):
        yield at
        following = int.from_bytes(payload[at + 4 : at + 8], "big") + 1 & 0xFFFFFFFF
        at = payload.find(spi + following.to_bytes(4, "big"), at + 8)

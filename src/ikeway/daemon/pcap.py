"""`--pcap FILE`: what was sent and received, as pcapng (draft-ietf-opsawg-pcapng), for Wireshark and `ikeway diagnose`.

The process sees UDP payloads, not packets: IP and UDP headers are made up around them, without link-layer header
(LINKTYPE_RAW).
"""

from __future__ import annotations

import ipaddress
import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ikeway import __version__
from ikeway.address import Address
from ikeway.daemon.writing import write_whole
from ikeway.errors import HostError

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_LINKTYPE_RAW = 101
_UDP = 17
_TTL = 64
_OPTION_FLAGS, _OPTION_APPLICATION, _OPTION_NAME, _OPTION_RESOLUTION = 2, 4, 2, 9
_OPTION_COMMENT, _MAX_COMMENT = 1, 4000
_INBOUND, _OUTBOUND = 1, 2


class PcapWriter:
    """The file. Every packet is written through at once, so that the file is whole however the process ends."""

    def __init__(self, path: Path, interfaces: Sequence[str] = ("ike",)) -> None:
        """Begin the file anew; packets belong to one of the interfaces. Raises `HostError`."""
        self.path = path
        self._fd = -1
        try:
            # Who talks to whom is not for everybody.
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            self._begin(interfaces)
        except OSError as error:
            self.close()
            raise HostError(
                f"the trace file {path} cannot be written: {error.strerror}", remedy="name another file"
            ) from None

    def _begin(self, interfaces: Sequence[str]) -> None:
        application = _options((_OPTION_APPLICATION, f"ikeway {__version__}".encode()))
        self._block(_SECTION, struct.pack("=IHHq", 0x1A2B3C4D, 1, 0, -1) + application)
        # Time stamps count nanoseconds (if_tsresol 9).
        for name in interfaces:
            options = _options((_OPTION_NAME, name.encode()), (_OPTION_RESOLUTION, b"\x09"))
            self._block(_INTERFACE, struct.pack("=HHI", _LINKTYPE_RAW, 0, 0) + options)

    def udp(
        self,
        octets: bytes,
        local: Address,
        remote: Address,
        sent: bool,
        *,
        at: int | None = None,
        interface: int = 0,
        comment: str = "",
    ) -> None:
        """Note a UDP payload as it is on the wire (non-ESP marker included). `at`: nanoseconds since 1970, now unless
        given. Raises `OSError`; the file ends with the packet before then."""
        source, destination = (local, remote) if sent else (remote, local)
        packet = ip_packet(octets, source, destination)
        now = time.time_ns() if at is None else at
        head = struct.pack("=IIIII", interface, now >> 32, now & 0xFFFFFFFF, len(packet), len(packet))
        flags = (_OPTION_FLAGS, struct.pack("=I", _OUTBOUND if sent else _INBOUND))
        comments = ((_OPTION_COMMENT, comment.encode()[:_MAX_COMMENT]),) if comment else ()
        self._block(_PACKET, head + _padded(packet) + _options(*comments, flags))

    def close(self) -> None:
        """Close the file. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> PcapWriter:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def _block(self, kind: int, body: bytes) -> None:
        length = struct.pack("=I", 12 + len(body))
        write_whole(self._fd, struct.pack("=I", kind) + length + body + length)


def ip_packet(octets: bytes, source: Address, destination: Address) -> bytes:
    """An IP packet with a UDP datagram, checksums right (RFC 768, 791, 8200)."""
    one, other = ipaddress.ip_address(source.host), ipaddress.ip_address(destination.host)
    length = 8 + len(octets)
    udp = struct.pack("!HHHH", source.port, destination.port, length, 0)
    pseudo = one.packed + other.packed + struct.pack("!IxxxB", length, _UDP)
    # A checksum that comes out as 0 is sent as 0xffff: 0 says that there is none.
    udp = udp[:6] + struct.pack("!H", _checksum(pseudo + udp + octets) or 0xFFFF)
    if one.version == 6:
        return struct.pack("!IHBB", 6 << 28, length, _UDP, _TTL) + one.packed + other.packed + udp + octets
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, _TTL, _UDP, 0) + one.packed + other.packed
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + udp + octets


def _checksum(octets: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = octets + b"\0" if len(octets) % 2 else octets
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _options(*options: tuple[int, bytes]) -> bytes:
    found = b"".join(struct.pack("=HH", code, len(value)) + _padded(value) for code, value in options)
    return found + bytes(4)  # opt_endofopt


def _padded(octets: bytes) -> bytes:
    return octets + bytes(-len(octets) % 4)

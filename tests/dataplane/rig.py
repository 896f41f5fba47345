"""A real worker without root: its TUN device is one end of a socket pair, its peer a socket on the loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from scapy.layers.inet import IP, UDP

from ikeway.address import Address
from ikeway.dataplane.interface import Counters, DataPlaneEvent
from ikeway.dataplane.userspace.plane import UserspaceDataPlane
from ikeway.dataplane.userspace.sockets import open_udp
from ikeway.esp.inbound import InboundSa, Opened
from ikeway.esp.outbound import OutboundSa
from ikeway.esp.parameters import EspSa
from ikeway.host.tun import TunDevice
from tests.esp.material import esp_sa, network

PATIENCE = 20.0  # seconds until a test fails: a worker has to share the machine
INSIDE = (network("10.78.0.0/24"),)
OUR_HOST, THEIR_HOST = "10.78.0.1", "10.78.0.2"


def inner(
    payload: bytes = b"payload", source: str = OUR_HOST, destination: str = THEIR_HOST, **fields: object
) -> bytes:
    """A UDP packet of the inside."""
    return bytes(IP(src=source, dst=destination, **fields) / UDP(sport=1000, dport=2000) / payload)


@dataclass
class Rig:
    """The plane, the inner end of its device, and the socket of its peer."""

    plane: UserspaceDataPlane
    tun: socket.socket
    peer: socket.socket
    local: Address
    remote: Address
    events: list[DataPlaneEvent] = field(default_factory=list)

    async def send(self, packet: bytes) -> None:
        """Put a packet into the TUN device."""
        await asyncio.get_running_loop().sock_sendall(self.tun, packet)

    async def delivered(self, seconds: float = PATIENCE) -> bytes:
        """The next packet that comes out of the TUN device."""
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.tun, 65536), seconds)

    async def to_worker(self, octets: bytes, sock: socket.socket | None = None) -> None:
        """Send a datagram as the peer."""
        await asyncio.get_running_loop().sock_sendto(sock or self.peer, octets, tuple(self.local))

    async def at_peer(self, seconds: float = PATIENCE) -> bytes:
        """The next datagram that reaches the peer."""
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.peer, 65536), seconds)

    async def until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Wait until something is true."""
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)

    async def dropped(self, spi: int, inbound: bool, reason: str, seconds: float = PATIENCE) -> int:
        """Wait until drops of a reason are counted; how many."""
        async with asyncio.timeout(seconds):
            while not (found := (await self.plane.counters())[spi, inbound].dropped.get(reason, 0)):
                await asyncio.sleep(0.005)
        return found

    async def counters(self, spi: int, inbound: bool) -> Counters:
        return (await self.plane.counters())[spi, inbound]

    def sa(self, spi: int, **changes: object) -> EspSa:
        """An SA of the plane to its peer."""
        defaults = {"local_selectors": INSIDE, "remote_selectors": INSIDE, "local": self.local, "remote": self.remote}
        return esp_sa(spi=spi, **{**defaults, **changes})

    async def outbound(self, spi: int = 0x2001, **changes: object) -> InboundSa:
        """Add an outbound SA; the peer's end of it."""
        sa = self.sa(spi, **changes)
        await self.plane.add_outbound(sa)
        return InboundSa(sa)

    async def inbound(self, spi: int = 0x1001, **changes: object) -> OutboundSa:
        """Add an inbound SA; the peer's end of it."""
        sa = self.sa(spi, **changes)
        await self.plane.add_inbound(sa)
        return OutboundSa(sa)


def sealed(sender: OutboundSa, packet: bytes, next_header: int = 4) -> bytes:
    octets = sender.seal(packet, next_header)
    assert isinstance(octets, bytes)
    return octets


def opened(receiver: InboundSa, octets: bytes) -> bytes:
    result = receiver.open(octets)
    assert isinstance(result, Opened), result
    return bytes(result.payload)


@contextlib.asynccontextmanager
async def rig(**options: object) -> AsyncIterator[Rig]:
    """A started plane."""
    inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    inside.setblocking(False)
    outside.setblocking(False)
    sock = open_udp(Address("127.0.0.1", 0))
    local = Address(*sock.getsockname())
    peer = peer_socket()
    plane = UserspaceDataPlane(TunDevice(outside.detach(), "none"), [sock], **options)
    result = Rig(plane, inside, peer, local, Address(*peer.getsockname()))
    try:
        await plane.start(result.events.append)
        yield result
    finally:
        await plane.stop()
        inside.close()
        peer.close()


def peer_socket() -> socket.socket:
    """One more address of the peer."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


def process_exists(pid: int) -> bool:
    """True while a process runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

"""Both paths of the data plane, the pure one and the native one, on the same octets: a socket pair for the TUN device,
sockets on the loopback for the network."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from ikeway import native
from ikeway.address import Address
from ikeway.dataplane.userspace.incoming import Incoming
from ikeway.dataplane.userspace.native_in import NativeIncoming
from ikeway.dataplane.userspace.native_out import NativeOutgoing
from ikeway.dataplane.userspace.outgoing import Outgoing
from ikeway.dataplane.userspace.paths import OuterSocket, Path
from ikeway.dataplane.userspace.segments import single_segments, taken
from ikeway.dataplane.userspace.sockets import accept_merged, open_udp
from ikeway.dataplane.userspace.tun_io import TunIo
from ikeway.esp.drops import Drop
from ikeway.esp.inbound import InboundSa
from ikeway.esp.inner import parse
from ikeway.esp.outbound import OutboundSa
from ikeway.esp.parameters import EspSa
from ikeway.esp.tunnel import Unwrapper
from ikeway.esp.usage import Usage

PATHS = ("pure", "native")
_UDP_SEGMENT = 103


class Sender:
    """As `associations.Sending`, as far as it is needed."""

    def __init__(self, sa: OutboundSa, path: Path) -> None:
        self.sa, self.path = sa, path


class Receiver:
    """As `associations.Receiving`."""

    def __init__(self, sa: InboundSa) -> None:
        self.sa, self.unwrapper = sa, Unwrapper(sa)
        self.told_remote: object = None


@dataclass
class Known:
    """As `associations.Associations`."""

    generation: int = 0
    inbound: dict[int, Receiver] = field(default_factory=dict)
    senders: list[tuple[bytes, Sender]] = field(default_factory=list)  # by where a destination ends
    unclaimed: dict[bool, Usage] = field(default_factory=lambda: {True: Usage(), False: Usage()})

    def route(self, packet: memoryview) -> Sender | Drop:
        flow = parse(packet)
        if flow is None:
            return Drop.MALFORMED
        return next((sender for end, sender in self.senders if flow.destination.endswith(end)), Drop.NO_POLICY)


@dataclass
class Daemon:
    """Takes events, as long as it reads."""

    reads: bool = True
    events: list[object] = field(default_factory=list)

    def emit(self, event: object) -> bool:
        if self.reads:
            self.events.append(event)
        return self.reads


@dataclass
class Ends:
    """One path under test: `inside` is the host's end of the TUN device, `peer` the network's."""

    known: Known
    inside: socket.socket
    peer: socket.socket
    outer: OuterSocket
    outgoing: Outgoing
    incoming: Incoming
    events: list[object]
    daemon: Daemon

    def add(self, sa: EspSa, end: bytes = b"", iv_base: int = 5, sequence: int = 0) -> Sender:
        """An outbound SA to the peer."""
        path = Path(self.outer, Address("127.0.0.1", self.outer.port), Address(*self.peer.getsockname()))
        sender = Sender(OutboundSa(sa, iv_base, sequence), path)
        self.known.senders.append((end, sender))
        return sender

    def accept(self, sa: EspSa, highest: int = 0) -> Receiver:
        """An inbound SA."""
        receiver = self.known.inbound[sa.spi] = Receiver(InboundSa(sa, highest))
        return receiver

    def out(self, packets: list[bytes]) -> list[bytes]:
        """What the network gets of packets of the host, each with its virtio_net_hdr if the device has one."""
        for packet in packets:
            self.inside.send(packet)
            self.outgoing.turn(1.0)
        return drain(self.peer)

    def into(self, datagrams: list[bytes], merged: int = 0) -> list[bytes]:
        """What the host gets of datagrams, super-packets cut again. `merged` > 0: send them as one, cut to this size."""
        target = ("127.0.0.1", self.outer.port)
        if merged:
            segment = [(socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", merged))]
            self.peer.sendmsg([b"".join(datagrams)], segment, 0, target)
        else:
            for datagram in datagrams:
                self.peer.sendto(datagram, target)
        for _ in range(len(datagrams)):
            self.incoming.receive(self.outer, 1.0)
        return drain(self.inside)


def drain(sock: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(sock.recv(1 << 17))
        except BlockingIOError:
            return found


def packets_of(writes: list[bytes]) -> list[bytes]:
    """The packets in what was written to a device with virtio_net_hdr."""
    result: list[bytes] = []
    for write in writes:
        packet = taken(memoryview(bytearray(write)))
        assert packet is not None
        result += [bytes(p) for p in (single_segments(packet) if packet.segment else [packet.octets])]
    return result


@contextmanager
def ends(
    kind: str, *, vnet_header: bool = True, merging: bool = True, mtu: int = 1400, clamp: bool = False
) -> Iterator[Ends]:
    """One of `PATHS`."""
    with ExitStack() as stack:
        inside, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock, peer = open_udp(Address("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for each in (inside, device, sock, peer):
            stack.callback(each.close)
            each.setblocking(False)
        for each in (inside, device):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        peer.bind(("127.0.0.1", 0))
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        accept_merged(sock, merging)
        known, daemon = Known(), Daemon()
        tun = TunIo(device.fileno(), vnet_header, known.unclaimed[True], known.unclaimed[False])
        outer = OuterSocket(sock, False, False, "127.0.0.1", sock.getsockname()[1])

        nothing = [lambda _: None, lambda: None]
        if kind == "pure":
            outgoing = Outgoing(known, tun, nothing[0])
            incoming = Incoming(known, tun, daemon.emit, nothing[1], nothing[0])
        else:
            core = native.core()
            assert core is not None, native.status().detail
            outgoing = NativeOutgoing(core, known, tun, nothing[0])
            incoming = NativeIncoming(core, known, tun, daemon.emit, nothing[1], nothing[0])
        for way in (outgoing, incoming):
            way.mtu, way.clamp = mtu, clamp
        yield Ends(known, inside, peer, outer, outgoing, incoming, daemon.events, daemon)

"""From the network to the TUN device: take datagrams, open what is ESP, pass on what is IKE (RFC 3948)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ikeway.address import Address
from ikeway.dataplane.interface import IkeReceived, PeerMoved, UnknownSpi
from ikeway.dataplane.userspace.associations import Associations, Receiving
from ikeway.dataplane.userspace.clamp import clamp_mss
from ikeway.dataplane.userspace.merging import Links, Merged, layout
from ikeway.dataplane.userspace.paths import OuterSocket
from ikeway.dataplane.userspace.sockets import NON_ESP_MARKER, Received, host_text, receive_into
from ikeway.dataplane.userspace.tun_io import TunIo
from ikeway.esp.drops import Drop
from ikeway.esp.frames import FrameBuffer, Frames
from ikeway.esp.inbound import Opened, strip
from ikeway.esp.inner import Octets
from ikeway.esp.parameters import Mode

# Enough to spread the cost of a turn, not so much that the other direction (acknowledgements, say) has to wait for long.
_BATCH = 32
_BATCH_OCTETS = 192 << 10
_LARGEST = 65536
_UNKNOWN_SPIS_A_SECOND = 10

# From this many datagrams on, comparing them all at once is cheaper than one by one.
_SHORTEST_TRAIN = 3

Delivery = Octets | Merged
Emit = Callable[[IkeReceived | PeerMoved | UnknownSpi], bool]


class Incoming:
    """`emit` hands an event to the daemon and says whether it was taken; `catch_up` drains the control channel."""

    def __init__(
        self,
        associations: Associations,
        tun: TunIo,
        emit: Emit,
        catch_up: Callable[[], None],
        touched: Callable[[Receiving], None],
    ) -> None:
        self._associations = associations
        self._tun = tun
        self._emit = emit
        self._catch_up = catch_up
        self._touched = touched
        self._buffer = FrameBuffer(_LARGEST)
        self._unknown_told = 0
        self._unknown_second = 0
        self.mtu = 0
        self.clamp = False

    def receive(self, outer: OuterSocket, now: float) -> None:
        """Read a socket until it is empty or the batch is full. Raises `OSError` for an error of the path."""
        octets = 0
        for _ in range(_BATCH):
            if octets >= _BATCH_OCTETS:
                return
            try:
                received = receive_into(outer.sock, self._buffer.buffer)
            except BlockingIOError:
                return
            octets += received.length
            self.process(outer, received, self._buffer.buffer[: received.length], now)

    def process(self, outer: OuterSocket, received: Received, octets: memoryview, now: float) -> None:
        """Take in what one read gave: one datagram, or several of one sender."""
        if outer.raw_esp:
            octets, received = _without_ip_header(outer, octets, received)
        packets: list[Delivery] = []
        size = received.segment or 1
        at = 0
        unclaimed = self._associations.unclaimed[True]
        while at < len(octets):
            end = at + size
            packet = octets[at:end]
            spi = packet[:4]
            if len(spi) < 4 or (len(packet) < 8 and spi != NON_ESP_MARKER):
                keepalive = len(packet) == 1 and packet[0] == 0xFF and not outer.raw_esp
                unclaimed.drop(Drop.KEEPALIVE if keepalive else Drop.TOO_SHORT)
            elif spi == NON_ESP_MARKER:
                self._pass_on(outer, received, bytes(octets[at + 4 : end]))
            else:
                # Datagrams that were merged share sender and time, and nearly always the SA.
                while end < len(octets) and octets[end : end + 4] == spi:
                    end += size
                self._open(at, octets[at:end], size, outer, received, now, packets)
            at = end
        if packets:
            self._tun.write(packets)

    def _open(
        self,
        start: int,
        octets: memoryview,
        size: int,
        outer: OuterSocket,
        received: Received,
        now: float,
        packets: list[Delivery],
    ) -> None:
        """Open the ESP packets of one SA, which begin at `start` in the buffer, and append what they carried."""
        number = int.from_bytes(octets[:4], "big")
        receiving = self._find(number)
        if receiving is None:
            self._associations.unclaimed[True].drop(Drop.UNKNOWN_SPI, -(-len(octets) // size))
            self._tell_unknown(number, received.source, now)
            return
        before, carried = receiving.sa.window.highest, receiving.sa.usage.packets
        whole = len(octets) // size
        train = (
            self._tun.vnet_header
            and whole >= _SHORTEST_TRAIN
            and start == 0  # nearly always: else the rows lie elsewhere
            and not received.traffic_class & 1  # ECN may change the inner packets
            and receiving.sa.parameters.mode is Mode.TUNNEL
        )
        if train:
            self._open_train(receiving, size, whole, packets)
        for at in range(whole * size if train else 0, len(octets), size):
            opened = receiving.sa.open(octets[at : at + size])
            if isinstance(opened, Drop):
                receiving.sa.usage.drop(opened)
            else:
                self._deliver(receiving, opened, received.traffic_class, packets)
        moved = receiving.sa.window.highest > before
        if moved or receiving.sa.usage.packets > carried:  # forged packets are no sign of life
            receiving.sa.usage.last_used = now
        if moved and not outer.raw_esp:
            self._follow(receiving, received.source)
        self._touched(receiving)

    def _find(self, spi: int) -> Receiving | None:
        receiving = self._associations.inbound.get(spi)
        if receiving is None:
            self._catch_up()  # the SA may have been added just now
            receiving = self._associations.inbound.get(spi)
        return receiving

    def _follow(self, receiving: Receiving, source: tuple[str, int]) -> bool:
        """Tell the daemon when authentic traffic comes from elsewhere. False when it could not be told: once more with
        the next packet."""
        parameters = receiving.sa.parameters
        if not parameters.follow_peer or source == receiving.told_remote:
            return True
        if not self._emit(PeerMoved(parameters.spi, Address(*source))):
            return False
        receiving.told_remote = source
        return True

    def _deliver(self, receiving: Receiving, opened: Opened, traffic_class: int, packets: list[Delivery]) -> None:
        """Check what one ESP packet carried and append it, to a train that it continues if there is one."""
        usage = receiving.sa.usage
        packet = receiving.unwrapper.unwrap(opened, traffic_class)
        if isinstance(packet, Drop):
            usage.drop(packet)
            return
        usage.packets += 1
        usage.octets += len(packet)
        if self.clamp:
            packet = self._clamped(packet)
        last = packets[-1] if packets else None
        if not (isinstance(last, Merged) and last.append(packet)):
            packets.append(packet)

    def _open_train(self, receiving: Receiving, size: int, count: int, packets: list[Delivery]) -> None:
        """Open the ESP packets of one length at the buffer's start, and merge what follows each other in a TCP flow."""
        sa, usage = receiving.sa, receiving.sa.usage
        shape = sa.shape(size)
        if size <= shape.head + shape.icv:
            usage.drop(Drop.TOO_SHORT, count)
            return
        frames = self._buffer.frames(shape, count)
        results = sa.open_frames(frames, count)
        links = self._links(receiving, frames, results)
        at = 0
        while at < count:
            refused = results[at]
            end = at + 1
            if refused is not None:
                usage.drop(refused)
            elif isinstance(opened := strip(frames.plain[at]), Drop):
                usage.drop(opened)
            elif links is None or not links.follow[at]:
                self._deliver(receiving, opened, 0, packets)
            else:
                while end < count and links.follow[end - 1]:
                    end += 1
                self._deliver_run(receiving, opened, links, at, end, packets)
            at = end

    def _links(self, receiving: Receiving, frames: Frames, results: Sequence[Drop | None]) -> Links | None:
        """Which rows can be merged with the next one; None when the first is no TCP segment with a payload."""
        if results[0] is not None:
            return None
        first = strip(frames.plain[0])
        if isinstance(first, Drop):
            return None
        packet = receiving.unwrapper.unwrap(first, 0)
        shape = None if isinstance(packet, Drop) else layout(packet)
        if shape is None:
            return None
        rows = frames.matrix[: len(results), frames.shape.head : frames.shape.size - frames.shape.icv]
        return Links.find(rows, shape, results)

    def _deliver_run(
        self, receiving: Receiving, first: Opened, links: Links, at: int, end: int, packets: list[Delivery]
    ) -> None:
        """Deliver rows that continue each other as one packet; they share the verdict on the first one."""
        usage = receiving.sa.usage
        packet = receiving.unwrapper.unwrap(first, 0)
        if isinstance(packet, Drop):
            usage.drop(packet, end - at)
            return
        usage.packets += end - at
        usage.octets += (end - at) * len(packet)
        packets.append(links.merged(at, end))

    def _clamped(self, packet: Octets) -> Octets:
        """The packet with its MSS clamped. What was decrypted is not writable; only a SYN is copied."""
        ipv4 = packet[0] >> 4 == 4
        at = (packet[0] & 15) * 4 if ipv4 else 40
        if len(packet) > at + 13 and packet[at + 13] & 0x02 and packet[9 if ipv4 else 6] == 6:
            packet = bytearray(packet)
            clamp_mss(packet, self.mtu)
        return packet

    def _pass_on(self, outer: OuterSocket, received: Received, octets: bytes) -> None:
        local = Address(host_text(received.local) or outer.host, outer.port)
        if not self._emit(IkeReceived(octets, local, Address(*received.source))):
            self._associations.unclaimed[True].drop(Drop.IKE_QUEUE_FULL)

    def _tell_unknown(self, spi: int, source: tuple[str, int], now: float) -> None:
        if int(now) != self._unknown_second:
            self._unknown_second, self._unknown_told = int(now), 0
        if self._unknown_told < _UNKNOWN_SPIS_A_SECOND:
            self._unknown_told += 1
            self._emit(UnknownSpi(spi, Address(*source)))


def _without_ip_header(outer: OuterSocket, octets: memoryview, received: Received) -> tuple[memoryview, Received]:
    """IPv4 raw sockets show the outer header, IPv6 ones do not."""
    if not outer.ipv6 and len(octets) >= 20:
        octets = octets[(octets[0] & 15) * 4 :]
    return octets, received._replace(length=len(octets), segment=len(octets))

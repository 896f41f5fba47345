"""From inner packets to what ESP carries and back: tunnel and transport mode (RFC 4301 section 5, RFC 4303 section 3.1).

Transport mode over a TUN device: the packet that comes out of the device is a whole IP packet between the two hosts. Its
IP header is left behind, and the receiver makes one anew: TTL 64, no options, the addresses of the selectors where
these are single hosts, else those of the outer packet. So IP options, hop-by-hop and routing headers, and fragments
are not carried (`Drop.TRANSPORT`), and TTL and DSCP do not travel. Behind a NAT the checksum of TCP and UDP was made
for other addresses and is made anew, as RFC 3948 section 3.1.2 allows.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from ikeway.esp.checksum import checksum, pseudo_header_sum
from ikeway.esp.drops import Drop
from ikeway.esp.ecn import apply_outer
from ikeway.esp.inbound import InboundSa, Opened
from ikeway.esp.inner import FRAGMENT, HOP_BY_HOP, ICMP, ICMPV6, ROUTING, TCP, UDP, Flow, Octets, cache_key, parse
from ikeway.esp.parameters import Encapsulation, EspSa, Mode
from ikeway.esp.selectors import SelectorPair
from ikeway.wire.payloads import TrafficSelector

IPV4, IPV6 = 4, 41  # next header values in tunnel mode
HOP_LIMIT = 64
_CACHED_FLOWS = 4096
_NOT_CARRIED = frozenset({HOP_BY_HOP, ROUTING, FRAGMENT})


def wrap(packet: Octets, mode: Mode) -> tuple[Octets, int] | Drop:
    """Payload and next header for ESP of a parsed inner packet."""
    version = packet[0] >> 4
    if mode is Mode.TUNNEL:
        return packet, IPV4 if version == 4 else IPV6
    if version == 4:
        if packet[0] != 0x45 or packet[6] & 0x3F or packet[7]:
            return Drop.TRANSPORT
        return packet[20:], packet[9]
    if packet[6] in _NOT_CARRIED:
        return Drop.TRANSPORT
    return packet[40:], packet[6]


class Unwrapper:
    """What one inbound SA lets out: inner packets that are whole and within its selectors."""

    __slots__ = ("_flows", "_selectors", "sa")

    def __init__(self, sa: InboundSa) -> None:
        self.sa = sa
        self._selectors = SelectorPair(sa.parameters.local_selectors, sa.parameters.remote_selectors)
        self._flows: set[bytes] = set()  # flows that the selectors allow

    def unwrap(self, opened: Opened, outer_traffic_class: int) -> Octets | Drop:
        """The inner packet. TFC padding behind it is cut off (RFC 4303 section 2.7)."""
        packet: Octets = opened.payload
        if self.sa.parameters.mode is Mode.TUNNEL:
            version = {IPV4: 4, IPV6: 6}.get(opened.next_header)
            if version is None:
                return Drop.NEXT_HEADER
            if not len(packet) or packet[0] >> 4 != version:
                return Drop.MALFORMED
        else:
            if opened.next_header in (IPV4, IPV6):
                return Drop.NEXT_HEADER
            packet = rebuild(self.sa.parameters, packet, opened.next_header)
        key = cache_key(packet)
        if key is not None and key in self._flows:
            length = packet[2] << 8 | packet[3] if packet[0] >> 4 == 4 else 40 + (packet[4] << 8 | packet[5])
            if not _room_for_ports(packet) <= length <= len(packet):
                return Drop.MALFORMED
        else:
            flow = parse(packet)
            if flow is None:
                return Drop.MALFORMED
            if not self._selectors.allows_inbound(flow):
                return Drop.SELECTORS
            length = flow.length
            if key is not None:
                self._remember(key)
        if length != len(packet):
            packet = packet[:length]
        if outer_traffic_class & 1 and self.sa.parameters.mode is Mode.TUNNEL:  # CE or ECT(1): may change the inner one
            return apply_outer(packet, outer_traffic_class) or Drop.ECN
        return packet

    def allows(self, packet: Octets) -> bool:
        """Whether the selectors let the flow of a well-formed inner packet pass."""
        key = cache_key(packet)
        if key is not None and key in self._flows:
            return True
        flow = parse(packet)
        if flow is None or not self._selectors.allows_inbound(flow):
            return False
        if key is not None:
            self._remember(key)
        return True

    def _remember(self, key: bytes) -> None:
        if len(self._flows) >= _CACHED_FLOWS:
            self._flows.clear()
        self._flows.add(key)


def _room_for_ports(packet: Octets) -> int:
    """What the selectors look at ends here, of a packet with a cache key: ports, or type and code."""
    if packet[0] >> 4 == 4:
        return 22 if packet[9] == ICMP else 24
    return 42 if packet[6] == ICMPV6 else 44


def rebuild(parameters: EspSa, payload: Octets, protocol: int) -> bytearray:
    """An IP packet around what transport mode carried."""
    source, destination = transport_addresses(parameters)
    packet = bytearray(20 if len(source) == 4 else 40) + payload
    if len(source) == 4:
        packet[0] = 0x45
        packet[2:4] = len(packet).to_bytes(2, "big")
        packet[6] = 0x40  # don't fragment: then no identification is needed (RFC 6864)
        packet[8], packet[9] = HOP_LIMIT, protocol
        packet[12:16], packet[16:20] = source, destination
        packet[10:12] = checksum(packet[:20]).to_bytes(2, "big")
    else:
        packet[0] = 0x60
        packet[4:6] = len(payload).to_bytes(2, "big")
        packet[6], packet[7] = protocol, HOP_LIMIT
        packet[8:24], packet[24:40] = source, destination
    if parameters.encapsulation is Encapsulation.UDP:
        _renew_checksum(packet, source, destination, protocol, len(packet) - len(payload))
    return packet


def transport_addresses(parameters: EspSa) -> tuple[bytes, bytes]:
    """Source and destination of packets that an inbound SA in transport mode carries."""
    return (
        _single_host(parameters.remote_selectors) or _packed(parameters.remote.host),
        _single_host(parameters.local_selectors) or _packed(parameters.local.host),
    )


def _single_host(selectors: tuple[TrafficSelector, ...]) -> bytes | None:
    hosts = {(s.start_address, s.end_address) for s in selectors}
    if len(hosts) != 1:
        return None
    start, end = hosts.pop()
    return start if start == end else None


@lru_cache(maxsize=1024)
def _packed(host: str) -> bytes:
    return ipaddress.ip_address(host).packed


def _renew_checksum(packet: bytearray, source: bytes, destination: bytes, protocol: int, at: int) -> None:
    place = at + {TCP: 16, UDP: 6}.get(protocol, len(packet))
    if place + 2 > len(packet) or (protocol == UDP and not any(packet[place : place + 2])):
        return
    packet[place : place + 2] = bytes(2)
    start = pseudo_header_sum(source, destination, protocol, len(packet) - at)
    packet[place : place + 2] = (checksum(packet[at:], start) or 0xFFFF).to_bytes(2, "big")


__all__ = ["HOP_LIMIT", "IPV4", "IPV6", "Flow", "Unwrapper", "rebuild", "transport_addresses", "wrap"]

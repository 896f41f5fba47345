"""Traffic selectors as the kernel has them (RFC 7296 section 3.13.1; <linux/xfrm.h>).

IKE speaks of ranges of addresses and ports, the kernel of networks, and of ports in which certain bits count. A range
becomes the fewest aligned blocks that cover it exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address, summarize_address_range

from ikeway.errors import HostError
from ikeway.host.linux.xfrm_structures import Network, Selector
from ikeway.wire.payloads import TrafficSelector

MOST = 1024  # selectors of one direction of a child SA
_ICMP = (1, 58)
_ALL_PORTS = (0, 0xFFFF)

Port = tuple[int, int]  # value and mask


def selectors(
    source: Sequence[TrafficSelector], destination: Sequence[TrafficSelector], *, ports_of_source: bool = True
) -> list[Selector]:
    """Every pair of a source and a destination, as the kernel's selectors. For ICMP, whose type and code stand in the
    port fields of either side, `ports_of_source` says which one counts. Raises HostError."""
    found: dict[Selector, None] = {}
    for one in source:
        for other in destination:
            for selector in _pair(one, other, ports_of_source):
                found[selector] = None
                if len(found) > MOST:
                    raise HostError(
                        f"the traffic selectors come to more than {MOST} of the kernel's",
                        remedy='negotiate whole networks instead of ranges, or use `data_plane = "userspace"`',
                    )
    return list(found)


def _pair(source: TrafficSelector, destination: TrafficSelector, ports_of_source: bool) -> Iterator[Selector]:
    if source.type is not destination.type:
        return
    if source.protocol and destination.protocol and source.protocol != destination.protocol:
        return
    protocol = source.protocol or destination.protocol
    pairs: list[tuple[Port, Port]]
    if protocol in _ICMP:
        pairs = [_icmp(source if ports_of_source else destination)]
    else:
        pairs = [(one, other) for one in _ports(source) for other in _ports(destination)]
    for network in _networks(source):
        for other_network in _networks(destination):
            for (port, mask), (other_port, other_mask) in pairs:
                yield Selector(
                    source=network,
                    destination=other_network,
                    protocol=protocol,
                    source_port=port,
                    source_port_mask=mask,
                    destination_port=other_port,
                    destination_port_mask=other_mask,
                )


def _networks(selector: TrafficSelector) -> list[Network]:
    first, last = ip_address(selector.start_address), ip_address(selector.end_address)
    return list(summarize_address_range(first, last))


def _ports(selector: TrafficSelector) -> list[Port]:
    first, last = selector.start_port, selector.end_port
    if (first, last) == _ALL_PORTS:
        return [(0, 0)]
    if first > last:
        raise _not_expressible("OPAQUE ports")
    return list(blocks(first, last))


def blocks(first: int, last: int) -> Iterator[Port]:
    """Values and masks that together match the ports from `first` to `last`, and no others."""
    while first <= last:
        size = first & -first or 0x10000
        while first + size - 1 > last:
            size >>= 1
        yield first, 0xFFFF & ~(size - 1)
        first += size


def _icmp(selector: TrafficSelector) -> tuple[Port, Port]:
    """Type and code (RFC 4301 section 4.4.1.1): the upper and the lower octet of the port fields."""
    first, last = selector.start_port, selector.end_port
    if (first, last) == _ALL_PORTS:
        return (0, 0), (0, 0)
    if first == last:
        return (first >> 8, 0xFFFF), (first & 0xFF, 0xFFFF)
    if first & 0xFF == 0 and last == first | 0xFF:
        return (first >> 8, 0xFFFF), (0, 0)
    raise _not_expressible("ranges of ICMP types or codes")


def _not_expressible(what: str) -> HostError:
    return HostError(
        f"the kernel has no selectors for {what}", remedy='negotiate others, or use `data_plane = "userspace"`'
    )

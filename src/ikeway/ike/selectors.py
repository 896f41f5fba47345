"""Traffic selectors: narrowing and checking (RFC 7296 sections 2.9 and 3.13)."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable, Sequence

from ikeway.errors import ConfigError
from ikeway.wire.payloads import TrafficSelector
from ikeway.wire.registry import TrafficSelectorType

ANY_PORT = (0, 65535)
OPAQUE = (65535, 0)  # ports that cannot be seen, in fragments (RFC 7296 section 3.13.1)
MAX_SELECTORS = 128  # that we grant at once: a payload has room for 255, and `merge` compares each with each
_FAMILIES = {
    4: TrafficSelectorType.TS_IPV4_ADDR_RANGE,
    6: TrafficSelectorType.TS_IPV6_ADDR_RANGE,
}
_PROTOCOLS = {"any": 0, "icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "icmpv6": 58, "sctp": 132}
ICMP_PROTOCOLS = frozenset({1, 58})

Selectors = tuple[TrafficSelector, ...]


def selector(
    network: str,
    *,
    protocol: int = 0,
    ports: tuple[int, int] = ANY_PORT,
) -> TrafficSelector:
    """The selector of a network ("10.0.0.0/8"), a range ("10.0.0.1-10.0.0.9") or one address."""
    try:
        if "-" in network:
            first, last = (ipaddress.ip_address(part.strip()) for part in network.split("-", 1))
        else:
            net = ipaddress.ip_network(network.strip(), strict=False)
            first, last = net[0], net[-1]
        if first.version != last.version or first.packed > last.packed:
            raise ValueError("the range ends before it begins")
    except ValueError as error:
        raise ConfigError(
            f"{network!r} is no traffic selector: {error}", expected='a network such as "10.1.0.0/16"'
        ) from None
    return TrafficSelector(_FAMILIES[first.version], protocol, *ports, first.packed, last.packed)


def parse_selector(text: str) -> TrafficSelector:
    """The selector of "NETWORK[PROTOCOL/PORT]", as strongSwan users write it: "10.1.0.0/16[tcp/80]", "fd00::/8[udp]"."""
    network, bracket, rest = text.partition("[")
    if not bracket:
        return selector(network)
    if not rest.endswith("]"):
        raise ConfigError(
            f"{text!r} is no traffic selector: the bracket is not closed", expected="NETWORK[PROTOCOL/PORT]"
        )
    name, _, port = rest[:-1].partition("/")
    try:
        protocol = _PROTOCOLS[name.lower()] if name.lower() in _PROTOCOLS else int(name or 0)
        low, _, high = port.partition("-")
        if port == "opaque":
            ports = OPAQUE
        else:
            ports = ANY_PORT if port in {"", "any"} else (int(low), int(high or low))
        if not (0 <= protocol <= 255 and (ports == OPAQUE or 0 <= ports[0] <= ports[1] <= 65535)):
            raise ValueError("a number is out of range")
    except ValueError as error:
        raise ConfigError(f"{text!r} is no traffic selector: {error}", expected="NETWORK[PROTOCOL/PORT]") from None
    return selector(network, protocol=protocol, ports=ports)


def format_selector(ts: TrafficSelector) -> str:
    """The selector in the notation of `parse_selector`."""
    if not is_known(ts):
        return f"type {int(ts.type)}"
    first, last = ipaddress.ip_address(ts.start_address), ipaddress.ip_address(ts.end_address)
    # A peer may send a range that ends before it begins, or one of hundreds of networks: two are enough to see.
    ordered = ts.start_address <= ts.end_address
    networks = list(itertools.islice(ipaddress.summarize_address_range(first, last), 2)) if ordered else []
    where = str(networks[0]) if len(networks) == 1 else f"{first}-{last}"
    if ts.protocol == 0 and (ts.start_port, ts.end_port) == ANY_PORT:
        return where
    name = next((key for key, number in _PROTOCOLS.items() if number == ts.protocol), str(ts.protocol))
    if (ts.start_port, ts.end_port) == ANY_PORT:
        return f"{where}[{name}]"
    if (ts.start_port, ts.end_port) == OPAQUE:
        return f"{where}[{name}/opaque]"
    ports = str(ts.start_port) if ts.start_port == ts.end_port else f"{ts.start_port}-{ts.end_port}"
    return f"{where}[{name}/{ports}]"


def is_known(ts: TrafficSelector) -> bool:
    """True for the two types of RFC 7296; others are never matched."""
    return ts.type in _FAMILIES.values()


def networks(selectors: Iterable[TrafficSelector]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """The networks that cover the selectors' addresses, for routes."""
    found: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for ts in selectors:
        if is_known(ts):
            first, last = ipaddress.ip_address(ts.start_address), ipaddress.ip_address(ts.end_address)
            found.extend(ipaddress.summarize_address_range(first, last))
    return list(dict.fromkeys(found))


def intersect(one: TrafficSelector, other: TrafficSelector) -> TrafficSelector | None:
    """What both selectors hold, or None."""
    if one.type != other.type or not is_known(one):
        return None
    if one.protocol and other.protocol and one.protocol != other.protocol:
        return None
    ports = _intersect_ports(one, other)
    start = max(one.start_address, other.start_address)
    end = min(one.end_address, other.end_address)
    if ports is None or start > end:
        return None
    return TrafficSelector(one.type, one.protocol or other.protocol, *ports, start, end)


def contains(outer: TrafficSelector, inner: TrafficSelector) -> bool:
    """True when all that `inner` holds is in `outer`."""
    return intersect(outer, inner) == inner


def narrow(offered: Sequence[TrafficSelector], granted: Sequence[TrafficSelector]) -> Selectors:
    """The responder's choice: all intersections, without those that lie within another; at most `MAX_SELECTORS`."""
    cuts = (cut for grant in granted for offer in offered if (cut := intersect(offer, grant)) is not None)
    found: dict[TrafficSelector, None] = {}
    for cut in cuts:
        found[cut] = None
        if len(found) == MAX_SELECTORS:
            break
    return merge(found)


def merge(selectors: Iterable[TrafficSelector]) -> Selectors:
    """Drop duplicates and selectors that lie within another; the order stays."""
    unique = list(dict.fromkeys(selectors))
    return tuple(ts for ts in unique if not any(other is not ts and contains(other, ts) for other in unique))


def is_subset(inner: Sequence[TrafficSelector], outer: Sequence[TrafficSelector]) -> bool:
    """The initiator's check: every selector that came back lies within one that was offered."""
    return bool(inner) and all(any(contains(ts_outer, ts) for ts_outer in outer) for ts in inner)


def _intersect_ports(one: TrafficSelector, other: TrafficSelector) -> tuple[int, int] | None:
    mine, theirs = (one.start_port, one.end_port), (other.start_port, other.end_port)
    if OPAQUE in (mine, theirs):
        return OPAQUE if {mine, theirs} <= {OPAQUE, ANY_PORT} else None
    low, high = max(mine[0], theirs[0]), min(mine[1], theirs[1])
    return (low, high) if low <= high else None

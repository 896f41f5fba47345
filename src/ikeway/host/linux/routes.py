"""Routes and routing rules, over rtnetlink."""

from __future__ import annotations

import enum
import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from ikeway.host.interface import IpAddress, IpNetwork
from ikeway.host.linux import netlink
from ikeway.host.linux.links import find_link, require_link
from ikeway.host.linux.netlink import Netlink, NetlinkError, decode_attributes

MAIN_TABLE = 254
PROTOCOL = 0x69  # our mark on routes and rules (RTPROT_*), as `ip route show proto 105` shows them

_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags
_RULE = struct.Struct("=BBBBBxxBI")  # family, dst len, src len, tos, table, action, flags

_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_METRICS = 1, 4, 5, 6, 7, 8
_RTA_TABLE, _RTA_IP_PROTO, _RTA_DPORT = 15, 27, 29
_RTAX_MTU = 2
_FRA_DST, _FRA_GOTO, _FRA_PRIORITY, _FRA_TABLE, _FRA_PROTOCOL = 1, 4, 6, 15, 21
_FRA_FWMARK, _FRA_FWMASK, _FRA_IP_PROTO, _FRA_DPORT_RANGE = 10, 16, 22, 24
_SCOPE_LINK = 253
_GONE = (errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EAFNOSUPPORT)


class RouteKind(enum.IntEnum):
    """What happens to a packet (RTN_*)."""

    UNICAST = 1
    LOCAL = 2
    UNREACHABLE = 7
    THROW = 9  # as if this table had no route: the next rule decides


class RuleAction(enum.IntEnum):
    """What a rule does (FR_ACT_*)."""

    LOOKUP = 1
    GOTO = 2
    NOTHING = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route. `via` is the next hop, None on a point-to-point interface or a connected network. Of two to the same
    network the one with the lower `metric` is taken, as long as it is there."""

    table: int
    destination: IpNetwork
    kind: RouteKind = RouteKind.UNICAST
    interface: str = ""
    source: IpAddress | None = None
    via: IpAddress | None = None
    metric: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One routing rule. `family` is 4 or 6. `protocol`, `port` and `mark` narrow it to an IP protocol, a destination
    port and a firewall mark, 0 for any; `target` is the table of LOOKUP or the priority to go on at of GOTO."""

    family: int
    priority: int
    action: RuleAction
    target: int = 0
    destination: IpNetwork | None = None
    protocol: int = 0
    port: int = 0
    mark: int = 0


@dataclass(frozen=True, slots=True)
class Path:
    """How the kernel would send a packet now. `mtu` is 0 when only the interface's own applies."""

    interface_index: int
    source: IpAddress | None
    mtu: int


def add_route(nl: Netlink, route: Route) -> None:
    """Add a route. One to the same destination is replaced in a table of ours; in main it is somebody else's (EEXIST)."""
    fixed, attributes = _encode_route(nl, route)
    existing = netlink.NLM_F_EXCL if route.table == MAIN_TABLE else netlink.NLM_F_REPLACE
    nl.change(netlink.RTM_NEWROUTE, fixed, attributes, netlink.NLM_F_CREATE | existing)


def delete_route(nl: Netlink, route: Route) -> bool:
    """Remove a route; False when it or its interface was gone."""
    if route.interface and find_link(nl, route.interface) is None:
        return False
    return _delete(nl, netlink.RTM_DELROUTE, *_encode_route(nl, route))


def add_rule(nl: Netlink, rule: Rule) -> None:
    """Add a rule (EEXIST when the very same is there)."""
    nl.change(netlink.RTM_NEWRULE, *_encode_rule(rule), netlink.NLM_F_CREATE | netlink.NLM_F_EXCL)


def delete_rule(nl: Netlink, rule: Rule) -> bool:
    """Remove a rule; False when it was gone."""
    return _delete(nl, netlink.RTM_DELRULE, *_encode_rule(rule))


def rule_priorities(nl: Netlink) -> set[int]:
    """The priorities of all rules of both families."""
    priorities = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        for body in _dump(nl, netlink.RTM_GETRULE, _RULE.pack(family, 0, 0, 0, 0, 0, 0)):
            value = decode_attributes(body[_RULE.size :]).get(_FRA_PRIORITY, bytes(4))
            priorities.add(struct.unpack("=I", value)[0])
    return priorities


def tables_in_use(nl: Netlink) -> set[int]:
    """The numbers of all tables that hold a route of either family."""
    return {route.table for route in routes(nl)}


def routes(nl: Netlink) -> list[Route]:
    """All routes of both families, without interface names."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for body in _dump(nl, netlink.RTM_GETROUTE, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)):
            route = _decode_route(body)
            if route is not None:
                found.append(route)
    return found


def connected_networks(nl: Netlink, without: str) -> list[IpNetwork]:
    """The networks that main's routes reach without a router, except on loopback and on interface `without`."""
    link = find_link(nl, without)
    excluded = {1, link.index if link else 0}
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for body in _dump(nl, netlink.RTM_GETROUTE, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)):
            attributes = decode_attributes(body[_ROUTE.size :])
            route = _decode_route(body)
            index = int.from_bytes(attributes.get(_RTA_OIF, b""), "little")
            if route is None or route.table != MAIN_TABLE or route.kind is not RouteKind.UNICAST:
                continue
            if route.via is None and route.destination.prefixlen and index and index not in excluded:
                found.append(route.destination)
    return found


def path_to(nl: Netlink, destination: IpAddress, protocol: int = 0, port: int = 0) -> Path | None:
    """How a packet to `destination` (with that IP protocol and destination port) would leave; None: not at all."""
    family = socket.AF_INET6 if destination.version == 6 else socket.AF_INET
    attributes = {_RTA_DST: destination.packed}
    if protocol:
        attributes[_RTA_IP_PROTO] = bytes([protocol])
    if port:
        attributes[_RTA_DPORT] = port.to_bytes(2, "big")
    bits = destination.max_prefixlen
    try:
        body = nl.get(netlink.RTM_GETROUTE, _ROUTE.pack(family, bits, 0, 0, 0, 0, 0, 0, 0), attributes)
    except NetlinkError as error:
        if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EACCES, *_GONE):
            return None
        raise
    found = decode_attributes(body[_ROUTE.size :])
    source = found.get(_RTA_PREFSRC)
    mtu = decode_attributes(found.get(_RTA_METRICS, b"")).get(_RTAX_MTU, bytes(4))
    return Path(
        struct.unpack("=I", found.get(_RTA_OIF, bytes(4)))[0],
        ip_address(source) if source else None,
        struct.unpack("=I", mtu)[0],
    )


def _encode_route(nl: Netlink, route: Route) -> tuple[bytes, dict[int, bytes]]:
    family = socket.AF_INET6 if route.destination.version == 6 else socket.AF_INET
    scope = _SCOPE_LINK if route.interface and route.via is None and family == socket.AF_INET else 0
    table = route.table if route.table < 256 else 0
    fixed = _ROUTE.pack(family, route.destination.prefixlen, 0, 0, table, PROTOCOL, scope, route.kind, 0)
    attributes = {_RTA_TABLE: struct.pack("=I", route.table)}
    if route.destination.prefixlen:
        attributes[_RTA_DST] = route.destination.network_address.packed
    if route.interface:
        attributes[_RTA_OIF] = struct.pack("=I", require_link(nl, route.interface).index)
    if route.via is not None:
        attributes[_RTA_GATEWAY] = route.via.packed
    if route.metric:
        attributes[_RTA_PRIORITY] = struct.pack("=I", route.metric)
    if route.source is not None:
        attributes[_RTA_PREFSRC] = route.source.packed
    return fixed, attributes


def _decode_route(body: bytes) -> Route | None:
    family, length, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
    attributes = decode_attributes(body[_ROUTE.size :])
    if kind not in RouteKind._value2member_map_:
        return None
    destination = attributes.get(_RTA_DST, bytes(16 if family == socket.AF_INET6 else 4))
    via = attributes.get(_RTA_GATEWAY)
    return Route(
        table=struct.unpack("=I", attributes[_RTA_TABLE])[0] if _RTA_TABLE in attributes else table,
        destination=ip_network((destination, length)),
        kind=RouteKind(kind),
        via=ip_address(via) if via else None,
    )


def _encode_rule(rule: Rule) -> tuple[bytes, dict[int, bytes]]:
    family = socket.AF_INET6 if rule.family == 6 else socket.AF_INET
    bits = rule.destination.prefixlen if rule.destination is not None else 0
    attributes = {_FRA_PRIORITY: struct.pack("=I", rule.priority), _FRA_PROTOCOL: bytes([PROTOCOL])}
    if rule.destination is not None:
        attributes[_FRA_DST] = rule.destination.network_address.packed
    if rule.action is RuleAction.LOOKUP:
        attributes[_FRA_TABLE] = struct.pack("=I", rule.target)
    elif rule.action is RuleAction.GOTO:
        attributes[_FRA_GOTO] = struct.pack("=I", rule.target)
    if rule.protocol:
        attributes[_FRA_IP_PROTO] = bytes([rule.protocol])
    if rule.port:
        attributes[_FRA_DPORT_RANGE] = struct.pack("=HH", rule.port, rule.port)
    if rule.mark:
        attributes[_FRA_FWMARK] = struct.pack("=I", rule.mark)
        attributes[_FRA_FWMASK] = struct.pack("=I", 0xFFFFFFFF)
    table = rule.target if rule.action is RuleAction.LOOKUP and rule.target < 256 else 0
    return _RULE.pack(family, bits, 0, 0, table, rule.action, 0), attributes


def _delete(nl: Netlink, kind: int, fixed: bytes, attributes: dict[int, bytes]) -> bool:
    try:
        nl.change(kind, fixed, attributes)
    except NetlinkError as error:
        if error.errno in _GONE:
            return False
        raise
    return True


def _dump(nl: Netlink, kind: int, fixed: bytes) -> list[bytes]:
    """A dump that is empty where the kernel lacks the family (IPv6 switched off at boot)."""
    try:
        return nl.dump(kind, fixed)
    except NetlinkError as error:
        if error.errno in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
            return []
        raise

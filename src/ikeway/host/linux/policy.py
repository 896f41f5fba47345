"""What the routing of a client looks like: a table of our own, and three rules.

```
21000+n  to GATEWAY udp port 500, 4500 (and ESP)   goto 21300+n     the tunnel's own packets, past our table
21000+n  with a mark of ours                       goto 21300+n     the same, where the kernel makes ESP
21100+n  all                                       lookup OUR TABLE (split tunnel; 21200+n for a full one)
21300+n  all                                       nothing          the landing place
```

Why not the usual ways. A host route to the gateway in the main table names a next hop, and is wrong the moment the
host changes networks, which MOBIKE is to survive. A mark on the sockets (fwmark) needs every socket of every process
to carry it, and defeats strict reverse path filtering. These rules name only the gateway: what goes there follows
whatever the main table says now, so nothing needs to be computed anew when the network changes.

The kernel's own ESP is the exception: before Linux 6.12 it looks up routes for it without protocol or port, so that it
has to be marked (XFRMA_SET_MARK). Nothing that comes in is ever marked.

They match the ports of IKE and ESP, not the whole address. Otherwise somebody who makes the gateway's name resolve to
a web site's address would draw that site's traffic out of the tunnel (TunnelCrack's ServerIP, CVE-2023-36673).

Our table comes before main: with a full tunnel, routes that a DHCP server pushes cannot draw traffic out of it
(TunnelVision, CVE-2024-3661). Exceptions are made by `throw` routes ("go on as if this table were empty"): link-local
and multicast always, and local private networks as `TunnelConfiguration` says. A split tunnel comes before a full one.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from ikeway.address import Address
from ikeway.errors import HostError
from ikeway.host.interface import IpAddress, IpNetwork, TunnelConfiguration
from ikeway.host.journal import Change
from ikeway.host.linux.changes import AddressAdded, RouteAdded, RuleAdded
from ikeway.host.linux.netlink import Netlink
from ikeway.host.linux.routes import Route, RouteKind, Rule, RuleAction, rule_priorities, tables_in_use

SLOTS = 100
_TABLE = 0x696B6500
_GATEWAY, _SPLIT, _FULL, _LANDING = 21000, 21100, 21200, 21300
_LAST = 0x7FFFFFFF  # metric of a route that is taken when there is no other
_IKE_PORTS = (500, 4500)
_NEVER_INSIDE = tuple(map(ip_network, ("169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32", "fe80::/10", "ff00::/8")))
_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")))


@dataclass(frozen=True, slots=True)
class Slot:
    """The table and the rule priorities of one connection."""

    number: int

    @property
    def table(self) -> int:
        """The number of our routing table."""
        return _TABLE + self.number

    def rule(self, family: int, base: int, action: RuleAction, target: int = 0) -> Rule:
        """A rule of ours without a condition."""
        return Rule(family=family, priority=base + self.number, action=action, target=target)


def free_slot(nl: Netlink) -> Slot:
    """A slot that nobody uses (`HostError` when all are taken)."""
    priorities, tables = rule_priorities(nl), tables_in_use(nl)
    for number in range(SLOTS):
        taken = {base + number for base in (_GATEWAY, _SPLIT, _FULL, _LANDING)} & priorities
        if not taken and _TABLE + number not in tables:
            return Slot(number)
    raise HostError(
        f"all {SLOTS} routing tables for tunnels are in use", remedy="take down connections that are not needed"
    )


def landing(slot: Slot, family: int = 4) -> RuleAdded:
    """The rule that the others jump to. That of IPv4 is made first and is always there: it marks the slot as taken."""
    return RuleAdded.of(slot.rule(family, _LANDING, RuleAction.NOTHING))


def tunnel_changes(configuration: TunnelConfiguration, slot: Slot, local: Iterable[IpNetwork]) -> list[Change]:
    """All addresses, routes and rules of a tunnel, in the order in which to make them: what takes traffic into the
    tunnel comes last. `local` are the directly connected networks."""
    interface = configuration.interface
    changes: list[Change] = [AddressAdded.of(interface, address) for address in configuration.addresses]
    routes = _routes(configuration, slot, local)
    changes += [RouteAdded.of(route) for route in routes]
    families = sorted({route.destination.version for route in routes})
    changes += [landing(slot, family) for family in {4, *families}]
    for gateway in (configuration.gateway, *configuration.other_gateways):
        if (version := ip_address(gateway.host).version) in families:
            changes += [RuleAdded.of(rule) for rule in _gateway_rules(gateway, version, slot)]
    if configuration.mark:
        changes += [RuleAdded.of(_mark_rule(configuration.mark, family, slot)) for family in families]
    for family in families:
        is_full = any(network.prefixlen == 0 and network.version == family for network in configuration.routes)
        changes.append(RuleAdded.of(slot.rule(family, _FULL if is_full else _SPLIT, RuleAction.LOOKUP, slot.table)))
    return list(dict.fromkeys(changes))


def _gateway_rules(gateway: Address, version: int, slot: Slot) -> Iterable[Rule]:
    destination = ip_network(gateway.host)
    flows = [(socket.IPPROTO_UDP, port) for port in sorted({*_IKE_PORTS, gateway.port} - {0})]
    for protocol, port in [*flows, (socket.IPPROTO_ESP, 0)]:
        yield Rule(
            family=version,
            priority=_GATEWAY + slot.number,
            action=RuleAction.GOTO,
            target=_LANDING + slot.number,
            destination=destination,
            protocol=protocol,
            port=port,
        )


def _mark_rule(mark: int, family: int, slot: Slot) -> Rule:
    return Rule(
        family=family,
        priority=_GATEWAY + slot.number,
        action=RuleAction.GOTO,
        target=_LANDING + slot.number,
        mark=mark,
    )


def _routes(configuration: TunnelConfiguration, slot: Slot, local: Iterable[IpNetwork]) -> list[Route]:
    inside = [each for each in configuration.routes if not _covers_any(configuration.exclude, each)]
    routes = [
        Route(
            table=slot.table,
            destination=network,
            interface=configuration.interface,
            source=_source(configuration, network),
        )
        for network in inside
    ]
    if configuration.kill_switch:
        # A device's routes go with it. Then these are found, not those of the host: also after a `kill -9`.
        routes += [
            Route(table=slot.table, destination=network, kind=RouteKind.UNREACHABLE, metric=_LAST) for network in inside
        ]
    taken = set(inside)
    for network in configuration.block:
        if network not in taken:
            routes.append(Route(table=slot.table, destination=network, kind=RouteKind.UNREACHABLE))
            taken.add(network)
    outside = [each for each in _NEVER_INSIDE if _may_stay_outside(each)]
    outside += [each for each in local if configuration.keep_local_networks and _may_stay_outside(each)]
    for network in (*outside, *configuration.exclude):
        if network not in taken and _covers_any(taken, network):
            routes.append(Route(table=slot.table, destination=network, kind=RouteKind.THROW))
            taken.add(network)
    return routes


def _may_stay_outside(network: IpNetwork) -> bool:
    return any(
        network.version == allowed.version and network.subnet_of(allowed)  # type: ignore[arg-type]
        for allowed in (*_PRIVATE, *_NEVER_INSIDE)
    )


def _covers_any(networks: Iterable[IpNetwork], inner: IpNetwork) -> bool:
    """True when one of `networks` contains `inner`, so that an exception is needed at all."""
    return any(
        inner.version == network.version and inner.subnet_of(network)  # type: ignore[arg-type]
        for network in networks
    )


def _source(configuration: TunnelConfiguration, network: IpNetwork) -> IpAddress | None:
    return next((each.ip for each in configuration.addresses if each.version == network.version), None)

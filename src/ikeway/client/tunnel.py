"""What the client's host has to look like for a connection: from the profile, and from what was agreed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from ikeway.address import Address
from ikeway.client.assigned import Assigned
from ikeway.client.profile import HostSettings
from ikeway.esp.parameters import EspTransforms
from ikeway.host.interface import IpAddress, IpNetwork, TunnelConfiguration
from ikeway.host.mtu import tunnel_mtu_for_any

EVERYTHING: tuple[IpNetwork, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """What the gateway and we agreed on. `networks` are those behind the gateway, of all child SAs."""

    gateway: Address
    assigned: Assigned
    networks: tuple[IpNetwork, ...]
    transforms: tuple[EspTransforms, ...]
    udp: bool


def tunnel_configuration(settings: HostSettings, agreed: Agreed, interface: str, outer_mtu: int) -> TunnelConfiguration:
    """What to make of the host."""
    addresses = tuple(dict.fromkeys((*agreed.assigned.addresses, *settings.addresses)))
    families = {each.version for each in addresses}
    granted = tuple(each for each in agreed.networks if each.version in families)
    routes = _told(settings, agreed.assigned, granted) if settings.routes is None else _within(settings.routes, granted)
    full: set[int] = {each.version for each in routes if each.prefixlen == 0}
    servers, domains, for_all = _names(settings, agreed.assigned, granted, full)
    if routes != granted:
        # A name server that the gateway told of is asked through the tunnel, whatever else goes through it.
        routes = tuple(dict.fromkeys((*routes, *_hosts(servers, granted, routes))))
    return TunnelConfiguration(
        interface=interface,
        addresses=addresses,
        mtu=settings.mtu
        or tunnel_mtu_for_any(
            outer_mtu, agreed.transforms, outer_ipv6=agreed.gateway.is_ipv6, udp=agreed.udp, inner_ipv6=6 in families
        ),
        gateway=agreed.gateway,
        routes=routes,
        block=_block(settings, full, routes),
        exclude=settings.exclude,
        kill_switch=settings.kill_switch,
        keep_local_networks=settings.keep_local_networks,
        dns_servers=servers,
        search_domains=domains,
        dns_for_all=for_all,
    )


def inside(settings: HostSettings) -> HostSettings:
    """What the profile's settings come to in an enclave, where there is nothing but the tunnel: its name servers are
    asked for all names, and there is nothing beside it to keep, to block or to leave to it."""
    return dataclasses.replace(
        settings,
        dns="off" if settings.dns == "off" else "all",
        keep_local_networks=False,
        block_leaks=False,
        told_routes=False,
    )


def _told(settings: HostSettings, assigned: Assigned, granted: tuple[IpNetwork, ...]) -> tuple[IpNetwork, ...]:
    """What is granted; of a family of which everything is, the networks that the gateway names, if it names any."""
    if not settings.told_routes:
        return granted
    found: list[IpNetwork] = []
    for grant in granted:
        named = [each for each in assigned.subnets if each.version == grant.version] if grant.prefixlen == 0 else []
        found += named or [grant]
    return tuple(dict.fromkeys(found))


def _within(wanted: Iterable[IpNetwork], granted: Sequence[IpNetwork]) -> tuple[IpNetwork, ...]:
    """What is both wanted and granted: of two networks of which one holds the other, the smaller one."""
    found: list[IpNetwork] = []
    for wish in wanted:
        for grant in granted:
            if _holds(grant, wish):
                found.append(wish)
            elif _holds(wish, grant):
                found.append(grant)
    return tuple(dict.fromkeys(found))


def _holds(outer: IpNetwork, inner: IpNetwork) -> bool:
    if isinstance(outer, IPv4Network):
        return isinstance(inner, IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, IPv6Network) and inner.subnet_of(outer)


def _names(
    settings: HostSettings, assigned: Assigned, granted: Sequence[IpNetwork], full: set[int]
) -> tuple[tuple[IpAddress, ...], tuple[str, ...], bool]:
    """Name servers, their domains, and whether they are asked for everything."""
    if settings.dns == "off":
        return (), (), False
    # A server that no SA leads to would be asked in vain, and every name would take its time-out.
    told = [each for each in assigned.dns_servers if any(_holds(net, ip_network(each)) for net in granted)]
    servers = settings.dns_servers or tuple(told)
    domains = tuple(dict.fromkeys((*settings.domains, *assigned.domains)))
    if not servers:
        return (), (), False
    if settings.dns == "auto":
        return servers, domains, bool(full) or not domains
    if settings.dns == "domains":
        return (servers, domains, False) if domains else ((), (), False)
    return servers, domains, True


def _hosts(servers: Iterable[IpAddress], granted: Sequence[IpNetwork], routes: Sequence[IpNetwork]) -> list[IpNetwork]:
    hosts = [ip_network(each) for each in servers]
    return [
        each
        for each in hosts
        if any(_holds(net, each) for net in granted) and not any(_holds(net, each) for net in routes)
    ]


def _block(settings: HostSettings, full: set[int], routes: Sequence[IpNetwork]) -> tuple[IpNetwork, ...]:
    """In a full tunnel of one family the other one must not leave beside it."""
    if not settings.block_leaks or not full:
        return ()
    carried = {each.version for each in routes}
    return tuple(each for each in EVERYTHING if each.version not in carried)

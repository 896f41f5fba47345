"""The Linux implementation of `HostNetwork`.

Netlink and sysctl calls are made directly on the event loop: each takes well under a millisecond. What may take longer
(nft, D-Bus) is awaited.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import re
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_address
from pathlib import Path

from ikeway.address import Address
from ikeway.errors import HostError
from ikeway.host.interface import GatewayConfiguration, IpAddress, NetworkChanged, TunnelConfiguration
from ikeway.host.journal import Change, Changes, is_existing
from ikeway.host.linux import sysctl
from ikeway.host.linux.changes import AddressAdded, RouteAdded
from ikeway.host.linux.dns import dns_change
from ikeway.host.linux.firewall import gateway_table
from ikeway.host.linux.links import addresses, find_link, links, set_link, silence_ipv6
from ikeway.host.linux.netlink import Netlink
from ikeway.host.linux.policy import Slot, free_slot, landing, tunnel_changes
from ikeway.host.linux.resolvconf import ResolvConfReplaced
from ikeway.host.linux.routes import MAIN_TABLE, Route, connected_networks, path_to
from ikeway.host.linux.watch import watch_network

_UDP = 17
_DEFAULT_MTU = 1500
_NAME = re.compile(r"[\w.@+-]{1,15}", re.ASCII)


class LinuxHostNetwork:
    """See `HostNetwork`."""

    def __init__(self, journal_directory: Path | None = None) -> None:
        self._changes = Changes(journal_directory)
        self._tunnel: TunnelConfiguration | None = None
        self._slot: Slot | None = None
        self._dns: Change | None = None
        self._names: tuple[object, ...] | None = None  # what `_dns` is for; None: it has to be looked at
        self._made: dict[str, list[Change]] = {}  # what stands, by interface
        self._busy = asyncio.Lock()  # one change of the whole at a time: D-Bus and nft are awaited in the middle

    async def configure_tunnel(self, configuration: TunnelConfiguration) -> None:
        """Make the host look like `configuration`, changing only what differs."""
        async with self._busy:
            await self._configure_tunnel(configuration)

    async def _configure_tunnel(self, configuration: TunnelConfiguration) -> None:
        _check_name(configuration.interface)
        self._adopt(configuration.interface)
        self._slot = self._slot or await self._claim_slot(configuration.interface)
        with Netlink() as nl:
            local = connected_networks(nl, configuration.interface)
            _bring_up(nl, configuration.interface, configuration.mtu, ipv6=_has_ipv6(configuration.addresses))
        self._tunnel = configuration
        wanted = tunnel_changes(configuration, self._slot, local)
        await self._replace(configuration.interface, wanted)
        if self._names != _dns_part(configuration):
            await self._configure_dns(configuration)

    async def device_replaced(self, interface: str) -> None:
        """Put back what has gone with the device. What does not depend on it stands all the time."""
        async with self._busy:
            await self._replace_device(interface)

    async def _replace_device(self, interface: str) -> None:
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is None:
            return
        self._names = None
        self._adopt(interface)
        made = self._made.setdefault(interface, [])
        for change in [each for each in reversed(made) if _is_on(each, tunnel.interface)]:
            await self._changes.undo(change)
            made.remove(change)
        await self._configure_tunnel(dataclasses.replace(tunnel, interface=interface))

    def _adopt(self, interface: str) -> None:
        """What stands for a tunnel stands for its one interface, whatever that is called now."""
        if self._tunnel is not None or self._slot is not None:
            standing = [change for changes in self._made.values() for change in changes]
            self._made = {interface: standing}

    async def configure_gateway(self, configuration: GatewayConfiguration) -> None:
        """Make the host look like `configuration`, changing only what differs."""
        _check_name(*configuration.interfaces, *configuration.masquerade_interfaces)
        with Netlink() as nl:
            for name in configuration.interfaces:
                _bring_up(nl, name, configuration.mtu, ipv6=_has_ipv6(configuration.all_pools))
                self._made.setdefault(name, [])
        async with self._busy:
            await self._replace(configuration.interface, _gateway_changes(configuration))

    async def refresh(self) -> None:
        """Adapt to a changed network: other local networks, a resolv.conf that somebody else has rewritten."""
        async with self._busy:
            if self._tunnel is None:
                return
            with Netlink() as nl:
                if find_link(nl, self._tunnel.interface) is None:
                    return
            await self._configure_tunnel(self._tunnel)
            if isinstance(self._dns, ResolvConfReplaced) and not self._dns.is_in_place():
                await self._changes.make_again(self._dns)

    async def close(self) -> None:
        """Undo everything. The object can be used again afterwards."""
        await self._changes.close()
        self._tunnel = self._slot = self._dns = self._names = None
        self._made.clear()

    def local_address(self, remote: Address) -> str | None:
        """Outer address from which `remote` is reached now; None when it is not, or only through the tunnel."""
        with Netlink() as nl:
            path = path_to(nl, ip_address(remote.host), _UDP, remote.port)
            if path is None or path.source is None or path.interface_index in self._own_interfaces(nl):
                return None
        return str(path.source)

    def outer_mtu(self, remote: Address) -> int:
        """MTU of the path to `remote`: what routes or ICMP have told, else the interface's; 1500 when unreachable."""
        with Netlink() as nl:
            path = path_to(nl, ip_address(remote.host), _UDP, remote.port)
            if path is None:
                return _DEFAULT_MTU
            return path.mtu or next(
                (link.mtu for link in links(nl) if link.index == path.interface_index), _DEFAULT_MTU
            )

    def local_addresses(self) -> tuple[IpAddress, ...]:
        """Every global outer address of this host, tunnel addresses left out."""
        with Netlink() as nl:
            own = self._own_interfaces(nl)
            up = {link.index for link in links(nl) if link.is_up and not link.is_loopback} - own
            return tuple(each.address.ip for each in addresses(nl) if each.index in up and each.is_usable)

    def watch(self) -> AsyncIterator[NetworkChanged]:
        """Changes of the host's network, our own left out."""
        return watch_network(self._is_own_interface)

    def _own_interfaces(self, nl: Netlink) -> set[int]:
        found = (find_link(nl, name) for name in self._made)
        return {link.index for link in found if link is not None}

    def _is_own_interface(self, index: int) -> bool:
        with Netlink() as nl:
            return index in self._own_interfaces(nl)

    async def _claim_slot(self, interface: str) -> Slot:
        while True:
            with Netlink() as nl:
                slot = free_slot(nl)
            try:
                rule = await self._changes.make(landing(slot))
            except HostError as error:
                if is_existing(error.__cause__):
                    continue  # another process was faster
                raise
            self._made.setdefault(interface, []).append(rule)
            return slot

    async def _replace(self, interface: str, wanted: Sequence[Change]) -> None:
        """Go over to `wanted`: first make what is missing, then undo what is not wanted any more, so that what both
        have stays. A route that only differs in its source has to go first: the kernel knows it by its destination."""
        made = self._made.setdefault(interface, [])
        missing = [change for change in wanted if change not in made]
        unwanted = [change for change in reversed(made) if change not in wanted]
        colliding = {_place(change) for change in missing} - {None}
        first = [change for change in unwanted if _place(change) in colliding]
        for change in first:
            await self._changes.undo(change)
            made.remove(change)
        for change in missing:
            await self._changes.make(change)
            made.append(change)
        for change in unwanted:
            if change not in first:
                await self._changes.undo(change)
                made.remove(change)

    async def _configure_dns(self, configuration: TunnelConfiguration) -> None:
        self._names = None
        if self._dns is not None:
            await self._changes.undo(self._dns)
            self._dns = None
        change = await dns_change(configuration)
        if change is not None:
            self._dns = await self._changes.make(change)
        self._names = _dns_part(configuration)


def _gateway_changes(configuration: GatewayConfiguration) -> list[Change]:
    changes: list[Change] = [AddressAdded.of(configuration.interface, each) for each in configuration.addresses]
    for interface, pools in ((configuration.interface, configuration.pools), *configuration.further):
        for pool in pools:
            source = next((each.ip for each in configuration.addresses if each.version == pool.version), None)
            route = Route(table=MAIN_TABLE, destination=pool, interface=interface, source=source)
            changes.append(RouteAdded.of(route))
    if configuration.forward:
        versions = {pool.version for pool in configuration.all_pools}
        changes += [sysctl.forwarding(version) for version in sorted(versions)]
    table = gateway_table(configuration)
    return [*changes, table] if table else changes


def _place(change: Change) -> tuple[int, str, int] | None:
    return (change.table, change.destination, change.metric) if isinstance(change, RouteAdded) else None


def _is_on(change: Change, interface: str) -> bool:
    """True for what has gone with an interface."""
    return isinstance(change, AddressAdded | RouteAdded) and change.interface == interface


def _bring_up(nl: Netlink, interface: str, mtu: int, *, ipv6: bool) -> None:
    """Link state and MTU are not journalled: the interface is the data plane's and goes with it."""
    try:
        if ipv6 and (sysctl.ROOT / f"net/ipv6/conf/{interface}").exists():
            sysctl.write(f"net/ipv6/conf/{interface}/disable_ipv6", "0")
        silence_ipv6(nl, interface)
        set_link(nl, interface, up=True, mtu=mtu)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise HostError(
                f"may not configure {interface}",
                expected="CAP_NET_ADMIN",
                remedy="run as root (sudo); without root there are `ikeway run` and `ikeway proxy`",
            ) from error
        raise HostError(f"cannot bring up {interface} with an MTU of {mtu}: {error.strerror}") from error


def _check_name(*names: str) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise HostError(
                f"{name!r} is no interface name",
                expected="1 to 15 letters, digits or . _ - + @",
                remedy="choose another",
            )


def _has_ipv6(values: Sequence[object]) -> bool:
    return any(getattr(value, "version", 4) == 6 for value in values)


def _dns_part(configuration: TunnelConfiguration) -> tuple[object, ...]:
    return (
        configuration.interface,
        configuration.dns_servers,
        configuration.search_domains,
        configuration.dns_for_all,
    )

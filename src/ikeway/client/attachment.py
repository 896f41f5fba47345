"""The client's side of the host: makes it look like what was agreed, and keeps it so."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from ipaddress import collapse_addresses

from ikeway.address import Address
from ikeway.client.link import Link
from ikeway.client.profile import Profile
from ikeway.client.tunnel import Agreed, tunnel_configuration
from ikeway.daemon.runner import Runner
from ikeway.esp.parameters import Mode
from ikeway.host import HostNetwork, IpAddress, IpNetwork, NetworkChanged, TunnelConfiguration
from ikeway.ike.selectors import networks


class Attachment:
    """The tunnel as this host sees it. `configuration` is what it looks like now."""

    def __init__(self, profile: Profile, runner: Runner, host: HostNetwork) -> None:
        """Nothing is changed yet."""
        self.configuration: TunnelConfiguration | None = None
        self._profile = profile
        self._runner = runner
        self._host = host
        self._gateways: tuple[Address, ...] = ()  # those of its name
        self._told: tuple[Address, ...] = ()  # those that it told of itself (MOBIKE)

    def local_address(self, remote: Address) -> str | None:
        """The outer address to reach `remote` from; None when there is no way. One that the profile names is kept as
        long as there is a way at all."""
        local = self._host.local_address(remote)
        wanted = self._profile.local_address
        if wanted is None or local is None:
            return local
        return str(wanted) if (wanted.version == 6) == remote.is_ipv6 else None

    def has_address(self, address: IpAddress) -> bool:
        """True when this host has that address."""
        return address.is_loopback or address in self._host.local_addresses()

    async def allow(self, gateways: Sequence[Address]) -> None:
        """Let the ways to these addresses lead past a tunnel that stands (the gateway may have moved)."""
        self._gateways = tuple(gateways)
        if self.configuration is not None:
            await self._configure(self.configuration)

    async def follow(self, link: Link) -> TunnelConfiguration | None:
        """Make the host look like what was agreed. Returns the configuration when it had to be changed."""
        wanted = tunnel_configuration(
            self._profile.host, self._agreed(link), self._runner.interface, self._host.outer_mtu(link.sa.remote)
        )
        self._told = tuple(link.sa.remote._replace(host=host) for host in link.sa.peer_addresses)
        wanted = dataclasses.replace(self._with_gateways(wanted), mark=self._runner.mark)
        if wanted == self.configuration:
            return None
        await self._configure(wanted)
        return wanted

    async def refresh(self) -> None:
        """The network has changed: see to what depends on it."""
        await self._host.refresh()

    def watch(self) -> AsyncIterator[NetworkChanged]:
        """Changes of the network."""
        return self._host.watch()

    async def device_replaced(self) -> None:
        """The tunnel's device was made anew: what stood on the old one has gone with it."""
        standing, self.configuration = self.configuration, None  # if this fails, `follow` has all of it to do
        if standing is not None:
            await self._host.device_replaced(self._runner.interface)
            await self._runner.set_mtu(standing.mtu)
            self.configuration = dataclasses.replace(standing, interface=self._runner.interface)

    async def close(self) -> None:
        """Undo everything. Can be used again afterwards."""
        await self._host.close()
        self.configuration = None

    async def _configure(self, wanted: TunnelConfiguration) -> None:
        wanted = self._with_gateways(wanted)
        if wanted == self.configuration:
            return
        await self._host.configure_tunnel(wanted)
        if self.configuration is None or self.configuration.mtu != wanted.mtu:
            await self._runner.set_mtu(wanted.mtu)
        self.configuration = wanted

    def _with_gateways(self, wanted: TunnelConfiguration) -> TunnelConfiguration:
        known = dict.fromkeys((*self._gateways, *self._told))
        others = tuple(each for each in known if each.host != wanted.gateway.host)
        return dataclasses.replace(wanted, other_gateways=others)

    def _agreed(self, link: Link) -> Agreed:
        sa, children = link.sa, link.sa.live_children
        # The kernel takes the packets of transport mode where they leave by their own routes.
        routed = [child for child in children if child.mode is Mode.TUNNEL or not self._runner.in_kernel]
        found = networks(selector for child in routed for selector in child.remote_selectors)
        merged: list[IpNetwork] = []
        for version in (4, 6):
            merged += collapse_addresses(each for each in found if each.version == version)  # type: ignore[type-var]
        return Agreed(
            gateway=sa.remote,
            assigned=link.assigned,
            networks=tuple(merged),
            transforms=tuple(dict.fromkeys(child.esp_out.transforms for child in children)),
            udp=sa.udp_encapsulation,
        )

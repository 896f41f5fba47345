"""What the shells above need of the host, whichever operating system it is.

The values here are all that `client` and `gateway` see; the Linux implementation is in `ikeway.host.linux`, other
systems get a folder beside it.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Protocol

from ikeway.address import Address

IpAddress = IPv4Address | IPv6Address
IpInterface = IPv4Interface | IPv6Interface
IpNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelConfiguration:
    """What a client's host has to look like while a connection is up.

    `interface` exists already (the data plane made it). `addresses` are the virtual addresses, with the prefix length
    that is to stand on the interface (32 or 128 as a rule: what is reached through the tunnel is said by `routes`
    alone). `routes` are the granted networks; 0.0.0.0/0 and ::/0 make a full tunnel. `gateway` is the peer's outer
    address; its own IKE and ESP traffic never enters the tunnel, nor does that of `other_gateways` (MOBIKE: further
    addresses of the same peer). `mark` is the firewall mark of ESP that the kernel makes, 0 for none: its routes are
    looked up by nothing else. `block` are networks that are refused with
    "unreachable" instead of leaving outside the tunnel, e.g. ::/0 when a full tunnel carries IPv4 only.

    Networks in `exclude` leave beside the tunnel although a route covers them. With `kill_switch`, what is routed into
    the tunnel is refused when its interface is gone, until the configuration is undone, by whomever.

    With `keep_local_networks`, directly connected *private* networks that are more specific than a granted one stay
    reachable (printer, router). Public ones do not: a hostile network could name any range "local" and so draw
    traffic out of the tunnel (TunnelCrack, CVE-2023-36672).
    """

    interface: str
    addresses: tuple[IpInterface, ...]
    mtu: int
    gateway: Address
    other_gateways: tuple[Address, ...] = ()
    mark: int = 0
    routes: tuple[IpNetwork, ...] = ()
    block: tuple[IpNetwork, ...] = ()
    exclude: tuple[IpNetwork, ...] = ()
    kill_switch: bool = False
    keep_local_networks: bool = True
    dns_servers: tuple[IpAddress, ...] = ()
    # Domains whose names are asked of `dns_servers`, also appended to short names. Empty: all names.
    search_domains: tuple[str, ...] = ()
    # Ask `dns_servers` for every name although there are `search_domains` (full tunnel).
    dns_for_all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfiguration:
    """What a gateway's host has to look like while it serves.

    `addresses` are the gateway's own addresses inside the tunnel (may be empty), `pools` the networks whose members
    are reached through `interface`; `further` are other interfaces of the same gateway, each with its networks.
    `forward` switches routing on for the families of the pools. `masquerade` gives what leaves the pools towards other
    interfaces the gateway's own address; `masquerade_interfaces` limits that to the named outgoing interfaces.
    """

    interface: str
    addresses: tuple[IpInterface, ...]
    mtu: int
    pools: tuple[IpNetwork, ...] = ()
    further: tuple[tuple[str, tuple[IpNetwork, ...]], ...] = ()
    forward: bool = True
    masquerade: bool = False
    masquerade_interfaces: tuple[str, ...] = ()
    clamp_mss: bool = True  # lower the MSS of forwarded TCP connections to what fits `mtu`

    @property
    def interfaces(self) -> tuple[str, ...]:
        """All of them."""
        return (self.interface, *(name for name, _ in self.further))

    @property
    def all_pools(self) -> tuple[IpNetwork, ...]:
        """The networks of all interfaces."""
        return (*self.pools, *(network for _, networks in self.further for network in networks))


class ChangeKind(enum.Enum):
    """Why the network may have changed."""

    ADDRESSES = "addresses"
    ROUTES = "routes"
    LINKS = "links"
    RESUMED = "resumed"  # back from sleep: timers have stood still, the peer may have given us up


@dataclass(frozen=True, slots=True)
class NetworkChanged:
    """Something that can matter to a connection happened; a burst of changes comes as one."""

    kinds: frozenset[ChangeKind]
    slept: float = 0.0  # seconds of sleep, with RESUMED


class HostNetwork(Protocol):
    """The host's network settings for one connection (or one gateway). All that it changes it journals first, and
    `close` undoes it in reverse. What a killed process left is undone by `recover_stale()` at the next start.

    Errors are `HostError`. Methods are called from one event loop; they may block it for some milliseconds.
    """

    async def configure_tunnel(self, configuration: TunnelConfiguration) -> None:
        """Make the host look like `configuration`. Called again, it changes only what differs, so that traffic
        which both allow flows on (MOBIKE: another `gateway`; rekeyed with other transforms: another `mtu`)."""
        ...

    async def device_replaced(self, interface: str) -> None:
        """The tunnel's device was removed and made anew, as `interface`: put back what has gone with it."""
        ...

    async def configure_gateway(self, configuration: GatewayConfiguration) -> None:
        """The same for a gateway. Called again with another configuration of the same (first) interface, it changes
        what differs; several of them stand side by side."""
        ...

    async def refresh(self) -> None:
        """After `NetworkChanged`: adapt what depends on the surroundings (local networks, a rewritten
        resolv.conf). Cheap when nothing differs."""
        ...

    async def close(self) -> None:
        """Undo everything. Idempotent; goes on after a step that fails, and raises nothing."""
        ...

    def local_address(self, remote: Address) -> str | None:
        """Outer address from which `remote` is reached now, the tunnel itself left aside; None: not reachable."""
        ...

    def outer_mtu(self, remote: Address) -> int:
        """MTU of the path to `remote` as far as this host knows it."""
        ...

    def local_addresses(self) -> tuple[IpAddress, ...]:
        """Every global outer address of this host, tunnel addresses left out (MOBIKE, RFC 4555 section 3.6)."""
        ...

    def watch(self) -> AsyncIterator[NetworkChanged]:
        """Changes of the host's network, from now on, without an end. Our own changes are left out."""
        ...

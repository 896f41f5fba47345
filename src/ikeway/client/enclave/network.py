"""A client's host, when the tunnel stands in an enclave: outside nothing is changed, inside there is only the tunnel."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

from ikeway.address import Address
from ikeway.client.enclave.enclave import Enclave
from ikeway.host import (
    GatewayConfiguration,
    HostNetwork,
    IpAddress,
    NetworkChanged,
    TunnelConfiguration,
    open_host_network,
)


class EnclaveNetwork:
    """`HostNetwork` with two halves: what is asked of the surroundings is the host's, what is made is inside."""

    def __init__(self, enclave: Enclave) -> None:
        self._enclave = enclave
        self._host: HostNetwork = open_host_network()  # looks only
        self._standing: TunnelConfiguration | None = None

    async def configure_tunnel(self, configuration: TunnelConfiguration) -> None:
        """Make the network inside look like `configuration`. There are no local networks, the gateway is not reached
        from there, nor is what is excluded from the tunnel; every name is asked of the tunnel's servers, as there are
        no others."""
        self._standing = configuration
        await self._enclave.configure(
            configuration.interface,
            configuration.mtu,
            addresses=configuration.addresses,
            routes=configuration.routes,
            refused=configuration.exclude,
            dns_servers=configuration.dns_servers,
            search_domains=configuration.search_domains,
        )

    async def device_replaced(self, interface: str) -> None:
        """Put back what has gone with the device."""
        if self._standing is not None:
            await self.configure_tunnel(dataclasses.replace(self._standing, interface=interface))

    async def configure_gateway(self, configuration: GatewayConfiguration) -> None:
        """Gateways are not in enclaves."""
        raise NotImplementedError

    async def refresh(self) -> None:
        """Nothing inside depends on the surroundings."""

    async def close(self) -> None:
        """What is inside stays as it is: packets are dropped until there is a connection again."""

    def local_address(self, remote: Address) -> str | None:
        """Outer address from which `remote` is reached now."""
        return self._host.local_address(remote)

    def outer_mtu(self, remote: Address) -> int:
        """MTU of the path to `remote`."""
        return self._host.outer_mtu(remote)

    def local_addresses(self) -> tuple[IpAddress, ...]:
        """Every global outer address of this host."""
        return self._host.local_addresses()

    def watch(self) -> AsyncIterator[NetworkChanged]:
        """Changes of the host's network."""
        return self._host.watch()

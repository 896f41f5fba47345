"""What a gateway does to its host: interfaces, routes, forwarding, masquerading. One change at a time.

A change that was begun is carried to its end, also when whoever asked for it has gone (a client that hangs up, a data plane
that is given up): cut off in the middle, nobody would know what stands. After `close` nothing is changed any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ikeway.address import Address
from ikeway.daemon.runner import Runner
from ikeway.esp.parameters import EspTransforms
from ikeway.gateway.config import GatewayConfig
from ikeway.gateway.placement import Placement
from ikeway.host import GatewayConfiguration, HostNetwork
from ikeway.host.mtu import tunnel_mtu
from ikeway.lasting import Lasting
from ikeway.wire.registry import EncryptionAlgorithm, IntegrityAlgorithm

# The transforms with the largest ESP packets: whichever a client chooses, the MTU made from these fits.
_LARGEST = EspTransforms(
    encryption=EncryptionAlgorithm.ENCR_AES_CBC,
    key_bits=256,
    integrity=IntegrityAlgorithm.AUTH_HMAC_SHA2_512_256,
)
# Documentation addresses (RFC 5737, RFC 3849): where the default routes lead, without naming anybody.
_SOMEWHERE = (Address("192.0.2.1", 500), Address("2001:db8::1", 500))


class HostSide:
    """See the module. Made and used on one running event loop."""

    def __init__(
        self, network: HostNetwork, runner: Runner, placement: Placement, config: Callable[[], GatewayConfig]
    ) -> None:
        """`config` says what is configured now: who waits for others is carried out as it is then."""
        self._network, self._runner, self._placement, self._config = network, runner, placement, config
        self._one_at_a_time = asyncio.Lock()
        self._lasting = Lasting()
        self._closed = False
        self.mtu = 0

    async def follow(self, *, anew: bool = False) -> None:
        """Make the host look like the configuration and the routes of now. `anew`: an interface was removed under us, and
        what was done to it is gone. Raises `HostError`."""
        await self._lasting.carry_out(self._follow(anew=anew))

    async def close(self) -> None:
        """Undo everything, for good."""
        self._closed = True
        async with self._one_at_a_time:
            await self._network.close()

    def addresses(self) -> tuple[str, ...]:
        """Where else clients may go on when a network fails (MOBIKE): the addresses that are listened on by name, else
        the public ones. A gateway's internal addresses are nobody's business."""
        named = {address for address in self._config().listen if not address.is_unspecified}
        own = self._network.local_addresses()
        return tuple(str(each) for each in own if (each in named if named else each.is_global))

    async def _follow(self, *, anew: bool) -> None:
        async with self._one_at_a_time:
            if self._closed:
                return
            self._placement.routes_have_changed = False
            try:
                if anew:
                    await self._network.close()
                await self._make()
            except BaseException:
                self._placement.routes_have_changed = True  # whoever comes next tries again
                raise

    async def _make(self) -> None:
        config = self._config()
        host, routes = config.host, self._placement.routes
        mtu = host.mtu or self._fitting_mtu(config)
        interfaces = self._runner.interfaces
        await self._network.configure_gateway(
            GatewayConfiguration(
                interface=interfaces[0],
                addresses=host.addresses,
                mtu=mtu,
                pools=routes(0),
                further=tuple((name, routes(number)) for number, name in enumerate(interfaces) if number),
                forward=host.forward,
                masquerade=host.masquerade,
                masquerade_interfaces=host.masquerade_interfaces,
            )
        )
        await self._runner.set_mtu(mtu)
        self.mtu = mtu

    def _fitting_mtu(self, config: GatewayConfig) -> int:
        """One interface serves all clients, whatever they negotiate and wherever they are."""
        outer = min(self._network.outer_mtu(each) for each in _SOMEWHERE)
        ipv6_inside = any(pool.version == 6 for pool in config.host.pools)
        ipv6_outside = any(address.version == 6 for address in config.listen)
        return tunnel_mtu(outer, _LARGEST, outer_ipv6=ipv6_outside, udp=True, inner_ipv6=ipv6_inside)

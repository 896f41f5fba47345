"""What becomes of a connection when the network below it changes: MOBIKE (RFC 4555), or connecting anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from ikeway.address import Address
from ikeway.client import reach
from ikeway.client.attachment import Attachment
from ikeway.client.link import Link
from ikeway.daemon.runner import Runner
from ikeway.errors import Closed
from ikeway.host import ChangeKind, NetworkChanged

_NO_NETWORK_SECONDS = 5.0  # without a way to the gateway's address, until its other addresses are tried
_LOOK_SECONDS = 0.25  # how often a way is looked for meanwhile


class Roaming:
    """Moves a connection to the address that this host has now, or ends it where it cannot move."""

    def __init__(self, attachment: Attachment, runner: Runner, report: Callable[[str, str], None]) -> None:
        self._attachment = attachment
        self._runner = runner
        self._report = report

    async def follow(self, link: Link, change: NetworkChanged, gateways: Collection[Address]) -> None:
        """Take in a change of the network. `gateways` are the addresses that the gateway's name has."""
        sa = link.sa
        local = self._attachment.local_address(sa.remote)
        if local is None and sa.mobike and (path := self._other_path(link)) is not None:
            self._report("network", f"no way to {sa.remote.host} any more; the gateway is also at {path.remote.host}")
            self._runner.driver.command(lambda now: sa.move(path.local, path.remote, now))
        elif local is None:
            await self._wait_for_network(link, change, gateways)
        elif local != sa.local.host:
            self._report("network", f"this host's address is {local} now, it was {sa.local.host}")
            if sa.mobike:
                moved = sa.local._replace(host=local)
                self._runner.driver.command(lambda now: sa.move(moved, None, now))
            else:
                link.drop(Closed(f"this host's address changed to {local}, and the gateway has no MOBIKE"))
        elif ChangeKind.RESUMED in change.kinds:
            self._report("resumed", f"back after {change.slept:.0f} s of sleep: asking whether the gateway is there")
            self._runner.driver.command(sa.check_liveness)

    def _other_path(self, link: Link) -> reach.Path | None:
        """A way to one of the gateway's other addresses, which it told of itself (RFC 4555 section 3.6)."""
        for host in link.sa.peer_addresses:
            remote = link.sa.remote._replace(host=host)
            local = self._attachment.local_address(remote)
            if local is not None:
                return reach.Path(link.sa.local._replace(host=local), remote)
        return None

    async def _wait_for_network(self, link: Link, change: NetworkChanged, gateways: Collection[Address]) -> None:
        """There is no way to the gateway's address. A short gap is ridden out; then its other addresses are tried.

        The way is looked for again and again: its news may have come in one burst with the loss of the old one.
        """
        self._report("network", f"no way to {link.sa.remote.host} at the moment")
        for _ in range(round(_NO_NETWORK_SECONDS / _LOOK_SECONDS)):
            await asyncio.sleep(_LOOK_SECONDS)
            if link.ended.is_set():
                return
            if self._attachment.local_address(link.sa.remote) is not None:
                await self.follow(link, change, gateways)
                return
        if any(self._attachment.local_address(each) for each in gateways):
            link.drop(Closed(f"there is no way to {link.sa.remote.host} any more"))

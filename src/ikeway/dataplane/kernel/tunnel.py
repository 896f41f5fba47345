"""The interface that addresses and routes of a kernel data plane are put on.

Where the kernel has xfrm interfaces, one of these: what is routed into it meets our policies and nobody else does.
What no policy covers is dropped there.

Where it has none, policies hold for the whole host, and the interface has nothing to do with IPsec: a TUN device that
nobody reads. Routes into it make the kernel choose the tunnel's addresses, policies take the packets away before they
reach it, and what no policy covers ends in it, instead of leaving in the clear.
"""

from __future__ import annotations

import itertools
import socket
from dataclasses import dataclass

from ikeway.errors import HostError
from ikeway.host.journal import Changes, is_existing
from ikeway.host.linux.xfrm_changes import XfrmInterfaceAdded
from ikeway.host.tun import TunDevice, open_tun


@dataclass(slots=True)
class Tunnel:
    """`interface_id` joins policies to it, 0 without xfrm interfaces."""

    name: str
    interface_id: int = 0
    device: TunDevice | None = None
    change: XfrmInterfaceAdded | None = None

    def exists(self) -> bool:
        """False when somebody has removed it."""
        return self.name in {name for _, name in socket.if_nameindex()}

    async def close(self, changes: Changes) -> None:
        """Remove it. Idempotent."""
        if self.device is not None:
            self.device.close()
        if self.change is not None:
            await changes.undo(self.change)


async def open_tunnel(wish: str, interface_id: int, changes: Changes) -> Tunnel:
    """Make the interface; `%d` in the wish stands for a free number. `interface_id` 0: without xfrm interfaces.
    Raises HostError."""
    if not interface_id:
        device = open_tun(wish, vnet_header=False)
        return Tunnel(device.name, device=device)
    for number in itertools.count():
        name = wish.replace("%d", str(number))
        try:
            change = await changes.make(XfrmInterfaceAdded(name, interface_id))
        except HostError as error:
            if is_existing(error.__cause__) and name != wish and number < 1 << 16:
                continue
            raise
        assert isinstance(change, XfrmInterfaceAdded)
        return Tunnel(name, interface_id, change=change)
    raise AssertionError  # count() has no end

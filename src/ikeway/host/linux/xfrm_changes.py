"""The kernel's IPsec as changes that the journal keeps: what a killed daemon leaves there would go on for ever."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from ikeway.host.journal import Change
from ikeway.host.linux import xfrm
from ikeway.host.linux.links import add_xfrm_link, delete_link, find_link
from ikeway.host.linux.netlink import Netlink


@dataclass(frozen=True, slots=True)
class StatesOwned(Change):
    """From now on, all states and policies with a reqid of this range (both ends included) are ours."""

    first_reqid: int
    last_reqid: int

    @property
    def shared_key(self) -> str:
        """Two may reach for one range at the same moment."""
        return f"reqid {self.first_reqid}"

    async def make(self, others: tuple[Change, ...]) -> None:
        """There is nothing in it yet."""

    async def undo(self, others: tuple[Change, ...]) -> None:
        """Remove all that is in it, unless it is another's too."""
        if others:
            return
        try:
            with xfrm.open_xfrm() as nl:
                xfrm.remove_all(nl, self.first_reqid, self.last_reqid)
        except OSError as error:
            if error.errno != errno.EPROTONOSUPPORT:  # no IPsec any more: the module was unloaded
                raise

    def __str__(self) -> str:
        """Say what it does."""
        return f"own IPsec states and policies with reqids from {self.first_reqid} to {self.last_reqid}"


@dataclass(frozen=True, slots=True)
class XfrmInterfaceAdded(Change):
    """An xfrm interface. `interface_id` is its number, as the states and policies of it have it."""

    name: str
    interface_id: int

    async def make(self, others: tuple[Change, ...]) -> None:
        """Make it."""
        with Netlink() as nl:
            add_xfrm_link(nl, self.name, self.interface_id)

    async def undo(self, others: tuple[Change, ...]) -> None:
        """Remove it; an interface of another kind that has its name now is left alone."""
        with Netlink() as nl:
            link = find_link(nl, self.name)
            if link is not None and link.kind == "xfrm":
                delete_link(nl, self.name)

    def __str__(self) -> str:
        """Say what it does."""
        return f"add xfrm interface {self.name}"

"""What shows that a state, a policy or an interface is ours: numbers of a range that one running daemon has to itself.

States and policies carry a `reqid`, which joins a policy to its states. Other IKE daemons count theirs up from 1
(strongSwan) or 16,384 (libreswan). Ours are from 0x40000000 to 0x7FFFFFFF: 1,024 ranges of 2^20, one for each running
daemon. The range is written into the undo journal before anything is made in it, so what a killed daemon has left is
removed by the next start or by `ikeway down`, and nothing of anybody else.
"""

from __future__ import annotations

import random
from collections.abc import Hashable
from dataclasses import dataclass

from ikeway.errors import HostError
from ikeway.host.journal import Changes, standing_changes
from ikeway.host.linux import xfrm
from ikeway.host.linux.xfrm_changes import StatesOwned
from ikeway.host.linux.xfrm_structures import Policy, State

_BASE, _RANGES, _SIZE = 0x40000000, 1 << 10, 1 << 20
_MARK = 0x696B0000


@dataclass(frozen=True, slots=True)
class Identity:
    """One range. `interface_id` and `mark` are numbers of the same owner, where the kernel wants some."""

    number: int

    @property
    def first_reqid(self) -> int:
        """The first of the range."""
        return _BASE + self.number * _SIZE

    @property
    def last_reqid(self) -> int:
        """The last of the range."""
        return self.first_reqid + _SIZE - 1

    @property
    def interface_id(self) -> int:
        """What joins states and policies to the xfrm interface."""
        return self.first_reqid

    @property
    def mark(self) -> int:
        """The firewall mark of the ESP packets that the kernel makes for us, for a routing rule."""
        return _MARK + self.number

    def owns(self, one: State | Policy) -> bool:
        """True for what is ours."""
        if isinstance(one, Policy):
            return one.template is not None and self.owns_reqid(one.template.reqid)
        return self.owns_reqid(one.reqid)

    def owns_reqid(self, reqid: int) -> bool:
        """True for a number of the range."""
        return self.first_reqid <= reqid <= self.last_reqid


async def claim(changes: Changes) -> Identity:
    """Take a range that nobody has in this network namespace, and write it down. Raises HostError."""
    numbers = list(range(_RANGES))
    random.shuffle(numbers)  # those who start together take different ones
    for number in numbers:
        identity = Identity(number)
        wanted = StatesOwned(identity.first_reqid, identity.last_reqid)
        if standing_changes(wanted.shared_key) or _in_use(identity):
            continue
        record = await changes.make(wanted)
        if len(standing_changes(wanted.shared_key)) == 1:
            return identity
        await changes.undo(record)  # somebody took the same at the same moment; what is in it stays
    raise HostError(
        f"all {_RANGES} ranges of IPsec states are in use", remedy="take down connections that are not needed"
    )


def _in_use(identity: Identity) -> bool:
    with xfrm.open_xfrm() as nl:
        return any(map(identity.owns, xfrm.states(nl))) or any(map(identity.owns, xfrm.policies(nl)))


class Reqids:
    """Which reqid the SAs of a child SA get.

    Child SAs with the same selectors share one, whoever made them: their policies are the same too, and a packet that
    comes in on the SA of either passes them. That happens while a connection is made anew beside the old one.
    """

    def __init__(self, identity: Identity) -> None:
        self._first, self._last = identity.first_reqid, identity.last_reqid
        self._next = self._first
        self._of_child: dict[int, int] = {}
        self._of_selectors: dict[Hashable, int] = {}
        self._users: dict[int, dict[int, int]] = {}  # of a reqid: the number of SAs of each child
        self._selectors: dict[int, set[Hashable]] = {}  # of a reqid

    def take(self, child_id: int, selectors: Hashable) -> int:
        """The reqid for one more SA of a child SA."""
        reqid = self._of_child.get(child_id) or self._of_selectors.get(selectors) or self._free()
        self._of_child[child_id] = reqid
        if self._of_selectors.setdefault(selectors, reqid) == reqid:
            self._selectors.setdefault(reqid, set()).add(selectors)
        users = self._users.setdefault(reqid, {})
        users[child_id] = users.get(child_id, 0) + 1
        return reqid

    def give_back(self, child_id: int) -> None:
        """An SA of this child SA is gone."""
        reqid = self._of_child.get(child_id)
        if reqid is None:
            return
        users = self._users[reqid]
        users[child_id] -= 1
        if users[child_id]:
            return
        del users[child_id], self._of_child[child_id]
        if not users:
            del self._users[reqid]
            for selectors in self._selectors.pop(reqid, ()):
                del self._of_selectors[selectors]

    def _free(self) -> int:
        while self._next in self._users:
            self._next = self._first if self._next == self._last else self._next + 1
        found = self._next
        self._next = self._first if found == self._last else found + 1
        return found

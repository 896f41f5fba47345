"""Which packets an SA is for, as the kernel's policies.

A policy joins a selector to the states of a reqid. Outbound it also names the SPI, so that which of several SAs sends
is decided here and not by the kernel's taste: the last one that was added. Inbound it takes any SA of the reqid from
any address, so that the old SA of a rekeying and a peer that moves need no change.

Several SAs may want the same selector: the two of a rekeying, or those of a connection that is made anew beside the
old one. They are kept in the order in which they came, the last one counts, and with its end the one before comes back.
"""

from __future__ import annotations

import errno
from collections.abc import Hashable, Iterable

from ikeway.dataplane.kernel.selectors import selectors
from ikeway.errors import HostError
from ikeway.esp.parameters import EspSa, Mode
from ikeway.host.linux import xfrm
from ikeway.host.linux.netlink import Netlink
from ikeway.host.linux.xfrm_structures import FORWARD, IN, MODE_TRANSPORT, MODE_TUNNEL, OUT, Policy, Selector, Template

_PRIORITY = 0x60000  # lower numbers come first

_Place = tuple[int, int, Selector]


class PolicyTable:
    """All policies of one data plane."""

    def __init__(self) -> None:
        self._wishes: dict[_Place, dict[Hashable, Policy]] = {}  # by who wishes it, the last one counts
        self._places: dict[Hashable, list[_Place]] = {}

    def put(self, nl: Netlink, owner: Hashable, policies: Iterable[Policy]) -> None:
        """Make these the policies of `owner`, in preference to those of earlier owners. Raises HostError; then none of
        them is there."""
        kept = self._places.setdefault(owner, [])
        before, wanted = list(kept), []
        try:
            for policy in policies:
                place = (policy.direction, policy.interface_id, policy.selector)
                _install(nl, policy, ours=place in self._wishes)
                wishes = self._wishes.setdefault(place, {})
                wishes.pop(owner, None)
                wishes[owner] = policy
                wanted.append(place)
                if place not in kept:
                    kept.append(place)
        except HostError:
            self.remove(nl, owner)
            raise
        for place in set(before) - set(wanted):
            self._leave(nl, owner, place)
        self._places[owner] = wanted

    def remove(self, nl: Netlink, owner: Hashable) -> None:
        """`owner` wants nothing any more."""
        for place in self._places.pop(owner, ()):
            self._leave(nl, owner, place)

    def _leave(self, nl: Netlink, owner: Hashable, place: _Place) -> None:
        wishes = self._wishes.get(place, {})
        was_last = bool(wishes) and next(reversed(wishes)) == owner
        gone = wishes.pop(owner, None)
        if gone is None:
            return
        if not wishes:
            del self._wishes[place]
            xfrm.delete_policy(nl, gone)
        elif was_last and (last := wishes[next(reversed(wishes))]) != gone:
            _install(nl, last, ours=True)


def inbound_policies(sa: EspSa, reqid: int, interface_id: int) -> list[Policy]:
    """What may come in on `sa`, for this host and, in tunnel mode, for those behind it."""
    any_source = "::" if sa.local.is_ipv6 else "0.0.0.0"  # noqa: S104 - nothing is bound
    template = Template(source=any_source, destination=sa.local.host, reqid=reqid, mode=_mode(sa))
    directions = (IN, FORWARD) if sa.mode is Mode.TUNNEL else (IN,)
    return [
        _policy(direction, selector, template, interface_id if sa.mode is Mode.TUNNEL else 0)
        for selector in selectors(sa.remote_selectors, sa.local_selectors)
        for direction in directions
    ]


def outbound_policies(sa: EspSa, reqid: int, interface_id: int) -> list[Policy]:
    """What goes out on `sa`."""
    template = Template(source=sa.local.host, destination=sa.remote.host, reqid=reqid, mode=_mode(sa), spi=sa.spi)
    return [
        _policy(OUT, selector, template, interface_id if sa.mode is Mode.TUNNEL else 0)
        for selector in selectors(sa.local_selectors, sa.remote_selectors)
    ]


def _mode(sa: EspSa) -> int:
    return MODE_TUNNEL if sa.mode is Mode.TUNNEL else MODE_TRANSPORT


def _policy(direction: int, selector: Selector, template: Template, interface_id: int) -> Policy:
    return Policy(
        direction=direction,
        selector=selector,
        template=template,
        priority=_PRIORITY - _narrowness(selector),
        interface_id=interface_id,
    )


def _narrowness(selector: Selector) -> int:
    """The narrower selector comes first, as it would with routes; then what names a protocol or ports."""
    networks = selector.source.prefixlen + selector.destination.prefixlen
    ports = selector.source_port_mask.bit_count() + selector.destination_port_mask.bit_count()
    return networks << 7 | bool(selector.protocol) << 6 | ports


def _install(nl: Netlink, policy: Policy, *, ours: bool) -> None:
    try:
        if ours:
            xfrm.replace_policy(nl, policy)
        else:
            xfrm.add_policy(nl, policy)
    except OSError as error:
        selector = policy.selector
        what = f"from {selector.source} to {selector.destination}"
        if error.errno == errno.EEXIST:
            raise HostError(
                f"somebody else has an IPsec policy for packets {what}",
                remedy="end the other VPN for these networks (`ip xfrm policy` shows it, strongSwan and libreswan make "
                'such policies), or use `data_plane = "userspace"`',
            ) from error
        raise HostError(f"the kernel refused an IPsec policy for packets {what}: {xfrm.explain(error)}") from error

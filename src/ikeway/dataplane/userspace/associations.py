"""The SAs of one worker: found by SPI on the way in, by selectors on the way out (RFC 4301 section 4.4.1)."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from ikeway.address import Address
from ikeway.dataplane.userspace.ledger import GONE
from ikeway.dataplane.userspace.messages import Past
from ikeway.dataplane.userspace.paths import Path, Paths
from ikeway.dataplane.userspace.sockets import canonical, with_canonical_addresses
from ikeway.esp.drops import Drop
from ikeway.esp.inbound import InboundSa
from ikeway.esp.inner import Octets, cache_key, parse
from ikeway.esp.outbound import OutboundSa
from ikeway.esp.parameters import Encapsulation, EspSa
from ikeway.esp.selectors import SelectorPair
from ikeway.esp.tunnel import Unwrapper
from ikeway.esp.usage import Usage

_CACHED_FLOWS = 16384


class Receiving:
    """An inbound SA at work. `told_*`: the daemon was told already. `slot` is its place in the ledger."""

    __slots__ = ("sa", "slot", "told_hard", "told_remote", "told_soft", "unwrapper")

    def __init__(self, parameters: EspSa, past: Past) -> None:
        self.sa = InboundSa(parameters, past.mark)
        _restore(self.sa.usage, past)
        self.slot = past.slot
        self.unwrapper = Unwrapper(self.sa)
        self.told_soft = self.told_hard = False
        self.told_remote = tuple(parameters.remote)


class Sending:
    """An outbound SA at work, and the path it sends on. `mark` is what the ledger says in its `slot`."""

    __slots__ = ("mark", "path", "sa", "selectors", "slot", "told_hard", "told_soft")

    def __init__(self, parameters: EspSa, path: Path, past: Past) -> None:
        self.sa = OutboundSa(_with_limits_of_now(parameters, past), past.iv_base, past.mark)
        _restore(self.sa.usage, past)
        self.slot, self.mark = past.slot, 0
        self.path = path
        self.selectors = SelectorPair(parameters.local_selectors, parameters.remote_selectors)
        self.told_soft = self.told_hard = False


def _restore(usage: Usage, past: Past) -> None:
    """Go on counting where the worker before has stopped."""
    usage.packets, usage.octets, usage.last_used = past.packets, past.octets, past.last_used
    usage.dropped = {drop.reason: drop.count for drop in past.dropped}


def _with_limits_of_now(parameters: EspSa, past: Past) -> EspSa:
    """An outbound SA watches its limits of packets by its sequence number, which has jumped over a margin."""
    jumped = past.mark - past.packets
    if not jumped:
        return parameters
    limits = parameters.limits
    return replace(
        parameters,
        limits=replace(
            limits,
            soft_packets=limits.soft_packets + jumped if limits.soft_packets else 0,
            hard_packets=limits.hard_packets + jumped if limits.hard_packets else 0,
        ),
    )


class _Range(NamedTuple):
    """One range of destinations. Sorted: the smallest range first, then the newest."""

    size: int
    newest_first: int
    start: bytes
    end: bytes
    child_id: int


class Associations:
    """All SAs. Only the worker's loop touches them."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self.inbound: dict[int, Receiving] = {}
        self._outbound: dict[int, list[Sending]] = {}  # by SPI: several peers may have chosen the same
        self._connections: dict[int, list[Receiving | Sending]] = {}
        self._children: dict[int, list[Sending]] = {}  # the newest last
        self._hosts: dict[bytes, list[int]] = {}  # child ids, the newest first
        self._ranges: list[_Range] = []
        self._indexed: dict[int, Sending] = {}  # whose selectors stand in _hosts and _ranges
        self._flows: dict[bytes, Sending] = {}
        self._additions = 0
        self.generation = 0  # counts changes: what was remembered of an older one does not hold
        self.unclaimed = {True: Usage(), False: Usage()}  # what belongs to no SA, by inbound

    def add_inbound(self, parameters: EspSa, past: Past) -> None:
        """Accept ESP on an SPI. Adding one that is there replaces it."""
        parameters = with_canonical_addresses(parameters)
        receiving = Receiving(parameters, past)
        self.remove_inbound(parameters.spi)
        self.generation += 1
        self.inbound[parameters.spi] = receiving
        self._connections.setdefault(parameters.connection_id, []).append(receiving)

    def add_outbound(self, parameters: EspSa, past: Past) -> Sending:
        """Send on an SA, before the older ones of its child."""
        parameters = with_canonical_addresses(parameters)
        path = self._paths.find(parameters.local, parameters.remote, parameters.encapsulation)
        sending = Sending(parameters, path, past)
        self._outbound.setdefault(parameters.spi, []).append(sending)
        self._connections.setdefault(parameters.connection_id, []).append(sending)
        self._children.setdefault(parameters.child_id, []).append(sending)
        self._index(parameters.child_id)
        return sending

    def remove_inbound(self, spi: int) -> None:
        """Stop accepting; the SPI may be unknown."""
        receiving = self.inbound.pop(spi, None)
        if receiving is not None:
            self.generation += 1
            self._disconnect(receiving)

    def remove_outbound(self, spi: int, remote: Address) -> None:
        """Stop sending; the SA may be unknown. The child's next newest SA takes over."""
        remote = canonical(remote)
        found = self._outbound.get(spi, [])
        exact = [s for s in found if s.sa.parameters.remote == remote]
        # The port may have changed since the daemon looked (NAT); the host with the SPI is still clear.
        for sending in exact or [s for s in found if s.sa.parameters.remote.host == remote.host]:
            found.remove(sending)
            self._disconnect(sending)
            child_id = sending.sa.parameters.child_id
            self._children[child_id].remove(sending)
            self._index(child_id)
        if not found:
            self._outbound.pop(spi, None)

    def _disconnect(self, user: Receiving | Sending) -> None:
        connection_id = user.sa.parameters.connection_id
        users = self._connections[connection_id]
        users.remove(user)
        if not users:
            del self._connections[connection_id]
        user.slot = GONE  # it is another's as soon as the daemon knows
        gone = self.unclaimed[isinstance(user, Receiving)]  # its drops still count
        for reason, count in user.sa.usage.dropped.items():
            gone.drop(reason, count)

    def move(self, connection_id: int, local: Address, remote: Address, udp: bool) -> None:
        """Give a connection's SAs new outer addresses. Raises `HostError` when no socket serves them."""
        local, remote = canonical(local), canonical(remote)
        encapsulation = Encapsulation.UDP if udp else Encapsulation.ESP
        path = self._paths.find(local, remote, encapsulation)
        self.generation += 1
        for user in self._connections.get(connection_id, ()):
            user.sa.parameters = replace(user.sa.parameters, local=local, remote=remote, encapsulation=encapsulation)
            if isinstance(user, Sending):
                user.path = path
            else:
                user.told_remote = tuple(remote)

    def outbound(self) -> Iterator[Sending]:
        """Every outbound SA."""
        return (sending for sendings in self._outbound.values() for sending in sendings)

    def usages(self) -> Iterator[tuple[int, bool, Usage]]:
        """The counters of every SA by SPI and inbound; those of no SA under SPI 0."""
        for inbound, usage in self.unclaimed.items():
            yield 0, inbound, usage
        for spi, receiving in self.inbound.items():
            yield spi, True, receiving.sa.usage
        for sending in self.outbound():
            yield sending.sa.parameters.spi, False, sending.sa.usage

    def route(self, packet: Octets) -> Sending | Drop:
        """The SA for a packet that came out of the TUN device."""
        key = cache_key(packet)
        if key is not None:
            known = self._flows.get(key)
            if known is not None:
                return known
        flow = parse(packet)
        if flow is None:
            return Drop.MALFORMED
        covered = False
        for child_id in self._candidates(flow.destination):
            covered = True
            sending = self._indexed[child_id]
            if sending.selectors.allows_outbound(flow):
                if key is not None:
                    if len(self._flows) >= _CACHED_FLOWS:
                        self._flows.clear()
                    self._flows[key] = sending
                return sending
        return Drop.SELECTORS if covered else Drop.NO_POLICY

    def _candidates(self, destination: bytes) -> Iterator[int]:
        """Children whose remote selectors hold a destination: exact hosts, then ever larger ranges."""
        yield from self._hosts.get(destination, ())
        for entry in self._ranges:
            if len(entry.start) == len(destination) and entry.start <= destination <= entry.end:
                yield entry.child_id

    def _index(self, child_id: int) -> None:
        """Make look-ups find the newest SA of a child."""
        self._flows.clear()
        self.generation += 1
        newest = self._children[child_id][-1] if self._children[child_id] else None
        before = self._indexed.get(child_id)
        if newest is not None and before is not None and before.selectors.remote == newest.selectors.remote:
            self._indexed[child_id] = newest
            return
        if before is not None:
            self._forget(child_id, before)
        if newest is None:
            del self._children[child_id]
            return
        self._indexed[child_id] = newest
        self._additions += 1
        for selector in newest.selectors.remote:
            start, end = selector.start_address, selector.end_address
            if start == end:
                known = self._hosts.setdefault(start, [])
                if child_id not in known:
                    known.insert(0, child_id)
            else:
                size = int.from_bytes(end, "big") - int.from_bytes(start, "big")
                insort(self._ranges, _Range(size, -self._additions, start, end, child_id))

    def _forget(self, child_id: int, sending: Sending) -> None:
        del self._indexed[child_id]
        for selector in sending.selectors.remote:
            known = self._hosts.get(selector.start_address)
            if known is not None and child_id in known:
                known.remove(child_id)
                if not known:
                    del self._hosts[selector.start_address]
        if any(s.start_address != s.end_address for s in sending.selectors.remote):
            self._ranges = [entry for entry in self._ranges if entry.child_id != child_id]

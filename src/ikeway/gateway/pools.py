"""Addresses for clients: who has which, and the CFG_REPLY that tells them (RFC 7296 sections 2.19 and 3.15)."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from ikeway.address import Address
from ikeway.config.fields import IpAddress
from ikeway.errors import NegotiationFailed, Side
from ikeway.gateway.config_model import AddressRange
from ikeway.gateway.slices import slices
from ikeway.wire.registry import NotifyType

Family = Literal[4, 6]
MAX_REMEMBERED = 65536  # former holders a range keeps the address for, as long as nobody else needs it


@dataclass(frozen=True, slots=True)
class Lease:
    """An address that a connection holds."""

    address: IpAddress
    pool: str
    identity: str
    connection_id: int


@dataclass(slots=True)
class _Held:
    """Who uses an address. More than one connection only while a client logs in anew before the old login goes."""

    identity: str
    peer: Address
    connections: set[int] = field(default_factory=set)


class RangeLeases:
    """The addresses of one range.

    An identity gets the address that it had before, as long as that is free: connections of applications survive a
    lost tunnel. A new identity gets an address that nobody had yet, then the one that has been free longest.
    """

    def __init__(self, addresses: AddressRange, reserved: Collection[IpAddress] = ()) -> None:
        """`reserved` addresses are never given out unless they are asked for by `take`."""
        self._range = addresses
        self._reserved = frozenset(address for address in reserved if address in addresses)
        self._next = int(addresses.first)
        self._held: dict[IpAddress, _Held] = {}
        self._former: OrderedDict[IpAddress, str] = OrderedDict()  # free addresses that had a holder; oldest first
        self._by_identity: dict[str, IpAddress] = {}  # the latest free address of an identity

    @property
    def size(self) -> int:
        """How many addresses can be given out."""
        return self._range.size - len(self._reserved)

    @property
    def used(self) -> int:
        """How many are given out."""
        return len(self._held)

    def __contains__(self, address: IpAddress) -> bool:
        return address in self._range

    def remembers(self, identity: str) -> bool:
        """True when an identity had an address here that is free."""
        before = self._by_identity.get(identity)
        return before is not None and before not in self._held

    def lease(self, identity: str, peer: Address, connection_id: int, wanted: IpAddress | None) -> IpAddress | None:
        """An address for this identity; None when all are in use.

        `wanted` is what the client asked for. It gets it when it is free, or when it holds it itself: same identity
        from the same `peer` address and port, that is a login anew before the old one goes.
        """
        if wanted is not None and wanted in self._range:
            held = self._held.get(wanted)
            if held is not None and held.identity == identity and held.peer == peer:
                held.connections.add(connection_id)
                return wanted
            # Another's former address is not given away on request: that would undo what keeps it for them.
            if held is None and wanted not in self._reserved and self._former.get(wanted, identity) == identity:
                return self._hold(wanted, identity, peer, connection_id)
        before = self._by_identity.get(identity)
        address = before if before is not None and before not in self._held else self._fresh()
        return None if address is None else self._hold(address, identity, peer, connection_id)

    def take(self, address: IpAddress, identity: str, peer: Address, connection_id: int) -> bool:
        """Give out this very address (a user's own); False when somebody else holds it."""
        held = self._held.get(address)
        if held is not None and held.identity != identity:
            return False
        self._hold(address, identity, peer, connection_id)
        return True

    def remember(self, address: IpAddress, identity: str) -> None:
        """Note who had a free address: later than all that are noted already."""
        self._former.pop(address, None)
        self._former[address] = identity
        self._by_identity[identity] = address

    def former(self) -> tuple[tuple[IpAddress, str], ...]:
        """The free addresses that had a holder, with that; the one free longest comes first."""
        return tuple(self._former.items())

    def may_remember(self, address: IpAddress) -> bool:
        """True for those of this range that are given out without being asked for."""
        return address in self._range and address not in self._reserved

    def peer_of(self, address: IpAddress) -> Address:
        """From where its holder logged in."""
        return self._held[address].peer

    def move(self, address: IpAddress, connection_id: int, peer: Address) -> None:
        """The holder is at another outer address now. Not held by that connection: no error."""
        held = self._held.get(address)
        if held is not None and connection_id in held.connections:
            held.peer = peer

    def release(self, address: IpAddress, connection_id: int) -> None:
        """Give an address back. Not held by that connection: no error."""
        held = self._held.get(address)
        if held is None or connection_id not in held.connections:
            return
        held.connections.discard(connection_id)
        if held.connections:
            return
        del self._held[address]
        if self.may_remember(address):
            self.remember(address, held.identity)
            # IPv4 ranges are small; of an IPv6 range, those who were away longest are forgotten.
            if len(self._former) > MAX_REMEMBERED and self._next <= int(self._range.last):
                self._forget(next(iter(self._former)))

    def _fresh(self) -> IpAddress | None:
        while self._next <= int(self._range.last):
            address = type(self._range.first)(self._next)
            self._next += 1
            if address not in self._held and address not in self._reserved and address not in self._former:
                return address
        return next(iter(self._former), None)

    def _hold(self, address: IpAddress, identity: str, peer: Address, connection_id: int) -> IpAddress:
        self._forget(address)
        held = self._held.setdefault(address, _Held(identity, peer))
        held.peer = peer
        held.connections.add(connection_id)
        return address

    def _forget(self, address: IpAddress) -> None:
        former = self._former.pop(address, None)
        if former is not None and self._by_identity.get(former) == address:
            del self._by_identity[former]


@dataclass(frozen=True, slots=True)
class PoolUsage:
    """How full a pool is."""

    name: str
    addresses: str
    size: int
    used: int


class _Part(NamedTuple):
    """One worker's slice of a range."""

    whole: AddressRange
    worker: int
    leases: RangeLeases


class AddressPools:
    """All pools of a gateway, and who holds what."""

    def __init__(
        self,
        pools: Mapping[str, Iterable[AddressRange]],
        *,
        reserved: Collection[IpAddress] = (),
        workers: int = 1,
    ) -> None:
        """`reserved`: the gateway's own addresses, and those that users have for themselves."""
        self._workers = workers
        self._ranges: dict[str, list[_Part]] = {
            name: [
                _Part(one, part.worker, RangeLeases(part.addresses, reserved))
                for one in ranges
                for part in slices(one, workers)
                if part.addresses is not None
            ]
            for name, ranges in pools.items()
        }
        self._own = RangeLeases(_NOTHING)  # users' own addresses that lie in no pool
        self._leases: dict[int, list[tuple[RangeLeases, Lease]]] = {}

    def lease(
        self,
        names: Iterable[str],
        family: Family,
        identity: str,
        peer: Address,
        connection_id: int,
        *,
        wanted: IpAddress | None = None,
        own: IpAddress | None = None,
        workers: Sequence[int] = (0,),
    ) -> Lease:
        """An address of that family for a connection, `own` if the user has one; else from the first pool of `names`
        that has one free, in the slice of the first of `workers` that has. Raises `NegotiationFailed`
        (INTERNAL_ADDRESS_FAILURE)."""
        if own is not None:
            return self._lease_own(own, identity, peer, connection_id)
        order = list(dict.fromkeys(names))
        parts = [
            (name, part)
            for name in order
            for part in self._ranges.get(name, ())
            if part.whole.first.version == family and part.worker in workers
        ]
        # The slice that the wanted or former address lies in comes first; no slice of a later pool before an earlier's.
        parts.sort(
            key=lambda entry: (
                wanted is None or wanted not in entry[1].leases,
                order.index(entry[0]),
                not entry[1].leases.remembers(identity),
                workers.index(entry[1].worker),
            )
        )
        for name, part in parts:
            address = part.leases.lease(identity, peer, connection_id, wanted)
            if address is not None:
                return self._note(part.leases, Lease(address, name, identity, connection_id))
        full = ", ".join(dict.fromkeys(name for name, _ in parts))
        raise NegotiationFailed(
            f"no IPv{family} address is free for {identity}" + (f": pool {full} is full" if full else ""),
            notify=NotifyType.INTERNAL_ADDRESS_FAILURE,
            side=Side.LOCAL,
            remedy="widen the pool, or close sessions that are not needed (`ikeway gateway status`)",
        )

    def has_family(self, names: Iterable[str], family: Family) -> bool:
        """True when one of these pools has addresses of the family."""
        return any(part.whole.first.version == family for name in names for part in self._ranges.get(name, ()))

    def release(self, connection_id: int) -> None:
        """Give back all that a connection held."""
        for leases, lease in self._leases.pop(connection_id, []):
            leases.release(lease.address, connection_id)

    def move(self, connection_id: int, peer: Address) -> None:
        """A connection goes on from another outer address: by that it is known at its next log-in."""
        for leases, lease in self._leases.get(connection_id, ()):
            leases.move(lease.address, connection_id, peer)

    def reconfigure(
        self,
        pools: Mapping[str, Iterable[AddressRange]],
        *,
        reserved: Collection[IpAddress] = (),
        workers: int | None = None,
    ) -> None:
        """Go on with other pools. What connections hold stays theirs, also where no pool has it any more; who had an
        address before still finds it kept."""
        workers = self._workers if workers is None else workers
        renewed = AddressPools(pools, reserved=reserved, workers=workers)
        for part in (part for parts in self._ranges.values() for part in parts):
            for address, identity in part.leases.former():
                renewed._remember(address, identity)
        for leases in self._leases.values():
            for held_by, lease in leases:
                renewed.keep(lease, held_by.peer_of(lease.address))
        self._workers = workers
        self._ranges, self._own, self._leases = renewed._ranges, renewed._own, renewed._leases

    def keep(self, lease: Lease, peer: Address) -> None:
        """Note a lease that was given out before."""
        for name, parts in self._ranges.items():
            for _, _, leases in parts:
                if lease.address in leases:
                    leases.take(lease.address, lease.identity, peer, lease.connection_id)
                    self._note(leases, Lease(lease.address, name, lease.identity, lease.connection_id))
                    return
        self._own.take(lease.address, lease.identity, peer, lease.connection_id)
        self._note(self._own, lease)

    def _remember(self, address: IpAddress, identity: str) -> None:
        for parts in self._ranges.values():
            for _, _, leases in parts:
                if leases.may_remember(address):
                    leases.remember(address, identity)
                    return

    def leases_of(self, connection_id: int) -> tuple[Lease, ...]:
        """What a connection holds."""
        return tuple(lease for _, lease in self._leases.get(connection_id, ()))

    def held(self) -> dict[IpAddress, int]:
        """Every address that is given out, and the latest connection that holds it."""
        return {lease.address: lease.connection_id for leases in self._leases.values() for _, lease in leases}

    def usage(self) -> tuple[PoolUsage, ...]:
        """How full each range of each pool is."""
        found: dict[tuple[str, str], PoolUsage] = {}
        for name, parts in self._ranges.items():
            for whole, _, leases in parts:
                before = found.get((name, str(whole)), PoolUsage(name, str(whole), 0, 0))
                found[name, str(whole)] = replace(
                    before, size=before.size + leases.size, used=before.used + leases.used
                )
        return tuple(found.values())

    def _lease_own(self, address: IpAddress, identity: str, peer: Address, connection_id: int) -> Lease:
        for name, parts in self._ranges.items():
            for _, _, leases in parts:
                if address in leases:
                    return self._take(leases, name, address, identity, peer, connection_id)
        return self._take(self._own, "", address, identity, peer, connection_id)

    def _take(
        self, leases: RangeLeases, name: str, address: IpAddress, identity: str, peer: Address, connection_id: int
    ) -> Lease:
        if not leases.take(address, identity, peer, connection_id):
            raise NegotiationFailed(
                f"the address {address} of {identity} is held by somebody else",
                notify=NotifyType.INTERNAL_ADDRESS_FAILURE,
                side=Side.LOCAL,
                remedy="give each user an address of its own",
            )
        return self._note(leases, Lease(address, name, identity, connection_id))

    def _note(self, leases: RangeLeases, lease: Lease) -> Lease:
        self._leases.setdefault(lease.connection_id, []).append((leases, lease))
        return lease


_NOTHING = AddressRange(ipaddress.IPv4Address(1), ipaddress.IPv4Address(0), None)

"""Addresses for clients: who has which, and the CFG_REPLY that tells them (RFC 7296 sections 2.19 and 3.15)."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ikeway.address import Address
from ikeway.config.fields import IpAddress
from ikeway.errors import NegotiationFailed, Side
from ikeway.gateway.config_model import AddressRange
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
        if address in self._range and address not in self._reserved:
            self._former[address] = held.identity
            self._by_identity[held.identity] = address
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


class AddressPools:
    """All pools of a gateway, and who holds what."""

    def __init__(
        self,
        pools: Mapping[str, Iterable[AddressRange]],
        *,
        reserved: Collection[IpAddress] = (),
    ) -> None:
        """`reserved`: the gateway's own addresses, and those that users have for themselves."""
        self._ranges: dict[str, list[tuple[AddressRange, RangeLeases]]] = {
            name: [(one, RangeLeases(one, reserved)) for one in ranges] for name, ranges in pools.items()
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
    ) -> Lease:
        """An address of that family for a connection, `own` if the user has one; else from the first pool of `names`
        that has one free. Raises `NegotiationFailed` (INTERNAL_ADDRESS_FAILURE)."""
        if own is not None:
            return self._lease_own(own, identity, peer, connection_id)
        ranges = [
            (name, leases)
            for name in names
            for one, leases in self._ranges.get(name, ())
            if one.first.version == family
        ]
        # The pool that the wanted or former address lies in comes first.
        ranges.sort(key=lambda entry: wanted is None or wanted not in entry[1])
        for name, leases in ranges:
            address = leases.lease(identity, peer, connection_id, wanted)
            if address is not None:
                return self._note(leases, Lease(address, name, identity, connection_id))
        full = ", ".join(name for name, _ in ranges)
        raise NegotiationFailed(
            f"no IPv{family} address is free for {identity}" + (f": pool {full} is full" if full else ""),
            notify=NotifyType.INTERNAL_ADDRESS_FAILURE,
            side=Side.LOCAL,
            remedy="widen the pool, or close sessions that are not needed (`ikeway gateway status`)",
        )

    def has_family(self, names: Iterable[str], family: Family) -> bool:
        """True when one of these pools has addresses of the family."""
        return any(one.first.version == family for name in names for one, _ in self._ranges.get(name, ()))

    def release(self, connection_id: int) -> None:
        """Give back all that a connection held."""
        for leases, lease in self._leases.pop(connection_id, []):
            leases.release(lease.address, connection_id)

    def move(self, connection_id: int, peer: Address) -> None:
        """A connection goes on from another outer address: by that it is known at its next log-in."""
        for leases, lease in self._leases.get(connection_id, ()):
            leases.move(lease.address, connection_id, peer)

    def reconfigure(self, pools: Mapping[str, Iterable[AddressRange]], *, reserved: Collection[IpAddress] = ()) -> None:
        """Go on with other pools. What connections hold stays theirs, also where no pool has it any more."""
        renewed = AddressPools(pools, reserved=reserved)
        for leases in self._leases.values():
            for held_by, lease in leases:
                renewed.keep(lease, held_by.peer_of(lease.address))
        self._ranges, self._own, self._leases = renewed._ranges, renewed._own, renewed._leases

    def keep(self, lease: Lease, peer: Address) -> None:
        """Note a lease that was given out before."""
        for name, ranges in self._ranges.items():
            for one, leases in ranges:
                if lease.address in one:
                    leases.take(lease.address, lease.identity, peer, lease.connection_id)
                    self._note(leases, Lease(lease.address, name, lease.identity, lease.connection_id))
                    return
        self._own.take(lease.address, lease.identity, peer, lease.connection_id)
        self._note(self._own, lease)

    def leases_of(self, connection_id: int) -> tuple[Lease, ...]:
        """What a connection holds."""
        return tuple(lease for _, lease in self._leases.get(connection_id, ()))

    def usage(self) -> tuple[PoolUsage, ...]:
        """How full each range of each pool is."""
        return tuple(
            PoolUsage(name, str(one), leases.size, leases.used)
            for name, ranges in self._ranges.items()
            for one, leases in ranges
        )

    def _lease_own(self, address: IpAddress, identity: str, peer: Address, connection_id: int) -> Lease:
        for name, ranges in self._ranges.items():
            for one, leases in ranges:
                if address in one:
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

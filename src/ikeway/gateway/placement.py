"""Which worker serves a client, where several carry ESP.

An inner address is routed to one worker's interface, so it says whose its client is: each worker has a slice of every
pool. A new client gets an address from the slice of the one with the fewest clients; one whose address is settled (its
former one, the users file) goes where that leads. What lies behind a client of its own (`client_subnets`) is routed by
configuration too, so such clients all go to the worker of their connection.

Clients that come from one outer address and port go to one worker whatever their addresses, which then get routes of
their own: the kernel merges datagrams of one sender (UDP_GRO) and gives them to the worker of the first.
"""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ikeway.address import Address
from ikeway.config.fields import IpAddress, IpNetwork
from ikeway.gateway.config import GatewayConfig
from ikeway.gateway.slices import slices

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa


class _Place(NamedTuple):
    worker: int
    remote: Address


class Placement:
    """See the module. Outlives reloads of the configuration; connections stay where they are."""

    def __init__(self, config: GatewayConfig) -> None:
        """There is one worker until `begin`."""
        self._places: dict[int, _Place] = {}  # by connection
        self._at: dict[Address, list[int]] = {}  # workers of the connections that come from there
        self.routes_have_changed = False  # whoever makes the routes sets it back
        self.begin(config, 1)

    def begin(self, config: GatewayConfig, workers: int) -> None:
        """There are so many workers. To be said before the first connection."""
        self.workers = workers
        self._load = [0] * workers
        self.reload(config, {})

    def reload(self, config: GatewayConfig, held: Mapping[IpAddress, int]) -> None:
        """Go on with another configuration. `held` are addresses in use, with their connections: where the slices lie
        differently now, they stay with the worker that they have."""
        self._branches = {
            name: (zlib.crc32(name.encode()) % self.workers, client.networks)
            for name, client in config.clients.items()
            if client.networks
        }
        self._slices = [
            one for ranges in config.pools.values() for addresses in ranges for one in slices(addresses, self.workers)
        ]
        self._pinned: dict[IpAddress, int] = {}
        for addresses in config.own_addresses:  # both of a user go to one worker
            worker = self._settled(addresses[0])
            for address in addresses:
                if self._routed_to(address) != worker:
                    self._pinned[address] = worker
        for address, connection_id in held.items():
            worker = self.worker_of(connection_id)
            if self._pinned.get(address, self._routed_to(address)) != worker:
                self._pinned[address] = worker

    def worker_at(self, address: IpAddress) -> int:
        """The worker that an inner address is routed to."""
        pinned = self._pinned.get(address)
        return pinned if pinned is not None else self._settled(address)

    def routes(self, worker: int) -> tuple[IpNetwork, ...]:
        """The networks that are routed to a worker."""
        found = [network for one in self._slices if one.worker == worker for network in one.networks]
        found += [network for number, networks in self._branches.values() if number == worker for network in networks]
        found += [ipaddress.ip_network(address) for address, number in self._pinned.items() if number == worker]
        return tuple(dict.fromkeys(found))

    def preferred(self, connection: str, remote: Address, own: Sequence[IpAddress]) -> list[int]:
        """From whose slices a new client of a connection may get its addresses, the best first. `own` are those that
        the users file gives it."""
        branch = self._branches.get(connection)
        if branch is not None:
            return [branch[0]]
        order = sorted(range(self.workers), key=lambda worker: self._load[worker])
        first = self._at[remote][0] if remote in self._at else self.worker_at(own[0]) if own else order[0]
        return [first, *(worker for worker in order if worker != first)]

    def settle(self, connection_id: int, workers: Sequence[int], address: IpAddress, remote: Address) -> list[int]:
        """A connection got its first address, from one of the `preferred` workers. Which one it is, and in the order of
        preference those whose slices its next address may come from."""
        fixed = len(workers) == 1 or remote in self._at
        worker = workers[0] if fixed else self.worker_at(address)
        self.place(connection_id, worker, remote)
        return [worker, *(other for other in range(self.workers) if other != worker)]

    def lead(self, address: IpAddress, worker: int) -> None:
        """Let an inner address lead to this worker, if it does not yet."""
        if self._pinned.get(address, self._routed_to(address)) != worker:
            self._pinned[address] = worker
            self.routes_have_changed = True

    def place(self, connection_id: int, worker: int, remote: Address) -> None:
        """A connection is this worker's from now on."""
        self.release(connection_id)
        self._places[connection_id] = _Place(worker, remote)
        self._load[worker] += 1
        self._at.setdefault(remote, []).append(worker)

    def of(self, sa: IkeSa) -> int:
        """The worker of an IKE SA. One that got no address finds its worker here."""
        if sa.connection_id not in self._places:
            self.place(sa.connection_id, self.preferred(sa.connection.name, sa.remote, ())[0], sa.remote)
        return self._places[sa.connection_id].worker

    def worker_of(self, connection_id: int) -> int:
        """The worker of a connection that has one."""
        return self._places[connection_id].worker if connection_id in self._places else 0

    def move(self, connection_id: int, remote: Address) -> None:
        """A connection comes from another outer address now."""
        if connection_id in self._places:
            self.place(connection_id, self._places[connection_id].worker, remote)

    def release(self, connection_id: int) -> None:
        """A connection is gone. Unknown: no error."""
        place = self._places.pop(connection_id, None)
        if place is None:
            return
        self._load[place.worker] -= 1
        there = self._at[place.remote]
        there.remove(place.worker)
        if not there:
            del self._at[place.remote]

    def _settled(self, address: IpAddress) -> int:
        routed = self._routed_to(address)
        return int(address) % self.workers if routed is None else routed

    def _routed_to(self, address: IpAddress) -> int | None:
        """Where the routes of networks lead; the smallest network counts."""
        candidates = [(network, one.worker) for one in self._slices for network in one.networks if address in network]
        candidates += [
            (network, worker)
            for worker, networks in self._branches.values()
            for network in networks
            if address in network
        ]
        return max(candidates, key=lambda entry: entry[0].prefixlen)[1] if candidates else None

"""ESP in the kernel: the `DataPlane` that makes states and policies, and tells what the kernel tells of them.

Theory of operation. Nothing runs here: every call is a few netlink requests, made on the spot. The kernel takes ESP in
UDP from the daemon's own socket (UDP_ENCAP_ESPINUDP) and leaves IKE in it, so the daemon reads the socket itself.

SPIs are the engine's. The kernel could choose them (XFRM_MSG_ALLOCSPI), but the SPI stands in the first message, and
the engine does not wait for the host to write one. A number that another program has taken for the same address is
refused with EEXIST when the state is made, one in 2^32 for each of its SAs, and told as an error of the host.

A connection that moves gets new states, which go on with the sequence numbers and the replay windows of the old ones.
XFRM_MSG_MIGRATE is not used: it cannot go from or to ESP without UDP, loses the interface's number before Linux 5.18,
and copies the sequence number while the old state still sends. Taking the old state away first costs the packets of
some hundred microseconds, and no number is ever used twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ikeway.address import Address
from ikeway.dataplane.interface import (
    Counters,
    DataPlaneDied,
    DataPlaneEvent,
    HardExpired,
    PeerMoved,
    SaEnded,
    SoftExpired,
)
from ikeway.dataplane.kernel.identity import Identity, Reqids, claim
from ikeway.dataplane.kernel.offload import offload_device
from ikeway.dataplane.kernel.policies import PolicyTable, inbound_policies, outbound_policies
from ikeway.dataplane.kernel.states import continued, offloaded, state, state_id
from ikeway.dataplane.kernel.statistics import Statistics
from ikeway.dataplane.kernel.tunnel import Tunnel, open_tunnel
from ikeway.errors import HostError
from ikeway.esp.drops import Drop
from ikeway.esp.parameters import Encapsulation, EspSa
from ikeway.host.journal import Changes
from ikeway.host.linux import xfrm
from ikeway.host.linux.netlink import Netlink
from ikeway.host.linux.xfrm_structures import Acquired, Expired, Mapped, Notification, Policy, State, StateId

log = logging.getLogger("ikeway.dataplane")

_UDP_ENCAP, _ESPINUDP, _NO_ENCAP = 100, 2, 0


@dataclass(slots=True, eq=False)
class _Installed:
    """One direction of a child SA that the kernel has. It owns its policies."""

    sa: EspSa
    inbound: bool
    reqid: int
    soft_told: bool = False
    packets: int = 0  # when the counters were last read, at
    read: float = field(default_factory=lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
    last_used: float = 0.0

    @property
    def id(self) -> StateId:
        """What the kernel knows its state by."""
        return state_id(self.sa, inbound=self.inbound)

    def note_use(self, one: State) -> float:
        """When it was last used. Linux before 6.2 does not say it of inbound states; then it is known to be after the
        reading before the one that found more packets."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        if one.last_used:  # the kernel's times are of the clock on the wall, in seconds
            self.last_used = now - max(0.0, time.time() - one.last_used)
        elif one.usage.packets > self.packets:
            self.last_used = self.read
        self.packets, self.read = one.usage.packets, now
        return self.last_used


class KernelDataPlane:
    """ESP in the kernel (`ikeway.dataplane.interface.DataPlane`).

    `sockets` are those of IKE, `nat_sockets` those of them on which ESP in UDP arrives. They stay the daemon's, who
    also goes on reading them. `interface`: whether the kernel has xfrm interfaces.
    """

    def __init__(
        self,
        wish: str,
        sockets: Sequence[socket.socket],
        nat_sockets: Sequence[socket.socket],
        *,
        interface: bool = True,
    ) -> None:
        """`wish` is the name for the tunnel interface, `%d` in it stands for a free number."""
        self._wish = self._name = wish
        self._told_dead = False
        self._sockets = tuple(sockets)
        self._nat_sockets = tuple(nat_sockets)
        self._with_interface = interface
        self._changes = Changes()
        self._identity: Identity | None = None
        self._tunnel: Tunnel | None = None
        self._nl: Netlink | None = None
        self._notifications: xfrm.Notifications | None = None
        self._on_event: Callable[[DataPlaneEvent], None] = _ignore
        self._policies = PolicyTable()
        self._reqids: Reqids | None = None
        self._installed: dict[StateId, _Installed] = {}
        self._by_spi: dict[int, list[_Installed]] = {}  # peers may choose the same
        self._statistics = Statistics()

    @property
    def interface(self) -> str:
        """The name of the tunnel interface; the last one while it is made anew."""
        return self._name

    @property
    def mark(self) -> int:
        """The firewall mark of the ESP packets that the kernel makes for us; only while started."""
        assert self._identity is not None, "not started"
        return self._identity.mark

    @property
    def has_interface(self) -> bool:
        """True with an xfrm interface, False with policies that hold for the whole host."""
        return self._with_interface

    async def start(self, on_event: Callable[[DataPlaneEvent], None]) -> None:
        """Make the interface, and let the kernel have ESP. Events are delivered on the running event loop."""
        self._on_event = on_event
        try:
            self._nl = xfrm.open_xfrm()
            self._notifications = xfrm.Notifications()
            self._identity = await claim(self._changes)
            self._reqids = Reqids(self._identity)
            interface_id = self._identity.interface_id if self._with_interface else 0
            self._tunnel = await open_tunnel(self._wish, interface_id, self._changes)
            self._name, self._told_dead = self._tunnel.name, False
            for each in self._nat_sockets:
                each.setsockopt(socket.IPPROTO_UDP, _UDP_ENCAP, _ESPINUDP)
            for each in self._sockets:
                xfrm.bypass(each)
        except OSError as error:
            await self.stop()
            raise HostError(
                f"the kernel cannot carry ESP for us: {xfrm.explain(error)}",
                remedy='`ikeway doctor` tells what is missing; `data_plane = "userspace"` works without',
            ) from error
        except BaseException:
            await self.stop()
            raise
        self._statistics.begin()
        asyncio.get_running_loop().add_reader(self._notifications.socket.fileno(), self._notified)

    async def stop(self) -> None:
        """Remove all states, policies and the interface. Idempotent."""
        notifications, self._notifications = self._notifications, None
        if notifications is not None:
            asyncio.get_running_loop().remove_reader(notifications.socket.fileno())
            notifications.close()
        for each in self._nat_sockets:
            with contextlib.suppress(OSError):  # it may be closed already
                each.setsockopt(socket.IPPROTO_UDP, _UDP_ENCAP, _NO_ENCAP)
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            await tunnel.close(self._changes)
        await self._changes.close()  # the states and policies
        self._installed.clear()
        self._by_spi.clear()
        self._policies = PolicyTable()
        if self._nl is not None:
            self._nl.close()
            self._nl = None

    async def restart(self) -> None:
        """Begin anew, without any SA (after `DataPlaneDied`)."""
        on_event = self._on_event
        await self.stop()
        await self.start(on_event)

    async def add_inbound(self, sa: EspSa) -> None:
        """Begin to accept ESP on `sa.spi`."""
        self._add(sa, inbound=True)

    async def add_outbound(self, sa: EspSa) -> None:
        """Begin to send on `sa`. It takes precedence over older outbound SAs of the same selectors."""
        self._add(sa, inbound=False)

    async def remove_inbound(self, spi: int) -> None:
        """Stop accepting ESP on `spi`. Unknown: no error."""
        for each in self._of_spi(spi, inbound=True):
            self._remove(each)

    async def remove_outbound(self, spi: int, remote: Address) -> None:
        """Stop sending on `spi`. Unknown: no error."""
        found = self._installed.get(StateId(destination=remote.host, spi=spi))
        if found is None:  # the peer has moved since
            others = self._of_spi(spi, inbound=False)
            found = others[0] if len(others) == 1 else None
        if found is not None and not found.inbound:
            self._remove(found)

    async def move(self, connection_id: int, local: Address, remote: Address, udp: bool) -> None:
        """Give all SAs of a connection new outer addresses, and UDP encapsulation or none (MOBIKE, NAT mappings)."""
        encapsulation = Encapsulation.UDP if udp else Encapsulation.ESP
        for each in [each for each in self._installed.values() if each.sa.connection_id == connection_id]:
            moved = dataclasses.replace(each.sa, local=local, remote=remote, encapsulation=encapsulation)
            if moved != each.sa:
                self._move(each, moved)

    async def set_mtu(self, mtu: int) -> None:
        """The interface has another MTU: that is all the kernel wants to know."""

    async def counters(self) -> dict[tuple[int, bool], Counters]:
        """Counters of all SAs by (spi, inbound), and under (0, True)/(0, False) what belongs to no SA."""
        found = self._statistics.beside()
        with self._errors("the kernel's counters cannot be read"):
            for one in xfrm.states(self._netlink):
                installed = self._installed.get(StateId(destination=one.destination, spi=one.spi))
                if installed is not None:
                    counters = found.setdefault((one.spi, installed.inbound), Counters())
                    _count(counters, one)
                    counters.last_used = max(counters.last_used, installed.note_use(one))
        if self._tunnel is not None and not self._told_dead and not self._tunnel.exists():
            self._told_dead = True  # once: it is to be started anew once
            self._on_event(DataPlaneDied(f"somebody has removed the interface {self._tunnel.name}"))
        return found

    # -- states

    def _add(self, sa: EspSa, *, inbound: bool) -> None:
        assert self._reqids is not None
        selectors = (sa.mode, sa.local_selectors, sa.remote_selectors)
        installed = _Installed(sa, inbound, self._reqids.take(sa.child_id, selectors))
        try:
            self._make_state(self._state(installed), installed)
            try:
                self._policies.put(self._netlink, installed, self._policies_of(installed))
            except BaseException:
                xfrm.delete_state(self._netlink, installed.id)
                raise
        except BaseException:
            self._reqids.give_back(sa.child_id)
            raise
        self._installed[installed.id] = installed
        self._by_spi.setdefault(sa.spi, []).append(installed)

    def _remove(self, installed: _Installed) -> None:
        assert self._reqids is not None
        with self._errors("an SA cannot be removed"):
            self._policies.remove(self._netlink, installed)
            last = xfrm.take_state(self._netlink, installed.id)
        if last is not None:
            used, usage = installed.note_use(last), last.usage
            self._on_event(SaEnded(installed.sa.connection_id, installed.inbound, usage.packets, usage.octets, used))
        self._installed.pop(installed.id, None)
        self._by_spi[installed.sa.spi].remove(installed)
        if not self._by_spi[installed.sa.spi]:
            del self._by_spi[installed.sa.spi]
        self._reqids.give_back(installed.sa.child_id)

    def _move(self, installed: _Installed, sa: EspSa) -> None:
        """What is to be sent meanwhile makes the kernel wait for a new state, and is lost."""
        before = installed.id
        del self._installed[before]
        installed.sa = sa
        self._installed[installed.id] = installed
        with self._errors("an SA cannot be moved"):
            old = xfrm.take_state(self._netlink, before)
            if old is None:
                self._on_event(HardExpired(sa.spi, installed.inbound))
                return
            self._make_state(continued(self._state(installed), old, soft_told=installed.soft_told), installed)
            self._policies.put(self._netlink, installed, self._policies_of(installed))
            if installed.id != before:
                xfrm.delete_state(self._netlink, before)

    def _state(self, installed: _Installed) -> State:
        assert self._identity is not None and self._tunnel is not None
        return state(
            installed.sa,
            inbound=installed.inbound,
            reqid=installed.reqid,
            nat_port=self._nat_port(installed.sa.local),
            interface_id=self._tunnel.interface_id,
            mark=self._identity.mark,
        )

    def _make_state(self, wanted: State, installed: _Installed) -> None:
        """In the network card where it can do it, else in the kernel. Raises HostError."""
        device = offload_device(wanted, inbound=installed.inbound)
        if device:
            with contextlib.suppress(OSError):
                xfrm.add_state(self._netlink, offloaded(wanted, device, inbound=installed.inbound))
                return
        try:
            self._add_state(wanted, installed)
        except OSError as error:
            if error.errno == errno.EEXIST:
                raise HostError(
                    f"another program has an SA with SPI {wanted.spi:08x} for {wanted.destination}",
                    remedy="connect again: the next SPI is another one",
                ) from error
            names = " and ".join(each.name for each in wanted.algorithms)
            raise HostError(
                f"the kernel refused an SA with {names}: {xfrm.explain(error)}",
                remedy='load the modules of these algorithms, propose others, or use `data_plane = "userspace"`',
            ) from error

    def _add_state(self, wanted: State, installed: _Installed) -> None:
        """A packet that came while there was no state has made the kernel wait for one, in its place (a larval state)."""
        for last in (False, False, True):
            try:
                xfrm.add_state(self._netlink, wanted)
            except OSError as error:
                if last or error.errno != errno.EEXIST or not self._is_missing(installed.id):
                    raise
            else:
                return

    def _is_missing(self, id: StateId) -> bool:
        """True when the kernel has no such state, or a larval one, which is removed."""
        found = xfrm.get_state(self._netlink, id)
        if found is not None and not found.algorithms:
            xfrm.delete_state(self._netlink, id)
        return found is None or not found.algorithms

    def _policies_of(self, installed: _Installed) -> list[Policy]:
        assert self._tunnel is not None
        make = inbound_policies if installed.inbound else outbound_policies
        return make(installed.sa, installed.reqid, self._tunnel.interface_id)

    def _nat_port(self, local: Address) -> int:
        """The port of our socket for ESP in UDP from this address."""
        ports = [
            each.getsockname()[1] for each in self._nat_sockets if (each.family == socket.AF_INET6) == local.is_ipv6
        ]
        return local.port if local.port in ports or not ports else ports[0]

    def _of_spi(self, spi: int, *, inbound: bool) -> list[_Installed]:
        return [each for each in self._by_spi.get(spi, ()) if each.inbound == inbound]

    # -- what the kernel tells

    def _notified(self) -> None:
        assert self._notifications is not None
        try:
            while self._notifications is not None and (found := self._notifications.read()):
                for each in found:
                    self._tell(each)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._look_again()

    def _tell(self, notification: Notification) -> None:
        match notification:
            case Expired(state=one, hard=hard):
                installed = self._installed.get(StateId(destination=one.destination, spi=one.spi))
                if installed is not None and installed.reqid == one.reqid:
                    installed.soft_told = True
                    made = HardExpired if hard else SoftExpired
                    self._on_event(made(one.spi, installed.inbound))
            case Mapped(id=id, source=source, port=port):
                installed = self._installed.get(id)
                if installed is not None and installed.sa.follow_peer:
                    self._on_event(PeerMoved(id.spi, Address(source, port)))
            case Acquired(template=template):
                self._acquired(template.spi, template.destination)

    def _acquired(self, spi: int, destination: str) -> None:
        """A policy of ours found no state. Either it was moved just now, or somebody has removed it."""
        installed = self._installed.get(StateId(destination=destination, spi=spi))
        if installed is not None and self._is_missing(installed.id):
            log.warning("Somebody has removed the SA %08x from the kernel", spi)
            self._on_event(HardExpired(spi, installed.inbound))

    def _look_again(self) -> None:
        """The kernel had more to tell than its buffer holds: see for ourselves."""
        there = {StateId(destination=each.destination, spi=each.spi): each for each in xfrm.states(self._netlink)}
        for id, installed in list(self._installed.items()):
            one = there.get(id)
            if one is None:
                self._on_event(HardExpired(id.spi, installed.inbound))
            elif not installed.soft_told and _is_soft(one):
                installed.soft_told = True
                self._on_event(SoftExpired(id.spi, installed.inbound))

    @property
    def _netlink(self) -> Netlink:
        if self._nl is None:
            raise HostError("the data plane does not run")
        return self._nl

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise HostError(f"{what}: {xfrm.explain(error)}") from error


def _ignore(event: DataPlaneEvent) -> None:
    """Nobody listens yet."""


def _is_soft(one: State) -> bool:
    usage, limits = one.usage, one.limits
    return usage.octets >= limits.soft_octets or usage.packets >= limits.soft_packets


def _count(counters: Counters, one: State) -> None:
    """Add up what a state has carried; two peers may have chosen the same SPI."""
    counters.packets += one.usage.packets
    counters.octets += one.usage.octets
    for reason, count in (
        (Drop.TOO_OLD, one.dropped.too_old),
        (Drop.REPLAYED, one.dropped.replayed),
        (Drop.INTEGRITY, one.dropped.integrity),
    ):
        if count:
            counters.dropped[reason] = counters.dropped.get(reason, 0) + count

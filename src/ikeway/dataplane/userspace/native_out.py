"""From the TUN device to the network by the native core: what `outgoing` does, in one call for a batch.

Python finds the SA of a flow once; the core remembers it (`ikeway.native.flows`) and then reads, cuts, seals and sends by
itself. Python takes over what was counted, and sees to what is new, to what does not fit the path, and to errors. What
the core does not do (transport mode, rare algorithms) goes the way of `outgoing`, packet by packet.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from ctypes import addressof, byref, c_char, c_uint16

from ikeway.dataplane.userspace.associations import Associations, Sending
from ikeway.dataplane.userspace.clamp import clamp_mss
from ikeway.dataplane.userspace.native_send import finish, merges, prepare
from ikeway.dataplane.userspace.outgoing import Outgoing
from ikeway.dataplane.userspace.segments import TunPacket
from ikeway.dataplane.userspace.tun_io import TunIo
from ikeway.errors import HostError
from ikeway.esp.drops import Drop
from ikeway.esp.parameters import Mode
from ikeway.native import Core
from ikeway.native.flows import Flows
from ikeway.native.layout import (
    BAD,
    FAILED,
    MOST_OUT_GROUPS,
    OUT_SEND_FAILED,
    SYN,
    VNET_OCTETS,
    Frame,
    OutGroup,
    OutJob,
    Packet,
    ReadJob,
    Route,
    Touched,
)

# A batch is what spreads the cost of a turn without making the other direction wait for long.
_MOST_PACKETS = 256
_ENOUGH_OCTETS = 192 << 10
_ARENA_OCTETS = _ENOUGH_OCTETS + 2 * (65536 + 32)
_SEALED_OCTETS = 1 << 18
_MOST_FRAMES = 2048

Run = tuple[int, int]  # packets from the first to before the second


class _Outlet:
    """An outbound SA and its route in the core."""

    __slots__ = ("route", "seal", "send", "sending")

    def __init__(self, sending: Sending, route: Route) -> None:
        self.sending, self.route, self.seal, self.send = sending, route, route.seal, route.send
        prepare(self.send, sending.path)

    def refresh(self, now: float) -> None:
        """Tell the core how far it may go from here."""
        path, sa = self.sending.path, self.sending.sa
        sa.prepare(self.seal)
        self.send.merge = merges(path, now)
        room = path.room(now)
        self.route.largest = sa.largest_payload(room) if room else 0

    def take_over(self, now: float) -> None:
        """Count what the core has sealed."""
        route, sa = self.route, self.sending.sa
        if route.packets:
            sa.take_over(self.seal.sequence, route.packets, route.octets)
            sa.usage.last_used = now
            route.packets = route.octets = 0


class NativeOutgoing(Outgoing):
    """See `Outgoing`. `ledger_of` gives the address of an SA's slot in the ledger, where the core counts; None: there is
    no ledger."""

    def __init__(
        self,
        core: Core,
        associations: Associations,
        tun: TunIo,
        touched: Callable[[Sending], None],
        ledger_of: Callable[[Sending], int] | None = None,
    ) -> None:
        super().__init__(associations, tun, touched)
        self._core = core
        self._ledger_of = ledger_of
        self._flows = Flows(core)
        self._generation = -1
        self._outlets: dict[Sending, _Outlet] = {}
        self._by_address: dict[int, _Outlet] = {}
        arena, out = bytearray(_ARENA_OCTETS), bytearray(_SEALED_OCTETS)
        self._arena = memoryview(arena)
        self._packets = (Packet * _MOST_PACKETS)()
        self._misses = (c_uint16 * (2 * _MOST_PACKETS))()
        self._order = (c_uint16 * _MOST_PACKETS)()
        self._frames = (Frame * _MOST_FRAMES)()
        self._groups = (OutGroup * MOST_OUT_GROUPS)()
        self._touched_routes = Touched()
        heads = (c_uint16 * _MOST_PACKETS)()
        memory = [(c_char * len(octets)).from_buffer(octets) for octets in (arena, out)]
        self._arena_at, self._out_at = (addressof(octets) for octets in memory)
        self._kept = heads, memory
        self._job = OutJob(
            read=ReadJob(
                arena=self._arena_at,
                packets=addressof(self._packets),
                arena_octets=_ARENA_OCTETS,
                most=_MOST_PACKETS,
                enough=_ENOUGH_OCTETS,
                fd=tun.fileno(),
                header=VNET_OCTETS if tun.vnet_header else 0,
                heads=addressof(heads),
            ),
            flows=self._flows.pointer,
            order=addressof(self._order),
            misses=addressof(self._misses),
            groups=addressof(self._groups),
            touched=addressof(self._touched_routes),
        )
        self._reference = byref(self._job)

    @property
    def job(self) -> OutJob:
        """What the core's loop is given."""
        return self._job

    def turn(self, now: float) -> None:
        """Read the device and send what it gives. Raises `HostError` when the device is gone."""
        self.begin()
        self._job.stage = 0
        self.go_on(self._core.ikw_out(self._reference), now)
        self.settle(now)

    def begin(self) -> None:
        """Forget what does not hold any more, before the core is let loose. All is settled."""
        if self._generation != self._associations.generation:
            self._forget()
        self._job.clamp = self.clamp

    def go_on(self, attention: int, now: float) -> None:
        """See to what the core has stopped for, until the batch is done. Raises `HostError` when the device is gone."""
        job = self._job
        while attention:
            outlet = self._by_address[self._groups[job.next_group].route]
            if attention == OUT_SEND_FAILED:
                self._finish_send(outlet, job.code, now)
            else:
                self._refuse(outlet)
            attention = self._core.ikw_out(self._reference)
        code, job.code = job.code, 0
        if job.misses_count:
            self.settle(now)
            self._see_to_misses(self._misses[: job.misses_count], job.read.flags, now)
        elif code and not job.groups_count:
            raise HostError(f"the TUN device was removed ({os.strerror(code)})", remedy="connect again")

    def settle(self, now: float) -> None:
        """Take over what the core has counted."""
        touched = self._touched_routes
        for address in touched.all[: touched.count]:
            outlet = self._by_address[address or 0]
            outlet.take_over(now)
            outlet.route.touched = 0
            self._touched(outlet.sending)
            outlet.refresh(now)
        touched.count = 0

    def _forget(self) -> None:
        self._generation = self._associations.generation
        self._flows.forget()
        self._outlets.clear()
        self._by_address.clear()

    def _outlet(self, sending: Sending, now: float) -> _Outlet:
        outlet = self._outlets.get(sending)
        if outlet is None:
            route = Route(ledger=self._ledger_of(sending) if self._ledger_of else None)
            route.seal.arena, route.seal.packets = self._arena_at, addressof(self._packets)
            route.seal.out, route.seal.out_octets = self._out_at, _SEALED_OCTETS
            route.seal.frames, route.seal.most_frames = addressof(self._frames), _MOST_FRAMES
            route.send.frames_octets, route.send.frames = self._out_at, addressof(self._frames)
            outlet = self._outlets[sending] = _Outlet(sending, route)
            self._by_address[addressof(route)] = outlet
        outlet.refresh(now)
        return outlet

    def _finish_send(self, outlet: _Outlet, code: int, now: float) -> None:
        sending = outlet.sending
        failed, reason = finish(self._core, outlet.send, sending.path, code, now)
        if reason is not None:
            sending.sa.usage.drop(reason, failed)
        self._job.code = 0

    def _refuse(self, outlet: _Outlet) -> None:
        """The SA has reached a limit, or the library has failed: drop the rest of its packets."""
        outlet.take_over(outlet.sending.sa.usage.last_used)
        sa, seal = outlet.sending.sa, outlet.seal
        reason = Drop.SEND_FAILED if seal.refused == FAILED else sa.refusal() or Drop.EXPIRED
        sa.usage.drop(reason, self._core.ikw_left(byref(seal)))
        seal.next, seal.refused = seal.count, 0
        self._touched(outlet.sending)  # the daemon wants to hear of the limit

    def _see_to_misses(self, edges: list[int], flags: int, now: float) -> None:
        """Find the SAs of runs that the core does not know, send their packets, and let it know."""
        groups: dict[Sending, list[Run]] = {}
        unclaimed = self._associations.unclaimed[False]
        for first, end in zip(edges[::2], edges[1::2], strict=True):
            packet = self._packets[first]
            bad = packet.flags & BAD
            sending = Drop.MALFORMED if bad else self._associations.route(self._octets(packet))
            if isinstance(sending, Drop):
                unclaimed.drop(sending, end - first)
            else:
                groups.setdefault(sending, []).append((first, end))
                if self._is_native(sending):
                    outlet = self._outlet(sending, now)
                    self._flows.remember_flow(self._arena_at + packet.at, packet.length, outlet.route)
        if self.clamp and flags & SYN:
            for first, end in zip(edges[::2], edges[1::2], strict=True):
                self._clamp(first, end)
        for sending, runs in groups.items():
            if self._is_native(sending):
                self._send_runs(self._outlet(sending, now), runs, now)
            else:
                self._send(sending, [self._tun_packet(number) for run in runs for number in range(*run)], now)
            self._touched(sending)

    @staticmethod
    def _is_native(sending: Sending) -> bool:
        return sending.sa.native is not None and sending.sa.parameters.mode is Mode.TUNNEL

    def _clamp(self, first: int, end: int) -> None:
        for packet in self._packets[first:end]:
            if packet.flags & SYN:
                clamp_mss(self._octets(packet), self.mtu)

    def _octets(self, packet: Packet) -> memoryview:
        return self._arena[packet.at : packet.at + packet.length]

    def _send_runs(self, outlet: _Outlet, runs: list[Run], now: float) -> None:
        """Seal and send packets of one SA which may not all fit."""
        sending, seal, send = outlet.sending, outlet.seal, outlet.send
        numbers = [number for run in runs for number in range(*run) if self._fits(sending, number, now)]
        count = len(numbers)
        self._order[:count] = [*numbers]
        seal.order, seal.count, seal.next, seal.segment = addressof(self._order), count, 0, 0
        while seal.next < count:
            self._core.ikw_seal(byref(seal))
            outlet.route.packets, outlet.route.octets = seal.made, seal.octets
            outlet.take_over(now)
            if seal.made:
                send.count, send.next = seal.made, 0
                self._finish_send(outlet, self._core.ikw_send(byref(send)), now)
            if seal.refused:
                self._refuse(outlet)
            sending.sa.prepare(seal)
        outlet.refresh(now)

    def _tun_packet(self, number: int) -> TunPacket:
        packet = self._packets[number]
        return TunPacket(self._octets(packet), packet.segment, packet.upper, packet.header)

    def _fits(self, sending: Sending, number: int, now: float) -> bool:
        """False when the path is known to be too small; the sender was told, and the drop counted."""
        if not sending.path.room(now):
            return True
        packet = self._packets[number]
        length = packet.header + packet.segment if packet.segment else packet.length
        if not self._does_not_fit(sending, self._octets(packet), length, 0, now):
            return True
        segments = -(-(packet.length - packet.header) // packet.segment) if packet.segment else 1
        sending.sa.usage.drop(Drop.TOO_BIG, segments)
        return False

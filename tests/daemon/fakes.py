"""An engine and a data plane that do what a test says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

from ikeway.address import Address
from ikeway.dataplane.interface import Counters
from ikeway.errors import HostError

HERE = Address("192.0.2.1", 500)
THERE = Address("198.51.100.1", 500)
ELSEWHERE = Address("198.51.100.2", 500)


class Sent(NamedTuple):
    octets: bytes
    local: Address
    remote: Address


@dataclass(eq=False)
class FakeSa:
    connection_id: int = 1


@dataclass(eq=False)
class FakeEsp:
    spi: int
    connection_id: int = 1


class FakeEngine:
    """Brings out what `script(octets)` says for a datagram; keeps what it was told."""

    def __init__(self):
        self.received = []
        self.answers = []
        self.ticks = []
        self.due = None
        self.script = lambda octets: ([], [])
        self._events, self._outgoing = [], []

    def bring(self, events=(), outgoing=()):
        self._events += events
        self._outgoing += outgoing

    def receive(self, octets, local, remote, now):
        self.received.append(octets)
        self.bring(*self.script(octets))

    def answer(self, question, answer, now, *, sa=None):
        self.answers.append((question, answer))

    def tick(self, now):
        self.ticks.append(now)
        self.due = None

    def deadline(self):
        return self.due

    def events(self):
        events, self._events = self._events, []
        return events

    def outgoing(self):
        outgoing, self._outgoing = self._outgoing, []
        return outgoing


class FakeTransport:
    def __init__(self, journal):
        self.journal = journal

    def send(self, octets, local, remote):
        self.journal.append(("sent", octets))

    def send_keepalive(self, local, remote):
        self.journal.append(("keepalive", remote))


@dataclass
class FakeDataPlane:
    """Carries out what is not held, and notes it down."""

    journal: list = field(default_factory=list)
    held: dict = field(default_factory=dict)  # spi: an Event to wait for
    refused: set = field(default_factory=set)
    on_event: object = None

    async def start(self, on_event):
        self.on_event = on_event

    async def stop(self):
        self.journal.append(("stopped",))

    async def add_inbound(self, sa):
        await self._do("in", sa.spi)

    async def add_outbound(self, sa):
        await self._do("out", sa.spi)

    async def remove_inbound(self, spi):
        await self._do("-in", spi)

    async def remove_outbound(self, spi, remote):
        await self._do("-out", spi)

    async def move(self, connection_id, local, remote, udp):
        self.journal.append(("move", connection_id, remote))

    async def counters(self):
        return {(0, True): Counters(), (0, False): Counters()}

    async def _do(self, what, spi):
        if spi in self.held:
            await self.held[spi].wait()
        else:
            await asyncio.sleep(0)
        if spi in self.refused:
            raise HostError("no room")
        self.journal.append((what, spi))

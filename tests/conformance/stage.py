"""The stage of the exchange scenarios: two engines with numbered SPIs and nonces, and a wire that delivers on demand."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from ikeway.ike import events
from ikeway.ike.channel import Datagram
from ikeway.ike.child import ChildSa
from ikeway.ike.proposals import key_exchange_methods
from ikeway.ike.sa import IkeSa
from ikeway.wire.message import Header, Message
from tests.ike.pair import Host, Pair

ESP_BASE = 0x10000  # SPI numbers of a scenario are small, and small SPIs are reserved (RFC 4303 section 2.1)
NONCE_OCTETS = 32
JOBS = frozenset({"retransmit", "child-linger", "child-rekey", "rekey", "create-child", "await-delete"})


@dataclass
class Sent:
    """A message on the wire."""

    sender: Peer
    message: Message
    datagram: Datagram


@dataclass
class Peer:
    """Peer a or b of a scenario."""

    name: str
    host: Host
    seen: int = 0  # events of the log that were looked at
    plain: dict[tuple[bytes, bytes, int, bool], Message] = field(default_factory=dict)
    original: IkeSa | None = None  # the IKE SA of the beginning

    @property
    def sa(self) -> IkeSa:
        """The IKE SA of the beginning."""
        assert self.original is not None
        return self.original

    @property
    def installed(self) -> set[int]:
        """SPI numbers in the data plane, both directions."""
        return {spi - ESP_BASE for spi in (*self.host.inbound, *self.host.outbound)}

    @property
    def all_sas(self) -> list[IkeSa]:
        """Every IKE SA in the table, and the first one."""
        table = list(self.host.engine._shared.table.values())
        return table if self.original in table or self.original is None else [*table, self.original]

    def child(self, number: int) -> ChildSa:
        """The child SA with this SPI number, in either direction."""
        spi = number + ESP_BASE
        for sa in self.all_sas:
            child = sa.find_child(spi_in=spi) or sa.find_child(spi_out=spi)
            if child is not None:
                return child
        raise AssertionError(f"{self.name} has no child SA {number}, but {[sa.children for sa in self.all_sas]}")

    def ike_sa(self, number: int) -> IkeSa:
        """The IKE SA whose initiator's SPI has this number."""
        for sa in self.all_sas:
            if ike_number(sa) == number:
                return sa
        raise AssertionError(f"{self.name} has no IKE SA {number}, but {self.all_sas}")

    def jobs(self) -> dict[Hashable, float]:
        """The timers that a scenario may speak of: retransmission, lingering, retries, and what awaits a delete.

        A replaced IKE SA is given up here when the peer never deletes it; elsewhere that is so for redundant ones only.
        """
        found: dict[Hashable, float] = {}
        for sa in self.all_sas:
            for name, at in sa.timers._at.items():
                kind = name[0] if isinstance(name, tuple) else name
                if kind in JOBS and not (kind == "await-delete" and sa.established):
                    found[sa.spi, name] = at
        return found


def ike_number(sa: IkeSa) -> int:
    """The number of an IKE SA."""
    return int.from_bytes(sa.channel.initiator_spi, "big")


class Stage:
    """Both peers, and the messages between them in the order in which they were sent."""

    def __init__(self, pair: Pair, *, swapped: bool = False) -> None:
        self.now = pair.now
        self.pair = pair
        first, second = ("b", "a") if swapped else ("a", "b")
        self.peers = {first: Peer(first, pair.a), second: Peer(second, pair.b)}
        self.wire: list[Sent] = []
        self._number_spis()

    def peer(self, name: str) -> Peer:
        """Peer a or b."""
        return self.peers[name]

    def other(self, peer: Peer) -> Peer:
        """Who is not this one."""
        return self.peers["b" if peer.name == "a" else "a"]

    def _number_spis(self) -> None:
        ike, esp = itertools.count(1), itertools.count(1)
        for peer in self.peers.values():
            shared = peer.host.engine._shared

            def new_esp_spi(sa: IkeSa, shared=shared) -> int:
                spi = ESP_BASE + next(esp)
                shared.esp_spis.add(spi)
                return spi

            shared.new_ike_spi = lambda: next(ike).to_bytes(8, "big")
            shared.new_esp_spi = new_esp_spi

    def script_nonces(self, first_octets: Iterable[int]) -> None:
        """From now on the nonces of both peers begin with these octets, in the order in which they are made."""
        script = iter(tuple(first_octets))
        for peer in self.peers.values():
            shared = peer.host.engine._shared

            def random(count: int, original=shared.random) -> bytes:
                octets = original(count)
                if count == NONCE_OCTETS and (first := next(script, None)) is not None:
                    return bytes([first]) + octets[1:]
                return octets

            shared.random = random

    def set_up(self) -> None:
        """Let the peers connect."""
        self.pair.connect()
        self.now = self.pair.now
        for peer in self.peers.values():
            peer.original = peer.host.sa
            self.take(peer)
        self.wire.clear()

    def replace_proposals(self, proposals: dict[str, tuple]) -> None:
        """Give the peers other IKE proposals than those they connected with; each begins with its own favourite.

        (Left alone, we begin with the key exchange method that the old IKE SA has.)
        """
        for name, peer in self.peers.items():
            peer.sa.connection = dataclasses.replace(peer.sa.connection, ike_proposals=proposals[name])
            peer.sa.preferred_method = key_exchange_methods(proposals[name])[0]

    def take(self, peer: Peer) -> list[events.Event]:
        """What has happened at a peer; what it sent is put on the wire."""
        self.now += 0.001
        peer.host.take_events(self.now)
        fresh = peer.host.log[peer.seen :]
        peer.seen = len(peer.host.log)
        for event in fresh:
            if isinstance(event, events.MessageSent):
                peer.original = peer.original or event.sa
                peer.plain[_key(event.message)] = event.message
        for datagram in peer.host.engine.outgoing():
            self.wire.append(Sent(peer, peer.plain[_key(Header.decode(datagram.octets))], datagram))
        return fresh

    def deliver(self, sent: Sent) -> Peer:
        """Hand a message to whom it is meant for."""
        receiver = self.other(sent.sender)
        datagram = sent.datagram
        receiver.host.engine.receive(datagram.octets, datagram.remote, datagram.local, self.now)
        return receiver

    def pass_time(self, seconds: float) -> None:
        """Let the timers of both peers run."""
        self.now += seconds
        for peer in self.peers.values():
            peer.host.engine.tick(self.now)


def _key(message: Message | Header) -> tuple[bytes, bytes, int, bool]:
    return message.initiator_spi, message.responder_spi, message.message_id, message.is_response

"""Child SAs: what one is, and how it comes and goes in the data plane (RFC 7296 sections 2.8, 2.17).

A child SA that replaces another is installed in steps, so that no packet is lost: the responder of the rekeying accepts
on the new one at once but sends on the old one until the peer deletes it, or it expires; a replaced SA accepts for
`linger_seconds` what is still on its way.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ikeway.crypto import ChildKeys
from ikeway.esp.parameters import Encapsulation, EspSa, EspTransforms, Mode
from ikeway.ike import events
from ikeway.ike.proposals import Suite
from ikeway.ike.selectors import Selectors
from ikeway.ike.settings import ChildSettings
from ikeway.wire.registry import KeyExchangeMethod

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa


class ChildState(enum.Enum):
    """Where a child SA is in its life."""

    INSTALLED = "installed"
    REKEYING = "rekeying"  # our rekeying of it is under way
    REKEYED = "rekeyed"  # the peer will delete it: it has rekeyed it, or its new SA has lost a collision
    DELETING = "deleting"  # our delete is under way, or the peer's came before the end of our rekeying
    DELETED = "deleted"  # lingers for inbound packets on their way


class Outbound(enum.Enum):
    """The outbound half."""

    NONE = "none"
    REGISTERED = "registered"  # keys are there; sends when the peer lets go of the SA that this one replaces
    INSTALLED = "installed"


@dataclass(frozen=True, slots=True)
class RekeyByPeer:
    """A rekeying by the peer that collides, or may collide, with ours: its SA and its nonces."""

    successor: ChildSa
    lowest_nonce: bytes


@dataclass(slots=True, eq=False, repr=False)
class ChildSa:
    """One child SA: both directions. `spi_in` is ours, `spi_out` the peer's."""

    sa: IkeSa
    settings: ChildSettings
    child_id: int
    spi_in: int
    spi_out: int
    suite: Suite
    mode: Mode
    local_selectors: Selectors
    remote_selectors: Selectors
    esp_in: EspSa
    esp_out: EspSa
    created: float
    is_initiator: bool
    state: ChildState = ChildState.INSTALLED
    outbound: Outbound = Outbound.NONE
    inbound_installed: bool = False
    rekeying: bool = False  # the response to our rekeying is still to come, whatever the peer has done to it meanwhile
    rekeyed_by_peer: RekeyByPeer | None = None
    successor: ChildSa | None = None
    announced: bool = False  # ChildUp was told
    key_exchange: KeyExchangeMethod | None = None  # the method to begin with at the next rekeying
    retries: int = field(default=0)

    @property
    def name(self) -> str:
        """The name of its settings."""
        return self.settings.name

    @property
    def spi_in_octets(self) -> bytes:
        """Our SPI as the wire has it."""
        return self.spi_in.to_bytes(4, "big")

    @property
    def spi_out_octets(self) -> bytes:
        """The peer's SPI as the wire has it."""
        return self.spi_out.to_bytes(4, "big")

    def install_inbound(self) -> None:
        """Accept on it."""
        if not self.inbound_installed:
            self.inbound_installed = True
            self.sa.report(events.InboundAdded(self.esp_in, self))

    def install_outbound(self) -> None:
        """Send on it."""
        if self.outbound is not Outbound.INSTALLED:
            self.outbound = Outbound.INSTALLED
            self.sa.report(events.OutboundAdded(self.esp_out, self))

    def remove_outbound(self) -> None:
        """Send on it no more."""
        if self.outbound is Outbound.INSTALLED:
            self.sa.report(events.OutboundRemoved(self.spi_out, self.sa.remote, self))
        self.outbound = Outbound.NONE

    def remove_inbound(self) -> None:
        """Accept on it no more."""
        if self.inbound_installed:
            self.inbound_installed = False
            self.sa.report(events.InboundRemoved(self.spi_in, self))
        self.sa.shared.esp_spis.discard(self.spi_in)

    def __repr__(self) -> str:
        return f"<{self}, {self.state.value}>"

    def __str__(self) -> str:
        return f"child SA {self.name} ({self.spi_in:08x} in, {self.spi_out:08x} out)"


def esp_pair(
    sa: IkeSa,
    settings: ChildSettings,
    *,
    child_id: int,
    spis: tuple[int, int],
    suite: Suite,
    mode: Mode,
    keys: ChildKeys,
    selectors: tuple[Selectors, Selectors],
    is_initiator: bool,
) -> tuple[EspSa, EspSa]:
    """The data plane's view of a child SA: inbound and outbound. `is_initiator`: of the exchange that made it."""
    from_initiator = (keys.encryption_initiator, keys.integrity_initiator)
    from_responder = (keys.encryption_responder, keys.integrity_responder)
    outgoing, incoming = (from_initiator, from_responder) if is_initiator else (from_responder, from_initiator)
    local_selectors, remote_selectors = selectors
    transforms = EspTransforms(
        encryption=suite.encryption,
        key_bits=suite.key_bits,
        integrity=suite.integrity,
        extended_sequence_numbers=suite.esn,
    )

    def one(spi: int, material: tuple[bytes, bytes], *, inbound: bool) -> EspSa:
        return EspSa(
            spi=spi,
            child_id=child_id,
            connection_id=sa.connection_id,
            transforms=transforms,
            encryption_key=material[0],
            integrity_key=material[1],
            mode=mode,
            encapsulation=Encapsulation.UDP if sa.udp_encapsulation else Encapsulation.ESP,
            local=sa.local,
            remote=sa.remote,
            local_selectors=local_selectors,
            remote_selectors=remote_selectors,
            replay_window=settings.replay_window if inbound else 0,
            limits=settings.limits,
            follow_peer=inbound and sa.nat.peer_behind_nat and not sa.mobike,
        )

    spi_in, spi_out = spis
    return one(spi_in, incoming, inbound=True), one(spi_out, outgoing, inbound=False)

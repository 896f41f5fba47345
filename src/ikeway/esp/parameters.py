"""What a data plane is told about one direction of a child SA."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from ikeway.address import Address
from ikeway.wire.payloads import TrafficSelector
from ikeway.wire.registry import EncryptionAlgorithm, IntegrityAlgorithm


class Mode(enum.Enum):
    """How ESP carries a packet (RFC 4301 section 3.2)."""

    TUNNEL = "tunnel"
    TRANSPORT = "transport"


class Encapsulation(enum.Enum):
    """What carries ESP on the outside."""

    UDP = "udp"  # RFC 3948, between the IKE ports of both peers
    ESP = "esp"  # IP protocol 50


@dataclass(frozen=True, slots=True, kw_only=True)
class EspTransforms:
    """The algorithms of an ESP SA. `key_bits` is None where the algorithm has one key length."""

    encryption: EncryptionAlgorithm
    key_bits: int | None
    integrity: IntegrityAlgorithm | None  # None with an AEAD
    extended_sequence_numbers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EspLimits:
    """Lifetimes that the data plane watches, 0 for none. Seconds are watched by the engine, not here."""

    soft_bytes: int = 0
    hard_bytes: int = 0
    soft_packets: int = 0
    hard_packets: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EspSa:
    """One direction of a child SA (RFC 4301 section 4.4.2).

    `spi` is the 32-bit SPI on the wire of this direction. `local`/`remote` are the outer addresses, ports included
    for UDP. `local_selectors`/`remote_selectors` are the inner ones, as seen from this host in both directions.
    `child_id` groups the SAs that follow one another by rekeying, and both directions; `connection_id` groups what
    belongs to one IKE connection across its rekeyings. Keys are octets as RFC 7296 section 2.17 cuts them (an AEAD
    key ends with its salt).
    """

    spi: int
    child_id: int
    connection_id: int
    transforms: EspTransforms
    encryption_key: bytes = field(repr=False)
    integrity_key: bytes = field(repr=False)
    mode: Mode
    encapsulation: Encapsulation
    local: Address
    remote: Address
    local_selectors: tuple[TrafficSelector, ...]
    remote_selectors: tuple[TrafficSelector, ...]
    replay_window: int = 4096  # packets; inbound only; 0 switches the check off
    limits: EspLimits = EspLimits()
    # Inbound with UDP encapsulation: tell when authenticated traffic comes from another address (RFC 7296, 2.23).
    follow_peer: bool = False

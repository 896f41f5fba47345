"""What the kernel's IPsec speaks of: states (SAs), policies and their selectors (<linux/xfrm.h>).

Values are frozen. Addresses are texts, numbers are in host order. `ikeway.host.linux.xfrm_messages` turns them into
octets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

MODE_TRANSPORT, MODE_TUNNEL = 0, 1
IN, OUT, FORWARD = 0, 1, 2
ALLOW, BLOCK = 0, 1
UNLIMITED = (1 << 64) - 1

FLAG_AF_UNSPEC, FLAG_ESN = 32, 128
OFFLOAD_IPV6, OFFLOAD_INBOUND = 1, 2
LARGEST_REPLAY_WINDOW = 4096  # packets: XFRMA_REPLAY_ESN_MAX

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Which packets. A port matches when it equals `*_port` in the bits of `*_port_mask` (0: any); of ICMP, the source
    port is the type and the destination port the code."""

    source: Network
    destination: Network
    protocol: int = 0
    source_port: int = 0
    source_port_mask: int = 0
    destination_port: int = 0
    destination_port_mask: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """A cipher, MAC or AEAD by the kernel's name. `icv_bits` is 0 for a cipher that has none."""

    name: str
    key: bytes = field(repr=False)
    icv_bits: int = 0
    is_aead: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Sequence numbers: the last one sent, the highest one received, and the window below it as a bitmap of `window`
    bits in 32-bit words."""

    sent: int = 0
    received: int = 0
    window: int = 0
    bitmap: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Octets and packets after which the kernel tells (soft), or stops (hard)."""

    soft_octets: int = UNLIMITED
    hard_octets: int = UNLIMITED
    soft_packets: int = UNLIMITED
    hard_packets: int = UNLIMITED


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a state has carried; times are seconds since 1970, 0 for never."""

    octets: int = 0
    packets: int = 0
    made: int = 0
    first_used: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What a state has dropped."""

    too_old: int = 0
    replayed: int = 0
    integrity: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpPorts:
    """ESP in UDP, from port to port."""

    source: int
    destination: int


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One direction of an ESP SA. `interface_id` is that of the xfrm interface it belongs to, 0 for none;
    `output_mark` is put on the packets that it makes, 0 for none; `offload` is the index of the network card that
    does the work, 0 for none, as `offload_flags` say."""

    source: str
    destination: str
    spi: int
    reqid: int
    mode: int
    flags: int = 0
    selector: Selector | None = None
    algorithms: tuple[Algorithm, ...] = ()
    udp: UdpPorts | None = None
    replay: Replay | None = None
    limits: Limits = Limits()
    usage: Usage = Usage()
    dropped: Dropped = Dropped()
    interface_id: int = 0
    output_mark: int = 0
    last_used: int = 0
    offload: int = 0
    offload_flags: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The SA that a policy wants: `spi` 0 for any, "0.0.0.0" or "::" for any source."""

    source: str
    destination: str
    reqid: int
    mode: int
    spi: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What happens to packets that `selector` matches. Without a template they pass as they are. `index` is the
    kernel's number of it."""

    direction: int
    selector: Selector
    template: Template | None = None
    priority: int = 0
    action: int = ALLOW
    interface_id: int = 0
    index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StateId:
    """What the kernel knows a state by."""

    destination: str
    spi: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """A limit of a state was reached: the soft one, or the `hard` one, which ends it."""

    state: State
    hard: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """Authentic ESP in UDP came from another address or port than the state says."""

    id: StateId
    reqid: int
    source: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquired:
    """A packet was to be sent that a policy wants protected, and there is no state for it."""

    template: Template
    selector: Selector


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """A state is gone; this is what it was at last."""

    state: State


Notification = Expired | Mapped | Acquired | Deleted

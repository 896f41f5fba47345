"""Checking inner packets against negotiated traffic selectors (RFC 4301 section 4.4.1.1, RFC 7296 section 3.13.1)."""

from __future__ import annotations

from collections.abc import Sequence

from ikeway.esp.inner import Flow
from ikeway.wire.payloads import TrafficSelector
from ikeway.wire.registry import TrafficSelectorType

_IP_TYPES = (TrafficSelectorType.TS_IPV4_ADDR_RANGE, TrafficSelectorType.TS_IPV6_ADDR_RANGE)


def covers(selector: TrafficSelector, protocol: int, address: bytes, port: int) -> bool:
    """True when the selector lets one end of a flow through. `port` may be `OPAQUE`."""
    if selector.type not in _IP_TYPES or selector.protocol not in (0, protocol):
        return False
    if len(address) != len(selector.start_address):
        return False
    if not selector.start_address <= address <= selector.end_address:
        return False
    if selector.start_port == 0 and selector.end_port == 0xFFFF:
        return True
    if port < 0:  # OPAQUE is asked for by the empty range 65535-0
        return selector.start_port == 0xFFFF and selector.end_port == 0
    return selector.start_port <= port <= selector.end_port


class SelectorPair:
    """The selectors of one child SA, as seen from this host."""

    __slots__ = ("local", "remote")

    def __init__(self, local: Sequence[TrafficSelector], remote: Sequence[TrafficSelector]) -> None:
        self.local = tuple(local)
        self.remote = tuple(remote)

    def allows_outbound(self, flow: Flow) -> bool:
        """True when the packet may enter the tunnel."""
        return any(covers(s, flow.protocol, flow.destination, flow.destination_port) for s in self.remote) and any(
            covers(s, flow.protocol, flow.source, flow.source_port) for s in self.local
        )

    def allows_inbound(self, flow: Flow) -> bool:
        """True when the packet may leave the tunnel."""
        return any(covers(s, flow.protocol, flow.source, flow.source_port) for s in self.remote) and any(
            covers(s, flow.protocol, flow.destination, flow.destination_port) for s in self.local
        )

"""NAT detection (RFC 7296 section 2.23)."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field

from ikeway.address import Address
from ikeway.wire.message import Message
from ikeway.wire.payloads import Notify
from ikeway.wire.registry import NotifyType

IKE_PORT = 500
NAT_TRAVERSAL_PORT = 4500


@dataclass(frozen=True, slots=True)
class NatFindings:
    """What the hashes of the peer say. `supported` False: the peer sent none."""

    supported: bool = False
    peer_behind_nat: bool = False
    self_behind_nat: bool = False
    destination: bytes = field(default=b"", compare=False)  # as whom the peer sees us; another value: another mapping

    @property
    def any(self) -> bool:
        """A NAT is somewhere between."""
        return self.peer_behind_nat or self.self_behind_nat


def detection_hash(initiator_spi: bytes, responder_spi: bytes, address: Address) -> bytes:
    """SHA-1(SPIi | SPIr | IP | port), as the notify carries it."""
    packed = ipaddress.ip_address(address.host).packed + address.port.to_bytes(2, "big")
    return hashlib.sha1(initiator_spi + responder_spi + packed, usedforsecurity=False).digest()


def detection_notifies(
    initiator_spi: bytes,
    responder_spi: bytes,
    local: Address,
    remote: Address,
    *,
    pretend_nat: Callable[[int], bytes] | None = None,
) -> tuple[Notify, Notify]:
    """The two notifies of a sender at `local` that sends to `remote`.

    `pretend_nat` is a source of random octets for a wrong source hash, so that the peer sees a NAT and both sides use
    UDP encapsulation.
    """
    source = detection_hash(initiator_spi, responder_spi, local) if pretend_nat is None else pretend_nat(20)
    destination = detection_hash(initiator_spi, responder_spi, remote)
    return (
        Notify(NotifyType.NAT_DETECTION_SOURCE_IP, source),
        Notify(NotifyType.NAT_DETECTION_DESTINATION_IP, destination),
    )


def find_nat(message: Message, local: Address, remote: Address, spis: tuple[bytes, bytes] | None = None) -> NatFindings:
    """Compare the peer's hashes with the addresses that its message came with.

    `spis` when they are not those of the message's header.
    """
    initiator_spi, responder_spi = spis or (message.initiator_spi, message.responder_spi)
    sources = message.notifies(NotifyType.NAT_DETECTION_SOURCE_IP)
    destinations = message.notifies(NotifyType.NAT_DETECTION_DESTINATION_IP)
    if not sources or not destinations:
        return NatFindings()
    source = detection_hash(initiator_spi, responder_spi, remote)
    destination = detection_hash(initiator_spi, responder_spi, local)
    return NatFindings(
        supported=True,
        peer_behind_nat=all(notify.value != source for notify in sources),
        self_behind_nat=all(notify.value != destination for notify in destinations),
        destination=destinations[0].value,
    )

"""Microsoft: Windows' own client, and what its gateways (RAS, Azure point-to-site) agree on. Sources: docs/dialects.md.

IKE_SA_INIT of Windows 10 and 11 has four vendor IDs; the last one's meaning is not known. Its fragments are those of
RFC 7383. The gateways differ from others by what they agree on when nobody has configured it: MODP-1024 and SHA-1. So
their dialects offer that behind everything better.
"""

from __future__ import annotations

from ikeway.dialects.interface import Dialect
from ikeway.ike.proposals import parse_proposals
from ikeway.wire.registry import ProtocolId
from ikeway.wire.vendors import MICROSOFT

VENDOR_IDS = (
    MICROSOFT + (9).to_bytes(4),  # Windows 8 and later
    bytes.fromhex("fb1de3cdf341b7ea16b7e5be0855f120"),  # MS-Negotiation Discovery Capable
    bytes.fromhex("26244d38eddb61b3172a36e3d0cfb819"),  # Vid-Initial-Contact
    bytes.fromhex("01528bbbc00696121849ab9a1c5b2a5100000002"),
)

# As Azure's documents name what a default policy takes; Windows' own client offers the same.
IKE_PROPOSALS = parse_proposals(
    "default,aes256-sha384-modp1024,aes256-sha256-modp1024,aes128-sha256-modp1024,aes256-sha1-modp1024,"
    "aes128-sha1-modp1024"
)
ESP_PROPOSALS = parse_proposals("default,aes256-sha1,aes128-sha1", ProtocolId.ESP)


def windows() -> Dialect:
    """A client that passes for Windows' own."""
    return Dialect(name="windows", vendor_ids=VENDOR_IDS, ike_proposals=IKE_PROPOSALS, esp_proposals=ESP_PROPOSALS)


def azure() -> Dialect:
    """A client of an Azure gateway (point-to-site) with whatever policy it has."""
    return Dialect(name="azure", ike_proposals=IKE_PROPOSALS, esp_proposals=ESP_PROPOSALS)

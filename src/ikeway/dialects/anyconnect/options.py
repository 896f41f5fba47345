"""What is not certain about AnyConnect, as settings. Sources and certainty of each default: docs/anyconnect.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ikeway.auth.identity import Identity
from ikeway.dialects.anyconnect.binding import HashRule
from ikeway.dialects.anyconnect.messages import Device
from ikeway.eap.packet import MethodType
from ikeway.wire.registry import IdentificationType

VENDOR_IDS = (
    b"CISCO-DELETE-REASON",
    b"CISCO(COPYRIGHT)&Copyright (c) 2009 Cisco Systems, Inc.",
    bytes.fromhex("4048b7d56ebce88525e7de7f00d6c2d3"),  # MD5 of FRAGMENTATION
    b"CISCO-GRE-MODE",
    b"CISCO-ANYCONNECT-STRAP",
    b"CISCO-ANYCONNECT-EAP",
    b"CISCO-NGE-LEVEL",
)
"""As one client that is said to work sends them, in its order; which of them a gateway wants is not known."""

FRAGMENTATION = VENDOR_IDS[2]
ANYCONNECT_EAP = VENDOR_IDS[5]
IDENTITY = b"*$AnyConnectClient$*"
GROUP_NAME = 201  # the type of that identity, of the range for private use (RFC 7296 section 3.5)
METHOD = MethodType(9, 0x44425250)  # Cisco's number, and "DBRP"

Fragments = Literal["cisco", "standard"]


ANYCONNECT_CLIENT = Identity(IdentificationType(GROUP_NAME), IDENTITY)
DEVICE = Device("4.9.01095", "win", (("unique-id", "0" * 64), ("unique-id-global", "0" * 40)))


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonOptions:
    """Both roles. `auth_vendor_id`: of the Vendor ID in the first IKE_AUTH message; None: none is sent; empty: 20 random
    octets."""

    vendor_ids: tuple[bytes, ...] = VENDOR_IDS
    auth_vendor_id: bytes | None = b""
    method: MethodType = METHOD
    signature_hash: HashRule = "prf"
    fragments: Fragments = "cisco"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions(CommonOptions):
    """`host_scan`: empty refuses; "echo" answers with the token that the gateway sent; else the token to answer with."""

    identity: Identity = ANYCONNECT_CLIENT
    device: Device = DEVICE
    group: str = ""
    capabilities: tuple[str, ...] = ()
    second_username: str = ""
    host_scan: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions(CommonOptions):
    """`identities`: what clients say in IDi, of the types of a group's name and of a key ID, whichever of them a client
    takes. `groups`: of which a client must choose one; empty: there are none. `attempts`: at the form, before it is over.
    `server_cert_hash`: in the last document, in hexadecimal; empty: it is not said."""

    identities: tuple[bytes, ...] = (IDENTITY,)
    password: bool = True
    second_password: bool = False
    certificate: bool = False
    same_user: bool = True  # the user's name must be one of the certificate's names, where both are demanded
    groups: tuple[str, ...] = ()
    message: str = "Please enter your username and password."
    csport: int = 443
    attempts: int = 3
    server_cert_hash: str = ""
    host_scan: bool = False
    banner: str = ""
    default_domain: str = ""
    split_dns: tuple[str, ...] = ()
    split_include: tuple[str, ...] = ()

    def are_those_of(self, identity: Identity) -> bool:
        """True for the IDi of a client of this gateway: its name may be configured (IKEIdentity)."""
        return identity.value in self.identities and identity.type in (GROUP_NAME, IdentificationType.ID_KEY_ID)

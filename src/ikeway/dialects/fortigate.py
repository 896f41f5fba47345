"""FortiGate: what FortiClient sends that other clients do not, for gateways that look for it. Sources: docs/dialects.md.

Nothing of it was tried against a FortiGate. The second factor is in `fortigate_eap`.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ikeway.dialects.anyconnect import unity
from ikeway.dialects.interface import Dialect
from ikeway.wire.payloads import Notify, Payload
from ikeway.wire.registry import NotifyType

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa

VENDOR_IDS = (
    bytes.fromhex("4c53427b6d465d1b337bb755a37a7fef"),  # "Forticlient Connect License", and not its MD5
    hashlib.md5(b"Fortinet Endpoint Control", usedforsecurity=False).digest(),
    hashlib.md5(b"Forticlient EAP Extension", usedforsecurity=False).digest(),
)
FORTICLIENT_CONNECT = NotifyType(0xF100)
VPN_NETWORK_ID = NotifyType(61520)


@dataclass(frozen=True, slots=True, kw_only=True)
class FortiGateOptions:
    """What FortiClient tells of itself, as lines KEY=VALUE. `notify` False: nothing of it. `address` empty: the one that
    the IKE SA has on our side. `network_id`: which of a gateway's tunnels; None: not said."""

    notify: bool = True
    version: str = "7.4.8.2066"
    unique_id: str = "0" * 32
    address: str = ""
    mac_addresses: str = ""
    host: str = ""
    user: str = ""
    system: str = ""
    network_id: int | None = None

    @property
    def octets(self) -> bytes:
        """The notify's data: each line ends with a line feed, the whole with a NUL."""
        lines = (
            ("VER", "1"),
            ("FCTVER", self.version),
            ("UID", self.unique_id),
            ("IP", self.address),
            ("MAC", self.mac_addresses),
            ("HOST", self.host),
            ("USER", self.user),
            ("OSVER", self.system),
            ("REG_STATUS", "0"),
        )
        return "".join(f"{key}={value}\n" for key, value in lines).encode() + b"\0"


def client(options: FortiGateOptions) -> Dialect:
    """For the initiator."""

    def auth_payloads(sa: IkeSa) -> tuple[Payload, ...]:
        if not options.notify:
            return ()
        told = replace(options, address=options.address or _ipv4(sa.local.host))
        return (Notify(FORTICLIENT_CONNECT, told.octets),)

    network = options.network_id
    return Dialect(
        name="fortigate",
        vendor_ids=VENDOR_IDS,
        init_payloads=(Notify(VPN_NETWORK_ID, bytes((network,))),) if network is not None else (),
        auth_payloads=auth_payloads,
        read_reply=unity.read_reply,
        sends_idr=False,
        any_certificate_name=True,
    )


def _ipv4(host: str) -> str:
    """The address, where it is an IPv4 one: the notify has no line for others."""
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        return ""
    return "" if address.is_unspecified else str(address)

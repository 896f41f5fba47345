"""FortiGate: what FortiClient sends that other clients do not, for gateways that look for it. Sources: docs/dialects.md.

Nothing of it was tried against a FortiGate. Its second factor is known by half: after the password it sends an EAP-Success
of five octets, the last of which names EAP-GTC (6) as what comes next. What FortiClient sends then, nobody has told; so
such a Success ends the log-in with that reason.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ikeway.dialects.anyconnect import unity
from ikeway.dialects.interface import Dialect
from ikeway.eap.errors import EapFailed
from ikeway.eap.packet import EapCode, EapType
from ikeway.errors import Side
from ikeway.wire.message import Message
from ikeway.wire.payloads import Eap, Notify
from ikeway.wire.registry import NotifyType

VENDOR_IDS = (
    bytes.fromhex("4c53427b6d465d1b337bb755a37a7fef"),  # "Forticlient Connect License", and not its MD5
    hashlib.md5(b"Fortinet Endpoint Control", usedforsecurity=False).digest(),
    hashlib.md5(b"Forticlient EAP Extension", usedforsecurity=False).digest(),
)
FORTICLIENT_CONNECT = NotifyType(0xF100)


@dataclass(frozen=True, slots=True, kw_only=True)
class FortiGateOptions:
    """What FortiClient tells of itself, as lines KEY=VALUE. `notify` False: nothing of it."""

    notify: bool = True
    version: str = "7.4.8.2066"
    unique_id: str = "0" * 32
    address: str = ""
    mac_addresses: str = ""
    host: str = ""
    user: str = ""
    system: str = ""

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
    notify = (Notify(FORTICLIENT_CONNECT, options.octets),) if options.notify else ()
    return Dialect(
        name="fortigate",
        vendor_ids=VENDOR_IDS,
        auth_payloads=lambda random: notify,
        read_reply=unity.read_reply,
        examine=_refuse_second_factor,
        sends_idr=False,
        any_certificate_name=True,
    )


def _refuse_second_factor(message: Message) -> None:
    eap = message.find(Eap)
    if eap is None or len(eap.packet) != 5 or eap.packet[0] != EapCode.SUCCESS or eap.packet[4] != EapType.GTC:
        return
    raise EapFailed(
        "the FortiGate took the password and wants its second factor in its own way, which is known by half only",
        expected="EAP-Success of four octets",
        got="EAP-Success of five octets that names EAP-GTC",
        side=Side.BOTH,
        remedy="have the code taken behind the password, or by push, or the second factor switched off for this user",
    )

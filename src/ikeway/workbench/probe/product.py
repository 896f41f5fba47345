"""Who made it: a guess from vendor IDs, and from what only some implementations say.

Vendor IDs first, because they are what the makers say themselves. Without them the notifies of an IKE_SA_INIT response
and their order tell some apart; these marks were read from the implementations' answers in our own tests.
"""

from __future__ import annotations

from collections.abc import Sequence

from ikeway.wire.message import Message
from ikeway.wire.payloads import CertificateRequest, Notify, VendorId
from ikeway.wire.registry import NotifyType
from ikeway.workbench.probe.report import Product, Vendor

# The first word of a vendor ID's name -> product. "IKE fragmentation (Cisco)" alone says little: others send it too.
_MAKERS = (
    ("strongSwan", "strongSwan"),
    ("Libreswan", "Libreswan"),
    ("OpenIKED", "OpenIKED"),
    ("Openswan or Libreswan", "Openswan or Libreswan"),
    ("Microsoft", "Microsoft Windows (RRAS)"),
    ("Cisco: FlexVPN", "Cisco IOS or IOS-XE (FlexVPN)"),
    ("Cisco", "Cisco (ASA, Firepower, IOS)"),
    ("Fortinet", "Fortinet FortiGate"),
    ("Check Point", "Check Point"),
    ("SonicWall", "SonicWall"),
)
_N = NotifyType
_NAT = (_N.NAT_DETECTION_SOURCE_IP, _N.NAT_DETECTION_DESTINATION_IP)


def guess(message: Message | None, vendors: Sequence[Vendor]) -> Product:
    """From the first answer; "unknown" when nothing gives it away."""
    for prefix, product in _MAKERS:
        found = [each.name for each in vendors if each.name is not None and each.name.startswith(prefix)]
        if found:
            return Product(product, tuple(f"its vendor ID says: {name}" for name in found))
    if message is None:
        return Product("unknown")
    order = tuple(
        each.type if isinstance(each, Notify) else _CERTREQ
        for each in message.payloads
        if isinstance(each, Notify | CertificateRequest)
    )
    for marks, optional, product in _MARKS:
        if _is_like(order, marks, optional):
            return Product(f"{product} (a guess)", (f"the notifies of its answer, and their order, are {product}'s",))
    return Product("unknown", ("it sends no vendor ID that is known here",) if message.find(VendorId) is None else ())


_CERTREQ = -1
_Mark = tuple[tuple[int, ...], frozenset[int], str]
# The notifies in their order, those of them that an administrator can switch off, and whose they are.
_MARKS: tuple[_Mark, ...] = (
    (
        (*_NAT, _N.IKEV2_FRAGMENTATION_SUPPORTED, _N.SIGNATURE_HASH_ALGORITHMS, _N.CHILDLESS_IKEV2_SUPPORTED,
         _N.MULTIPLE_AUTH_SUPPORTED),
        frozenset({_N.IKEV2_FRAGMENTATION_SUPPORTED, _N.CHILDLESS_IKEV2_SUPPORTED}),
        "strongSwan",
    ),
    (
        (_N.IKEV2_FRAGMENTATION_SUPPORTED, _N.SIGNATURE_HASH_ALGORITHMS, *_NAT, _N.CHILDLESS_IKEV2_SUPPORTED),
        frozenset({_N.SIGNATURE_HASH_ALGORITHMS}),
        "Libreswan",
    ),
    (
        (*_NAT, _N.SIGNATURE_HASH_ALGORITHMS, _N.IKEV2_FRAGMENTATION_SUPPORTED, _N.CHILDLESS_IKEV2_SUPPORTED),
        frozenset({_N.IKEV2_FRAGMENTATION_SUPPORTED}),
        "Ikeway",
    ),
)  # fmt: skip


def _is_like(order: Sequence[int], marks: Sequence[int], optional: frozenset[int]) -> bool:
    """The same order, where CERTREQ does not count and what can be switched off may be missing."""
    told = [each for each in order if each != _CERTREQ]
    return told == [each for each in marks if each in told or each not in optional]

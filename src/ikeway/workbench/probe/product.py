"""Who made it: a guess from vendor IDs, and from what only some implementations do.

Vendor IDs first, because they are what the makers say themselves; anybody may say it, so the rest is looked at too. The
marks were read from the implementations' answers in our own tests. Each weighs for one product; no single one decides,
as administrators switch notifies on and off and other versions send others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from ikeway.wire.message import Message
from ikeway.wire.payloads import Notify
from ikeway.wire.registry import NotifyType
from ikeway.workbench.probe.report import NO_COOKIE, TAKEN_FOR_2, Confidence, Cookie, Product, Vendor

SURE, LEAD = 3, 2  # what marks must weigh for a medium confidence, and how much more than those of any other

# The beginning of a vendor ID's name -> product. "IKE fragmentation (Cisco)" says little, and neither does "Cisco Unity":
# others send both.
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
_OF_NOBODY = ("Cisco Unity",)
_N = NotifyType
_NAT = (_N.NAT_DETECTION_SOURCE_IP, _N.NAT_DETECTION_DESTINATION_IP)  # in this order everywhere
_ORDERS: dict[str, tuple[int, ...]] = {
    "strongSwan": (
        *_NAT, _N.IKEV2_FRAGMENTATION_SUPPORTED, _N.SIGNATURE_HASH_ALGORITHMS, _N.CHILDLESS_IKEV2_SUPPORTED,
        _N.MULTIPLE_AUTH_SUPPORTED,
    ),
    "Libreswan": (
        _N.IKEV2_FRAGMENTATION_SUPPORTED, _N.SIGNATURE_HASH_ALGORITHMS, *_NAT, _N.CHILDLESS_IKEV2_SUPPORTED,
    ),
    "Ikeway": (
        *_NAT, _N.SIGNATURE_HASH_ALGORITHMS, _N.IKEV2_FRAGMENTATION_SUPPORTED, _N.CHILDLESS_IKEV2_SUPPORTED,
    ),
}  # fmt: skip

_IKEV1_FEATURES = {
    "fragmentation": bytes.fromhex("4048b7d56ebce88525e7de7f00d6c2d3"),
    "XAUTH": bytes.fromhex("09002689dfd6b712"),
    "dead peer detection": bytes.fromhex("afcad71368a1f1c96b8696fc77570100"),
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a product is guessed from. `others`: vendor IDs of its answers in IKEv1; `version`: what it says to IKE version
    3."""

    message: Message | None = None
    vendors: Sequence[Vendor] = ()
    cookie: Cookie = NO_COOKIE
    others: Sequence[Vendor] = ()
    version: str = ""


@dataclass(frozen=True, slots=True)
class _Mark:
    product: str
    weight: int
    reason: str
    is_there: Callable[[Evidence], bool]


def guess(evidence: Evidence) -> Product:
    """Who made it; "unknown" when nothing gives it away."""
    said = _by_vendor_ids(evidence)
    weights, reasons = _weigh(evidence)
    ranked = sorted(weights, key=lambda each: -weights[each])
    if said is not None:
        against = [each for each in ranked if weights[each] >= SURE and not said.name.startswith(each)]
        if against:
            doubt = f"but what it does is {against[0]}'s: {'; '.join(reasons[against[0]])}"
            return Product(said.name, Confidence.LOW, (*said.why, doubt))
        return said
    if not ranked or weights[ranked[0]] <= 0:
        return Product("unknown", Confidence.NONE, ("neither a vendor ID nor a habit that is known here",))
    best = ranked[0]
    second = weights[ranked[1]] if len(ranked) > 1 else 0
    if second == weights[best]:
        equal = [each for each in ranked if weights[each] == second]
        why = dict.fromkeys(reason for each in equal for reason in reasons[each])
        return Product(" or ".join(equal), Confidence.LOW, tuple(why))
    sure = weights[best] >= SURE and weights[best] - max(second, 0) >= LEAD
    return Product(best, Confidence.MEDIUM if sure else Confidence.LOW, tuple(reasons[best]))


def _by_vendor_ids(evidence: Evidence) -> Product | None:
    found: dict[str, list[str]] = {}
    for vendors, where in ((evidence.vendors, "its vendor ID says"), (evidence.others, "its vendor ID in IKEv1 says")):
        for vendor in vendors:
            product = _maker(vendor.name)
            if product is not None:
                found.setdefault(product, []).append(f"{where}: {vendor.name}")
    if not found:
        return None
    order = [product for _, product in _MAKERS]
    names = sorted(found, key=order.index)
    # Both are Cisco's; which product, the more special one says.
    makers = {name.split()[0] for name in names}
    return Product(
        names[0],
        Confidence.HIGH if len(makers) == 1 else Confidence.LOW,
        tuple(why for name in names for why in found[name]),
    )


def _maker(name: str | None) -> str | None:
    if name is None or name in _OF_NOBODY:
        return None
    return next((product for prefix, product in _MAKERS if name.startswith(prefix)), None)


def _weigh(evidence: Evidence) -> tuple[dict[str, int], dict[str, list[str]]]:
    weights: dict[str, int] = {}
    reasons: dict[str, list[str]] = {}
    for mark in _MARKS:
        if mark.is_there(evidence):
            weights[mark.product] = weights.get(mark.product, 0) + mark.weight
            reasons.setdefault(mark.product, []).append(mark.reason)
    return weights, reasons


def _agreement(message: Message | None, order: Sequence[int]) -> tuple[int, int]:
    """Of how many pairs of its notifies the order tells something, and in how many of them it is this one."""
    found = [each.type for each in message.find_all(Notify)] if message is not None else []
    told = list(dict.fromkeys(each for each in found if each in order))
    pairs = [pair for pair in combinations(told, 2) if pair != _NAT]
    return len(pairs), sum(order.index(first) < order.index(second) for first, second in pairs)


def _is_in_order(product: str) -> Callable[[Evidence], bool]:
    def judge(evidence: Evidence) -> bool:
        pairs, right = _agreement(evidence.message, _ORDERS[product])
        return pairs >= 2 and right == pairs

    return judge


def _is_out_of_order(product: str) -> Callable[[Evidence], bool]:
    def judge(evidence: Evidence) -> bool:
        pairs, right = _agreement(evidence.message, _ORDERS[product])
        return right < pairs

    return judge


def _announces(type: NotifyType) -> Callable[[Evidence], bool]:
    return lambda evidence: evidence.message is not None and evidence.message.notify(type) is not None


def _cookie_of(octets: int) -> Callable[[Evidence], bool]:
    return lambda evidence: evidence.cookie.demanded > 0 and evidence.cookie.octets == octets


def _begins_ikev1_with(*names: str) -> Callable[[Evidence], bool]:
    known = [_IKEV1_FEATURES[name] for name in names]
    return lambda evidence: [each.value for each in evidence.others[: len(known)]] == known


_MARKS: tuple[_Mark, ...] = (
    *(_Mark(each, 2, f"the notifies of its answer come in {each}'s order", _is_in_order(each)) for each in _ORDERS),
    *(_Mark(each, -2, f"the notifies come in another order than {each}'s", _is_out_of_order(each)) for each in _ORDERS),
    _Mark(
        "strongSwan", 2, "its first answer announces several log-ins (RFC 4739)", _announces(_N.MULTIPLE_AUTH_SUPPORTED)
    ),
    _Mark("strongSwan", 1, "its cookies have 24 octets", _cookie_of(24)),
    *(
        _Mark(product, 1, f"in IKEv1 its vendor IDs come in {product}'s order", _begins_ikev1_with(*features))
        for product, features in (
            ("strongSwan", ("XAUTH", "dead peer detection")),
            ("Libreswan", ("fragmentation", "dead peer detection")),
        )
    ),
    _Mark("Ikeway", 1, "its cookies have 17 octets", _cookie_of(17)),
    _Mark(
        "OpenIKED", 1, "it takes IKE version 3 for version 2", lambda evidence: evidence.version.startswith(TAKEN_FOR_2)
    ),
    _Mark("Libreswan", 1, "its cookies have 32 octets", _cookie_of(32)),
    _Mark(
        "Libreswan", 1, "it does not answer a cookie that it never gave", lambda evidence: evidence.cookie.is_dropped
    ),
)

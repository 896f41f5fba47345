"""Does it still speak IKEv1? Main Mode, and Aggressive Mode with a pre-shared key.

Only the first message of each. Whoever takes an offer of Main Mode keeps a half-open ISAKMP SA of ours for a moment.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ikeway.auth.identity import Identity
from ikeway.wire.payloads import IdInitiator
from ikeway.wire.registry import IdentificationType, KeyExchangeMethod
from ikeway.wire.render import render_payload
from ikeway.wire.vendors import vendor_name
from ikeway.workbench.probe import offers
from ikeway.workbench.probe.asking import Progress, Tally
from ikeway.workbench.probe.isakmp import (
    INVALID_ID,
    Exchange,
    Kind,
    Method,
    Reply,
    Suite,
    first_message,
    identification,
)
from ikeway.workbench.probe.line import Heard, Line
from ikeway.workbench.probe.report import MAX_VENDORS, Ikev1, Vendor

# What made IKEv1's years, the strong ones first: cipher, bits of the key, hash, group.
_ALGORITHMS = (
    (7, 256, 5, 20), (7, 256, 4, 19), (7, 128, 4, 19), (7, 256, 4, 14), (7, 128, 4, 14), (7, 256, 2, 14), (7, 128, 2, 14),
    (7, 256, 2, 5), (7, 256, 2, 2), (7, 128, 2, 2), (5, 0, 2, 2), (5, 0, 1, 2),
)  # fmt: skip
_AGGRESSIVE = ((7, 256, 4), (7, 128, 4), (7, 256, 2), (7, 128, 2), (5, 0, 2), (5, 0, 1))
# Each by itself: libreswan passes over an offer in which one of them is not configured.
_METHODS = (Method.PSK, Method.RSA, Method.XAUTH_PSK, Method.XAUTH_RSA)
_USUAL = (
    (Method.PSK, KeyExchangeMethod.MODP_1024),
    (Method.PSK, KeyExchangeMethod.MODP_2048),
    (Method.XAUTH_PSK, KeyExchangeMethod.MODP_1024),
)
# Without these some answer nothing: XAUTH, NAT traversal (RFC 3947), dead peer detection (RFC 3706).
_VENDORS = tuple(
    (Kind.VENDOR_ID, bytes.fromhex(each))
    for each in ("09002689dfd6b712", "4a131c81070358455c5728f20e95452f", "afcad71368a1f1c96b8696fc77570100")
)


def ask_ikev1(line: Line, identity: str, tally: Tally, progress: Progress, *, is_there: bool = True) -> Ikev1:
    """Ask, and say what came of it. `identity` is who we say we are in Aggressive Mode, which shows it to everybody.
    `is_there` False: nothing has answered so far, so less is asked, as it will probably be for nothing."""
    progress("does it speak IKEv1?")
    main = _main_mode(line, tally, _METHODS if is_there else _METHODS[:2])
    chosen = next((each.message.chosen for each in main if each.message is not None and each.message.chosen), None)
    progress("does it speak IKEv1's Aggressive Mode?")
    aggressive = _aggressive_mode(line, identity, tally, _wishes(chosen)[: None if is_there else 1])
    replies = [each.message for each in main + aggressive if each.message is not None]
    hashes = [each.message for each in aggressive if each.message is not None and each.message.proven]
    shown = next((each.identity for each in hashes if each.identity is not None), None)
    vendors = dict.fromkeys(value for each in replies for value in each.vendors)
    return Ikev1(
        answers=bool(replies),
        main_mode=str(chosen or ""),
        aggressive_mode=next((str(each.chosen) for each in hashes if each.chosen is not None), ""),
        not_for_us=any(each.notify == INVALID_ID for each in replies),
        identity=_identity(*shown) if shown is not None else "",
        refusal=next((each.notify for each in replies if each.notify), "") if replies else main[0].refusal,
        vendors=tuple(Vendor(value, vendor_name(value)) for value in list(vendors)[:MAX_VENDORS]),
    )


def _main_mode(line: Line, tally: Tally, methods: Sequence[Method]) -> list[Heard[Reply]]:
    """RFC 2409 section 5: until an offer is taken. Only the first of many is repeated: who drops one drops them all."""
    heard: list[Heard[Reply]] = []
    for method in methods:
        suites = [Suite(*algorithms, method) for algorithms in _ALGORITHMS]
        cookie = os.urandom(8)
        tally.questions += 1
        octets = first_message(Exchange.MAIN_MODE, cookie, suites, _VENDORS)
        heard.append(line.ask_ikev1(octets, cookie, tries=1 if heard or methods is not _METHODS else 2))
        message = heard[-1].message
        if heard[-1].refusal or (message is not None and message.chosen is not None):
            break
    return heard


def _wishes(chosen: Suite | None) -> Sequence[tuple[Method, KeyExchangeMethod]]:
    """In Aggressive Mode the key comes with the offer, so the group must be right: that of Main Mode, else usual ones."""
    if chosen is None or chosen.group not in {group for *_, group in _ALGORITHMS}:
        return _USUAL
    method = Method.XAUTH_PSK if chosen.method == Method.XAUTH_PSK else Method.PSK
    return ((method, KeyExchangeMethod(chosen.group)),)


def _aggressive_mode(
    line: Line, identity: str, tally: Tally, wishes: Sequence[tuple[Method, KeyExchangeMethod]]
) -> list[Heard[Reply]]:
    """With a pre-shared key (RFC 2409 section 5.4), until somebody proves that it has one."""
    who = Identity.parse(identity)
    heard: list[Heard[Reply]] = []
    for method, group in wishes:
        suites = [Suite(*algorithms, int(group), method) for algorithms in _AGGRESSIVE]
        payloads = (
            (Kind.KE, offers.key_for(group).public_value),
            (Kind.NONCE, os.urandom(20)),
            (Kind.ID, identification(int(who.type), who.value)),
            *_VENDORS,
        )
        cookie = os.urandom(8)
        tally.questions += 1
        octets = first_message(Exchange.AGGRESSIVE_MODE, cookie, suites, payloads)
        heard.append(line.ask_ikev1(octets, cookie, tries=1))
        message = heard[-1].message
        if heard[-1].refusal or (message is not None and message.proven):
            break
    return heard


def _identity(type: int, value: bytes) -> str:
    """The numbers of identification types are those of IKEv2 (RFC 7296 section 3.5)."""
    return render_payload(IdInitiator(IdentificationType(type), value)).removeprefix("IDi ")

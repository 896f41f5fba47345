"""A probe's report for people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from ikeway.daemon.log import escape
from ikeway.wire.registry import NotifyType, TransformType
from ikeway.workbench.probe.report import (
    KINDS,
    NO_ANSWER,
    Authentication,
    Confidence,
    Ikev1,
    ProbeReport,
    State,
    Vendor,
)

_WIDTH = 110
MAX_CHARACTERS = 2000  # of one value that the gateway chose
MAX_SHOWN = 16  # of its lists
# What is not said elsewhere in the report.
_ABILITIES = {
    str(NotifyType.CHILDLESS_IKEV2_SUPPORTED): "IKE SAs without a child (RFC 6023)",
    str(NotifyType.MULTIPLE_AUTH_SUPPORTED): "several log-ins (RFC 4739)",
    str(NotifyType.INTERMEDIATE_EXCHANGE_SUPPORTED): "IKE_INTERMEDIATE (RFC 9242)",
    str(NotifyType.USE_PPK): "post-quantum pre-shared keys (RFC 8784)",
    str(NotifyType.HTTP_CERT_LOOKUP_SUPPORTED): "certificates by URL",
    str(NotifyType.SUPPORTED_AUTH_METHODS): "its methods of authentication (RFC 9593)",
}


def to_text(report: ProbeReport) -> str:
    """The summary first: what matters, then everything. Nothing in it can command a terminal."""
    return "\n".join(escape(line) for line in (*_summary(report), "", *_details(report)))


def _summary(report: ProbeReport) -> Iterator[str]:
    where = report.address if report.host == report.address else f"{report.host} ({report.address})"
    yield from _wrapped(f"{where} {_versions(report)}", 2)
    if report.product.confidence is Confidence.NONE:
        yield "Likely product: unknown"
    else:
        yield f"Likely product: {report.product.name} ({report.product.confidence} confidence)"
    for why in report.product.why:
        yield from _wrapped(f"  {why}", 4)
    if report.chosen:
        yield f"It prefers {report.chosen}"
    second = report.taken(TransformType.ADDKE1)
    if second:
        yield f"Against quantum computers it takes {', '.join(each.keyword for each in second)}"
    if report.redirect:
        yield f"It redirects us to {report.redirect}"
    if report.weaknesses:
        yield "WEAK:"
        for each in report.weaknesses:
            colon = ":" if len(each.what) > 18 else ""
            yield from _wrapped(f"  {each.what + colon:<18} {each.why}", 21)
    elif any(each.state is State.TAKEN for each in report.transforms):
        yield "Nothing that it takes is known to be weak."
    for remark in report.remarks:
        yield from _wrapped(f"Note: {remark}", 6)


def _versions(report: ProbeReport) -> str:
    older = report.ikev1 is not None and report.ikev1.spoken
    if not report.answers_ikev2:
        return "speaks IKEv1, and answers nothing in IKEv2" if older else "answers in IKEv1, and nothing in IKEv2"
    if report.chosen or report.redirect or report.taken(TransformType.KE):
        return "speaks IKEv2 and IKEv1" if older else "speaks IKEv2"
    nothing = "in IKEv2 it refuses all that we have, or has no connection for our address"
    return f"speaks IKEv1; {nothing}" if older else f"answers: {nothing}"


def _details(report: ProbeReport) -> Iterator[str]:
    for port in report.ports:
        after = f" ({port.seconds * 1000:.0f} ms)" if port.answers else ""
        yield from _field(f"UDP port {port.number}", f"answers{after}: {port.said}" if port.answers else port.said)
    for other in report.other_addresses:
        yield from _field("other address", f"{other} (not asked)")
    if report.answers_ikev2:
        yield from _ikev2(report)
    if report.ikev1 is not None:
        yield from _ikev1(report.ikev1)
    yield from _transforms(report)
    yield f"{report.questions} questions in {report.seconds:g} s"


def _ikev2(report: ProbeReport) -> Iterator[str]:
    yield from _field("first answer", report.first_answer or NO_ANSWER)
    yield from _vendors(report.vendors)
    yield from _field("announces", _announced(report) or "nothing")
    yield from _field("fragmentation", "IKE fragments (RFC 7383)" if report.fragmentation else "not announced")
    yield from _field("NAT", _nat(report))
    yield from _field("cookies", _cookies(report))
    yield from _field("wrong group", report.wrong_group)
    yield from _field("IKE version 3", report.version)
    yield from _field("redirect", report.redirect or "none")
    if report.asks_certificate:
        named = _few(report.authorities) or "no authority named"
        yield from _field("asks for", f"a certificate of ours; authorities by key hash: {named}")
    if report.authentication is not None:
        yield from _authentication(report.authentication)


def _ikev1(found: Ikev1) -> Iterator[str]:
    if not found.answers:
        yield from _field("IKEv1", found.refusal or NO_ANSWER)
        return
    if found.main_mode:
        yield from _field("IKEv1", f"Main Mode: {found.main_mode}")
    if found.aggressive_mode:
        yield from _field("IKEv1", f"Aggressive Mode, with a hash of its key: {found.aggressive_mode}")
    if found.not_for_us and not found.aggressive_mode:
        yield from _field("IKEv1", "Aggressive Mode, but not for who we say we are (`--identity`)")
    if not found.spoken:
        yield from _field("IKEv1", f"refused: {found.refusal or 'without a reason'}")
    if found.identity:
        yield from _field("  identity", found.identity)
    if found.vendors:
        yield from _vendors(found.vendors, "  vendor ID")


def _vendors(vendors: Sequence[Vendor], label: str = "vendor ID") -> Iterator[str]:
    for vendor in vendors[:MAX_SHOWN]:
        octets = vendor.value.hex() if len(vendor.value) <= 32 else f"{vendor.value[:32].hex()}..."
        yield from _field(label, f"{vendor.name or 'unknown'} ({octets})")
    if len(vendors) > MAX_SHOWN:
        yield from _field(label, f"and {len(vendors) - MAX_SHOWN} more")
    if not vendors:
        yield from _field(label, "none")


def _announced(report: ProbeReport) -> str:
    words = [_ABILITIES[each] for each in dict.fromkeys(report.announced) if each in _ABILITIES]
    if report.signature_hashes:
        words.append(f"signatures over {_few(report.signature_hashes)} (RFC 7427)")
    return ", ".join(words)


def _authentication(found: Authentication) -> Iterator[str]:
    if found.refusal and not found.identity:
        yield from _field("before a log-in", f"shows nothing: {found.refusal}")
        return
    yield from _field("before a log-in", found.answered)
    for label, value in (("identity", found.identity), ("proves by", found.method), ("asks for EAP", _eap(found))):
        if value:
            yield from _field(label, value)
    for certificate in found.certificates:
        for label, fact in certificate.facts.items():
            words = _few(fact) if isinstance(fact, list) else fact
            yield from _field(f"  {label.replace('_', ' ')}", words)


def _eap(found: Authentication) -> str:
    return f"{found.eap}; its method: {found.eap_method}" if found.eap_method else found.eap


def _transforms(report: ProbeReport) -> Iterator[str]:
    for kind, label in KINDS.items():
        asked = [each for each in report.transforms if each.transform.type == kind]
        if not asked:
            continue
        taken = [each.keyword + (" (weak)" if each.weakness else "") for each in report.taken(kind)]
        yield from _field(label, ", ".join(taken) or "none of ours")
        refused = [each.keyword for each in asked if each.state is State.REFUSED]
        if refused:
            yield from _field("  refused", ", ".join(refused))
        unclear = [f"{each.keyword} ({each.said})" for each in asked if each.state is State.UNCLEAR]
        if unclear:
            yield from _field("  unclear", ", ".join(unclear))
    if report.transforms and not report.taken(TransformType.KE):
        yield "Without a key exchange method that it takes, the other transforms could not be asked for."


def _nat(report: ProbeReport) -> str:
    if not report.nat.supported:
        return "the gateway does not look for it"
    sides = [
        *(["we are behind one"] if report.nat.we_are_behind else []),
        *(["the gateway is behind one (or says so, to have ESP in UDP)"] if report.nat.gateway_is_behind else []),
    ]
    return " and ".join(sides) or "none between us"


def _cookies(report: ProbeReport) -> str:
    cookie = report.cookie
    asked = (
        f"demanded for {cookie.demanded} of {report.questions} questions, {cookie.octets} octets each"
        if cookie.demanded
        else f"none demanded in {report.questions} questions"
    )
    return f"{asked}; one that it never gave: {cookie.unasked}"


def _few(words: Sequence[str]) -> str:
    more = [f"and {len(words) - MAX_SHOWN} more"] if len(words) > MAX_SHOWN else []
    return ", ".join([*words[:MAX_SHOWN], *more])


def _field(label: str, value: str) -> list[str]:
    return _wrapped(f"{label + ':':<17} {value}", 18)


def _wrapped(line: str, indent: int) -> list[str]:
    cut = line if len(line) <= MAX_CHARACTERS else f"{line[:MAX_CHARACTERS]}... ({len(line)} characters)"
    return textwrap.wrap(cut, _WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)

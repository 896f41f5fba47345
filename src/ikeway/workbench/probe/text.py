"""A probe's report for people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from ikeway.wire.registry import TransformType
from ikeway.workbench.probe.report import KINDS, Authentication, ProbeReport, State

_WIDTH = 110


def to_text(report: ProbeReport) -> str:
    """The summary first: what matters, then everything."""
    return "\n".join((*_summary(report), "", *_details(report)))


def _summary(report: ProbeReport) -> Iterator[str]:
    where = report.address if report.host == report.address else f"{report.host} ({report.address})"
    yield f"{where} speaks IKEv2. Likely product: {report.product.name}"
    yield from (f"  {why}" for why in report.product.why)
    if report.chosen:
        yield f"It prefers {report.chosen}"
    if report.redirect:
        yield f"It redirects us to {report.redirect}"
    if report.weak:
        yield "WEAK, and taken:"
        for each in report.weak:
            yield from _wrapped(f"  {each.keyword:<18} {each.weakness}", 21)
    elif report.transforms:
        yield "Nothing that it takes is known to be weak."
    for remark in report.remarks:
        yield from _wrapped(f"Note: {remark}", 6)


def _details(report: ProbeReport) -> Iterator[str]:
    for port in report.ports:
        after = f" ({port.seconds * 1000:.0f} ms)" if port.answers else ""
        yield from _field(f"UDP port {port.number}", f"answers{after}: {port.said}" if port.answers else port.said)
    for other in report.other_addresses:
        yield from _field("other address", f"{other} (not asked)")
    yield from _field("first answer", report.first_answer)
    for vendor in report.vendors:
        yield from _field("vendor ID", f"{vendor.name or 'unknown'} ({vendor.value.hex()})")
    if not report.vendors:
        yield from _field("vendor ID", "none")
    yield from _field("fragmentation", "IKE fragments (RFC 7383)" if report.fragmentation else "not announced")
    yield from _field("NAT", _nat(report))
    yield from _field("cookies", _cookies(report))
    yield from _field("wrong group", report.wrong_group)
    yield from _field("IKE version 3", report.version)
    yield from _field("redirect", report.redirect or "none")
    if report.asks_certificate:
        named = ", ".join(report.authorities) or "no authority named"
        yield from _field("asks for", f"a certificate of ours; authorities by key hash: {named}")
    if report.authentication is not None:
        yield from _authentication(report.authentication)
    yield from _transforms(report)
    yield f"{report.questions} questions in {report.seconds:g} s"


def _authentication(found: Authentication) -> Iterator[str]:
    if found.refusal and not found.identity:
        yield from _field("before a log-in", f"shows nothing: {found.refusal}")
        return
    yield from _field("before a log-in", found.answered)
    for label, value in (("identity", found.identity), ("proves by", found.method), ("asks for EAP", found.eap)):
        if value:
            yield from _field(label, value)
    for certificate in found.certificates:
        for label, fact in certificate.facts.items():
            words = ", ".join(fact) if isinstance(fact, list) else fact
            yield from _field(f"  {label.replace('_', ' ')}", words)


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


def _field(label: str, value: str) -> list[str]:
    return _wrapped(f"{label + ':':<17} {value}", 18)


def _wrapped(line: str, indent: int) -> list[str]:
    return textwrap.wrap(line, _WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)

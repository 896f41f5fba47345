"""What the answer to the offer of everything that we have tells by itself."""

from __future__ import annotations

from dataclasses import replace

from ikeway.ike.nat import find_nat
from ikeway.ike.proposals import format_proposal
from ikeway.wire.message import Message
from ikeway.wire.payloads import CertificateRequest, Notify, SecurityAssociation, VendorId
from ikeway.wire.registry import HashAlgorithm, NotifyType
from ikeway.wire.render import KEY_HASH_OCTETS, render_payload, summary
from ikeway.wire.vendors import vendor_name
from ikeway.workbench.probe.line import Line
from ikeway.workbench.probe.report import MAX_VENDORS, Nat, ProbeReport, Vendor


def read(report: ProbeReport, first: Message, line: Line) -> ProbeReport:
    """The report with what `first`, which came in on `line`, says."""
    found = find_nat(first, line.local, line.remote)
    return replace(
        report,
        first_answer=summary(first),
        chosen=_chosen(first),
        announced=tuple(str(each.type) for each in first.find_all(Notify)),
        signature_hashes=_hashes(first),
        vendors=tuple(Vendor(each.value, vendor_name(each.value)) for each in first.find_all(VendorId)[:MAX_VENDORS]),
        authorities=_authorities(first),
        asks_certificate=first.find(CertificateRequest) is not None,
        fragmentation=first.notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED) is not None,
        nat=Nat(found.supported, found.self_behind_nat, found.peer_behind_nat),
        redirect=_redirect(first),
    )


def _chosen(message: Message) -> str:
    security = message.find(SecurityAssociation)
    return format_proposal(security.proposals[0]) if security is not None and security.proposals else ""


def _hashes(message: Message) -> tuple[str, ...]:
    """RFC 7427 section 4."""
    notify = message.notify(NotifyType.SIGNATURE_HASH_ALGORITHMS)
    octets = notify.value if notify is not None else b""
    numbers = dict.fromkeys(int.from_bytes(octets[at : at + 2]) for at in range(0, len(octets) - 1, 2))
    return tuple(str(HashAlgorithm(number)) for number in numbers)


def _authorities(message: Message) -> tuple[str, ...]:
    request = message.find(CertificateRequest)
    octets = request.authorities if request is not None else b""
    return tuple(octets[at : at + KEY_HASH_OCTETS].hex() for at in range(0, len(octets), KEY_HASH_OCTETS))


def _redirect(message: Message) -> str:
    notify = message.notify(NotifyType.REDIRECT)
    return render_payload(notify).removeprefix("N(REDIRECT) ") if notify is not None else ""

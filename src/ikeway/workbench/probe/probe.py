"""The order of the questions."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

from ikeway.address import Address
from ikeway.errors import PeerUnreachable
from ikeway.ike.nat import find_nat
from ikeway.wire.message import Message
from ikeway.wire.payloads import CertificateRequest, Notify, SecurityAssociation, VendorId
from ikeway.wire.registry import NotifyType, TransformType
from ikeway.wire.render import KEY_HASH_OCTETS, render_payload
from ikeway.wire.vendors import vendor_name
from ikeway.workbench.probe import asking, offers, product
from ikeway.workbench.probe.asking import Asker, Survey
from ikeway.workbench.probe.authentication import show_yourself
from ikeway.workbench.probe.line import Answer, Line, Pace
from ikeway.workbench.probe.report import Authentication, Cookie, Nat, Port, ProbeReport, State, TransformAnswer, Vendor
from ikeway.workbench.probe.settings import ProbeSettings, one_host, resolve

VERSION_3 = 0x30
MAX_VENDORS = 64


def probe(
    host: str, settings: ProbeSettings | None = None, progress: Callable[[str], None] = lambda what: None
) -> ProbeReport:
    """Ask one gateway what it speaks. `progress` is told what is being asked.

    Raises `ConfigError` for anything but one host, `HostError` without an address or a route, `PeerUnreachable` when
    nothing answers.
    """
    wanted = settings or ProbeSettings()
    name = one_host(host)
    addresses = resolve(name)
    with ExitStack() as stack:
        pace = Pace(wanted.rate)
        lines: dict[int, Line] = {}
        for port, marked in ((wanted.port, False), (wanted.nat_port, True)):
            line = Line(Address(addresses[0], port), pace, marked=marked, patience=wanted.patience)
            stack.callback(line.close)
            lines[port] = line
        return _Probe(name, addresses, wanted, lines, progress).run()


class _Probe:
    """One run."""

    def __init__(
        self,
        host: str,
        addresses: Sequence[str],
        settings: ProbeSettings,
        lines: dict[int, Line],
        progress: Callable[[str], None],
    ) -> None:
        self._host, self._addresses, self._settings, self._progress = host, addresses, settings, progress
        self._lines = lines
        self._ports: list[Port] = []
        self._remarks: list[str] = []
        self._extra = 0

    def run(self) -> ProbeReport:
        """Everything, in an order that asks cheap things first."""
        begun = time.monotonic()
        asker, answer = self._find_line()
        first = answer.message
        chosen = asking.chosen(first)
        method = self._method_of(chosen)
        transforms: tuple[TransformAnswer, ...] = ()
        if self._settings.transforms:
            survey = Survey(asker)
            transforms = tuple(survey.run())
            if survey.exhausted:
                self._remarks.append("the gateway stopped answering in the middle: some transforms are unclear")
        wrong = self._wrong_group(asker, transforms)
        unasked = self._unasked_cookie(asker, chosen)
        version = self._version(asker.line)
        authentication = self._authentication(chosen)
        vendors = _vendors(first)
        malformed = sum(line.malformed for line in self._lines.values())
        if malformed:
            self._remarks.append(f"{malformed} datagrams that came back are no IKE messages")
        if method == "":
            self._remarks.append("it chose nothing of what was offered, so the rest is less certain")
        return ProbeReport(
            host=self._host,
            address=self._addresses[0],
            other_addresses=tuple(self._addresses[1:]),
            ports=tuple(self._ports),
            first_answer=asking.said(answer),
            chosen=method,
            announced=tuple(str(each.type) for each in first.find_all(Notify)) if first is not None else (),
            vendors=vendors,
            authorities=_authorities(first),
            asks_certificate=first is not None and first.find(CertificateRequest) is not None,
            fragmentation=_announces(first, NotifyType.IKEV2_FRAGMENTATION_SUPPORTED),
            nat=_nat(first, asker.line),
            cookie=Cookie(asker.cookies, asker.cookie_octets, unasked),
            wrong_group=wrong,
            version=version,
            redirect=_redirect(first),
            transforms=transforms,
            authentication=authentication,
            product=product.guess(first, vendors),
            questions=asker.questions + self._extra,
            seconds=round(time.monotonic() - begun, 1),
            remarks=tuple(self._remarks),
        )

    def _find_line(self) -> tuple[Asker, Answer]:
        """Ask everything at once, and go on with the first port that answers. Raises `PeerUnreachable`.

        The other port gets a question that leaves nothing behind there: gateways count half-open IKE SAs.
        """
        found: tuple[Asker, Answer] | None = None
        for number, line in self._lines.items():
            self._progress(f"is IKE at port {number}?")
            asker = Asker(line, self._progress)
            if found is None:
                answer, _ = asker.ask_until_chosen(offers.computable(offers.EVERYTHING))
                found = (asker, answer) if answer.message is not None else None
            else:
                without = [
                    each for each in offers.EVERYTHING if each.id != offers.CHEAP[0] or each.type != TransformType.KE
                ]
                answer = asker.ask(offers.offer(without), offers.CHEAP[0])
                self._extra += asker.questions
            self._ports.append(Port(number, answer.message is not None, asking.said(answer), answer.seconds))
        if found is None:
            raise _unreachable(self._addresses[0], self._ports)
        return found

    def _method_of(self, security: SecurityAssociation | None) -> str:
        from ikeway.ike.proposals import format_proposal

        return format_proposal(security.proposals[0]) if security is not None and security.proposals else ""

    def _wrong_group(self, asker: Asker, transforms: Sequence[TransformAnswer]) -> str:
        """A KE payload of a method that is offered nowhere: a correct gateway names the one that it wants."""
        self._progress("what does it say to a wrong key exchange method?")
        taken = [each.transform for each in transforms if each.state is State.TAKEN]
        methods = [each for each in taken if each.type == TransformType.KE] or list(offers.METHODS[1:8])
        wrong = next((each for each in offers.CHEAP if each not in {one.id for one in methods}), offers.CHEAP[0])
        offered = [each for each in methods if each.id != wrong] or list(offers.METHODS[1:8])
        others = [each for each in offers.EVERYTHING if each.type != TransformType.KE]
        answer = asker.ask(offers.offer([*others, *offered]), wrong)
        wanted = asking.demanded_method(answer.message)
        name = wrong.name
        return f"{name}: {asking.said(answer)}" + (f", it wants {wanted.name}" if wanted is not None else "")

    def _unasked_cookie(self, asker: Asker, chosen: SecurityAssociation | None) -> str:
        """A cookie that it never gave: it may take no notice, or demand a right one (RFC 7296 section 2.6)."""
        self._progress("what does it say to a cookie that it never gave?")
        before = asker.cookies
        cookie = Notify(NotifyType.COOKIE, os.urandom(16))
        methods = [each for each in offers.METHODS if each.id != offers.CHEAP[0]]
        others = [each for each in offers.EVERYTHING if each.type != TransformType.KE]
        answer = asker.ask(offers.offer([*others, *methods]), offers.CHEAP[0], (cookie,))
        if asker.cookies > before:
            return "demands one of its own"
        return "takes no notice of it" if answer.message is not None else asking.said(answer)

    def _version(self, line: Line) -> str:
        """A version that does not exist yet (RFC 7296 section 2.5): INVALID_MAJOR_VERSION, or silence."""
        self._progress("what does it say to IKE version 3?")
        self._extra += 1
        question = offers.request(offers.offer(offers.EVERYTHING), offers.CHEAP[0], (line.local, line.remote))
        answer = line.ask(replace(question, version=VERSION_3), tries=1)
        return asking.said(answer)

    def _authentication(self, chosen: SecurityAssociation | None) -> Authentication | None:
        if not self._settings.authentication or chosen is None or not chosen.proposals:
            return None
        self._progress("what does it show of itself before a log-in?")
        self._extra += 2
        open_ports = [each.number for each in self._ports if each.answers]
        lines = {number: self._lines[number] for number in open_ports}
        return show_yourself(lines, chosen.proposals[0], self._settings.identity, self._settings.patience)


def _announces(message: Message | None, type: NotifyType) -> bool:
    return message is not None and message.notify(type) is not None


def _vendors(message: Message | None) -> tuple[Vendor, ...]:
    found = message.find_all(VendorId)[:MAX_VENDORS] if message is not None else []
    return tuple(Vendor(each.value, vendor_name(each.value)) for each in found)


def _authorities(message: Message | None) -> tuple[str, ...]:
    request = message.find(CertificateRequest) if message is not None else None
    octets = request.authorities if request is not None else b""
    return tuple(octets[at : at + KEY_HASH_OCTETS].hex() for at in range(0, len(octets), KEY_HASH_OCTETS))


def _nat(message: Message | None, line: Line) -> Nat:
    if message is None:
        return Nat(False, False, False)
    found = find_nat(message, line.local, line.remote)
    return Nat(found.supported, found.self_behind_nat, found.peer_behind_nat)


def _redirect(message: Message | None) -> str:
    notify = message.notify(NotifyType.REDIRECT) if message is not None else None
    return render_payload(notify).removeprefix("N(REDIRECT) ") if notify is not None else ""


def _unreachable(address: str, ports: Sequence[Port]) -> PeerUnreachable:
    told = "; ".join(f"UDP port {each.number}: {each.said}" for each in ports)
    closed = all("port is closed" in each.said for each in ports)
    return PeerUnreachable(
        f"no IKE answers at {address} ({told})",
        remedy="the host is there and runs no IKE daemon: start it, or ask at the right address"
        if closed
        else "see whether the address is right and the host is up, and whether a firewall on the way drops UDP 500 and 4500",
    )

"""The order of the questions."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

from ikeway.address import Address
from ikeway.errors import HostError, IkewayError, PeerUnreachable
from ikeway.ike.nat import IKE_PORT
from ikeway.wire.message import Message
from ikeway.wire.payloads import Notify
from ikeway.wire.registry import NotifyType, TransformType
from ikeway.workbench.probe import asking, first_answer, offers, product
from ikeway.workbench.probe.asking import Asker, Question, Survey, Tally
from ikeway.workbench.probe.authentication import show_yourself
from ikeway.workbench.probe.ikev1 import ask_ikev1
from ikeway.workbench.probe.line import Line, Pace
from ikeway.workbench.probe.report import (
    NO_ANSWER,
    TAKEN_FOR_2,
    Authentication,
    Cookie,
    Ikev1,
    Port,
    ProbeReport,
    State,
    TransformAnswer,
)
from ikeway.workbench.probe.settings import ProbeSettings, one_host, resolve
from ikeway.workbench.probe.weaknesses import find_weaknesses

VERSION_3 = 0x30
# Everything but the method of the KE payload, so that nobody can take it at once.
KNOCK: Question = (
    offers.offer([each for each in offers.EVERYTHING if (each.type, each.id) != (TransformType.KE, offers.CHEAP[0])]),
    offers.CHEAP[0],
)
MAX_ADDRESSES = 4  # of a host, one after another until one answers


def probe(
    host: str, settings: ProbeSettings | None = None, progress: Callable[[str], None] = lambda what: None
) -> ProbeReport:
    """Ask one gateway what it speaks. `progress` is told what is being asked. Of several addresses that it has, the
    first that answers is asked everything.

    Raises `ConfigError` for anything but one host, `HostError` without an address or a route, `PeerUnreachable` when
    nothing answers.
    """
    wanted = settings or ProbeSettings()
    name = one_host(host)
    addresses = resolve(name)
    pace = Pace(wanted.rate)
    failures: list[HostError | PeerUnreachable] = []
    for at, address in enumerate(addresses[:MAX_ADDRESSES], 1):
        try:
            report = _probe_address(address, wanted, pace, progress)
        except (HostError, PeerUnreachable) as error:
            failures.append(error)
        else:
            remarks = tuple(f"asked before: {each.reason}" for each in failures)
            return replace(report, host=name, other_addresses=addresses[at:], remarks=remarks + report.remarks)
    raise _combined(failures)


def _probe_address(address: str, settings: ProbeSettings, pace: Pace, progress: Callable[[str], None]) -> ProbeReport:
    host, _, zone = address.partition("%")
    with ExitStack() as stack:
        lines: dict[int, Line] = {}
        for port, marked in ((settings.port, False), (settings.nat_port, True)):
            line = Line(Address(host, port), pace, marked=marked, patience=settings.patience, zone=zone)
            stack.callback(line.close)
            lines[port] = line
        return _Probe(address, settings, lines, progress).run()


class _Probe:
    """One run."""

    def __init__(
        self, address: str, settings: ProbeSettings, lines: dict[int, Line], progress: Callable[[str], None]
    ) -> None:
        self._address, self._settings, self._progress = address, settings, progress
        self._lines = lines
        self._tally = Tally()
        self._ports: list[Port] = []
        self._remarks: list[str] = []

    def run(self) -> ProbeReport:
        """Everything, in an order that asks cheap things first and ends with what a gateway may mind."""
        begun = time.monotonic()
        asker = self._find_line()
        report = ProbeReport(
            host=self._address,
            address=self._address,
            other_addresses=(),
            ports=tuple(self._ports),
            product=product.guess(product.Evidence()),
            questions=0,
            seconds=0,
        )
        first: Message | None = None
        if asker is not None:
            report, first = self._ask_ikev2(report, asker)
        report = replace(report, ikev1=self._ask_ikev1())
        if asker is None and not (report.ikev1 is not None and report.ikev1.answers):
            raise _unreachable(self._address, self._ports)
        return self._conclude(report, first, begun)

    def _conclude(self, report: ProbeReport, first: Message | None, begun: float) -> ProbeReport:
        """The report with what follows from its parts."""
        cookie = replace(report.cookie, demanded=self._tally.cookies, octets=self._tally.cookie_octets)
        others = report.ikev1.vendors if report.ikev1 is not None else ()
        return replace(
            report,
            cookie=cookie,
            product=product.guess(product.Evidence(first, report.vendors, cookie, others, report.version)),
            weaknesses=find_weaknesses(report),
            questions=self._tally.questions,
            seconds=round(time.monotonic() - begun, 1),
            remarks=(*self._remarks, *self._oddities()),
        )

    def _find_line(self) -> Asker | None:
        """Ask on each port for something that leaves nothing behind there; the first that answers is asked the rest."""
        found: Asker | None = None
        for number, line in self._lines.items():
            self._progress(f"is IKE at port {number}?")
            asker = Asker(line, self._progress, self._tally)
            answer = asker.ask(*KNOCK)
            if answer.silent and not line.marked and number != IKE_PORT:
                # strongSwan wants the non-ESP marker on every port but 500, so that it is told from ESP.
                line.marked = True
                answer = asker.ask(*KNOCK)
                line.marked = answer.message is not None
            self._ports.append(Port(number, answer.message is not None, asking.said(answer), answer.seconds))
            if found is None and answer.message is not None:
                found = asker
        return found

    def _ask_ikev2(self, report: ProbeReport, asker: Asker) -> tuple[ProbeReport, Message | None]:
        """The report with what was learned, and the answer to the offer of everything."""
        transforms = self._survey(asker)
        report = replace(
            report,
            transforms=transforms,
            wrong_group=self._wrong_group(asker, transforms),
            cookie=Cookie(0, 0, self._unasked_cookie(asker)),
            version=self._version(asker.line),
        )
        first, authentication = self._offer_everything(asker)
        if first is None:
            self._remarks.append("it did not answer when it was offered everything at once")
            return report, None
        return replace(first_answer.read(report, first, asker.line), authentication=authentication), first

    def _offer_everything(self, asker: Asker) -> tuple[Message | None, Authentication | None]:
        transforms = offers.computable(offers.EVERYTHING)
        self._progress("what does it prefer, and what does it show of itself before a log-in?")
        if not self._settings.authentication:
            return asker.ask_until_chosen(transforms)[0].message, None
        lines = {each.number: self._lines[each.number] for each in self._ports if each.answers}
        return show_yourself(lines, offers.offer(transforms).proposals, self._settings, self._tally)

    def _survey(self, asker: Asker) -> tuple[TransformAnswer, ...]:
        if not self._settings.transforms:
            return ()
        survey = Survey(asker, time.monotonic() + self._settings.seconds_for_transforms, KNOCK)
        transforms = tuple(survey.run())
        if survey.slowed:
            self._remarks.append("it answers only so many questions in a time: after a pause it was asked more slowly")
        if survey.exhausted:
            self._remarks.append(f"some transforms are unclear: {survey.exhausted}")
        return transforms

    def _wrong_group(self, asker: Asker, transforms: Sequence[TransformAnswer]) -> str:
        """A KE payload of a method that is offered nowhere: a correct gateway names the one that it wants."""
        self._progress("what does it say to a wrong key exchange method?")
        taken = [each.transform for each in transforms if each.state is State.TAKEN]
        methods = [each for each in taken if each.type == TransformType.KE] or list(offers.METHODS[1:8])
        wrong = offers.beside(methods)
        offered = [each for each in methods if each.id != wrong] or list(offers.METHODS[1:8])
        others = [each for each in offers.EVERYTHING if each.type != TransformType.KE]
        answer = asker.ask(offers.offer([*others, *offered]), wrong)
        wanted = asking.demanded_method(answer.message)
        return f"{wrong.name}: {asking.said(answer)}" + (f", it wants {wanted}" if wanted is not None else "")

    def _unasked_cookie(self, asker: Asker) -> str:
        """A cookie that it never gave: it may take no notice, or demand a right one (RFC 7296 section 2.6)."""
        self._progress("what does it say to a cookie that it never gave?")
        before = self._tally.cookies
        cookie = Notify(NotifyType.COOKIE, os.urandom(16))
        answer = asker.ask(*KNOCK, (cookie,))
        if self._tally.cookies > before:
            return "demands one of its own"
        if answer.message is not None:
            return "takes no notice of it"
        if asker.ask(*KNOCK).message is None:
            return f"{NO_ANSWER}, as to anything else by then"
        return answer.refusal or NO_ANSWER

    def _version(self, line: Line) -> str:
        """A version that does not exist yet (RFC 7296 section 2.5): INVALID_MAJOR_VERSION, or silence."""
        self._progress("what does it say to IKE version 3?")
        self._tally.questions += 1
        question = replace(offers.request(*KNOCK, (line.local, line.remote)), version=VERSION_3)
        answer = line.ask(question)
        refused = answer.message is None or answer.message.notify(NotifyType.INVALID_MAJOR_VERSION) is not None
        return asking.said(answer) if refused else f"{TAKEN_FOR_2}: {asking.said(answer)}"

    def _ask_ikev1(self) -> Ikev1 | None:
        """On the port where IKE answers, or else on that for IKE."""
        if not self._settings.ikev1:
            return None
        number = next((each.number for each in self._ports if each.answers), self._settings.port)
        is_there = any(each.answers for each in self._ports)
        return ask_ikev1(self._lines[number], self._settings.identity, self._tally, self._progress, is_there=is_there)

    def _oddities(self) -> Iterator[str]:
        malformed = sum(line.malformed for line in self._lines.values())
        if malformed:
            yield f"{malformed} datagrams that came back are no IKE messages"
        versions = set().union(*(line.other_versions for line in self._lines.values()))
        if versions:
            yield f"it answered IKEv2 in IKE version {', '.join(map(str, sorted(versions)))}"


def _unreachable(address: str, ports: Sequence[Port]) -> PeerUnreachable:
    told = "; ".join(f"UDP port {each.number}: {each.said}" for each in ports)
    if all("port is closed" in each.said for each in ports):
        remedy = "the host is there and runs no IKE daemon: start it, or ask at the right address"
    elif all("firewall" in each.said for each in ports):
        remedy = "open UDP 500 and 4500 in the firewall that says so"
    else:
        remedy = "see whether the address is right and the host is up, and whether a firewall drops UDP 500 and 4500"
    return PeerUnreachable(f"no IKE answers at {address} ({told})", remedy=remedy)


def _combined(failures: Sequence[HostError | PeerUnreachable]) -> IkewayError:
    """One error for all addresses: that some way leads to one of them says more than that none leads to another."""
    best = next((each for each in failures if isinstance(each, PeerUnreachable)), failures[0])
    if len(failures) == 1:
        return best
    return type(best)("; ".join(each.reason for each in failures), remedy=best.remedy)

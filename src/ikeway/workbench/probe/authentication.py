"""The whole offer at once, and what the gateway shows of itself to somebody who has not proven anything.

IKE_SA_INIT with everything that we have; its answer says what the gateway prefers. Then we ask to log in by EAP: IKE_AUTH
without AUTH (RFC 7296 section 2.16). A gateway that does EAP proves itself first, with IDr, CERT and AUTH. We say who we
are when it asks, and decline the method that it begins with: so it ends the log-in itself, and keeps nothing of us. (An
INFORMATIONAL with AUTHENTICATION_FAILED would be shorter, and strongSwan keeps its half-open IKE SA all the same. OpenIKED
lets nobody decline: there it stays until it is forgotten.)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from ikeway.auth.identity import Identity
from ikeway.auth.parse import UNREADABLE, load_certificate
from ikeway.eap.packet import EapCode, EapPacket, EapType
from ikeway.eap.session import EapPeer
from ikeway.errors import IkewayError
from ikeway.ike import events
from ikeway.ike.engine import Engine
from ikeway.ike.notifies import failure_of
from ikeway.ike.sa import IkeSa
from ikeway.ike.settings import Connection, EapCredential, EapOnlyExpected, EngineSettings, Retransmission
from ikeway.pki.describe import describe_certificate
from ikeway.pki.keys import describe_key
from ikeway.wire import payloads as wire
from ikeway.wire.message import Message
from ikeway.wire.payloads import Proposal
from ikeway.wire.registry import CertificateEncoding, ConfigurationAttributeType, ExchangeType, NotifyType
from ikeway.wire.render import render_payload, summary
from ikeway.workbench.probe import offers
from ikeway.workbench.probe.asking import ABILITIES, Tally
from ikeway.workbench.probe.line import Line, ready
from ikeway.workbench.probe.report import NO_ANSWER, Authentication, Certificate
from ikeway.workbench.probe.settings import ProbeSettings
from ikeway.workbench.probe.weaknesses import certificate_weaknesses

TRIES = 2
MAX_CERTIFICATES = 8
_RAW_KEYS = (CertificateEncoding.RAW_PUBLIC_KEY, 201)  # RFC 7670; OpenIKED's own for keys on curves
_NO_METHODS = (EapType.IDENTITY, EapType.NOTIFICATION)
MAX_ROUNDS = 4  # of EAP: to say who we are, to decline, and what a gateway may try then


def show_yourself(
    lines: dict[int, Line], proposals: tuple[Proposal, ...], settings: ProbeSettings, tally: Tally
) -> tuple[Message | None, Authentication | None]:
    """Ask. Returns the answer to IKE_SA_INIT, and what IKE_AUTH brought out, when it came so far.

    `lines` by the gateway's port: the one to begin on comes first, the one with the non-ESP marker second.
    """
    first, second = next(iter(lines.values())), list(lines.values())[-1]
    engine = Engine(
        EngineSettings(
            epoch=datetime.now(UTC) - timedelta(seconds=time.monotonic()),
            ike_port=first.remote.port,
            nat_port=second.remote.port,
            local_nat_port=second.local.port,
            interception=_Wording(),
        )
    )
    sa = engine.connect(_connection(proposals, settings), first.local, first.remote, time.monotonic())
    initial: Message | None = None
    replies: list[Message] = []
    failure = ""
    end = time.monotonic() + 4 * settings.patience + 2 * MAX_ROUNDS * first.pace.gap
    while time.monotonic() < end:
        done = False
        for event in engine.events():
            match event:
                case events.MessageReceived(message=message) if message.exchange_type == ExchangeType.IKE_SA_INIT:
                    initial = message
                    tally.note_cookie(message)
                case events.MessageReceived(message=message) if message.exchange_type == ExchangeType.IKE_AUTH:
                    replies.append(message)
                case events.MessageSent(retransmission=0):
                    tally.questions += 1
                case events.IkeClosed(error=error):
                    done, failure = True, error.reason if error is not None else "closed"
                case events.Asked(question=question):
                    engine.answer(question, IkewayError("a probe answers no questions"), time.monotonic(), sa=sa)
        for datagram in engine.outgoing():
            lines.get(datagram.remote.port, first).send(datagram.octets)
        if done:
            break
        _step(engine, lines)
    if initial is None or initial.find(wire.SecurityAssociation) is None:
        return initial, None
    return initial, describe(replies) if replies else Authentication(answered=failure or NO_ANSWER)


class _Wording:
    """What we say beside what the engine does."""

    def sending(self, sa: IkeSa, message: Message) -> Message:
        """In IKE_SA_INIT what else we have heard of, so that the gateway says what it has; in IKE_AUTH that we want its
        certificate, and not that EAP alone would do."""
        if message.exchange_type == ExchangeType.IKE_SA_INIT:
            return replace(message, payloads=(*message.payloads, offers.REDIRECT_SUPPORTED, *ABILITIES))
        if message.find(wire.IdInitiator) is None:
            return message
        others = [
            each
            for each in message.payloads
            if not (isinstance(each, wire.Notify) and each.type == NotifyType.EAP_ONLY_AUTHENTICATION)
        ]
        asked = wire.CertificateRequest(CertificateEncoding.X509_SIGNATURE, b"")
        return replace(message, payloads=(others[0], asked, *others[1:]))

    def received(self, sa: IkeSa | None, message: Message) -> Message:
        """As it came."""
        return message


class _Declining(EapPeer):
    """Takes no method, so none has to prove the gateway."""

    def require_mutual(self) -> None:
        """Nothing is believed."""


def _connection(proposals: tuple[Proposal, ...], settings: ProbeSettings) -> Connection:
    who = Identity.parse(settings.identity)
    return Connection(
        name="probe",
        local_identity=who,
        local_credential=EapCredential(lambda ask: _Declining(ask, str(who).encode(), ())),
        remote_identity=None,
        remote_expectation=EapOnlyExpected(),  # whatever it proves itself by is shown, and not judged
        ike_proposals=proposals,
        childless=False,
        request_configuration=(wire.ConfigurationAttribute(ConfigurationAttributeType.INTERNAL_IP4_ADDRESS),),
        mobike=False,  # so that we change to the other port only where there is a NAT
        initial_contact=False,
        retransmission=Retransmission(first=settings.patience, factor=1, tries=TRIES - 1),
        eap_max_rounds=MAX_ROUNDS,
    )


def _step(engine: Engine, lines: dict[int, Line]) -> None:
    """Wait for datagrams, or for the engine's next deadline. On all lines: libreswan answers on the port of before."""
    now = time.monotonic()
    deadline = engine.deadline()
    until = now + 1.0 if deadline is None else max(min(deadline, now + 1.0), now + 0.001)
    for line in ready(lines.values(), until):
        received = line.receive(time.monotonic() + 0.001)
        if isinstance(received, bytes):
            engine.receive(received, line.local, line.remote, time.monotonic())
    engine.tick(time.monotonic())


def describe(replies: Sequence[Message]) -> Authentication:
    """What the responses to IKE_AUTH, of which there is at least one, show."""
    reply = replies[0]
    identity, proof, eap = reply.find(wire.IdResponder), reply.find(wire.Authentication), reply.find(wire.Eap)
    failure = failure_of(reply)
    return Authentication(
        answered=summary(reply),
        identity=render_payload(identity).removeprefix("IDr ") if identity is not None else "",
        certificates=tuple(map(_certificate, reply.find_all(wire.Certificate)[:MAX_CERTIFICATES])),
        method=str(proof.method) if proof is not None else "",
        eap=render_payload(eap).removeprefix("EAP ") if eap is not None else "",
        eap_method=_eap_method(replies),
        refusal=str(failure.type) if failure is not None else "",
    )


def _eap_method(replies: Sequence[Message]) -> str:
    """The first method that is more than a question for a name or a word to the user."""
    for reply in replies:
        payload = reply.find(wire.Eap)
        try:
            packet = EapPacket.decode(payload.packet) if payload is not None else None
        except IkewayError:
            continue
        if packet is not None and packet.code is EapCode.REQUEST and packet.type not in _NO_METHODS:
            return str(packet.method)
    return ""


def _certificate(payload: wire.Certificate) -> Certificate:
    facts: dict[str, str | list[str]]
    try:
        match payload.encoding:
            case CertificateEncoding.X509_SIGNATURE:
                certificate, now = load_certificate(payload.value), datetime.now(UTC)
                facts = dict(describe_certificate(certificate, now))
                return Certificate(facts, payload.value, certificate_weaknesses(certificate, now))
            case encoding if encoding in _RAW_KEYS:
                facts = {"key_without_a_certificate": describe_key(load_der_public_key(payload.value))}
            case _:
                facts = {"kind": f"{payload.encoding}, {len(payload.value)} octets"}
    except (IkewayError, UnsupportedAlgorithm, *UNREADABLE) as error:
        facts = {"malformed": str(error)}
    return Certificate(facts, payload.value)

"""The gateway's certificate and identity, as far as it shows them to somebody who has not proven anything.

We ask to log in by EAP: IKE_AUTH without AUTH (RFC 7296 section 2.16). A gateway that does EAP proves itself first, with
IDr, CERT and AUTH. We then leave with AUTHENTICATION_FAILED, so that it keeps nothing of us.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from ikeway.address import Address
from ikeway.auth.certificate import TrustStore
from ikeway.auth.identity import Identity
from ikeway.auth.parse import load_certificate
from ikeway.eap.session import EapPeer
from ikeway.errors import IkewayError
from ikeway.ike import events
from ikeway.ike.engine import Engine
from ikeway.ike.notifies import failure_of
from ikeway.ike.settings import CertificateExpected, Connection, EapCredential, EngineSettings, Retransmission
from ikeway.pki.describe import describe_certificate
from ikeway.wire import payloads as wire
from ikeway.wire.message import Message
from ikeway.wire.payloads import Proposal
from ikeway.wire.registry import CertificateEncoding, ConfigurationAttributeType, ExchangeType
from ikeway.wire.render import render_payload, summary
from ikeway.workbench.probe.line import Line
from ikeway.workbench.probe.report import Authentication, Certificate

TRIES = 2


def show_yourself(lines: dict[int, Line], proposal: Proposal, identity: str, patience: float) -> Authentication:
    """Ask. `lines` by the gateway's port: the one to begin on comes first, the one with the non-ESP marker second."""
    first, second = next(iter(lines.values())), list(lines.values())[-1]
    engine = Engine(
        EngineSettings(
            epoch=datetime.now(UTC) - timedelta(seconds=time.monotonic()),
            ike_port=first.remote.port,
            nat_port=second.remote.port,
            local_nat_port=second.local.port,
        )
    )
    connection = _connection(proposal, identity, patience, mobike=second is not first)
    sa = engine.connect(connection, first.local, first.remote, time.monotonic())
    replies: list[Message] = []
    end, failure = time.monotonic() + 4 * patience, ""
    while time.monotonic() < end:
        done = False
        for event in engine.events():
            match event:
                case events.MessageReceived(message=message) if message.exchange_type == ExchangeType.IKE_AUTH:
                    replies.append(message)
                case events.IkeClosed(error=error):
                    done, failure = True, error.reason if error is not None else "closed"
                case events.Asked(question=question):
                    engine.answer(question, IkewayError("a probe answers no questions"), time.monotonic(), sa=sa)
        for datagram in engine.outgoing():
            lines.get(datagram.remote.port, first).send(datagram.octets)
        if done:
            break
        _step(engine, lines.get(sa.remote.port, first))
    return _describe(replies[0]) if replies else Authentication(answered=failure or "nothing")


def _connection(proposal: Proposal, identity: str, patience: float, *, mobike: bool) -> Connection:
    who = Identity.parse(identity)
    return Connection(
        name="probe",
        local_identity=who,
        local_credential=EapCredential(lambda ask: EapPeer(ask, b"", ())),
        remote_identity=None,
        remote_expectation=CertificateExpected(TrustStore(())),
        ike_proposals=(proposal,),
        childless=False,
        request_configuration=(wire.ConfigurationAttribute(ConfigurationAttributeType.INTERNAL_IP4_ADDRESS),),
        mobike=mobike,
        initial_contact=False,
        retransmission=Retransmission(first=patience, factor=1, tries=TRIES - 1),
    )


def _step(engine: Engine, line: Line) -> None:
    """Wait for a datagram on the line of now, or for the engine's next deadline."""
    now = time.monotonic()
    deadline = engine.deadline()
    received = line.receive(now + 1.0 if deadline is None else max(min(deadline, now + 1.0), now + 0.001))
    now = time.monotonic()
    if isinstance(received, bytes):
        engine.receive(received, line.local, Address(*line.remote), now)
    engine.tick(now)


def _describe(reply: Message) -> Authentication:
    identity, proof, eap = reply.find(wire.IdResponder), reply.find(wire.Authentication), reply.find(wire.Eap)
    failure = failure_of(reply)
    return Authentication(
        answered=summary(reply),
        identity=render_payload(identity).removeprefix("IDr ") if identity is not None else "",
        certificates=tuple(filter(None, map(_certificate, reply.find_all(wire.Certificate)))),
        method=str(proof.method) if proof is not None else "",
        eap=render_payload(eap).removeprefix("EAP ") if eap is not None else "",
        refusal=str(failure.type) if failure is not None else "",
    )


def _certificate(payload: wire.Certificate) -> Certificate | None:
    if payload.encoding != CertificateEncoding.X509_SIGNATURE:
        return None
    try:
        facts = describe_certificate(load_certificate(payload.value), datetime.now(UTC))
    except (IkewayError, ValueError) as error:
        facts = {"malformed": str(error)}
    return Certificate(dict(facts), payload.value)

"""What a stranger can say before anybody is authenticated, to both roles of an engine.

One input is octets: they reach a responder as an IKE_SA_INIT request and after a handshake's first message, and an
initiator as the answer to its own. Besides raw octets, payloads of an otherwise good message are exchanged, and good
encrypted messages are sealed around hostile payloads, as a peer that has keys but is not authenticated can do.
"""

from __future__ import annotations

from tests.ike.pair import IKE, A, B, Pair, connection

from ikeway.address import Address
from ikeway.ike import events
from ikeway.ike.engine import Engine
from ikeway.ike.protection import Protection
from ikeway.ike.sa import IkeState
from ikeway.ike.settings import EngineSettings, ResponderSettings
from ikeway.wire.message import Message
from ikeway.wire.payloads import UnknownPayload
from ikeway.wire.registry import ExchangeType, PayloadType

LIMIT = ResponderSettings(ike_proposals=IKE, cookie_threshold=1000, half_open_limit=100, half_open_per_address=100)


def as_request(octets: bytes) -> None:
    """Any octets at a responder."""
    engine = Engine(EngineSettings(responder=LIMIT))
    engine.receive(octets, B, A, 1.0)
    _drain(engine)
    engine.tick(1000.0)
    assert not engine.sas


def as_answer(octets: bytes) -> None:
    """Any octets as the answer to an initiator's first request; the SPIs are put right, so that they are looked at."""
    engine = Engine(EngineSettings())
    sa = engine.connect(connection(), A, B, 1.0)
    _drain(engine)
    engine.receive(sa.spi + octets[8:], A, B, 1.0)
    _drain(engine)
    engine.tick(1000.0)
    _drain(engine)


def sealed(first: int, body: bytes) -> None:
    """Any octets as the payloads of a well-sealed IKE_AUTH request of a stranger, and of an answer to one."""
    pair = Pair()
    sa = pair.a.engine.connect(pair.a.connection, A, B, pair.now)
    while sa.channel.protection is None:
        pair.step(pair.now + 10)
    (there,) = pair.b.engine.sas
    pair.a.take_events(pair.now)
    assert there.state is IkeState.CONNECTING
    request = _seal(sa.channel.protection, sa, first, body, is_response=False)
    pair.b.engine.receive(request, Address(B.host, 4500), Address(A.host, 4500), pair.now)
    pair.b.take_events(pair.now)
    assert there.channel.protection is not None
    answer = _seal(there.channel.protection, there, first, body, is_response=True)
    pair.a.engine.receive(answer, Address(A.host, 4500), Address(B.host, 4500), pair.now)
    for host in (pair.a, pair.b):
        host.take_events(pair.now)
        host.engine.outgoing()
        assert not host.happened(events.IkeEstablished)
        assert not host.inbound and not host.outbound


def _seal(protection: Protection, sa, first: int, body: bytes, *, is_response: bool) -> bytes:
    channel = sa.channel
    # One unknown payload in front carries the octets as they are; its generic header is part of them.
    message = Message(
        channel.initiator_spi,
        channel.responder_spi,
        ExchangeType.IKE_AUTH,
        channel.is_initiator,
        is_response,
        1,
        (UnknownPayload(PayloadType(first), False, body),),
    )
    return protection.seal(message)


def _drain(engine: Engine) -> None:
    engine.events()
    engine.outgoing()

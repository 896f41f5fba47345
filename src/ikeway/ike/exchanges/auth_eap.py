"""EAP inside IKE_AUTH (RFC 7296 section 2.16; EAP alone: RFC 5998).

    Initiator                                            Responder
    HDR, SK {IDi, ... (no AUTH)}   -->
                                                 <--     HDR, SK {IDr, [CERT,] AUTH, EAP}
    HDR, SK {EAP}                  -->                                            (as often as EAP needs)
                                                 <--     HDR, SK {EAP (success)}
    HDR, SK {AUTH}                 -->
                                                 <--     HDR, SK {AUTH, [CP,] SAr2, TSi, TSr}

The last AUTH of both is made with the method's MSK: it binds the log-in to this IKE SA.
"""

from __future__ import annotations

from ikeway.eap.authenticator import Authenticator
from ikeway.eap.session import EapPeer
from ikeway.errors import AuthenticationFailed, IkewayError, PeerError, ProtocolViolation, Side
from ikeway.ike import authentication, events
from ikeway.ike.conversation import reply as answer_and_wait
from ikeway.ike.notifies import error_from, failure_of
from ikeway.ike.sa import IkeSa
from ikeway.ike.settings import EapOnlyExpected
from ikeway.wire.message import Message
from ikeway.wire.payloads import Authentication, Eap, IdInitiator, IdResponder, Payload
from ikeway.wire.registry import ExchangeType, NotifyType

IKE_AUTH = ExchangeType.IKE_AUTH


# --- initiator --------------------------------------------------------------------------------------------------------


async def log_in(sa: IkeSa, session: EapPeer, own: IdInitiator, peer: IdResponder, reply: Message) -> Message:
    """EAP, and the AUTH payloads that bind it to this IKE SA."""
    for _ in range(sa.connection.eap_max_rounds):
        packet = reply.find(Eap)
        if packet is None:
            if (failure := failure_of(reply)) is not None:
                raise told(error_from(failure, "the gateway refused the log-in"))
            raise ProtocolViolation("the gateway left EAP in the middle")
        response = await session.receive(packet.packet)
        if response is None:
            return await _bind(sa, session, own, peer)
        reply = await sa.request(IKE_AUTH, (Eap(response),))
    raise ProtocolViolation(f"EAP has not come to an end in {sa.connection.eap_max_rounds} rounds")


async def _bind(sa: IkeSa, session: EapPeer, own: IdInitiator, peer: IdResponder) -> Message:
    sa.report(events.PeerSeen(sa, f"logged in by {session.method}"))
    if isinstance(sa.connection.remote_expectation, EapOnlyExpected) and not session.mutual:
        raise AuthenticationFailed(
            f"{session.method} does not prove who the gateway is",
            expected="a mutual EAP method, or a certificate of the gateway",
            remedy="name the CA of the gateway's certificate",
        )
    reply = await sa.request(IKE_AUTH, (authentication.prove_by_eap(sa, session.msk, own),))
    if reply.find(Authentication) is None and (failure := failure_of(reply)) is not None:
        raise told(error_from(failure, "the gateway refused the log-in"))
    authentication.verify_by_eap(sa, session.msk, peer, reply)
    return reply


def told(error: PeerError) -> PeerError:
    """Mark an error that the peer told us itself: it need not be told back."""
    error.told_by_peer = True
    return error


# --- responder --------------------------------------------------------------------------------------------------------


async def authenticate(
    sa: IkeSa, session: Authenticator, request: Message, own: IdResponder, proof: tuple[Payload, ...]
) -> tuple[Payload, ...]:
    """Run EAP to its end; returns the AUTH that concludes it. Raises when it fails.

    `request` is the initiator's first one; `proof` goes out with the first EAP packet: IDr and, but for EAP alone, AUTH.
    """
    try:
        return await _run(sa, session, request, own, proof)
    except PeerError as error:
        if session.succeeded or session.failed or session.abandon(error) is error:
            raise
        raise AuthenticationFailed(
            f"EAP refused {sa.remote_identity}: {session.reason}", notify=error.notify, side=Side.PEER
        ) from error


async def _run(
    sa: IkeSa, session: Authenticator, request: Message, own: IdResponder, proof: tuple[Payload, ...]
) -> tuple[Payload, ...]:
    message = await answer_and_wait(IKE_AUTH, (*proof, Eap(await session.start())))
    for _ in range(sa.connection.eap_max_rounds):
        packet = message.find(Eap)
        if packet is None:
            raise ProtocolViolation("the client left EAP in the middle", notify=NotifyType.AUTHENTICATION_FAILED)
        response = await session.receive(packet.packet)
        if session.failed:
            raise EapRefused(f"EAP refused {sa.remote_identity}", session.error, response)
        message = await answer_and_wait(IKE_AUTH, (Eap(response),))
        if session.succeeded:
            return _conclude(sa, session, request, own, message)
    raise ProtocolViolation("EAP has not come to an end", notify=NotifyType.AUTHENTICATION_FAILED)


class EapRefused(AuthenticationFailed):
    """EAP ended in failure: its last packet goes out in place of a notify."""

    def __init__(self, reason: str, cause: IkewayError | None, packet: bytes) -> None:
        """`cause` is what the method says of it."""
        super().__init__(
            f"{reason}: {cause.reason}" if cause is not None else reason,
            notify=NotifyType.AUTHENTICATION_FAILED,
            expected=cause.expected if cause is not None else "",
            got=cause.got if cause is not None else "",
            side=cause.side if cause is not None else Side.PEER,
            remedy=cause.remedy if cause is not None else "",
        )
        self.packet = packet


def _conclude(
    sa: IkeSa, session: Authenticator, request: Message, own: IdResponder, message: Message
) -> tuple[Payload, ...]:
    identification = request.find(IdInitiator)
    assert identification is not None
    authentication.verify_by_eap(sa, session.msk, identification, message)
    sa.eap_identity = session.identity
    return (authentication.prove_by_eap(sa, session.msk, own),)

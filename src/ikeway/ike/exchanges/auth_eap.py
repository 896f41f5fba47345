"""EAP inside IKE_AUTH (RFC 7296 section 2.16; EAP alone: RFC 5998).

    Initiator                                            Responder
    HDR, SK {IDi, ... (no AUTH)}   -->
                                                 <--     HDR, SK {IDr, [CERT,] AUTH, EAP}
    HDR, SK {EAP}                  -->                                            (as often as EAP needs)
                                                 <--     HDR, SK {EAP (success)}
    HDR, SK {AUTH}                 -->
                                                 <--     HDR, SK {AUTH, [CP,] SAr2, TSi, TSr}

The last AUTH of both is made with the method's MSK: it binds the log-in to this IKE SA. Of several log-ins (RFC 4739)
each has this form; the identities in AUTH are those sent last.
"""

from __future__ import annotations

from ikeway.eap.authenticator import Authenticator
from ikeway.eap.session import EapPeer
from ikeway.errors import AuthenticationFailed, IkewayError, PeerError, ProtocolViolation, Side
from ikeway.ike import authentication, events
from ikeway.ike.conversation import reply as answer_and_wait
from ikeway.ike.exchanges.auth_proofs import OwnProofs, ProofsDue, announcement, note_proof
from ikeway.ike.notifies import error_from, failure_of, told
from ikeway.ike.sa import IkeSa
from ikeway.wire.message import Message
from ikeway.wire.payloads import Authentication, Eap, IdInitiator, Payload
from ikeway.wire.registry import ExchangeType, NotifyType

IKE_AUTH = ExchangeType.IKE_AUTH


# --- initiator --------------------------------------------------------------------------------------------------------


async def log_in(
    sa: IkeSa, session: EapPeer, own: IdInitiator, proofs: ProofsDue, reply: Message, *, follows: bool
) -> Message:
    """EAP, and the AUTH payloads that bind it to this IKE SA. `follows`: another log-in of ours comes after it."""
    for _ in range(sa.connection.eap_max_rounds):
        packet = reply.find(Eap)
        if packet is None:
            if (failure := failure_of(reply)) is not None:
                raise told(error_from(failure, "the gateway refused the log-in"))
            raise ProtocolViolation("the gateway left EAP in the middle")
        response = await session.receive(packet.packet)
        if response is None:
            return await _bind(sa, session, own, proofs, follows=follows)
        reply = await sa.request(IKE_AUTH, (Eap(response),))
        await proofs.take(reply)
    raise ProtocolViolation(f"EAP has not come to an end in {sa.connection.eap_max_rounds} rounds")


async def _bind(sa: IkeSa, session: EapPeer, own: IdInitiator, proofs: ProofsDue, *, follows: bool) -> Message:
    sa.report(events.PeerSeen(sa, f"logged in by {session.method}"))
    proofs.proven_by_eap(session)
    proof = authentication.prove_by_eap(sa, session.msk, own)
    reply = await sa.request(IKE_AUTH, (proof, *announcement(follows=follows)))
    if reply.find(Authentication) is None and (failure := failure_of(reply)) is not None:
        raise told(error_from(failure, "the gateway refused the log-in"))
    assert proofs.peer is not None
    authentication.verify_by_eap(sa, session.msk, proofs.peer, reply)
    await proofs.take(reply)
    return reply


# --- responder --------------------------------------------------------------------------------------------------------


async def authenticate(
    sa: IkeSa, session: Authenticator, identification: IdInitiator, proofs: OwnProofs
) -> tuple[tuple[Payload, ...], Message]:
    """Run EAP to its end; returns our AUTH that concludes it, and the message with the initiator's. Raises when it
    fails.

    `identification` is what this log-in began with; our own `proofs` go out beside the first EAP packets.
    """
    try:
        return await _run(sa, session, identification, proofs)
    except PeerError as error:
        if session.succeeded or session.failed or session.abandon(error) is error:
            raise
        raise AuthenticationFailed(
            f"EAP refused {sa.remote_identity}: {session.reason}", notify=error.notify, side=Side.PEER
        ) from error


async def _run(
    sa: IkeSa, session: Authenticator, identification: IdInitiator, proofs: OwnProofs
) -> tuple[tuple[Payload, ...], Message]:
    message = await answer_and_wait(IKE_AUTH, (*await proofs.next(), Eap(await session.start())))
    for _ in range(sa.connection.eap_max_rounds):
        packet = message.find(Eap)
        if packet is None:
            raise ProtocolViolation("the client left EAP in the middle", notify=NotifyType.AUTHENTICATION_FAILED)
        response = await session.receive(packet.packet)
        if session.failed:
            raise EapRefused(f"EAP refused {sa.remote_identity}", session.error, response)
        message = await answer_and_wait(IKE_AUTH, (*await proofs.next(), Eap(response)))
        if session.succeeded:
            authentication.verify_by_eap(sa, session.msk, identification, message)
            return (authentication.prove_by_eap(sa, session.msk, proofs.identification),), message
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
        self.cause = cause
        self.packet = packet


def take_identity(sa: IkeSa, session: Authenticator) -> None:
    """The user whom EAP proved. After another EAP of this log-in it must be the same one: a second factor that is
    somebody else's is none."""
    user = session.identity
    if sa.eap_identity is not None and (user is None or _folded(user) != _folded(sa.eap_identity)):
        raise AuthenticationFailed(
            "the second log-in is of another user than the first",
            notify=NotifyType.AUTHENTICATION_FAILED,
            expected=sa.eap_identity.decode("utf-8", "replace"),
            got=user.decode("utf-8", "replace") if user is not None else "nobody",
            side=Side.PEER,
            remedy="give the same user name for both log-ins on the client",
        )
    sa.eap_identity = user
    note_proof(sa, user.decode("utf-8", "replace") if user is not None else str(sa.remote_identity), session.method)


def _folded(user: bytes) -> str:
    return user.decode("utf-8", "replace").casefold()

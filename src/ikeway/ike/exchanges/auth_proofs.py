"""Several proofs of one side in IKE_AUTH (RFC 4739), and whether each is the one that is due.

The responder says MULTIPLE_AUTH_SUPPORTED in IKE_SA_INIT, the initiator in its first IKE_AUTH request. Who goes on says
ANOTHER_AUTH_FOLLOWS beside its AUTH, and begins anew with its identity in its next message. Nothing is negotiated: both
know from their configuration how many proofs are due, and a side that gives fewer or more of them is refused. So
leaving out the second one opens nothing, and who announces yet another one does not keep us busy.
"""

from __future__ import annotations

from collections import deque

from ikeway.auth.certificate import CertificateCredential
from ikeway.auth.identity import Identity
from ikeway.eap.authenticator import Authenticator
from ikeway.eap.session import EapPeer
from ikeway.errors import (
    AuthenticationFailed,
    ConfigError,
    IkewayError,
    NegotiationFailed,
    PeerError,
    ProtocolViolation,
    Side,
)
from ikeway.ike import authentication, events
from ikeway.ike.notifies import error_from, failure_of, told
from ikeway.ike.proof import Proof
from ikeway.ike.sa import IkeSa
from ikeway.ike.settings import (
    CertificateExpected,
    Connection,
    EapCredential,
    EapOnlyExpected,
    FurtherCredential,
    FurtherExpectation,
    PskExpected,
)
from ikeway.wire.message import Message
from ikeway.wire.payloads import Authentication, CertificateRequest, IdResponder, Notify, Payload
from ikeway.wire.registry import NotifyType

# A responder gives a proof with each answer, beside an EAP packet of the initiator's own log-in. With more than two,
# one could meet the AUTH that concludes EAP, and nobody could tell which is which.
MOST_OF_RESPONDER = 2

_ANOTHER = Notify(NotifyType.ANOTHER_AUTH_FOLLOWS)


def own_rounds(connection: Connection) -> tuple[FurtherCredential, ...]:
    """All our proofs, the first one too."""
    return (FurtherCredential(connection.local_credential, connection.local_identity), *connection.further_credentials)


def peer_rounds(connection: Connection) -> tuple[FurtherExpectation, ...]:
    """All proofs that the peer owes, the first one too."""
    first = FurtherExpectation(connection.remote_expectation, connection.remote_identity)
    return (first, *connection.further_expectations)


def needs_several(connection: Connection) -> bool:
    """True when one of the two sides has to prove itself more than once."""
    return bool(connection.further_credentials or connection.further_expectations)


def announcement(*, follows: bool) -> tuple[Payload, ...]:
    """What goes beside AUTH when another one follows."""
    return (_ANOTHER,) if follows else ()


def announces_another(message: Message) -> bool:
    """True when the sender's next message begins another authentication of it."""
    return message.notify(NotifyType.ANOTHER_AUTH_FOLLOWS) is not None


# --- initiator --------------------------------------------------------------------------------------------------------


def require_support(sa: IkeSa) -> None:
    """The responder must have announced that it takes several. Raises `NegotiationFailed`."""
    if needs_several(sa.connection) and not sa.peer.multiple_auth:
        raise NegotiationFailed(
            "the gateway does not take more than one authentication (RFC 4739)",
            expected="MULTIPLE_AUTH_SUPPORTED in its answer to IKE_SA_INIT",
            side=Side.BOTH,
            remedy="switch multiple authentication on at the gateway, or keep one log-in here",
        )


def ability(sa: IkeSa) -> tuple[Payload, ...]:
    """What the first request says when this connection needs several."""
    return (Notify(NotifyType.MULTIPLE_AUTH_SUPPORTED),) if needs_several(sa.connection) else ()


def suggest_another(sa: IkeSa, error: IkewayError) -> None:
    """A gateway that can take several proofs, and does not like our only one, may be waiting for another."""
    refused = isinstance(error, PeerError) and error.told_by_peer and error.notify == NotifyType.AUTHENTICATION_FAILED
    if refused and sa.peer.multiple_auth and not needs_several(sa.connection):
        error.remedy += "; perhaps this gateway wants a further log-in after the first one (RFC 4739)"


class ProofsDue:
    """What the responder still has to prove, and who it said last that it is (`peer`)."""

    def __init__(self, sa: IkeSa) -> None:
        self._sa = sa
        self._due = deque(peer_rounds(sa.connection))
        self._rests_on_eap = isinstance(sa.connection.remote_expectation, EapOnlyExpected)
        self.peer: IdResponder | None = None

    @property
    def remaining(self) -> int:
        """How many proofs the next replies have to bring."""
        return len(self._due)

    def proven_by_eap(self, session: EapPeer) -> None:
        """EAP has succeeded; where it alone proves the responder (RFC 5998), its method must be good for that."""
        if self._rests_on_eap and not session.mutual:
            raise AuthenticationFailed(
                f"{session.method} does not prove who the gateway is",
                expected="a mutual EAP method, or a certificate of the gateway",
                remedy="name the CA of the gateway's certificate",
            )
        self._rests_on_eap = False

    async def take(self, reply: Message) -> None:
        """Judge a reply of the responder: the proof that is due in it, if one is. Raises when it is not good."""
        another = announces_another(reply)
        if self._due:
            await self._verify(self._due.popleft(), reply)
        if another and not self._due:
            raise AuthenticationFailed(
                "the gateway announces another proof of who it is, and none is expected",
                expected=f"{len(peer_rounds(self._sa.connection))} of its authentications",
                got="ANOTHER_AUTH_FOLLOWS",
                side=Side.BOTH,
                remedy="take the further authentication from the gateway's configuration, or expect it here",
            )
        if self._due and not another:
            raise AuthenticationFailed(
                "the gateway does not go on to prove again who it is",
                expected=f"{len(self._due)} more of its authentications",
                got="no ANOTHER_AUTH_FOLLOWS",
                side=Side.BOTH,
                remedy="add the further authentication on the gateway, or expect one less here",
            )

    async def _verify(self, due: FurtherExpectation, reply: Message) -> None:
        sa, peer = self._sa, reply.find(IdResponder)
        if peer is None or (reply.find(Authentication) is None and failure_of(reply) is not None):
            if (failure := failure_of(reply)) is not None:
                raise told(error_from(failure, "the gateway refused the log-in"))
            raise ProtocolViolation("the gateway answered IKE_AUTH without its identity")
        identity = Identity.from_payload(peer)
        if self.peer is None:
            sa.remote_identity = identity
        self.peer = peer
        sa.report(events.PeerSeen(sa, f"the gateway says it is {identity}"))
        # A dialect's gateway may say another name than the one that it is known by; its certificate has both.
        others = authentication.claimed_identities(reply) if sa.connection.any_certificate_name else ()
        authentication.check_identity(due.identity, identity, *others)
        if isinstance(due.expectation, PskExpected | CertificateExpected):
            await authentication.verify_by_key(sa, due.expectation, peer, reply)
            sa.proofs += (Proof(str(identity), authentication.word_of(due.expectation)),)


# --- responder --------------------------------------------------------------------------------------------------------


def require_client_support(connection: Connection, request: Message) -> None:
    """The initiator must have announced that it does several. Raises `AuthenticationFailed`."""
    if needs_several(connection) and request.notify(NotifyType.MULTIPLE_AUTH_SUPPORTED) is None:
        raise AuthenticationFailed(
            f"the client does not do the {_count(connection)} that connection {connection.name} demands (RFC 4739)",
            notify=NotifyType.AUTHENTICATION_FAILED,
            expected="MULTIPLE_AUTH_SUPPORTED in its first IKE_AUTH request",
            side=Side.PEER,
            remedy="configure the second log-in on the client, or use a client that has multiple authentication",
        )


def _count(connection: Connection) -> str:
    ours, theirs = len(own_rounds(connection)), len(peer_rounds(connection))
    return f"{theirs} authentications of its own" if theirs > 1 else f"{ours} authentications of the gateway"


def goes_on(connection: Connection, request: Message, message: Message, *, taken: int) -> bool:
    """A proof of the initiator stood, with `message`: True when it begins another one now. Raises `AuthenticationFailed`
    where that is not what the connection demands; `taken` have stood so far. `request` is the first one."""
    require_client_support(connection, request)
    due = len(peer_rounds(connection)) - taken
    another = announces_another(message)
    if due > 0 and not another:
        raise AuthenticationFailed(
            f"the client stops before the further authentication that connection {connection.name} demands",
            notify=NotifyType.AUTHENTICATION_FAILED,
            expected=f"{due} more of its authentications",
            got="AUTH without ANOTHER_AUTH_FOLLOWS",
            side=Side.PEER,
            remedy="configure the further log-in on the client too",
        )
    if another and due <= 0:
        raise AuthenticationFailed(
            f"the client announces another authentication, which connection {connection.name} does not know",
            notify=NotifyType.AUTHENTICATION_FAILED,
            expected=f"{len(peer_rounds(connection))} of its authentications",
            got="ANOTHER_AUTH_FOLLOWS",
            side=Side.BOTH,
            remedy="take the last log-in from the client's configuration, or add it to the connection",
        )
    return another


class OwnProofs:
    """What we, the responder, still have to prove: a proof goes out with each answer until none is left."""

    def __init__(self, sa: IkeSa, request: Message) -> None:
        rounds = own_rounds(sa.connection)
        if len(rounds) > MOST_OF_RESPONDER or any(isinstance(each.credential, EapCredential) for each in rounds):
            raise ConfigError(
                f"connection {sa.connection.name} has the gateway prove itself in a way that IKE_AUTH has no place for",
                expected=f"at most {MOST_OF_RESPONDER} keys or certificates of its own",
            )
        self._sa = sa
        self._requested = request.find(CertificateRequest) is not None
        self._due = deque(rounds)
        keys_only = not any(isinstance(each.credential, CertificateCredential) for each in rounds)
        asked = request.notify(NotifyType.EAP_ONLY_AUTHENTICATION) is not None
        self._may_leave_to_eap = asked and keys_only and len(rounds) == 1
        self._by_eap = False
        sa.local_identity = authentication.own_identity(sa, rounds[0].credential, rounds[0].identity)
        self.identification = IdResponder(sa.local_identity.type, sa.local_identity.value)

    @property
    def remaining(self) -> int:
        """How many proofs are left to give."""
        return len(self._due)

    def leave_to(self, session: Authenticator) -> None:
        """Let the initiator's EAP prove us too (RFC 5998), where it takes that, we have no certificate, and the method
        is mutual; else our own AUTH is due all the same, as if nobody had asked."""
        if self._due and self._may_leave_to_eap:
            self._by_eap = session.require_mutual()

    async def next(self) -> tuple[Payload, ...]:
        """IDr, [CERT,] AUTH, [N(ANOTHER_AUTH_FOLLOWS)]; nothing when all is proven."""
        if not self._due:
            return ()
        sa, due = self._sa, self._due.popleft()
        identity = authentication.own_identity(sa, due.credential, due.identity)
        own = self.identification = IdResponder(identity.type, identity.value)
        if self._by_eap:
            self._by_eap = False
            return (own,)
        certificates = authentication.certificate_payloads(sa, due.credential, requested=self._requested)
        proof = await authentication.prove_by_key(sa, due.credential, own)
        return (own, *certificates, proof, *announcement(follows=bool(self._due)))


def note_proof(sa: IkeSa, who: str, how: str) -> None:
    """A proof of the initiator stood; people see it in the log and in the status."""
    sa.proofs += (Proof(who, how),)
    sa.report(events.PeerSeen(sa, f"proven: {sa.proofs[-1]}"))

"""The authenticator that judges nobody itself: it passes EAP on to a server (RFC 3579 section 2, RFC 3748 section 2.3).

peer                         authenticator                         backend server
        <-- Identity request
Identity response -->
                                      RelayQuestion(response) -->
                                                                   <-- Relayed(request, state)
        <-- request                                                    (as often as the method needs)
response -->
                                      RelayQuestion(response, state) -->
                                                                   <-- Accepted(MSK) or Refused
        <-- EAP-Success or EAP-Failure

It looks into packets only as far as a pass-through authenticator has to: code, identifier, length, and the method's
type, by which it knows whether the method proves the server too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from ikeway.eap.errors import EapFailed, MalformedEap
from ikeway.eap.packet import EapCode, EapPacket, EapType, MethodType
from ikeway.eap.questions import PasswordCheck, ResumptionQuestion, Verdict
from ikeway.eap.session import MAX_IDENTITY, MAX_OCTETS, MAX_ROUNDS
from ikeway.errors import IkewayError, Side
from ikeway.questions import Ask, Question, answered

Answer = TypeVar("Answer")

# Methods that prove both sides, give a key, and let nobody guess a password offline (RFC 5998 section 4). SIM proves the
# network only to a card whose answers nobody has recorded, and is not among them.
MUTUAL_METHODS = frozenset({EapType.TLS, EapType.TTLS, EapType.PEAP, EapType.TEAP, EapType.AKA, EapType.AKA_PRIME})
_NO_METHODS = frozenset({EapType.IDENTITY, EapType.NOTIFICATION, EapType.NAK})
_EXPANDED_NAK = MethodType(0, EapType.NAK)


@dataclass(frozen=True, slots=True)
class Relayed:
    """The server goes on: its request, and what has to come back with the response to it."""

    packet: bytes = field(repr=False)
    state: object = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server has authenticated the peer. `packet` is its EAP-Success, empty when it sent none."""

    packet: bytes = field(repr=False)
    msk: bytes | None = field(repr=False)
    identity: bytes | None = None  # who that is, when the server says it better than the peer did


@dataclass(frozen=True, slots=True)
class Rejected:
    """The server refuses the peer. `said`: its words, which are for the log."""

    packet: bytes = field(repr=False)
    said: str = ""


RelayAnswer = Relayed | Accepted | Rejected


@dataclass(frozen=True, slots=True, eq=False)
class RelayQuestion(Question[RelayAnswer]):
    """What does the server say to this response? `server`: its name in the configuration. `state`: of the last answer,
    None at the beginning. `identity` is what the peer answered to EAP-Identity."""

    server: str
    identity: bytes
    response: bytes = field(repr=False)
    state: object = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class PasswordRelay(Question[Verdict]):
    """What does the server say to a password, or to another answer of a user?"""

    server: str
    check: PasswordCheck


def judged_elsewhere(server: str) -> Callable[[Ask], Ask]:
    """Let a log-in by a method of ours have its passwords judged by the server that is configured under this name, each
    time: no TLS session stands for what it says of the user."""

    def scope(ask: Ask) -> Ask:
        def scoped(question: Question[Answer]) -> Awaitable[Answer]:
            if isinstance(question, PasswordCheck):
                return ask(PasswordRelay(server, question))  # type: ignore[arg-type] # both want a verdict
            if isinstance(question, ResumptionQuestion):
                return answered(None)  # type: ignore[arg-type] # as for nobody
            return ask(question)

        return scoped

    return scope


class EapRelay:
    """An `Authenticator` in front of the server that is configured as `server`.

    Whoever answers `RelayQuestion` may refuse whom the server has accepted: nobody but the log tells that apart from a
    wrong password.
    """

    def __init__(
        self,
        ask: Ask,
        server: str,
        *,
        max_rounds: int = MAX_ROUNDS,
        max_octets: int = MAX_OCTETS,
    ) -> None:
        self._ask = ask
        self._server = server
        self._rounds = max_rounds
        self._max_octets = max_octets
        self._claimed: bytes | None = None
        self._proven: bytes | None = None
        self._state: object = None
        self._identifier = 0
        self._method: MethodType | None = None
        self._mutual_only = False
        self._msk: bytes | None = None
        self.succeeded = False
        self.failed = False
        self.error: IkewayError | None = None

    @property
    def reason(self) -> str:
        """Why it failed; empty as long as it has not."""
        return str(self.error) if self.error is not None else ""

    @property
    def identity(self) -> bytes | None:
        """Who was authenticated; before success, who the peer says it is."""
        return self._proven if self._proven is not None else self._claimed

    @property
    def msk(self) -> bytes | None:
        """The key that the server sent, once it accepted; None when the method gives none."""
        return self._msk if self.succeeded else None

    @property
    def method(self) -> str:
        """The name of the method in use, empty before there is one."""
        return f"EAP-{self._method}" if self._method is not None else ""

    def require_mutual(self) -> bool:
        """Whatever the server proposes, let only a method run that proves both sides (RFC 5998 section 4)."""
        self._mutual_only = True
        return True

    async def start(self) -> bytes:
        """The request for the identity, which we make ourselves (RFC 3579 section 2.1)."""
        return EapPacket(EapCode.REQUEST, self._identifier, EapType.IDENTITY).encode()

    async def receive(self, packet: bytes) -> bytes:
        """Pass a response on; returns the server's next request, or Success or Failure."""
        if self.succeeded or self.failed:
            return self._failure
        try:
            return await self._receive(packet)
        except IkewayError as error:
            self.error, self.failed = error, True
            return self._failure

    def abandon(self, error: IkewayError) -> IkewayError:
        """The peer left in the middle, or `error` happened; returns why the log-in failed."""
        if not (self.succeeded or self.failed):
            self.error, self.failed = error, True
        return self.error or error

    @property
    def _failure(self) -> bytes:
        return EapPacket(EapCode.FAILURE, self._identifier).encode()

    async def _receive(self, octets: bytes) -> bytes:
        self._rounds -= 1
        if self._rounds < 0:
            raise EapFailed("EAP does not come to an end", side=Side.PEER)
        if len(octets) > self._max_octets:
            raise MalformedEap(
                "an EAP packet that is too long", expected=f"at most {self._max_octets} octets", got=f"{len(octets)}"
            )
        response = EapPacket.decode(octets)
        if response.code is not EapCode.RESPONSE or response.identifier != self._identifier:
            raise MalformedEap(
                "an EAP packet that answers no request",
                expected=f"RESPONSE {self._identifier}",
                got=f"{response.code.name} {response.identifier}",
            )
        self._look_at(response)
        assert self._claimed is not None
        answer = await self._ask(RelayQuestion(self._server, self._claimed, response.encode(), self._state))
        if isinstance(answer, Relayed):
            return self._pass_on(answer)
        if isinstance(answer, Accepted):
            return self._accept(answer)
        raise EapFailed(
            f"the server refused {_shown(self._claimed)}",
            expected="Access-Accept",
            got=f"Access-Reject{f', {answer.said!r}' if answer.said else ''}",
            side=Side.BOTH,
            remedy="check user name and password on the client; the server's log has the reason",
        )

    def _look_at(self, response: EapPacket) -> None:
        """What has to be known of a response before it is passed on."""
        if self._claimed is None:
            identity = response.data.partition(b"\0")[0]  # RFC 3748 section 5.1: options may follow a NUL
            if response.type != EapType.IDENTITY or not 0 < len(identity) <= MAX_IDENTITY:
                raise MalformedEap(
                    "no usable answer to EAP-Identity",
                    expected=f"IDENTITY of 1 to {MAX_IDENTITY} octets",
                    got=f"type {response.type}, {len(identity)} octets",
                    remedy="enter a user name on the client",
                )
            self._claimed = identity
            return
        kind = response.method
        if self._mutual_only and kind not in (*_NO_METHODS_TYPES, _EXPANDED_NAK) and not _is_mutual(kind):
            raise _not_mutual(kind)

    def _pass_on(self, answer: Relayed) -> bytes:
        request = _decode_answer(answer.packet)
        if request.code is not EapCode.REQUEST:
            raise _malformed_answer("an EAP request", request.code.name)
        if request.type not in _NO_METHODS:
            self._method = request.method
        self._identifier, self._state = request.identifier, answer.state
        return request.encode()

    def _accept(self, answer: Accepted) -> bytes:
        if answer.packet:
            last = _decode_answer(answer.packet)
            if last.code is not EapCode.SUCCESS:
                raise _malformed_answer("EAP-Success with Access-Accept", last.code.name)
            self._identifier = last.identifier
        if self._mutual_only and (answer.msk is None or self._method is None or not _is_mutual(self._method)):
            raise _not_mutual(self._method)
        proven = answer.identity if answer.identity is not None else self._claimed
        assert proven is not None
        self._proven, self._msk, self.succeeded = proven, answer.msk, True
        return EapPacket(EapCode.SUCCESS, self._identifier).encode()


_NO_METHODS_TYPES = tuple(MethodType(0, kind) for kind in _NO_METHODS)


def _is_mutual(method: MethodType) -> bool:
    return method.vendor == 0 and method.type in MUTUAL_METHODS


def _decode_answer(packet: bytes) -> EapPacket:
    """The server's packet; what is wrong with it is the server's fault, not the client's."""
    try:
        return EapPacket.decode(packet)
    except MalformedEap as error:
        raise _malformed_answer(error.expected or "an EAP packet", error.got or error.reason) from error


def _malformed_answer(expected: str, got: str) -> EapFailed:
    return EapFailed(
        "the RADIUS server answered with something that is no EAP packet for this place",
        expected=expected,
        got=got,
        side=Side.LOCAL,
        remedy="see the RADIUS server's log and its configuration of EAP",
    )


def _not_mutual(method: MethodType | None) -> EapFailed:
    return EapFailed(
        "the client wants EAP alone to prove the gateway, and the method does not prove it",
        expected="EAP-TLS, -TTLS, -PEAP, -TEAP or -AKA, with a key",
        got=f"EAP-{method}" if method is not None else "no method",
        side=Side.BOTH,
        remedy="give the gateway a certificate, or let client and RADIUS server use such a method (RFC 5998)",
    )


def _shown(identity: bytes) -> str:
    return repr(identity.decode("utf-8", "backslashreplace"))

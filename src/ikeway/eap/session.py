"""One EAP log-in inside IKE_AUTH (RFC 3748, RFC 7296 section 2.16): negotiation, identifiers, bounds.

Inside IKE nothing is lost or doubled and a wrong packet cannot be waited out, so what RFC 3748 would silently discard
ends the session here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence

from ikeway.eap.errors import EapFailed, MalformedEap, NoCommonMethod
from ikeway.eap.method import (
    AuthenticatorMethodFactory,
    Conversation,
    EapAuthenticatorMethod,
    EapPeerMethod,
    PeerMethodFactory,
)
from ikeway.eap.packet import EapCode, EapPacket, EapType, MethodType
from ikeway.errors import ConfigError, IkewayError, Side
from ikeway.questions import Ask

MAX_ROUNDS = 60
MAX_OCTETS = 32768
MAX_IDENTITY = 1024
_EXPANDED = MethodType(0, EapType.EXPANDED)  # in a plain NAK: some vendor's method, which one cannot be said
_EXPANDED_NAK = MethodType(0, EapType.NAK)
_NAK_IN_EXPANDED = bytes(3) + EapType.NAK.to_bytes(4)


def _decode(packet: bytes, limit: int) -> EapPacket:
    if len(packet) > limit:
        raise MalformedEap(
            "an EAP packet that is too long", expected=f"at most {limit} octets", got=f"{len(packet)}", side=Side.PEER
        )
    return EapPacket.decode(packet)


class EapPeer:
    """The side that is authenticated: the initiator in IKE.

    `methods` are tried as the server proposes them; `identity` answers EAP-Identity. `receive` raises an EapFailed
    (or what a question was refused with) when the log-in fails; then `failed` is True.
    """

    def __init__(
        self,
        ask: Ask,
        identity: bytes,
        methods: Sequence[PeerMethodFactory],
        *,
        max_rounds: int = MAX_ROUNDS,
        max_octets: int = MAX_OCTETS,
    ) -> None:
        self._ask = ask
        self._identity = identity
        self._factories: Mapping[MethodType, PeerMethodFactory] = {
            factory().type: factory
            for factory in methods  # the order is the order of preference in a NAK
        }
        self._rounds = max_rounds
        self._max_octets = max_octets
        self._method: EapPeerMethod | None = None
        self._conversation: Conversation | None = None
        self.notifications: list[str] = []  # what the server said for the user to read
        self._refused: list[str] = []
        self.succeeded = False
        self.failed = False

    @property
    def takes(self) -> frozenset[MethodType]:
        """The methods that it answers; with others it declines."""
        return frozenset(self._factories)

    @property
    def msk(self) -> bytes | None:
        """The key that the method gave, once it succeeded; None when it gives none."""
        return self._method.msk if self._method is not None and self.succeeded else None

    @property
    def method(self) -> str:
        """The name of the method in use, empty before there is one."""
        return self._method.name if self._method is not None else ""

    @property
    def may_succeed(self) -> bool:
        """True when the method has had all that it wants, and Success may follow: what a tunnel has to know."""
        return self._method is not None and self._method.may_succeed

    def failure_reason(self) -> IkewayError | None:
        """What the method knows of why it fails; None when it knows nothing."""
        return self._method.failure_reason() if self._method is not None else None

    @property
    def mutual(self) -> bool:
        """True when the method also proved the server to us."""
        return self.succeeded and self._method is not None and self._method.mutual and self.msk is not None

    def require_mutual(self) -> None:
        """Take only methods that prove the server as well: nothing else does (RFC 5998). Call it before `receive`.

        The others are declined when they are proposed: one that ran would give its answer to anybody. Raises
        `ConfigError` when there are no others.
        """
        mutual = {kind: factory for kind, factory in self._factories.items() if factory().mutual}
        if not mutual:
            names = ", ".join(factory().name for factory in self._factories.values())
            raise ConfigError(
                f"{names} does not prove who the gateway is",
                expected="a mutual EAP method, or a certificate of the gateway",
                remedy="name the CA of the gateway's certificate",
            )
        self._factories = mutual

    async def receive(self, packet: bytes) -> bytes | None:
        """Take a packet of the server and return the response; None after Success. Raises when the log-in failed."""
        if self.succeeded or self.failed:
            raise EapFailed("EAP goes on after its end", side=Side.PEER)
        try:
            return await self._receive(_decode(packet, self._max_octets))
        except IkewayError:
            self.failed = True
            raise

    async def _receive(self, packet: EapPacket) -> bytes | None:
        self._rounds -= 1
        if self._rounds < 0:
            raise EapFailed("EAP does not come to an end", side=Side.PEER, remedy="look into the server's log")
        if packet.code is EapCode.SUCCESS:
            self._success()
            return None
        if packet.code is EapCode.FAILURE:
            raise self._failure()
        if packet.code is not EapCode.REQUEST:
            raise MalformedEap("an EAP response where a request is due", expected="REQUEST", got=packet.code.name)
        return (await self._respond(packet)).encode()

    def _success(self) -> None:
        method = self._concluded()
        self.succeeded = True
        method.on_success()

    def _concluded(self) -> EapPeerMethod:
        """The method that is at its end. Raises EapFailed when it is not."""
        if self._method is None or not self._method.may_succeed:
            raise EapFailed(
                "the server declared success before the method was at its end",
                expected=f"{self._method.name if self._method is not None else 'a method'} to finish",
                got="EAP-Success",
                side=Side.PEER,
                remedy="distrust this server",
            )
        return self._method

    def _go_on_with(self, methods: Sequence[PeerMethodFactory]) -> EapPeerMethod:
        """Have one of these methods follow the one that is at its end, which is returned: RFC 3748 section 2.1 knows no
        such thing, but vendors do. Raises EapFailed when it is not at its end."""
        done = self._concluded()
        self._factories = {factory().type: factory for factory in methods}
        self._method = self._conversation = None
        return done

    def _failure(self) -> IkewayError:
        reason = self.failure_reason()
        if reason is not None:
            return reason
        if self._refused:
            return NoCommonMethod(
                "the server has no EAP method that we take",
                expected=", ".join(map(str, self._factories)),
                got=", ".join(self._refused),
                side=Side.BOTH,
                remedy="configure on both sides one method that both have",
            )
        if self._method is None:
            return EapFailed(
                "the server refused the log-in before it began",
                expected="a request of an EAP method",
                got="EAP-Failure",
                side=Side.BOTH,
                remedy="see whether the server knows the user, and that both sides have an EAP method in common",
            )
        return EapFailed(
            f"the server refused the log-in by {self.method}",
            expected="EAP-Success",
            got="EAP-Failure",
            side=Side.BOTH,
            remedy="see the server's log for the reason",
        )

    async def _respond(self, request: EapPacket) -> EapPacket:
        if request.type == EapType.IDENTITY:
            return EapPacket(EapCode.RESPONSE, request.identifier, EapType.IDENTITY, self._identity)
        if request.type == EapType.NOTIFICATION:
            if len(self.notifications) < MAX_ROUNDS:
                self.notifications.append(request.data.decode("utf-8", "replace"))
            return EapPacket(EapCode.RESPONSE, request.identifier, EapType.NOTIFICATION)
        proposed = request.method
        if proposed == _EXPANDED_NAK:
            raise MalformedEap("a NAK as a request", expected="a method", got="NAK")
        if self._conversation is None:
            factory = self._factories.get(proposed)
            if factory is None:
                return self._nak(request)
            self._method = factory()
            self._method.identifier = request.identifier
            self._conversation = self._method.run(request.method_data, self._ask)
            data = await self._step(anext(self._conversation))
        elif self._method is None or proposed != self._method.type:
            raise EapFailed(
                "the server changed the method in the middle", expected=self.method, got=str(proposed), side=Side.PEER
            )
        else:
            self._method.identifier = request.identifier
            data = await self._step(self._conversation.asend(request.method_data))
        return EapPacket.of(EapCode.RESPONSE, request.identifier, proposed, data)

    async def _step(self, step: Awaitable[bytes]) -> bytes:
        try:
            return await step
        except StopAsyncIteration:
            raise EapFailed(
                f"the server goes on with {self.method} after its end", expected="EAP-Success", side=Side.PEER
            ) from None

    def _nak(self, request: EapPacket) -> EapPacket:
        """Say which methods we would take instead (RFC 3748 section 5.3)."""
        self._refused.append(str(request.method))
        wanted = list(self._factories)
        if request.type == EapType.EXPANDED:
            ours = wanted or [MethodType(0, 0)]
            data = b"".join(b"\xfe" + kind.vendor.to_bytes(3) + kind.type.to_bytes(4) for kind in ours)
            return EapPacket(EapCode.RESPONSE, request.identifier, EapType.EXPANDED, _NAK_IN_EXPANDED + data)
        types = bytes(dict.fromkeys(kind.prefix[0] for kind in wanted)) or b"\0"
        return EapPacket(EapCode.RESPONSE, request.identifier, EapType.NAK, types)


class EapAuthenticator:
    """The side that authenticates: the responder in IKE.

    `methods` are proposed in order, as far as the peer's NAK allows. `identity` given: EAP-Identity is not asked for
    (IDi can serve, RFC 7296 section 2.16). Never raises for what the peer or an answer did: it returns EAP-Failure,
    `failed` is True, and `error` and `reason` say why, for the log and never for the peer.
    """

    def __init__(
        self,
        ask: Ask,
        methods: Sequence[AuthenticatorMethodFactory],
        *,
        identity: bytes | None = None,
        first_identifier: int = 0,
        max_rounds: int = MAX_ROUNDS,
        max_octets: int = MAX_OCTETS,
    ) -> None:
        if not methods:
            raise ValueError("an authenticator needs a method")
        self._ask = ask
        self._untried = list(methods)
        self._claimed = identity
        self._rounds = max_rounds
        self._max_octets = max_octets
        self._method: EapAuthenticatorMethod | None = None
        self._conversation: Conversation | None = None
        self._may_be_refused = False  # the peer may NAK only the first request of a method
        self._identifier = first_identifier - 1
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
        proven = self._method.identity if self._method is not None and self.succeeded else None
        return proven if proven is not None else self._claimed

    @property
    def msk(self) -> bytes | None:
        """The key that the method gave, once it succeeded; None when it gives none."""
        return self._method.msk if self._method is not None and self.succeeded else None

    @property
    def method(self) -> str:
        """The name of the method in use, empty before there is one."""
        return self._method.name if self._method is not None else ""

    def require_mutual(self) -> bool:
        """Propose only methods that prove us as well (RFC 5998). False when there are none; then nothing changes.
        Call it before `start`."""
        mutual = [factory for factory in self._untried if factory().mutual]
        self._untried = mutual or self._untried
        return bool(mutual)

    async def start(self) -> bytes:
        """Return the first request: for the identity, or of the first method when the identity is known."""
        if self._claimed is None:
            return self._request(MethodType(0, EapType.IDENTITY), b"")
        return await self._guarded(self._propose(self._untried.pop(0)()))

    async def receive(self, packet: bytes) -> bytes:
        """Take a response and return the next request, or Success or Failure."""
        if self.succeeded or self.failed:
            return EapPacket(EapCode.FAILURE, max(self._identifier, 0)).encode()
        return await self._guarded(self._receive(packet))

    @property
    def doubt(self) -> IkewayError | None:
        """What the method holds against the peer while its answer is awaited."""
        return self._method.doubt if self._method is not None else None

    def abandon(self, error: IkewayError) -> IkewayError:
        """The peer left in the middle, or `error` happened; returns why the log-in failed, as the method sees it."""
        if not (self.succeeded or self.failed):
            self.error, self.failed = self.doubt or error, True
        return self.error or error

    async def _guarded(self, step: Awaitable[bytes]) -> bytes:
        try:
            return await step
        except IkewayError as error:
            self.error, self.failed = error, True
            return EapPacket(EapCode.FAILURE, max(self._identifier, 0)).encode()

    async def _receive(self, octets: bytes) -> bytes:
        self._rounds -= 1
        if self._rounds < 0:
            raise EapFailed("EAP does not come to an end", side=Side.PEER)
        response = _decode(octets, self._max_octets)
        if response.code is not EapCode.RESPONSE or response.identifier != self._identifier:
            raise MalformedEap(
                "an EAP packet that answers no request",
                expected=f"RESPONSE {self._identifier}",
                got=f"{response.code.name} {response.identifier}",
            )
        if self._conversation is None or self._method is None:
            return await self._identified(response)
        if response.type == EapType.NAK or response.method == _EXPANDED_NAK:
            return await self._refused(response)
        if response.method != self._method.type:
            raise MalformedEap(
                "an EAP response of another method", expected=self._method.name, got=str(response.method)
            )
        self._may_be_refused = False
        self._method.identifier = response.identifier
        return await self._advance(self._conversation.asend(response.method_data))

    async def _identified(self, response: EapPacket) -> bytes:
        identity = response.data.partition(b"\0")[0]  # RFC 3748 section 5.1: options may follow a NUL
        if response.type != EapType.IDENTITY or len(identity) > MAX_IDENTITY:
            raise MalformedEap(
                "no usable answer to EAP-Identity",
                expected=f"IDENTITY of at most {MAX_IDENTITY} octets",
                got=f"type {response.type}, {len(identity)} octets",
            )
        self._claimed = identity
        return await self._propose(self._untried.pop(0)())

    async def _propose(self, method: EapAuthenticatorMethod) -> bytes:
        self._method = method
        method.identifier = self._identifier & 0xFF
        self._may_be_refused = True
        self._conversation = method.run(self._claimed or b"", self._ask)
        return await self._advance(anext(self._conversation))

    async def _refused(self, nak: EapPacket) -> bytes:
        """The peer wants another method (RFC 3748 sections 5.3.1, 5.3.2)."""
        if not self._may_be_refused:
            raise MalformedEap("a NAK in the middle of a method", expected=self.method, got="NAK")
        wanted = _wanted_methods(nak)
        for index, factory in enumerate(self._untried):
            method = factory()
            if method.type in wanted or (method.type.vendor and _EXPANDED in wanted):
                del self._untried[index]
                return await self._propose(method)
        raise NoCommonMethod(
            "no EAP method in common with the peer",
            expected=f"{self.method} or another one configured here",
            got=", ".join(map(str, wanted)) or "none wanted",
            side=Side.BOTH,
            remedy="configure on both sides one method that both have",
        )

    async def _advance(self, step: Awaitable[bytes]) -> bytes:
        method = self._method
        assert method is not None
        try:
            return self._request(method.type, await step)
        except StopAsyncIteration:
            return self._conclude(method)

    def _conclude(self, method: EapAuthenticatorMethod) -> bytes:
        """The packet that says that the method has succeeded."""
        self.succeeded = True
        return EapPacket(EapCode.SUCCESS, self._identifier).encode()

    def _request(self, method: MethodType, data: bytes) -> bytes:
        self._identifier = (self._identifier + 1) & 0xFF
        return EapPacket.of(EapCode.REQUEST, self._identifier, method, data).encode()


def _wanted_methods(nak: EapPacket) -> list[MethodType]:
    if nak.type == EapType.NAK:
        return [MethodType(0, kind) for kind in nak.data[:64] if kind]
    entries = [nak.method_data[index : index + 8] for index in range(0, min(len(nak.method_data), 512) - 7, 8)]
    found = [MethodType(int.from_bytes(entry[1:4]), int.from_bytes(entry[4:])) for entry in entries]
    return [kind for kind in found if kind != MethodType(0, 0)]

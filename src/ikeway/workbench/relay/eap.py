"""EAP passed on as it is, between the client's IKE SA and the gateway's.

    client              relay                                  gateway
            EAP(request)  <-- EapPipe <-- EAP(request)
            EAP(response) --> EapPipe --> EAP(response)        (octet for octet)

What cannot be passed on is AUTH, which proves that both ends of an IKE SA know the key of the method (MSK, RFC 7296 section
2.16). So a method can be relayed when it makes no key (GTC, MD5, most of the vendors'), or when the relay can make the key
too: that of MSCHAPv2 follows from the password and the response that went by (RFC 3079). TLS, SIM and AKA make keys that
only their ends have; there the log-in ends with an error that says so.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from ikeway.dialects.fortigate_eap import names_another_method
from ikeway.eap.errors import EapFailed
from ikeway.eap.mschapv2_crypto import master_session_key, nt_password_hash
from ikeway.eap.packet import EapCode, EapPacket, EapType
from ikeway.eap.session import EapPeer
from ikeway.errors import AuthenticationFailed, IkewayError, Side
from ikeway.questions import Ask, Question
from ikeway.wire.registry import NotifyType

_KEYED = frozenset(
    {EapType.TLS, EapType.TTLS, EapType.PEAP, EapType.TEAP, EapType.SIM, EapType.AKA, EapType.AKA_PRIME, 43, 52}
)
_RESPONSE, _RESPONSE_OCTETS = (
    2,
    54,
)  # MSCHAPv2: the operation; header 4, size 1, peer challenge 16, 8, proof 24, flags 1
_PROOF = slice(29, 53)
MAX_ROUNDS = 200


class RelayError(AuthenticationFailed):
    """What a relay cannot do for want of a key or a credential."""

    default_side = Side.LOCAL


@dataclass(slots=True, eq=False)
class EapPipe:
    """One log-in. `password`: for methods whose key follows from it. `second_factor`: a FortiGate's code may follow
    MSCHAPv2; AUTH is then made without a key."""

    password: str | None = field(default=None, repr=False)
    second_factor: bool = False
    msk: bytes | None = field(default=None, repr=False)
    method: str = ""
    identity: bytes | None = None
    _to_client: asyncio.Queue[bytes | IkewayError] = field(default_factory=asyncio.Queue, repr=False)
    _to_server: asyncio.Queue[bytes | IkewayError] = field(default_factory=asyncio.Queue, repr=False)
    rounds: int = 0

    def goes_on(self, packet: bytes) -> bool:
        """True for the Success of a FortiGate that is none."""
        return self.second_factor and names_another_method(packet)

    def from_server(self, packet: bytes) -> None:
        """Take a packet of the gateway. Raises `RelayError` for a method that cannot be relayed."""
        if self.goes_on(packet):
            self.msk = None
        else:
            self._look_at_request(packet)
        self._to_client.put_nowait(packet)

    def from_client(self, packet: bytes) -> None:
        """Take a packet of the client. Raises `EapFailed` when it does not come to an end."""
        self.rounds += 1
        if self.rounds > MAX_ROUNDS:
            raise EapFailed("EAP does not come to an end", side=Side.PEER)
        self._look_at_response(packet)
        self._to_server.put_nowait(packet)

    def fail(self, error: IkewayError) -> None:
        """One side is gone: whoever waits for it hears why."""
        self._to_client.put_nowait(error)
        self._to_server.put_nowait(error)

    async def for_client(self) -> bytes:
        """The gateway's next packet. Raises why there is none."""
        return _checked(await self._to_client.get())

    async def for_server(self) -> bytes:
        """The client's next packet. Raises why there is none."""
        return _checked(await self._to_server.get())

    def _look_at_request(self, octets: bytes) -> None:
        packet = EapPacket.decode(octets)
        if packet.code is not EapCode.REQUEST or packet.type in (EapType.IDENTITY, EapType.NOTIFICATION):
            return
        kind = packet.method
        self.method = f"EAP-{kind}"
        if kind.vendor:
            return
        if kind.type in _KEYED:
            raise RelayError(
                f"{self.method} makes a key that only its two ends have, and AUTH is made with it",
                notify=NotifyType.AUTHENTICATION_FAILED,
                expected="a method without a key, or MSCHAPv2 with the user's password",
                got=self.method,
                remedy="end EAP on both sides: a gateway's file with the users here, a profile with the log-in there",
            )
        if kind.type == EapType.MSCHAPV2 and self.password is None:
            raise RelayError(
                "AUTH is made with the key of MSCHAPv2, which follows from the user's password",
                notify=NotifyType.AUTHENTICATION_FAILED,
                expected="--password-file, or a profile with the password",
                got="none",
                remedy="give the relay the password of this user",
            )

    def _look_at_response(self, octets: bytes) -> None:
        packet = EapPacket.decode(octets)
        if packet.type == EapType.IDENTITY:
            self.identity = packet.data.partition(b"\0")[0]
        is_proof = packet.type == EapType.MSCHAPV2 and packet.data[:1] == bytes([_RESPONSE])
        if is_proof and self.password is not None and len(packet.data) >= _RESPONSE_OCTETS:
            self.msk = master_session_key(nt_password_hash(self.password), packet.data[_PROOF])


@dataclass(frozen=True, slots=True, eq=False)
class NextFromServer(Question[bytes]):
    """What does the gateway say next?"""

    pipe: EapPipe


@dataclass(frozen=True, slots=True, eq=False)
class NextFromClient(Question[bytes]):
    """What does the client answer?"""

    pipe: EapPipe


class PassingPeer(EapPeer):
    """The client towards the gateway: it answers what the real client answers."""

    def __init__(self, ask: Ask, pipe: EapPipe) -> None:
        super().__init__(ask, b"", ())
        self._pipe = pipe

    @property
    def msk(self) -> bytes | None:
        """The key, where the relay can make it."""
        return self._pipe.msk

    @property
    def method(self) -> str:
        """The method that went by."""
        return self._pipe.method

    async def receive(self, packet: bytes) -> bytes | None:
        """Pass a packet on, and wait for the client's answer to it."""
        try:
            code = None if self._pipe.goes_on(packet) else EapPacket.decode(packet).code
            self._pipe.from_server(packet)
            if code is EapCode.SUCCESS:
                self.succeeded = True
                return None
            if code is EapCode.FAILURE:
                raise EapFailed(
                    "the gateway refused the client", expected="EAP-Success", got="EAP-Failure", side=Side.BOTH
                )
            return await self._ask(NextFromClient(self._pipe))
        except IkewayError:
            self.failed = True
            raise


class PassingAuthenticator:
    """The gateway towards the client: it says what the real gateway says. An `Authenticator`."""

    def __init__(self, ask: Ask, pipe: EapPipe) -> None:
        self._ask, self._pipe = ask, pipe
        self._identifier = 0
        self.succeeded = False
        self.failed = False
        self.error: IkewayError | None = None

    @property
    def reason(self) -> str:
        """Why it failed; empty as long as it has not."""
        return str(self.error) if self.error is not None else ""

    @property
    def identity(self) -> bytes | None:
        """Who the client says it is."""
        return self._pipe.identity

    @property
    def msk(self) -> bytes | None:
        """The key, where the relay can make it."""
        return self._pipe.msk if self.succeeded else None

    @property
    def method(self) -> str:
        """The method that went by."""
        return self._pipe.method

    def require_mutual(self) -> bool:
        """What proves the gateway is for the real one to say: never EAP alone."""
        return False

    async def start(self) -> bytes:
        """The gateway's first packet."""
        return await self._next()

    async def receive(self, packet: bytes) -> bytes:
        """Pass a response on; returns the gateway's next packet."""
        try:
            self._pipe.from_client(packet)
        except IkewayError as error:
            return self._fail(error)
        return await self._next()

    def abandon(self, error: IkewayError) -> IkewayError:
        """The client left in the middle, or `error` happened."""
        if not (self.succeeded or self.failed):
            self._fail(error)
            self._pipe.fail(error)
        return self.error or error

    async def _next(self) -> bytes:
        try:
            octets = await self._ask(NextFromServer(self._pipe))
            if self._pipe.goes_on(octets):
                return octets
            packet = EapPacket.decode(octets)
        except IkewayError as error:
            return self._fail(error)
        self._identifier = packet.identifier
        self.succeeded = packet.code is EapCode.SUCCESS
        if packet.code is EapCode.FAILURE:
            self._fail(EapFailed("the gateway refused the client", expected="EAP-Success", got="EAP-Failure"))
        return octets

    def _fail(self, error: IkewayError) -> bytes:
        self.error, self.failed = error, True
        return EapPacket(EapCode.FAILURE, self._identifier).encode()


def _checked(found: bytes | IkewayError) -> bytes:
    if isinstance(found, IkewayError):
        raise found
    return found

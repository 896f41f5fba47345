"""FortiGate's second factor: one EAP log-in of two methods, EAP-MSCHAPv2 and then EAP-GTC for the code.

    client                                   gateway
            <-- EAP-MSCHAPv2 Success        (its proof that it knows the password)
    EAP-MSCHAPv2 Success -->
            <-- EAP-Success of five octets, the last one 6: EAP-GTC comes next
    the same response once more -->
            <-- EAP-GTC "Code: "
    EAP-GTC "123456" -->
            <-- EAP-Success of four octets
    AUTH by SK_pi -->
            <-- AUTH by SK_pr

EAP has neither a sequence of methods nor content in a Success (RFC 3748 sections 2.1 and 4.2). Sources, and what is not
certain: docs/dialects.md. Nothing of it was tried against a FortiGate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ikeway.eap.errors import EapFailed, MalformedEap
from ikeway.eap.gtc import GtcAuthenticator, GtcPeer
from ikeway.eap.method import AuthenticatorMethodFactory, EapAuthenticatorMethod, PeerMethodFactory
from ikeway.eap.packet import EapCode, EapPacket, EapType, MethodType
from ikeway.eap.questions import Wanted
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.errors import IkewayError, Side
from ikeway.questions import Ask

Answer = Literal["repeat", "identity", "off"]
"""What a client says to the Success of five octets: its last response once more; who it is; nothing, and gives up."""
AuthKey = Literal["sk_p", "msk"]
"""What the last AUTH of both sides is made with: SK_p, as EAP-GTC gives no key; or the key of EAP-MSCHAPv2."""

PASSWORD_METHOD = MethodType(0, EapType.MSCHAPV2)
BEFORE_GTC = MethodType(12356, EapType.GTC)
"""Stands for the Success that is none, where it is said which methods somebody takes; 12356 is Fortinet."""
_LENGTH = 5


def names_another_method(packet: bytes) -> bool:
    """True for an EAP-Success with one octet in it, which RFC 3748 section 4.2 has no room for."""
    return packet[:1] == bytes((EapCode.SUCCESS,)) and packet[2:4] == _LENGTH.to_bytes(2) and len(packet) == _LENGTH


def success_before_gtc(identifier: int) -> bytes:
    """The password was right, and EAP-GTC comes next."""
    return bytes((EapCode.SUCCESS, identifier)) + _LENGTH.to_bytes(2) + bytes((EapType.GTC,))


class SecondFactorPeer(EapPeer):
    """The user's side. The code goes out only to who has proven that it knows the password, once a log-in."""

    def __init__(
        self,
        ask: Ask,
        identity: bytes,
        methods: Sequence[PeerMethodFactory],
        *,
        answer: Answer = "repeat",
        key: AuthKey = "sk_p",
    ) -> None:
        super().__init__(ask, identity, methods)
        self._answer = answer
        self._key = key
        self._user = identity
        self._last_response = b""
        self._password_method = ""  # its name, once the code is asked for
        self._password_msk: bytes | None = None
        self._alone = False

    def require_mutual(self) -> None:
        """EAP alone proves the gateway (RFC 5998): then nothing may follow the method that does."""
        super().require_mutual()
        self._alone = True

    @property
    def takes(self) -> frozenset[MethodType]:
        """The methods that it answers, and the one that may follow them."""
        more = () if self._answer == "off" else (BEFORE_GTC, MethodType(0, EapType.GTC))
        return super().takes.union(more)

    @property
    def msk(self) -> bytes | None:
        """The key for AUTH: of EAP-MSCHAPv2, where it is the setting and a code followed."""
        if self.succeeded and self._password_method and self._key == "msk":
            return self._password_msk
        return super().msk

    @property
    def method(self) -> str:
        """The names of the methods in use."""
        return ", then ".join(filter(None, (self._password_method, super().method)))

    def failure_reason(self) -> IkewayError | None:
        """Between the two methods nobody else has one."""
        reason = super().failure_reason()
        if reason is None and self._password_method:
            reason = EapFailed(
                "the gateway took the password, and ends the log-in at its second factor",
                expected="EAP-GTC",
                got="EAP-Failure",
                side=Side.BOTH,
                remedy="see the gateway's log; `second_factor` in [gateway.fortigate] may have to be another one",
            )
        return reason

    async def receive(self, packet: bytes) -> bytes | None:
        """As ever, but for the Success that is none."""
        if names_another_method(packet) and not (self.succeeded or self.failed):
            try:
                return self._go_on(packet)
            except IkewayError:
                self.failed = True
                raise
        response = await super().receive(packet)
        self._last_response = response or b""
        return response

    def _go_on(self, packet: bytes) -> bytes:
        if self._password_method or self._alone or packet[4] != EapType.GTC:
            raise MalformedEap(
                "an EAP-Success that names another method to follow",
                expected="four octets, or once, after a password, five of which the last one is 6 (EAP-GTC)",
                got=f"five octets, the last one {packet[4]}",
            )
        if self._answer == "off":
            raise EapFailed(
                "the FortiGate took the password and wants its second factor in its own way, which is switched off here",
                expected="EAP-Success of four octets",
                got="EAP-Success of five octets that names EAP-GTC",
                side=Side.BOTH,
                remedy='write second_factor = "repeat" in [gateway.fortigate], or have the code taken in another way',
            )
        if self._concluded().type != PASSWORD_METHOD:
            raise MalformedEap("a second factor after another method", expected="EAP-MSCHAPv2", got=self.method)
        done = self._go_on_with([lambda: GtcPeer(self._user, Wanted.CODE)])
        self._password_method, self._password_msk = done.name, done.msk
        if self._answer == "identity":
            return EapPacket(EapCode.RESPONSE, packet[1], EapType.IDENTITY, self._user).encode()
        return self._last_response


class SecondFactorAuthenticator(EapAuthenticator):
    """The gateway's side, as far as it is known: who may log in has a code as well."""

    def __init__(
        self,
        ask: Ask,
        methods: Sequence[AuthenticatorMethodFactory],
        *,
        prompt: str = "Code: ",
        key: AuthKey = "sk_p",
    ) -> None:
        super().__init__(ask, methods)
        self._prompt = prompt
        self._key = key
        self._password_method: EapAuthenticatorMethod | None = None  # once the password was right
        self._last_response = b""
        self._asks_next = False

    def require_mutual(self) -> bool:
        """What comes last proves nothing of us."""
        return False

    @property
    def msk(self) -> bytes | None:
        """The key for AUTH."""
        if self._key == "msk" and self.succeeded and self._password_method is not None:
            return self._password_method.msk
        return super().msk

    @property
    def method(self) -> str:
        """The names of the methods in use."""
        first = self._password_method
        names = (first.name if first is not None and first is not self._method else "", super().method)
        return ", then ".join(filter(None, names))

    def _conclude(self, method: EapAuthenticatorMethod) -> bytes:
        if self._password_method is not None:
            return super()._conclude(method)
        self._password_method, self._asks_next = method, True
        self._claimed = method.identity or self._claimed  # the code has to be this user's
        return success_before_gtc(self._identifier)

    async def _receive(self, octets: bytes) -> bytes:
        if not self._asks_next:
            self._last_response = octets
            return await super()._receive(octets)
        self._rounds -= 1
        if octets != self._last_response and octets[4:5] != bytes((EapType.IDENTITY,)):
            raise MalformedEap(
                "an answer to the Success before the second factor that nobody knows",
                expected="the last response once more, or EAP-Identity",
                got=f"{len(octets)} octets of another one",
            )
        self._asks_next = False
        return await self._propose(GtcAuthenticator(self._prompt, Wanted.CODE))

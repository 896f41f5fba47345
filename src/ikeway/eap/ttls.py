"""EAP-TTLSv0, both roles (RFC 5281; with TLS 1.3: RFC 9427).

peer                                     authenticator
        <-- Start
TLS handshake                            (in which the server proves itself, and the client may)
name and password, or a proof, or EAP, as pairs (AVPs) in the tunnel -->
        <-- proof, or EAP, in the tunnel (as often as the way to log in needs)
        <-- EAP-Success

The key is the tunnel's. With a session that is resumed there is no log-in in the tunnel, unless the server waits for it.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ikeway.eap.errors import EapFailed, MalformedEap, NoCommonMethod, PasswordExpired, wrong_password
from ikeway.eap.method import AuthenticatorMethodFactory
from ikeway.eap.mschapv2 import secret_of
from ikeway.eap.mschapv2_crypto import authenticator_response, bare_user_name, nt_response
from ikeway.eap.packet import EapCode, EapPacket, EapType, MethodType
from ikeway.eap.questions import Granted, MustChange, PasswordCheck, Prompt, SecretQuestion
from ikeway.eap.session import EapAuthenticator
from ikeway.eap.ttls_inner import InnerPeer, Talk, implicit_challenge
from ikeway.eap.tunnel.authenticator import TlsAuthenticator
from ikeway.eap.tunnel.avp import (
    MICROSOFT,
    Avp,
    AvpCode,
    MicrosoftAvp,
    decode_avps,
    encode_avps,
    joined,
    refuse_unknown,
)
from ikeway.eap.tunnel.channel import Channel, Endpoint
from ikeway.eap.tunnel.framing import FRAGMENT_OCTETS
from ikeway.eap.tunnel.keys import TunnelKeys
from ikeway.eap.tunnel.peer import TlsPeer
from ikeway.eap.tunnel.sessions import SessionCache
from ikeway.errors import ConfigError, IkewayError, Side
from ikeway.questions import Ask

_TYPE = MethodType(0, EapType.TTLS)
_MAX_NAME = 1024


class TtlsPeer(TlsPeer):
    """The user's side. `inner` is the way to log in, made anew for each log-in."""

    type: ClassVar[MethodType] = _TYPE
    name: ClassVar[str] = "EAP-TTLS"
    eap_type: ClassVar[EapType] = EapType.TTLS

    def __init__(
        self,
        endpoint: Endpoint,
        identity: bytes,
        inner: InnerPeer,
        *,
        sessions: SessionCache | None = None,
        fragment: int = FRAGMENT_OCTETS,
    ) -> None:
        super().__init__(endpoint, identity, sessions=sessions, fragment=fragment)
        self._inner = inner
        self._talk: Talk | None = None

    def failure_reason(self) -> IkewayError | None:
        """What went wrong with the tunnel, or else with the log-in in it."""
        return super().failure_reason() or self._inner.error

    def _opened(self, channel: Channel, keys: TunnelKeys) -> None:
        self.msk = keys.msk

    async def _tunnelled(self, channel: Channel, plaintext: bytes, ask: Ask) -> None:
        avps = decode_avps(plaintext)
        refuse_unknown(avps)
        if self._talk is not None and not avps:
            return  # an acknowledgement, or tickets of TLS 1.3
        self._within = True
        try:
            if self._talk is None:
                self._talk = self._inner.talk(channel, ask)
                reply = await anext(self._talk)
            else:
                reply = await self._talk.asend(avps)
        except StopAsyncIteration:
            raise EapFailed("the server goes on after the end of the log-in", side=Side.PEER) from None
        self.may_succeed = self._inner.may_succeed
        if reply:
            channel.write(encode_avps(reply))


@dataclass(frozen=True, slots=True)
class TtlsWays:
    """The ways to log in that a gateway takes; the client chooses one of them."""

    pap: bool = False
    mschapv2: bool = False
    eap: Sequence[AuthenticatorMethodFactory] = ()

    def __post_init__(self) -> None:
        if not (self.pap or self.mschapv2 or self.eap):
            raise ConfigError("EAP-TTLS with no way to log in", expected="PAP, MSCHAPv2 or an EAP method")

    def __str__(self) -> str:
        names = ["PAP"] * self.pap + ["MSCHAPv2"] * self.mschapv2 + [factory().name for factory in self.eap]
        return ", ".join(names)


class TtlsAuthenticator(TlsAuthenticator):
    """The server's side. Users are those of the log-in in the tunnel; the outer identity may be anybody's."""

    type: ClassVar[MethodType] = _TYPE
    name: ClassVar[str] = "EAP-TTLS"
    eap_type: ClassVar[EapType] = EapType.TTLS

    def __init__(self, endpoint: Endpoint, ways: TtlsWays, *, fragment: int = FRAGMENT_OCTETS) -> None:
        super().__init__(endpoint, fragment=fragment)
        self._ways = ways
        self._talk: Talk | None = None
        self._inner: EapAuthenticator | None = None

    def _suspicion(self) -> IkewayError | None:
        return self._inner.doubt if self._inner is not None else None

    async def _opened(self, channel: Channel, keys: TunnelKeys, identity: bytes, ask: Ask) -> None:
        self.msk = keys.msk

    async def _tunnelled(self, channel: Channel, plaintext: bytes, ask: Ask) -> None:
        avps = decode_avps(plaintext)
        refuse_unknown(avps)
        if self._talk is None and not avps:
            return  # the client has not begun
        try:
            if self._talk is None:
                self._talk = self._choose(avps, channel, ask)
                reply = await anext(self._talk)
            else:
                reply = await self._talk.asend(avps)
        except StopAsyncIteration:
            self._done = True
            return
        channel.write(encode_avps(reply))

    def _choose(self, avps: Sequence[Avp], channel: Channel, ask: Ask) -> Talk:
        """The way that the client's first pairs belong to."""
        ways = self._ways
        if ways.eap and joined(avps, AvpCode.EAP_MESSAGE) is not None:
            return self._eap(avps, ask)
        if ways.mschapv2 and joined(avps, MicrosoftAvp.CHAP2_RESPONSE, MICROSOFT) is not None:
            return self._mschapv2(avps, channel, ask)
        if ways.pap and joined(avps, AvpCode.USER_PASSWORD) is not None:
            return self._pap(avps, ask)
        raise NoCommonMethod(
            "the client logs in through EAP-TTLS in a way that is not taken here",
            expected=str(ways),
            got=", ".join(f"code {avp.code} of vendor {avp.vendor}" for avp in avps[:6]) or "nothing",
            side=Side.BOTH,
            remedy="configure on both sides the same way inside EAP-TTLS",
        )

    async def _pap(self, avps: Sequence[Avp], ask: Ask) -> AsyncGenerator[list[Avp], Sequence[Avp]]:
        self.identity = name = _user_name(avps)
        password = (joined(avps, AvpCode.USER_PASSWORD) or b"").rstrip(b"\0")
        verdict = await ask(PasswordCheck(name, password, "EAP-TTLS with PAP", may_prompt=False))
        if not isinstance(verdict, Granted):
            reason = "" if isinstance(verdict, Prompt) else verdict.reason
            raise wrong_password(name, reason=reason)
        return
        yield []  # never: the client has said all with its first message

    async def _mschapv2(
        self, avps: Sequence[Avp], channel: Channel, ask: Ask
    ) -> AsyncGenerator[list[Avp], Sequence[Avp]]:
        challenge, identifier = implicit_challenge(channel)
        self.identity = name = _user_name(avps)
        response = joined(avps, MicrosoftAvp.CHAP2_RESPONSE, MICROSOFT) or b""
        claimed = joined(avps, MicrosoftAvp.CHAP_CHALLENGE, MICROSOFT) or b""
        if len(response) != 50 or response[0] != identifier or not hmac.compare_digest(claimed, challenge):
            raise MalformedEap(
                "a log-in by MSCHAPv2 that does not belong to this tunnel",
                expected="the tunnel's own challenge and identifier (RFC 5281 section 11.1)",
                got=f"a response of {len(response)} octets",
            )
        peer_challenge, proof = response[2:18], response[26:50]
        answer = await ask(SecretQuestion(name, "EAP-TTLS with MSCHAPv2"))
        stored = answer.secret if isinstance(answer, MustChange) else answer
        secret = secret_of(stored, os.urandom)
        user = bare_user_name(name)
        expected = nt_response(challenge, peer_challenge, user, secret)
        if not hmac.compare_digest(expected, proof) or stored is None:
            raise wrong_password(name)
        if isinstance(answer, MustChange):
            raise PasswordExpired(
                f"the password of {name.decode('utf-8', 'backslashreplace')!r} has to be changed first",
                side=Side.PEER,
                remedy="set a new one here, or let the user log in by EAP-MSCHAPv2, which can change it",
            )
        proven = authenticator_response(secret, proof, peer_challenge, challenge, user).hex().upper()
        yield [Avp(MicrosoftAvp.CHAP2_SUCCESS, bytes((identifier,)) + b"S=" + proven.encode(), MICROSOFT)]

    async def _eap(self, avps: Sequence[Avp], ask: Ask) -> AsyncGenerator[list[Avp], Sequence[Avp]]:
        session = self._inner = EapAuthenticator(ask, self._ways.eap)
        asked = EapPacket.decode(await session.start())  # not sent: the client gives its identity unasked
        response = _renumbered(joined(avps, AvpCode.EAP_MESSAGE) or b"", asked.identifier)
        while True:
            request = await session.receive(response)
            if session.error is not None:
                raise session.error
            if session.succeeded:
                self.identity = session.identity
                return
            avps = yield [Avp(AvpCode.EAP_MESSAGE, request)]
            response = joined(avps, AvpCode.EAP_MESSAGE) or b""


def _renumbered(packet: bytes, identifier: int) -> bytes:
    """The identity that was given unasked, as an answer to the question that was not sent."""
    response = EapPacket.decode(packet)
    if response.code is not EapCode.RESPONSE:
        raise MalformedEap("an EAP request where a response is due", expected="RESPONSE", got=response.code.name)
    return EapPacket(response.code, identifier, response.type, response.data).encode()


def _user_name(avps: Sequence[Avp]) -> bytes:
    name = joined(avps, AvpCode.USER_NAME)
    if not name or len(name) > _MAX_NAME:
        raise MalformedEap(
            "a log-in in EAP-TTLS without a usable name",
            expected=f"a User-Name of 1 to {_MAX_NAME} octets",
            got=f"{len(name or b'')} octets",
        )
    return name

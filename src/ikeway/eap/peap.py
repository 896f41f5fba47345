"""PEAPv0, both roles ([MS-PEAP], draft-kamath-pppext-peapv0; with TLS 1.3: RFC 9427).

peer                                     authenticator
        <-- Start
TLS handshake                            (in which the server proves itself)
        <-- EAP Identity request, without its header, in the tunnel
Identity, without its header -->
        <-- EAP of another method        (as often as it needs)
response -->
        <-- Result, cryptobinding
Result, cryptobinding -->
        <-- EAP-Success

Cryptobinding proves that who made the tunnel also took part in the log-in within; the key is then made of both. Servers
exist that do not offer it (FreeRADIUS 3), so it is required only when that is configured. With a session that is resumed
(fast reconnect) the result comes at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import ClassVar

from ikeway.eap.errors import BindingFailed, EapFailed, MalformedEap
from ikeway.eap.method import AuthenticatorMethodFactory, PeerMethodFactory
from ikeway.eap.packet import EapCode, EapPacket, EapType, MethodType
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.eap.tunnel.authenticator import TlsAuthenticator
from ikeway.eap.tunnel.channel import COMMITMENT, Channel, Endpoint
from ikeway.eap.tunnel.extensions import (
    EXTENSIONS,
    Binding,
    CompoundKeys,
    Outcome,
    Result,
    decode_inner,
    encode_extensions,
    encode_inner,
    result_tlv,
)
from ikeway.eap.tunnel.framing import FRAGMENT_OCTETS
from ikeway.eap.tunnel.keys import TunnelKeys
from ikeway.eap.tunnel.peer import TlsPeer
from ikeway.eap.tunnel.sessions import ProvenLogin, SessionCache
from ikeway.errors import ConfigError, IkewayError
from ikeway.questions import Ask

_TYPE = MethodType(0, EapType.PEAP)
Random = Callable[[int], bytes]


def _unbound(who: str, got: str) -> BindingFailed:
    return BindingFailed(
        f"PEAP of the {who} is not bound to the log-in within",
        expected="a cryptobinding made with the keys of both",
        got=got,
        remedy="distrust the way between, if the other end can do cryptobinding; else do not require it",
    )


class PeapPeer(TlsPeer):
    """The user's side. `methods` are those in the tunnel; `require_binding`: a server must offer cryptobinding."""

    type: ClassVar[MethodType] = _TYPE
    name: ClassVar[str] = "PEAP"
    eap_type: ClassVar[EapType] = EapType.PEAP

    def __init__(
        self,
        endpoint: Endpoint,
        identity: bytes,
        methods: Sequence[PeerMethodFactory],
        *,
        require_binding: bool = False,
        sessions: SessionCache | None = None,
        fragment: int = FRAGMENT_OCTETS,
    ) -> None:
        super().__init__(endpoint, identity, sessions=sessions, fragment=fragment)
        if not methods:
            raise ConfigError("PEAP with no method in the tunnel", expected="an EAP method")
        self._methods = methods
        self._require_binding = require_binding
        self._inner: EapPeer | None = None
        self._resumed = False

    def failure_reason(self) -> IkewayError | None:
        """What went wrong with the tunnel, or else with the log-in in it."""
        return super().failure_reason() or (self._inner.failure_reason() if self._inner is not None else None)

    @property
    def _skipped(self) -> bool:
        """True when there is no log-in in the tunnel: it is a session of one that there was."""
        return self._resumed and not self._within

    def _opened(self, channel: Channel, keys: TunnelKeys) -> None:
        self.msk, self._resumed = keys.msk, channel.resumed

    async def _tunnelled(self, channel: Channel, plaintext: bytes, ask: Ask) -> None:
        if not plaintext:
            return  # the server speaks first; this acknowledges its Finished, or its tickets
        if self._inner is None:
            self._inner = EapPeer(ask, self._identity, self._methods)
        request = decode_inner(plaintext, EapCode.REQUEST, self.identifier)
        if request.type == EXTENSIONS:
            response = await self._conclude(self._inner, request)
        else:
            self._within, self.may_succeed = True, False
            answer = await self._inner.receive(request.encode())
            if answer is None:
                raise MalformedEap(
                    "in the tunnel of PEAP, a Success where a result is due", expected="a Result TLV", got="EAP-Success"
                )
            response = EapPacket.decode(answer)
        channel.write(encode_inner(response))

    async def _conclude(self, inner: EapPeer, request: EapPacket) -> EapPacket:
        """The server's result: agree with it, or not."""
        outcome = Outcome.decode(request.data)
        code, identifier = EapCode.RESPONSE, request.identifier
        refusal = encode_extensions(code, identifier, result_tlv(Result.FAILURE))
        if outcome.result is not Result.SUCCESS:
            self.may_succeed = False
            self._error = inner.failure_reason() or EapFailed(
                f"the server refused the log-in by {inner.method or 'a method'} in PEAP",
                expected="success",
                got="failure",
                remedy="check user name and password; the server's log has the reason",
            )
            return refusal
        if not (inner.may_succeed or self._skipped):
            self._error = EapFailed(
                "the server declared success before the log-in in PEAP was at its end", remedy="distrust this server"
            )
            return refusal
        if not (inner.succeeded or self._skipped):
            await inner.receive(EapPacket(EapCode.SUCCESS, identifier).encode())
        return self._bound(inner, outcome.binding, identifier) or refusal

    def _bound(self, inner: EapPeer, binding: Binding | None, identifier: int) -> EapPacket | None:
        """Agree, and bind when the server does; None when there is an error."""
        code = EapCode.RESPONSE
        if binding is None:
            if self._require_binding and not self._skipped:  # a session that is resumed was bound when it began
                self._error = _unbound("server", "none")
                return None
            self.may_succeed = True
            return encode_extensions(code, identifier, result_tlv(Result.SUCCESS))
        assert self._keys is not None
        material = self._keys.material
        keys = CompoundKeys.of_tunnel(material) if self._skipped else CompoundKeys.derive(material, inner.msk)
        if binding.is_response or not keys.proves(binding):
            self._error = _unbound("server", "one that is wrong")
            return None
        self.msk, self.may_succeed = keys.msk(), True
        proof = keys.binding(binding.nonce, is_response=True)
        return encode_extensions(code, identifier, result_tlv(Result.SUCCESS), proof.tlv())


class PeapAuthenticator(TlsAuthenticator):
    """The server's side. `methods` in the tunnel are proposed in order; `require_binding`: a client must do
    cryptobinding, which is always offered."""

    type: ClassVar[MethodType] = _TYPE
    name: ClassVar[str] = "PEAP"
    eap_type: ClassVar[EapType] = EapType.PEAP

    def __init__(
        self,
        endpoint: Endpoint,
        methods: Sequence[AuthenticatorMethodFactory],
        *,
        require_binding: bool = False,
        fragment: int = FRAGMENT_OCTETS,
        random: Random = os.urandom,
    ) -> None:
        super().__init__(endpoint, fragment=fragment)
        if not methods:
            raise ConfigError("PEAP with no method in the tunnel", expected="an EAP method")
        self._methods = methods
        self._require_binding = require_binding
        self._random = random
        self._inner: EapAuthenticator | None = None
        self._asked = 0  # the identifier of the inner request, which does not go through the tunnel
        self._verdict: IkewayError | None = None  # why the inner log-in failed
        self._compound: CompoundKeys | None = None
        self._nonce = b""

    def _suspicion(self) -> IkewayError | None:
        return self._verdict or (self._inner.doubt if self._inner is not None else None)

    async def _opened(self, channel: Channel, keys: TunnelKeys, identity: bytes, ask: Ask) -> None:
        self._inner = EapAuthenticator(ask, self._methods)
        self._send(channel, EapPacket.decode(await self._inner.start()))

    def _send(self, channel: Channel, request: EapPacket) -> None:
        self._asked = request.identifier
        channel.write(encode_inner(request))

    async def _tunnelled(self, channel: Channel, plaintext: bytes, ask: Ask) -> None:
        if self._verdict is not None:
            raise self._verdict  # whatever the client thinks of it
        if self._resumed is not None and self._compound is None:
            # Not every client takes the octet for what it is: wpa_supplicant 2.10 answers it like an unknown method.
            self._send_result_of_session(channel)
            return
        response = decode_inner(plaintext, EapCode.RESPONSE, self._asked)
        if self._compound is not None:
            self._conclude(self._compound, response)
            return
        inner = self._inner
        assert inner is not None
        request = EapPacket.decode(await inner.receive(response.encode()))
        if inner.failed:
            self._verdict = inner.error or EapFailed("the log-in in PEAP failed")
            request = encode_extensions(EapCode.REQUEST, request.identifier, result_tlv(Result.FAILURE))
        elif inner.succeeded:
            keys = CompoundKeys.derive(self._keyed.material, inner.msk)
            request = self._success(keys, (request.identifier + 1) & 0xFF)
        self._send(channel, request)

    def _skip(self, channel: Channel, keys: TunnelKeys, login: ProvenLogin) -> None:
        """The result comes at once; with TLS 1.3 once the octet before it is acknowledged, as FreeRADIUS has it."""
        if channel.is_tls13:
            channel.write(COMMITMENT)
        else:
            self._send_result_of_session(channel)

    def _send_result_of_session(self, channel: Channel) -> None:
        keys = CompoundKeys.of_tunnel(self._keyed.material)
        self._send(channel, self._success(keys, (self.identifier + 1) & 0xFF))

    def _success(self, keys: CompoundKeys, identifier: int) -> EapPacket:
        """Our result, with our side of the cryptobinding."""
        self._compound, self._nonce = keys, self._random(32)
        proof = keys.binding(self._nonce, is_response=False)
        return encode_extensions(EapCode.REQUEST, identifier, result_tlv(Result.SUCCESS), proof.tlv())

    def _conclude(self, keys: CompoundKeys, response: EapPacket) -> None:
        """The client's answer to our success."""
        if response.type != EXTENSIONS:
            raise MalformedEap(
                "in the tunnel of PEAP, no answer to the result", expected="a Result TLV", got=f"type {response.type}"
            )
        outcome = Outcome.decode(response.data)
        if outcome.result is not Result.SUCCESS:
            raise EapFailed(
                "the client does not agree that the log-in in PEAP has succeeded",
                expected="success",
                got="failure",
                remedy="see the client's log: it may want, or find wrong, the cryptobinding",
            )
        binding = outcome.binding
        if binding is None and self._require_binding and self._resumed is None:
            raise _unbound("client", "none")
        if binding is not None:
            if not binding.is_response or binding.nonce != self._nonce or not keys.proves(binding):
                raise _unbound("client", "one that is wrong")
            self.msk = keys.msk()
        else:
            self.msk = self._keyed.msk
        if self._resumed is not None:
            self.identity = self._resumed.identity
        elif self._inner is not None:
            self.identity = self._inner.identity
        self._done = True

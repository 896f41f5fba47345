"""The peer's side of every method on TLS: framing, handshake, errors. What is said in the tunnel is the method's.

peer                                     authenticator
        <-- Start
ClientHello -->
        <-- ServerHello, certificate, ...
certificate, Finished -->
        <-- Finished (TLS 1.2), or what the method says first (TLS 1.3)
whatever the method says, encrypted, or nothing -->

With a session that is resumed nobody shows a certificate, and the method has nothing to say: who began the session had
logged in. With TLS 1.3 the server then says so by one octet 0x00 in the tunnel (RFC 9190 section 2.1.3, RFC 9427 section 4);
one that goes on with the method instead has its way.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import ClassVar

from ikeway.eap.errors import TlsFailed
from ikeway.eap.method import EapPeerMethod
from ikeway.eap.packet import EapType
from ikeway.eap.tunnel.channel import COMMITMENT, Channel, Endpoint
from ikeway.eap.tunnel.framing import FRAGMENT_OCTETS, Framing, read_start
from ikeway.eap.tunnel.keys import TunnelKeys, derive
from ikeway.eap.tunnel.sessions import SessionCache
from ikeway.errors import IkewayError
from ikeway.questions import Ask, CurrentTime


class TlsPeer(EapPeerMethod):
    """`sessions`: where the session of a log-in that has succeeded is kept for the next one of `identity`; None: every
    log-in is a full one."""

    mutual: ClassVar[bool] = True
    eap_type: ClassVar[EapType]
    _within: bool = False  # the log-in in the tunnel has begun: nothing but its own end is one

    def __init__(
        self,
        endpoint: Endpoint,
        identity: bytes,
        *,
        sessions: SessionCache | None = None,
        fragment: int = FRAGMENT_OCTETS,
    ) -> None:
        self._endpoint = endpoint
        self._identity = identity
        self._sessions = sessions if endpoint.resumes else None
        self._fragment = fragment
        self._error: IkewayError | None = None
        self._keys: TunnelKeys | None = None
        self._channel: Channel | None = None
        self._when = datetime.min

    @property
    def _session_key(self) -> bytes:
        return self.type.prefix + self._identity

    def on_success(self) -> None:
        """Keep the session; with TLS 1.3 its tickets came last."""
        if self._sessions is not None and self._channel is not None:
            self._sessions.keep(self._session_key, self._channel.finish(), self._channel.peer_chain, self._when)

    def failure_reason(self) -> IkewayError | None:
        """What this side refused, or the server's alert, or that it gave none."""
        if self._error is None and self._keys is None:
            return TlsFailed(
                f"the server ended {self.name} in the middle of TLS without saying why",
                expected="the handshake to go on",
                got="EAP-Failure",
                remedy="see the server's log: it may want a client certificate, or not accept the one it got",
            )
        return self._error

    async def run(self, request: bytes, ask: Ask) -> AsyncGenerator[bytes, bytes]:
        """Answer the server's messages, until its EAP-Success or EAP-Failure."""
        read_start(request)
        self._when = when = await ask(CurrentTime())
        kept = self._sessions.take(self._session_key, when) if self._sessions is not None else None
        # A server that is not trusted any more is met anew, and refused in the usual way.
        resumable = kept is not None and self._endpoint.trusts(kept.chain, when)
        self._channel = channel = self._endpoint.open(when, kept.session if kept is not None and resumable else None)
        framing = Framing(fragment=self._fragment)
        framing.send(channel.output())
        while True:
            request = yield framing.emit()
            message = framing.take(request)
            if message is None:
                continue
            if self._error is not None:
                raise self._error
            framing.send(await self._answer(channel, message, ask))

    async def _answer(self, channel: Channel, message: bytes, ask: Ask) -> bytes:
        """The answer to a message. An error is told to the server by an alert and raised when it has gone out."""
        was_established = channel.established
        try:
            channel.feed(message)
        except IkewayError as error:
            return self._failed(channel, error)
        try:
            if channel.established and not was_established:
                self._keys = derive(channel, self.eap_type)
                self._opened(channel, self._keys)
                self.may_succeed = self.may_succeed or (channel.resumed and not channel.is_tls13)
            handshake = channel.output()
            if channel.established and not handshake:
                await self._go_on(channel, channel.read(), ask)
            return handshake + channel.output()
        except IkewayError as error:
            channel.close()  # so that the server does not wait
            return self._failed(channel, error)

    async def _go_on(self, channel: Channel, plaintext: bytes, ask: Ask) -> None:
        if channel.resumed and channel.is_tls13 and plaintext == COMMITMENT and not (self.may_succeed or self._within):
            self.may_succeed = True
        else:
            await self._tunnelled(channel, plaintext, ask)

    def _failed(self, channel: Channel, error: IkewayError) -> bytes:
        self._error, self.may_succeed = error, False
        return channel.output()

    @abstractmethod
    def _opened(self, channel: Channel, keys: TunnelKeys) -> None:
        """TLS is up: our last message of the handshake is not yet sent."""
        raise NotImplementedError

    @abstractmethod
    async def _tunnelled(self, channel: Channel, plaintext: bytes, ask: Ask) -> None:
        """It is our turn to say something in the tunnel (`channel.write`), or nothing."""
        raise NotImplementedError

"""The peer's side of every method on TLS: framing, handshake, errors. What is said in the tunnel is the method's.

peer                                     authenticator
        <-- Start
ClientHello -->
        <-- ServerHello, certificate, ...
certificate, Finished -->
        <-- Finished (TLS 1.2), or what the method says first (TLS 1.3)
whatever the method says, encrypted, or nothing -->
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator
from typing import ClassVar

from ikeway.eap.errors import TlsFailed
from ikeway.eap.method import EapPeerMethod
from ikeway.eap.packet import EapType
from ikeway.eap.tunnel.channel import Channel, Endpoint
from ikeway.eap.tunnel.framing import FRAGMENT_OCTETS, Framing, read_start
from ikeway.eap.tunnel.keys import TunnelKeys, derive
from ikeway.eap.tunnel.sessions import SessionCache
from ikeway.errors import IkewayError
from ikeway.questions import Ask, CurrentTime


class TlsPeer(EapPeerMethod):
    """`sessions`: where a session is kept for the next log-in of `identity`; None: every log-in is a full one."""

    mutual: ClassVar[bool] = True
    eap_type: ClassVar[EapType]

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
        when = await ask(CurrentTime())
        key = self.type.prefix + self._identity
        kept = self._sessions.take(key, when) if self._sessions is not None else None
        # A server that is not trusted any more is met anew, and refused in the usual way.
        resumable = kept is not None and self._endpoint.trusts(kept.chain, when)
        channel = self._endpoint.open(when, kept.session if kept is not None and resumable else None)
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
            if self.may_succeed and self._sessions is not None:
                self._sessions.keep(key, channel.session, channel.peer_chain, when)

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
            handshake = channel.output()
            if channel.established and not handshake:
                await self._tunnelled(channel, channel.read(), ask)
            return handshake + channel.output()
        except IkewayError as error:
            channel.close()  # so that the server does not wait
            return self._failed(channel, error)

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

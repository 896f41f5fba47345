"""The authenticator's side of every method on TLS: the diagram is in `peer`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import ClassVar

from ikeway.eap.errors import TlsFailed
from ikeway.eap.method import EapAuthenticatorMethod
from ikeway.eap.packet import EapType
from ikeway.eap.questions import ResumptionQuestion
from ikeway.eap.tunnel.channel import COMMITMENT, Channel, Endpoint
from ikeway.eap.tunnel.framing import FRAGMENT_OCTETS, Framing, start_packet
from ikeway.eap.tunnel.keys import TunnelKeys, derive
from ikeway.eap.tunnel.sessions import LIFETIME, ProvenLogin
from ikeway.errors import IkewayError, Side
from ikeway.questions import Ask, CurrentTime


def _left() -> TlsFailed:
    return TlsFailed(
        "the client left in the middle of the TLS handshake",
        expected="its next message",
        got="none",
        remedy="see the client's log: more often than not it does not trust the EAP server's certificate, or its name",
    )


class TlsAuthenticator(EapAuthenticatorMethod):
    """`speaks_first`: what the method has to say goes out with the last message of the handshake, not after it was
    acknowledged."""

    mutual: ClassVar[bool] = True
    eap_type: ClassVar[EapType]
    speaks_first: ClassVar[bool] = False

    def __init__(self, endpoint: Endpoint, *, fragment: int = FRAGMENT_OCTETS) -> None:
        self._endpoint = endpoint
        self._fragment = fragment
        self._keys: TunnelKeys | None = None
        self._begun = False
        self._when = datetime.min
        self._done = False  # the peer is authenticated: Success follows when all is sent and acknowledged
        self._resumed: ProvenLogin | None = None  # the log-in that a session stands for, which is resumed
        self._error: IkewayError | None = None

    async def run(self, identity: bytes, ask: Ask) -> AsyncGenerator[bytes, bytes]:
        """Make the tunnel, let the method speak in it, and end when it has."""
        self._when = when = await ask(CurrentTime())
        channel = self._endpoint.open(when)
        framing = Framing(fragment=self._fragment)
        response = yield start_packet()
        while True:
            message = framing.take(response)
            if message is not None:
                if self._error is not None:
                    raise self._error
                reply = await self._answer(channel, message, identity, ask)
                if not reply and self._error is not None:
                    raise self._error
                if not reply and self._done:
                    await self._remember(channel, ask)
                    return
                framing.send(reply)
                self.doubt = self._error or (self._suspicion() if channel.established else _left())
            response = yield framing.emit()

    async def _answer(self, channel: Channel, message: bytes, identity: bytes, ask: Ask) -> bytes:
        """The answer to a message; the alert, if there is one, when it led to an error."""
        try:
            was_established = channel.established
            channel.feed(message)
            if not channel.established:
                await self._look_whose(channel, ask)
                return channel.output()
            if not was_established:
                self._keys = derive(channel, self.eap_type)
            handshake = channel.output()
            had_begun = self._begun
            commits = self._resumed is not None and channel.is_tls13
            if not had_begun and (not handshake or self.speaks_first or commits):
                self._begun = True
                if self._resumed is not None:
                    self._skip(channel, self._keyed, self._resumed)
                else:
                    await self._opened(channel, self._keyed, identity, ask)
            if self._begun and not self._done:
                plaintext = channel.read()
                if plaintext or had_begun:
                    await self._tunnelled(channel, plaintext, ask)
            return handshake + channel.output()
        except TlsFailed as error:
            # A client that leaves the tunnel has a reason, and within it we may know which.
            self._error = (self._suspicion() if self._keys is not None else None) or error
            return channel.output()
        except IkewayError as error:
            self._error = error
            return channel.output()

    async def _look_whose(self, channel: Channel, ask: Ask) -> None:
        """The client may have a session to resume: does it stand for a log-in still? Else it is met as a stranger."""
        # What comes between our answer and the client's Finished may be another ClientHello (after a HelloRetryRequest), of
        # somebody else than the one that was looked into: then there is a log-in in the tunnel.
        self._resumed = None
        logins, digest = self._endpoint.logins, channel.session_digest
        if logins is None or digest is None or channel.has_spoken:
            return
        login = logins.find(digest, self._when)
        if login is not None and await self._still_holds(login, ask):
            self._resumed = login
        else:
            channel.start_anew()

    async def _still_holds(self, login: ProvenLogin, ask: Ask) -> bool:
        if login.method is not self.eap_type:
            return False
        return login.mark == await ask(ResumptionQuestion(login.identity, self.name))

    async def _remember(self, channel: Channel, ask: Ask) -> None:
        """Let the session stand for this log-in; that it is resumed makes it no younger."""
        logins, digest = self._endpoint.logins, channel.session_digest
        channel.finish()
        if logins is None or digest is None:
            return
        login = self._resumed
        if login is None and self.identity is not None:
            mark = await ask(ResumptionQuestion(self.identity, self.name))
            if mark is not None:
                login = ProvenLogin(self.eap_type, self.identity, mark, self._when + LIFETIME)
        if login is not None:
            logins.keep(digest, login)

    def _skip(self, channel: Channel, keys: TunnelKeys, login: ProvenLogin) -> None:
        """There is no log-in in the tunnel: the one of the session holds."""
        self.msk, self.identity, self._done = keys.msk, login.identity, True
        if channel.is_tls13:
            channel.write(COMMITMENT)

    def _suspicion(self) -> IkewayError | None:
        """What speaks against the peer within the tunnel, while its answer is awaited."""
        return None

    @property
    def _keyed(self) -> TunnelKeys:
        assert self._keys is not None
        return self._keys

    @abstractmethod
    async def _opened(self, channel: Channel, keys: TunnelKeys, identity: bytes, ask: Ask) -> None:
        """TLS is up, and it is our turn."""
        raise NotImplementedError

    async def _tunnelled(self, channel: Channel, plaintext: bytes, ask: Ask) -> None:
        """The peer has answered: something in the tunnel, or nothing."""
        raise TlsFailed("the client speaks where nothing is to be said", expected="an acknowledgement", side=Side.PEER)

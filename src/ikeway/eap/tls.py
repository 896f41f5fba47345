"""EAP-TLS, both roles (RFC 5216; with TLS 1.3: RFC 9190).

peer                                     authenticator
        <-- Start
ClientHello -->
        <-- ServerHello, certificate, request for ours
certificate, proof, Finished -->
        <-- Finished (1.2), or tickets and one octet 0x00 in the tunnel (1.3)
nothing -->
        <-- EAP-Success

The octet 0x00 with TLS 1.3 is the server's word that it has seen and accepted all of our messages: without it a
certificate that was refused would be told from one that was taken only by EAP-Success, which anybody can forge.
"""

from __future__ import annotations

from typing import ClassVar

from ikeway.eap.errors import TlsFailed
from ikeway.eap.packet import EapType, MethodType
from ikeway.eap.tunnel.authenticator import TlsAuthenticator
from ikeway.eap.tunnel.channel import COMMITMENT, Channel, Endpoint
from ikeway.eap.tunnel.framing import FRAGMENT_OCTETS
from ikeway.eap.tunnel.keys import TunnelKeys
from ikeway.eap.tunnel.peer import TlsPeer
from ikeway.eap.tunnel.sessions import SessionCache
from ikeway.errors import ConfigError, IkewayError, Side
from ikeway.questions import Ask

_TYPE = MethodType(0, EapType.TLS)


class EapTlsPeer(TlsPeer):
    """The user's side: proves itself by the certificate of the endpoint."""

    type: ClassVar[MethodType] = _TYPE
    name: ClassVar[str] = "EAP-TLS"
    eap_type: ClassVar[EapType] = EapType.TLS

    def __init__(
        self,
        endpoint: Endpoint,
        identity: bytes,
        *,
        sessions: SessionCache | None = None,
        fragment: int = FRAGMENT_OCTETS,
    ) -> None:
        if endpoint.own is None:
            raise ConfigError("EAP-TLS without a certificate of ours", expected="a client certificate and its key")
        super().__init__(endpoint, identity, sessions=sessions, fragment=fragment)

    def failure_reason(self) -> IkewayError | None:
        """With TLS 1.3 a client has ended its handshake before its certificate was seen by anybody."""
        return super().failure_reason() or TlsFailed(
            "the server refused the log-in by EAP-TLS after it had seen our certificate",
            expected="EAP-Success",
            got="EAP-Failure",
            remedy="see the server's log: does it trust the CA of our certificate, and know its owner?",
        )

    def _opened(self, channel: Channel, keys: TunnelKeys) -> None:
        self.msk = keys.msk
        self.may_succeed = not channel.is_tls13

    async def _tunnelled(self, channel: Channel, plaintext: bytes, ask: Ask) -> None:
        if not plaintext:
            return
        if plaintext != COMMITMENT or self.may_succeed:
            raise TlsFailed(
                "the server speaks where nothing is to be said", expected="one octet 0x00, once", side=Side.PEER
            )
        self.may_succeed = True


class EapTlsAuthenticator(TlsAuthenticator):
    """The server's side: clients are judged by the endpoint's trust."""

    type: ClassVar[MethodType] = _TYPE
    name: ClassVar[str] = "EAP-TLS"
    eap_type: ClassVar[EapType] = EapType.TLS
    speaks_first: ClassVar[bool] = True

    def __init__(self, endpoint: Endpoint, *, fragment: int = FRAGMENT_OCTETS) -> None:
        if endpoint.trust is None:
            raise ConfigError("EAP-TLS without a CA for clients", expected="the CA that issues client certificates")
        super().__init__(endpoint, fragment=fragment)

    async def _opened(self, channel: Channel, keys: TunnelKeys, identity: bytes, ask: Ask) -> None:
        trust = self._endpoint.trust
        assert trust is not None
        self.identity = trust.name(channel.peer_chain[0], identity)
        self.msk = keys.msk
        if channel.is_tls13:
            channel.write(COMMITMENT)
        self._done = True

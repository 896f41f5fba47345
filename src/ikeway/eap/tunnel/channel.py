"""TLS on octets: a thin wall around pyOpenSSL, for both ends. Nothing here touches a socket.

Theory of operation. An `Endpoint` is made once for a configuration; it holds OpenSSL's context, in which the ticket keys
and our certificate live. `open` makes a `Channel` for one log-in. Octets go in by `feed`, come out by `output`; plaintext
comes out by `read` and goes in by `write`.

Certificates are judged by our own rules (`PeerTrust`), not by OpenSSL's: its verdicts are passed over, the chain that it
found is collected, and when it comes to the end entity, the last one, ours falls. That is before OpenSSL makes the
messages that answer the certificate, so nothing of ours (certificate, password) reaches a peer that is not who it
should be. OpenSSL then makes the alert. A session that is resumed brings no certificates; the ones that the session
began with are judged again. Where the log-in was in the tunnel, a server's session stands for it only as long as who was
asked says so, which is settled between the client's first message and the answer to it.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from ikeway.eap.errors import TlsFailed
from ikeway.eap.tunnel.alerts import explain
from ikeway.eap.tunnel.framing import MAX_MESSAGE
from ikeway.eap.tunnel.sessions import ProvenLogins
from ikeway.eap.tunnel.trust import PeerTrust, TlsIdentity
from ikeway.errors import ConfigError, IkewayError, Side

if TYPE_CHECKING:
    from cryptography import x509
    from OpenSSL import SSL, crypto

MAX_RECORDS = 256  # in one message: with application data, or read from the peer
MAX_TOTAL = 4 * MAX_MESSAGE  # octets from the peer in one log-in
MAX_DEPTH = 9
TICKET_SECONDS = 3600
# With TLS 1.3, in the tunnel: the server has accepted the peer, and says no more (RFC 9190 section 2.5).
COMMITMENT = b"\0"
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES:DHE+AES:!aNULL:!eNULL:!PSK:!SRP:!aDSS"
# Servers without RFC 5746 (strongSwan's own TLS) are taken. What it protects is a renegotiation that joins words of somebody
# else to ours; keys and inner proofs are then those of the last handshake, and who sits between has no part in them.
_LEGACY_SERVER_CONNECT = 0x4  # SSL_OP_LEGACY_SERVER_CONNECT, for which pyOpenSSL has no name
_MAX_NAMED_CAS = 16  # of those we trust, told to clients; an operating system's hundred would fill many packets


class TlsVersion(enum.IntEnum):
    """ProtocolVersion as TLS writes it."""

    TLS_1_2 = 0x0303
    TLS_1_3 = 0x0304


class Endpoint:
    """One end of TLS as it is configured. `trust` None at a server: clients need no certificate.

    `resume`: a server hands out tickets, and takes them as long as the certificate of the client is still good, or, where
    clients need none, the log-in is in `logins`.
    """

    def __init__(
        self,
        *,
        is_server: bool,
        trust: PeerTrust | None,
        own: TlsIdentity | None = None,
        minimum: TlsVersion = TlsVersion.TLS_1_2,
        maximum: TlsVersion = TlsVersion.TLS_1_3,
        resume: bool = True,
        logins: ProvenLogins | None = None,
    ) -> None:
        if is_server and own is None:
            raise ConfigError("an EAP server on TLS without a certificate", expected="a certificate and its key")
        if not is_server and trust is None:
            raise ConfigError("an EAP method on TLS without a trusted CA", expected="the CA of the server")
        if minimum > maximum:
            raise ConfigError("the oldest version of TLS is newer than the newest", expected="1.2 up to 1.3")
        self.is_server, self.trust, self.own = is_server, trust, own
        self._versions = minimum, maximum
        self._resume = resume and (trust is not None or logins is not None)
        self.logins = logins if self._resume else None
        self._context: SSL.Context | None = None
        self._context_without_tickets: SSL.Context | None = None

    @property
    def resumes(self) -> bool:
        """True when sessions may be resumed."""
        return self._resume

    def trusts(self, chain: Sequence[x509.Certificate], when: datetime) -> bool:
        """True when the owner of these certificates would be let pass at that time."""
        try:
            if self.trust is not None:
                self.trust.judge(chain, when)
        except IkewayError:
            return False
        return self.trust is not None

    def open(self, when: datetime, session: SSL.Session | None = None) -> Channel:
        """TLS for one log-in at that time. `session`: one of `Channel.finish`, to be resumed by a client."""
        return Channel(self, self.context(), when, session)

    def context(self, *, tickets: bool = True) -> SSL.Context:
        """OpenSSL's context, made when it is wanted first. `tickets` False: one of a server that knows no sessions."""
        if not tickets:
            if self._context_without_tickets is None:
                self._context_without_tickets = self._make_context(tickets=False)
            return self._context_without_tickets
        if self._context is None:
            self._context = self._make_context(tickets=self._resume)
        return self._context

    def _make_context(self, *, tickets: bool) -> SSL.Context:
        from OpenSSL import SSL  # takes long to import: only those pay whose method it is

        context = SSL.Context(SSL.TLS_SERVER_METHOD if self.is_server else SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(self._versions[0])
        context.set_max_proto_version(self._versions[1])
        context.set_cipher_list(_CIPHERS)
        context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE)
        if not self.is_server:
            context.set_options(_LEGACY_SERVER_CONNECT)
        context.set_verify_depth(MAX_DEPTH)
        context.set_session_id(b"ikeway-eap")
        # Tickets of a server are kept by the client, sessions of a client by who asked for them. What is cached here, up to
        # OpenSSL's bound, is for clients of TLS 1.2 without tickets (wpa_supplicant).
        caches = self.is_server and tickets
        context.set_session_cache_mode(SSL.SESS_CACHE_SERVER if caches else SSL.SESS_CACHE_OFF)
        context.set_timeout(TICKET_SECONDS)
        if self.is_server and not tickets:
            context.set_options(SSL.OP_NO_TICKET)
        self._load_identity(context)
        self._load_anchors(context)
        return context

    def _load_identity(self, context: SSL.Context) -> None:
        from OpenSSL import SSL

        if self.own is None:
            return
        try:
            context.use_certificate(self.own.chain[0])
            for certificate in self.own.chain[1:]:
                context.add_extra_chain_cert(certificate)
            context.use_privatekey(self.own.private_key)
            context.check_privatekey()
        except (SSL.Error, TypeError) as error:
            raise ConfigError(
                f"TLS cannot use the certificate and its key: {', '.join(reasons_of(error)) or error}",
                expected="a certificate with its own RSA, ECDSA or Ed25519 key in this process",
            ) from error

    def _load_anchors(self, context: SSL.Context) -> None:
        """The anchors help OpenSSL to build the path that ours then judges."""
        from OpenSSL import crypto

        store = context.get_cert_store()
        anchors: Sequence[x509.Certificate] = self.trust.anchors if self.trust is not None else ()
        if store is None or not anchors:
            return
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        for anchor in anchors:
            store.add_cert(crypto.X509.from_cryptography(anchor))
        if self.is_server and len(anchors) <= _MAX_NAMED_CAS:
            for anchor in anchors:
                context.add_client_ca(anchor)


class Channel:
    """TLS of one log-in. Methods raise the IkewayError that ended it; `output` may then still have the alert."""

    def __init__(self, endpoint: Endpoint, context: SSL.Context, when: datetime, session: SSL.Session | None) -> None:
        self._endpoint, self._when = endpoint, when
        self._chain: dict[int, x509.Certificate] = {}
        self._judged: tuple[x509.Certificate, ...] = ()
        self._verdict: IkewayError | None = None
        self._plaintext = bytearray()
        self._total = 0
        self.established = False
        self.resumed = False
        self.has_spoken = False
        self._hello = b""  # what came before
        self._connection = self._connect(context)
        if endpoint.is_server:
            self._connection.set_accept_state()
            return
        self._connection.set_connect_state()
        if session is not None:
            self._connection.set_session(session)
        self._advance()

    def _connect(self, context: SSL.Context) -> SSL.Connection:
        from OpenSSL import SSL

        connection = SSL.Connection(context)
        mode = SSL.VERIFY_NONE
        if self._endpoint.trust is not None:
            mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        connection.set_verify(mode, self._collect)
        return connection

    @property
    def version(self) -> int:
        """A TlsVersion, once it is agreed on."""
        return self._connection.get_protocol_version()

    @property
    def is_tls13(self) -> bool:
        """True for TLS 1.3, which derives keys in another way (RFC 9190, RFC 9427)."""
        return self.version >= TlsVersion.TLS_1_3

    @property
    def peer_chain(self) -> tuple[x509.Certificate, ...]:
        """The certificates that the peer proved itself with, its own first; they were found good."""
        return self._judged

    def finish(self) -> SSL.Session | None:
        """End well, and return what a client may resume later. With TLS 1.3 not before the tickets have come."""
        from OpenSSL import SSL

        # The session of a connection that is dropped without an end is never resumed (OpenSSL's `ssl_clear_bad_session`),
        # as that of a client who did not get in should not be.
        self._connection.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)
        return self._connection.get_session()

    @property
    def session_digest(self) -> bytes | None:
        """What both log-ins of a session have in common at a server, to find the first one by; with TLS 1.3 each ticket is a
        session. None while there is none: before the end of the handshake, one that is there is resumed."""
        from OpenSSL import SSL

        try:
            secret = self._connection.master_key()
        except SSL.Error:
            return None
        return hashlib.sha256(b"ikeway session" + secret).digest() if secret else None

    def start_anew(self) -> None:
        """A server's, before it has answered: go on as if the client had no session, and give it none to resume."""
        self._connection = self._connect(self._endpoint.context(tickets=False))
        self._connection.set_accept_state()
        self._connection.bio_write(self._hello)
        self._advance()

    def export(self, label: bytes, length: int, context: bytes | None = None) -> bytes:
        """Key material of both ends (RFC 5705, RFC 8446 section 7.5)."""
        if not self.established:
            raise TlsFailed("keys asked for before TLS is up", side=Side.LOCAL)
        return self._connection.export_keying_material(label, length, context)

    def feed(self, octets: bytes) -> None:
        """Take what the peer sent, go on with the handshake, and decrypt."""
        self._total += len(octets)
        if self._total > MAX_TOTAL:
            raise TlsFailed("TLS does not come to an end", expected=f"at most {MAX_TOTAL} octets", side=Side.PEER)
        if octets:
            self._connection.bio_write(octets)
        if not self.has_spoken:
            self._hello += octets
        self._advance()
        if self.established and octets:
            self._decrypt()

    def read(self) -> bytes:
        """The plaintext that has come."""
        plaintext = bytes(self._plaintext)
        self._plaintext.clear()
        return plaintext

    def write(self, plaintext: bytes) -> None:
        """Encrypt for the peer; `output` then has it."""
        from OpenSSL import SSL

        try:
            self._connection.sendall(plaintext)
        except SSL.Error as error:
            raise self._explained(error) from error

    def close(self) -> None:
        """Say that nothing more comes from here (close_notify)."""
        from OpenSSL import SSL

        try:
            self._connection.shutdown()
        except SSL.Error:
            pass  # it is closed already

    def output(self) -> bytes:
        """What is to be sent to the peer."""
        from OpenSSL import SSL

        octets = bytearray()
        while True:
            try:
                octets += self._connection.bio_read(MAX_MESSAGE)
            except SSL.WantReadError:
                self.has_spoken = self.has_spoken or bool(octets)
                return bytes(octets)

    def _advance(self) -> None:
        from OpenSSL import SSL

        if self.established:
            return
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return
        except SSL.Error as error:
            raise self._explained(error) from error
        self._finish()

    def _finish(self) -> None:
        """The handshake is over: was there a verdict about the peer?"""
        trust = self._endpoint.trust
        if trust is not None and not self._judged:
            self._judge_resumed(trust)
        self.established = True

    def _judge_resumed(self, trust: PeerTrust) -> None:
        certificate = self._connection.get_peer_certificate(as_cryptography=True)
        if certificate is None or not self._endpoint.resumes:
            raise TlsFailed("the other end proved itself by no certificate", expected="a certificate", side=Side.PEER)
        others = self._connection.get_peer_cert_chain(as_cryptography=True) or []
        chain = (certificate, *(other for other in others if other != certificate))
        trust.judge(chain, self._when)
        self._judged, self.resumed = chain, True

    def _collect(self, _connection: object, certificate: object, _error: int, depth: int, fine: int) -> bool:
        """OpenSSL's call for each certificate of the chain and each complaint; the end entity comes last."""
        from OpenSSL import crypto

        assert isinstance(certificate, crypto.X509)
        try:
            self._chain[depth] = _readable(certificate)
            if depth == 0 and fine:
                self._judge(tuple(self._chain[index] for index in sorted(self._chain)))
        except IkewayError as error:
            self._verdict = error
            return False
        except ValueError as error:
            self._verdict = TlsFailed(f"the certificate of the other end cannot be judged: {error}", side=Side.PEER)
            return False
        return True

    def _judge(self, chain: tuple[x509.Certificate, ...]) -> None:
        trust = self._endpoint.trust
        assert trust is not None
        trust.judge(chain, self._when)
        self._judged = chain

    def _decrypt(self) -> None:
        from OpenSSL import SSL

        for _ in range(MAX_RECORDS):
            try:
                self._plaintext += self._connection.recv(16384)
            except SSL.WantReadError:
                return
            except SSL.ZeroReturnError as error:
                raise TlsFailed("the other end closed the tunnel", expected="the log-in to go on") from error
            except SSL.Error as error:
                raise self._explained(error) from error
        raise TlsFailed("too many records in one message", expected=f"at most {MAX_RECORDS}", side=Side.PEER)

    def _explained(self, error: Exception) -> IkewayError:
        if self._verdict is not None:
            return self._verdict
        own = "the server's certificate" if self._endpoint.is_server else "the client's certificate"
        return explain(reasons_of(error), own=own)


def _readable(found: crypto.X509) -> x509.Certificate:
    """The certificate, every part of which was looked at: the library decodes most of them late. Raises TlsFailed."""
    try:
        certificate = found.to_cryptography()
        certificate.subject.public_bytes()
        certificate.issuer.public_bytes()
        _ = certificate.extensions, certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except Exception as error:  # what it has against one has no common type
        what = f"the other end sent a certificate that cannot be read: {error}"
        raise TlsFailed(what, side=Side.PEER, remedy="have it issued anew") from error
    return certificate


def reasons_of(error: Exception) -> list[str]:
    """The words of OpenSSL's error queue, the oldest first."""
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    found = [str(entry[2]) for entry in queue if isinstance(entry, tuple) and len(entry) == 3 and entry[2]]
    return found or [str(argument) for argument in error.args if isinstance(argument, str) and argument]

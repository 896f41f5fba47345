"""AnyConnect-EAP, the gateway's side: see `peer` for the diagram.

How a genuine gateway words its documents is known from one emulation and from the SSL variant of the protocol; whether
the genuine client is content with these is not known (docs/anyconnect.md).
"""

from __future__ import annotations

import hmac
from collections.abc import AsyncGenerator, Callable
from typing import ClassVar

from cryptography import x509

from ikeway.auth.parse import UNREADABLE, load_certificate
from ikeway.dialects.anyconnect import binding, pkcs7
from ikeway.dialects.anyconnect.document import Element, element
from ikeway.dialects.anyconnect.messages import (
    Choice,
    FromClient,
    FromGateway,
    HostScan,
    Input,
    Kind,
    decode_client,
    encode_gateway,
)
from ikeway.dialects.anyconnect.options import METHOD, GatewayOptions
from ikeway.dialects.anyconnect.packet import Tlv, TlvType, decode, encode, value_of
from ikeway.dialects.anyconnect.peer import GROUP
from ikeway.eap.errors import EapFailed, MalformedEap, wrong_password
from ikeway.eap.method import EapAuthenticatorMethod
from ikeway.eap.packet import MethodType
from ikeway.eap.questions import Granted, IkeBindingQuestion, PasswordCheck, Prompt, Refused, Verdict, Wanted
from ikeway.eap.session import MAX_IDENTITY
from ikeway.eap.tunnel.trust import PeerTrust
from ikeway.errors import ConfigError, IkewayError, Side
from ikeway.questions import Ask, CurrentTime

MAX_FORMS = 12
_TOKEN_OCTETS = 12

Random = Callable[[int], bytes]


class AnyConnectAuthenticator(EapAuthenticatorMethod):
    """See `peer`. `trust` judges clients' certificates, where `GatewayOptions.certificate` demands them."""

    type: ClassVar[MethodType] = METHOD
    name: ClassVar[str] = "AnyConnect-EAP"

    def __init__(self, options: GatewayOptions, random: Random, trust: PeerTrust | None = None) -> None:
        if options.certificate and trust is None:
            raise ConfigError("AnyConnect by certificate without a CA for clients", expected="the CA that issues them")
        if not (options.certificate or options.password):
            raise ConfigError("AnyConnect-EAP with nothing to prove", expected="a password, a certificate or both")
        self.type = options.method  # type: ignore[misc]  # a setting: its octets are not certain
        self._options = options
        self._random = random
        self._trust = trust
        self._opaque: Element | None = None

    async def run(self, identity: bytes, ask: Ask) -> AsyncGenerator[bytes, bytes]:
        """Hello, the proofs that the options demand, and good-bye."""
        options = self._options
        init = self._client((yield _packet(FromGateway(Kind.HELLO))), Kind.INIT)
        group = self._group(init.group_select or init.group_access)
        certificate: x509.Certificate | None = None
        if options.certificate:
            request = FromGateway(Kind.AUTH_REQUEST, wants_certificate=True, csport=str(options.csport))
            certificate = await self._prove_certificate((yield _packet(request)), ask)
            self.identity = self._name(certificate, b"")
        if options.password:
            state: _Form = _Form(self._inputs(group), options.message)
            self.doubt = _left("at the form", "user name and password, and a group where there are some")
            for _ in range(MAX_FORMS):
                reply = self._client((yield _packet(self._form(state))), Kind.AUTH_REPLY)
                following = await self._judge(state, reply, certificate, ask)
                if following is None:
                    self.doubt = None
                    break
                state = following
            else:
                raise EapFailed("the log-in asks without an end", expected=f"at most {MAX_FORMS} forms")
        if options.host_scan:
            scan = HostScan(self._token(), self._token(), "/CACHE", "/+CSCOE+/sdesktop/wait.html")
            request = FromGateway(
                Kind.AUTH_REQUEST, self._opaque, is_authenticated=True, host_scan=scan, csport=str(options.csport)
            )
            self.doubt = _left("when its host was to be examined (`host_scan`)", "what it found")
            self._check_scan(scan, self._client((yield _packet(request)), Kind.AUTH_REPLY))
            self.doubt = None
        session = str(int.from_bytes(self._random(4)))
        done = FromGateway(
            Kind.COMPLETE,
            csport=str(options.csport),
            session_id=session,
            session_token=self._session_token(session),
            server_cert_hash=options.server_cert_hash,
        )
        self._client((yield _packet(done)), Kind.ACK)

    # --- documents --------------------------------------------------------------------------------------------------

    @staticmethod
    def _client(response: bytes, expected: Kind) -> FromClient:
        xml = value_of(decode(response), TlvType.XML)
        if xml is None:
            raise MalformedEap("an AnyConnect-EAP response without XML", expected="TLV 0")
        said = decode_client(xml)
        if said.kind is not expected:
            raise MalformedEap("the client's document does not answer ours", expected=expected, got=said.kind)
        return said

    def _token(self) -> str:
        return self._random(_TOKEN_OCTETS).hex().upper()

    def _session_token(self, session: str) -> str:
        first, middle, last = (self._random(octets).hex() for octets in (3, 2, 20))
        return f"{first}@{session}@{middle}@{last}".upper()

    def _group(self, wanted: str) -> str:
        """The group that the client says; the first one where it says none that there is."""
        groups = self._options.groups
        self._opaque = element(
            "opaque",
            element("tunnel-group", wanted if wanted in groups else (groups[0] if groups else "")),
            element("config-hash", self._token()),
            is_for="sg",
        )
        return wanted if wanted in groups else ""

    # --- the certificate --------------------------------------------------------------------------------------------

    async def _prove_certificate(self, response: bytes, ask: Ask) -> x509.Certificate:
        tlvs = decode(response)
        said = self._client(response, Kind.INIT)
        bundle, signature = value_of(tlvs, TlvType.CERTIFICATES), value_of(tlvs, TlvType.SIGNATURE)
        if bundle is None or signature is None:
            why = "says that it has none" if said.has_no_certificate else "sent none, or no signature by its key"
            raise EapFailed(
                f"a certificate was asked for, and the client {why}",
                expected="a certificate and a signature",
                side=Side.PEER,
                remedy="give the client a certificate, or let this connection ask for passwords alone",
            )
        try:
            chain = tuple(load_certificate(octets) for octets in pkcs7.decode(bundle))
        except UNREADABLE as error:
            raise MalformedEap(f"the client sent a certificate that cannot be read: {error}") from error
        assert self._trust is not None
        self._trust.judge(chain, await ask(CurrentTime()))
        binding.check(chain[0].public_key(), await ask(IkeBindingQuestion()), signature, self._options.signature_hash)
        return chain[0]

    def _name(self, certificate: x509.Certificate, claimed: bytes) -> bytes:
        assert self._trust is not None
        return self._trust.name(certificate, claimed)

    # --- the form ---------------------------------------------------------------------------------------------------

    def _inputs(self, group: str) -> tuple[Input, ...]:
        options = self._options
        inputs = [Input("text", "username", "Username:"), Input("password", "password", "Password:")]
        if options.second_password:
            inputs.append(Input("password", "secondary_password", "Second Password:"))
        if options.groups:
            chosen = group or options.groups[0]
            choices = tuple(Choice(each, each, each == chosen) for each in options.groups)
            inputs.append(Input("select", GROUP, "GROUP:", choices=choices))
        return tuple(inputs)

    def _form(self, state: _Form) -> FromGateway:
        return FromGateway(
            Kind.AUTH_REQUEST, self._opaque, state.message, form=state.inputs, csport=str(self._options.csport)
        )

    async def _judge(
        self, state: _Form, reply: FromClient, certificate: x509.Certificate | None, ask: Ask
    ) -> _Form | None:
        """What is to be asked next; None when the user is who he says. Raises EapFailed."""
        user = state.user or (reply.answer("username") or "").encode()
        if not user or len(user) > MAX_IDENTITY:
            return self._again(state, user, "no user name")
        if self._options.groups and not state.user and reply.group_select not in self._options.groups:
            return self._again(state, user, f"no such group: {reply.group_select[:60]!r}")
        if certificate is not None and self._options.same_user and self._name(certificate, user) != user:
            return self._again(state, user, "the certificate is of somebody else")
        wanted = state.wanted
        password = (reply.answer("password") or "").encode()
        verdict = await ask(PasswordCheck(user, password, self.name, wanted, state=state.state))
        if not state.user and self._options.second_password and not isinstance(verdict, Refused):
            second = (reply.answer("secondary_password") or "").encode()
            proven = verdict.state if isinstance(verdict, Prompt) else None
            wanted = Wanted.CODE
            verdict = await ask(PasswordCheck(user, second, self.name, wanted, state=proven))
        return self._after(state, user, wanted, verdict)

    def _after(self, state: _Form, user: bytes, wanted: Wanted, verdict: Verdict) -> _Form | None:
        if isinstance(verdict, Granted):
            self.identity = user
            return None
        if isinstance(verdict, Prompt):
            name = {Wanted.CODE: "answer", Wanted.NEW_PASSWORD: "new_password"}.get(verdict.wanted, "password")
            field = Input("password", name, "Answer:")
            was_wrong = wanted is Wanted.CODE  # a right one asks for no more
            asked = verdict.wanted.value
            self.doubt = (
                wrong_password(user, asked) if was_wrong else _left(f"when the {asked} was asked for", f"the {asked}")
            )
            return _Form((field,), verdict.words, user, verdict.wanted, verdict.state, state.tries)
        return self._again(state, user, verdict.reason)

    def _again(self, state: _Form, user: bytes, why: str) -> _Form:
        """The form once more; it never says what was wrong with the answer."""
        error: IkewayError = wrong_password(user, reason=why)
        self.doubt = error
        if state.tries + 1 >= self._options.attempts:
            raise error
        return _Form(self._inputs(""), "Login failed.", tries=state.tries + 1)

    # --- the host ---------------------------------------------------------------------------------------------------

    @staticmethod
    def _check_scan(scan: HostScan, reply: FromClient) -> None:
        if not hmac.compare_digest(reply.host_scan_token.encode(), scan.token.encode()):
            raise EapFailed(
                "the client answered the examination of its host with another token",
                expected="the token that it was given",
                side=Side.PEER,
            )


def _left(where: str, expected: str) -> EapFailed:
    """What is to be said should the client leave now."""
    remedy = "see on the client what it could not answer, or do not ask for it here"
    return EapFailed(f"the client left {where}", expected=expected, side=Side.BOTH, remedy=remedy)


class _Form:
    """A form that is being filled in, and what is known already."""

    __slots__ = ("inputs", "message", "state", "tries", "user", "wanted")

    def __init__(
        self,
        inputs: tuple[Input, ...],
        message: str,
        user: bytes = b"",
        wanted: Wanted = Wanted.PASSWORD,
        state: object = None,
        tries: int = 0,
    ) -> None:
        self.inputs = inputs
        self.message = message
        self.user = user  # empty: asked for in the form
        self.wanted = wanted
        self.state = state
        self.tries = tries


def _packet(said: FromGateway) -> bytes:
    return encode((Tlv(TlvType.XML, encode_gateway(said)),))

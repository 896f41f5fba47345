"""AnyConnect-EAP, the client's side.

    client                                   gateway
            <-- hello
    init -->
            <-- auth-request                 (asks for the certificate, or has a form, or wants the host examined)
    init with certificate and signature, or auth-reply -->
            <-- auth-request                 (as often as there is more to ask)
            <-- complete
    ack -->
            <-- EAP-Success

The method gives no key: AUTH after it is made with SK_p. So all rests on the gateway's own certificate, which IKE_AUTH has
checked before the first of these documents is answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from typing import ClassVar

from cryptography.hazmat.primitives.serialization import Encoding

from ikeway.auth.certificate import CertificateCredential
from ikeway.dialects.anyconnect import binding, pkcs7
from ikeway.dialects.anyconnect.messages import FromClient, FromGateway, Input, Kind, decode_gateway, encode_client
from ikeway.dialects.anyconnect.options import METHOD, ClientOptions
from ikeway.dialects.anyconnect.packet import Tlv, TlvType, decode, encode, value_of
from ikeway.eap.errors import EapFailed, MalformedEap, WrongPassword, no_answer
from ikeway.eap.method import EapPeerMethod
from ikeway.eap.packet import MethodType
from ikeway.eap.questions import IkeBindingQuestion, PasswordQuestion, Wanted
from ikeway.errors import IkewayError, Side
from ikeway.questions import Ask

MAX_STEPS = 20
GROUP = "group_list"
# What an input of this name asks for, and under which name it is answered (None: not at all), as openconnect has it.
_PASSWORDS: dict[str, tuple[Wanted, str]] = {
    "password": (Wanted.PASSWORD, "password"),
    "secondary_password": (Wanted.CODE, "secondary_password"),
    "answer": (Wanted.CODE, "password"),
    "whichpin": (Wanted.CODE, "password"),
    "new_password": (Wanted.NEW_PASSWORD, "password"),
}
_REPEATED = frozenset({"verify_pin", "verify_password"})


class HostScanDemanded(EapFailed):
    """The gateway wants to examine this host before it lets it in."""

    default_side = Side.BOTH


class AnyConnectPeer(EapPeerMethod):
    """See the module. `credential`: our certificate, for a gateway that asks for it."""

    type: ClassVar[MethodType] = METHOD
    name: ClassVar[str] = "AnyConnect-EAP"

    def __init__(
        self, options: ClientOptions, username: str = "", credential: CertificateCredential | None = None
    ) -> None:
        self.type = options.method  # type: ignore[misc]  # a setting: its octets are not certain
        self._options = options
        self._username = username
        self._credential = credential
        self._attempts: Counter[Wanted] = Counter()
        self._given: dict[str, str] = {}  # by wanted and words: not sent twice
        self._sent_certificate = False
        self._sent_token = False

    def failure_reason(self) -> IkewayError | None:
        """What we said last was not right."""
        if self._sent_token:
            return EapFailed(
                "the gateway did not take the answer to its examination of this host (HostScan)",
                expected="a token that it takes",
                got="EAP-Failure",
                side=Side.BOTH,
                remedy="correct `host_scan` in [gateway.anyconnect], or have it switched off for this group",
            )
        if self._attempts:
            return WrongPassword(
                "the gateway refused user name, password or code",
                expected="the right ones",
                got="EAP-Failure",
                remedy="check `username` and `password`, and the group",
            )
        if self._sent_certificate:
            return EapFailed(
                "the gateway refused our certificate, or the signature by its key",
                got="EAP-Failure",
                side=Side.BOTH,
                remedy="see the gateway's log; `signature_hash` may be another one there",
            )
        return None

    async def run(self, request: bytes, ask: Ask) -> AsyncGenerator[bytes, bytes]:
        """Answer documents until `complete`."""
        for _ in range(MAX_STEPS):
            said = self._read(request)
            if said.kind is Kind.COMPLETE:
                self.may_succeed = True
                yield _packet(self._document(Kind.ACK))
                return
            request = yield await self._answer(said, ask)
        raise EapFailed("the gateway asks without an end", side=Side.PEER, remedy="look into the gateway's log")

    @staticmethod
    def _read(request: bytes) -> FromGateway:
        xml = value_of(decode(request), TlvType.XML)
        if xml is None:
            raise MalformedEap("an AnyConnect-EAP request without XML", expected="TLV 0")
        said = decode_gateway(xml)
        if said.error:
            raise EapFailed(
                f"the gateway ends the log-in: {said.error}", side=Side.BOTH, remedy="see the gateway's log"
            )
        return said

    async def _answer(self, said: FromGateway, ask: Ask) -> bytes:
        if said.kind is Kind.HELLO:
            return _packet(self._init(said))
        if said.wants_certificate:
            return await self._certificate(said, ask)
        answers, group = await self._fill(said, ask)
        reply = FromClient(
            Kind.AUTH_REPLY,
            self._options.device,
            said.opaque,
            group_select=group,
            answers=answers,
            host_scan_token=self._host_scan_token(said),
        )
        return _packet(encode_client(reply))

    def _document(self, kind: Kind) -> bytes:
        return encode_client(FromClient(kind, self._options.device))

    def _init(self, said: FromGateway, *, has_no_certificate: bool = False) -> bytes:
        return encode_client(
            FromClient(
                Kind.INIT,
                self._options.device,
                said.opaque,
                group_access=self._options.group,
                capabilities=self._options.capabilities,
                has_no_certificate=has_no_certificate,
            )
        )

    async def _certificate(self, said: FromGateway, ask: Ask) -> bytes:
        credential = self._credential
        if self._sent_certificate:
            raise EapFailed(
                "the gateway asks for a certificate once more: it did not take ours",
                side=Side.BOTH,
                remedy="see which authorities the gateway trusts; name a `certificate` of one of them",
            )
        self._sent_certificate = True
        if credential is None:
            return _packet(self._init(said, has_no_certificate=True))
        signature = binding.sign(credential, await ask(IkeBindingQuestion()), self._options.signature_hash)
        # The authority's own certificate, too, where it is there: the known client sends it, which IKE's CERT does not.
        certificates = pkcs7.encode(each.public_bytes(Encoding.DER) for each in credential.chain)
        return encode(
            (
                Tlv(TlvType.CERTIFICATES, certificates),
                Tlv(TlvType.SIGNATURE, signature),
                Tlv(TlvType.XML, self._init(said)),
            )
        )

    def _host_scan_token(self, said: FromGateway) -> str:
        if said.host_scan is None:
            return ""
        if not self._options.host_scan:
            raise HostScanDemanded(
                "the gateway wants to examine this host (HostScan) before it lets it in, and that is not done here",
                expected="a gateway that does not ask for it, or a token that it takes",
                got="<host-scan>",
                remedy="have it switched off for this group, or set `host_scan` in [gateway.anyconnect]",
            )
        self._sent_token = True
        return said.host_scan.token if self._options.host_scan == "echo" else self._options.host_scan

    # --- forms ------------------------------------------------------------------------------------------------------

    async def _fill(self, said: FromGateway, ask: Ask) -> tuple[tuple[tuple[str, str], ...], str]:
        """What goes into <auth>, and the group to select."""
        answers: list[tuple[str, str]] = []
        group = ""
        for field in said.form or ():
            if field.name == GROUP:
                group = self._choose_group(field)
            elif field.name in _REPEATED or field.type in ("submit", "reset"):
                continue
            else:
                name, value = await self._fill_one(field, said.message, ask)
                answers.append((name, value))
        return tuple(answers), group

    async def _fill_one(self, field: Input, message: str, ask: Ask) -> tuple[str, str]:
        if field.type == "hidden":
            return field.name, field.value
        if field.type == "select":
            chosen = next((choice for choice in field.choices if choice.selected), None)
            chosen = chosen or (field.choices[0] if field.choices else None)
            return field.name, chosen.value if chosen is not None else ""
        if field.type == "text" and field.name in ("username", "secondary_username"):
            second = self._options.second_username if field.name != "username" else ""
            return field.name, second or self._user(field)
        wanted, name = _PASSWORDS.get(field.name, (Wanted.CODE, field.name))
        return name, await self._ask(wanted, field, message, ask)

    def _user(self, field: Input) -> str:
        if not self._username:
            raise EapFailed(
                "the gateway asks for a user name, and there is none",
                expected=field.label or field.name,
                side=Side.LOCAL,
                remedy="add `username` to [login]",
            )
        return self._username

    async def _ask(self, wanted: Wanted, field: Input, message: str, ask: Ask) -> str:
        self._attempts[wanted] += 1
        label = field.label.rstrip(": ")
        words = label if wanted is Wanted.PASSWORD else ": ".join(filter(None, (message, label)))
        question = PasswordQuestion(self._username.encode(), "", words, self.name, self._attempts[wanted], wanted)
        answer = await ask(question)
        if not answer:
            raise no_answer(wanted.value, self._username.encode())
        if wanted is Wanted.PASSWORD and self._given.get(field.name) == answer:
            reason = self.failure_reason()
            assert reason is not None
            raise reason
        self._given[field.name] = answer
        return answer

    def _choose_group(self, field: Input) -> str:
        wanted, values = self._options.group, [choice.value for choice in field.choices]
        if wanted:
            known = next((each for each in field.choices if wanted in (each.value, each.label)), None)
            if known is None:
                raise EapFailed(
                    f"the gateway has no group {wanted!r}",
                    expected=", ".join(values)[:200],
                    got=wanted,
                    side=Side.LOCAL,
                    remedy="correct `group` in [gateway.anyconnect]",
                )
            return known.value
        if len(values) > 1:
            selected = next((choice.value for choice in field.choices if choice.selected), None)
            if selected is None:
                raise EapFailed(
                    "the gateway wants one of its groups to be chosen",
                    expected=", ".join(values)[:200],
                    side=Side.LOCAL,
                    remedy="write one of them as `group` in [gateway.anyconnect]",
                )
            return selected
        return values[0] if values else ""


def _packet(xml: bytes) -> bytes:
    return encode((Tlv(TlvType.XML, xml),))

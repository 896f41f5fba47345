"""EAP-MSCHAPv2, both roles (draft-kamath-pppext-eap-mschapv2 around RFC 2759).

peer                                     authenticator
        <-- Challenge (16 octets, its name)
Response (challenge, proof, name) -->
        <-- Success "S=proof M=text"  or  Failure "E=691 R=1 C=challenge V=3 M=text"
Success acknowledged -->                 or another Response (R=1), or Failure acknowledged
        <-- EAP-Success                  or EAP-Failure
"""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import ClassVar

from ikeway.eap.errors import (
    AccountRestricted,
    EapFailed,
    MalformedEap,
    PasswordExpired,
    ServerNotAuthentic,
    WrongPassword,
)
from ikeway.eap.method import EapAuthenticatorMethod, EapPeerMethod
from ikeway.eap.mschapv2_crypto import (
    MAX_PASSWORD,
    authenticator_response,
    bare_user_name,
    master_session_key,
    nt_password_hash,
    nt_response,
)
from ikeway.eap.packet import EapType, MethodType
from ikeway.eap.questions import MustChange, NtHash, PasswordQuestion, SecretQuestion
from ikeway.errors import IkewayError, Side
from ikeway.questions import Ask

Random = Callable[[int], bytes]

CHALLENGE, RESPONSE, SUCCESS, FAILURE, CHANGE_PASSWORD = 1, 2, 3, 4, 7
_CHALLENGE_OCTETS = 16
_RESPONSE_OCTETS = 49  # peer challenge 16, reserved 8, proof 24, flags 1
_MAX_NAME = 256
_TYPE = MethodType(0, EapType.MSCHAPV2)

ERROR_RESTRICTED_HOURS, ERROR_DISABLED, ERROR_EXPIRED, ERROR_NO_DIALIN = 646, 647, 648, 649
ERROR_AUTHENTICATION, ERROR_CHANGING_PASSWORD = 691, 709
_RESTRICTIONS = {
    ERROR_RESTRICTED_HOURS: "the account may not log in at this hour",
    ERROR_DISABLED: "the account is disabled",
    ERROR_NO_DIALIN: "the account has no permission to dial in",
    ERROR_CHANGING_PASSWORD: "the password could not be changed",
}


@dataclass(frozen=True, slots=True)
class Challenge:
    """The authenticator's first packet."""

    identifier: int
    value: bytes
    name: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """The peer's proof."""

    identifier: int
    peer_challenge: bytes
    proof: bytes
    name: bytes


@dataclass(frozen=True, slots=True)
class FailureReport:
    """The authenticator's "E=... R=... C=... V=... M=..." taken apart (RFC 2759 section 6)."""

    error: int
    retry: bool
    challenge: bytes | None
    message: str


def encode_packet(opcode: int, identifier: int, body: bytes) -> bytes:
    """Opcode, MS-CHAPv2-ID, MS-Length, body."""
    return bytes((opcode, identifier & 0xFF)) + (4 + len(body)).to_bytes(2) + body


def _decode_packet(octets: bytes, expected: int) -> tuple[int, bytes]:
    """Return MS-CHAPv2-ID and body of a packet with that opcode."""
    if len(octets) < 4 or octets[0] != expected:
        raise _malformed(f"opcode {expected} with a header", f"{octets[:4].hex() or 'nothing'}")
    length = int.from_bytes(octets[2:4])
    if not 4 <= length <= len(octets):
        raise _malformed(f"a length of 4 to {len(octets)}", f"{length}")
    return octets[1], octets[4:length]


def _malformed(expected: str, got: str) -> MalformedEap:
    return MalformedEap("an EAP-MSCHAPv2 packet that breaks the rules", expected=expected, got=got)


def _decode_value(body: bytes, size: int) -> tuple[bytes, bytes]:
    if len(body) < 1 + size or body[0] != size or len(body) > 1 + size + _MAX_NAME:
        raise _malformed(f"a value of {size} octets and a name of at most {_MAX_NAME}", f"{len(body)} octets")
    return body[1 : 1 + size], body[1 + size :]


def decode_challenge(octets: bytes) -> Challenge:
    """Decode a Challenge; raises MalformedEap."""
    identifier, body = _decode_packet(octets, CHALLENGE)
    return Challenge(identifier, *_decode_value(body, _CHALLENGE_OCTETS))


def decode_response(octets: bytes) -> Response:
    """Decode a Response; raises MalformedEap."""
    identifier, body = _decode_packet(octets, RESPONSE)
    value, name = _decode_value(body, _RESPONSE_OCTETS)
    return Response(identifier, value[:16], value[24:48], name)


def decode_failure(octets: bytes) -> tuple[int, FailureReport]:
    """Decode a Failure request; raises MalformedEap."""
    identifier, body = _decode_packet(octets, FAILURE)
    text = body[:1024].decode("utf-8", "replace")
    settings, _, message = text.partition("M=")
    fields = dict(re.findall(r"([ERCV])=([0-9A-Fa-f]{1,32})\b", settings))
    if not re.fullmatch(r"[0-9]{1,10}", fields.get("E", "")):
        raise _malformed("E=number", repr(text[:40]))
    challenge = fields.get("C", "")
    return identifier, FailureReport(
        int(fields["E"]),
        fields.get("R") == "1",
        bytes.fromhex(challenge) if len(challenge) == 32 else None,
        "".join(character for character in message.strip("\0 ") if character.isprintable())[:200],
    )


class MsChapV2Peer(EapPeerMethod):
    """The user's side. Without a password, or when the server lets us try again, a `PasswordQuestion` is asked."""

    type: ClassVar[MethodType] = _TYPE
    name: ClassVar[str] = "EAP-MSCHAPv2"
    # It proves the server too, but lets an impostor guess the password offline, which RFC 5998 section 3 rules out.
    mutual: ClassVar[bool] = False

    def __init__(self, user_name: bytes, password: str | None = None, *, random: Random = os.urandom) -> None:
        self._user_name = user_name
        self._password = password
        self._random = random
        self._error: IkewayError | None = None

    def failure_reason(self) -> IkewayError | None:
        """What the server's Failure packet said."""
        return self._error

    async def run(self, request: bytes, ask: Ask) -> AsyncGenerator[bytes, bytes]:
        """Answer the challenge, check the server's proof, or report its refusal."""
        challenge = decode_challenge(request)
        identifier, value, prompt = challenge.identifier, challenge.value, ""
        password = self._password
        if password is None:
            password = await self._ask_password(ask, challenge.name, prompt, 1)
        attempt = 1
        while True:
            user, peer_challenge = bare_user_name(self._user_name), self._random(16)
            secret = nt_password_hash(_checked(password))
            proof = nt_response(value, peer_challenge, user, secret)
            body = bytes((_RESPONSE_OCTETS,)) + peer_challenge + bytes(8) + proof + b"\0" + self._user_name
            request = yield encode_packet(RESPONSE, identifier, body)
            if request[:1] != bytes((FAILURE,)):
                break
            identifier, report = decode_failure(request)
            self._error = explain_failure(report)
            again = await self._another_password(ask, challenge.name, report, password, attempt + 1)
            if again is None or report.challenge is None:
                yield bytes((FAILURE,))
                raise self._error
            password, value, identifier, attempt = again, report.challenge, identifier + 1, attempt + 1
        self._check_server(request, authenticator_response(secret, proof, peer_challenge, value, user))
        self.msk = master_session_key(secret, proof)
        self._error, self.may_succeed = None, True
        yield bytes((SUCCESS,))

    async def _ask_password(self, ask: Ask, server: bytes, prompt: str, attempt: int) -> str:
        question = PasswordQuestion(self._user_name, server.decode("utf-8", "replace"), prompt, self.name, attempt)
        password = await ask(question)
        if password is None:
            raise EapFailed(
                "no password was given",
                expected=f"the password of {self._user_name.decode('utf-8', 'replace')}",
                side=Side.LOCAL,
                remedy="give the password when asked, or configure where it is kept",
            )
        return password

    async def _another_password(
        self, ask: Ask, server: bytes, report: FailureReport, wrong: str, attempt: int
    ) -> str | None:
        """Another password to try, when the server lets us and the user has one. Never the same twice."""
        if not report.retry or report.challenge is None or report.error != ERROR_AUTHENTICATION:
            return None
        prompt = report.message or "wrong user name or password"
        question = PasswordQuestion(self._user_name, server.decode("utf-8", "replace"), prompt, self.name, attempt)
        answer = await ask(question)
        return answer if answer != wrong else None

    @staticmethod
    def _check_server(request: bytes, expected: bytes) -> None:
        _, body = _decode_packet(request, SUCCESS)
        claimed = re.match(rb"S=([0-9A-Fa-f]{40})", body)
        if claimed is None:
            raise _malformed("S= and 40 hexadecimal digits", repr(body[:48]))
        if not hmac.compare_digest(bytes.fromhex(claimed[1].decode()), expected):
            raise ServerNotAuthentic(
                "the server does not know the password it accepted",
                expected="the server's proof (RFC 2759 section 8.7)",
                got="a wrong one",
                side=Side.PEER,
                remedy="treat it as an impostor and change the password",
            )


def _checked(password: str) -> str:
    if len(password) > MAX_PASSWORD:
        raise EapFailed(
            "the password is longer than MS-CHAPv2 allows",
            expected=f"at most {MAX_PASSWORD} characters",
            got=f"{len(password)}",
            side=Side.LOCAL,
            remedy="use a shorter password or another method",
        )
    return password


def explain_failure(report: FailureReport) -> IkewayError:
    """The error that a server's Failure stands for."""
    said = f"error {report.error}" + (f", {report.message!r}" if report.message else "")
    if report.error == ERROR_EXPIRED:
        return PasswordExpired(
            "the server accepts the password but wants it changed first",
            got=said,
            remedy="change the password on the server or in its directory, then log in again",
        )
    if report.error in _RESTRICTIONS:
        return AccountRestricted(
            _RESTRICTIONS[report.error], got=said, remedy="have the server's administrator permit the log-in"
        )
    if report.error == ERROR_AUTHENTICATION:
        return WrongPassword(
            "the server refused user name or password",
            expected="the right password",
            got=said,
            remedy="check user name (with or without a domain) and password",
        )
    return EapFailed("the server refused the log-in", got=said, side=Side.PEER, remedy="see the server's log")


@dataclass(slots=True)
class _Trial:
    """What one response was worth."""

    response: Response
    secret: bytes = field(repr=False)
    good: bool
    expired: bool


class MsChapV2Authenticator(EapAuthenticatorMethod):
    """The server's side; asks a `SecretQuestion`. `retries`: how often the user may try again without a new log-in."""

    type: ClassVar[MethodType] = _TYPE
    name: ClassVar[str] = "EAP-MSCHAPv2"
    mutual: ClassVar[bool] = False

    def __init__(self, server_name: bytes = b"ikeway", *, retries: int = 0, random: Random = os.urandom) -> None:
        self._server_name = server_name[:_MAX_NAME] or b"ikeway"  # some peers refuse a challenge without a name
        self._retries = retries
        self._random = random

    async def run(self, identity: bytes, ask: Ask) -> AsyncGenerator[bytes, bytes]:
        """Challenge, judge the response, prove that we know the password too."""
        identifier, challenge = self._random(1)[0], self._random(_CHALLENGE_OCTETS)
        body = bytes((_CHALLENGE_OCTETS,)) + challenge + self._server_name
        octets = yield encode_packet(CHALLENGE, identifier, body)
        trial = await self._judge(octets, challenge, ask)
        for left in range(self._retries, -1, -1):
            if trial.good:
                break
            identifier, challenge = identifier + 1, self._random(_CHALLENGE_OCTETS)
            text = f"E={ERROR_AUTHENTICATION} R={int(left > 0)} C={challenge.hex().upper()} V=3 M=Authentication failed"
            self.doubt = _wrong_password(trial.response.name)
            octets = yield encode_packet(FAILURE, identifier, text.encode())
            if left == 0 or octets[:1] == bytes((FAILURE,)):
                raise self.doubt
            trial = await self._judge(octets, challenge, ask)
        self.doubt = None
        if trial.expired:
            text = f"E={ERROR_EXPIRED} R=0 C={self._random(_CHALLENGE_OCTETS).hex().upper()} V=3 M=Password expired"
            yield encode_packet(FAILURE, identifier, text.encode())
            raise _expired(trial.response.name)
        response, user = trial.response, bare_user_name(trial.response.name)
        proof = authenticator_response(trial.secret, response.proof, response.peer_challenge, challenge, user)
        octets = yield encode_packet(SUCCESS, identifier, b"S=" + proof.hex().upper().encode() + b" M=Welcome")
        if octets[:1] != bytes((SUCCESS,)):
            raise EapFailed(
                "the client did not accept our proof that we know its password",
                expected="the Success acknowledged",
                got=f"opcode {octets[0] if octets else 'none'}",
                side=Side.BOTH,
                remedy="see the client's log; the passwords kept on the two sides may differ in characters",
            )
        self.identity, self.msk = response.name, master_session_key(trial.secret, response.proof)

    async def _judge(self, octets: bytes, challenge: bytes, ask: Ask) -> _Trial:
        """Check a response. An unknown user costs the same work as a known one."""
        response = decode_response(octets)
        answer = await ask(SecretQuestion(response.name, self.name))
        if expired := isinstance(answer, MustChange):
            answer = answer.secret
        if isinstance(answer, NtHash):
            secret = answer.value
        else:
            secret = self._random(16) if answer is None else nt_password_hash(answer)
        expected = nt_response(challenge, response.peer_challenge, bare_user_name(response.name), secret)
        good = hmac.compare_digest(expected, response.proof) and answer is not None
        return _Trial(response, secret, good, expired)


def _wrong_password(name: bytes) -> WrongPassword:
    return WrongPassword(
        f"wrong password, or no such user: {name.decode('utf-8', 'backslashreplace')!r}",
        expected="the password that is stored for the user",
        got="a proof made with another one",
        side=Side.PEER,
        remedy="check user name and password on the client; set a new password here if it is forgotten",
    )


def _expired(name: bytes) -> PasswordExpired:
    return PasswordExpired(
        f"the password of {name.decode('utf-8', 'backslashreplace')!r} is right, and has to be changed first",
        side=Side.LOCAL,
        remedy="set a new password here",
    )

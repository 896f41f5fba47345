"""EAP-MSCHAPv2, both roles (draft-kamath-pppext-eap-mschapv2 around RFC 2759).

peer                                     authenticator
        <-- Challenge (16 octets, its name)
Response (challenge, proof, name) -->
        <-- Success "S=proof M=text"  or  Failure "E=691 R=1 C=challenge V=3 M=text"
Success acknowledged -->                 or another Response (R=1), or Failure acknowledged
        <-- EAP-Success                  or EAP-Failure

A password that is right but has expired is changed on the way:

        <-- Failure "E=648 R=0 C=challenge V=3 M=text"
Change-Password (new password under the hash of the old one, challenge, proof) -->
        <-- Success "S=proof M=text"  or  Failure "E=709 ..."
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
    PasswordExpired,
    ServerNotAuthentic,
    WrongPassword,
    no_answer,
    password_expired,
    wrong_password,
)
from ikeway.eap.method import EapAuthenticatorMethod, EapPeerMethod
from ikeway.eap.mschapv2_crypto import (
    MAX_PASSWORD,
    authenticator_response,
    bare_user_name,
    decrypt_password,
    encrypt_hash,
    encrypt_password,
    master_session_key,
    nt_password_hash,
    nt_response,
)
from ikeway.eap.mschapv2_packets import (
    CHALLENGE,
    CHALLENGE_OCTETS,
    CHANGE_PASSWORD,
    ERROR_AUTHENTICATION,
    ERROR_CHANGING_PASSWORD,
    ERROR_DISABLED,
    ERROR_EXPIRED,
    ERROR_NO_DIALIN,
    ERROR_RESTRICTED_HOURS,
    FAILURE,
    MAX_NAME,
    SUCCESS,
    ChangePassword,
    FailureReport,
    Response,
    decode_challenge,
    decode_change,
    decode_failure,
    decode_packet,
    decode_response,
    encode_change,
    encode_failure,
    encode_packet,
    encode_response,
    malformed,
)
from ikeway.eap.packet import EapType, MethodType
from ikeway.eap.questions import (
    Granted,
    MustChange,
    NewPassword,
    NtHash,
    PasswordQuestion,
    SecretQuestion,
    Wanted,
)
from ikeway.eap.words import printable
from ikeway.errors import IkewayError, Side
from ikeway.questions import Ask

Random = Callable[[int], bytes]

_TYPE = MethodType(0, EapType.MSCHAPV2)
_RESTRICTIONS = {
    ERROR_RESTRICTED_HOURS: "the account may not log in at this hour",
    ERROR_DISABLED: "the account is disabled",
    ERROR_NO_DIALIN: "the account has no permission to dial in",
    ERROR_CHANGING_PASSWORD: "the password could not be changed",
}


class MsChapV2Peer(EapPeerMethod):
    """The user's side. Without a password, when the server lets us try again, or when it wants another password, a
    `PasswordQuestion` is asked."""

    type: ClassVar[MethodType] = _TYPE
    name: ClassVar[str] = "EAP-MSCHAPv2"
    # It proves the server too, but lets an impostor guess the password offline, which RFC 5998 section 3 rules out.
    mutual: ClassVar[bool] = False

    def __init__(self, user_name: bytes, password: str | None = None, *, random: Random = os.urandom) -> None:
        self._user_name = user_name
        self._bare_name = bare_user_name(user_name)
        self._password = password
        self._random = random
        self._server = ""
        self._error: IkewayError | None = None

    def failure_reason(self) -> IkewayError | None:
        """What the server's Failure packet said."""
        return self._error

    async def run(self, request: bytes, ask: Ask) -> AsyncGenerator[bytes, bytes]:
        """Answer the challenge, check the server's proof, or report its refusal."""
        challenge = decode_challenge(request)
        self._server = printable(challenge.name)
        identifier, value, attempt = challenge.identifier, challenge.value, 1
        password = self._password
        if password is None:
            password = await self._ask(ask, "", attempt)
        if password is None:
            raise no_answer("password", self._user_name)
        while True:
            secret, peer_challenge = nt_password_hash(_checked(password)), self._random(CHALLENGE_OCTETS)
            proof = nt_response(value, peer_challenge, self._bare_name, secret)
            request = yield encode_response(Response(identifier, peer_challenge, proof, self._user_name))
            if request[:1] != bytes((FAILURE,)):
                break
            identifier, report = decode_failure(request)
            self._error = explain_failure(report)
            again = await self._another_password(ask, report, password, attempt + 1)
            if again is None or report.challenge is None:
                yield bytes((FAILURE,))
                raise self._error
            value, identifier, attempt = report.challenge, identifier + 1, attempt + 1
            if report.error == ERROR_EXPIRED:
                old, secret, peer_challenge = secret, nt_password_hash(again), self._random(CHALLENGE_OCTETS)
                proof = nt_response(value, peer_challenge, self._bare_name, secret)
                encrypted = encrypt_password(again, old, self._random(2 * MAX_PASSWORD))
                change = ChangePassword(identifier, encrypted, encrypt_hash(old, secret), peer_challenge, proof)
                request = yield encode_change(change)
                break  # nothing may be tried again after that (RFC 2759 section 9.1)
            password = again
        if request[:1] == bytes((FAILURE,)):
            _, report = decode_failure(request)
            self._error = explain_failure(report)
            yield bytes((FAILURE,))
            raise self._error
        self._check_server(request, authenticator_response(secret, proof, peer_challenge, value, self._bare_name))
        self.msk = master_session_key(secret, proof)
        self._error, self.may_succeed = None, True
        yield bytes((SUCCESS,))

    async def _ask(self, ask: Ask, prompt: str, attempt: int, wanted: Wanted = Wanted.PASSWORD) -> str | None:
        return await ask(PasswordQuestion(self._user_name, self._server, prompt, self.name, attempt, wanted))

    async def _another_password(self, ask: Ask, report: FailureReport, wrong: str, attempt: int) -> str | None:
        """Another password to try, or the one that is to be in force from now on: when the server lets us and the user
        has one. Never the same twice."""
        if report.challenge is None:
            return None
        if report.error == ERROR_EXPIRED:
            answer = await self._ask(ask, report.message or "the password has expired", 1, Wanted.NEW_PASSWORD)
        elif report.retry and report.error == ERROR_AUTHENTICATION:
            answer = await self._ask(ask, report.message or "wrong user name or password", attempt)
        else:
            return None
        return _checked(answer) if answer is not None and answer != wrong else None

    @staticmethod
    def _check_server(request: bytes, expected: bytes) -> None:
        _, body = decode_packet(request, SUCCESS)
        claimed = re.match(rb"S=([0-9A-Fa-f]{40})", body)
        if claimed is None:
            raise malformed("S= and 40 hexadecimal digits", repr(body[:48]))
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
    """What one response was worth. `secret`: the NT hash that it was compared with, a random one of nobody."""

    response: Response
    secret: bytes = field(repr=False)
    good: bool
    expired: bool


def secret_of(stored: str | NtHash | None, random: Random) -> bytes:
    """The NT hash of what is stored for a user; a random one for nobody, at the same cost."""
    made = nt_password_hash(stored if isinstance(stored, str) else "nobody's password")
    if stored is None:
        return random(len(made))
    return stored.value if isinstance(stored, NtHash) else made


@dataclass(slots=True)
class _Proof:
    """What the server's own proof and the key are made of."""

    secret: bytes = field(repr=False)
    peer_challenge: bytes
    challenge: bytes
    response: bytes


class MsChapV2Authenticator(EapAuthenticatorMethod):
    """The server's side; asks a `SecretQuestion`, and `NewPassword` when the password must be changed. `retries`: how
    often the user may try again without a new log-in."""

    type: ClassVar[MethodType] = _TYPE
    name: ClassVar[str] = "EAP-MSCHAPv2"
    mutual: ClassVar[bool] = False

    def __init__(self, server_name: bytes = b"ikeway", *, retries: int = 0, random: Random = os.urandom) -> None:
        self._server_name = server_name[:MAX_NAME] or b"ikeway"  # some peers refuse a challenge without a name
        self._retries = retries
        self._random = random

    async def run(self, identity: bytes, ask: Ask) -> AsyncGenerator[bytes, bytes]:
        """Challenge, judge the response, prove that we know the password too."""
        identifier, challenge = self._random(1)[0], self._random(CHALLENGE_OCTETS)
        body = bytes((CHALLENGE_OCTETS,)) + challenge + self._server_name
        octets = yield encode_packet(CHALLENGE, identifier, body)
        trial = await self._judge(octets, challenge, ask)
        for left in range(self._retries, -1, -1):
            if trial.good:
                break
            self.doubt = wrong_password(trial.response.name)
            identifier, challenge = trial.response.identifier, self._random(CHALLENGE_OCTETS)
            report = FailureReport(ERROR_AUTHENTICATION, left > 0, challenge, "Authentication failed")
            octets = yield encode_failure(identifier, report)
            if left == 0 or octets[:1] == bytes((FAILURE,)):
                raise self.doubt
            trial = await self._judge(octets, challenge, ask)
        name, identifier = trial.response.name, trial.response.identifier
        proof = _Proof(trial.secret, trial.response.peer_challenge, challenge, trial.response.proof)
        if trial.expired:
            self.doubt = password_expired(name)
            challenge = self._random(CHALLENGE_OCTETS)
            octets = yield encode_failure(
                identifier, FailureReport(ERROR_EXPIRED, False, challenge, "Password expired")
            )
            if octets[:1] != bytes((CHANGE_PASSWORD,)):
                raise self.doubt
            change = decode_change(octets)
            changed, refusal = await self._change(change, challenge, trial, ask)
            if changed is None:
                self.doubt = _not_changed(name, refusal)
                report = FailureReport(ERROR_CHANGING_PASSWORD, False, self._random(CHALLENGE_OCTETS), "Not changed")
                yield encode_failure(change.identifier, report)
                raise self.doubt
            proof, identifier = changed, change.identifier
        self.doubt = None
        octets = yield encode_packet(SUCCESS, identifier, _server_proof(proof, bare_user_name(name)))
        if octets[:1] != bytes((SUCCESS,)):
            raise EapFailed(
                "the client did not accept our proof that we know its password",
                expected="the Success acknowledged",
                got=f"opcode {octets[0] if octets else 'none'}",
                side=Side.BOTH,
                remedy="see the client's log; the passwords kept on the two sides may differ in characters",
            )
        self.identity, self.msk = name, master_session_key(proof.secret, proof.response)

    async def _judge(self, octets: bytes, challenge: bytes, ask: Ask) -> _Trial:
        """Check a response. An unknown user costs the same work as a known one."""
        response = decode_response(octets)
        answer = await ask(SecretQuestion(response.name, self.name))
        if expired := isinstance(answer, MustChange):
            answer = answer.secret
        secret = secret_of(answer, self._random)
        expected = nt_response(challenge, response.peer_challenge, bare_user_name(response.name), secret)
        good = hmac.compare_digest(expected, response.proof) and answer is not None
        return _Trial(response, secret, good, expired)

    async def _change(
        self, change: ChangePassword, challenge: bytes, trial: _Trial, ask: Ask
    ) -> tuple[_Proof | None, str]:
        """Have the new password kept; None and why when it is not."""
        name, old = trial.response.name, trial.secret
        password = decrypt_password(change.encrypted_password, old)
        if password is None:
            return None, "it was not encrypted with the old one"
        new = nt_password_hash(password)
        proof = nt_response(challenge, change.peer_challenge, bare_user_name(name), new)
        # Both show that the new password arrived as it was meant, before it locks anybody out.
        if not hmac.compare_digest(encrypt_hash(old, new), change.encrypted_hash):
            return None, "it is not the one that the old one was encrypted with"
        if not hmac.compare_digest(proof, change.proof):
            return None, "it is not the one that the proof was made with"
        verdict = await ask(NewPassword(name, password, self.name, NtHash(old)))
        if not isinstance(verdict, Granted):
            return None, verdict.reason
        return _Proof(new, change.peer_challenge, challenge, proof), ""


def _server_proof(proof: _Proof, user: bytes) -> bytes:
    ours = authenticator_response(proof.secret, proof.response, proof.peer_challenge, proof.challenge, user)
    return b"S=" + ours.hex().upper().encode() + b" M=Welcome"


def _not_changed(name: bytes, reason: str) -> EapFailed:
    return EapFailed(
        f"{name.decode('utf-8', 'backslashreplace')!r} has to change the password, and could not",
        expected="a new password that can be kept",
        got=reason,
        side=Side.BOTH,
        remedy="let the user choose another one, or set one here",
    )

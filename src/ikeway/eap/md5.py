"""EAP-MD5, both roles (RFC 3748 section 5.4, RFC 1994).

peer                                     authenticator
        <-- challenge, name
MD5(identifier, password, challenge), name -->
        <-- EAP-Success                  or EAP-Failure

It proves no server and gives no key, and whoever sees it (the server, or one that passes for it) can guess the password
at leisure. It is here for peers that have nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import AsyncGenerator, Callable
from typing import ClassVar

from ikeway.eap.errors import MalformedEap, WrongPassword, no_answer, password_expired, wrong_password
from ikeway.eap.method import EapAuthenticatorMethod, EapPeerMethod
from ikeway.eap.packet import EapType, MethodType
from ikeway.eap.questions import MustChange, NtHash, PasswordQuestion, SecretQuestion
from ikeway.eap.words import printable
from ikeway.errors import ConfigError, IkewayError
from ikeway.questions import Ask

Random = Callable[[int], bytes]

_TYPE = MethodType(0, EapType.MD5_CHALLENGE)
_CHALLENGE_OCTETS = 16
_DIGEST_OCTETS = 16
_MAX_NAME = 256


def encode_value(value: bytes, name: bytes) -> bytes:
    """Value-Size, Value, Name (RFC 1994 section 4.1)."""
    return bytes((len(value),)) + value + name


def decode_value(octets: bytes) -> tuple[bytes, bytes]:
    """Value and name; raises MalformedEap."""
    if not octets or not 1 <= octets[0] < len(octets) or len(octets) > 1 + octets[0] + _MAX_NAME:
        raise MalformedEap(
            "an EAP-MD5 packet that breaks the rules",
            expected=f"a value of 1 to 255 octets and a name of at most {_MAX_NAME}",
            got=f"{octets[:1].hex() or 'nothing'}, {len(octets)} octets",
        )
    return octets[1 : 1 + octets[0]], octets[1 + octets[0] :]


def digest(identifier: int, password: bytes, challenge: bytes) -> bytes:
    """The answer to a challenge (RFC 1994 section 4.1): `identifier` is that of the EAP packet."""
    return hashlib.md5(bytes((identifier,)) + password + challenge, usedforsecurity=False).digest()


class Md5Peer(EapPeerMethod):
    """The user's side. Without a password a `PasswordQuestion` is asked."""

    type: ClassVar[MethodType] = _TYPE
    name: ClassVar[str] = "EAP-MD5"

    def __init__(self, user_name: bytes, password: str | None = None) -> None:
        self._user_name = user_name
        self._password = password

    def failure_reason(self) -> IkewayError | None:
        """EAP-Failure after the answer means one thing."""
        if not self.may_succeed:
            return None
        return WrongPassword(
            "the server refused user name or password",
            expected="the right password",
            got="EAP-Failure",
            remedy="check user name (with or without a domain) and password",
        )

    async def run(self, request: bytes, ask: Ask) -> AsyncGenerator[bytes, bytes]:
        """Answer the challenge."""
        challenge, server = decode_value(request)
        password = self._password
        if password is None:
            password = await ask(PasswordQuestion(self._user_name, printable(server), "", self.name))
        if password is None:
            raise no_answer("password", self._user_name)
        self.may_succeed = True
        yield encode_value(digest(self.identifier, password.encode(), challenge), self._user_name)


class Md5Authenticator(EapAuthenticatorMethod):
    """The server's side; asks a `SecretQuestion` for the password itself: an NT hash is of no use here."""

    type: ClassVar[MethodType] = _TYPE
    name: ClassVar[str] = "EAP-MD5"

    def __init__(self, server_name: bytes = b"ikeway", *, random: Random = os.urandom) -> None:
        self._server_name = server_name[:_MAX_NAME]
        self._random = random

    async def run(self, identity: bytes, ask: Ask) -> AsyncGenerator[bytes, bytes]:
        """Challenge, and judge the response. An unknown user costs the same work as a known one."""
        challenge = self._random(_CHALLENGE_OCTETS)
        value, _ = decode_value((yield encode_value(challenge, self._server_name)))
        answer = await ask(SecretQuestion(identity, self.name))
        secret = answer.secret if isinstance(answer, MustChange) else answer
        password = secret.encode() if isinstance(secret, str) else self._random(16)
        good = hmac.compare_digest(digest(self.identifier, password, challenge), value)
        if isinstance(secret, NtHash):
            raise _hash_only(identity)
        if not good or secret is None:
            raise wrong_password(identity)
        if isinstance(answer, MustChange):
            raise password_expired(identity)


def _hash_only(identity: bytes) -> ConfigError:
    return ConfigError(
        f"of {identity.decode('utf-8', 'backslashreplace')!r} only the NT hash of the password is kept",
        expected="the password itself, which EAP-MD5 cannot do without",
        remedy="store `password`, or use EAP-MSCHAPv2",
    )

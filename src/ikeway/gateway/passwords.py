"""What the gateway says of passwords and one-time codes: which one is stored, whether one is right, a new one kept.

A user who has a second factor (`totp`) gets in with the code behind the password, in one answer, or with the code when it
is asked for afterwards, where the method can ask. A method that only proves that it knows the password lets such a user
in nowhere: the code would be left out.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from ikeway.eap.mschapv2_crypto import nt_password_hash
from ikeway.eap.questions import (
    Granted,
    MustChange,
    NewPassword,
    NtHash,
    PasswordCheck,
    Prompt,
    Refused,
    ResumptionQuestion,
    SecretQuestion,
    Verdict,
    Wanted,
)
from ikeway.errors import IkewayError
from ikeway.gateway.users import User, UserStore
from ikeway.lasting import Lasting

log = logging.getLogger("ikeway.gateway")

WRONG_CODES = 3  # in one log-in
MIN_NEW_PASSWORD = 8  # characters
_USUAL_DIGITS = 6


@dataclass(frozen=True, slots=True)
class _Proven:
    """The password of this log-in was right; so many codes were wrong since."""

    wrong_codes: int = 0


def _now() -> datetime:
    return datetime.now(UTC)


class PasswordDesk:
    """Answers the authenticators' questions from the users. Outlives reloads: a code stays used."""

    def __init__(self, users: UserStore, now: Callable[[], datetime] = _now) -> None:
        self._users = users
        self._now = now
        self._used: dict[str, int] = {}  # user: the last period of which a code was taken
        self._said: set[tuple[str, str]] = set()
        self._mark_key = os.urandom(32)
        # Held while the users are read anew: a password that changed in between would be the old one again.
        self.standing_still = asyncio.Lock()
        self._changing = Lasting()

    def reload(self, users: UserStore) -> None:
        """Go on with other users."""
        self._users = users

    async def secret(self, question: SecretQuestion) -> str | NtHash | MustChange | None:
        """The password of a user; None when there is no such user, who must not learn that."""
        user = await self._find(question.identity)
        if user is None:
            return None
        if user.totp is not None and not question.code_follows:
            self._say_once(user.name, question.method)
            return None
        secret = NtHash(user.nt_hash) if user.nt_hash is not None else user.password
        return MustChange(secret) if user.must_change and secret is not None else secret

    async def check(self, question: PasswordCheck) -> Verdict:
        """Whether an answer that came in clear lets its user in, or what is to be asked next."""
        user = await self._find(question.identity)
        text = question.answer.decode("utf-8", "replace")
        if question.wanted is Wanted.CODE:
            return self._check_code(user, text, question)
        right = _is_password(user, text)  # the same work for a user whom we do not know
        digits = user.totp.digits if user is not None and user.totp is not None else 0
        with_code = _is_password(user, text[: -(digits or _USUAL_DIGITS)]) and digits > 0
        if user is None or not (right or with_code):
            return Refused()
        if user.must_change:
            return Refused("the right one, which has to be changed first")
        if with_code:
            return self._check_code(user, text[-digits:], question)
        if not digits or question.code_follows:
            return Granted()
        if question.may_prompt:
            return Prompt("Code: ", state=_Proven())
        return Refused("the password without the code, which has to stand behind it")

    async def resumption(self, question: ResumptionQuestion) -> bytes | None:
        """A value that changes with the password; None for users who have none, or would leave out the second factor, or are
        to change the password."""
        user = await self._find(question.identity)
        if user is None or user.totp is not None or user.must_change:
            return None
        secret = user.nt_hash if user.password is None else _digest(user.password)
        if secret is None:
            return None
        return hmac.digest(self._mark_key, user.name.encode() + b"\0" + secret, "sha256")

    async def change(self, question: NewPassword) -> Granted | Refused:
        """Keep a new password, when it is good enough and there is a place for it. What was begun is done, also when the
        client hangs up: the file and what is known here must not differ."""
        return await self._changing.carry_out(self._change(question))

    async def _change(self, question: NewPassword) -> Granted | Refused:
        async with self.standing_still:
            user = await self._find(question.identity)
            if user is None:
                return Refused("no such user")
            if not _is_secret(user, question.proven):
                return Refused("the password was changed meanwhile")
            if len(question.password) < MIN_NEW_PASSWORD:
                return Refused(f"the new password is shorter than {MIN_NEW_PASSWORD} characters")
            if _is_password(user, question.password):
                return Refused("the new password is the old one")
            try:
                await self._users.set_password(user.name, question.password)
            except IkewayError as error:
                log.error("The new password of %s could not be kept: %s", user.name, error)
                return Refused("it could not be kept")
            log.info("%s has changed the password", user.name)
            return Granted()

    def _check_code(self, user: User | None, text: str, question: PasswordCheck) -> Verdict:
        if user is None or user.totp is None:
            return Refused("no second factor is known of this user" if user is not None else "")
        code, used = text.strip().replace(" ", ""), self._used.get(user.name, -1)
        step = user.totp.matching_step(code, self._now(), after=used)
        if step is not None:
            self._used[user.name] = step
            return Granted()
        wrong = 1 + (question.state.wrong_codes if isinstance(question.state, _Proven) else 0)
        again = user.totp.matching_step(code, self._now()) is not None
        if not question.may_prompt or wrong >= WRONG_CODES:
            return Refused("a code that was used already" if again else "a wrong code")
        words = "This code was used already. Next code: " if again else "Wrong code. Code: "
        return Prompt(words, state=_Proven(wrong))

    async def _find(self, identity: bytes) -> User | None:
        try:
            user = await self._users.find(identity.decode())
        except UnicodeDecodeError:
            return None
        return None if user is None or user.disabled else user

    def _say_once(self, user: str, method: str) -> None:
        if (user, method) not in self._said:
            self._said.add((user, method))
            log.warning(
                "%s has a second factor, which %s cannot ask for, and is refused; "
                "to mend it: let this user log in by eap-gtc, alone or in `then`, or remove `totp`",
                user,
                method,
            )


def _is_password(user: User | None, text: str) -> bool:
    """The same work, whoever it is and however long the stored password is."""
    given_hash, given = nt_password_hash(text), _digest(text)
    if user is not None and user.nt_hash is not None:
        return hmac.compare_digest(given_hash, user.nt_hash)
    stored = user.password if user is not None else None
    return hmac.compare_digest(given, _digest(stored or "")) and bool(stored)


def _is_secret(user: User, proven: NtHash) -> bool:
    """True when this is the hash of the password that is stored now."""
    stored = user.nt_hash if user.password is None else nt_password_hash(user.password)
    return stored is not None and hmac.compare_digest(stored, proven.value)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

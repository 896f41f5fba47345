"""What EAP has to ask of the outside: what the user answers here, what is known of the user there.

The peer asks one kind of question, `PasswordQuestion`, whatever the method: it says what the server wants to have and
in which words. The authenticator asks one of two: `SecretQuestion` where the method needs the stored password to compare
a proof with, `PasswordCheck` where the user's answer itself arrives and somebody else may judge it. `ResumptionQuestion`
stands in for both where a session of TLS does.
"""

from __future__ import annotations

import enum
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TypeVar

from ikeway.questions import Question
from ikeway.wire.registry import PseudorandomFunction

Answer = TypeVar("Answer")


class Wanted(enum.Enum):
    """What a user is asked for."""

    PASSWORD = "password"  # noqa: S105 - not one
    NEW_PASSWORD = "new password"  # noqa: S105 - nor this: to be in force from now on, chosen by the user
    CODE = "code"  # good once: from a token or an app, or the answer to the server's challenge


@dataclass(frozen=True, slots=True, eq=False)
class PasswordQuestion(Question["str | None"]):
    """The peer's side: what does the user answer? None: nothing, and the log-in ends.

    `attempt` counts from 1 for each kind of `wanted`; at 2 and more the answer before was wrong (a password is then not
    sent a second time) or was not the last code that the server wants.
    """

    identity: bytes
    server_name: str  # as the server calls itself, not proven by that
    prompt: str  # the server's words, fit to be printed; empty when it has none
    method: str
    attempt: int = 1
    wanted: Wanted = Wanted.PASSWORD


class AboutUser(Question[Answer]):
    """The authenticator's side: a question about one user, who claims to be `identity`."""

    __slots__ = ()

    identity: bytes

    @abstractmethod
    def for_nobody(self) -> Answer:
        """The answer for a user who is not known here."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class NtHash:
    """MD4 of the password in UTF-16LE, for stores that do not keep the password itself (RFC 2759 section 8.3)."""

    value: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.value) != 16:
            raise ValueError(f"an NT hash has 16 octets, not {len(self.value)}")


@dataclass(frozen=True, slots=True)
class MustChange:
    """The stored password, which is to be changed before it lets anybody in."""

    secret: str | NtHash = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class SecretQuestion(AboutUser["str | NtHash | MustChange | None"]):
    """What is this user's password? None when the user is not known.

    The method then runs to its end with a random one, so that the two cannot be told apart.
    """

    identity: bytes
    method: str
    code_follows: bool = False  # a later log-in of the same connection asks for the one-time code (RFC 4739)

    def for_nobody(self) -> None:
        """The answer for a user who is not known here."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What the user answered is right, and nothing more is wanted."""


@dataclass(frozen=True, slots=True)
class Refused:
    """It is not. `reason` is for the log and never for the user."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """So far so good, or to be tried again: ask the user once more, in these words.

    `state` comes back with the next `PasswordCheck`; only who made it looks into it.
    """

    words: str
    wanted: Wanted = Wanted.CODE
    state: object = field(default=None, repr=False)


Verdict = Granted | Refused | Prompt


@dataclass(frozen=True, slots=True, eq=False)
class PasswordCheck(AboutUser[Verdict]):
    """Does this answer let the user in? Asked by methods in which it arrives in clear (GTC, TTLS with PAP).

    `wanted` is what the user was asked for: a password, perhaps with a code behind it, or a code alone (the first
    question of a log-in may be that when another method took the password). `may_prompt` is False where the method has
    only this one round: a `Prompt` then ends the log-in.
    """

    identity: bytes
    answer: bytes = field(repr=False)
    method: str
    wanted: Wanted = Wanted.PASSWORD
    may_prompt: bool = True
    state: object = field(default=None, repr=False)
    code_follows: bool = False  # as in `SecretQuestion`

    def for_nobody(self) -> Verdict:
        """The answer for a user who is not known here."""
        return Refused("no such user")


@dataclass(frozen=True, slots=True, eq=False)
class NewPassword(AboutUser["Granted | Refused"]):
    """Keep this password for the user in place of the old one, of which `proven` is the hash: by now another one may be
    stored, and who knows the old one has no say in that. Refused: so it is, or the new one is not good enough, or there is
    no place to keep it; the user may try another one."""

    identity: bytes
    password: str = field(repr=False)
    method: str
    proven: NtHash

    def for_nobody(self) -> Granted | Refused:
        """The answer for a user who is not known here."""
        return Refused("no such user")


@dataclass(frozen=True, slots=True, eq=False)
class ResumptionQuestion(AboutUser["bytes | None"]):
    """May a TLS session stand for this user's log-in? Asked when the user has logged in, and again when the session is to be
    resumed: the answer has to be the same value. None: no, let the user prove it anew.
    """

    identity: bytes
    method: str

    def for_nobody(self) -> None:
        """The answer for a user who is not known here."""


@dataclass(frozen=True, slots=True)
class IkeBinding:
    """What AUTH of the initiator covers in this IKE SA (RFC 7296 section 2.15), and the PRF that was agreed on."""

    octets: bytes = field(repr=False)
    prf: PseudorandomFunction


@dataclass(frozen=True, slots=True, eq=False)
class IkeBindingQuestion(Question[IkeBinding]):
    """Either side, for methods that sign what IKE signs: the engine answers it itself, and nobody outside is asked."""

"""What EAP has to ask of the outside: the user's password here, the user's secret there."""

from __future__ import annotations

from dataclasses import dataclass, field

from ikeway.questions import Question


@dataclass(frozen=True, slots=True, eq=False)
class PasswordQuestion(Question["str | None"]):
    """The peer's side: what does the user answer? None: nothing, and the log-in ends.

    `attempt` counts from 1; at 2 and more the answer before was wrong, and the same answer is not sent again.
    """

    identity: bytes
    server_name: str  # as the server calls itself, not proven by that
    prompt: str  # the server's words, or ours when it has none
    method: str
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class NtHash:
    """MD4 of the password in UTF-16LE, for stores that do not keep the password itself (RFC 2759 section 8.3)."""

    value: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.value) != 16:
            raise ValueError(f"an NT hash has 16 octets, not {len(self.value)}")


@dataclass(frozen=True, slots=True, eq=False)
class SecretQuestion(Question["str | NtHash | None"]):
    """The authenticator's side: what is this user's password? None when the user is not known.

    The method then runs to its end with a random one, so that the two cannot be told apart.
    """

    identity: bytes
    method: str

"""Which connection a client gets: by how it logs in, whom it looks for, and who it says it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from ikeway.auth.identity import Identity, IdentityPattern
from ikeway.eap.questions import AboutUser, PasswordCheck, SecretQuestion
from ikeway.errors import AuthenticationFailed, Side
from ikeway.ike.questions import SelectConnection
from ikeway.ike.settings import Connection
from ikeway.questions import Ask, Question, answered
from ikeway.wire.registry import AuthenticationMethod, NotifyType

Answer = TypeVar("Answer")

LoginKind = Literal["eap", "psk", "certificate"]
_LOGIN_WORDS: dict[LoginKind, str] = {"eap": "EAP", "psk": "a pre-shared key", "certificate": "a certificate"}
_EXAMPLES: dict[LoginKind, str] = {"eap": "eap-mschapv2", "psk": "psk", "certificate": "certificate"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A connection that a client may get: `connections` has one for each of `patterns`."""

    login: LoginKind
    patterns: tuple[IdentityPattern, ...]
    names: tuple[Identity, ...]  # what the gateway can call itself; empty: what the client calls it
    connections: tuple[Connection, ...]
    claims: Callable[[Identity], bool] | None = None  # clients of this connection alone, by IDi: a dialect's
    apart: bool = False  # what its clients prove is a dialect's own: nobody is moved into it, or out of it

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self.connections[0].name


def login_of(method: AuthenticationMethod | None) -> LoginKind:
    """How a client logs in that sent an AUTH payload of this method, or none (RFC 7296 section 2.16)."""
    if method is None:
        return "eap"
    return "psk" if method == AuthenticationMethod.SHARED_KEY_MIC else "certificate"


def select_connection(candidates: Sequence[Candidate], question: SelectConnection) -> Connection:
    """The first connection that fits. Raises `AuthenticationFailed` that says what did not fit."""
    login = login_of(question.method)
    by_login = _claimed([each for each in candidates if each.login == login], question.initiator_identity)
    if not by_login:
        offered = ", ".join(dict.fromkeys(_LOGIN_WORDS[candidate.login] for candidate in candidates))
        raise _refused(
            f"{question.initiator_identity} wants to log in by {_LOGIN_WORDS[login]}, which no connection here takes",
            expected=offered,
            got=_LOGIN_WORDS[login],
            remedy=f'set the client to {offered}, or add a connection with login = "{_EXAMPLES[login]}"',
        )
    by_name = [candidate for candidate in by_login if _name_for(candidate, question.responder_identity) is not None]
    if not by_name:
        names = ", ".join(dict.fromkeys(str(name) for candidate in by_login for name in candidate.names))
        raise _refused(
            f"{question.initiator_identity} looks for another gateway",
            expected=names,
            got=str(question.responder_identity),
            remedy="correct the remote identity on the client, or `identity` (or the certificate's names) here",
        )
    candidate, connection = _by_identity(by_name, login, (question.initiator_identity, *question.claimed))
    wanted = question.responder_identity
    if wanted is None or (candidate.names and wanted.matches(candidate.names[0])):
        return connection
    return replace(connection, local_identity=_name_for(candidate, wanted))


def settle_connection(
    candidates: Sequence[Candidate], selected: Connection, user: bytes, suits: Callable[[str], bool]
) -> Connection:
    """The first connection for a client that was let in as `user` under `selected`: how the gateway proves itself is
    settled, whom it is for is not. `suits` says whether a connection, by its name, is for such a user. Raises
    `AuthenticationFailed`."""
    own = selected.local_identity
    is_apart = any(each.apart for each in candidates if each.name == selected.name)
    for candidate in candidates:
        is_selected = candidate.name == selected.name
        # Where a certificate or key came first, `identities` were those of its name, and nothing else may take its place.
        if candidate.login == "eap" and not (candidate.apart or is_apart):
            fits = user_matches(candidate.patterns, user) and (own is None or _name_for(candidate, own) is not None)
        else:
            fits = is_selected
        if fits and suits(candidate.name):
            return selected if is_selected else replace(candidate.connections[0], local_identity=own)
    raise _refused(
        f"{user.decode('utf-8', 'backslashreplace')!r} has logged in rightly, and no connection here is for this user",
        expected="a user and groups that a connection names",
        got="none of its `identities` and `groups`",
        remedy="correct `identities` and `groups`, or what the RADIUS server replies (Filter-Id, Class)",
    )


def _claimed(candidates: list[Candidate], initiator: Identity) -> list[Candidate]:
    """Those whose dialect this client speaks, where there are some; else those that anybody may have."""
    claiming = [each for each in candidates if each.claims is not None and each.claims(initiator)]
    return claiming or [each for each in candidates if each.claims is None]


def scoped_to(patterns: Sequence[IdentityPattern]) -> Callable[[Ask], Ask]:
    """Let an EAP log-in ask only for users that a pattern allows; others are unknown to it."""

    def scope(ask: Ask) -> Ask:
        def scoped(question: Question[Answer]) -> Awaitable[Answer]:
            if isinstance(question, AboutUser) and not user_matches(patterns, question.identity):
                return answered(question.for_nobody())
            return ask(question)

        return scoped

    return scope if patterns else lambda ask: ask


def before_code(scope: Callable[[Ask], Ask]) -> Callable[[Ask], Ask]:
    """The same for a log-in after which another one asks for the one-time code: the password alone is right in it."""

    def wider(ask: Ask) -> Ask:
        def marked(question: Question[Answer]) -> Awaitable[Answer]:
            if isinstance(question, SecretQuestion | PasswordCheck):
                return ask(replace(question, code_follows=True))  # type: ignore[arg-type]  # answered alike
            return ask(question)

        return scope(marked)

    return wider


def user_matches(patterns: Sequence[IdentityPattern], user: bytes) -> bool:
    """True when one of the patterns allows this EAP user name."""
    identity = Identity.of_user(user)
    return any(pattern.matches(identity) for pattern in patterns)


def _by_identity(
    candidates: Sequence[Candidate], login: LoginKind, identities: Sequence[Identity]
) -> tuple[Candidate, Connection]:
    """`identities`: IDi, and what the client's certificate carries beside it: many clients say their DN (Windows)."""
    for candidate in candidates:
        for pattern, connection in zip(candidate.patterns, candidate.connections, strict=True):
            if any(map(pattern.matches, identities)):
                return candidate, connection
    if login == "eap":
        # Clients that log in by EAP put into IDi what they like (Windows its address); the user name comes later.
        return candidates[0], candidates[0].connections[0]
    patterns = ", ".join(dict.fromkeys(str(pattern) for candidate in candidates for pattern in candidate.patterns))
    raise _refused(
        f"no connection here is for {identities[0]}",
        expected=patterns,
        got=", ".join(dict.fromkeys(map(str, identities))),
        remedy="correct the client's own identity, or add it to `identities` of a connection",
    )


def _name_for(candidate: Candidate, wanted: Identity | None) -> Identity | None:
    """What the gateway calls itself to a client that looks for `wanted`; None when it is not that."""
    if not candidate.names:
        return wanted or _ANONYMOUS
    if wanted is None:
        return candidate.names[0]
    return next((name for name in candidate.names if wanted.matches(name)), None)


def _refused(reason: str, *, expected: str, got: str, remedy: str) -> AuthenticationFailed:
    return AuthenticationFailed(
        reason, notify=NotifyType.AUTHENTICATION_FAILED, expected=expected, got=got, side=Side.BOTH, remedy=remedy
    )


_ANONYMOUS = Identity.parse("0.0.0.0")  # noqa: S104 - stands for "our address" here, is never sent

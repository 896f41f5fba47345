"""How the user's side of a profile logs in: `[login]`, and what follows it, as credentials of the engine."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import TypeVar

from ikeway.auth.certificate import CertificateCredential
from ikeway.client.dialect import ProfileDialect
from ikeway.client.profile_model import GatewaySection, LoginPart, LoginSection
from ikeway.config.credentials import load_credential
from ikeway.config.dialects import ANYCONNECT_LOGIN
from ikeway.config.eap import CODE_KEYS, PEERS, PeerInputs, peer_factory
from ikeway.config.reading import Location, Problems
from ikeway.config.secrets import Prompt
from ikeway.config.tunnels import TUNNEL_LOGINS
from ikeway.eap.questions import PasswordQuestion
from ikeway.eap.session import EapPeer
from ikeway.eap.sim_questions import CardReply, GsmChallenge, UmtsChallenge
from ikeway.ike.settings import EapCredential, LocalCredential, PskCredential
from ikeway.questions import Ask, Question

Answer = TypeVar("Answer")

_CERTIFICATE = frozenset({"certificate", "key", "pkcs12", "pkcs11", "pin", "key_password"})


class LoginBuilder:
    """Makes the credential of one log-in, and notes what does not go together.

    `psk_is_used`: the gateway proves itself by the pre-shared key, whatever the user does. `username`: the one of the
    log-in before, which serves where none is written.
    """

    def __init__(
        self,
        login: LoginPart,
        gateway: GatewaySection,
        problems: Problems,
        prompt: Prompt | None,
        at: Location = ("login",),
        *,
        username: str = "",
        dialect: ProfileDialect | None = None,
    ) -> None:
        self._login = login
        self._gateway = gateway
        self._dialect = dialect
        self._username = username_of(login) or username
        self._problems = problems
        self._prompt = prompt
        self._at = at

    @property
    def username(self) -> str:
        """The user name for EAP; empty with other methods."""
        return self._username if self._login.methods[0] in PEERS else ""

    def credential(self, *, psk_is_used: bool = False) -> LocalCredential | None:
        """The credential; None after a problem was noted."""
        methods = self._login.methods
        self._complain_of_unused(methods, psk_is_used=psk_is_used)
        if methods == ("psk",):
            return PskCredential()
        if methods != ("certificate",):
            return self._eap(methods)
        return self._certificate()

    def _certificate(self) -> CertificateCredential | None:
        if self._login.certificate is None and self._login.pkcs12 is None and self._login.pkcs11 is None:
            self._problems.add(
                (*self._at, "method"),
                "the login is by certificate, and there is none",
                expected="`certificate` and `key`, `pkcs12`, or `pkcs11`",
                remedy='add for example pkcs12 = "alice.p12"',
            )
            return None
        return load_credential(
            self._problems,
            self._at,
            certificate=self._login.certificate,
            key=self._login.key,
            pkcs12=self._login.pkcs12,
            password=self._login.key_password,
            prompt=self._prompt,
            pkcs11=self._login.pkcs11,
            pin=self._login.pin,
        )

    def _eap(self, methods: tuple[str, ...]) -> EapCredential | None:
        if any(method not in PEERS for method in methods):
            self._problems.add(
                (*self._at, "method"),
                "only EAP methods can be alternatives to each other",
                expected="one method, or several that begin with `eap-`",
                got=", ".join(methods),
                remedy="keep the one that the gateway wants",
            )
            return None
        if methods == (ANYCONNECT_LOGIN,):
            return self._anyconnect(methods)
        if not self._username and methods != ("eap-tls",):  # where the certificate has a name
            self._problems.add(
                self._at,
                "there is no user name to log in with",
                expected="`username` in [login], or an `identity`",
                remedy='add for example username = "alice"',
            )
            return None
        inputs = self._inputs(methods) if self._has(methods) else None
        if inputs is None:
            return None
        new_session = self._dialect.new_session(methods) if self._dialect is not None else EapPeer
        return EapCredential(peer_factory(methods, inputs, new_session))

    def _anyconnect(self, methods: tuple[str, ...]) -> EapCredential | None:
        """The dialect's own method: by password, by certificate, or both, as the gateway asks."""
        login = self._login
        has_certificate = any(each is not None for each in (login.certificate, login.pkcs12, login.pkcs11))
        credential = self._certificate() if has_certificate else None
        assert self._dialect is not None
        peer = self._dialect.peer(self._at, self._username, credential, has_certificate=has_certificate)
        inputs = self._inputs(methods)
        if peer is None or inputs is None or (has_certificate and credential is None):
            return None
        return EapCredential(peer_factory(methods, replace(inputs, anyconnect=peer)))

    def _inputs(self, methods: tuple[str, ...]) -> PeerInputs | None:
        """What the methods want of the profile; None after a problem was noted."""
        name = self._login.network_name
        inputs = PeerInputs(username=self._username.encode(), network_name=name.encode() if name is not None else None)
        if TUNNEL_LOGINS.isdisjoint(methods):
            return inputs
        from ikeway.client.tunnel_login import load_tunnel

        tunnel = load_tunnel(self._problems, self._at, self._login, self._gateway, self._prompt)
        if tunnel is None:
            return None
        return replace(inputs, tunnel=tunnel, username=inputs.username or tunnel.own_name)

    def _has(self, methods: tuple[str, ...]) -> bool:
        """True when all is there that the methods cannot do without."""
        complete = True
        for method in methods:
            for group in PEERS[method].needs:
                if any(getattr(self._login, key) is not None for key in group):
                    continue
                complete = False
                if not any(self._problems.was_removed(*self._at, key) for key in group):
                    wanted = " or ".join(f"`{key}`" for key in group)
                    self._problems.add(
                        (*self._at, "method"),
                        f"the login is by {method}, and something of it is missing",
                        expected=wanted,
                        remedy=f"add {wanted} to [{'.'.join(map(str, self._at))}]",
                    )
        return complete

    def _complain_of_unused(self, methods: tuple[str, ...], *, psk_is_used: bool) -> None:
        """A key that the method does not use is a mistake: its author expects something of it."""
        login = self._login
        by_method = {"psk": frozenset({"psk"}), "certificate": _CERTIFICATE}
        by_method |= {name: kind.uses for name, kind in PEERS.items()}
        used = frozenset[str]().union(*(by_method[method] for method in methods), {"psk"} if psk_is_used else ())
        if self._dialect is not None and self._dialect.has_second_factor(methods):
            used |= CODE_KEYS
        complained = set(used)
        for other, names in by_method.items():
            for name in sorted(names - complained):
                complained.add(name)
                if name in login.model_fields_set:
                    self._problems.add(
                        (*self._at, name),
                        f"`{name}` is not used: the login is by {' or '.join(methods)}",
                        remedy=f'remove it, or write method = "{other}"',
                    )
        if login.pkcs12 is not None and (login.certificate is not None or login.key is not None):
            self._problems.add(
                (*self._at, "pkcs12"), "there are both `pkcs12` and `certificate` or `key`", remedy="remove one of them"
            )
        if login.pkcs11 is not None and (login.pkcs12 is not None or login.key is not None):
            self._problems.add(
                (*self._at, "pkcs11"), "there are both `pkcs11` and `pkcs12` or `key`", remedy="remove one of them"
            )
        if login.pin is not None and login.pkcs11 is None:
            self._problems.add((*self._at, "pin"), "there is a `pin` without `pkcs11`", remedy="add `pkcs11`")
        if login.code is not None and login.totp is not None:
            self._problems.add((*self._at, "totp"), "there are both `code` and `totp`", remedy="remove one of them")
        if login.opc is not None and login.op is not None:
            self._problems.add((*self._at, "op"), "there are both `opc` and `op`", remedy="remove one of them")


@dataclass(frozen=True, slots=True, eq=False)
class FurtherPassword(Question["str | None"]):
    """What EAP asks the user in a further log-in; `number` counts these from 0."""

    number: int
    question: PasswordQuestion


@dataclass(frozen=True, slots=True, eq=False)
class FurtherCard(Question[CardReply]):
    """What EAP asks the SIM card of a further log-in; `number` counts these from 0."""

    number: int
    question: UmtsChallenge | GsmChallenge


def further_login(credential: LocalCredential, number: int) -> LocalCredential:
    """The credential of a further log-in: its passwords and cards are asked for apart from those of the
    others."""
    if not isinstance(credential, EapCredential):
        return credential

    def scope(ask: Ask) -> Ask:
        def scoped(question: Question[Answer]) -> Awaitable[Answer]:
            if isinstance(question, PasswordQuestion):
                return ask(FurtherPassword(number, question))  # type: ignore[arg-type]  # answered alike
            if isinstance(question, UmtsChallenge | GsmChallenge):
                return ask(FurtherCard(number, question))  # type: ignore[arg-type]  # so are these
            return ask(question)

        return scoped

    return EapCredential(lambda ask: credential.new_peer(scope(ask)))


def further_builders(
    login: LoginSection, gateway: GatewaySection, problems: Problems, prompt: Prompt | None
) -> list[LoginBuilder]:
    """Those of the log-ins in `then`."""
    found, username = [], username_of(login)
    for number, part in enumerate(login.then):
        at: Location = ("login", "then", number)
        if ANYCONNECT_LOGIN in part.methods:
            problems.add(
                (*at, "method"), f"{ANYCONNECT_LOGIN} cannot follow another log-in", remedy="let it be the only one"
            )
            continue
        if "psk" in part.methods:
            problems.add(
                (*at, "method" if part.method else "psk"),
                "a pre-shared key cannot follow another log-in",
                expected="a certificate or an EAP method",
                remedy="let the first log-in be by `psk`",
            )
            continue
        builder = LoginBuilder(part, gateway, problems, prompt, at, username=username)
        username = builder.username or username
        found.append(builder)
    return found


def username_of(login: LoginPart) -> str:
    """The user name of a log-in by EAP; empty with other methods."""
    if login.methods[0] not in PEERS:
        return ""
    return login.username or (str(login.identity) if login.identity is not None else "")

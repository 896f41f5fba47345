"""The dialects of a gateway's connections: `dialect` in [connections.NAME], and the tables with their settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ikeway.auth.certificate import CertificateCredential
from ikeway.auth.path import Role
from ikeway.auth.tls_trust import TlsTrust
from ikeway.config.credentials import load_trust
from ikeway.config.dialects import (
    ANYCONNECT_LOGIN,
    FORTIGATE_LOGIN,
    anyconnect_authenticator,
    complain_of_unused,
    fortigate_authenticator,
    gateway_dialect,
    gateway_options,
)
from ikeway.config.reading import Location, Problems
from ikeway.eap.tunnel.trust import PeerTrust
from ikeway.gateway.config_model import ConnectionPart, GatewayFile, LoginPart
from ikeway.ike.selectors import networks
from ikeway.ike.settings import EapExpected, ResponderSettings
from ikeway.questions import Ask

if TYPE_CHECKING:
    from ikeway.config.dialects import NewAuthenticator
    from ikeway.dialects import Dialect
    from ikeway.dialects.anyconnect.options import GatewayOptions


class ConnectionDialects:
    """Makes what the dialects need, and notes what does not go together."""

    def __init__(self, file: GatewayFile, problems: Problems, credential: CertificateCredential | None) -> None:
        certificate = credential.chain[0] if credential is not None else None
        self._file = file
        self._problems = problems
        self._options: dict[str, GatewayOptions] = {}
        self._dialects: dict[str, Dialect] = {}
        for name, part in file.connections.items():
            complain_of_unused(problems, ("connections", name), part, part.dialect)
            if part.dialect == "fortigate":
                self._check_fortigate(("connections", name), part)
            elif part.dialect == "anyconnect":
                options = gateway_options(part.anyconnect, part.domains, networks(part.subnets), certificate)
                self._options[name], self._dialects[name] = options, gateway_dialect(options)

    def of(self, name: str) -> Dialect | None:
        """The dialect of a connection."""
        return self._dialects.get(name)

    def responder(self, settings: ResponderSettings) -> ResponderSettings:
        """What is said before it is known which connection is meant."""
        if not self._dialects:
            return settings
        from ikeway.dialects import for_responder

        return for_responder(self._dialects.values(), settings)

    def expectation(
        self, at: Location, name: str, part: ConnectionPart, scope: Callable[[Ask], Ask]
    ) -> EapExpected | None:
        """Clients of the dialect's own EAP method; None after a problem was noted."""
        before = len(self._problems.errors)
        options = self._options.get(name)
        if options is None:
            self._problems.add(
                (*at, "login"),
                f"{ANYCONNECT_LOGIN} belongs to a dialect that the connection does not speak",
                expected='dialect = "anyconnect"',
                remedy="add it",
            )
            return None
        if len(part.login) > 1 or part.then:
            self._problems.add(
                (*at, "login"),
                f"{ANYCONNECT_LOGIN} stands alone: its clients know no other method, and none after it",
                expected=f'login = "{ANYCONNECT_LOGIN}"',
                remedy="make a connection of its own for the other clients",
            )
        if not (options.password or options.certificate):
            self._problems.add(
                (*at, "anyconnect"), "clients would have to prove nothing", remedy="write password = true"
            )
        if part.radius is not None and not options.password:
            self._problems.add(
                (*at, "radius"), "RADIUS servers would judge passwords, and none is asked for", remedy="remove it"
            )
        if options.password and part.radius is None and self._file.gateway.users is None:
            self._problems.add(
                (*at, "login"),
                "clients log in by password, and there are no users",
                expected="`users` in [gateway], or `radius` here",
                remedy='add for example users = "users.toml"',
            )
        trust = self._trust(at, part, needed=options.certificate)
        if len(self._problems.errors) > before:
            return None
        return EapExpected(anyconnect_authenticator(options, scope, trust), settles=True)

    def new_session(self, part: LoginPart) -> NewAuthenticator | None:
        """How the gateway's side of an EAP log-in is made, where a dialect has a way of its own: a code follows then."""
        if isinstance(part, ConnectionPart) and part.dialect == "fortigate":
            return fortigate_authenticator(part.fortigate)
        return None

    def _check_fortigate(self, at: Location, part: ConnectionPart) -> None:
        if part.login != (FORTIGATE_LOGIN,) or part.then or part.radius is not None:
            self._problems.add(
                (*at, "login"),
                "the code in FortiGate's way follows a password that is judged here, and nothing follows it",
                expected=f'login = "{FORTIGATE_LOGIN}", without `then` and `radius`',
                remedy="make a connection of its own for the other clients",
            )

    def _trust(self, at: Location, part: ConnectionPart, *, needed: bool) -> PeerTrust | None:
        if needed != bool(part.ca):
            self._problems.add(
                (*at, "ca"),
                "`ca` and `certificate` in the table `anyconnect` belong together",
                expected="both, or none of them",
                remedy="add the one that is missing",
            )
            return None
        if not needed:
            return None
        store = load_trust(self._problems, at, authorities=part.ca, crls=part.crls, policy=part.checks.policy())
        return TlsTrust(store, part.identities, Role.INITIATOR) if store is not None else None

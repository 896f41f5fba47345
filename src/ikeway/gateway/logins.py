"""How clients log in to a gateway: the log-ins of a connection as expectations of the engine, and what does not go
together in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ikeway.auth.certificate import CertificateCredential
from ikeway.auth.identity import Identity
from ikeway.config.credentials import load_trust
from ikeway.config.dialects import ANYCONNECT_LOGIN, UNTRIED, UNTRIED_FORTIGATE
from ikeway.config.eap import (
    AUTHENTICATORS,
    AuthenticatorInputs,
    authenticator_factory,
)
from ikeway.config.reading import Location, Problems
from ikeway.eap.relay import EapRelay, judged_elsewhere
from ikeway.eap.session import EapAuthenticator
from ikeway.gateway.config_model import ConnectionPart, GatewayFile, LoginPart
from ikeway.gateway.dialect import ConnectionDialects
from ikeway.gateway.radius.config import check_use
from ikeway.gateway.select import before_code, scoped_to
from ikeway.gateway.tunnel_login import is_tunnelled, load_tunnel
from ikeway.ike.settings import (
    CertificateExpected,
    EapExpected,
    FurtherExpectation,
    PeerExpectation,
    PskExpected,
)

_CERTIFICATE = frozenset({"ca", "crls", "checks"})
_RELAYED = frozenset({"radius", "groups"})


class Logins:
    """Makes the expectations of each connection, and notes mistakes. `warnings` are for the operator; `authorities` are the
    key hashes of those that vouch for clients (CERTREQ)."""

    def __init__(
        self,
        file: GatewayFile,
        problems: Problems,
        credential: CertificateCredential | None,
        identity: Identity | None,
        dialects: ConnectionDialects,
    ) -> None:
        self._file, self._problems = file, problems
        self._credential, self._identity, self._dialects = credential, identity, dialects
        self.warnings: list[str] = []
        self.authorities: dict[bytes, None] = {}

    def further(self, at: Location, part: ConnectionPart) -> tuple[FurtherExpectation, ...]:
        """The log-ins of `then`, fewer of them after a problem was noted."""
        found = []
        for number, further in enumerate(part.then):
            here = (*at, "then", number)
            if further.kind != "eap":
                self._problems.add(
                    (*here, "login"),
                    f"a log-in by {further.words} cannot follow another one",
                    expected="EAP methods",
                    remedy="let it be the first log-in of the connection",
                )
                continue
            self.check(here, further)
            if further.radius is not None and further.identities:
                self._problems.add(
                    (*here, "identities"),
                    "whom RADIUS servers let in is not looked at again in a further log-in",
                    remedy="name them in the connection itself",
                )
            before, later = (part, *part.then[:number]), part.then[number + 1 :]
            if (expectation := self._eap(here, further, before, later)) is not None:
                found.append(FurtherExpectation(expectation))
        return tuple(found)

    def expectation(self, at: Location, name: str, part: ConnectionPart) -> PeerExpectation | None:
        """What the first log-in has to prove; None after a problem was noted."""
        if part.kind == "psk":
            return PskExpected()
        if ANYCONNECT_LOGIN in part.login:
            self.warnings.append(UNTRIED)
            if part.then:
                self._problems.add(
                    (*at, "then"),
                    f"clients that log in by {part.words} know no further log-in",
                    remedy="remove it, or let them log in by another method",
                )
            scope = scoped_to(part.identities) if part.radius is None else judged_elsewhere(part.radius)
            return self._dialects.expectation(at, name, part, scope)
        if part.kind == "eap":
            return self._eap(at, part, (), part.then)
        if not part.ca:
            self._problems.add(
                at,
                "clients log in by certificate, and no authority vouches for them",
                expected="`ca`, the certificates of the authorities that made the clients' ones",
                remedy='add for example ca = "ca.pem"',
            )
            return None
        self.warnings += part.checks.warnings()
        if not part.identities:
            self.warnings.append(f"{name}: everybody with a certificate of its authorities may connect")
        trust = load_trust(self._problems, at, authorities=part.ca, crls=part.crls, policy=part.checks.policy())
        if trust is not None:
            self.authorities.update(
                dict.fromkeys(trust.authorities[i : i + 20] for i in range(0, len(trust.authorities), 20))
            )
        return CertificateExpected(trust) if trust is not None else None

    def _eap(
        self, at: Location, part: LoginPart, before: Sequence[LoginPart], later: Sequence[LoginPart]
    ) -> PeerExpectation | None:
        """One log-in by EAP; `before` and `later` are the others of its connection."""
        if part.is_relayed:
            server_name = part.radius or ""
            return EapExpected(lambda ask: EapRelay(ask, server_name), settles=True)
        strange = [method for method in part.login if method not in AUTHENTICATORS]
        if strange:
            self._problems.add(
                (*at, "login"),
                "only EAP methods can be alternatives to each other",
                expected="one method, or several that begin with `eap-`",
                got=", ".join(part.login),
                remedy=f"make connections of their own for {', '.join(strange)}",
            )
            return None
        self.warnings += [kind.warning for kind in map(AUTHENTICATORS.__getitem__, part.login) if kind.warning]
        server = str(self._identity) if self._identity is not None else "ikeway"
        inputs = AuthenticatorInputs(
            server_name=server.encode(),
            retries=part.retries,
            network_name=part.network_name.encode() if part.network_name is not None else None,
            after_password=any(each.kind == "eap" for each in before),
        )
        if is_tunnelled(part):
            tunnel = load_tunnel(self._problems, at, part, self._credential)
            if tunnel is None:
                return None
            inputs = replace(inputs, tunnel=tunnel)
        # `SettleConnection` looks whom the connection is for: RADIUS once it has judged, the users file where it has not.
        settles = part.radius is not None or not any(each.radius for each in (*before, *later))
        scope = scoped_to(part.identities) if part.radius is None else judged_elsewhere(part.radius)
        new_session = self._dialects.new_session(part)
        if new_session is not None:
            self.warnings.append(UNTRIED_FORTIGATE)
        if new_session is not None or any(each.login == ("eap-gtc",) for each in later):
            scope = before_code(scope)
        factory = authenticator_factory(part.login, inputs, scope, new_session or EapAuthenticator)
        return EapExpected(factory, settles=settles)

    def check(self, at: Location, part: LoginPart) -> None:
        """A key that the log-in does not use is a mistake, and so is one that it needs and that is not there."""
        kinds = [AUTHENTICATORS[method] for method in part.login if method in AUTHENTICATORS]
        by_method = {
            "certificate": _CERTIFICATE,
            "eap": _RELAYED,
            **{name: kind.uses for name, kind in AUTHENTICATORS.items()},
        }
        complained = frozenset[str]().union(*(by_method.get(method, ()) for method in part.login))
        for method, keys in by_method.items():
            for key in sorted((keys - complained) & part.model_fields_set):
                self._problems.add(
                    (*at, key),
                    f"`{key}` is not used: clients log in by {part.words}",
                    remedy=f'remove it, or write login = "{method}"',
                )
            complained |= keys
        for method in part.login:
            for group in AUTHENTICATORS[method].needs if method in AUTHENTICATORS else ():
                if part.model_fields_set.isdisjoint(group) and not any(
                    self._problems.was_removed(*at, key) for key in group
                ):
                    wanted = " or ".join(f"`{key}`" for key in group)
                    self._problems.add(
                        (*at, "login"),
                        f"clients log in by {method}, and something of it is missing",
                        expected=wanted,
                        remedy=f"add {wanted}",
                    )
        check_use(self._problems, at, part.login, part.radius, part.groups, part.inner, self._file.radius)
        looks_up = part.kind == "psk" or (part.radius is None and any(kind.users for kind in kinds))
        if looks_up and self._file.gateway.users is None and not self._problems.was_removed("gateway", "users"):
            self._problems.add(
                (*at, "login"),
                f"clients log in by {part.words}, and there are no users",
                expected="`users` in [gateway], the users file",
                remedy='add for example users = "users.toml" to [gateway]',
            )

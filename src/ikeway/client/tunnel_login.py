"""The user's end of EAP methods on TLS: what `[login]` and `[gateway]` of a profile say about the EAP server."""

from __future__ import annotations

from ikeway.auth.certificate import TrustStore
from ikeway.auth.identity import Identity, IdentityPattern
from ikeway.auth.path import Role
from ikeway.client.profile_model import GatewaySection, LoginPart
from ikeway.config.credentials import load_credential, load_trust, system_authorities
from ikeway.config.reading import Location, Problems
from ikeway.config.secrets import Prompt
from ikeway.config.tunnels import PeerTunnel, check_choice, check_inner, peer_tunnel
from ikeway.errors import ConfigError


def load_tunnel(
    problems: Problems, at: Location, login: LoginPart, gateway: GatewaySection, prompt: Prompt | None
) -> PeerTunnel | None:
    """The tunnel of a log-in; None after a problem was noted."""
    from ikeway.auth.tls_trust import TlsTrust

    before = len(problems.errors)
    has_certificate = login.certificate is not None or login.pkcs12 is not None
    check_inner(
        problems, at, login.methods, login.inner, has_certificates=has_certificate, need="`certificate` or `pkcs12`"
    )
    check_choice(problems, at, login.methods, login.inner)
    pattern = _server(problems, at, login, gateway)
    credential = load_credential(
        problems,
        at,
        certificate=login.certificate,
        key=login.key,
        pkcs12=login.pkcs12,
        password=login.key_password,
        prompt=prompt,
    )
    store = _trust(problems, at, login, gateway)
    if store is None or pattern is None or len(problems.errors) > before:
        return None
    return peer_tunnel(
        problems,
        at,
        TlsTrust(store, (pattern,), Role.RESPONDER),
        credential,
        inner=login.inner,
        outer_identity=login.anonymous_identity,
        require_binding=login.require_cryptobinding,
    )


def _trust(problems: Problems, at: Location, login: LoginPart, gateway: GatewaySection) -> TrustStore | None:
    """Whom the EAP server's certificate has to come from."""
    policy = gateway.checks.policy()
    if login.server_ca:
        keys = "server_ca", "server_crls"
        return load_trust(problems, at, authorities=login.server_ca, crls=login.server_crls, policy=policy, keys=keys)
    # Where the gateway proves itself by a certificate too, its files are complained of already.
    is_read_twice = gateway.authentication in (None, "certificate")
    noted = Problems(problems.document) if is_read_twice else problems
    authorities = gateway.ca or system_authorities(noted, ("gateway", "ca"))
    if not login.server_crls:
        return load_trust(noted, ("gateway",), authorities=authorities, crls=gateway.crls, policy=policy)
    keys = "ca", "server_crls"
    return load_trust(problems, at, authorities=authorities, crls=login.server_crls, policy=policy, keys=keys)


def _server(problems: Problems, at: Location, login: LoginPart, gateway: GatewaySection) -> IdentityPattern | None:
    """Who the EAP server must be."""
    pattern = login.server_identity or gateway.identity
    if pattern is None:
        try:
            return IdentityPattern.of(Identity.parse(gateway.address))
        except ConfigError:
            return None  # the gateway's own identity has the same mistake
    if pattern.exact is None and not (login.server_ca or gateway.ca):
        problems.add(
            (*at, "server_identity"),
            "any site with a certificate of a public authority could pass for the EAP server",
            expected="one identity, or `server_ca` with the EAP server's own authority",
            remedy="write the EAP server's name, or name its authority in `server_ca`",
        )
    return pattern

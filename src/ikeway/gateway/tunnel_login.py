"""The gateway's end of EAP methods on TLS: what a connection says about them."""

from __future__ import annotations

from ikeway.auth.certificate import CertificateCredential
from ikeway.auth.path import Role
from ikeway.config.credentials import load_trust
from ikeway.config.reading import Location, Problems
from ikeway.config.tunnels import TUNNEL_LOGINS, ServerTunnel, check_inner, server_tunnel
from ikeway.gateway.config_model import LoginPart


def load_tunnel(
    problems: Problems,
    at: Location,
    part: LoginPart,
    credential: CertificateCredential | None,
) -> ServerTunnel | None:
    """The tunnel of a connection, in which the gateway shows its certificate; None after a problem was noted."""
    from ikeway.auth.tls_trust import TlsTrust

    before = len(problems.errors)
    check_inner(problems, at, part.login, part.inner, has_certificates=bool(part.ca), need="`ca`")
    if credential is None and not problems.errors:  # else IKE's own want of one may be among them
        problems.add(
            (*at, "login"),
            f"in a log-in by {part.words} the gateway shows a certificate, and there is none",
            expected="`certificate` and `key`, or `pkcs12`, in [gateway]",
            remedy="add them (`ikeway pki` makes a certificate)",
        )
    store = None
    if part.ca:
        store = load_trust(problems, at, authorities=part.ca, crls=part.crls, policy=part.checks.policy())
    wants_store = "eap-tls" in part.login  # which is complained of with all that methods need
    if credential is None or len(problems.errors) > before or (wants_store and store is None):
        return None
    trust = TlsTrust(store, part.identities, Role.INITIATOR) if store is not None else None
    return server_tunnel(
        problems,
        at,
        trust,
        credential,
        inner=part.inner,
        require_binding=part.require_cryptobinding,
        resume=part.resume,
    )


def is_tunnelled(part: LoginPart) -> bool:
    """True when one of the methods is built on TLS."""
    return not TUNNEL_LOGINS.isdisjoint(part.login)

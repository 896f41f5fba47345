"""EAP methods on TLS as configurations name them: the ways to log in within a tunnel, and the two ends of TLS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from ikeway.config.reading import Location, Problems
from ikeway.errors import ConfigError

if TYPE_CHECKING:
    from ikeway.auth.certificate import CertificateCredential
    from ikeway.auth.tls_trust import TlsTrust
    from ikeway.eap.method import AuthenticatorMethodFactory, PeerMethodFactory
    from ikeway.eap.ttls_inner import InnerPeer
    from ikeway.eap.tunnel.channel import Endpoint
    from ikeway.eap.tunnel.sessions import SessionCache

TunnelLogin = Literal["eap-tls", "eap-ttls", "eap-peap"]
InnerLogin = Literal["pap", "mschapv2", "eap-mschapv2", "eap-gtc", "eap-md5", "eap-tls"]
TUNNEL_LOGINS = frozenset[str](get_args(TunnelLogin))
_BARE = frozenset({"pap", "mschapv2"})  # not EAP
_WITHIN: Mapping[str, frozenset[str]] = {
    "eap-ttls": frozenset[str](get_args(InnerLogin)),
    "eap-peap": frozenset({"eap-mschapv2", "eap-gtc", "eap-tls"}),
}
_BY_DEFAULT = {"eap-ttls": ("pap",), "eap-peap": ("eap-mschapv2",)}
_EVERY_BY_DEFAULT = {"eap-ttls": ("pap", "mschapv2", "eap-mschapv2"), "eap-peap": ("eap-mschapv2",)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PeerTunnel:
    """The user's end. `inner` is empty for the default of the method."""

    plain: Endpoint  # shows no certificate of ours
    certified: Endpoint | None  # shows ours
    inner: tuple[str, ...]
    outer_identity: bytes | None
    require_binding: bool
    own_name: bytes  # as our certificate says it; empty without one
    sessions: SessionCache = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServerTunnel:
    """The gateway's end. `inner` is empty for the default of the method."""

    plain: Endpoint  # wants no certificate of the client
    certifying: Endpoint | None  # wants one
    inner: tuple[str, ...]
    require_binding: bool


def inner_logins(method: str, given: Sequence[str], *, is_server: bool = False) -> tuple[str, ...]:
    """The ways to log in within that method. A server takes all of them, where a client has to choose one."""
    return tuple(given) or (_EVERY_BY_DEFAULT if is_server else _BY_DEFAULT).get(method, ())


def eap_within(method: str, given: Sequence[str], *, is_server: bool = False) -> tuple[str, ...]:
    """Those of them that are EAP methods."""
    return tuple(one for one in inner_logins(method, given, is_server=is_server) if one not in _BARE)


def check_inner(
    problems: Problems, at: Location, methods: Sequence[str], inner: Sequence[str], *, has_certificates: bool, need: str
) -> None:
    """Note what does not go together. `need`: what a log-in by certificate within the tunnel wants."""
    for method in methods:
        strange = [one for one in inner if method in _WITHIN and one not in _WITHIN[method]]
        if strange:
            problems.add(
                (*at, "inner"),
                f"{method} does not carry {' or '.join(strange)}",
                expected=", ".join(sorted(_WITHIN[method])),
                remedy="keep those that both sides have",
            )
    if "eap-tls" in inner and not has_certificates:
        problems.add(
            (*at, "inner"), "the login in the tunnel is by eap-tls, and something of it is missing", expected=need
        )


def check_choice(problems: Problems, at: Location, methods: Sequence[str], inner: Sequence[str]) -> None:
    """A client of EAP-TTLS speaks first: it has to know how."""
    if "eap-ttls" in methods and len(inner) > 1 and not _BARE.isdisjoint(inner):
        problems.add(
            (*at, "inner"),
            "in EAP-TTLS the client chooses how to log in",
            expected="`pap`, `mschapv2`, or any number of EAP methods",
            got=", ".join(inner),
            remedy="keep the one that the server has",
        )


def peer_tunnel(
    problems: Problems,
    at: Location,
    trust: TlsTrust,
    credential: CertificateCredential | None,
    *,
    inner: Sequence[str],
    outer_identity: str | None,
    require_binding: bool,
) -> PeerTunnel | None:
    """The user's end; None after a problem was noted."""
    from ikeway.auth.tls_trust import tls_identity
    from ikeway.eap.tunnel.channel import Endpoint
    from ikeway.eap.tunnel.sessions import SessionCache

    try:
        own = tls_identity(credential) if credential is not None else None
        own_name = str(credential.identity).encode() if credential is not None else b""
    except ConfigError as error:
        problems.add_error((*at, "method"), error)
        return None
    return PeerTunnel(
        own_name=own_name,
        plain=Endpoint(is_server=False, trust=trust),
        certified=Endpoint(is_server=False, trust=trust, own=own) if own is not None else None,
        inner=tuple(inner),
        outer_identity=outer_identity.encode() if outer_identity is not None else None,
        require_binding=require_binding,
        sessions=SessionCache(),
    )


def server_tunnel(
    problems: Problems,
    at: Location,
    trust: TlsTrust | None,
    credential: CertificateCredential,
    *,
    inner: Sequence[str],
    require_binding: bool,
    resume: bool,
) -> ServerTunnel | None:
    """The gateway's end; None after a problem was noted."""
    from ikeway.auth.tls_trust import tls_identity
    from ikeway.eap.tunnel.channel import Endpoint
    from ikeway.eap.tunnel.sessions import ProvenLogins

    try:
        own = tls_identity(credential)
    except ConfigError as error:
        problems.add_error((*at, "login"), error)
        return None
    # What is asked of a user before a session stands for the log-in is the password: a certificate that was shown in the
    # tunnel would not be judged again. EAP-TLS has sessions of its own there.
    logins = ProvenLogins() if resume and "eap-tls" not in inner else None
    return ServerTunnel(
        plain=Endpoint(is_server=True, trust=None, own=own, logins=logins),
        certifying=Endpoint(is_server=True, trust=trust, own=own, resume=resume) if trust is not None else None,
        inner=tuple(inner),
        require_binding=require_binding,
    )


def tls_peer(tunnel: PeerTunnel | None, username: bytes) -> PeerMethodFactory:
    """EAP-TLS, the user's side."""
    from ikeway.eap.tls import EapTlsPeer

    end = tunnel.certified if tunnel is not None else None
    if tunnel is None or end is None:
        raise ConfigError("a log-in by EAP-TLS without a certificate", expected="`certificate` or `pkcs12`")
    return lambda: EapTlsPeer(end, username, sessions=tunnel.sessions)


def _outer(tunnel: PeerTunnel | None, inner: Sequence[str]) -> tuple[PeerTunnel, Endpoint]:
    """The tunnel, and our end of it: the certificate is shown there, unless it is for the log-in within."""
    if tunnel is None:
        raise ConfigError("an EAP method on TLS without its settings", expected="the CA of the server")
    return tunnel, (tunnel.certified if tunnel.certified is not None and "eap-tls" not in inner else tunnel.plain)


def ttls_peer(tunnel: PeerTunnel | None, username: bytes, methods: Sequence[PeerMethodFactory]) -> PeerMethodFactory:
    """EAP-TTLS, the user's side; `methods` are the EAP methods within."""
    from ikeway.eap.ttls import TtlsPeer
    from ikeway.eap.ttls_inner import EapInTunnel, MsChapV2InTunnel, PapPeer

    inner = inner_logins("eap-ttls", tunnel.inner if tunnel is not None else ())
    tunnel, end = _outer(tunnel, inner)

    def way() -> InnerPeer:
        if "pap" in inner:
            return PapPeer(username)
        return MsChapV2InTunnel(username) if "mschapv2" in inner else EapInTunnel(username, methods)

    return lambda: TtlsPeer(end, username, way(), sessions=tunnel.sessions)


def peap_peer(tunnel: PeerTunnel | None, username: bytes, methods: Sequence[PeerMethodFactory]) -> PeerMethodFactory:
    """PEAP, the user's side."""
    from ikeway.eap.peap import PeapPeer

    tunnel, end = _outer(tunnel, inner_logins("eap-peap", tunnel.inner if tunnel is not None else ()))
    return lambda: PeapPeer(end, username, methods, require_binding=tunnel.require_binding, sessions=tunnel.sessions)


def _end(tunnel: ServerTunnel | None) -> ServerTunnel:
    if tunnel is None:
        raise ConfigError("an EAP method on TLS without a certificate", expected="`certificate` and `key` in [gateway]")
    return tunnel


def tls_authenticator(tunnel: ServerTunnel | None) -> AuthenticatorMethodFactory:
    """EAP-TLS, the gateway's side."""
    from ikeway.eap.tls import EapTlsAuthenticator

    end = _end(tunnel).certifying
    if end is None:
        raise ConfigError("EAP-TLS without a CA for clients", expected="`ca`")
    return lambda: EapTlsAuthenticator(end)


def ttls_authenticator(
    tunnel: ServerTunnel | None, methods: Sequence[AuthenticatorMethodFactory]
) -> AuthenticatorMethodFactory:
    """EAP-TTLS, the gateway's side."""
    from ikeway.eap.ttls import TtlsAuthenticator, TtlsWays

    tunnel = _end(tunnel)
    inner = inner_logins("eap-ttls", tunnel.inner, is_server=True)
    ways = TtlsWays("pap" in inner, "mschapv2" in inner, tuple(methods))
    return lambda: TtlsAuthenticator(tunnel.plain, ways)


def peap_authenticator(
    tunnel: ServerTunnel | None, methods: Sequence[AuthenticatorMethodFactory]
) -> AuthenticatorMethodFactory:
    """PEAP, the gateway's side."""
    from ikeway.eap.peap import PeapAuthenticator

    tunnel = _end(tunnel)
    return lambda: PeapAuthenticator(tunnel.plain, methods, require_binding=tunnel.require_binding)

"""EAP methods as configurations name them: what each wants of the configuration, and how its sessions are made.

Another method is its name in `EapLogin`, a row in `PEERS` and one in `AUTHENTICATORS`, and the keys of the
configuration that are its own. Methods are imported when a row is used: a start is imports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from ikeway.config import tunnels
from ikeway.config.cards import CardMethod, CardPeerFactory, card_authenticator
from ikeway.config.dialects import UNTRIED
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.questions import Ask

if TYPE_CHECKING:
    from ikeway.config.dialects import NewAuthenticator, NewPeer
    from ikeway.eap.method import AuthenticatorMethodFactory, PeerMethodFactory

EapLogin = Literal[
    "eap-mschapv2",
    "eap-gtc",
    "eap-md5",
    "eap-tls",
    "eap-ttls",
    "eap-peap",
    "eap-sim",
    "eap-aka",
    "eap-aka-prime",
    "eap-anyconnect",
]
EAP_LOGINS: tuple[str, ...] = get_args(EapLogin)
ALONE_REFUSED = "`eap-only` needs a log-in by an EAP method that proves the gateway too, and {login} does not"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerInputs:
    """What a profile gives to the user's side of a method."""

    username: bytes
    network_name: bytes | None = None  # which network it has to be, for EAP-AKA'
    anyconnect: PeerMethodFactory | None = None  # made by the dialect, which has settings of its own
    logins: tuple[str, ...] = ()  # all methods of the log-in
    tunnel: tunnels.PeerTunnel | None = None  # of methods on TLS


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticatorInputs:
    """What a gateway's configuration gives to its side of a method."""

    server_name: bytes
    retries: int = 0  # more passwords that may be tried in one log-in
    after_password: bool = False  # a log-in before this one took the password: only the code is asked for
    network_name: bytes | None = None  # what the network is called, in EAP-AKA'
    logins: tuple[str, ...] = ()  # all methods of the connection
    tunnel: tunnels.ServerTunnel | None = None  # of methods on TLS


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerKind:
    """A method on the user's side. `uses`: the keys of [login], beside `identity`, that mean something to it; of each
    group in `needs` one has to be there. `mutual`: it may stand alone (RFC 5998)."""

    make: Callable[[PeerInputs], PeerMethodFactory]
    uses: frozenset[str]
    needs: tuple[tuple[str, ...], ...] = ()
    mutual: bool = False
    warning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticatorKind:
    """A method on the gateway's side. `uses` and `needs` as with `PeerKind`, of [connections.NAME]; `users`: it looks
    users up in the users file."""

    make: Callable[[AuthenticatorInputs], AuthenticatorMethodFactory]
    uses: frozenset[str] = frozenset()
    needs: tuple[tuple[str, ...], ...] = ()
    mutual: bool = False
    users: bool = True
    warning: str = ""


def _mschapv2_peer(inputs: PeerInputs) -> PeerMethodFactory:
    from ikeway.eap.mschapv2 import MsChapV2Peer

    return lambda: MsChapV2Peer(inputs.username)


def _mschapv2_authenticator(inputs: AuthenticatorInputs) -> AuthenticatorMethodFactory:
    from ikeway.eap.mschapv2 import MsChapV2Authenticator

    return lambda: MsChapV2Authenticator(inputs.server_name, retries=inputs.retries)


def _gtc_peer(inputs: PeerInputs) -> PeerMethodFactory:
    from ikeway.eap.gtc import GtcPeer

    return lambda: GtcPeer(inputs.username)


def _gtc_authenticator(inputs: AuthenticatorInputs) -> AuthenticatorMethodFactory:
    from ikeway.eap.gtc import GtcAuthenticator
    from ikeway.eap.questions import Wanted

    if inputs.after_password:
        return lambda: GtcAuthenticator("Code: ", Wanted.CODE)
    return GtcAuthenticator


def _md5_peer(inputs: PeerInputs) -> PeerMethodFactory:
    from ikeway.eap.md5 import Md5Peer

    return lambda: Md5Peer(inputs.username)


def _md5_authenticator(inputs: AuthenticatorInputs) -> AuthenticatorMethodFactory:
    from ikeway.eap.md5 import Md5Authenticator

    return lambda: Md5Authenticator(inputs.server_name)


def _card_peer(method: CardMethod) -> Callable[[PeerInputs], PeerMethodFactory]:
    return lambda inputs: CardPeerFactory(method, inputs.username, inputs.logins, inputs.network_name)


def _card_authenticator(method: CardMethod) -> Callable[[AuthenticatorInputs], AuthenticatorMethodFactory]:
    return lambda inputs: card_authenticator(method, inputs.logins, inputs.network_name)


def _tls_peer(inputs: PeerInputs) -> PeerMethodFactory:
    return tunnels.tls_peer(inputs.tunnel, inputs.username)


def _tls_authenticator(inputs: AuthenticatorInputs) -> AuthenticatorMethodFactory:
    return tunnels.tls_authenticator(inputs.tunnel)


def _peers_within(method: str, inputs: PeerInputs) -> list[PeerMethodFactory]:
    inner = inputs.tunnel.inner if inputs.tunnel is not None else ()
    return [PEERS[login].make(inputs) for login in tunnels.eap_within(method, inner)]


def _authenticators_within(method: str, inputs: AuthenticatorInputs) -> list[AuthenticatorMethodFactory]:
    inner = inputs.tunnel.inner if inputs.tunnel is not None else ()
    return [AUTHENTICATORS[login].make(inputs) for login in tunnels.eap_within(method, inner, is_server=True)]


def _ttls_peer(inputs: PeerInputs) -> PeerMethodFactory:
    return tunnels.ttls_peer(inputs.tunnel, inputs.username, _peers_within("eap-ttls", inputs))


def _ttls_authenticator(inputs: AuthenticatorInputs) -> AuthenticatorMethodFactory:
    return tunnels.ttls_authenticator(inputs.tunnel, _authenticators_within("eap-ttls", inputs))


def _peap_peer(inputs: PeerInputs) -> PeerMethodFactory:
    return tunnels.peap_peer(inputs.tunnel, inputs.username, _peers_within("eap-peap", inputs))


def _peap_authenticator(inputs: AuthenticatorInputs) -> AuthenticatorMethodFactory:
    return tunnels.peap_authenticator(inputs.tunnel, _authenticators_within("eap-peap", inputs))


_MD5_WARNING = (
    "eap-md5 gives no key that ties the log-in to the connection, does not prove the gateway, and lets whoever runs it "
    "guess the password from one log-in; prefer eap-mschapv2, or better a method with TLS"
)
CODE_KEYS = frozenset({"code", "totp"})  # of [login], for methods in which a one-time code may be asked for
_SIM_WARNING = (
    "eap-sim stands on the short keys of GSM, and who has learnt a card's answers to some challenges can pass for the "
    "gateway; prefer eap-aka-prime or eap-aka"
)
_CARD = frozenset({"username", "ki", "opc", "op"})
_CARD_NEEDS = (("ki",), ("opc", "op"))
_NETWORK_NAME = frozenset({"network_name"})
_JUDGED_ELSEWHERE = frozenset({"radius", "groups"})  # the password arrives in clear: RADIUS servers may judge it
_CERTIFICATE = frozenset({"certificate", "key", "pkcs12", "key_password"})
_TLS = _CERTIFICATE | {"username", "server_ca", "server_crls", "server_identity"}
_TUNNEL = _TLS | CODE_KEYS | {"password", "anonymous_identity", "inner"}
_CLIENTS = frozenset({"ca", "crls", "checks"})
_RESUMED = frozenset({"resume"})


def _anyconnect_peer(inputs: PeerInputs) -> PeerMethodFactory:
    assert inputs.anyconnect is not None, "who reads the profile makes it"
    return inputs.anyconnect


def _anyconnect_authenticator(inputs: AuthenticatorInputs) -> AuthenticatorMethodFactory:
    raise AssertionError("sessions of eap-anyconnect begin without EAP-Identity: gateway/dialect.py makes them")


PEERS: Mapping[str, PeerKind] = {  # of those that a key belongs to, the first one is what a remedy names
    "eap-mschapv2": PeerKind(make=_mschapv2_peer, uses=frozenset({"username", "password"})),
    "eap-aka": PeerKind(make=_card_peer(CardMethod.AKA), uses=_CARD, needs=_CARD_NEEDS, mutual=True),
    "eap-aka-prime": PeerKind(
        make=_card_peer(CardMethod.AKA_PRIME), uses=_CARD | _NETWORK_NAME, needs=_CARD_NEEDS, mutual=True
    ),
    "eap-gtc": PeerKind(make=_gtc_peer, uses=frozenset({"username", "password"}) | CODE_KEYS),
    "eap-md5": PeerKind(make=_md5_peer, uses=frozenset({"username", "password"}), warning=_MD5_WARNING),
    "eap-sim": PeerKind(make=_card_peer(CardMethod.SIM), uses=_CARD, needs=_CARD_NEEDS, warning=_SIM_WARNING),
    "eap-peap": PeerKind(make=_peap_peer, uses=_TUNNEL | {"require_cryptobinding"}, mutual=True),
    "eap-tls": PeerKind(make=_tls_peer, uses=_TLS, needs=(("certificate", "pkcs12"),), mutual=True),
    "eap-ttls": PeerKind(make=_ttls_peer, uses=_TUNNEL, mutual=True),
    "eap-anyconnect": PeerKind(
        make=_anyconnect_peer, uses=frozenset({"username", "password"}) | CODE_KEYS | _CERTIFICATE, warning=UNTRIED
    ),
}
AUTHENTICATORS: Mapping[str, AuthenticatorKind] = {
    "eap-anyconnect": AuthenticatorKind(
        make=_anyconnect_authenticator, uses=_CLIENTS | _JUDGED_ELSEWHERE, users=False, warning=UNTRIED
    ),
    "eap-aka": AuthenticatorKind(make=_card_authenticator(CardMethod.AKA), mutual=True),
    "eap-aka-prime": AuthenticatorKind(make=_card_authenticator(CardMethod.AKA_PRIME), uses=_NETWORK_NAME, mutual=True),
    "eap-gtc": AuthenticatorKind(make=_gtc_authenticator, uses=_JUDGED_ELSEWHERE),
    "eap-md5": AuthenticatorKind(make=_md5_authenticator, warning=_MD5_WARNING),
    "eap-sim": AuthenticatorKind(make=_card_authenticator(CardMethod.SIM), warning=_SIM_WARNING),
    "eap-mschapv2": AuthenticatorKind(make=_mschapv2_authenticator, uses=frozenset({"retries"})),
    "eap-peap": AuthenticatorKind(
        make=_peap_authenticator,
        uses=_CLIENTS | _JUDGED_ELSEWHERE | _RESUMED | {"inner", "retries", "require_cryptobinding"},
        mutual=True,
    ),
    "eap-tls": AuthenticatorKind(
        make=_tls_authenticator, uses=_CLIENTS | _RESUMED, needs=(("ca",),), mutual=True, users=False
    ),
    "eap-ttls": AuthenticatorKind(
        make=_ttls_authenticator, uses=_CLIENTS | _JUDGED_ELSEWHERE | _RESUMED | {"inner", "retries"}, mutual=True
    ),
}


def may_stand_alone(logins: Sequence[str]) -> bool:
    """True for log-ins by EAP methods of which one proves the gateway as well, as RFC 5998 asks: only such are then
    taken."""
    return any(PEERS[login].mutual for login in logins if login in PEERS)


def peer_factory(logins: Sequence[str], inputs: PeerInputs, new_session: NewPeer = EapPeer) -> Callable[[Ask], EapPeer]:
    """Makes the user's side of one log-in; the server proposes one of these methods. The first one says who logs in.
    `new_session`: a dialect's own."""
    inputs = replace(inputs, logins=tuple(logins))
    methods = [PEERS[login].make(inputs) for login in logins]

    outer = inputs.tunnel.outer_identity if inputs.tunnel is not None else None

    def new_peer(ask: Ask) -> EapPeer:
        first = methods[0]
        identity = first.offer() if isinstance(first, CardPeerFactory) else outer or inputs.username
        for method in methods[1:]:
            if isinstance(method, CardPeerFactory):
                method.offer(identity)
        return new_session(ask, identity, methods)

    return new_peer


def authenticator_factory(
    logins: Sequence[str],
    inputs: AuthenticatorInputs,
    scope: Callable[[Ask], Ask],
    new_session: NewAuthenticator = EapAuthenticator,
) -> Callable[[Ask], EapAuthenticator]:
    """Makes the gateway's side of one log-in; methods are proposed in this order. `scope` limits which users it may
    ask for; `new_session`: a dialect's own."""
    inputs = replace(inputs, logins=tuple(logins))
    methods = [AUTHENTICATORS[login].make(inputs) for login in logins]
    return lambda ask: new_session(scope(ask), methods)

"""EAP methods as configurations name them: what each wants of the configuration, and how its sessions are made.

Another method is its name in `EapLogin`, a row in `PEERS` and one in `AUTHENTICATORS`, and the keys of the
configuration that are its own. Methods are imported when a row is used: a start is imports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.questions import Ask

if TYPE_CHECKING:
    from ikeway.eap.method import AuthenticatorMethodFactory, PeerMethodFactory

EapLogin = Literal["eap-mschapv2", "eap-gtc", "eap-md5"]
EAP_LOGINS: tuple[str, ...] = get_args(EapLogin)
ALONE_REFUSED = "`eap-only` needs a log-in by an EAP method that proves the gateway too, and {login} does not"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerInputs:
    """What a profile gives to the user's side of a method."""

    username: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticatorInputs:
    """What a gateway's configuration gives to its side of a method."""

    server_name: bytes
    retries: int = 0  # more passwords that may be tried in one log-in
    after_password: bool = False  # a log-in before this one took the password: only the code is asked for


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


_MD5_WARNING = (
    "eap-md5 gives no key that ties the log-in to the connection, does not prove the gateway, and lets whoever runs it "
    "guess the password from one log-in; prefer eap-mschapv2, or better a method with TLS"
)
_CODE = frozenset({"code", "totp"})

PEERS: Mapping[str, PeerKind] = {
    "eap-gtc": PeerKind(make=_gtc_peer, uses=frozenset({"username", "password"}) | _CODE),
    "eap-md5": PeerKind(make=_md5_peer, uses=frozenset({"username", "password"}), warning=_MD5_WARNING),
    "eap-mschapv2": PeerKind(make=_mschapv2_peer, uses=frozenset({"username", "password"})),
}
AUTHENTICATORS: Mapping[str, AuthenticatorKind] = {
    "eap-gtc": AuthenticatorKind(make=_gtc_authenticator),
    "eap-md5": AuthenticatorKind(make=_md5_authenticator, warning=_MD5_WARNING),
    "eap-mschapv2": AuthenticatorKind(make=_mschapv2_authenticator, uses=frozenset({"retries"})),
}


def may_stand_alone(logins: Sequence[str]) -> bool:
    """True for log-ins by EAP methods of which one proves the gateway as well, as RFC 5998 asks: only such are then
    taken."""
    return any(PEERS[login].mutual for login in logins if login in PEERS)


def peer_factory(logins: Sequence[str], inputs: PeerInputs) -> Callable[[Ask], EapPeer]:
    """Makes the user's side of one log-in; the server proposes one of these methods."""
    methods = [PEERS[login].make(inputs) for login in logins]
    return lambda ask: EapPeer(ask, inputs.username, methods)


def authenticator_factory(
    logins: Sequence[str], inputs: AuthenticatorInputs, scope: Callable[[Ask], Ask]
) -> Callable[[Ask], EapAuthenticator]:
    """Makes the gateway's side of one log-in; methods are proposed in this order. `scope` limits which users it may
    ask for."""
    methods = [AUTHENTICATORS[login].make(inputs) for login in logins]
    return lambda ask: EapAuthenticator(scope(ask), methods)

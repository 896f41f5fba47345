"""EAP sessions as configurations name them."""

from __future__ import annotations

from collections.abc import Callable

from ikeway.eap.mschapv2 import MsChapV2Authenticator, MsChapV2Peer
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.questions import Ask


def may_stand_alone(login: str) -> bool:
    """True for a log-in by an EAP method that proves the gateway as well, as RFC 5998 asks. None of today's does."""
    return login == "eap-mschapv2" and MsChapV2Peer.mutual


ALONE_REFUSED = "`eap-only` needs a log-in by an EAP method that proves the gateway too, and {login} does not"


def peer_factory(username: str) -> Callable[[Ask], EapPeer]:
    """Makes the user's side of EAP-MSCHAPv2 for one log-in."""
    identity = username.encode()
    return lambda ask: EapPeer(ask, identity, [lambda: MsChapV2Peer(identity)])


def authenticator_factory(server_name: str, scope: Callable[[Ask], Ask]) -> Callable[[Ask], EapAuthenticator]:
    """Makes the gateway's side of EAP-MSCHAPv2 for one log-in; `scope` limits which users it may ask for."""
    name = server_name.encode()
    return lambda ask: EapAuthenticator(scope(ask), [lambda: MsChapV2Authenticator(name)])

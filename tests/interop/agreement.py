"""What client and gateway of a case agree on, or do not, said without any daemon's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.interop.network import LAN_NETWORK, POOL, Way
from tests.interop.pki import Credential, issue

GATEWAY_NAME = "vpn.lab.test"
CLIENT_NAME = "alice@lab.test"
SECRET = "correct horse battery staple"
PASSWORD = "Tr0ub4dor & 3"

MODERN_IKE = "aes256gcm16-prfsha256-x25519"
MODERN_ESP = "aes256gcm16"


@dataclass(frozen=True, kw_only=True)
class Party:
    """One side's half of the agreement."""

    auth: str = "psk"  # psk, cert; for the client also an EAP method as both daemons call it, such as eap-mschapv2
    identity: str
    expects: str  # identity or pattern that the other side must prove
    secret: str = field(default=SECRET, repr=False)
    password: str = field(default=PASSWORD, repr=False)
    credential: Credential | None = None  # for cert, and for EAP methods with certificates of the client
    # The client's: EAP methods by which it logs in once more after that, one by one, and its password there.
    then: tuple[str, ...] = ()
    then_password: str = field(default=PASSWORD, repr=False)
    second: Credential | None = None  # by which charon as the gateway proves itself once more
    trusts: Credential | None = None  # its issuer is the trust anchor
    ike: str = MODERN_IKE
    esp: str = MODERN_ESP
    # Networks behind the gateway, a child SA each.
    networks: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"net": (LAN_NETWORK[4],)})
    rekey_child: float = 0  # seconds, 0: never by itself
    rekey_bytes: int = 0
    rekey_ike: float = 0
    dpd: float = 0
    mobike: bool = True
    fragment_size: int = 1280
    patient: bool = True  # retransmit for a long time; else give up after about 4 seconds
    data_plane: str = "userspace"  # or "kernel", where it has IPsec
    mode: str = "tunnel"  # in transport mode there are neither networks nor pools
    # What only one of the daemons can be told. Sections laid over the profile or the gateway's configuration of ours, in
    # which [connections.lab] is the only connection; keys of the one user of ours; keys of strongswan.conf's section
    # charon; keys of the round in charon's connection in which the client proves itself.
    ours: Mapping[str, Any] = field(default_factory=dict)
    user: Mapping[str, Any] | None = None  # None: the password
    charon: Mapping[str, Any] = field(default_factory=dict)
    charon_round: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)  # of the process of ours


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Both halves, and the road between them."""

    client: Party
    gateway: Party
    way: Way = Way.WAN
    pool: dict[int, str] = field(default_factory=lambda: {4: POOL[4]})
    always_cookie: bool = False


def agreement(
    auth: str = "psk", *, client: dict | None = None, gateway: dict | None = None, both: dict | None = None, **rest
) -> Agreement:
    """An agreement by kind of authentication: "psk", "rsa", "ecdsa", "ed25519", or an EAP method with passwords; for one
    with certificates give the client a `credential` and the gateway whom it `trusts`."""
    ours: dict = {"identity": CLIENT_NAME, "expects": GATEWAY_NAME}
    theirs: dict = {"identity": GATEWAY_NAME, "expects": CLIENT_NAME}
    if auth in {"rsa", "ecdsa", "ed25519"}:
        mine, other = issue(auth, CLIENT_NAME), issue(auth, GATEWAY_NAME, server=True)
        ours |= {"auth": "cert", "credential": mine, "trusts": other}
        theirs |= {"auth": "cert", "credential": other, "trusts": mine}
    elif auth.startswith("eap-"):
        other = issue("ecdsa", GATEWAY_NAME, server=True)
        ours |= {"auth": auth, "trusts": other}
        theirs |= {"auth": "cert", "credential": other, "expects": "*"}
    return Agreement(
        client=Party(**(ours | (both or {}) | (client or {}))),
        gateway=Party(**(theirs | (both or {}) | (gateway or {}))),
        **rest,
    )

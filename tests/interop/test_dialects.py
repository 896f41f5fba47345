"""Dialects of gateways that are not at hand, to a gateway that knows none of them: what they add is in nobody's way."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.agreement import CLIENT_NAME, PASSWORD, Agreement, agreement
from tests.interop.freeradius import RADIUS_SECRET, FreeRadius
from tests.interop.lab import Pair, Tunnel
from tests.interop.network import LAN_HOST, Network
from tests.interop.ours import IkewayGateway
from tests.interop.pki import issue
from tests.interop.strongswan import ConnectFailed

pytestmark = pytest.mark.peer

Make = Callable[[Pair, Agreement], Tunnel]


# What charon logs of what the dialect sent.
SEEN = {
    "anyconnect": r"CISCO-DELETE-REASON|Cisco Delete Reason|CISCO-ANYCONNECT-EAP|43:49:53:43:4f:2d",
    "fortigate": r"4c:53:42:7b:6d:46:5d:1b",
    "windows": r"MS NT5 ISAKMPOAKLEY",
}


@pytest.mark.parametrize("auth", ["eap-mschapv2", "rsa"])
@pytest.mark.parametrize("dialect", list(SEEN))
def test_charon_passes_over_what_a_dialect_adds(tunnel: Make, dialect: str, auth: str) -> None:
    login = {"method": "certificate" if auth == "rsa" else auth}
    ours = {"gateway": {"dialect": dialect}, "login": login}
    made = tunnel(Pair("ikeway", "charon"), agreement(auth, client={"ours": ours}))
    made.client.connect()
    made.check_ping()
    assert re.search(SEEN[dialect], made.charon.log())
    made.client.close()


@pytest.mark.programs("freeradius", "freeradius-utils")
@pytest.mark.parametrize("password", [PASSWORD, "wrong"], ids=["right", "wrong"])
def test_freeradius_judges_the_passwords_of_anyconnect(
    tunnel: Make, network: Network, tmp_path: Path, password: str
) -> None:
    """Client and gateway are ours, who lets the user in is not."""
    users = f'"{CLIENT_NAME}" Cleartext-Password := "{PASSWORD}"\n'
    server = FreeRadius(network.lan, tmp_path / "radius", issue("ecdsa", "radius.lab.test", server=True), users)
    connection = {"login": "eap-anyconnect", "dialect": "anyconnect", "radius": "lab", "identities": None}
    gateway = {
        "gateway": {"users": None},
        "radius": {"lab": {"servers": [LAN_HOST[4]], "secret": RADIUS_SECRET}},
        "connections": {"lab": connection},
    }
    login = {"method": "eap-anyconnect", "identity": None, "username": CLIENT_NAME, "password": password}
    client = {"gateway": {"dialect": "anyconnect"}, "login": login}
    try:
        agreed = agreement("eap-gtc", client={"ours": client}, gateway={"ours": gateway})
        made = tunnel(Pair("ikeway", "ikeway"), agreed)
        if password != PASSWORD:
            with pytest.raises(ConnectFailed):
                made.client.connect()
            assert isinstance(made.gateway, IkewayGateway)
            made.gateway.wait_for_log("wrong password, or no such user")
            return
        made.client.connect()
        made.check_ping()
        made.client.close()
    finally:
        server.stop()

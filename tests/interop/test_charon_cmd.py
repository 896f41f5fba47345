"""strongSwan's other client: charon-cmd, as people start it by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from tests.interop.agreement import Agreement, agreement
from tests.interop.lab import Lab, Pair, Tunnel
from tests.interop.network import LAN_HOST
from tests.interop.strongswan import ConnectFailed
from tests.interop.traffic import ping, transfer

pytestmark = pytest.mark.peer

Make = Callable[[Pair, Agreement], Tunnel]
every_gateway = pytest.mark.parametrize("gateway", ["charon", "ikeway"])


def known_to_charon_cmd(auth: str) -> Agreement:
    """charon-cmd offers no proposals of our choice; it makes RSA signatures only."""
    agreed = agreement(auth)
    offered = "aes128gcm16-prfsha256-x25519, aes256-sha256-x25519, aes128-sha256-ecp256, aes128-sha256-modp2048"
    gateway = dataclasses.replace(agreed.gateway, ike=offered, esp="aes128gcm16, aes256-sha256, aes128-sha256")
    return dataclasses.replace(agreed, gateway=gateway)


@every_gateway
@pytest.mark.parametrize("auth", ["eap-mschapv2", "rsa"])
def test_charon_cmd(tunnel: Make, lab: Lab, gateway: str, auth: str) -> None:
    made = tunnel(Pair("charon-cmd", gateway), known_to_charon_cmd(auth))
    made.client.connect()
    network = lab.network
    assert ping(network.client, LAN_HOST[4]).lost == 0
    transfer(network.client, network.lan, LAN_HOST[4], megabytes=100 if gateway == "ikeway" else 10)
    made.client.close()


@every_gateway
def test_charon_cmd_with_a_wrong_password(tunnel: Make, gateway: str) -> None:
    agreed = known_to_charon_cmd("eap-mschapv2")
    wrong = dataclasses.replace(agreed.client, password="wrong")
    made = tunnel(Pair("charon-cmd", gateway), dataclasses.replace(agreed, client=wrong))
    with pytest.raises(ConnectFailed, match=r"EAP.*failed|AUTHENTICATION_FAILED|EAP_FAILURE"):
        made.client.connect()

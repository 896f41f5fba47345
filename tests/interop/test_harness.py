"""The peers among themselves: what fails here is the fault of the lab, not of Ikeway."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.interop.agreement import Agreement, agreement
from tests.interop.lab import THEIRS, Pair, Tunnel
from tests.interop.network import Network, Way
from tests.interop.strongswan import ConnectFailed
from tests.interop.traffic import ping

pytestmark = pytest.mark.peer

Make = Callable[[Pair, Agreement], Tunnel]


@pytest.mark.parametrize("way", Way)
def test_the_network_carries_packets_on_every_way(network: Network, way: Way) -> None:
    assert ping(network.client, way.gateway).lost == 0


def test_the_narrow_way_carries_no_long_ike_message(tunnel: Make, network: Network) -> None:
    """IKE_AUTH with certificates, not cut into fragments: it is what the other cases are to avoid."""
    before = network.narrow_drops()
    made = tunnel(THEIRS, agreement("rsa", way=Way.NARROW, both={"fragment_size": 0, "patient": False}))
    with pytest.raises(ConnectFailed):
        made.client.connect()
    assert network.narrow_drops() > before


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("auth", ["psk", "rsa", "ecdsa", "ed25519", "eap-mschapv2"])
def test_strongswan_meets_strongswan(tunnel: Make, auth: str, way: Way) -> None:
    made = tunnel(THEIRS, agreement(auth, way=way, both={"fragment_size": 560}))
    made.client.connect()
    made.check_ping()
    if auth == "psk":
        made.check_transfer(10)
    made.client.close()
    assert made.charon.sas() == []


def test_a_wrong_secret_is_seen(tunnel: Make) -> None:
    made = tunnel(THEIRS, agreement("psk", client={"secret": "wrong"}))
    with pytest.raises(ConnectFailed, match="AUTHENTICATION_FAILED"):
        made.client.connect()

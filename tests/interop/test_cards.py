"""Log-ins by SIM card keys. Our client through strongSwan's gateway and through ours, which pass EAP on to hostapd by
RADIUS; our client at our own gateway, also where nothing but EAP proves it. (Debian's strongSwan has EAP-AKA, and no
plug-in that knows keys.)"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.eap.hostap import hostapd
from tests.eap.radius_stage import SECRET
from tests.eap.sim_sides import KI, OPC
from tests.interop.agreement import Agreement, agreement
from tests.interop.lab import Lab, Pair, Tunnel
from tests.interop.strongswan import PLUGINS, ConnectFailed
from tests.interop.test_passwords import carries
from tests.interop.waiting import wait_until

pytestmark = pytest.mark.peer

Make = Callable[[Pair, Agreement], Tunnel]
IMSI = "001010000000001"
KEYS = {"ki": KI.hex(), "opc": OPC.hex()}
DIGITS = {"eap-sim": "1", "eap-aka": "0", "eap-aka-prime": "6"}
every = pytest.mark.parametrize("method", list(DIGITS))
OURS, TO_CHARON = Pair("ikeway", "ikeway"), Pair("ikeway", "charon")


def login(method: str | list[str], **keys: Any) -> dict[str, Any]:
    return {"ours": {"login": {"method": method, "password": None, "username": IMSI} | KEYS | keys}}


def through_charon(method: str, port: int, **keys: Any) -> Agreement:
    server = {"address": "127.0.0.1", "port": str(port), "secret": SECRET.decode()}
    relay = {"load": f"{PLUGINS} eap-radius", "plugins": {"eap-radius": {"servers": {"hostapd": server}}}}
    return agreement(
        method, client=login(method, **keys), gateway={"charon": relay, "charon_round": {"auth": "eap-radius"}}
    )


@pytest.mark.programs("hostapd")
@every
def test_through_charon_to_hostapd(tunnel: Make, lab: Lab, tmp_path: Path, method: str) -> None:
    with hostapd(tmp_path, popen=lab.network.gateway.popen) as server:
        made = tunnel(TO_CHARON, through_charon(method, server.port))
        carries(made)
        assert server.asked == ["SIM-REQ-AUTH" if method == "eap-sim" else "AKA-REQ-AUTH"]
        assert f"received EAP identity '{DIGITS[method]}{IMSI}'" in made.charon.log()


@pytest.mark.programs("hostapd")
@every
def test_through_our_gateway_to_hostapd(tunnel: Make, lab: Lab, tmp_path: Path, method: str) -> None:
    with hostapd(tmp_path, popen=lab.network.gateway.popen) as server:
        servers = {"servers": [f"127.0.0.1:{server.port}"], "secret": SECRET.decode()}
        ours = {
            "gateway": {"users": None},
            "radius": {"lab": servers},
            "connections": {"lab": {"login": "eap", "radius": "lab", "identities": None}},
        }
        carries(tunnel(OURS, agreement(method, client=login(method), gateway={"ours": ours})))
        assert server.asked == ["SIM-REQ-AUTH" if method == "eap-sim" else "AKA-REQ-AUTH"]


@pytest.mark.programs("hostapd")
@every
def test_a_reconnection_is_fast(tunnel: Make, lab: Lab, tmp_path: Path, method: str) -> None:
    """Under an identity of hostapd's, with the keys of the first log-in: no vector is asked for."""
    with hostapd(tmp_path, popen=lab.network.gateway.popen) as server:
        agreed = through_charon(method, server.port)
        ours = dict(agreed.client.ours) | {"session": {"reconnect": True}}
        made = tunnel(TO_CHARON, replace(agreed, client=replace(agreed.client, ours=ours)))
        made.client.connect()
        before = [made.sa().id]
        made.gateway.close()
        wait_until(
            lambda: [sa.id for sa in made.charon.sas()] not in ([], before), "it does not come again", 20, made.logs
        )
        wait_until(lambda: made.client.call("status")["state"] == "up", "it is not up", 10, made.logs)  # type: ignore[attr-defined]
        made.check_ping()
        assert len(server.asked) == 1
        told = re.findall("received EAP identity '(.*)'", made.charon.log())
        assert len(told) == 2 and IMSI in told[0] and IMSI not in told[1]


@pytest.mark.programs("hostapd")
@every
def test_another_key_at_hostapd(tunnel: Make, lab: Lab, tmp_path: Path, method: str) -> None:
    with hostapd(tmp_path, popen=lab.network.gateway.popen) as server:
        made = tunnel(TO_CHARON, through_charon(method, server.port, ki=bytes(16).hex()))
        with pytest.raises(ConnectFailed, match="Ki and OPc"):
            made.client.connect()
        assert not made.charon.sas()


def to_ours(method: str | list[str], **options: Any) -> Agreement:
    """An agreement with a gateway of ours whose one user has a card."""
    offered = [method] if isinstance(method, str) else method
    return agreement(
        offered[0],
        client=login(offered, **({"username": None} | options.get("client", {}))),
        gateway={"user": KEYS | options.get("user", {}), "ours": options.get("gateway", {})},
    )


@every
def test_at_our_own_gateway(tunnel: Make, method: str) -> None:
    carries(tunnel(OURS, to_ours(method)))


def test_the_better_method_is_taken(tunnel: Make) -> None:
    gateway = {"connections": {"lab": {"login": ["eap-aka-prime", "eap-aka"]}}}
    made = tunnel(OURS, to_ours(["eap-aka-prime", "eap-aka"], gateway=gateway))
    carries(made)
    assert "EAP-AKA'" in made.gateway.log()


@pytest.mark.parametrize("method", ["eap-aka", "eap-aka-prime"])
def test_nothing_but_the_card_proves_the_gateway(tunnel: Make, method: str) -> None:
    """RFC 5998: no certificate on either side."""
    agreed = to_ours(
        method,
        gateway={
            "gateway": {"certificate": None, "key": None},
            "connections": {"lab": {"gateway_authentication": "eap-only"}},
        },
    )
    ours = dict(agreed.client.ours) | {"gateway": {"authentication": "eap-only", "ca": None}}
    carries(tunnel(OURS, replace(agreed, client=replace(agreed.client, ours=ours))))


@every
@pytest.mark.parametrize("wrong", ["key", "user"])
def test_who_is_refused_at_our_own_gateway(tunnel: Make, method: str, wrong: str) -> None:
    options = {"client": {"ki": bytes(16).hex()}} if wrong == "key" else {"client": {"username": "mallory@lab.test"}}
    made = tunnel(OURS, to_ours(method, **options))
    with pytest.raises(ConnectFailed, match="Ki and OPc"):
        made.client.connect()
    made.gateway.wait_for_log("no subscriber 'mallory@lab.test'" if wrong == "user" else "Ki and OPc")  # type: ignore[attr-defined]


def test_a_network_of_another_name(tunnel: Make) -> None:
    gateway = {"connections": {"lab": {"network_name": "HRPD"}}}
    made = tunnel(OURS, to_ours("eap-aka-prime", gateway=gateway, client={"network_name": "WLAN"}))
    with pytest.raises(ConnectFailed, match="the network has another name"):
        made.client.connect()

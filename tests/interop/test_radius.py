"""Clients that FreeRADIUS judges: behind our gateway, and behind strongSwan's with our client."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.interop.agreement import CLIENT_NAME, GATEWAY_NAME, PASSWORD, Agreement, agreement
from tests.interop.freeradius import RADIUS_SECRET, FreeRadius, radclient
from tests.interop.lab import Pair, Tunnel
from tests.interop.network import LAN_HOST, Network, socket_in
from tests.interop.ours import IkewayGateway
from tests.interop.pki import issue
from tests.interop.strongswan import PLUGINS, ConnectFailed
from tests.interop.waiting import wait_until

pytestmark = [pytest.mark.peer, pytest.mark.programs("freeradius", "freeradius-utils")]

Make = Callable[[Pair, Agreement], Tunnel]
COA_PORT = 3799
USER = f'"{CLIENT_NAME}" Cleartext-Password := "{PASSWORD}"\n'


def user(*replies: str) -> str:
    """Alice, and what the server replies for her."""
    return USER + "\t" + ",\n\t".join(replies) + "\n" if replies else USER


@pytest.fixture
def serve(network: Network, tmp_path: Path) -> Iterator[Callable[..., FreeRadius]]:
    """Starts FreeRADIUS in the LAN."""
    started: list[FreeRadius] = []

    def start(users: str = USER, **options: Any) -> FreeRadius:
        credential = issue("ecdsa", "radius.lab.test", server=True)
        started.append(FreeRadius(network.lan, tmp_path / "radius", credential, users, **options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def relayed(
    method: str = "eap-mschapv2",
    *,
    servers: tuple[str, ...] = (LAN_HOST[4],),
    connections: Mapping[str, Any] | None = None,
    client: Mapping[str, Any] | None = None,
    gateway: Mapping[str, Any] | None = None,
    **radius: Any,
) -> Agreement:
    """A gateway of ours that asks FreeRADIUS."""
    settings = {"servers": list(servers), "secret": RADIUS_SECRET, "timeout": "1s", "tries": 2} | radius
    ours = {
        "gateway": {"users": None},
        "radius": {"lab": settings},
        "connections": {"lab": {"login": "eap", "radius": "lab", "identities": None}, **(connections or {})},
    }
    return agreement(method, gateway={"ours": ours, **(gateway or {})}, client=dict(client or {}))


@pytest.mark.parametrize("client", ["ikeway", "charon", "charon-cmd"])
def test_mschapv2_behind_our_gateway(tunnel: Make, serve: Callable[..., FreeRadius], client: str) -> None:
    server = serve(user("Class = 0x01020304"))
    proposals = "aes128gcm16-prfsha256-x25519, aes256-sha256-x25519, aes128-sha256-ecp256, aes128-sha256-modp2048"
    wide = {"ike": proposals, "esp": "aes128gcm16, aes256-sha256, aes128-sha256"} if client == "charon-cmd" else {}
    made = tunnel(Pair(client, "ikeway"), relayed(accounting=True, gateway=wide))
    made.client.connect()
    gateway = ours(made)
    (session,) = gateway.sessions()
    assert session.eap_identity == CLIENT_NAME
    start = server.wait_for_record("Start")
    transferred = made.check_transfer(20) if client != "charon-cmd" else None
    made.client.close()
    stop = server.wait_for_record("Stop")
    assert start.attributes["User-Name"] == stop.attributes["User-Name"] == CLIENT_NAME
    assert start.attributes["Framed-IP-Address"] == session.addresses[0]
    assert stop.attributes["Acct-Session-Id"] == start.attributes["Acct-Session-Id"]
    assert stop.attributes["Class"] == "0x01020304"
    assert stop.attributes["Acct-Terminate-Cause"] == "User-Request"
    assert start.attributes["NAS-Identifier"] == GATEWAY_NAME
    if transferred is not None:
        # 20 MB were sent to the LAN and 2 MB back, in as many octets of inner packets and some more.
        assert 20_000_000 <= stop.number("Acct-Input-Octets") < 26_000_000
        assert 2_000_000 <= stop.number("Acct-Output-Octets") < 6_000_000
        assert stop.number("Acct-Input-Packets") > 10_000


def ours(made: Tunnel) -> IkewayGateway:
    assert isinstance(made.gateway, IkewayGateway)
    return made.gateway


def nobody_is_in(made: Tunnel) -> None:
    """The client may have heard of its refusal before the gateway was done with it."""
    wait_until(lambda: not ours(made).sessions(), "a session is left", logs=made.logs)


def test_octets_of_rekeyed_sas_are_in_the_account(tunnel: Make, serve: Callable[..., FreeRadius]) -> None:
    server = serve()
    made = tunnel(Pair("charon", "ikeway"), relayed(accounting=True))
    made.client.connect()
    made.check_transfer(10)
    before = {child.spi_in for child in ours(made).sessions()[0].children}
    made.gateway.rekey("child")
    wait_until(lambda: before.isdisjoint(child.spi_in for child in ours(made).sessions()[0].children), "no new keys")
    time.sleep(6)  # until the old SA is gone
    made.check_transfer(10)
    made.client.close()
    assert 20_000_000 <= server.wait_for_record("Stop").number("Acct-Input-Octets") < 26_000_000


@pytest.mark.parametrize("method", ["eap-md5", "eap-gtc"])
@pytest.mark.parametrize("client", ["charon", "ikeway"])
def test_methods_without_a_key(tunnel: Make, serve: Callable[..., FreeRadius], method: str, client: str) -> None:
    """The server proposes MSCHAPv2, and the client declines."""
    serve()
    made = tunnel(Pair(client, "ikeway"), relayed(method))
    made.client.connect()
    made.check_ping()


@pytest.mark.parametrize(("client", "tls"), [("charon", "1.2"), ("ikeway", "1.2"), ("ikeway", "1.3")])
def test_tls(tunnel: Make, serve: Callable[..., FreeRadius], client: str, tls: str) -> None:
    """The certificate of the client goes over RADIUS in several pieces."""
    mine = issue("rsa", CLIENT_NAME)
    serve("DEFAULT Auth-Type := eap\n", trusts=mine, method="tls", tls=tls)
    made = tunnel(Pair(client, "ikeway"), relayed("eap-tls", client=through_tls() | {"credential": mine}))
    made.client.connect()
    made.check_ping()


@pytest.mark.parametrize(
    ("client", "method", "inner"),
    [
        ("charon", "eap-ttls", ""),
        ("ikeway", "eap-ttls", "pap"),
        ("ikeway", "eap-ttls", "eap-md5"),
        ("ikeway", "eap-peap", "eap-mschapv2"),
        ("ikeway", "eap-peap", "eap-gtc"),
    ],
)
def test_tunnelled(tunnel: Make, serve: Callable[..., FreeRadius], client: str, method: str, inner: str) -> None:
    serve(method=method.removeprefix("eap-"))
    made = tunnel(Pair(client, "ikeway"), relayed(method, client=through_tls(inner)))
    made.client.connect()
    made.check_ping()


def test_eap_alone_proves_the_gateway_by_its_radius_server(tunnel: Make, serve: Callable[..., FreeRadius]) -> None:
    """RFC 5998: the gateway has no certificate; the server proposes MSCHAPv2, and is declined."""
    mine = issue("rsa", CLIENT_NAME)
    serve("DEFAULT Auth-Type := eap\n", trusts=mine)
    agreed = relayed("eap-tls", client=alone(through_tls()) | {"credential": mine})
    agreed.gateway.ours["connections"]["lab"]["gateway_authentication"] = "eap-only"
    agreed.gateway.ours["gateway"] |= {"certificate": None, "key": None}
    made = tunnel(Pair("ikeway", "ikeway"), agreed)
    made.client.connect()
    made.check_ping()


@pytest.mark.parametrize("method", ["eap-mschapv2", "eap-md5"])
def test_eap_alone_is_not_for_methods_that_prove_no_gateway(
    tunnel: Make, serve: Callable[..., FreeRadius], method: str
) -> None:
    """strongSwan's client would take them, with nothing proven but the client; our gateway lets none of them through."""
    serve()
    agreed = relayed(method)
    agreed.gateway.ours["connections"]["lab"]["gateway_authentication"] = "eap-only"
    agreed.gateway.ours["gateway"] |= {"certificate": None, "key": None}
    made = tunnel(Pair("charon", "ikeway"), agreed)
    with pytest.raises(ConnectFailed):
        made.client.connect()
    ours(made).wait_for_log("RFC 5998")
    nobody_is_in(made)


def alone(client: dict[str, Any]) -> dict[str, Any]:
    """A client that wants no other proof of the gateway than EAP."""
    return client | {"ours": client["ours"] | {"gateway": {"authentication": "eap-only"}}}


def through_tls(inner: str = "") -> dict[str, Any]:
    """What methods with TLS are told: whom to expect there."""
    login = {"server_identity": "radius.lab.test"} | ({"inner": inner} if inner else {})
    return {
        "charon": {"load": f"{PLUGINS} eap-tls eap-ttls"},
        "charon_round": {"aaa_id": "radius.lab.test"},
        "ours": {"login": login},
    }


@pytest.mark.parametrize("code", ["", "314159"])
def test_passwords_that_radius_judges(tunnel: Make, serve: Callable[..., FreeRadius], code: str) -> None:
    """EAP-GTC, ours on both sides; a second factor is asked for in the server's words."""
    serve(code=code)
    agreed = relayed("eap-gtc", client={"ours": {"login": {"code": code}}} if code else None)
    agreed.gateway.ours["connections"]["lab"]["login"] = "eap-gtc"
    made = tunnel(Pair("ikeway", "ikeway"), agreed)
    made.client.connect()
    made.check_ping()


def test_passwords_in_a_tunnel_that_radius_judges(tunnel: Make, serve: Callable[..., FreeRadius]) -> None:
    """The tunnel of EAP-TTLS ends at the gateway, and what comes out of it goes to the server."""
    server = serve(user("Framed-IP-Address = 10.92.0.78"))
    agreed = relayed("eap-ttls", client={"ours": {"login": {"inner": "pap"}}}, accounting=True)
    agreed.gateway.ours["connections"]["lab"] |= {"login": "eap-ttls", "inner": "pap"}
    made = tunnel(Pair("ikeway", "ikeway"), agreed)
    made.client.connect()
    assert made.virtual(4) == "10.92.0.78"
    made.check_ping()
    assert server.wait_for_record("Start").attributes["User-Name"] == CLIENT_NAME


def test_an_old_server_that_signs_nothing(tunnel: Make, serve: Callable[..., FreeRadius]) -> None:
    """Debian 12's, as it is: its answers to passwords could be forged (CVE-2024-3596)."""
    serve(signed=False)
    agreed = relayed("eap-gtc")
    agreed.gateway.ours["connections"]["lab"]["login"] = "eap-gtc"
    made = tunnel(Pair("ikeway", "ikeway"), agreed)
    with pytest.raises(ConnectFailed):
        made.client.connect()
    ours(made).wait_for_log("CVE-2024-3596")
    made.stop()
    agreed.gateway.ours["radius"]["lab"]["require_message_authenticator"] = False
    made = tunnel(Pair("ikeway", "ikeway"), agreed)
    made.client.connect()
    made.check_ping()


def test_a_password_that_radius_refuses(tunnel: Make, serve: Callable[..., FreeRadius]) -> None:
    serve(user('Reply-Message = "hello"'), code="314159")
    agreed = relayed("eap-gtc", client={"ours": {"login": {"code": "271828"}}})
    agreed.gateway.ours["connections"]["lab"]["login"] = "eap-gtc"
    made = tunnel(Pair("ikeway", "ikeway"), agreed)
    with pytest.raises(ConnectFailed):
        made.client.connect()
    ours(made).wait_for_log("the RADIUS server")
    assert "271828" not in made.gateway.log()


def test_our_client_logs_in_again_before_its_time_is_over(tunnel: Make, serve: Callable[..., FreeRadius]) -> None:
    serve(user("Session-Timeout = 10"))
    made = tunnel(Pair("ikeway", "ikeway"), relayed(accounting=True))
    made.client.connect()
    (first,) = ours(made).sessions()
    wait_until(lambda: {each.id for each in ours(made).sessions()} - {first.id} != set(), "no log-in anew", 15)
    wait_until(lambda: len(ours(made).sessions()) == 1, "the old one stays", 5)
    (second,) = ours(made).sessions()
    assert second.addresses == first.addresses
    made.check_ping()


def test_an_address_of_the_user(tunnel: Make, serve: Callable[..., FreeRadius]) -> None:
    serve(user("Framed-IP-Address = 10.92.0.77", "Framed-IP-Netmask = 255.255.255.0"))
    made = tunnel(Pair("charon", "ikeway"), relayed())
    made.client.connect()
    assert made.virtual(4) == "10.92.0.77"
    made.check_ping()


def test_an_address_outside_of_all_pools_is_routed(tunnel: Make, serve: Callable[..., FreeRadius]) -> None:
    serve(user("Framed-IP-Address = 10.93.7.7"))
    made = tunnel(Pair("charon", "ikeway"), relayed())
    made.client.connect()
    assert made.virtual(4) == "10.93.7.7"
    made.check_ping()


def test_a_group_leads_to_its_connection(tunnel: Make, serve: Callable[..., FreeRadius]) -> None:
    serve(user('Filter-Id = "Staff"'))
    staff = {"login": "eap", "radius": "lab", "groups": ["staff"], "pools": ["staff"], "subnets": ["10.91.1.0/24"]}
    agreed = relayed(connections={"staff": staff})
    agreed.gateway.ours["pools"] = {"staff": {"ipv4": "10.94.0.0/24"}}
    agreed.gateway.ours["connections"]["lab"]["groups"] = ["guests"]
    made = tunnel(Pair("charon", "ikeway"), agreed)
    try:
        made.client.connect()
    except ConnectFailed:
        pass  # its child SA wants the other network
    (session,) = ours(made).sessions()
    assert session.name == "staff" and session.addresses[0].startswith("10.94.0.")


def test_nobodys_group(tunnel: Make, serve: Callable[..., FreeRadius]) -> None:
    serve(user('Filter-Id = "visitors"'))
    agreed = relayed()
    agreed.gateway.ours["connections"]["lab"]["groups"] = ["staff"]
    made = tunnel(Pair("charon", "ikeway"), agreed)
    with pytest.raises(ConnectFailed):
        made.client.connect()
    ours(made).wait_for_log("no connection here is for this user")
    nobody_is_in(made)


def test_a_wrong_password(tunnel: Make, serve: Callable[..., FreeRadius]) -> None:
    serve()
    made = tunnel(Pair("charon", "ikeway"), relayed(client={"password": "wrong"}))
    with pytest.raises(ConnectFailed):
        made.client.connect()
    ours(made).wait_for_log(f"refused.*{CLIENT_NAME}|{CLIENT_NAME}.*refused")
    assert PASSWORD not in made.gateway.log() and RADIUS_SECRET not in made.gateway.log()
    nobody_is_in(made)


def test_fail_over_to_the_second_server(tunnel: Make, serve: Callable[..., FreeRadius], network: Network) -> None:
    serve()
    with socket_in(network.lan, socket.AF_INET, socket.SOCK_DGRAM) as silent:
        network.lan.call(lambda: silent.bind((LAN_HOST[4], 2812)))
        made = tunnel(Pair("charon", "ikeway"), relayed(servers=(f"{LAN_HOST[4]}:2812", LAN_HOST[4]), timeout="300ms"))
        made.client.connect()
    made.check_ping()
    dead, alive = ours(made).call("status")["radius"]
    assert (dead["state"], alive["state"]) == ("dead", "answers") and dead["repeated"] == 1
    ours(made).wait_for_log(re.escape(f"{LAN_HOST[4]}:2812"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"secret": "quite another secret than theirs"}, "knows this gateway as a client"),
        ({"servers": [f"{LAN_HOST[4]}:2812"]}, "nothing listening there"),
        ({"servers": ["radius.invalid"]}, "cannot be looked up"),
    ],
)
def test_servers_of_no_use(tunnel: Make, serve: Callable[..., FreeRadius], changes: dict, said: str) -> None:
    """FreeRADIUS drops a request whose Message-Authenticator is wrong, without a word."""
    serve()
    agreed = relayed()
    agreed.gateway.ours["radius"]["lab"] |= {"timeout": "300ms"} | changes
    made = tunnel(Pair("charon", "ikeway"), agreed)
    with pytest.raises(ConnectFailed):
        made.client.connect()
    ours(made).wait_for_log(said)
    nobody_is_in(made)


def test_session_timeout_ends_it_and_the_client_is_told_before(tunnel: Make, serve: Callable[..., FreeRadius]) -> None:
    server = serve(user("Session-Timeout = 4"))
    made = tunnel(Pair("charon", "ikeway"), relayed(accounting=True))
    made.client.connect()
    assert re.search(r"AUTH_L(I|IFE)|AUTH_LIFETIME", made.charon.log())
    stop = server.wait_for_record("Stop", 20)
    assert stop.attributes["Acct-Terminate-Cause"] in {"Session-Timeout", "User-Request"}
    assert stop.number("Acct-Session-Time") <= 12  # and not without an end


def test_idle_timeout(tunnel: Make, serve: Callable[..., FreeRadius]) -> None:
    server = serve(user("Idle-Timeout = 3"))
    made = tunnel(Pair("charon", "ikeway"), relayed(accounting=True))
    made.client.connect()
    until = time.monotonic() + 5
    while time.monotonic() < until:
        made.check_ping()
        time.sleep(0.3)
    assert ours(made).sessions()
    assert server.wait_for_record("Stop", 20).attributes["Acct-Terminate-Cause"] == "Idle-Timeout"
    made.client.wait_until_gone(10)


def test_disconnect_and_coa(tunnel: Make, serve: Callable[..., FreeRadius], network: Network) -> None:
    server = serve(user('Filter-Id = "staff"'))
    coa = {"listen": "10.91.0.1", "clients": [LAN_HOST[4]]}
    made = tunnel(Pair("charon", "ikeway"), relayed(accounting=True, coa=coa))
    made.client.connect()
    session = server.wait_for_record("Start").attributes["Acct-Session-Id"]

    def say(command: str, **attributes: str | int) -> str:
        stamped = {"Event-Timestamp": int(time.time())} | {
            key.replace("_", "-"): value for key, value in attributes.items()
        }
        return radclient(network.lan, f"10.91.0.1:{COA_PORT}", command, stamped)

    assert "CoA-ACK" in say("coa", User_Name=CLIENT_NAME, Idle_Timeout=600)
    assert "Session-Context-Not-Found" in say("disconnect", User_Name="bob")
    assert "Session-Context-Not-Found" in say("disconnect", Framed_IP_Address="10.92.0.200")
    assert "Missing-Attribute" in say("disconnect")
    assert "NAS-Identification-Mismatch" in say("disconnect", Acct_Session_Id=session, NAS_Identifier="other")
    assert "Unsupported-Attribute" in say("coa", User_Name=CLIENT_NAME, Framed_MTU=1000)
    assert "No reply" in say("disconnect", Acct_Session_Id=session, Event_Timestamp=1000)
    assert ours(made).sessions()
    assert "Disconnect-ACK" in say("disconnect", Acct_Session_Id=session)
    assert server.wait_for_record("Stop").attributes["Acct-Terminate-Cause"] == "Admin-Reset"
    made.client.wait_until_gone(10)


def test_a_gateway_that_ends_closes_its_accounts(tunnel: Make, serve: Callable[..., FreeRadius]) -> None:
    server = serve()
    made = tunnel(Pair("charon", "ikeway"), relayed(accounting=True))
    made.client.connect()
    server.wait_for_record("Start")
    made.gateway.stop()
    assert server.wait_for_record("Stop").attributes["Acct-Terminate-Cause"] == "Admin-Reboot"


@pytest.mark.parametrize(
    ("method", "inner", "tls"),
    [
        ("eap-mschapv2", "", "1.2"),
        ("eap-md5", "", "1.2"),
        ("eap-gtc", "", "1.2"),
        ("eap-tls", "", "1.2"),
        ("eap-tls", "", "1.3"),
        ("eap-ttls", "pap", "1.2"),
        ("eap-ttls", "mschapv2", "1.3"),
        ("eap-peap", "eap-mschapv2", "1.2"),
        ("eap-peap", "eap-gtc", "1.3"),
    ],
)
def test_our_client_behind_strongswans_gateway(
    tunnel: Make, serve: Callable[..., FreeRadius], method: str, inner: str, tls: str
) -> None:
    mine = issue("rsa", CLIENT_NAME)
    users = "DEFAULT Auth-Type := eap\n" if method == "eap-tls" else USER
    serve(users, trusts=mine, method=method.removeprefix("eap-"), tls=tls)
    servers = {"lab": {"address": LAN_HOST[4], "secret": f'"{RADIUS_SECRET}"'}}
    charon = {"load": f"{PLUGINS} eap-radius", "plugins": {"eap-radius": {"servers": servers}}}
    client = through_tls(inner) if method in {"eap-tls", "eap-ttls", "eap-peap"} else {}
    client |= {"credential": mine} if method == "eap-tls" else {}
    gateway = {"charon": charon, "charon_round": {"auth": "eap-radius"}}
    made = tunnel(Pair("ikeway", "charon"), agreement(method, client=client, gateway=gateway))
    made.client.connect()
    made.check_ping()

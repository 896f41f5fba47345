"""`ikeway probe` against gateways that others made, and ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from ikeway.daemon.status import Status
from tests.interop.agreement import GATEWAY_NAME, Agreement, agreement
from tests.interop.lab import Lab, Pair, Tunnel
from tests.interop.network import Network, Way
from tests.interop.waiting import wait_until

pytestmark = pytest.mark.peer

Make = Callable[[Pair, Agreement], Tunnel]
IKE = "aes256gcm16-prfsha384-ecp384"
BOTH = {"ike": f"{IKE}, aes128-sha256-modp2048"}
NAT_INSIDE = "192.168.77.1"
WEAK = {"ike": "3des-sha1-modp1024, aes256-sha1-modp2048"}


def run(network: Network, *words: str) -> subprocess.CompletedProcess[str]:
    process = network.client.popen(
        [sys.executable, "-m", "ikeway", "probe", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = process.communicate(timeout=90)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def ask(network: Network, *words: str) -> dict[str, Any]:
    done = run(network, "--json", "--rate", "50", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def taken(report: dict[str, Any], kind: str) -> set[str]:
    return {each["keyword"] for each in report["transforms"] if each["type"] == kind and each["state"] == "taken"}


@pytest.mark.parametrize("maker", ["charon", "ikeway"])
def test_every_transform_of_a_gateway_is_found_and_no_other(lab: Lab, network: Network, maker: str) -> None:
    gateway = lab.gateway(maker, agreement("eap-mschapv2", gateway=BOTH))
    try:
        report = ask(network, Way.WAN.gateway)
    finally:
        gateway.stop()
    assert [port["answers"] for port in report["ports"]] == [True, True]
    assert taken(report, "ENCR") == {"aes256gcm16", "aes128"}, report
    assert taken(report, "PRF") == {"prfsha384", "prfsha256"}
    assert taken(report, "INTEG") == {"sha256"}
    assert taken(report, "KE") == {"ecp384", "modp2048"}
    assert {each["state"] for each in report["transforms"]} == {"taken", "refused"}
    assert not any(each["weakness"] for each in report["transforms"] if each["state"] == "taken")
    assert report["chosen"] == IKE
    assert report["fragmentation"]
    # charon's userspace ESP needs UDP, so it says that it is behind a NAT.
    assert report["nat"] == {"supported": True, "we_are_behind": False, "gateway_is_behind": maker == "charon"}
    assert report["cookie"]["demanded"] == 0
    assert "INVALID_KE_PAYLOAD" in report["wrong_group"]
    product = report["product"]
    assert product["name"] == ("strongSwan" if maker == "charon" else "Ikeway")
    assert product["confidence"] == ("medium" if maker == "charon" else "low") and product["why"]
    assert set(report["signature_hashes"]) >= {"SHA2_256", "SHA2_384"} and report["weaknesses"] == []
    # IKEv1: charon has it and no connection for it, ours has none.
    refusal = "NO-PROPOSAL-CHOSEN" if maker == "charon" else ""
    assert (report["ikev1"]["answers"], report["ikev1"]["refusal"]) == (bool(refusal), refusal)
    # What it shows before a log-in: who it is, its certificate, and what it would ask.
    shown = report["authentication"]
    assert GATEWAY_NAME in shown["identity"], shown
    assert GATEWAY_NAME in shown["certificates"][0]["facts"]["names"]
    assert shown["eap"].startswith("request"), shown
    assert shown["eap_method"] == "MSCHAPV2"


def half_open(gateway: Any) -> int:
    """IKE SAs that began and did not come to an end."""
    if gateway.is_ours:
        return Status.from_json(gateway.call("status")).half_open
    counts = gateway.charon.vici("stats")["ikesas"]
    assert isinstance(counts, dict)
    return int(str(counts["total"]))


@pytest.mark.parametrize("maker", ["charon", "ikeway"])
def test_a_probe_leaves_nothing_behind(lab: Lab, network: Network, maker: str) -> None:
    agreed = agreement("eap-mschapv2", both=BOTH)
    gateway = lab.gateway(maker, agreed)
    try:
        ask(network, *(["--no-ikev1"] if maker == "ikeway" else []), Way.WAN.gateway)
        wait_until(lambda: half_open(gateway) == 0, "something is left", logs=gateway.log)
        client = lab.client("ikeway", agreed)
        try:
            client.connect()
            assert "COOKIE" not in client.log()  # charon demands one of whoever has three half-open IKE SAs with it
        finally:
            client.stop()
    finally:
        gateway.stop()


def test_weak_algorithms_are_named_first(lab: Lab, network: Network) -> None:
    gateway = lab.gateway("charon", agreement("psk", gateway=WEAK))
    try:
        done = run(network, "--rate", "50", Way.WAN.gateway)
    finally:
        gateway.stop()
    assert done.returncode == 0, done.stderr
    summary = done.stdout.split("\n\n")[0]
    assert "\nWEAK:\n" in summary
    for weak in ("3des", "sha1", "prfsha1", "modp1024"):
        assert f"\n  {weak} " in summary, summary
    assert "shows nothing: AUTHENTICATION_FAILED" in done.stdout, done.stdout  # with a pre-shared key


def test_a_nat_between_is_seen(lab: Lab, network: Network) -> None:
    gateway = lab.gateway("ikeway", agreement("eap-mschapv2", way=Way.NAT))
    forwarded = f"udp dport {{ 500, 4500 }} dnat to {Way.NAT.gateway}"
    try:
        ours = ask(network, "--quick", "--no-ikev1", Way.NAT.gateway)
        network.nat.run(
            ["nft", f"table ip forward {{ chain c {{ type nat hook prerouting priority dstnat; {forwarded}; }}; }}"]
        )
        both = ask(network, "--quick", "--no-ikev1", NAT_INSIDE)
        network.nat.run(["nft", "delete table ip forward"])
    finally:
        gateway.stop()
    assert ours["nat"] == {"supported": True, "we_are_behind": True, "gateway_is_behind": False}
    assert both["nat"] == {"supported": True, "we_are_behind": True, "gateway_is_behind": True}
    for report in (ours, both):
        assert report["transforms"] == []
        assert GATEWAY_NAME in report["authentication"]["identity"], report  # on port 4500 from IKE_AUTH on


def test_ikev1_and_what_is_weak_in_it_are_named(lab: Lab, network: Network) -> None:
    """One charon that speaks both, with Aggressive Mode and a key, and has a post-quantum pre-shared key."""
    agreed = agreement("psk", gateway={"charon": {"i_dont_care_about_security_and_use_aggressive_mode_psk": "yes"}})
    gateway: Any = lab.gateway("charon", agreed)
    try:
        gateway.charon.vici("load-shared", {"id": "ppk", "type": "PPK", "data": "0123456789", "owners": ["ppk1"]})
        old = {"version": "1", "aggressive": "yes", "proposals": ["aes128-sha1-modp1024"], "local_addrs": ["%any"]}
        sides = {"local": {"auth": "psk", "id": GATEWAY_NAME}, "remote": {"auth": "psk"}}
        gateway.charon.load("old", {**old, **sides, "children": {}}, agreed.gateway)
        done = run(network, "--quick", "--rate", "50", Way.WAN.gateway)
        report = ask(network, "--quick", Way.WAN.gateway)
        left = half_open(gateway)
        without = ask(network, "--quick", "--no-ikev1", Way.WAN.gateway)
    finally:
        gateway.charon.vici("unload-conn", {"name": "old"})
        gateway.stop()
    summary = done.stdout.split("\n\n")[0]
    assert summary.startswith(f"{Way.WAN.gateway} speaks IKEv2 and IKEv1\n"), done.stdout
    assert "Aggressive Mode with a pre-shared key" in summary
    assert report["ikev1"]["main_mode"] == report["ikev1"]["aggressive_mode"] == "aes128-sha1-modp1024, pre-shared key"
    assert GATEWAY_NAME in report["ikev1"]["identity"]
    assert "USE_PPK" in report["announced"]
    assert left <= 2 * 2 + 1  # of two probes: of each Main Mode and Aggressive Mode
    assert without["ikev1"] is None


@pytest.mark.parametrize("maker", ["charon", "ikeway"])
def test_cookies_are_followed_and_told(lab: Lab, network: Network, maker: str) -> None:
    agreed = replace(agreement("psk", gateway=BOTH), always_cookie=True)
    gateway = lab.gateway(maker, agreed)
    try:
        if maker == "charon":  # it wants cookies as soon as there is a half-open IKE SA, and this is how to leave one
            ask(network, "--quick", "--no-authentication", "--no-ikev1", Way.WAN.gateway)
            assert half_open(gateway) == 1
        report = ask(network, "--no-ikev1", Way.WAN.gateway)
    finally:
        gateway.stop()
    assert report["cookie"]["demanded"] > 60
    assert report["cookie"]["octets"] > 0
    assert report["cookie"]["unasked"] == "demands one of its own"
    assert taken(report, "KE") == {"ecp384", "modp2048"}


def test_ipv6_is_asked_too(lab: Lab, network: Network) -> None:
    gateway = lab.gateway("charon", agreement("psk", way=Way.WAN6))
    try:
        report = ask(network, "--quick", "--no-ikev1", Way.WAN6.gateway)
        here = ask(network, "--quick", "--no-ikev1", f"{link_local(network)}%wan")
    finally:
        gateway.stop()
    assert report["chosen"] and report["nat"]["supported"] and not report["nat"]["we_are_behind"]
    assert here["chosen"] and not here["nat"]["we_are_behind"]


def link_local(network: Network) -> str:
    """The gateway's address on the link."""
    words = network.gateway.run(["ip", "-6", "-o", "address", "show", "dev", "wan", "scope", "link"]).split()
    return words[words.index("inet6") + 1].partition("/")[0]


def test_other_ports_are_asked_too(lab: Lab, network: Network) -> None:
    """strongSwan wants the non-ESP marker on both then."""
    gateway = lab.gateway(
        "charon", agreement("eap-mschapv2", gateway={"charon": {"port": "1500", "port_nat_t": "14500"}})
    )
    try:
        report = ask(
            network,
            "--quick",
            "--no-ikev1",
            "--patience",
            "1",
            *["--port", "1500", "--nat-port", "14500"],
            Way.WAN.gateway,
        )
    finally:
        gateway.stop()
    assert [(port["number"], port["answers"]) for port in report["ports"]] == [(1500, True), (14500, True)]
    assert GATEWAY_NAME in report["authentication"]["identity"]


def test_a_closed_port_is_told_from_a_silent_host(lab: Lab, network: Network) -> None:
    lab.without_charon(network.gateway)
    refused = run(network, "--patience", "0.3", Way.WAN.gateway)
    assert refused.returncode == 5
    assert "ICMP port unreachable" in refused.stderr
    assert "runs no IKE daemon" in refused.stderr
    with ruled(network, "drop"):
        silent = run(network, "--no-ikev1", "--patience", "0.3", Way.WAN.gateway)
    assert silent.returncode == 5
    assert "ICMP" not in silent.stderr
    assert "firewall" in silent.stderr
    with ruled(network, "reject with icmp type admin-prohibited"):
        forbidden = run(network, "--no-ikev1", "--patience", "0.3", Way.WAN.gateway)
    assert forbidden.returncode == 5
    assert "a firewall forbids it (ICMP administratively prohibited)" in forbidden.stderr
    assert "open UDP 500 and 4500" in forbidden.stderr


@contextmanager
def ruled(network: Network, verdict: str) -> Iterator[None]:
    """The gateway's host does so with whatever comes to its IKE ports."""
    chain = f"type filter hook input priority 0; udp dport {{ 500, 4500 }} {verdict};"
    network.gateway.run(["nft", f"table ip ruled {{ chain c {{ {chain} }}; }}"])
    try:
        yield
    finally:
        network.gateway.run(["nft", "delete table ip ruled"])


def test_the_broadcast_address_is_refused(network: Network) -> None:
    done = run(network, Way.WAN.gateway.rpartition(".")[0] + ".255")
    assert done.returncode == 2 and "does not scan" in done.stderr


def test_one_port_is_enough(lab: Lab, network: Network) -> None:
    gateway = lab.gateway("charon", agreement("eap-mschapv2", gateway=BOTH))
    network.gateway.run(
        ["nft", "table ip half { chain c { type filter hook input priority 0; udp dport 500 reject; }; }"]
    )
    try:
        report = ask(network, "--quick", Way.WAN.gateway)
    finally:
        network.gateway.run(["nft", "delete table ip half"])
        gateway.stop()
    assert [port["answers"] for port in report["ports"]] == [False, True]
    assert GATEWAY_NAME in report["authentication"]["identity"]

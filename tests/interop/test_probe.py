"""`ikeway probe` against gateways that others made, and ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.interop.agreement import GATEWAY_NAME, Agreement, agreement
from tests.interop.lab import Lab, Pair, Tunnel
from tests.interop.network import Network, Way

pytestmark = pytest.mark.peer

Make = Callable[[Pair, Agreement], Tunnel]
IKE = "aes256gcm16-prfsha384-ecp384"
BOTH = {"ike": f"{IKE}, aes128-sha256-modp2048"}
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
    assert ("strongSwan" if maker == "charon" else "Ikeway") in report["product"]["name"]
    # What it shows before a log-in: who it is, its certificate, and what it would ask.
    shown = report["authentication"]
    assert GATEWAY_NAME in shown["identity"], shown
    assert GATEWAY_NAME in shown["certificates"][0]["facts"]["names"]
    assert shown["eap"].startswith("request"), shown


@pytest.mark.parametrize("maker", ["charon", "ikeway"])
def test_a_probe_leaves_nothing_behind(lab: Lab, network: Network, maker: str) -> None:
    agreed = agreement("eap-mschapv2", both=BOTH)
    gateway = lab.gateway(maker, agreed)
    try:
        ask(network, Way.WAN.gateway)
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
    assert "WEAK, and taken:" in summary
    for weak in ("3des", "sha1", "prfsha1", "modp1024"):
        assert f"\n  {weak} " in summary, summary
    assert "shows nothing: AUTHENTICATION_FAILED" in done.stdout, done.stdout  # with a pre-shared key


def test_a_nat_between_is_seen(lab: Lab, network: Network) -> None:
    gateway = lab.gateway("charon", agreement("psk", way=Way.NAT))
    try:
        report = ask(network, "--quick", Way.NAT.gateway)
    finally:
        gateway.stop()
    assert report["nat"]["we_are_behind"]
    assert report["transforms"] == []


@pytest.mark.parametrize("maker", ["charon", "ikeway"])
def test_cookies_are_followed_and_told(lab: Lab, network: Network, maker: str) -> None:
    agreed = replace(agreement("psk", gateway=BOTH), always_cookie=True)
    gateway = lab.gateway(maker, agreed)
    try:
        report = ask(network, Way.WAN.gateway)
    finally:
        gateway.stop()
    assert report["cookie"]["demanded"] > 60
    assert report["cookie"]["octets"] > 0
    assert report["cookie"]["unasked"] == "demands one of its own"
    assert taken(report, "KE") == {"ecp384", "modp2048"}


def test_ipv6_is_asked_too(lab: Lab, network: Network) -> None:
    gateway = lab.gateway("charon", agreement("psk", way=Way.WAN6))
    try:
        report = ask(network, "--quick", Way.WAN6.gateway)
    finally:
        gateway.stop()
    assert report["chosen"]


def test_a_closed_port_is_told_from_a_silent_host(lab: Lab, network: Network) -> None:
    lab.without_charon(network.gateway)
    refused = run(network, "--patience", "0.3", Way.WAN.gateway)
    assert refused.returncode == 5
    assert "ICMP port unreachable" in refused.stderr
    assert "runs no IKE daemon" in refused.stderr
    network.gateway.run(
        ["nft", "table ip deaf { chain c { type filter hook input priority 0; udp dport { 500, 4500 } drop; }; }"]
    )
    try:
        silent = run(network, "--patience", "0.3", Way.WAN.gateway)
    finally:
        network.gateway.run(["nft", "delete table ip deaf"])
    assert silent.returncode == 5
    assert "ICMP" not in silent.stderr
    assert "firewall" in silent.stderr


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

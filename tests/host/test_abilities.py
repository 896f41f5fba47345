"""What the host is asked, and what is said when it cannot."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from ikeway.errors import HostError
from ikeway.host import abilities
from ikeway.host.checks import Use
from ikeway.host.userns import Step, UserNamespaceSupport


def test_a_port_that_somebody_holds_is_told_with_the_holder() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("0.0.0.0", 0))
        number = holder.getsockname()[1]
        check = abilities.port(number)
    assert not check.ok
    name = Path("/proc/self/comm").read_text().strip()
    assert check.detail == f"held by {name} (process {os.getpid()})"
    assert "stop" in check.remedy
    assert check.uses == (Use.GATEWAY,)
    assert abilities.port(number).ok


def test_rights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abilities, "held_rights", lambda: {"CAP_NET_ADMIN": False, "CAP_NET_RAW": True})
    check = abilities.rights()
    assert (check.ok, check.detail) == (False, "no CAP_NET_ADMIN")
    assert "sudo" in check.remedy
    monkeypatch.setattr(abilities, "held_rights", lambda: {"CAP_NET_ADMIN": True})
    assert abilities.rights().ok


def test_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise HostError("/dev/net/tun is not there", remedy="modprobe tun")

    monkeypatch.setattr(abilities, "check_device", refuse)
    check = abilities.tun_device()
    assert (check.ok, check.detail, check.remedy) == (False, "/dev/net/tun is not there", "modprobe tun")


def test_user_namespaces_that_are_forbidden() -> None:
    check = abilities.user_namespaces(UserNamespaceSupport(Step.USER_NAMESPACE, "not permitted", ("sysctl x", "or y")))
    assert (check.ok, check.detail) == (False, "a user namespace: not permitted")
    assert check.remedy == "sysctl x; or y"
    assert abilities.user_namespaces(UserNamespaceSupport()).ok


def test_a_clock_of_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    assert abilities.clock().ok
    monkeypatch.setattr(time, "time", lambda: 1.0)
    check = abilities.clock()
    assert not check.ok
    assert "timedatectl" in check.remedy


def test_no_ipv6(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(abilities, "_PROC", tmp_path)
    assert abilities.ipv6().detail == "the kernel has none"
    (tmp_path / "net").mkdir()
    (tmp_path / "net/if_inet6").touch()
    conf = tmp_path / "sys/net/ipv6/conf/all"
    conf.mkdir(parents=True)
    (conf / "disable_ipv6").write_text("1\n")
    check = abilities.ipv6()
    assert (check.ok, check.detail) == (False, "switched off")
    assert "sysctl" in check.remedy
    (conf / "disable_ipv6").write_text("0\n")
    assert abilities.ipv6().ok


def test_a_slow_processor_and_no_firewall(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(abilities, "_PROC", tmp_path)
    (tmp_path / "cpuinfo").write_text("flags\t: fpu vme\n")
    assert "chacha20poly1305" in abilities.processor().remedy
    monkeypatch.setattr(abilities, "_SBIN", str(tmp_path))
    assert "apt install nftables" in abilities.firewall().remedy


async def test_name_servers_of_a_resolv_conf_that_is_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def nobody() -> bool:
        return False

    monkeypatch.setattr(abilities.resolved, "is_in_charge", nobody)
    monkeypatch.setattr(abilities.resolvconf, "location", lambda: tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    check = await abilities.name_servers()
    assert (check.ok, check.uses) == (False, (Use.CLIENT,))


@pytest.mark.root
def test_offloads_are_tried_on_a_device_that_is_gone_afterwards() -> None:
    before = socket.if_nameindex()
    check = abilities.tun_offloads()
    assert check.ok or "TSO" in check.detail
    assert "no device" not in check.detail
    assert socket.if_nameindex() == before

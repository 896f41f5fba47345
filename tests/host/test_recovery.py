"""A process is killed in the middle; the next one puts the host back."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ikeway.host.journal import recover_stale
from ikeway.host.linux import network  # noqa: F401  the kinds of changes
from ikeway.host.tun import open_tun
from tests.netlab import TwoHosts, settle, snapshot, two_hosts

pytestmark = pytest.mark.root

PROGRAM = """
import asyncio, sys
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from ikeway.address import Address
from ikeway.host import GatewayConfiguration, TunnelConfiguration
from ikeway.host.linux.network import LinuxHostNetwork

async def main():
    host = LinuxHostNetwork(Path(sys.argv[1]))
    await host.configure_tunnel(TunnelConfiguration(
        interface="ike0", addresses=(ip_interface("10.60.0.7/32"), ip_interface("fd60::7/128")), mtu=1400,
        gateway=Address("198.51.100.1", 4500), routes=(ip_network("0.0.0.0/0"), ip_network("::/0")),
        dns_servers=(ip_address("10.60.0.1"),), search_domains=("corp.example",)))
    await host.configure_gateway(GatewayConfiguration(
        interface="ike1", addresses=(ip_interface("10.61.0.1/32"),), mtu=1400, masquerade=True,
        pools=(ip_network("10.61.0.0/24"), ip_network("fd61::/64"))))
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    """The TUN devices outlive the killed process here, so that nothing vanishes by itself."""
    with two_hosts() as lab, contextlib.ExitStack() as stack:
        for name in ("ike0", "ike1"):
            tun = lab.client.call(lambda name=name: open_tun(name))
            stack.callback(tun.close)
            lab.client.run(["ip", "link", "set", name, "up", "mtu", "1400"])
        settle(lab.client)
        yield lab


def start(lab: TwoHosts, journals: Path, resolv_conf: Path) -> "subprocess.Popen[str]":
    process = lab.client.popen(
        [sys.executable, "-c", PROGRAM, str(journals)],
        files={"/etc/resolv.conf": resolv_conf},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_process_that_gave_up_its_rights_can_still_undo(hosts: TwoHosts, tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 192.0.2.53\n")
    before = snapshot(hosts.client)
    program = PROGRAM.replace('print("ready", flush=True)', 'keep_only([12]); print("ready", flush=True); input()')
    process = hosts.client.popen(
        [
            sys.executable,
            "-c",
            "from ikeway.daemon.privileges import keep_only\n"
            + program.replace("await asyncio.sleep(60)", "await host.close()"),
            str(tmp_path / "journal"),
        ],
        files={"/etc/resolv.conf": resolv_conf},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert "table inet ikeway_ike1" in snapshot(hosts.client)
    process.communicate("\n", timeout=20)
    assert process.returncode == 0
    assert snapshot(hosts.client) == before
    assert resolv_conf.read_text() == "nameserver 192.0.2.53\n"


RECOVER = "import asyncio, sys; from pathlib import Path; from ikeway.host.journal import recover_stale;" + (
    "import ikeway.host.linux.network; print(asyncio.run(recover_stale(Path(sys.argv[1]))))"
)


def test_everything_comes_back_after_kill_9(hosts: TwoHosts, tmp_path: Path) -> None:
    journals, resolv_conf = tmp_path / "journal", tmp_path / "resolv.conf"
    journals.mkdir()
    resolv_conf.write_text("nameserver 192.0.2.53\n")
    before = snapshot(hosts.client)
    process = start(hosts, journals, resolv_conf)
    assert "10.60.0.1" in resolv_conf.read_text()
    during = snapshot(hosts.client)
    for trace in ("10.60.0.7", "table inet ikeway_ike1", "21000:", "ipv4/ip_forward:1"):
        assert trace in during
    # While it lives, another start leaves it alone.
    recover = [sys.executable, "-c", RECOVER, str(journals)]
    assert hosts.client.run(recover).strip() == "[]"
    assert snapshot(hosts.client) == during
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert snapshot(hosts.client) == during
    # Nor does a start in another network namespace undo anything, as long as ours is in use.
    hosts.client.popen(["sleep", "1000"])
    assert hosts.gateway.run(recover).strip() == "[]"
    assert snapshot(hosts.client) == during
    report = hosts.client.run(recover, files={"/etc/resolv.conf": resolv_conf})
    assert "failed=()" in report
    assert snapshot(hosts.client) == before
    assert resolv_conf.read_text() == "nameserver 192.0.2.53\n"
    assert list(journals.iterdir()) == []


def test_what_vanished_with_the_interface_is_no_error(hosts: TwoHosts, tmp_path: Path) -> None:
    journals, resolv_conf = tmp_path / "journal", tmp_path / "resolv.conf"
    journals.mkdir()
    resolv_conf.write_text("")
    process = start(hosts, journals, resolv_conf)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hosts.client.run(
        ["sh", "-c", "ip link del ike0; ip link del ike1; nft flush ruleset; ip rule flush; ip -6 rule flush"]
    )
    report = hosts.client.run([sys.executable, "-c", RECOVER, str(journals)], files={"/etc/resolv.conf": resolv_conf})
    assert "failed=()" in report
    assert "10.60.0.7" in report


def test_a_journal_of_a_namespace_that_is_gone_is_dropped(tmp_path: Path) -> None:
    journals, resolv_conf = tmp_path / "journal", tmp_path / "resolv.conf"
    journals.mkdir()
    resolv_conf.write_text("")
    with two_hosts() as lab:
        tuns = [lab.client.call(lambda name=name: open_tun(name)) for name in ("ike0", "ike1")]
        process = start(lab, journals, resolv_conf)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for tun in tuns:
            tun.close()
    assert len(list(journals.iterdir())) == 1
    assert asyncio.run(recover_stale(journals)) == []
    assert list(journals.iterdir()) == []

"""Which resolv.conf belongs to us, in network namespaces of several kinds."""

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from ikeway.address import Address
from ikeway.host import TunnelConfiguration, processes
from ikeway.host.linux import resolvconf
from ikeway.host.linux.dns import dns_change
from ikeway.host.namespaces import Namespace

pytestmark = pytest.mark.root

WHERE = [
    sys.executable,
    "-c",
    "from ikeway.host.linux.resolvconf import location\nfrom ikeway.errors import HostError\n"
    "try: print(location())\nexcept HostError as error: print(error)",
]


@pytest.fixture
def named() -> Iterator[str]:
    name = f"ikwdns{processes.Owner.current().pid}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def test_on_the_host_it_is_the_usual_one() -> None:
    assert subprocess.run(WHERE, capture_output=True, text=True, check=True).stdout.strip() == "/etc/resolv.conf"
    assert resolvconf.location() == Path("/etc/resolv.conf")


def test_in_a_named_namespace_it_is_the_one_that_ip_netns_exec_mounts(named: str) -> None:
    where = ["ip", "netns", "exec", named, *WHERE]
    assert subprocess.run(where, capture_output=True, text=True).stdout.strip() == f"/etc/netns/{named}/resolv.conf"
    own = Path(f"/etc/netns/{named}/resolv.conf")
    created = not own.parent.parent.exists()
    own.parent.mkdir(parents=True)
    try:
        own.write_text("")
        assert subprocess.run(where, capture_output=True, text=True).stdout.strip() == "/etc/resolv.conf"
    finally:
        own.unlink()
        own.parent.rmdir()
        if created:
            own.parent.parent.rmdir()


def test_in_a_nameless_namespace_the_hosts_file_is_not_touched(tmp_path: Path) -> None:
    # A process 1 in the host's network namespace, that we may look at, also where the real one cannot be.
    nameless = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", 'unshare --net "$@"; true', "-"]
    where = subprocess.run([*nameless, *WHERE], capture_output=True, text=True, check=True)
    assert "belongs to the whole host" in where.stdout
    with Namespace() as namespace:
        (tmp_path / "resolv.conf").touch()
        mounted = namespace.run(WHERE, files={"/etc/resolv.conf": tmp_path / "resolv.conf"})
        assert mounted.strip() == "/etc/resolv.conf"


async def test_resolv_conf_cannot_split_names_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def nobody() -> bool:
        return False

    monkeypatch.setattr("ikeway.host.linux.resolved.is_in_charge", nobody)
    monkeypatch.setattr("ikeway.host.linux.resolvconf.location", lambda: Path("/etc/resolv.conf"))
    split = TunnelConfiguration(
        interface="ike0",
        addresses=(),
        mtu=1400,
        gateway=Address("192.0.2.1", 4500),
        dns_servers=(ip_address("10.0.0.53"),),
        search_domains=("corp.example",),
    )
    await dns_change(split)
    assert "are asked for all names, not only for those in corp.example" in caplog.text
    caplog.clear()
    await dns_change(dataclasses.replace(split, dns_for_all=True))
    assert caplog.text == ""

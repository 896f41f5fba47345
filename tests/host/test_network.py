"""The host's network as a client and a gateway change it, in namespaces."""

import asyncio
import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from ikeway.address import Address
from ikeway.errors import HostError
from ikeway.host import GatewayConfiguration, TunnelConfiguration
from ikeway.host.linux import network
from ikeway.host.linux.network import LinuxHostNetwork
from ikeway.host.namespaces import Namespace
from ikeway.host.tun import open_tun
from tests.interop.waiting import wait_until
from tests.netlab import CLIENT, FAR, FAR6, TwoHosts, inside, settle, snapshot, two_hosts

pytestmark = pytest.mark.root

FULL = (ip_network("0.0.0.0/0"), ip_network("::/0"))
TUNNEL = TunnelConfiguration(
    interface="ike0",
    addresses=(ip_interface("10.60.0.7/32"), ip_interface("fd60::7/128")),
    mtu=1400,
    gateway=Address(FAR, 4500),
    routes=FULL,
)


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    with two_hosts() as lab:
        tun = lab.client.call(lambda: open_tun("ike0"))
        lab.client.run(["ip", "link", "set", "ike0", "up", "mtu", "1400"])
        settle(lab.client)
        settle(lab.gateway)
        try:
            yield lab
        finally:
            tun.close()


def way(namespace: Namespace, destination: str, *match: str) -> str:
    """`dev` and `src` that the kernel chooses."""
    words = namespace.run(["ip", "route", "get", destination, *match], check=False).split()
    return " ".join(words[words.index(key) + 1] for key in ("dev", "src") if key in words)


def kernel(namespace: Namespace, *settings: str) -> list[str]:
    """Settings under /proc/sys/net."""
    return namespace.run(["cat", *(f"/proc/sys/net/{each}" for each in settings)]).split()


def way_of_esp() -> str:
    """The source of an ESP packet to the gateway from this thread's namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ESP) as sender:
        sender.connect((FAR, 0))
        return sender.getsockname()[0]


IKE = ("ipproto", "udp", "dport", "4500")


def test_full_tunnel_takes_all_but_its_own_packets_and_is_undone(hosts: TwoHosts) -> None:
    before = snapshot(hosts.client)

    async def work() -> None:
        host = LinuxHostNetwork()
        await host.configure_tunnel(TUNNEL)
        client = hosts.client
        assert way(client, "8.8.8.8") == "ike0 10.60.0.7"
        assert way(client, "2001:4860::1") == "ike0 fd60::7"
        assert way(client, FAR, *IKE) == f"eth0 {CLIENT}"
        assert way(client, FAR, "ipproto", "udp", "dport", "500") == f"eth0 {CLIENT}"
        assert way_of_esp() == CLIENT
        # What else goes to the gateway's address stays inside (TunnelCrack's ServerIP).
        assert way(client, FAR, "ipproto", "tcp", "dport", "443") == "ike0 10.60.0.7"
        assert way(client, "192.168.50.9") == f"eth0 {CLIENT}"  # the private network that we are on
        assert host.local_address(Address(FAR, 4500)) == CLIENT
        assert host.local_address(Address("8.8.8.8", 4500)) is None
        assert ip_address("10.60.0.7") not in host.local_addresses()
        assert ip_address(CLIENT) in host.local_addresses()
        assert host.outer_mtu(Address(FAR, 4500)) == 1500
        await host.close()
        await host.close()

    inside(hosts.client, work)
    assert snapshot(hosts.client) == before


def test_ike_and_rp_filter_get_on(hosts: TwoHosts) -> None:
    """Strict reverse path filtering must not drop the gateway's answers, which come from outside the tunnel."""
    echo = "import socket; s = socket.socket(type=2); s.bind(('', 4500))\nwhile 1: s.sendto(*s.recvfrom(99))"
    hosts.gateway.popen(["python3", "-c", echo])
    hosts.client.run(["sh", "-c", "cd /proc/sys/net/ipv4/conf; echo 1 > all/rp_filter; echo 1 > eth0/rp_filter"])
    ask = (
        "import socket; s = socket.socket(type=2); s.settimeout(0.2)\n"
        "for _ in range(20):\n"
        "  s.sendto(b'x', ('%s', 4500))\n"
        "  try: print('answer', s.recv(9)); break\n"
        "  except OSError: pass"
    )

    async def work() -> None:
        host = LinuxHostNetwork()
        await host.configure_tunnel(TUNNEL)
        assert "answer" in hosts.client.run(["python3", "-c", ask % FAR])
        await host.close()

    inside(hosts.client, work)


def test_local_networks_can_be_cut_off_and_public_ones_always_are(hosts: TwoHosts) -> None:
    hosts.client.run(["ip", "addr", "add", "203.0.113.2/24", "dev", "eth0"])  # a hotspot that "owns" a public range

    async def work() -> None:
        host = LinuxHostNetwork()
        await host.configure_tunnel(TUNNEL)
        assert way(hosts.client, "203.0.113.9").startswith("ike0")
        assert way(hosts.client, "192.168.50.9").startswith("eth0")
        await host.configure_tunnel(replace(TUNNEL, keep_local_networks=False))
        assert way(hosts.client, "192.168.50.9").startswith("ike0")
        assert way(hosts.client, FAR, *IKE).startswith("eth0")
        await host.close()

    inside(hosts.client, work)


def test_split_tunnel_blocks_and_more_specific_grants(hosts: TwoHosts) -> None:
    async def work() -> None:
        host = LinuxHostNetwork()
        split = replace(
            TUNNEL, routes=(ip_network("10.0.0.0/8"), ip_network("192.168.50.64/26")), block=(ip_network("::/0"),)
        )
        await host.configure_tunnel(split)
        assert way(hosts.client, "10.1.2.3") == "ike0 10.60.0.7"
        assert way(hosts.client, "8.8.8.8") == f"eth0 {CLIENT}"
        assert way(hosts.client, "192.168.50.65").startswith("ike0")
        assert "No route to host" in hosts.client.run(["ip", "route", "get", "2001:db8::77"], check=False)
        await host.close()

    inside(hosts.client, work)


def test_kill_switch_holds_without_the_interface_and_is_undone(hosts: TwoHosts) -> None:
    before = snapshot(hosts.client)
    client = hosts.client
    full = replace(TUNNEL, kill_switch=True, exclude=(ip_network("198.18.0.0/15"), ip_network("2001:2::/48")))

    async def work() -> None:
        host = LinuxHostNetwork()
        await host.configure_tunnel(full)
        assert way(client, "8.8.8.8") == "ike0 10.60.0.7"
        client.run(["ip", "link", "del", "ike0"])
        for refused in ("8.8.8.8", "2001:4860::1"):
            assert way(client, refused) == ""
        assert way(client, FAR, *IKE) == f"eth0 {CLIENT}"
        assert way(client, "192.168.50.9") == f"eth0 {CLIENT}"  # the router, DHCP
        assert way(client, "198.18.0.1") == f"eth0 {CLIENT}"
        assert way(client, "2001:2::1").startswith("eth0")
        assert way(client, "127.0.0.1").startswith("lo")
        again = open_tun("ike1")
        await host.device_replaced("ike1")
        assert way(client, "8.8.8.8") == "ike1 10.60.0.7"
        assert way(client, "2001:4860::1") == "ike1 fd60::7"
        await host.close()
        again.close()

    inside(client, work)
    assert snapshot(client).replace("ike0", "") == "".join(
        line for line in before.splitlines(keepends=True) if "ike0" not in line
    )


def test_excluded_networks_stay_outside(hosts: TwoHosts) -> None:
    """Also when they are larger than what is granted; what is within a granted network is taken out of it."""
    before = snapshot(hosts.client)
    client = hosts.client
    granted = tuple(map(ip_network, ("10.1.0.0/16", "172.20.5.0/24")))
    excluded = tuple(map(ip_network, ("10.1.2.0/24", "172.20.0.0/16")))

    async def work() -> None:
        host = LinuxHostNetwork()
        await host.configure_tunnel(replace(TUNNEL, routes=granted, exclude=excluded))
        assert way(client, "10.1.1.1") == "ike0 10.60.0.7"
        assert way(client, "10.1.2.1") == f"eth0 {CLIENT}"
        assert way(client, "172.20.5.1") == f"eth0 {CLIENT}"
        await host.configure_tunnel(replace(TUNNEL, routes=granted))
        assert way(client, "10.1.2.1") == "ike0 10.60.0.7"
        await host.close()

    inside(client, work)
    assert snapshot(client) == before


@contextlib.contextmanager
def heard(namespace: Namespace, log: Path) -> Iterator[None]:
    """Have `ip monitor` write what changes meanwhile. A route that is in nobody's way tells that it listens, and another
    one that it has heard all."""
    with log.open("wb") as output:
        monitor = namespace.popen(["ip", "monitor", "route", "rule", "address"], stdout=output)

    def marked(mark: str) -> bool:
        for what in ("replace", "del"):
            namespace.run(["ip", "route", what, "blackhole", mark, "table", "4242"])
        return mark in log.read_text()

    wait_until(lambda: marked("198.18.0.1"), "ip monitor listens")
    yield
    wait_until(lambda: marked("198.18.0.2"), "ip monitor has heard all")
    monitor.terminate()
    monitor.wait()


def test_update_changes_only_what_differs(hosts: TwoHosts, tmp_path: Path) -> None:
    before, log = snapshot(hosts.client), tmp_path / "changes"

    async def work() -> None:
        host = LinuxHostNetwork()
        await host.configure_tunnel(TUNNEL)
        with heard(hosts.client, log):
            await host.configure_tunnel(replace(TUNNEL, gateway=Address(FAR6, 4500), mtu=1350))
        seen = log.read_text()
        assert "default" not in seen  # the tunnel's own route was never away
        assert "10.60.0.7" not in seen
        assert seen.count(FAR6) == 3
        assert seen.count(FAR) == 3
        assert "mtu 1350" in hosts.client.run(["ip", "link", "show", "ike0"])
        assert way(hosts.client, FAR6, *IKE).startswith("eth0")
        # Another virtual address: the routes' source follows.
        await host.configure_tunnel(replace(TUNNEL, addresses=(ip_interface("10.60.0.8/32"),), routes=FULL[:1]))
        assert way(hosts.client, "8.8.8.8") == "ike0 10.60.0.8"
        assert "10.60.0.7" not in hosts.client.run(["ip", "addr"])
        await host.configure_tunnel(TUNNEL)
        assert way(hosts.client, "2001:4860::1") == "ike0 fd60::7"
        await host.close()

    inside(hosts.client, work)
    assert snapshot(hosts.client) == before


def test_name_servers_that_could_not_be_set_are_set_the_next_time(
    hosts: TwoHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who connects again after that is not without them because the host had seen them before."""
    tries: list[TunnelConfiguration] = []

    async def change(configuration: TunnelConfiguration) -> None:
        tries.append(configuration)
        await asyncio.sleep(0.02)
        if len(tries) in (1, 3):
            raise HostError("systemd-resolved does not answer")

    monkeypatch.setattr(network, "dns_change", change)
    one, other = (replace(TUNNEL, dns_servers=(ip_address(server),)) for server in ("10.60.0.53", "10.60.0.54"))

    async def work() -> None:
        host = LinuxHostNetwork()
        for configuration, expected in ((one, [one]), (one, [one, one]), (one, [one, one])):
            with contextlib.suppress(HostError):
                await host.configure_tunnel(configuration)
            assert tries == expected
        with pytest.raises(HostError):
            await host.configure_tunnel(other)
        await host.configure_tunnel(one)  # what stood was undone for the other
        assert tries == [one, one, other, one]
        await asyncio.gather(host.configure_tunnel(other), host.refresh())  # they do not get into each other's way
        assert tries[4:] == [other]
        await host.close()

    inside(hosts.client, work)


def test_survives_a_change_of_network_and_refresh_adapts(hosts: TwoHosts) -> None:
    async def work() -> None:
        host = LinuxHostNetwork()
        await host.configure_tunnel(TUNNEL)
        commands = (
            "ip addr del 192.168.50.2/24 dev eth0; ip addr add 192.168.99.2/24 dev eth0;"
            "ip route add default via 192.168.99.1 dev eth0"
        )
        hosts.client.run(["sh", "-c", commands])
        # Without a word from us the tunnel's own packets follow the new default route.
        assert way(hosts.client, FAR, *IKE) == "eth0 192.168.99.2"
        assert host.local_address(Address(FAR, 4500)) == "192.168.99.2"
        assert way(hosts.client, "192.168.99.9").startswith("ike0")
        await host.refresh()
        assert way(hosts.client, "192.168.99.9") == "eth0 192.168.99.2"
        assert way(hosts.client, "192.168.50.9").startswith("ike0")
        await host.close()

    inside(hosts.client, work)


def test_two_connections_at_once(hosts: TwoHosts) -> None:
    before = snapshot(hosts.client)
    second = hosts.client.call(lambda: open_tun("ike1"))

    async def work() -> None:
        full, split = LinuxHostNetwork(), LinuxHostNetwork()
        await full.configure_tunnel(TUNNEL)
        await split.configure_tunnel(
            replace(
                TUNNEL,
                interface="ike1",
                addresses=(ip_interface("10.61.0.1/32"),),
                routes=(ip_network("10.61.0.0/16"),),
                gateway=Address("198.51.100.77", 4500),
            )
        )
        assert way(hosts.client, "10.61.3.3") == "ike1 10.61.0.1"
        assert way(hosts.client, "10.62.3.3") == "ike0 10.60.0.7"
        assert way(hosts.client, "198.51.100.77", *IKE) == f"eth0 {CLIENT}"
        await full.close()
        assert way(hosts.client, "10.61.3.3") == "ike1 10.61.0.1"
        await split.close()

    inside(hosts.client, work)
    second.close()
    assert snapshot(hosts.client) == before


def test_errors_say_what_is_wrong(hosts: TwoHosts) -> None:
    async def missing() -> None:
        host = LinuxHostNetwork()
        with pytest.raises(HostError, match="there is no interface ike7"):
            await host.configure_tunnel(replace(TUNNEL, interface="ike7"))
        with pytest.raises(HostError, match="no interface name"):
            await host.configure_tunnel(replace(TUNNEL, interface='x"; drop'))
        with pytest.raises(HostError, match=r"route 192\.168\.50\.0/24 through ike0.*File exists"):
            await host.configure_gateway(
                GatewayConfiguration(interface="ike0", addresses=(), mtu=1400, pools=(ip_network("192.168.50.0/24"),))
            )
        await host.close()

    before = snapshot(hosts.client)
    inside(hosts.client, missing)
    assert snapshot(hosts.client) == before


GATEWAY_SIDE = GatewayConfiguration(
    interface="ike0",
    addresses=(ip_interface("10.60.0.1/32"), ip_interface("fd60::1/128")),
    mtu=1400,
    pools=(ip_network("10.60.0.0/24"), ip_network("fd60::/64")),
    masquerade=True,
)


def test_gateway_forwards_masquerades_and_puts_all_back(hosts: TwoHosts) -> None:
    box = hosts.client  # it has the TUN
    box.run(["nft", "add", "table", "inet", "theirs"])
    before = snapshot(box)

    async def work() -> None:
        host = LinuxHostNetwork()
        await host.configure_gateway(GATEWAY_SIDE)
        assert kernel(box, "ipv4/ip_forward", "ipv6/conf/all/forwarding") == ["1", "1"]
        assert kernel(box, "ipv6/conf/eth0/accept_ra") == ["2"]
        rules = box.run(["nft", "list", "ruleset"])
        assert 'ip saddr 10.60.0.0/24 oifname != "ike0" masquerade' in rules
        assert "tcp option maxseg size set 1360" in rules
        assert way(box, "10.60.0.9") == "ike0 10.60.0.1"
        await host.configure_gateway(replace(GATEWAY_SIDE, masquerade=False, clamp_mss=False))
        assert "ikeway" not in box.run(["nft", "list", "ruleset"])
        await host.configure_gateway(replace(GATEWAY_SIDE, masquerade_interfaces=("eth0",)))
        assert 'oifname "eth0" masquerade' in box.run(["nft", "list", "ruleset"])
        await host.close()

    inside(box, work)
    assert snapshot(box) == before


def test_two_gateways_share_forwarding(hosts: TwoHosts) -> None:
    second = hosts.client.call(lambda: open_tun("ike1"))
    box = hosts.client
    before = snapshot(box)

    async def work() -> None:
        one, two = LinuxHostNetwork(), LinuxHostNetwork()
        await one.configure_gateway(GATEWAY_SIDE)
        await two.configure_gateway(
            GatewayConfiguration(interface="ike1", addresses=(), mtu=1400, pools=(ip_network("10.70.0.0/24"),))
        )
        await one.close()
        assert kernel(box, "ipv4/ip_forward") == ["1"]
        assert kernel(box, "ipv6/conf/all/forwarding") == ["0"]
        await two.close()

    inside(box, work)
    box.run(["ip", "link", "set", "ike1", "down"])
    second.close()
    after = snapshot(box)
    assert [line for line in before.splitlines() if "ike1" not in line] == after.splitlines()


def test_one_gateway_with_two_interfaces(hosts: TwoHosts) -> None:
    """Forwarding stays on while one of them needs it, and what was before the first comes back."""
    second = hosts.client.call(lambda: open_tun("ike1"))
    box = hosts.client
    other = GatewayConfiguration(interface="ike1", addresses=(), mtu=1400, pools=(ip_network("10.70.0.0/24"),))

    async def work() -> None:
        host = LinuxHostNetwork()
        await host.configure_gateway(GATEWAY_SIDE)
        await host.configure_gateway(other)
        await host.configure_gateway(GATEWAY_SIDE)
        await host.configure_gateway(replace(GATEWAY_SIDE, forward=False))
        assert kernel(box, "ipv4/ip_forward") == ["1"]
        await host.configure_gateway(replace(other, forward=False))
        assert kernel(box, "ipv4/ip_forward") == ["0"]
        await host.configure_gateway(other)
        await host.close()
        assert kernel(box, "ipv4/ip_forward") == ["0"]

    inside(box, work)
    second.close()


def test_mss_is_only_ever_lowered() -> None:
    """A forwarded SYN through a real TUN pair: 1460 becomes what fits the tunnel, 536 stays."""
    with two_hosts() as lab:
        box = lab.gateway
        tun = box.call(lambda: open_tun("ike0"))

        async def work() -> None:
            host = LinuxHostNetwork()
            await host.configure_gateway(replace(GATEWAY_SIDE, mtu=1300, masquerade=False))
            assert _mss_through(lab.client, tun.fd, None) == 1260
            assert _mss_through(lab.client, tun.fd, 500) == 500
            await host.close()

        inside(box, work)
        tun.close()


def _mss_through(client: Namespace, tun: int, mss: int | None) -> int:
    """Have the client connect to a host behind the tunnel and return the MSS in the SYN that arrives there."""
    option = f"s.setsockopt(6, 2, {mss});" if mss else ""
    connect = f"import socket; s = socket.socket(); s.settimeout(1); {option} s.connect_ex(('10.60.0.9', 80))"
    client.popen(["python3", "-c", connect])
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if select.select([tun], [], [], 0.5)[0]:
            packet = os.read(tun, 65536)[10:]
            if packet[0] >> 4 == 4 and packet[9] == 6 and packet[16:20] == bytes([10, 60, 0, 9]):
                options = packet[40:]
                assert options[:2] == b"\x02\x04"
                return int.from_bytes(options[2:4], "big")
    raise AssertionError("no SYN arrived")

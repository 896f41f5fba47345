"""Our client and gateway, and strongSwan's, all with ESP in the guest's kernel: a suite for one boot."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ikeway.host.namespaces import Namespace
from tests.interop.agreement import Agreement, agreement
from tests.interop.lab import Lab, Pair, Tunnel
from tests.interop.network import (
    CLIENT_SECOND_ADDRESS,
    LAN_HOST,
    LAN_NETWORK,
    LAN_SECOND_HOST,
    POOL,
    Network,
    Way,
)
from tests.interop.ours import IKEWAY, Ikeway
from tests.interop.traffic import MEGABYTE, Pulse, RunningTransfer, ping, transfer
from tests.interop.waiting import wait_until
from tests.kernel.case import Suite

SUITE = Suite(
    *("ipv6", "veth", "tun", "xfrm_user", "esp4", "esp6", "af_key", "xfrm_interface"),
    *("nf_tables", "iptable_nat", "xt_MASQUERADE"),
)
MEGABYTES = 20

TO_CHARON, FROM_CHARON, OURS = Pair("ikeway", "charon"), Pair("charon", "ikeway"), Pair("ikeway", "ikeway")
PAIRS = (OURS, TO_CHARON, FROM_CHARON)


class Guest:
    """A lab that makes tunnels with ESP in the kernel on both sides."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network, self.lab = network, Lab(network, folder)

    @contextlib.contextmanager
    def tunnel(self, pair: Pair, agreed: Agreement) -> Iterator[Tunnel]:
        """A tunnel, not yet connected; afterwards nothing of it may be left in either kernel."""
        made = self.lab.tunnel(pair, in_kernel(agreed))
        try:
            yield made
        finally:
            made.stop()
        for side in (made.client, made.gateway):
            if side.is_ours:
                assert leftovers(side.namespace) == "", leftovers(side.namespace)


def in_kernel(agreed: Agreement) -> Agreement:
    """The same, with ESP in the kernel on both sides."""
    both = {name: dataclasses.replace(getattr(agreed, name), data_plane="kernel") for name in ("client", "gateway")}
    return dataclasses.replace(agreed, **both)


def leftovers(namespace: Namespace) -> str:
    """States, policies and interfaces of ours in a namespace."""
    shown = [
        namespace.run(["ip", "xfrm", "state"]),
        namespace.run(["ip", "xfrm", "policy"]),
        namespace.run(["sh", "-c", "ip -o link | grep ikeway || true"]),
    ]
    return "\n".join(line for text in shown for line in text.splitlines() if line.strip())


@contextlib.contextmanager
def prepare() -> Iterator[Guest]:
    without_nftables = subprocess.run(["nft", "add", "table", "inet", "probe"], capture_output=True).returncode
    if without_nftables:  # UML has no table of any family: what the tests need of it, the older tables do
        subprocess.run(["mount", "--bind", "/bin/true", shutil.which("nft")], check=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Network()) as network:
        guest = Guest(network, Path(folder))
        if without_nftables:
            for protocol in (["-p", "udp", "-j", "MASQUERADE", "--random"], ["-j", "MASQUERADE"]):
                network.nat.run(["iptables-legacy", "-t", "nat", "-A", "POSTROUTING", "-o", "out", *protocol])
        try:
            yield guest
        finally:
            guest.lab.close()


def connect(made: Tunnel) -> None:
    """Bring it up; a guest is slow."""
    made.client.connect(timeout=60)


def carries(made: Tunnel) -> None:
    """Traffic both ways."""
    made.check_ping()
    made.check_transfer(MEGABYTES)
    made.check_ping()


@SUITE.case(TO_CHARON, Way.WAN)
@SUITE.case(FROM_CHARON, Way.WAN)
@SUITE.case(OURS, Way.WAN)
@SUITE.case(TO_CHARON, Way.NAT)
@SUITE.case(FROM_CHARON, Way.NAT)
@SUITE.case(TO_CHARON, Way.WAN6)
@SUITE.case(FROM_CHARON, Way.WAN6)
def road(guest: Guest, pair: Pair, way: Way) -> None:
    """Protocol 50 over IPv4 and IPv6, ESP in UDP through a NAT."""
    agreed = agreement(way=way, both={"networks": {"net": (LAN_NETWORK[4], LAN_NETWORK[6])}}, pool=POOL)
    with guest.tunnel(pair, agreed) as made:
        connect(made)
        carries(made)
        made.client.close()


@SUITE.case(TO_CHARON, "client")
@SUITE.case(FROM_CHARON, "gateway")
def rekeying_loses_nothing(guest: Guest, pair: Pair, by: str) -> None:
    """Keys of the child SA and of the IKE SA are renewed, under a steady stream and in a transfer."""
    with guest.tunnel(pair, agreement()) as made:
        connect(made)
        # One after the other: the guest has one processor, and drops from its queue what a transfer fills it with.
        pulse = Pulse(made.client.namespace, made.network.lan, LAN_HOST[4], interval=0.02)
        for what in ("child", "ike") * 2:
            rekey(made, by, what)
            time.sleep(0.3)
        counted = pulse.stop()
        running = RunningTransfer(made.client.namespace, made.network.lan, LAN_HOST[4], megabytes=2 * MEGABYTES)
        rekey(made, by, "child")
        rekey(made, by, "ike")
        running.result()
        assert counted.sent > 10
        assert counted.lost == 0, f"{counted}\n{made.logs()}"
        made.client.close()


def rekey(made: Tunnel, by: str, what: str) -> None:
    """Let one side of ours renew keys, and wait until it has."""
    side = made.client if by == "client" else made.gateway
    assert isinstance(side, Ikeway)

    def marks() -> tuple[object, ...]:
        sessions = side.sessions()
        if len(sessions) != 1 or len(sessions[0].children) != 1:
            return ()
        return (sessions[0].initiator_spi,) if what == "ike" else (sessions[0].children[0].spi_in,)

    wait_until(lambda: marks() != (), "the rekeying before comes to no end", logs=made.logs)
    before = marks()
    side.rekey(what)
    wait_until(lambda: marks() not in {before, ()}, f"no {what} rekeying", logs=made.logs)


@SUITE.case(TO_CHARON)
@SUITE.case(FROM_CHARON)
def rekeying_by_strongswan_and_after_so_many_octets(guest: Guest, pair: Pair) -> None:
    """Its clock and ours meet now and then; a limit of octets, which the kernel counts, asks for a rekeying too."""
    clocks = {"rekey_child": 3.0, "rekey_ike": 4.0}
    theirs, ours = ("gateway", "client") if pair is TO_CHARON else ("client", "gateway")
    agreed = agreement(**{theirs: clocks, ours: {"rekey_bytes": 5_000_000}})
    with guest.tunnel(pair, agreed) as made:
        connect(made)
        side = made.client if made.client.is_ours else made.gateway
        before = side.sessions()[0].children[0].spi_in
        made.check_transfer(MEGABYTES)
        wait_until(lambda: side.sessions()[0].children[0].spi_in != before, "no rekeying", logs=made.logs)
        wait_until(lambda: made.charon.log().count("CHILD_SA closed") > 1, "no rekeying by charon", logs=made.logs)
        made.check_ping()
        made.client.close()


@SUITE.case(TO_CHARON)
@SUITE.case(FROM_CHARON)
def mobike(guest: Guest, pair: Pair) -> None:
    """The client's address goes in the middle of a transfer, another one on the same link takes over."""
    network = guest.network
    network.restore_client_addresses()
    with guest.tunnel(pair, agreement()) as made:
        connect(made)
        running = RunningTransfer(network.client, network.lan, LAN_HOST[4], megabytes=4 * MEGABYTES)
        running.wait_for(MEGABYTES * MEGABYTE // 2)
        network.ip(network.client, f"address add {CLIENT_SECOND_ADDRESS}/24 dev wan")
        network.ip(network.client, f"address delete {Way.WAN.client}/24 dev wan")
        running.result()
        side = made.client if made.client.is_ours else made.gateway

        def is_elsewhere() -> bool:
            (session,) = side.sessions()
            return Way.WAN.client not in session.local + session.remote

        wait_until(is_elsewhere, "it has not moved", logs=made.logs)
        made.check_ping()
        made.client.close()
    network.restore_client_addresses()


@SUITE.case(TO_CHARON, Way.WAN)
@SUITE.case(FROM_CHARON, Way.WAN)
@SUITE.case(TO_CHARON, Way.WAN6)
def transport_mode(guest: Guest, pair: Pair, way: Way) -> None:
    """The two hosts' own traffic, between their outer addresses; IKE itself passes beside it."""
    both = {"mode": "transport", "networks": {"net": ()}}
    with guest.tunnel(pair, agreement(way=way, both=both, pool={})) as made:
        connect(made)
        assert ping(made.client.namespace, way.gateway).lost == 0, made.logs()
        transfer(made.client.namespace, made.gateway.namespace, way.gateway, megabytes=MEGABYTES)
        transfer(made.gateway.namespace, made.client.namespace, way.client, megabytes=1)
        side = made.client if made.client.is_ours else made.gateway
        (session,) = side.sessions()
        (child,) = session.children
        assert child.mode == "transport"
        assert child.octets_in + child.octets_out > MEGABYTES * MEGABYTE, "the traffic was not in the SA"
        if made.client.is_ours:
            rekey(made, "client", "child")
        assert ping(made.client.namespace, way.gateway).lost == 0, made.logs()
        made.client.close()


@SUITE.case("up")
@SUITE.case("down")
def what_a_killed_client_leaves_is_removed(guest: Guest, by: str) -> None:
    """By the next start, or by `ikeway down`: its states, policies and interface, and nothing of others."""
    network = guest.network
    foreign = "src 10.99.0.1 dst 10.99.0.2 proto esp spi 0x42 reqid 16385 mode tunnel"
    keys = f"enc 'cbc(aes)' 0x{'11' * 16} auth-trunc 'hmac(sha256)' 0x{'22' * 32} 128"
    made = guest.lab.tunnel(TO_CHARON, in_kernel(agreement()))
    try:
        connect(made)
        network.client.run(["sh", "-c", f"ip xfrm state add {foreign} {keys}"])
        made.client.kill()
        assert leftovers(network.client).count("proto esp") >= 3
        client = made.client
        words = ["down"] if by == "down" else ["up", str(client.profile)]
        again = network.client.popen(
            [*IKEWAY, *words],
            files={"/run": client.folder / "run"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            environment={"PYTHONUNBUFFERED": "1", "TERM": "dumb", "COLUMNS": "500"},
        )
        said = ""
        while by == "up" and " is up: " not in said and (line := again.stdout.readline()):
            said += line
        if by == "up":
            standing = network.client.run(["ip", "xfrm", "state"])
            assert standing.count("proto esp") == 3, f"{standing}\n{said}"
            again.terminate()
        said += again.communicate(timeout=60)[0]
        assert "leaned up after" in said, said
        states = network.client.run(["ip", "xfrm", "state"])
        assert states.count("proto esp") == 1 and "0x00000042" in states, states
        assert network.client.run(["ip", "xfrm", "policy"]) == ""
        assert "ikeway" not in network.client.run(["ip", "-o", "link"])
    finally:
        network.client.run(["sh", "-c", "ip xfrm state flush; ip xfrm policy flush"])
        guest.lab.without_charon(network.gateway)


@SUITE.case()
def a_full_tunnel_leaves_the_way_to_the_gateway_open(guest: Guest) -> None:
    """Everything goes into the tunnel but the tunnel itself, whose routes the kernel looks up by its mark."""
    with guest.tunnel(OURS, agreement(both={"networks": {"net": ("0.0.0.0/0",)}})) as made:
        guest.network.ip(guest.network.client, f"route add default via {Way.WAN.gateway}", check=False)
        connect(made)
        for host in (LAN_HOST[4], LAN_SECOND_HOST):
            assert ping(made.client.namespace, host).lost == 0, made.logs()
        transfer(made.client.namespace, made.network.lan, LAN_HOST[4], megabytes=MEGABYTES)
        made.client.close()
    guest.network.ip(guest.network.client, f"route delete default via {Way.WAN.gateway}", check=False)

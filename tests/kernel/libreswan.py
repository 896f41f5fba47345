"""Our client and gateway against libreswan: cases of the suite `others`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.interop.agreement import CLIENT_NAME, GATEWAY_NAME, Agreement, agreement
from tests.interop.network import CLIENT_SECOND_ADDRESS, LAN_HOST, LAN_NETWORK, POOL, Way
from tests.interop.ours import IkewayClient, IkewayGateway
from tests.interop.traffic import MEGABYTE, RunningTransfer
from tests.interop.waiting import wait_until
from tests.kernel.daemons import (
    MEGABYTES,
    SUITE,
    Daemon,
    Guest,
    another_address,
    carries,
    carries_between_hosts,
    moved,
    rekeyed,
    telling,
    used,
)

COMMON = """
ikev2=insist
authby=secret
ike=aes_gcm256-sha2_256-dh31
esp=aes_gcm256
pfs=no
auto=add
"""
ANYWHERE = {4: "0.0.0.0/0", 6: "::/0"}
ADDRESSES = {4: "10.92.0.1-10.92.0.200", 6: "fd92::1-fd92::200"}


def version_of(way: Way) -> int:
    return 6 if way is Way.WAN6 else 4


def yes(wanted: bool) -> str:
    return "yes" if wanted else "no"


def road(way: Way) -> Agreement:
    """One network behind the gateway, and an address for the client."""
    version = version_of(way)
    return agreement(way=way, both={"networks": {"net": (LAN_NETWORK[version],)}}, pool={version: POOL[version]})


def between_hosts(way: Way) -> Agreement:
    return agreement(way=way, both={"mode": "transport", "networks": {"net": ()}}, pool={})


def gateway(way: Way, *, udp: bool = False) -> str:
    version = version_of(way)
    return f"""{COMMON}
left={way.gateway}
leftid=@{GATEWAY_NAME}
leftsubnet={LAN_NETWORK[version]}
right=%any
rightaddresspool={ADDRESSES[version]}
encapsulation={yes(udp)}
mobike=yes
"""


def client(way: Way, *, udp: bool = False) -> str:
    version = version_of(way)
    return f"""{COMMON}
left=%defaultroute
leftid={CLIENT_NAME}
leftmodecfgclient=yes
leftsubnet={ANYWHERE[version]}
right={way.gateway}
rightid=@{GATEWAY_NAME}
rightsubnet={ANYWHERE[version]}
narrowing=yes
encapsulation={yes(udp)}
mobike=yes
"""


def host(way: Way, *, is_client: bool) -> str:
    """Either end of transport mode."""
    ends = (way.client, CLIENT_NAME, way.gateway, f"@{GATEWAY_NAME}")
    here, own, there, other = ends if is_client else (*ends[2:], *ends[:2])
    return f"""{COMMON}
type=transport
left={here}
leftid={own}
right={there}
rightid={other}
"""


@SUITE.case(Way.WAN, False)
@SUITE.case(Way.WAN, True)
@SUITE.case(Way.WAN6, False)
def to_libreswan(guest: Guest, way: Way, udp: bool) -> None:
    """Our client: protocol 50, UDP, IPv6; both kinds of rekeying, by either side; its move to another address."""
    version = version_of(way)
    with (
        guest.libreswan(guest.network.gateway, gateway(way, udp=udp)) as daemon,
        guest.client(road(way)) as ours,
        telling(ours, daemon),
    ):
        ours.connect(timeout=60)
        carries(guest, version, megabytes=MEGABYTES)
        used(ours, udp=udp)
        moves = way is Way.WAN and not udp
        if moves:
            # Before the IKE SA is rekeyed: libreswan forgets then that both do MOBIKE, follows nobody any more, and
            # sends its answers to the old address.
            move(guest, ours)
        for what in ("child", "ike"):
            rekeyed(ours, what)
            carries(guest, version)
        if moves:
            renewed_by(daemon, ours)
            carries(guest, version)
        ours.close()


def move(guest: Guest, ours: IkewayClient) -> None:
    """The client goes on from another address in the middle of a transfer, and once more to where it was."""
    running = RunningTransfer(guest.network.client, guest.network.lan, LAN_HOST[4], megabytes=4 * MEGABYTES)
    running.wait_for(MEGABYTES * MEGABYTE // 2)
    with another_address(guest):
        running.result()
        moved(ours)
        rekeyed(ours, "child")
        carries(guest)
    moved(ours, Way.WAN.client)
    carries(guest)


def renewed_by(daemon: Daemon, ours: IkewayClient | IkewayGateway) -> None:
    """libreswan renews the keys."""
    for what, word in (("child", "--rekey-ipsec"), ("ike", "--rekey-ike")):
        rekeyed(ours, what, lambda word=word: daemon.run("ipsec", "whack", word, "--name", "lab"))


@SUITE.case(Way.WAN6, False)
@SUITE.case(Way.WAN, True)
@SUITE.case(Way.WAN, False)
def from_libreswan(guest: Guest, way: Way, udp: bool) -> None:
    """Our gateway, with an address from its pool."""
    version = version_of(way)
    with (
        default_route(guest, way),
        guest.gateway(road(way)) as ours,
        guest.libreswan(guest.network.client, client(way, udp=udp)) as daemon,
        telling(ours, daemon),
    ):
        up(daemon, ours)
        carries(guest, version, megabytes=MEGABYTES)
        used(ours, udp=udp)
        moves = way is Way.WAN and not udp
        with moved_by_libreswan(guest, ours) if moves else contextlib.nullcontext():
            for what in ("child", "ike"):
                rekeyed(ours, what)
                carries(guest, version)
            if moves:
                renewed_by(daemon, ours)
                carries(guest, version)
                daemon.run("ipsec", "auto", "--down", "lab")  # while it has the address that it is known by


@contextlib.contextmanager
def moved_by_libreswan(guest: Guest, ours: IkewayGateway) -> Iterator[None]:
    """libreswan goes on from another address in the middle of a transfer, and our gateway follows."""
    running = RunningTransfer(guest.network.client, guest.network.lan, LAN_HOST[4], megabytes=4 * MEGABYTES)
    running.wait_for(MEGABYTES * MEGABYTE // 2)
    with another_address(guest):
        wait_until(lambda: CLIENT_SECOND_ADDRESS in ours.sessions()[0].remote, "it has not moved", 20, ours.log)
        running.result()
        yield


def up(daemon: Daemon, ours: IkewayGateway) -> None:
    said = daemon.run("ipsec", "auto", "--up", "lab")
    assert "IPsec SA established" in said or "established Child SA" in said, f"{said}\n{ours.log()}"


@contextlib.contextmanager
def default_route(guest: Guest, way: Way) -> Iterator[None]:
    """libreswan's client wants one."""
    network, version = guest.network, version_of(way)
    network.ip(network.client, f"-{version} route add default via {way.gateway}")
    try:
        yield
    finally:
        network.ip(network.client, f"-{version} route delete default via {way.gateway}", check=False)


@SUITE.case()
def transport_mode_to_libreswan(guest: Guest) -> None:
    """Our client, host to host."""
    way = Way.WAN
    with (
        guest.libreswan(guest.network.gateway, host(way, is_client=False)) as daemon,
        guest.client(between_hosts(way)) as ours,
        telling(ours, daemon),
    ):
        ours.connect(timeout=60)
        carries_between_hosts(guest, way, megabytes=MEGABYTES)
        used(ours, udp=False, mode="transport")
        for what in ("child", "ike"):
            rekeyed(ours, what)
        renewed_by(daemon, ours)
        carries_between_hosts(guest, way)
        ours.close()


@SUITE.case(Way.WAN6)
@SUITE.case(Way.WAN)
def transport_mode_from_libreswan(guest: Guest, way: Way) -> None:
    """Our gateway, host to host."""
    with (
        guest.gateway(between_hosts(way)) as ours,
        guest.libreswan(guest.network.client, host(way, is_client=True)) as daemon,
        telling(ours, daemon),
    ):
        up(daemon, ours)
        carries_between_hosts(guest, way, megabytes=MEGABYTES)
        used(ours, udp=False, mode="transport")
        for what in ("child", "ike"):
            rekeyed(ours, what)
        renewed_by(daemon, ours)
        carries_between_hosts(guest, way)

"""Our client and gateway against OpenIKED: cases of the suite `others`.

OpenIKED on Linux (PF_KEY) does neither AES-GCM nor HMAC-SHA2-256 in ESP.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.interop.agreement import CLIENT_NAME, GATEWAY_NAME, SECRET, Agreement, agreement
from tests.interop.network import LAN_HOST, LAN_NETWORK, POOL, Way
from tests.interop.ours import IkewayClient
from tests.interop.traffic import ping
from tests.interop.waiting import wait_until
from tests.kernel.daemons import (
    MEGABYTES,
    SUITE,
    Daemon,
    Guest,
    another_address,
    carries,
    carries_between_hosts,
    marks,
    moved,
    rekeyed,
    telling,
    used,
)

ESP = "aes256-sha512"
ALGORITHMS = "ikesa enc aes-256-gcm prf hmac-sha2-256 group curve25519 childsa enc aes-256 auth hmac-sha2-512"
ANY = {4: "any", 6: "::"}
INSIDE = "inside"  # the interface that its client puts the address on


def version_of(way: Way) -> int:
    return 6 if way is Way.WAN6 else 4


def road(way: Way) -> Agreement:
    """One network behind the gateway, and an address for the client."""
    version = version_of(way)
    networks = {"net": (LAN_NETWORK[version],)}
    return agreement(way=way, both={"esp": ESP, "networks": networks}, pool={version: POOL[version]})


def between_hosts(way: Way) -> Agreement:
    return agreement(way=way, both={"esp": ESP, "mode": "transport", "networks": {"net": ()}}, pool={})


def passive(way: Way, flow: str, more: str = "") -> str:
    return (
        f'ikev2 "lab" passive {flow} local {way.gateway} peer any '
        f'{ALGORITHMS} srcid "{GATEWAY_NAME}" psk "{SECRET}" {more}\n'
    )


def active(way: Way, flow: str, more: str = "") -> str:
    return (
        f'ikev2 "lab" active {flow} local {way.client} peer {way.gateway} '
        f'{ALGORITHMS} srcid "{CLIENT_NAME}" dstid "{GATEWAY_NAME}" psk "{SECRET}" {more}\n'
    )


@SUITE.case(Way.WAN)
@SUITE.case(Way.NAT)
@SUITE.case(Way.WAN6)
def to_openiked(guest: Guest, way: Way) -> None:
    """Our client: protocol 50, UDP, IPv6; both kinds of rekeying; its move to another address, as far as that goes."""
    version = version_of(way)
    configuration = passive(way, f"esp from {LAN_NETWORK[version]} to dynamic", f"config address {POOL[version]}")
    with (
        guest.iked(guest.network.gateway, configuration) as daemon,
        guest.client(road(way)) as ours,
        telling(ours, daemon),
    ):
        ours.connect(timeout=60)
        carries(guest, version, megabytes=MEGABYTES)
        used(ours, udp=way is Way.NAT)
        for what in ("child", "ike"):
            rekeyed(ours, what)
            carries(guest, version)
        if way is Way.WAN:
            half_a_move(guest, ours, daemon)
        ours.close()


def half_a_move(guest: Guest, ours: IkewayClient, daemon: Daemon) -> None:
    """OpenIKED takes the new address, and moves its policies there. Its states stay where they are: Linux refuses to
    move them by PF_KEY. The next rekeying makes others."""
    with another_address(guest):
        moved(ours)
        daemon.wait_for("pfkey_sa_update_addresses: .*\n.*Invalid argument\n.*failed to update sa")
        rekeyed(ours, "child")
        carries(guest)


@SUITE.case(Way.WAN6)
@SUITE.case(Way.NAT)
@SUITE.case(Way.WAN)
def from_openiked(guest: Guest, way: Way) -> None:
    """Our gateway, with an address from its pool."""
    version = version_of(way)
    configuration = active(
        way, f"esp from dynamic to {LAN_NETWORK[version]}", f"request address {ANY[version]} iface {INSIDE}"
    )
    with (
        interface_inside(guest, version),
        guest.gateway(road(way)) as ours,
        guest.iked(guest.network.client, configuration) as daemon,
        telling(ours, daemon),
    ):
        wait_until(lambda: marks(ours), "not connected", 20)
        # It hears of the child SA from us, and then makes its own half, the address and the route.
        wait_until(
            lambda: ping(guest.network.client, LAN_HOST[version], count=1, timeout=2).lost == 0, "nothing arrives", 20
        )
        carries(guest, version, megabytes=MEGABYTES)
        used(ours, udp=way is Way.NAT)
        for what in ("child", "ike"):
            rekeyed(ours, what)
            carries(guest, version)
        ours.close()  # OpenIKED says nothing when it ends


@contextlib.contextmanager
def interface_inside(guest: Guest, version: int) -> Iterator[None]:
    """Where OpenIKED's client puts the address that it is given, and the route by it. Without, no packet has that
    address, and its policies take none. Its IPv6 route goes by its own address, which Linux refuses."""
    network = guest.network
    network.ip(network.client, f"link add {INSIDE} type dummy")
    try:
        network.ip(network.client, f"link set {INSIDE} up")
        if version == 6:
            network.ip(network.client, f"-6 route add {LAN_NETWORK[6]} dev {INSIDE}")
        yield
    finally:
        network.ip(network.client, f"link delete {INSIDE}")


@SUITE.case()
def transport_mode_to_openiked(guest: Guest) -> None:
    way = Way.WAN
    configuration = passive(way, f"transport esp from {way.gateway} to {way.client}")
    with (
        guest.iked(guest.network.gateway, configuration) as daemon,
        guest.client(between_hosts(way)) as ours,
        telling(ours, daemon),
    ):
        ours.connect(timeout=60)
        carries_between_hosts(guest, way)
        used(ours, udp=False, mode="transport")
        for what in ("child", "ike"):
            rekeyed(ours, what)
        carries_between_hosts(guest, way)
        ours.close()


@SUITE.case()
def transport_mode_from_openiked(guest: Guest) -> None:
    way = Way.WAN
    configuration = active(way, f"transport esp from {way.client} to {way.gateway}")
    with (
        guest.gateway(between_hosts(way)) as ours,
        guest.iked(guest.network.client, configuration) as daemon,
        telling(ours, daemon),
    ):
        wait_until(lambda: marks(ours) and "-> ESTABLISHED" in daemon.log(), "not connected", 20)
        carries_between_hosts(guest, way)
        used(ours, udp=False, mode="transport")
        for what in ("child", "ike"):
            rekeyed(ours, what)
        carries_between_hosts(guest, way)
        ours.close()

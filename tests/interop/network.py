"""The network that peers are tried in: a client, a gateway with a LAN behind it, and three ways between the two.

    client --(wan: 10.90.0/24, fd90::/64)-------------------------------- gateway --(10.91.0/24, 10.91.1/24, fd91::/64)-- lan
           --(home: 192.168.77/24)-- nat (masquerades) --(10.95.0/24)----
           --(10.96.1/24)-- narrow (576 octets, carries no fragments) --(10.96.2/24)--

Made of network namespaces of this process' own, gone with `close()`.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")
CLONE_NEWNET = 0x40000000

LAN_HOST = {4: "10.91.0.10", 6: "fd91::10"}
LAN_SECOND_HOST = "10.91.1.10"
LAN_NETWORK = {4: "10.91.0.0/24", 6: "fd91::/64"}
LAN_SECOND_NETWORK = "10.91.1.0/24"
POOL = {4: "10.92.0.0/24", 6: "fd92::/112"}
NARROW_MTU = 576


class Way(enum.Enum):
    """A way from the client to the gateway: the gateway's address on it and the client's."""

    WAN = ("10.90.0.1", "10.90.0.2")
    WAN6 = ("fd90::1", "fd90::2")
    NAT = ("10.95.0.1", "192.168.77.2")
    NARROW = ("10.96.2.1", "10.96.1.2")

    @property
    def gateway(self) -> str:
        return self.value[0]

    @property
    def client(self) -> str:
        return self.value[1]


CLIENT_SECOND_ADDRESS = "10.90.0.3"

NAT_RULES = """
table ip nat {
  chain out { type nat hook postrouting priority srcnat; oifname "out" masquerade random; }
}
"""
NARROW_RULES = f"""
table ip narrow {{
  chain arriving {{ type filter hook prerouting priority raw; ip frag-off & 0x3fff != 0 counter drop; }}
  chain passing {{ type filter hook forward priority filter; meta length > {NARROW_MTU} counter drop; }}
}}
"""


class Network:
    """All namespaces; `client`, `gateway`, `lan`, `nat` and `narrow` are their names."""

    def __init__(self) -> None:
        prefix = f"ikw{os.getpid() % 100000}"
        self.client, self.gateway, self.lan, self.nat, self.narrow = (
            f"{prefix}-{name}" for name in ("cli", "srv", "lan", "nat", "rtr")
        )
        self.all = (self.client, self.gateway, self.lan, self.nat, self.narrow)
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the namespaces; devices in them go too."""
        for name in self.all:
            subprocess.run(["ip", "netns", "delete", name], check=False, stderr=subprocess.DEVNULL)

    def run(self, namespace: str, *command: str, check: bool = True, timeout: float = 30) -> str:
        """Run a command in a namespace and return what it printed."""
        done = subprocess.run(
            ["ip", "netns", "exec", namespace, *command],
            check=False,
            text=True,
            timeout=timeout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)} in {namespace}: exit {done.returncode}\n{done.stdout}")
        return done.stdout

    def ip(self, namespace: str, *words: str, check: bool = True) -> None:
        """Run `ip` on a namespace."""
        done = subprocess.run(["ip", "-n", namespace, *words], check=False, text=True, capture_output=True)
        if check and done.returncode != 0:
            raise AssertionError(f"ip {' '.join(words)}: {done.stderr}")

    def restore_client_addresses(self) -> None:
        """Put back what MOBIKE cases take away."""
        for address in (Way.WAN.client, CLIENT_SECOND_ADDRESS):
            self.ip(self.client, "address", "delete", f"{address}/24", "dev", "wan", check=False)
        self.ip(self.client, "address", "add", f"{Way.WAN.client}/24", "dev", "wan")

    def narrow_drops(self) -> int:
        """How many packets the narrow path refused for their length or for being fragments."""
        listing = self.run(self.narrow, "nft", "list", "table", "ip", "narrow").split()
        return sum(int(listing[i + 1]) for i, word in enumerate(listing) if word == "packets")

    def _build(self) -> None:
        for name in self.all:
            subprocess.run(["ip", "netns", "add", name], check=True)
            self.ip(name, "link", "set", "lo", "up")
            in_namespace(name, _set_up_host)
        self._link(self.client, "wan", self.gateway, "wan")
        self._link(self.client, "home", self.nat, "in")
        self._link(self.nat, "out", self.gateway, "nat")
        self._link(self.client, "slow", self.narrow, "in")
        self._link(self.narrow, "out", self.gateway, "slow")
        self._link(self.gateway, "lan", self.lan, "eth")
        self._addresses(self.client, wan="10.90.0.2/24 fd90::2/64", home="192.168.77.2/24", slow="10.96.1.2/24")
        self._addresses(
            self.gateway,
            wan="10.90.0.1/24 fd90::1/64",
            nat="10.95.0.1/24",
            slow="10.96.2.1/24",
            lan="10.91.0.1/24 10.91.1.1/24 fd91::1/64",
        )
        self._addresses(self.nat, **{"in": "192.168.77.1/24", "out": "10.95.0.254/24"})
        self._addresses(self.narrow, **{"in": "10.96.1.1/24", "out": "10.96.2.254/24"})
        self._addresses(self.lan, eth="10.91.0.10/24 10.91.1.10/24 fd91::10/64")
        self.ip(self.client, "route", "add", "10.95.0.0/24", "via", "192.168.77.1")
        self.ip(self.client, "route", "add", "10.96.2.0/24", "via", "10.96.1.1")
        self.ip(self.gateway, "route", "add", "10.96.1.0/24", "via", "10.96.2.254")
        self.ip(self.lan, "route", "add", "default", "via", "10.91.0.1")
        self.ip(self.lan, "-6", "route", "add", "default", "via", "fd91::1")
        for network, device in (("10.96.1.0/24", "in"), ("10.96.2.0/24", "out")):
            mtu = str(NARROW_MTU)
            self.ip(self.narrow, "route", "replace", network, "dev", device, "mtu", "lock", mtu)
        for name in (self.nat, self.narrow, self.gateway):
            in_namespace(name, _forward)
        # Packets pass the narrow path as they are on a wire: its length rule must not see 64 KiB of segments as one.
        for name, device in ((self.client, "slow"), (self.gateway, "slow"), (self.narrow, "in"), (self.narrow, "out")):
            self.run(name, "ethtool", "-K", device, "tso", "off", "gso", "off", "gro", "off")
        self._rules(self.nat, NAT_RULES)
        self._rules(self.narrow, NARROW_RULES)

    def _link(self, one: str, one_device: str, other: str, other_device: str) -> None:
        ends = ["link", "add", one_device, "type", "veth", "peer", "name", other_device, "netns", other]
        self.ip(one, *ends)
        self.ip(one, "link", "set", one_device, "up")
        self.ip(other, "link", "set", other_device, "up")

    def _addresses(self, namespace: str, **devices: str) -> None:
        for device, addresses in devices.items():
            for address in addresses.split():
                no_wait = ["nodad"] if ":" in address else []
                self.ip(namespace, "address", "add", address, "dev", device, *no_wait)

    def _rules(self, namespace: str, rules: str) -> None:
        subprocess.run(["ip", "netns", "exec", namespace, "nft", "-f", "-"], input=rules, text=True, check=True)


def _set_up_host() -> None:
    settings = {
        "ipv4/conf/all/rp_filter": "0",
        "ipv4/conf/default/rp_filter": "0",
        "ipv4/conf/default/promote_secondaries": "1",
        "ipv6/conf/default/accept_ra": "0",
        "ipv6/conf/default/disable_ipv6": "0",
    }
    for name, value in settings.items():
        Path("/proc/sys/net", name).write_text(value)


def _forward() -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")


def in_namespace(name: str, call: Callable[[], Result]) -> Result:
    """Call in a thread that has entered the namespace; sockets made there stay in it."""
    result: list[Result] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            with _open_namespace(name) as descriptor:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(descriptor, CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns {name}")
            result.append(call())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


@contextlib.contextmanager
def _open_namespace(name: str) -> Iterator[int]:
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def socket_in(namespace: str, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
    """A socket that lives in a namespace and is used from here."""
    return in_namespace(namespace, lambda: socket.socket(family, kind))

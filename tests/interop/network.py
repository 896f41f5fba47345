"""The network that peers are tried in: a client, a gateway with a LAN behind it, and three ways between the two.

    client --(wan: 10.90.0/24, fd90::/64)-------------------------------- gateway --(10.91.0/24, 10.91.1/24, fd91::/64)-- lan
           --(home: 192.168.77/24)-- nat (masquerades) --(10.95.0/24)----
           --(10.96.1/24)-- narrow (576 octets, fragments of IKE are lost) --(10.96.2/24)--

Made of namespaces that are gone with this process, however it ends.
"""

from __future__ import annotations

import enum
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from ikeway.host.namespaces import Namespace, Port, connect

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
# IKE must fit as it is: too long, or fragmented by IP, it is dropped, as many real paths do. ESP may be fragmented.
# (In UDP on port 4500, IKE begins with four zero octets.)
IKE = ("udp dport 500", "udp sport 500", "udp dport 4500 @th,64,32 0")
NARROW_RULES = f"""
table ip narrow {{
  chain arriving {{
    type filter hook prerouting priority raw;
    {"; ".join(f"{ike} ip frag-off & 0x2000 != 0 counter drop" for ike in IKE)};
    {"; ".join(f"{ike} meta length > {NARROW_MTU} counter drop" for ike in IKE)};
  }}
}}
"""
SYSCTLS = {
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
    "net.ipv4.ping_group_range": "0 0",  # lets root send pings without a raw socket
}
FORWARDING = {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1}


class Network:
    """All namespaces, by what they are."""

    def __init__(self) -> None:
        with ExitStack() as stack:
            self.client, self.gateway, self.lan, self.nat, self.narrow = (
                stack.enter_context(Namespace(label)) for label in ("client", "gateway", "lan", "nat", "narrow")
            )
            self._build()
            self._stack = stack.pop_all()

    def close(self) -> None:
        """End what runs inside, and give all up."""
        self._stack.close()

    def ip(self, namespace: Namespace, words: str, *, check: bool = True) -> None:
        """Run `ip` in a namespace."""
        namespace.run(["ip", *words.split()], check=check)

    def restore_client_addresses(self) -> None:
        """Put back what MOBIKE cases take away."""
        for address in (Way.WAN.client, CLIENT_SECOND_ADDRESS):
            self.ip(self.client, f"address delete {address}/24 dev wan", check=False)
        self.ip(self.client, f"address add {Way.WAN.client}/24 dev wan")

    def narrow_drops(self) -> int:
        """How many IKE messages the narrow path refused for their length or for being fragments of IP."""
        listing = self.narrow.run(["nft", "list", "table", "ip", "narrow"]).split()
        return sum(int(listing[i + 1]) for i, word in enumerate(listing) if word == "packets")

    def _build(self) -> None:
        for namespace in (self.client, self.gateway, self.lan, self.nat, self.narrow):
            _set(namespace, SYSCTLS)
        for namespace in (self.gateway, self.nat, self.narrow):
            _set(namespace, FORWARDING)
        connect(
            Port(self.client, "wan", ("10.90.0.2/24", "fd90::2/64")),
            Port(self.gateway, "wan", ("10.90.0.1/24", "fd90::1/64")),
        )
        connect(Port(self.client, "home", ("192.168.77.2/24",)), Port(self.nat, "in", ("192.168.77.1/24",)))
        connect(Port(self.nat, "out", ("10.95.0.254/24",)), Port(self.gateway, "nat", ("10.95.0.1/24",)))
        connect(Port(self.client, "slow", ("10.96.1.2/24",)), Port(self.narrow, "in", ("10.96.1.1/24",)))
        connect(Port(self.narrow, "out", ("10.96.2.254/24",)), Port(self.gateway, "slow", ("10.96.2.1/24",)))
        connect(
            Port(self.gateway, "lan", ("10.91.0.1/24", "10.91.1.1/24", "fd91::1/64")),
            Port(self.lan, "eth", ("10.91.0.10/24", "10.91.1.10/24", "fd91::10/64")),
        )
        # Another address of an interface stays when its first one goes.
        _set(self.client, {"net.ipv4.conf.wan.promote_secondaries": 1})
        self.ip(self.client, "route add 10.95.0.0/24 via 192.168.77.1")
        self.ip(self.client, "route add 10.96.2.0/24 via 10.96.1.1")
        self.ip(self.gateway, "route add 10.96.1.0/24 via 10.96.2.254")
        self.ip(self.lan, "route add default via 10.91.0.1")
        self.ip(self.lan, "-6 route add default via fd91::1")
        self.nat.run(["nft", NAT_RULES])
        self._make_narrow()

    def _make_narrow(self) -> None:
        for network, device in (("10.96.1.0/24", "in"), ("10.96.2.0/24", "out")):
            self.ip(self.narrow, f"route replace {network} dev {device} mtu lock {NARROW_MTU}")
        # Packets pass as they are on a wire, not as 64 KiB of segments in one.
        for namespace, device in (
            (self.client, "slow"),
            (self.gateway, "slow"),
            (self.narrow, "in"),
            (self.narrow, "out"),
        ):
            namespace.run(["ethtool", "-K", device, "tso", "off", "gso", "off", "gro", "off"])
        self.narrow.run(["nft", NARROW_RULES])


def _set(namespace: Namespace, values: Mapping[str, int | str]) -> None:
    def write() -> None:
        for name, value in values.items():
            Path("/proc/sys", name.replace(".", "/")).write_text(str(value))

    namespace.call(write)


def socket_in(
    namespace: Namespace, family: socket.AddressFamily, kind: socket.SocketKind, protocol: int = 0
) -> socket.socket:
    """A socket that lives in a namespace and is used from here."""
    return namespace.call(lambda: socket.socket(family, kind, protocol))

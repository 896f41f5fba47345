"""Small networks for tests, made of namespaces that vanish with the test process (`ikeway.host.namespaces`)."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import TypeVar

from ikeway.host.namespaces import Namespace, Port, connect

Result = TypeVar("Result")

CLIENT, GATEWAY = "192.168.50.2", "192.168.50.1"
CLIENT6, GATEWAY6 = "fd50::2", "fd50::1"
FAR, FAR6 = "198.51.100.1", "2001:db8:51::1"  # addresses of the gateway that only a default route reaches

_MASQUERADE = "table ip nat { chain out { type nat hook postrouting priority srcnat; oifname wan masquerade; }; }"


@dataclass(frozen=True)
class TwoHosts:
    """A client (interface eth0) and a gateway (eth0), side by side, or with a masquerading box between them."""

    client: Namespace
    gateway: Namespace


@contextlib.contextmanager
def two_hosts(*, nat: bool = False, mtu: int = 1500) -> Iterator[TwoHosts]:
    """A client whose default route is the gateway; behind NAT it is 10.50.0.2 and the gateway sees 192.168.50.2."""
    with contextlib.ExitStack() as stack:
        client, gateway = (stack.enter_context(Namespace(label)) for label in ("client", "gateway"))
        there = Port(gateway, "eth0", (f"{GATEWAY}/24", f"{GATEWAY6}/64", f"{FAR}/32", f"{FAR6}/128"), mtu)
        if nat:
            box = stack.enter_context(Namespace("nat"))
            connect(Port(box, "wan", (f"{CLIENT}/24",), mtu), there)
            connect(Port(client, "eth0", ("10.50.0.2/24",), mtu), Port(box, "lan", ("10.50.0.1/24",), mtu))
            box.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
            box.run(["nft", _MASQUERADE])
            box.run(["ip", "route", "add", "default", "via", GATEWAY])
            client.run(["ip", "route", "add", "default", "via", "10.50.0.1"])
        else:
            connect(Port(client, "eth0", (f"{CLIENT}/24", f"{CLIENT6}/64"), mtu), there)
            client.run(["ip", "route", "add", "default", "via", GATEWAY])
            client.run(["ip", "-6", "route", "add", "default", "via", GATEWAY6])
        yield TwoHosts(client, gateway)


def inside(namespace: Namespace, work: Callable[[], Coroutine[None, None, Result]]) -> Result:
    """Run a coroutine function to its end inside a namespace."""
    return namespace.call(lambda: asyncio.run(work()))


def snapshot(namespace: Namespace) -> str:
    """What our changes may touch: addresses, routes, rules, forwarding, nftables. Interfaces' own lines too."""
    commands = (
        "ip -o addr | sed 's/stable-privacy//'",
        "ip rule",
        "ip -6 rule",
        "ip route show table all",
        "ip -6 route show table all",
        "nft list ruleset",
        "cd /proc/sys/net; grep . ipv4/ip_forward ipv?/conf/*/forwarding ipv?/conf/*/accept_redirects ipv6/conf/*/accept_ra",
    )
    return namespace.run(["sh", "-c", "; ".join(commands)])


def settle(namespace: Namespace) -> None:
    """Wait until IPv6 addresses of the kernel's own making are no longer tentative, so that snapshots compare."""
    namespace.run(["sh", "-c", "while ip -6 addr | grep -q tentative; do sleep 0.05; done"], timeout=10.0)

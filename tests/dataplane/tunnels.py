"""A pair of data planes with keys known to both, in two namespaces: what an IKE daemon would have negotiated."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from ikeway.address import Address
from ikeway.crypto import encryption_info, integrity_info
from ikeway.dataplane.interface import DataPlaneEvent
from ikeway.dataplane.userspace.plane import UserspaceDataPlane
from ikeway.dataplane.userspace.sockets import open_esp, open_udp
from ikeway.esp.parameters import Encapsulation, EspSa, EspTransforms, Mode
from ikeway.host.tun import open_tun
from ikeway.wire.payloads import TrafficSelector
from ikeway.wire.registry import EncryptionAlgorithm, TrafficSelectorType
from tests.dataplane.namespaces import inside, ip, two_namespaces

GCM = EspTransforms(encryption=EncryptionAlgorithm.ENCR_AES_GCM_16, key_bits=128, integrity=None)


def network(text: str, protocol: int = 0, ports: tuple[int, int] = (0, 65535)) -> TrafficSelector:
    """The selector of a network."""
    net = ipaddress.ip_network(text)
    kind = TrafficSelectorType.TS_IPV4_ADDR_RANGE if net.version == 4 else TrafficSelectorType.TS_IPV6_ADDR_RANGE
    return TrafficSelector(kind, protocol, *ports, net[0].packed, net[-1].packed)


def keys(transforms: EspTransforms) -> tuple[bytes, bytes]:
    """Random encryption and integrity key of the right length."""
    integrity = integrity_info(transforms.integrity).key_octets if transforms.integrity else 0
    return os.urandom(encryption_info(transforms.encryption, transforms.key_bits).keying_octets), os.urandom(integrity)


def sa_pair(spi: int, sender: Address, receiver: Address, **changes: object) -> tuple[EspSa, EspSa]:
    """(Outbound SA of the sender, inbound SA of the receiver) with the same new keys."""
    transforms = changes.pop("transforms", GCM)
    encryption_key, integrity_key = keys(transforms)
    source = changes.pop("source", (network("10.78.0.0/16"), network("fd78::/64")))
    destination = changes.pop("destination", (network("10.78.0.0/16"), network("fd78::/64")))
    outbound = EspSa(
        spi=spi,
        child_id=1,
        connection_id=1,
        transforms=transforms,
        encryption_key=encryption_key,
        integrity_key=integrity_key,
        mode=Mode.TUNNEL,
        encapsulation=Encapsulation.UDP,
        local=sender,
        remote=receiver,
        local_selectors=source,
        remote_selectors=destination,
    )
    outbound = replace(outbound, **changes)
    inbound = replace(
        outbound, local=receiver, remote=sender, local_selectors=destination, remote_selectors=source, follow_peer=True
    )
    return outbound, inbound


@dataclass
class Side:
    """One end: its namespace, its data plane, what that has reported."""

    namespace: str
    plane: UserspaceDataPlane
    outer: Address
    outer_ipv6: Address
    inner: str
    inner_ipv6: str
    tun: str
    events: list[DataPlaneEvent] = field(default_factory=list)


def _start(namespace: str, number: int, mtu: int, vnet_header: bool, mark: int) -> Side:
    def make() -> Side:
        tun = open_tun("ike%d", vnet_header=vnet_header)
        udp = [open_udp(Address(host, 4500), mark=mark) for host in ("0.0.0.0", "::")]
        esp = [open_esp("0.0.0.0"), open_esp("::")]
        plane = UserspaceDataPlane(tun, udp, esp=esp, mtu=mtu)
        return Side(
            namespace,
            plane,
            Address(f"10.77.0.{number}", 4500),
            Address(f"fd77::{number}", 4500),
            f"10.78.0.{number}",
            f"fd78::{number}",
            tun.name,
        )

    side = inside(namespace, make)
    ip("addr", "add", f"{side.inner}/24", "dev", side.tun, namespace=namespace)
    ip("addr", "add", f"{side.inner_ipv6}/64", "dev", side.tun, "nodad", namespace=namespace)
    ip("link", "set", side.tun, "mtu", str(mtu), "up", namespace=namespace)
    return side


@contextlib.asynccontextmanager
async def two_sides(
    prefix: str = "ikedp", *, mtu: int = 1400, vnet_header: bool = False, mark: int = 0
) -> AsyncIterator[tuple[Side, Side]]:
    """Two data planes, started, without SAs."""
    with two_namespaces(prefix) as names:
        sides = [_start(name, number, mtu, vnet_header, mark) for number, name in enumerate(names, 1)]
        try:
            for side in sides:
                await side.plane.start(side.events.append)
            yield sides[0], sides[1]
        finally:
            for side in sides:
                await side.plane.stop()


async def connect(left: Side, right: Side, spi: int = 0x1001, *, ipv6: bool = False, **changes: object) -> None:
    """A child SA in both directions, SPIs `spi` and `spi + 1`."""
    one, other = (left.outer_ipv6, right.outer_ipv6) if ipv6 else (left.outer, right.outer)
    there, there_in = sa_pair(spi, one, other, **dict(changes))
    if "source" in changes or "destination" in changes:
        changes["source"], changes["destination"] = there.remote_selectors, there.local_selectors
    back, back_in = sa_pair(spi + 1, other, one, **dict(changes))
    await right.plane.add_inbound(there_in)
    await left.plane.add_inbound(back_in)
    await left.plane.add_outbound(there)
    await right.plane.add_outbound(back)

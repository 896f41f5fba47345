"""Policies of a gateway: look-ups against a plain model, and nothing left behind."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP

from ikeway.address import Address
from ikeway.dataplane.userspace.associations import Associations, Sending
from ikeway.dataplane.userspace.messages import Past
from ikeway.dataplane.userspace.paths import OuterSocket, Paths
from ikeway.errors import HostError
from ikeway.esp.drops import Drop
from ikeway.esp.parameters import Encapsulation
from tests.esp.material import esp_sa, network

NETWORKS = ("10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.1/32", "10.1.1.2/32", "10.2.0.0/16")
DESTINATIONS = ("10.1.1.1", "10.1.1.2", "10.1.1.3", "10.1.9.9", "10.2.0.1", "10.9.9.9", "11.0.0.1")
REMOTE = Address("127.0.0.1", 4500)


def associations(*hosts: str) -> Associations:
    """With sockets that are never used."""
    outers = [OuterSocket(socket.socket(), ":" in host, False, host, 4500) for host in hosts or ("0.0.0.0",)]
    return Associations(Paths(outers))


def packet(destination: str) -> bytes:
    return bytes(IP(src="10.0.0.1", dst=destination) / UDP(sport=1, dport=2) / b"x")


@dataclass
class Known:
    """An SA as the model knows it."""

    spi: int
    child_id: int
    networks: tuple[str, ...]


def expected(known: list[Known], destination: str, order: dict[int, int]) -> int | None:
    """The SPI for a destination: the newest SA of every child; of these the smallest range, then the newest child."""
    newest = {sa.child_id: sa for sa in known}
    found = [
        (ipaddress.ip_network(text).num_addresses, -order[sa.child_id], sa.spi)
        for sa in newest.values()
        for text in sa.networks
        if ipaddress.ip_address(destination) in ipaddress.ip_network(text)
    ]
    return min(found)[2] if found else None


STEPS = st.lists(
    st.tuples(
        st.booleans(),
        st.integers(1, 4),
        st.lists(st.sampled_from(NETWORKS), min_size=1, max_size=3, unique=True).map(tuple),
        st.integers(0, 30),
    ),
    max_size=25,
)


@given(STEPS)
@settings(deadline=None)
def test_routes_are_those_of_a_plain_model(steps: list[tuple[bool, int, tuple[str, ...], int]]) -> None:
    policies, known, order = associations(), list[Known](), dict[int, int]()
    for number, (add, child_id, networks, victim) in enumerate(steps, 1):
        before = {sa.child_id: sa.networks for sa in known}
        if add:
            selectors = tuple(network(text) for text in networks)
            policies.add_outbound(
                esp_sa(spi=number, child_id=child_id, remote=REMOTE, local=REMOTE, remote_selectors=selectors), Past(0)
            )
            known.append(Known(number, child_id, networks))
        elif known:
            gone = known.pop(victim % len(known))
            policies.remove_outbound(gone.spi, REMOTE)
        after = {sa.child_id: sa.networks for sa in known}
        # A child is as new as its selectors are: rekeying alone does not change who comes first.
        order.update({child: number for child in after if before.get(child) != after[child]})
        for destination in DESTINATIONS:
            for _ in range(2):  # the second time from the cache
                found = policies.route(packet(destination))
                spi = found.sa.parameters.spi if isinstance(found, Sending) else None
                assert spi == expected(known, destination, order)
    for sa in known:
        policies.remove_outbound(sa.spi, REMOTE)
    assert policies.route(packet("10.1.1.1")) == Drop.NO_POLICY
    for left in ("_outbound", "_connections", "_children", "_hosts", "_ranges", "_indexed", "_flows"):
        assert not getattr(policies, left), left
    assert not policies._paths._paths


def test_thousands_of_clients_are_told_apart() -> None:
    policies = associations()
    for number in range(2000):
        host = str(ipaddress.ip_address("10.64.0.0") + number)
        remote = Address("198.51.100.1", 10000 + number)  # all behind one NAT
        policies.add_outbound(
            esp_sa(
                spi=0x1000,
                child_id=number,
                connection_id=number,
                local=REMOTE,
                remote=remote,
                remote_selectors=(network(f"{host}/32"),),
            ),
            Past(number),
        )
    for number in (0, 999, 1999):
        found = policies.route(packet(str(ipaddress.ip_address("10.64.0.0") + number)))
        assert isinstance(found, Sending)
        assert found.sa.parameters.remote.port == 10000 + number
    policies.move(999, REMOTE, Address("198.51.100.1", 777), True)
    moved = policies.route(packet(str(ipaddress.ip_address("10.64.0.0") + 999)))
    assert isinstance(moved, Sending)
    assert moved.sa.parameters.remote.port == 777
    policies.remove_outbound(0x1000, Address("198.51.100.1", 777))
    assert policies.route(packet(str(ipaddress.ip_address("10.64.0.0") + 999))) == Drop.NO_POLICY
    assert len(list(policies.outbound())) == 1999


def test_paths_take_the_socket_that_serves_them() -> None:
    sockets = [
        OuterSocket(socket.socket(), False, False, "0.0.0.0", 4500),
        OuterSocket(socket.socket(), False, False, "192.0.2.1", 4500),
        OuterSocket(socket.socket(), False, False, "0.0.0.0", 4501),
        OuterSocket(socket.socket(), False, True, "0.0.0.0", 0),
        OuterSocket(socket.socket(), True, False, "::", 4500),
    ]
    paths = Paths(sockets)
    udp, esp = Encapsulation.UDP, Encapsulation.ESP
    for local, remote, encapsulation, chosen, headers in (
        (Address("192.0.2.9", 4500), Address("198.51.100.1", 9), udp, 0, 28),
        (Address("192.0.2.1", 4500), Address("198.51.100.1", 9), udp, 1, 28),
        (Address("192.0.2.9", 4501), Address("198.51.100.1", 9), udp, 2, 28),
        (Address("192.0.2.9", 4500), Address("198.51.100.1", 9), esp, 3, 20),
        (Address("2001:db8::1", 4500), Address("2001:db8::2", 9), udp, 4, 48),
    ):
        path = paths.find(local, remote, encapsulation)
        assert path.outer is sockets[chosen]
        assert path.headers == headers
        assert paths.find(local, remote, encapsulation) is path
    with pytest.raises(HostError, match="no socket"):
        paths.find(Address("2001:db8::1", 4500), Address("2001:db8::2", 0), esp)


def test_path_mtus_are_shared_forgotten_and_never_absurd() -> None:
    paths = Paths([OuterSocket(socket.socket(), False, False, "0.0.0.0", 4500)])
    one = paths.find(Address("192.0.2.1", 4500), Address("198.51.100.1", 4500), Encapsulation.UDP)
    other = paths.find(Address("192.0.2.1", 4500), Address("198.51.100.2", 4500), Encapsulation.UDP)
    paths.learn_mtu("198.51.100.1", 68, 0.0)
    assert one.room(0.0) == 0
    paths.learn_mtu("198.51.100.1", 1300, 0.0)
    assert (one.room(1.0), other.room(1.0)) == (1272, 0)
    assert one.room(601.0) == 0


def test_what_an_sa_has_dropped_is_not_forgotten_with_it() -> None:
    sas = associations()
    sas.add_inbound(esp_sa(spi=1, remote=REMOTE), Past(0))
    sending = sas.add_outbound(esp_sa(spi=2, remote=REMOTE), Past(1))
    sas.inbound[1].sa.usage.drop(Drop.REPLAYED, 3)
    sending.sa.usage.drop(Drop.TOO_BIG)
    sas.remove_inbound(1)
    sas.remove_outbound(2, REMOTE)
    assert sas.unclaimed[True].dropped == {Drop.REPLAYED: 3}
    assert sas.unclaimed[False].dropped == {Drop.TOO_BIG: 1}

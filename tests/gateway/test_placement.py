"""Which worker serves whom: inner addresses, routes and SPIs lead to the same one."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.address import Address
from ikeway.auth.identity import Identity
from ikeway.errors import NegotiationFailed
from ikeway.gateway.answers import GatewayAnswers
from ikeway.gateway.config import GatewayConfig, load_gateway_config
from ikeway.gateway.config_model import AddressRange, parse_range
from ikeway.gateway.slices import slices
from ikeway.ike.questions import AssignAddresses
from ikeway.wire.payloads import ConfigurationAttribute
from ikeway.wire.registry import ConfigurationAttributeType as Attribute
from tests.config.material import write_private

CONFIG = """\
[gateway]
identity = "gw.test"
users = "users.toml"
[pools.office]
ipv4 = "{office}"
ipv6 = "fd00::/64"
[connections.people]
login = "psk"
identities = "*@people.test"
pools = "office"
[connections.branch]
login = "psk"
identities = "branch.test"
client_subnets = ["192.168.5.0/24", "192.168.77.0/24"]
[connections.other-branch]
login = "psk"
identities = "other.test"
client_subnets = ["192.168.9.0/24"]
"""
USERS = """\
[users."%any"]
psk = "a shared secret that is long enough"
[users."own@people.test"]
ipv4 = "10.99.0.200"
ipv6 = "fd00::5"
[users."far@people.test"]
ipv4 = "172.16.0.9"
ipv6 = "fd00:ffff::9"
[users."inside.branch@people.test"]
ipv4 = "192.168.5.77"
"""


@st.composite
def ranges(draw: st.DrawFn) -> AddressRange:
    version = draw(st.sampled_from([4, 6]))
    bits = 32 if version == 4 else 128
    if draw(st.booleans()):
        prefix = draw(st.integers(bits - 20, bits))
        base = ipaddress.ip_address("10.0.0.0" if version == 4 else "fd00::")
        return parse_range(
            f"{ipaddress.ip_network((int(base) + (draw(st.integers(0, 3)) << (bits - prefix)), prefix))}"
        )
    base = int(ipaddress.ip_address("10.7.0.0" if version == 4 else "fd07::"))
    first = base + draw(st.integers(0, 5000))
    last = first + draw(st.integers(0, 5000))
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    return AddressRange(kind(first), kind(last), None)


@given(ranges(), st.integers(1, 20))
def test_slices_are_the_range_once(whole: AddressRange, workers: int) -> None:
    parts = slices(whole, workers)
    own = [part.addresses for part in parts if part.addresses is not None]
    assert sum(each.size for each in own) == whole.size
    assert (own[0].first, own[-1].last) == (whole.first, whole.last)
    for before, after in itertools.pairwise(own):
        assert int(after.first) == int(before.last) + 1
    networks = [network for part in parts for network in part.networks]
    assert list(ipaddress.collapse_addresses(networks)) == list(ipaddress.collapse_addresses(whole.networks()))
    assert sum(network.num_addresses for network in networks) == sum(each.num_addresses for each in whole.networks())
    for part in parts:
        assert 0 <= part.worker < workers
        if part.addresses is not None:
            assert any(part.addresses.first in network for network in part.networks)
            assert any(part.addresses.last in network for network in part.networks)
            assert len(part.networks) <= 40
    if whole.size >= 64 * workers:
        sizes = [each.size for each in own]
        assert len(sizes) == workers
        assert max(sizes) - min(sizes) <= whole.size // workers // 4 + 3


def test_halves_and_quarters_of_networks_are_networks() -> None:
    texts = [[str(net) for net in part.networks] for part in slices(parse_range("10.99.0.0/24"), 4)]
    assert texts == [["10.99.0.0/26"], ["10.99.0.64/26"], ["10.99.0.128/26"], ["10.99.0.192/26"]]
    assert [len(part.networks) for part in slices(parse_range("fd00::/64"), 3)] == [
        len(part.networks) for part in slices(parse_range("fd00::/112"), 3)
    ]


def load(folder: Path, office: str = "10.99.0.0/24") -> GatewayConfig:
    write_private(folder / "users.toml", USERS)
    return load_gateway_config(write_private(folder / "gateway.toml", CONFIG.format(office=office)))


@dataclass
class Desk:
    """Answers for two workers, and clients that ask them."""

    answers: GatewayAnswers

    def ask(self, connection_id: int, name: str, *, port: int = 0, families: str = "46") -> list[str]:
        """The addresses that a client gets. Each has a port of its own, unless one is named."""
        kinds = {"4": Attribute.INTERNAL_IP4_ADDRESS, "6": Attribute.INTERNAL_IP6_ADDRESS}
        candidates = {each.name: each for each in self.answers._config.candidates}
        question = AssignAddresses(
            candidates["people"].connections[0],
            connection_id,
            Identity.parse(f"{name}@people.test"),
            Address("198.51.100.1", port or 10000 + connection_id),
            tuple(ConfigurationAttribute(kinds[family], b"") for family in families),
        )
        reply = asyncio.run(self.answers.assign(question))
        return [str(ip_address(each.value[: 4 if len(each.value) == 4 else 16])) for each in reply]

    def worker(self, connection_id: int) -> int:
        """The worker that its SPIs say."""
        return self.answers.placement.of(sa(connection_id))

    def routed(self, address: str) -> int:
        """The worker whose interface an address is routed to."""
        found = [
            (network.prefixlen, worker)
            for worker in range(self.answers.placement.workers)
            for network in self.answers.placement.routes(worker)
            if ip_address(address) in network
        ]
        return max(found)[1]


def sa(connection_id: int, name: str = "people", port: int = 4500) -> SimpleNamespace:
    return SimpleNamespace(
        connection_id=connection_id, connection=SimpleNamespace(name=name), remote=Address("198.51.100.1", port)
    )


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    answers = GatewayAnswers(load(tmp_path))
    answers.serve_by(2)
    return Desk(answers)


def test_clients_are_spread_and_all_leads_to_the_same_worker(desk: Desk) -> None:
    loads = [0, 0]
    for number in range(1, 101):
        addresses = desk.ask(number, f"user{number}")
        assert len(addresses) == 2
        worker = desk.worker(number)
        loads[worker] += 1
        assert {desk.routed(address) for address in addresses} == {worker}
    assert loads == [50, 50]


def test_a_full_slice_is_no_full_pool(desk: Desk) -> None:
    """One worker is always the better one: when its slice is full, clients get other addresses, and with them the other
    worker."""
    desk.answers.placement._load[1] = 1000
    total = sum(part.leases.size for part in desk.answers.pools._ranges["office"] if part.whole.first.version == 4)
    found = [desk.ask(number, f"user{number}") for number in range(1, total + 1)]
    assert [desk.worker(number) for number in range(1, total + 1)] == sorted(
        desk.worker(number) for number in range(1, total + 1)
    )
    for number, addresses in enumerate(found, 1):
        assert {desk.routed(address) for address in addresses} == {desk.worker(number)}
    assert len({addresses[0] for addresses in found}) == total
    assert {desk.worker(number) for number in range(1, total + 1)} == {0, 1}
    assert not desk.answers.placement.routes_have_changed
    with pytest.raises(NegotiationFailed, match="pool office is full"):
        desk.ask(total + 1, "one more", families="4")


def test_who_comes_from_the_same_place_goes_to_the_same_worker(desk: Desk) -> None:
    """The kernel may merge what comes from one address and port, whoever it is for."""
    for number in range(1, 11):
        desk.ask(number, f"user{number}", port=4500 if number % 3 else 4501)
    assert len({desk.worker(number) for number in range(1, 11) if number % 3}) == 1
    desk.answers.move(1, Address("198.51.100.1", 7777))
    desk.ask(11, "user11", port=7777)
    assert desk.worker(11) == desk.worker(1)


def test_settled_addresses_are_routed_to_where_their_place_is_served(desk: Desk) -> None:
    """Former addresses and those of the users file, of both halves of the pool, from one address and port."""
    told = []

    async def on_routes_changed() -> None:
        told.append({number: desk.answers.placement.routes(number) for number in (0, 1)})
        desk.answers.placement.routes_have_changed = False

    desk.answers.on_routes_changed = on_routes_changed
    before = {name: desk.ask(number, name) for number, name in enumerate(("ann", "bob", "cleo", "dora"), 1)}
    assert not told
    for number in range(1, 5):
        desk.answers.release(number)
    addresses = {number: desk.ask(number, name, port=4500) for number, name in enumerate((*before, "own", "far"), 11)}
    assert [addresses[number] for number in range(11, 15)] == list(before.values())
    assert len({desk.worker(number) for number in addresses}) == 1
    for number, both in addresses.items():
        assert {desk.routed(address) for address in both} == {desk.worker(number)}
    assert told


def test_a_user_comes_back_to_the_same_address_and_worker(desk: Desk) -> None:
    before = {}
    for number in range(1, 21):
        before[number] = desk.ask(number, f"user{number}"), desk.worker(number)
    for number in range(1, 21):
        desk.answers.release(number)
    assert desk.answers.placement._places == {} and desk.answers.placement._at == {}
    assert desk.answers.placement._load == [0, 0]
    for number in range(20, 0, -1):
        assert desk.ask(100 + number, f"user{number}") == before[number][0]
        assert desk.worker(100 + number) == before[number][1]


@pytest.mark.parametrize("name", ["own", "far"])
def test_a_users_own_addresses_go_to_one_worker(desk: Desk, name: str) -> None:
    """Wherever they lie: 10.99.0.200 in the second slice, fd00::5 in the first."""
    addresses = desk.ask(1, name)
    assert len(addresses) == 2
    assert {desk.routed(address) for address in addresses} == {desk.worker(1)}
    assert {desk.answers.placement.worker_at(ip_address(address)) for address in addresses} == {desk.worker(1)}
    again = desk.ask(2, name, families="6")
    assert again == addresses[1:] and desk.worker(2) == desk.worker(1)


def test_branches_go_where_their_networks_are_routed(desk: Desk) -> None:
    placement = desk.answers.placement
    worker = placement.of(sa(1, "branch"))
    assert {desk.routed(address) for address in ("192.168.5.1", "192.168.77.1")} == {worker}
    assert {placement.of(sa(number, "branch")) for number in range(2, 9)} == {worker}
    assert placement.of(sa(9, "other-branch")) == desk.routed("192.168.9.1")
    assert desk.ask(20, "inside.branch", families="4") == ["192.168.5.77"]
    assert desk.worker(20) == desk.routed("192.168.5.77") == worker


def test_other_clients_are_spread_too(desk: Desk) -> None:
    """Transport mode, say: nothing is assigned."""
    placement = desk.answers.placement
    chosen = [placement.of(sa(number, "people", 1000 + number)) for number in range(10)]
    assert chosen.count(0) == chosen.count(1) == 5
    assert [placement.of(sa(number, "people", 1)) for number in range(10)] == chosen


def test_other_pools_leave_clients_where_they_are(desk: Desk, tmp_path: Path) -> None:
    before = {}
    for number in range(1, 41):
        before[number] = desk.ask(number, f"user{number}"), desk.worker(number)
    for office in ("10.99.0.0/23", "10.99.0.0/25", "10.1.0.0/24"):
        desk.answers.reload(load(tmp_path, office))
        for number, (addresses, worker) in before.items():
            assert desk.worker(number) == worker
            assert {desk.routed(address) for address in addresses} == {worker}
    fresh = desk.ask(99, "fresh")
    assert {desk.routed(address) for address in fresh} == {desk.worker(99)}


def test_with_one_worker_routes_are_those_of_the_configuration(tmp_path: Path) -> None:
    config = load(tmp_path)
    answers = GatewayAnswers(config)
    assert set(answers.placement.routes(0)) >= set(config.host.pools) - {ipaddress.ip_network("192.168.5.77/32")}
    assert Desk(answers).ask(1, "anybody") == ["10.99.0.1", "fd00::1"]
    assert Desk(answers).worker(1) == 0

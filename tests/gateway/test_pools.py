"""Addresses: each to one client at a time, the same one to the same client."""

from __future__ import annotations

import ipaddress
from ipaddress import ip_address

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ikeway.address import Address
from ikeway.errors import NegotiationFailed
from ikeway.gateway import pools
from ikeway.gateway.config_model import AddressRange, parse_range
from ikeway.gateway.pools import AddressPools, RangeLeases
from ikeway.wire.registry import NotifyType

PEER = Address("198.51.100.1", 4500)
OTHER = Address("198.51.100.2", 4500)


def ranges(*texts: str) -> list[AddressRange]:
    return [parse_range(text) for text in texts]


def office(*texts: str, reserved: tuple[str, ...] = ()) -> AddressPools:
    return AddressPools({"office": ranges(*texts)}, reserved=[ip_address(each) for each in reserved])


def lease(
    found: AddressPools,
    identity: str,
    connection: int,
    *,
    family: int = 4,
    wanted: str = "",
    own: str = "",
    peer: Address = PEER,
) -> str:
    return str(
        found.lease(
            ["office"],
            family,  # type: ignore[arg-type]
            identity,
            peer,
            connection,
            wanted=ip_address(wanted) if wanted else None,
            own=ip_address(own) if own else None,
        ).address
    )


@pytest.mark.parametrize(
    ("text", "first", "last", "size"),
    [
        ("10.0.0.0/29", "10.0.0.1", "10.0.0.6", 6),
        ("10.0.0.0/31", "10.0.0.0", "10.0.0.1", 2),
        ("10.0.0.5/32", "10.0.0.5", "10.0.0.5", 1),
        ("10.0.0.10-10.0.1.9", "10.0.0.10", "10.0.1.9", 256),
        ("fd00::/120", "fd00::1", "fd00::ff", 255),
        ("fd00::/128", "fd00::", "fd00::", 1),
    ],
)
def test_ranges(text: str, first: str, last: str, size: int) -> None:
    one = parse_range(text)
    assert (str(one.first), str(one.last), one.size) == (first, last, size)
    assert one.first in one
    assert one.last in one
    assert one.last + 1 not in one


def test_an_identity_keeps_its_address() -> None:
    found = office("10.0.0.0/29")
    assert lease(found, "alice", 1) == "10.0.0.1"
    assert lease(found, "bob", 2) == "10.0.0.2"
    found.release(1)
    assert lease(found, "carol", 3) == "10.0.0.3"
    assert lease(found, "alice", 4) == "10.0.0.1"


def test_an_identity_keeps_its_address_over_a_reload() -> None:
    """Who was away when the configuration was read anew comes back to the same one; those who were away longest are the
    first whose address goes to somebody else."""
    found = office("10.0.0.0/29")
    assert [lease(found, name, n) for n, name in enumerate(("alice", "bob", "carol"))] == [
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
    ]
    found.release(1)
    found.release(0)
    found.reconfigure({"office": ranges("10.0.0.0/29"), "more": ranges("10.1.0.0/29")})
    assert lease(found, "dora", 3) not in {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
    assert lease(found, "bob", 4) == "10.0.0.2"
    assert lease(found, "mallory", 5, wanted="10.0.0.1") != "10.0.0.1"
    assert lease(found, "alice", 6) == "10.0.0.1"


def test_an_address_that_is_reserved_by_now_is_nobodys_former_one() -> None:
    found = office("10.0.0.0/29")
    assert lease(found, "alice", 1) == "10.0.0.1"
    found.release(1)
    found.reconfigure({"office": ranges("10.0.0.0/29")}, reserved=[ip_address("10.0.0.1")])
    assert lease(found, "alice", 2) == "10.0.0.2"


def test_two_devices_of_one_user_get_two_addresses() -> None:
    found = office("10.0.0.0/29")
    assert lease(found, "alice", 1) == "10.0.0.1"
    assert lease(found, "alice", 2, peer=OTHER) == "10.0.0.2"


def test_a_login_anew_keeps_the_address_while_the_old_one_is_still_there() -> None:
    """Reauthentication is make-before-break; the client asks for the address that it has."""
    found = office("10.0.0.0/29")
    assert lease(found, "alice", 1) == "10.0.0.1"
    assert lease(found, "alice", 2, wanted="10.0.0.1") == "10.0.0.1"
    found.release(1)
    assert lease(found, "bob", 3) == "10.0.0.2"
    found.release(2)
    assert found.usage()[0].used == 1


def test_a_client_that_has_moved_keeps_its_address_too() -> None:
    found = office("10.0.0.0/29")
    assert lease(found, "alice", 1) == "10.0.0.1"
    found.move(1, OTHER)
    found.move(2, PEER)  # unknown
    assert lease(found, "alice", 2, wanted="10.0.0.1", peer=PEER) == "10.0.0.2"
    assert lease(found, "alice", 3, wanted="10.0.0.1", peer=OTHER) == "10.0.0.1"


def test_nobody_gets_the_address_of_somebody_else() -> None:
    found = office("10.0.0.0/29")
    assert lease(found, "alice", 1) == "10.0.0.1"
    assert lease(found, "mallory", 2, wanted="10.0.0.1") == "10.0.0.2"
    assert lease(found, "alice", 3, wanted="10.0.0.1", peer=OTHER) == "10.0.0.3"
    found.release(1)
    found.release(3)
    assert lease(found, "mallory", 4, wanted="10.0.0.1") == "10.0.0.4"


def test_a_free_address_that_is_wished_for() -> None:
    found = office("10.0.0.0/29")
    assert lease(found, "alice", 1, wanted="10.0.0.5") == "10.0.0.5"
    assert [lease(found, f"user{n}", n) for n in range(2, 7)] == [f"10.0.0.{n}" for n in (1, 2, 3, 4, 6)]
    assert lease(office("10.0.0.0/29"), "bob", 1, wanted="192.0.2.1") == "10.0.0.1"


def test_the_address_that_was_free_longest_goes_first_when_all_were_used() -> None:
    found = office("10.0.0.0/30")
    assert [lease(found, name, n) for n, name in enumerate(("alice", "bob"))] == ["10.0.0.1", "10.0.0.2"]
    found.release(1)
    found.release(0)
    assert lease(found, "carol", 3) == "10.0.0.2"
    assert lease(found, "alice", 4) == "10.0.0.1"


def test_a_full_pool() -> None:
    found = office("10.0.0.0/30")
    lease(found, "alice", 1)
    lease(found, "bob", 2)
    with pytest.raises(NegotiationFailed, match="pool office is full") as caught:
        lease(found, "carol", 3)
    assert caught.value.notify == NotifyType.INTERNAL_ADDRESS_FAILURE
    assert caught.value.remedy
    with pytest.raises(NegotiationFailed, match="no IPv6 address"):
        lease(found, "carol", 3, family=6)


def test_the_next_pool_when_one_is_full() -> None:
    found = AddressPools({"a": ranges("10.0.0.1/32"), "b": ranges("10.1.0.1/32")})
    names = [found.lease(["a", "b"], 4, f"user{n}", PEER, n).pool for n in range(2)]
    assert names == ["a", "b"]


def test_reserved_addresses() -> None:
    found = office("10.0.0.0/29", reserved=("10.0.0.1", "10.0.0.2"))
    assert found.usage()[0].size == 4
    assert lease(found, "alice", 1) == "10.0.0.3"
    assert lease(found, "bob", 2, wanted="10.0.0.2") == "10.0.0.4"
    assert lease(found, "carol", 3, own="10.0.0.2") == "10.0.0.2"
    found.release(3)
    assert lease(found, "dave", 4) == "10.0.0.5"


def test_an_address_of_ones_own() -> None:
    found = office("10.0.0.0/29")
    assert lease(found, "alice", 1, own="172.16.0.9") == "172.16.0.9"
    with pytest.raises(NegotiationFailed, match="held by somebody else"):
        lease(found, "bob", 2, own="172.16.0.9")
    assert lease(found, "alice", 3, own="172.16.0.9") == "172.16.0.9"


def test_pools_of_any_size_are_made_at_once() -> None:
    """Nothing is listed in advance: an IPv6 network has 2**64 addresses."""
    found = office("fd00::/64")
    assert found.usage()[0].size == 2**64 - 1
    assert lease(found, "alice", 1, family=6) == "fd00::1"


def test_memory_of_former_holders_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MAX_REMEMBERED", 10)
    leases = RangeLeases(parse_range("fd00::/64"))
    for number in range(100):
        address = leases.lease(f"user{number}", PEER, number, None)
        assert address is not None
        leases.release(address, number)
    assert len(leases._former) <= 10
    assert len(leases._by_identity) <= 10


def test_a_reload_keeps_what_clients_hold() -> None:
    found = office("10.0.0.0/29")
    assert lease(found, "alice", 1) == "10.0.0.1"
    assert lease(found, "bob", 2) == "10.0.0.2"
    found.reconfigure({"office": ranges("10.0.0.0/28"), "new": ranges("10.9.0.0/24")})
    assert lease(found, "carol", 3) == "10.0.0.3"
    found.release(1)
    assert lease(found, "dave", 4) == "10.0.0.4"
    found.reconfigure({"office": ranges("10.5.0.0/29")})
    assert [str(each.address) for each in found.leases_of(2)] == ["10.0.0.2"]
    found.reconfigure({"office": ranges("10.0.0.0/30")})
    with pytest.raises(NegotiationFailed):
        [lease(found, f"user{n}", n) for n in range(5, 8)]
    found.release(2)
    assert lease(found, "eve", 9) == "10.0.0.2"


class Pools(RuleBasedStateMachine):
    """Whatever clients do, no address has two holders, and what is released comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.found = office("10.0.0.0/29", "fd00::/125", reserved=("10.0.0.3",))
        self.held: dict[tuple[int, str], str] = {}
        self.owner: dict[int, str] = {}
        self.connections = 0

    @rule(
        identity=st.sampled_from("abcdefgh"),
        family=st.sampled_from((4, 6)),
        wanted=st.sampled_from(("", "10.0.0.1", "10.0.0.3", "10.0.0.6", "fd00::2", "192.0.2.1")),
        peer=st.sampled_from((PEER, OTHER)),
    )
    def log_in(self, identity: str, family: int, wanted: str, peer: Address) -> None:
        self.connections += 1
        try:
            address = lease(self.found, identity, self.connections, family=family, wanted=wanted, peer=peer)
        except NegotiationFailed:
            of_family = {held for held in self.held.values() if ip_address(held).version == family}
            assert len(of_family) == (5 if family == 4 else 7)
            return
        assert ip_address(address).version == family
        assert address != "10.0.0.3"
        holders = {self.owner[connection] for (connection, _), held in self.held.items() if held == address}
        assert holders <= {identity}
        self.owner[self.connections] = identity
        self.held[self.connections, address] = address

    @rule(data=st.data())
    def log_out(self, data: st.DataObject) -> None:
        if self.owner:
            connection = data.draw(st.sampled_from(sorted(self.owner)))
            self.found.release(connection)
            del self.owner[connection]
            self.held = {key: held for key, held in self.held.items() if key[0] != connection}

    @rule()
    def reload(self) -> None:
        self.found.reconfigure(
            {"office": ranges("10.0.0.0/29", "fd00::/125")}, reserved=[ipaddress.ip_address("10.0.0.3")]
        )

    @invariant()
    def usage_is_right(self) -> None:
        assert sum(each.used for each in self.found.usage()) == len(set(self.held.values()))


TestPools = Pools.TestCase
TestPools.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

"""Which connection a client gets that RADIUS let in, and what it is assigned."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from ikeway.address import Address
from ikeway.auth.identity import Identity
from ikeway.errors import AuthenticationFailed
from ikeway.gateway.answers import GatewayAnswers
from ikeway.gateway.config import load_gateway_config
from ikeway.gateway.radius.grant import Grant
from ikeway.ike.questions import AssignAddresses
from ikeway.wire.payloads import ConfigurationAttribute
from ikeway.wire.registry import ConfigurationAttributeType as Attribute
from tests.config.material import make_pki, write_private

BASE = """
[gateway]
certificate = "vpn.pem"
key = "vpn.key"
users = "users.toml"
[radius.corp]
servers = "10.0.0.1"
secret = "a secret of enough letters"
[radius.other]
servers = "10.0.0.2"
secret = "a secret of enough letters"
[pools.office]
ipv4 = "10.99.0.0/24"
"""
EAP = 'login = "eap"\npools = "office"\ndns = "10.0.0.53"\n'
CODE = 'then = [{ login = "eap-gtc" }]\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_pki(tmp_path_factory.mktemp("settle"))
    write_private(folder / "users.toml", '[users.alice]\npassword = "x"\n')
    return folder


def answers(folder: Path, **connections: str) -> GatewayAnswers:
    text = BASE + "".join(f"[connections.{name}]\n{part}" for name, part in connections.items())
    return GatewayAnswers(load_gateway_config(write_private(folder / "gateway.toml", text)))


def settled(made: GatewayAnswers, start: str, *groups: str, user: str = "alice", server: str = "corp") -> str:
    (selected,) = (each.connections[0] for each in made._config.candidates if each.name == start)
    return made.settle(selected, Grant(server=server, user=user, groups=groups)).name


def test_groups_choose_the_first_connection_that_fits(folder):
    made = answers(
        folder,
        staff=EAP + 'radius = "corp"\ngroups = ["staff", "admins"]\n',
        bob=EAP + 'radius = "corp"\nidentities = "bob"\n',
        rest=EAP + 'radius = "corp"\n',
        other=EAP + 'radius = "other"\ngroups = "visitors"\n',
    )
    assert settled(made, "staff", "Admins") == "staff"
    assert settled(made, "rest", "x", "STAFF") == "staff"
    assert settled(made, "staff", "visitors") == "rest"  # another server's group is none
    assert settled(made, "staff", user="bob") == "bob"
    assert settled(made, "staff") == "rest"


@pytest.mark.parametrize("user", ["CORP\\alice", "Alice Liddell", "\ufffd"])
def test_names_that_are_no_identities_are_let_in_where_everybody_is(folder, user):
    """As Windows and its servers have them."""
    made = answers(
        folder,
        other=EAP + 'radius = "corp"\nidentities = "keyid:OTHER\\\\*"\n',
        rest=EAP + 'radius = "corp"\n',
    )
    assert settled(made, "rest", user=user) == "rest"
    assert settled(made, "rest", user="OTHER\\bob") == "other"


def test_whom_no_connection_is_for(folder):
    made = answers(folder, staff=EAP + 'radius = "corp"\ngroups = "staff"\nidentities = "*@example.com"\n')
    for groups, user in (((), "a@example.com"), (("staff",), "a@example.net"), (("staff",), "\0")):
        with pytest.raises(AuthenticationFailed, match="no connection here is for this user"):
            settled(made, "staff", *groups, user=user)
    with pytest.raises(AuthenticationFailed):
        settled(made, "staff", "staff", user="a@example.com", server="other")
    assert settled(made, "staff", "staff", user="a@example.com") == "staff"


def test_no_group_leads_around_a_proof(folder):
    certificate = EAP.replace('"eap"', '"certificate"') + 'ca = "ca.pem"\n'
    behind = 'then = [{ login = "eap", radius = "corp", groups = "staff" }]\n'
    made = answers(
        folder,
        staff=certificate + behind,
        gtc=EAP.replace('"eap"', '"eap-gtc"') + 'radius = "corp"\ngroups = "staff"\n',
        guests=EAP + 'radius = "corp"\n',
    )
    assert settled(made, "guests", "staff") == "guests"
    assert settled(made, "staff", "staff") == "staff"
    with pytest.raises(AuthenticationFailed):  # nor does the certificate lead to what is for passwords
        settled(made, "staff", "guests")


def test_a_further_log_in_of_the_settled_connection_is_still_demanded(folder):
    made = answers(folder, admins=EAP + 'radius = "corp"\ngroups = "admins"\n' + CODE, rest=EAP + 'radius = "corp"\n')
    (rest,) = (each.connections[0] for each in made._config.candidates if each.name == "rest")
    found = made.settle(rest, Grant(server="corp", user="alice", groups=("admins",)))
    assert found.name == "admins" and len(found.further_expectations) == 1 and not rest.further_expectations


async def test_addresses_and_name_servers_of_the_user(folder):
    made = answers(folder, rest=EAP + 'radius = "corp"\n')
    grant = Grant(
        server="corp",
        user="alice",
        ipv4=ipaddress.IPv4Address("10.50.0.9"),
        ipv6=ipaddress.IPv6Address("fd00::9"),
        dns=(ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("fd00::53")),
    )
    made.granted = lambda number: grant if number == 1 else None
    (connection,) = made._config.candidates[0].connections

    async def assigned(number: int) -> list[tuple[int, bytes]]:
        kinds = (
            Attribute.INTERNAL_IP4_ADDRESS,
            Attribute.INTERNAL_IP6_ADDRESS,
            Attribute.INTERNAL_IP4_DNS,
            Attribute.INTERNAL_IP6_DNS,
        )
        wishes = tuple(ConfigurationAttribute(kind, b"") for kind in kinds)
        question = AssignAddresses(connection, number, Identity.parse("alice"), Address("192.0.2.9", number), wishes)
        return [(each.type, each.value) for each in await made.assign(question)]

    assert await assigned(1) == [
        (Attribute.INTERNAL_IP4_ADDRESS, grant.ipv4.packed),
        (Attribute.INTERNAL_IP6_ADDRESS, grant.ipv6.packed + b"\x80"),
        (Attribute.INTERNAL_IP4_DNS, grant.dns[0].packed),
        (Attribute.INTERNAL_IP6_DNS, grant.dns[1].packed),
    ]
    assert {ipaddress.ip_network("10.50.0.9"), ipaddress.ip_network("fd00::9")} <= set(made.placement.routes(0))
    assert (Attribute.INTERNAL_IP4_DNS, bytes((10, 0, 0, 53))) in await assigned(2)

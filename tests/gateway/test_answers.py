"""What the gateway answers the engine: which connection, which secret, which addresses."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from ikeway.address import Address
from ikeway.auth.identity import Identity
from ikeway.auth.questions import PskQuestion
from ikeway.eap.questions import AboutUser, Granted, NewPassword, NtHash, PasswordCheck, Refused, SecretQuestion
from ikeway.errors import AuthenticationFailed, NegotiationFailed
from ikeway.gateway.answers import GatewayAnswers
from ikeway.gateway.config import load_gateway_config
from ikeway.gateway.select import scoped_to, user_matches
from ikeway.ike.questions import AssignAddresses, SelectConnection, SettleConnection
from ikeway.ike.settings import Connection
from ikeway.questions import Question
from ikeway.wire.payloads import ConfigurationAttribute
from ikeway.wire.registry import AuthenticationMethod, NotifyType
from ikeway.wire.registry import ConfigurationAttributeType as Attribute
from tests.config.material import make_pki, write_private

LOCAL, REMOTE = Address("192.0.2.1", 500), Address("198.51.100.7", 4500)

CONFIG = """\
[gateway]
certificate = "vpn.pem"
key = "vpn.key"
users = "users.toml"
application_version = "Ikeway"
[pools.office]
ipv4 = "10.99.0.0/29"
ipv6 = "fd00::/64"
[pools.small]
ipv4 = "10.98.0.1/32"
[connections.admins]
login = "certificate"
ca = "ca.pem"
identities = ["*@admin.example.com"]
pools = "small"
[connections.staff]
login = "certificate"
ca = "ca.pem"
identities = ["*@example.com", "O=Example, CN=*"]
pools = "office"
[connections.sales]
login = "eap-mschapv2"
identities = "*@sales.example.com"
pools = "small"
[connections.people]
login = "eap-mschapv2"
pools = "office"
dns = ["10.1.0.53", "fd00::53"]
domains = ["corp.example.com", "lab.example.com"]
subnets = ["10.1.0.0/16", "fd00:1::/32"]
"""
USERS = r"""
[users.alice]
password = "hunter2"
[users.dora]
nt_hash = "000102030405060708090a0b0c0d0e0f"
ipv4 = "172.16.0.9"
[users.'CORP\eve']
password = "z"
ipv4 = "172.16.0.10"
[users."mallory@example.com"]
disabled = true
password = "x"
psk = "y"
[users."branch.example.com"]
psk = "own"
[users."%any"]
psk = "for all"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_pki(tmp_path_factory.mktemp("gateway"))
    write_private(folder / "users.toml", USERS)
    write_private(folder / "gateway.toml", CONFIG)
    return folder


@pytest.fixture
def answers(folder: Path) -> GatewayAnswers:
    return GatewayAnswers(load_gateway_config(folder / "gateway.toml"))


def question(
    identity: str,
    method: AuthenticationMethod | None = AuthenticationMethod.DIGITAL_SIGNATURE,
    wanted: str = "",
    claimed: tuple[str, ...] = (),
) -> SelectConnection:
    responder = Identity.parse(wanted) if wanted else None
    return SelectConnection(
        LOCAL, REMOTE, Identity.parse(identity), responder, method, tuple(map(Identity.parse, claimed))
    )


@pytest.mark.parametrize(
    ("identity", "method", "name"),
    [
        ("eve@admin.example.com", AuthenticationMethod.DIGITAL_SIGNATURE, "admins"),
        ("eve@example.com", AuthenticationMethod.RSA_DIGITAL_SIGNATURE, "staff"),
        ("O=Example, CN=eve", AuthenticationMethod.ECDSA_SHA256_P256, "staff"),
        ("x@sales.example.com", None, "sales"),
        ("alice", None, "people"),
        ("192.168.1.7", None, "people"),
    ],
)
async def test_the_first_connection_that_fits(
    answers: GatewayAnswers, identity: str, method: AuthenticationMethod | None, name: str
) -> None:
    assert (await answers.select(question(identity, method))).name == name


async def test_every_name_of_a_certificate_counts(answers: GatewayAnswers) -> None:
    """Windows and strongSwan say their DN; what is configured is the mail address."""
    asked = question("C=DE, CN=eve", claimed=("C=DE, CN=eve", "eve@admin.example.com"))
    assert (await answers.select(asked)).name == "admins"
    with pytest.raises(AuthenticationFailed) as caught:
        await answers.select(question("C=DE, CN=eve", claimed=("C=DE, CN=eve", "eve@elsewhere.example")))
    assert caught.value.got == "C=DE, CN=eve, eve@elsewhere.example"


async def test_the_pattern_that_matched_is_what_the_client_must_prove(answers: GatewayAnswers) -> None:
    connection = await answers.select(question("O=Example, CN=eve"))
    assert connection.remote_identity is not None
    assert connection.remote_identity.matches(Identity.parse("O=Example, CN=eve"))
    assert not connection.remote_identity.matches(Identity.parse("eve@example.com"))


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [("", "vpn.example.com"), ("VPN.example.com", "vpn.example.com"), ("192.0.2.1", "192.0.2.1")],
)
async def test_the_gateway_is_whom_the_client_looks_for(answers: GatewayAnswers, wanted: str, shown: str) -> None:
    """Every name of its certificate will do."""
    connection = await answers.select(question("eve@example.com", wanted=wanted))
    assert connection.local_identity == Identity.parse(shown)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (question("eve@elsewhere.example"), "no connection here is for eve@elsewhere.example"),
        (question("eve@example.com", AuthenticationMethod.SHARED_KEY_MIC), "a pre-shared key"),
        (question("eve@example.com", wanted="other.example.com"), "looks for another gateway"),
        (question("mallory@example.com"), "disabled"),
        (question("O=Example, CN=eve", claimed=("O=Example, CN=eve", "mallory@example.com")), "disabled"),
    ],
)
async def test_refusals_say_why(answers: GatewayAnswers, asked: SelectConnection, words: str) -> None:
    with pytest.raises(AuthenticationFailed, match=words) as caught:
        await answers.select(asked)
    assert caught.value.notify == NotifyType.AUTHENTICATION_FAILED
    assert caught.value.remedy


async def test_who_logs_in_by_eap_does_not_learn_whom_we_know(answers: GatewayAnswers) -> None:
    """IDi may name anybody: a disabled user is refused like a wrong password, or once a certificate has proven who it is."""
    connection = await answers.select(question("mallory@example.com", None))
    assert connection.name == "people"
    with pytest.raises(AuthenticationFailed, match="disabled"):
        await answers.refuse_disabled("Mallory@example.com")
    await answers.refuse_disabled("alice")
    await answers.refuse_disabled("nobody that the users file knows")
    answers.admit(SettleConnection(connection, 1, b"anybody \xff"))


async def test_whom_a_connection_is_for_counts_whatever_the_method(answers: GatewayAnswers) -> None:
    """A method that looks up no password may come to its end without a look at `identities`."""
    connection = await answers.select(question("x@sales.example.com", None))
    assert connection.name == "sales"
    answers.admit(SettleConnection(connection, 1, b"y@sales.example.com"))
    for other in (b"eve@example.com", b"\xff"):
        with pytest.raises(AuthenticationFailed, match="sales is not for this user") as caught:
            answers.admit(SettleConnection(connection, 1, other))
        assert caught.value.notify == NotifyType.AUTHENTICATION_FAILED


async def test_a_gateway_without_a_name_takes_the_one_that_it_is_called_by(folder: Path) -> None:
    text = '[gateway]\nusers = "users.toml"\n[pools.o]\nipv4 = "10.0.0.0/24"\n[connections.c]\nlogin = "psk"\npools = "o"\n'
    answers = GatewayAnswers(load_gateway_config(write_private(folder / "nameless.toml", text)))
    asked = question("eve", AuthenticationMethod.SHARED_KEY_MIC, wanted="vpn.example.com")
    assert (await answers.select(asked)).local_identity == Identity.parse("vpn.example.com")
    asked = question("eve", AuthenticationMethod.SHARED_KEY_MIC)
    assert (await answers.select(asked)).local_identity is None


@pytest.mark.parametrize(
    ("user", "answer"),
    [
        (b"alice", "hunter2"),
        (b"ALICE", "hunter2"),
        (b"dora", NtHash(bytes(range(16)))),
        (b"mallory@example.com", None),
        (b"nobody", None),
        (b"\xff\xfe", None),
        (b"branch.example.com", None),
        (b"%any", None),
    ],
)
async def test_passwords(answers: GatewayAnswers, user: bytes, answer: object) -> None:
    assert await answers.passwords.secret(SecretQuestion(user, "EAP-MSCHAPv2")) == answer


@pytest.mark.parametrize(
    ("identity", "answer"),
    [
        ("branch.example.com", b"own"),
        ("other.example.com", b"for all"),
        ("alice", b"for all"),
        ("mallory@example.com", None),
    ],
)
async def test_pre_shared_keys(answers: GatewayAnswers, identity: str, answer: bytes | None) -> None:
    asked = PskQuestion(Identity.parse("vpn.example.com"), Identity.parse(identity))
    assert await answers.psk(asked) == answer


async def test_an_eap_login_asks_only_for_users_of_its_connection(answers: GatewayAnswers) -> None:
    """`identities` of an EAP connection limit the user names, whatever IDi said."""
    asked: list[bytes] = []

    async def ask(question: Question[object]) -> object:
        assert isinstance(question, AboutUser)
        asked.append(question.identity)
        return "secret" if isinstance(question, SecretQuestion) else Granted()

    patterns = next(each for each in answers._config.candidates if each.name == "sales").patterns
    scoped = scoped_to(patterns)(ask)
    assert await scoped(SecretQuestion(b"x@sales.example.com", "m")) == "secret"
    assert await scoped(SecretQuestion(b"alice", "m")) is None
    assert await scoped(SecretQuestion(b"\xff", "m")) is None
    assert isinstance(await scoped(PasswordCheck(b"x@sales.example.com", b"secret", "m")), Granted)
    assert isinstance(await scoped(PasswordCheck(b"alice", b"secret", "m")), Refused)
    assert isinstance(await scoped(NewPassword(b"alice", "secret", "m", NtHash(bytes(16)))), Refused)
    assert asked == [b"x@sales.example.com"] * 2
    assert user_matches(patterns, b"y@sales.example.com")


def request(
    connection: Connection, identity: str, *kinds: Attribute | ConfigurationAttribute, number: int = 1
) -> AssignAddresses:
    attributes = [kind if isinstance(kind, ConfigurationAttribute) else ConfigurationAttribute(kind) for kind in kinds]
    return AssignAddresses(connection, number, Identity.parse(identity), REMOTE, tuple(attributes))


EVERYTHING = (
    Attribute.INTERNAL_IP4_ADDRESS,
    Attribute.INTERNAL_IP4_NETMASK,
    Attribute.INTERNAL_IP4_DNS,
    Attribute.INTERNAL_IP4_SUBNET,
    Attribute.INTERNAL_IP6_ADDRESS,
    Attribute.INTERNAL_IP6_DNS,
    Attribute.INTERNAL_IP6_SUBNET,
    Attribute.INTERNAL_DNS_DOMAIN,
    Attribute.APPLICATION_VERSION,
)


async def test_a_client_gets_what_it_asks_for(answers: GatewayAnswers) -> None:
    people = await answers.select(question("alice", None))
    reply = await answers.assign(request(people, "alice", *EVERYTHING))
    assert [(each.type, each.value) for each in reply] == [
        (Attribute.INTERNAL_IP4_ADDRESS, ip_address("10.99.0.1").packed),
        (Attribute.INTERNAL_IP6_ADDRESS, ip_address("fd00::1").packed + b"\x80"),
        (Attribute.INTERNAL_IP4_DNS, ip_address("10.1.0.53").packed),
        (Attribute.INTERNAL_IP6_DNS, ip_address("fd00::53").packed),
        (Attribute.INTERNAL_DNS_DOMAIN, b"corp.example.com"),
        (Attribute.INTERNAL_DNS_DOMAIN, b"lab.example.com"),
        (Attribute.INTERNAL_IP4_SUBNET, bytes([10, 1, 0, 0, 255, 255, 0, 0])),
        (Attribute.INTERNAL_IP6_SUBNET, ip_address("fd00:1::").packed + bytes([32])),
        (Attribute.APPLICATION_VERSION, b"Ikeway"),
    ]


async def test_and_nothing_else(answers: GatewayAnswers) -> None:
    people = await answers.select(question("alice", None))
    reply = await answers.assign(request(people, "alice", Attribute.INTERNAL_IP4_ADDRESS))
    assert [each.type for each in reply] == [Attribute.INTERNAL_IP4_ADDRESS]


async def test_a_family_that_the_pools_lack_is_left_out(answers: GatewayAnswers) -> None:
    admins = await answers.select(question("eve@admin.example.com"))
    kinds = (Attribute.INTERNAL_IP4_ADDRESS, Attribute.INTERNAL_IP6_ADDRESS)
    reply = await answers.assign(request(admins, "eve@admin.example.com", *kinds))
    assert [each.type for each in reply] == [Attribute.INTERNAL_IP4_ADDRESS]


async def test_a_full_pool_refuses_and_the_other_family_goes_on(answers: GatewayAnswers) -> None:
    admins = await answers.select(question("eve@admin.example.com"))
    await answers.assign(request(admins, "a@admin.example.com", Attribute.INTERNAL_IP4_ADDRESS))
    with pytest.raises(NegotiationFailed) as caught:
        await answers.assign(request(admins, "b@admin.example.com", Attribute.INTERNAL_IP4_ADDRESS, number=2))
    assert caught.value.notify == NotifyType.INTERNAL_ADDRESS_FAILURE
    answers.pools.release(1)
    await answers.assign(request(admins, "b@admin.example.com", Attribute.INTERNAL_IP4_ADDRESS, number=2))
    people = await answers.select(question("alice", None))
    kinds = (Attribute.INTERNAL_IP4_ADDRESS, Attribute.INTERNAL_IP6_ADDRESS)
    for number in range(10, 16):
        await answers.assign(request(people, f"user{number}", *kinds, number=number))
    reply = await answers.assign(request(people, "late", *kinds, number=20))
    assert [each.type for each in reply] == [Attribute.INTERNAL_IP6_ADDRESS]


async def test_a_user_with_an_address_of_its_own(answers: GatewayAnswers) -> None:
    people = await answers.select(question("dora", None))
    reply = await answers.assign(request(people, "dora", Attribute.INTERNAL_IP4_ADDRESS))
    assert reply[0].value == ip_address("172.16.0.9").packed


@pytest.mark.parametrize(
    ("wish", "given"),
    [
        (bytes([10, 99, 0, 5]), "10.99.0.5"),
        (bytes(4), "10.99.0.1"),
        (b"\x01", "10.99.0.1"),
        (bytes([192, 0, 2, 1]), "10.99.0.1"),
    ],
)
async def test_an_address_that_is_wished_for(answers: GatewayAnswers, wish: bytes, given: str) -> None:
    people = await answers.select(question("alice", None))
    asked = ConfigurationAttribute(Attribute.INTERNAL_IP4_ADDRESS, wish)
    reply = await answers.assign(request(people, "alice", asked))
    assert reply[0].value == ip_address(given).packed


async def test_a_reload_changes_users_and_keeps_leases(folder: Path, tmp_path: Path) -> None:
    other = make_pki(tmp_path / "other")
    write_private(other / "users.toml", USERS)
    write_private(other / "gateway.toml", CONFIG)
    answers = GatewayAnswers(load_gateway_config(other / "gateway.toml"))
    people = await answers.select(question("alice", None))
    await answers.assign(request(people, "alice", Attribute.INTERNAL_IP4_ADDRESS))
    write_private(other / "users.toml", '[users.bob]\npassword = "new"\n')
    answers.reload(load_gateway_config(other / "gateway.toml"))
    assert await answers.passwords.secret(SecretQuestion(b"alice", "m")) is None
    assert await answers.passwords.secret(SecretQuestion(b"bob", "m")) == "new"
    reply = await answers.assign(request(people, "bob", Attribute.INTERNAL_IP4_ADDRESS, number=2))
    assert reply[0].value == ip_address("10.99.0.2").packed


async def test_a_connection_that_a_reload_takes_away_ends_the_log_ins_under_way(folder: Path) -> None:
    """With a reason for the log, whatever they ask next."""
    answers = GatewayAnswers(load_gateway_config(folder / "gateway.toml"))
    connection = await answers.select(question("alice", None))
    assert connection.name == "people"

    def without(content: dict[str, Any]) -> None:
        del content["connections"]["people"]

    answers.reload(load_gateway_config(folder / "gateway.toml", change=without))
    with pytest.raises(AuthenticationFailed, match="no connection people any more"):
        await answers.settled(SettleConnection(connection, 1, b"alice"))
    with pytest.raises(AuthenticationFailed, match="no connection people any more"):
        await answers.assign(request(connection, "alice", Attribute.INTERNAL_IP4_ADDRESS))
    assert not answers.pools.held()


async def test_a_user_whose_name_is_no_identity_has_addresses_like_all_others(answers: GatewayAnswers) -> None:
    """As the users of a Windows domain."""
    people = await answers.select(question("192.168.1.7", None))

    async def assigned(user: bytes, number: int) -> str:
        asked = request(people, "keyid:x", Attribute.INTERNAL_IP4_ADDRESS, number=number)
        (attribute,) = await answers.assign(replace(asked, user=user))
        return str(ip_address(attribute.value))

    assert await assigned(b"CORP\\Eve", 1) == "172.16.0.10"
    first = await assigned(b"CORP\\frank", 2)
    answers.release(2)
    assert await assigned(b"CORP\\grace", 3) != first
    assert await assigned(b"corp\\frank", 4) == first

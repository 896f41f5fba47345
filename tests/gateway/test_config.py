"""The gateway's configuration: what it means, and every mistake in it."""

from __future__ import annotations

import dataclasses
import os
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from ikeway.auth.certificate import CertificateCredential
from ikeway.auth.identity import Identity
from ikeway.config.eap import PEERS
from ikeway.eap.packet import EapCode, EapPacket, EapType
from ikeway.eap.questions import PasswordCheck, Refused, SecretQuestion, Wanted
from ikeway.errors import ConfigError, ConfigErrors
from ikeway.gateway.config import GatewayConfig, load_gateway_config
from ikeway.ike.selectors import format_selector
from ikeway.ike.settings import CertificateExpected, EapExpected, PskCredential, PskExpected
from ikeway.questions import Question
from tests.config.material import authority, make_pki, write_private

BASE = (
    '[gateway]\ncertificate = "vpn.pem"\nkey = "vpn.key"\nusers = "users.toml"\n[pools.office]\nipv4 = "10.99.0.0/24"\n'
)
EAP = '[connections.people]\nlogin = "eap-mschapv2"\npools = "office"\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_pki(tmp_path_factory.mktemp("gateway"))
    write_private(folder / "users.toml", '[users.alice]\npassword = "x"\n')
    return folder


def config(folder: Path, text: str) -> GatewayConfig:
    return load_gateway_config(write_private(folder / "gateway.toml", text))


def mistakes(folder: Path, text: str) -> list[ConfigError]:
    with pytest.raises(ConfigErrors) as caught:
        config(folder, text)
    assert all(error.remedy for error in caught.value.errors)
    return list(caught.value.errors)


def test_a_short_configuration(folder: Path) -> None:
    found = config(folder, BASE + EAP)
    assert found.listen == (ip_address("0.0.0.0"), ip_address("::"))
    assert (found.port, found.nat_port) == (500, 4500)
    (people,) = found.candidates
    (connection,) = people.connections
    assert connection.name == "people"
    assert connection.local_identity == Identity.parse("vpn.example.com")
    assert Identity.parse("192.0.2.1") in people.names
    assert isinstance(connection.local_credential, CertificateCredential)
    assert isinstance(connection.remote_expectation, EapExpected)
    assert connection.remote_identity is None
    assert connection.require_configuration_request
    (child,) = connection.children
    assert [format_selector(each) for each in child.local_selectors] == ["0.0.0.0/0", "::/0"]
    assert child.remote_selectors == ()
    assert found.host.pools == (ip_network("10.99.0.0/24"),)
    assert found.host.forward
    assert not found.host.masquerade
    assert found.warnings == ()


def test_certificates(folder: Path) -> None:
    found = config(
        folder,
        BASE
        + """
[connections.staff]
login = "certificate"
ca = "ca.pem"
crls = "crl.pem"
checks = { require_crl = true }
identities = ["*@example.com", "CN=*, O=Example"]
pools = "office"
""",
    )
    (staff,) = found.candidates
    assert [str(connection.remote_identity) for connection in staff.connections] == ["*@example.com", "CN=*, O=Example"]
    expectation = staff.connections[0].remote_expectation
    assert isinstance(expectation, CertificateExpected)
    assert expectation.trust.anchors == (authority().certificate,)
    assert expectation.trust.policy.require_crl
    assert found.responder.certificate_authorities == expectation.trust.authorities


def test_psk_without_a_certificate(folder: Path) -> None:
    text = '[gateway]\nidentity = "vpn.example.com"\nusers = "users.toml"\n[connections.branch]\nlogin = "psk"\n'
    text += 'identities = "branch.example.com"\nsubnets = "10.1.0.0/16"\nclient_subnets = "10.2.0.0/16"\n'
    found = config(folder, text)
    (branch,) = found.candidates
    (connection,) = branch.connections
    assert connection.local_credential == PskCredential()
    assert connection.remote_expectation == PskExpected()
    assert connection.local_identity == Identity.parse("vpn.example.com")
    assert not connection.require_configuration_request
    (child,) = connection.children
    assert [format_selector(each) for each in child.local_selectors] == ["10.1.0.0/16"]
    assert [format_selector(each) for each in child.remote_selectors] == ["10.2.0.0/16"]
    assert found.host.pools == (ip_network("10.2.0.0/16"),)


def test_psk_of_clients_and_a_certificate_of_the_gateway(folder: Path) -> None:
    text = BASE + '[connections.c]\nlogin = "psk"\npools = "office"\n'
    assert isinstance(config(folder, text).candidates[0].connections[0].local_credential, CertificateCredential)
    text += 'gateway_authentication = "psk"\n'
    assert config(folder, text).candidates[0].connections[0].local_credential == PskCredential()


def test_eap_only_needs_a_mutual_method_and_no_certificate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[gateway]\nidentity = "vpn.example.com"\nusers = "users.toml"\n[pools.office]\nipv4 = "10.99.0.0/24"\n'
    text += EAP + 'gateway_authentication = "eap-only"\n'
    (mistake,) = mistakes(folder, text)
    assert "proves the gateway too, and eap-mschapv2 does not" in mistake.reason
    assert mistake.line == len(text.splitlines())
    monkeypatch.setitem(PEERS, "eap-mschapv2", dataclasses.replace(PEERS["eap-mschapv2"], mutual=True))
    connection = config(folder, text).candidates[0].connections[0]
    assert connection.local_credential == PskCredential()
    assert isinstance(connection.remote_expectation, EapExpected)


def test_settings_reach_the_engine_and_the_host(folder: Path) -> None:
    found = config(
        folder,
        """
[gateway]
listen = "192.0.2.1"
port = 1500
nat_port = 14500
pkcs12 = "vpn.p12"
key_password = "open"
users = "users.toml"
application_version = "Ikeway"
[network]
interface = "vpn0"
addresses = "10.99.0.1/24"
mtu = 1400
nat = ["eth0"]
[limits]
cookie_threshold = 0
half_open = 100
half_open_per_address = 4
half_open_time = "1m"
[ike]
proposals = "aes256gcm16-prfsha384-ecp384"
prefer_client_order = true
fragment_size = 0
force_udp_encapsulation = true
vendor_ids = "x"
dpd = "1m"
[esp]
rekey = "2h"
[pools.office]
ipv4 = "10.99.0.0/24"
ipv6 = "fd00::/64"
[connections.people]
login = "eap-mschapv2"
pools = ["office"]
dns = ["10.99.0.1"]
domains = ["corp.example.com"]
subnets = ["10.1.0.0/16"]
single_pair = true
[connections.people.esp]
proposals = "aes256gcm16"
""",
    )
    assert (found.listen, found.port, found.nat_port) == ((ip_address("192.0.2.1"),), 1500, 14500)
    responder = found.responder
    assert len(responder.ike_proposals) == 1
    assert responder.prefer_initiator_order
    assert not responder.fragmentation
    assert responder.force_udp_encapsulation
    assert responder.vendor_ids == (b"x",)
    assert (responder.cookie_threshold, responder.half_open_limit) == (0, 100)
    assert (responder.half_open_per_address, responder.half_open_seconds) == (4, 60)
    (connection,) = found.candidates[0].connections
    assert connection.prefer_initiator_order
    assert connection.dpd_seconds == 60
    (child,) = connection.children
    assert (child.rekey_seconds, len(child.proposals), child.single_pair) == (7200, 1, True)
    assert [format_selector(each) for each in child.local_selectors] == ["10.1.0.0/16"]
    assert (found.host.interface, found.host.mtu) == ("vpn0", 1400)
    assert found.host.addresses == (ip_interface("10.99.0.1/24"),)
    assert found.host.masquerade
    assert found.host.masquerade_interfaces == ("eth0",)
    assert found.host.pools == (ip_network("10.99.0.0/24"), ip_network("fd00::/64"))
    assert found.reserved == {ip_address("10.99.0.1")}
    assert found.application_version == "Ikeway"


@pytest.mark.parametrize(
    ("line", "masquerade", "interfaces"),
    [("nat = true", True, ()), ("nat = false", False, ()), ('nat = "eth0"', True, ("eth0",)), ("", False, ())],
)
def test_nat(folder: Path, line: str, masquerade: bool, interfaces: tuple[str, ...]) -> None:
    host = config(folder, BASE + EAP + f"[network]\n{line}\n").host
    assert (host.masquerade, host.masquerade_interfaces) == (masquerade, interfaces)


def test_users_addresses_outside_of_the_pools_are_reached_too(folder: Path, tmp_path: Path) -> None:
    users = write_private(tmp_path / "users.toml", '[users.a]\nipv4 = "10.99.0.9"\n[users.b]\nipv4 = "172.16.0.1"\n')
    found = config(folder, BASE.replace("users.toml", str(users)) + EAP)
    assert found.host.pools == (ip_network("10.99.0.0/24"), ip_network("172.16.0.1/32"))
    assert found.reserved == {ip_address("10.99.0.9"), ip_address("172.16.0.1")}


def test_transport_mode_needs_no_addresses(folder: Path) -> None:
    text = BASE + '[connections.hosts]\nlogin = "psk"\nesp = { mode = "transport" }\n'
    (child,) = config(folder, text).candidates[0].connections[0].children
    assert child.local_selectors == child.remote_selectors == ()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (BASE, 0, "`connections` is missing"),
        (BASE + EAP.replace("eap-mschapv2", "eap-teap"), 8, "not right"),
        (BASE + EAP.replace('"office"', '"offices"'), 9, "no pool 'offices'"),
        (BASE + EAP.replace('pools = "office"\n', ""), 7, "no address"),
        (BASE + EAP + 'ca = "ca.pem"\n', 10, "not used"),
        (BASE + EAP + "checks = { allow_sha1 = true }\n", 10, "not used"),
        (BASE + EAP.replace("eap-mschapv2", "certificate"), 7, "no authority"),
        (BASE + EAP + '[pools.more]\nipv4 = "10.99.0.128/25"\n', 11, "overlaps"),
        (BASE + EAP + "[pools.more]\n", 10, "no addresses"),
        (BASE + EAP + '[pools.more]\nipv4 = "fd00::/64"\n', 11, "not ipv4"),
        (BASE + EAP + '[pools.more]\nipv4 = "10.0.0.9-10.0.0.1"\n', 11, "ends before"),
        (BASE + EAP + '[pools.more]\nipv4 = "10.0.0.1/24"\n', 11, "within a network"),
        (BASE + EAP + "[network]\nmtu = 3\n", 11, "MTU"),
        (BASE + EAP + "[network]\nnat = true\nforward = false\n", 11, "needs `forward`"),
        (BASE + EAP + '[network]\nnat = "eth 0"\n', 11, "name of an interface"),
        (BASE + EAP + '[network]\nnat = "yes"\n', 11, "would be an interface's name"),
        (BASE + EAP + 'subnets = "10.1.0.5/16"\n', 10, "10.1.0.5/16 is an address within a network"),
        (BASE + EAP + '[ike]\nrekey = "2h"\nlifetime = "1h"\n', 12, "not above"),
        (BASE + EAP + 'esp = { rekey = "2h", lifetime = "1h" }\n', 10, "not above"),
        (BASE + EAP.replace('"eap-mschapv2"', '["eap-mschapv2", "psk"]'), 8, "only EAP methods can be alternatives"),
        (BASE + EAP + 'gateway_authentication = "psk"\n' + '[connections.x]\nlogin = "psk"\n', 11, "no address"),
        (BASE.replace('users = "users.toml"\n', "") + EAP, 7, "no users"),
        (BASE.replace("vpn.key", "alice.key") + EAP, 3, "does not belong"),
        (BASE.replace("vpn.pem", "none.pem") + EAP, 2, "cannot be read"),
        (BASE.replace('key = "vpn.key"\n', 'pkcs12 = "vpn.p12"\n') + EAP, 3, "both"),
        (BASE.replace('certificate = "vpn.pem"\nkey = "vpn.key"\n', "") + EAP, 6, "need the gateway to have"),
        (BASE.replace('certificate = "vpn.pem"\n', "") + EAP, 2, "without `certificate`"),
    ],
)
def test_mistakes(folder: Path, text: str, line: int, words: str) -> None:
    assert any(error.line == line and words in error.reason for error in mistakes(folder, text))


def test_mistakes_in_both_files_come_together(folder: Path, tmp_path: Path) -> None:
    users = write_private(tmp_path / "users.toml", "[users.a]\npasswort = 1\n")
    found = mistakes(folder, BASE.replace("users.toml", str(users)) + EAP + "[network]\nmtu = 3\ninterfac = 1\n")
    assert {(Path(error.file).name, error.line) for error in found} == {
        ("users.toml", 2),
        ("gateway.toml", 11),
        ("gateway.toml", 12),
    }


def test_what_was_wrong_is_not_also_missing(folder: Path) -> None:
    """A pool that is wrong itself is not called unknown where it is used."""
    found = mistakes(folder, BASE.replace("10.99.0.0/24", "10.99.0.0/99") + EAP)
    assert [error.line for error in found] == [6]


def test_two_users_with_one_address(folder: Path, tmp_path: Path) -> None:
    users = write_private(tmp_path / "users.toml", '[users.a]\nipv4 = "10.99.0.9"\n[users.b]\nipv4 = "10.99.0.9"\n')
    found = mistakes(folder, BASE.replace("users.toml", str(users)) + EAP)
    assert "the user 'a'" in found[0].reason


def test_warnings(folder: Path) -> None:
    found = config(
        folder,
        BASE
        + '[connections.staff]\nlogin = "certificate"\nca = "ca.pem"\npools = "office"\nesp = { proposals = "3des-sha1" }\n'
        + '[pools.spare]\nipv4 = "10.98.0.0/24"\n',
    )
    text = "\n".join(found.warnings)
    assert "everybody with a certificate" in text
    assert "3DES" in text
    assert "'spare' is not used" in text


@pytest.mark.parametrize(("written", "meant"), [("1", 1), ("3", 3), ('"auto"', min(len(os.sched_getaffinity(0)), 16))])
def test_workers(folder: Path, written: str, meant: int) -> None:
    assert config(folder, BASE + EAP + f"[network]\nworkers = {written}\n").host.workers == meant


@pytest.mark.parametrize("written", ["0", "65", "true", '"many"', "1.5"])
def test_no_number_of_workers(folder: Path, written: str) -> None:
    (error,) = mistakes(folder, BASE + EAP + f"[network]\nworkers = {written}\n")
    assert "workers" in str(error) and "auto" in error.expected


def test_the_interfaces_of_all_workers_need_names(folder: Path) -> None:
    assert config(folder, BASE + EAP + '[network]\nworkers = 10\ninterface = "thirteen-chrs"\n')
    (error,) = mistakes(folder, BASE + EAP + '[network]\nworkers = 11\ninterface = "thirteen-chrs"\n')
    assert "thirteen-chrs-10" in str(error)


# --- several log-ins --------------------------------------------------------------------------------------------------


MACHINES = (
    '[connections.machines]\nlogin = "certificate"\nca = "ca.pem"\nidentities = "*@example.com"\npools = "office"\n'
)
MD5 = EAP.replace("eap-mschapv2", "eap-md5")
THEN = "[[connections.%s.then]]\n"


def test_a_certificate_and_then_a_password(folder: Path) -> None:
    found = config(folder, BASE + MACHINES + THEN % "machines" + 'login = "eap-mschapv2"\n')
    (connection,) = found.candidates[0].connections
    assert isinstance(connection.remote_expectation, CertificateExpected)
    (further,) = connection.further_expectations
    assert isinstance(further.expectation, EapExpected) and further.identity is None
    assert found.responder.multiple_auth and found.candidates[0].login == "certificate"


def test_one_log_in_announces_nothing(folder: Path) -> None:
    assert not config(folder, BASE + EAP).responder.multiple_auth


async def asked_of(expectation: EapExpected, user: bytes = b"alice") -> list[Question]:
    """What the first method of a log-in asks the gateway, when its user answers anything."""
    asked: list[Question] = []

    async def answer(question: Question) -> object:
        asked.append(question)
        return Refused() if isinstance(question, PasswordCheck) else None

    session = expectation.new_authenticator(answer)
    packet = await session.start()
    for _ in range(2):
        request = EapPacket.decode(packet)
        data = user if request.type == EapType.IDENTITY else b"\x10" + bytes(16)
        packet = await session.receive(EapPacket(EapCode.RESPONSE, request.identifier, request.type, data).encode())
    return asked


async def test_a_code_after_the_password(folder: Path) -> None:
    """The password alone is right in the first log-in, and the code alone in the second."""
    found = config(folder, BASE + MD5 + THEN % "people" + 'login = "eap-gtc"\n')
    (connection,) = found.candidates[0].connections
    assert isinstance(connection.remote_expectation, EapExpected)
    (secret,) = await asked_of(connection.remote_expectation)
    assert isinstance(secret, SecretQuestion) and secret.code_follows
    (check,) = await asked_of(connection.further_expectations[0].expectation)
    assert isinstance(check, PasswordCheck) and check.wanted is Wanted.CODE and not check.code_follows


@pytest.mark.parametrize("then", ['login = "eap-mschapv2"\n', 'login = ["eap-gtc", "eap-md5"]\n'])
async def test_where_no_code_follows_for_certain_the_first_log_in_needs_it(folder: Path, then: str) -> None:
    (connection,) = config(folder, BASE + MD5 + THEN % "people" + then).candidates[0].connections
    (secret,) = await asked_of(connection.remote_expectation)
    assert not secret.code_follows


async def test_a_password_after_a_certificate(folder: Path) -> None:
    (connection,) = (
        config(folder, BASE + MACHINES + THEN % "machines" + 'login = "eap-gtc"\n').candidates[0].connections
    )
    (check,) = await asked_of(connection.further_expectations[0].expectation)
    assert check.wanted is Wanted.PASSWORD


def test_mistakes_of_further_log_ins(folder: Path) -> None:
    further = 'login = "eap-gtc"\nca = "ca.pem"\n' + THEN % "people" + 'login = "psk"\n'
    found = {error.reason for error in mistakes(folder, BASE + EAP + THEN % "people" + further)}
    assert any("`ca` is not used" in reason for reason in found)
    assert "a log-in by psk cannot follow another one" in found
    found = {error.reason for error in mistakes(folder, BASE + EAP + THEN % "people" + 'pools = "office"\n')}
    assert any("unknown key `pools`" in reason for reason in found)
    assert any("`login` is missing" in reason for reason in found)


def test_clients_of_anyconnect_know_no_further_log_in(folder: Path) -> None:
    text = BASE + EAP.replace("eap-mschapv2", "eap-anyconnect") + THEN % "people" + 'login = "eap-gtc"\n'
    assert any("know no further log-in" in error.reason for error in mistakes(folder, text))

"""Profiles: what they mean to the engine and to the host, and every mistake in them."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from ikeway.address import Address
from ikeway.auth.certificate import CertificateCredential
from ikeway.auth.identity import Identity
from ikeway.client.login import FurtherPassword
from ikeway.client.profile import Profile, load_profile
from ikeway.client.secrets import ClientSecrets
from ikeway.config import credentials, paths
from ikeway.config.eap import PEERS
from ikeway.eap.questions import PasswordQuestion
from ikeway.errors import ConfigError, ConfigErrors
from ikeway.esp.parameters import Mode
from ikeway.ike.selectors import format_selector
from ikeway.ike.settings import CertificateExpected, EapCredential, EapOnlyExpected, PskCredential, PskExpected
from ikeway.wire.registry import ConfigurationAttributeType as Attribute
from ikeway.wire.registry import IdentificationType
from tests.config.material import make_pki, write_private


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("pki"))


def profile(pki: Path, text: str, name: str = "work") -> Profile:
    return load_profile(write_private(pki / f"{name}.toml", text))


def mistakes(pki: Path, text: str) -> dict[int, ConfigError]:
    """The mistakes of a profile by line."""
    with pytest.raises(ConfigErrors) as caught:
        profile(pki, text)
    assert all(error.remedy for error in caught.value.errors)
    return {error.line: error for error in caught.value.errors}


EAP = '[gateway]\naddress = "vpn.example.com"\nca = "ca.pem"\n[login]\nusername = "alice"\n'


def test_the_shortest_profile(pki: Path) -> None:
    """A name and a user are enough; everything else has a safe default."""
    found = profile(pki, EAP)
    connection = found.connection()
    assert found.name == "work"
    assert found.remote == Address("vpn.example.com", 500)
    assert found.username == "alice"
    assert found.asks_secret
    assert found.warnings == ()
    assert connection.local_identity == Identity.parse("alice")
    assert isinstance(connection.local_credential, EapCredential)
    assert isinstance(connection.remote_expectation, CertificateExpected)
    assert connection.remote_identity is not None
    assert connection.remote_identity.exact == Identity.parse("vpn.example.com")
    assert [attribute.type for attribute in connection.request_configuration] == [
        Attribute.INTERNAL_IP4_ADDRESS,
        Attribute.INTERNAL_IP4_NETMASK,
        Attribute.INTERNAL_IP4_DNS,
        Attribute.INTERNAL_IP4_SUBNET,
        Attribute.INTERNAL_IP6_ADDRESS,
        Attribute.INTERNAL_IP6_DNS,
        Attribute.INTERNAL_IP6_SUBNET,
        Attribute.INTERNAL_DNS_DOMAIN,
    ]
    (child,) = connection.children
    assert child.name == "work"
    assert child.local_selectors == ()
    assert [format_selector(each) for each in child.remote_selectors] == ["0.0.0.0/0", "::/0"]
    assert found.host.routes is None


def test_authorities_of_the_system_vouch_by_default(pki: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "SYSTEM_AUTHORITIES", (pki / "none.pem", pki / "ca.pem"))
    found = profile(pki, EAP.replace('ca = "ca.pem"\n', ""))
    expectation = found.connection().remote_expectation
    assert isinstance(expectation, CertificateExpected)
    assert len(expectation.trust.anchors) == 1
    monkeypatch.setattr(credentials, "SYSTEM_AUTHORITIES", ())
    assert "ca-certificates" in mistakes(pki, EAP.replace('ca = "ca.pem"\n', ""))[1].remedy


def test_psk(pki: Path) -> None:
    found = profile(
        pki,
        '[gateway]\naddress = "192.0.2.1"\nport = 4500\nidentity = "vpn.example.com"\nlocal_address = "192.0.2.9"\n'
        '[login]\nidentity = "keyid:branch"\npsk = "0x0102"\n',
    )
    connection = found.connection()
    assert found.remote == Address("192.0.2.1", 4500)
    assert found.local_address == ip_address("192.0.2.9")
    assert connection.local_credential == PskCredential()
    assert connection.remote_expectation == PskExpected()
    assert connection.local_identity == Identity.parse("keyid:branch")
    assert found.needs_psk
    assert not found.asks_secret


def test_certificates(pki: Path) -> None:
    found = profile(
        pki,
        '[gateway]\naddress = "vpn.example.com"\nca = ["ca.pem"]\ncrls = ["crl.pem"]\n'
        "[gateway.checks]\nrequire_server_eku = true\n"
        '[login]\ncertificate = "alice.pem"\nkey = "alice.key"\n',
    )
    connection = found.connection()
    assert isinstance(connection.local_credential, CertificateCredential)
    assert connection.local_identity is None
    assert isinstance(connection.remote_expectation, CertificateExpected)
    assert connection.remote_expectation.trust.policy.require_server_eku
    assert len(connection.remote_expectation.trust.crls) == 1
    assert not found.asks_secret


def test_an_encrypted_key_is_asked_for(pki: Path) -> None:
    text = '[gateway]\naddress = "vpn.example.com"\nca = "ca.pem"\n[login]\npkcs12 = "alice.p12"\n'
    path = write_private(pki / "locked.toml", text)
    assert isinstance(load_profile(path, lambda words: "open").connection().local_credential, CertificateCredential)


@pytest.mark.parametrize("name", ["CORP\\alice", "Alice Liddell"])
def test_a_name_that_is_no_identity_is_sent_as_it_is(pki: Path, name: str) -> None:
    """As the users of a Windows domain have them."""
    found = profile(pki, EAP.replace('"alice"', f"'{name}'") + 'password = "x"\n')
    assert found.username == name
    identity = found.connection().local_identity
    assert identity is not None
    assert (identity.type, identity.value) == (IdentificationType.ID_KEY_ID, name.encode())


@pytest.mark.parametrize("login", ['username = "alice"', 'method = "psk"\nidentity = "a@b"\npsk = "secret"'])
def test_eap_only_is_refused_for_a_login_that_does_not_prove_the_gateway(pki: Path, login: str) -> None:
    text = f'[gateway]\naddress = "vpn.example.com"\nauthentication = "eap-only"\n[login]\n{login}\n'
    assert "proves the gateway too" in mistakes(pki, text)[3].reason


def test_eap_only_with_a_mutual_method(pki: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "eap-mschapv2", dataclasses.replace(PEERS["eap-mschapv2"], mutual=True))
    text = '[gateway]\naddress = "vpn.example.com"\nauthentication = "eap-only"\n[login]\nusername = "alice"\n'
    assert profile(pki, text).connection().remote_expectation == EapOnlyExpected()


def test_a_gateway_with_psk_and_a_login_by_eap(pki: Path) -> None:
    text = (
        '[gateway]\naddress = "vpn.example.com"\nauthentication = "psk"\n'
        '[login]\nmethod = "eap-mschapv2"\nusername = "alice"\npsk = "shared"\n'
    )
    found = profile(pki, text)
    assert found.connection().remote_expectation == PskExpected()
    assert found.needs_psk
    assert found.asks_secret  # the password


def test_settings_of_ike_and_esp_reach_the_engine(pki: Path) -> None:
    connection = profile(
        pki,
        EAP
        + """
[ike]
proposals = ["aes256gcm16-prfsha384-x25519", "aes128-sha256-modp2048"]
rekey = "2h"
lifetime = "3h"
reauthenticate = "1d"
jitter = 0.2
dpd = "10s"
nat_keepalive = "15s"
mobike = false
fragment_size = 1400
force_udp_encapsulation = true
window = 4
vendor_ids = ["hello", "0x0102"]
send_certificate_requests = false
always_send_certificate = false
initial_contact = false
retransmit = { first = "1s", factor = 2.0, tries = 3, limit = "8s" }
[esp]
proposals = "aes256gcm16-x25519"
rekey = "30m"
lifetime = "1h"
rekey_bytes = "10GB"
lifetime_bytes = "12GB"
rekey_packets = 1000
lifetime_packets = 2000
jitter = 0.0
replay_window = 64
local = "10.5.0.0/16"
remote = ["10.1.0.0/16[tcp/443]", "fd00::/8"]
""",
    ).connection()
    assert len(connection.ike_proposals) == 2
    assert (connection.rekey_seconds, connection.life_seconds, connection.reauthenticate_seconds) == (
        7200,
        10800,
        86400,
    )
    assert (connection.jitter, connection.dpd_seconds, connection.nat_keepalive_seconds) == (0.2, 10, 15)
    assert (connection.mobike, connection.fragment_size, connection.force_udp_encapsulation) == (False, 1400, True)
    assert (connection.window, connection.vendor_ids) == (4, (b"hello", b"\x01\x02"))
    assert not connection.send_certificate_requests
    assert not connection.always_send_certificate
    assert not connection.initial_contact
    assert [connection.retransmission.timeout(sent) for sent in (1, 2, 3, 4, 5)] == [1, 2, 4, 8, None]
    (child,) = connection.children
    assert (child.rekey_seconds, child.life_seconds, child.jitter, child.replay_window) == (1800, 3600, 0.0, 64)
    assert (child.limits.soft_bytes, child.limits.hard_bytes) == (10**10, 12 * 10**9)
    assert (child.limits.soft_packets, child.limits.hard_packets) == (1000, 2000)
    assert [format_selector(each) for each in child.local_selectors] == ["10.5.0.0/16"]
    assert [format_selector(each) for each in child.remote_selectors] == ["10.1.0.0/16[tcp/443]", "fd00::/8"]


def test_several_children_take_from_esp_what_they_do_not_say(pki: Path) -> None:
    first, second = (
        profile(
            pki,
            EAP
            + """
[esp]
rekey = "30m"
proposals = "aes256gcm16"
[children.office]
remote = "10.1.0.0/16"
[children.voice]
remote = "10.2.0.0/16"
rekey = "10m"
""",
        )
        .connection()
        .children
    )
    assert (first.name, first.rekey_seconds) == ("office", 1800)
    assert (second.name, second.rekey_seconds) == ("voice", 600)
    assert first.proposals == second.proposals
    assert [format_selector(each) for each in second.remote_selectors] == ["10.2.0.0/16"]


def test_what_the_host_is_to_look_like(pki: Path) -> None:
    host = profile(
        pki,
        EAP
        + """
[network]
request = "10.0.0.7"
addresses = ["10.3.0.1/24"]
routes = ["10.0.0.0/8"]
keep_local_networks = false
block_leaks = false
dns = "domains"
dns_servers = "10.0.0.53"
domains = "corp.example.com"
interface = "vpn0"
mtu = 1400
[session]
reconnect = false
retry_limit = "5m"
""",
    )
    assert host.host.addresses == (ip_interface("10.3.0.1/24"),)
    assert host.host.routes == (ip_network("10.0.0.0/8"),)
    assert (host.host.keep_local_networks, host.host.block_leaks, host.host.dns) == (False, False, "domains")
    assert host.host.dns_servers == (ip_address("10.0.0.53"),)
    assert host.host.domains == ("corp.example.com",)
    assert (host.host.interface, host.host.mtu) == ("vpn0", 1400)
    assert (host.session.reconnect, host.session.retry_limit) == (False, 300)
    request = host.connection().request_configuration
    assert request[0].type == Attribute.INTERNAL_IP4_ADDRESS
    assert request[0].value == bytes([10, 0, 0, 7])
    assert Attribute.INTERNAL_IP6_ADDRESS not in {attribute.type for attribute in request}


def test_an_ipv6_address_is_wished_for_with_its_prefix_length(pki: Path) -> None:
    request = profile(pki, EAP + '[network]\nrequest = "fd00::7"\n').connection().request_configuration
    assert request[0].value == ip_address("fd00::7").packed + b"\x80"


def test_without_dns_no_name_servers_are_asked_for(pki: Path) -> None:
    request = profile(pki, EAP + '[network]\ndns = "off"\n').connection().request_configuration
    names = {Attribute.INTERNAL_IP4_DNS, Attribute.INTERNAL_IP6_DNS, Attribute.INTERNAL_DNS_DOMAIN}
    assert not names & {attribute.type for attribute in request}


def test_networks_behind_this_side_need_no_address(pki: Path) -> None:
    text = EAP + '[network]\nrequest = []\nroutes = []\n[esp]\nlocal = "192.168.5.0/24"\n'
    found = profile(pki, text)
    assert found.connection().request_configuration == ()
    assert found.host.routes == ()


def test_transport_mode(pki: Path) -> None:
    (child,) = profile(pki, EAP + '[network]\nrequest = []\n[esp]\nmode = "transport"\n').connection().children
    assert child.mode is Mode.TRANSPORT
    assert child.remote_selectors == ()


def test_weak_choices_are_warned_of(pki: Path) -> None:
    text = EAP.replace("[login]", 'identity = "*.example.com"\n[gateway.checks]\nallow_sha1 = true\n[login]')
    warnings = profile(pki, text + '[ike]\nproposals = "3des-sha1-modp1024"\n').warnings
    assert any("3DES" in each for each in warnings)
    assert any("modp1024" in each.lower() for each in warnings)
    assert any("*.example.com" in each for each in warnings)
    assert any("allow_sha1" in each for each in warnings)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[gateway]\naddress = "not a name!"\nca = "ca.pem"\n[login]\nusername = "a"\n', 2, "no host name"),
        ('[gateway]\naddress = "fe80::1%eth0"\nca = "ca.pem"\n[login]\nusername = "a"\n', 2, "link-local"),
        ('[gateway]\naddress = "x.example"\nca = "ca.pem"\n[login]\npassword = "x"\n', 4, "no user name"),
        ('[gateway]\naddress = "x.example"\nca = "ca.pem"\n[login]\nmethod = "certificate"\n', 5, "there is none"),
        ('[gateway]\naddress = "x.example"\nca = "none.pem"\n[login]\nusername = "a"\n', 3, "cannot be read"),
        ('[gateway]\naddress = "x.example"\nca = "ca.pem"\n[login]\npsk = "x"\n', 3, "not used"),
        (EAP + 'method = ["psk", "eap-mschapv2"]\n', 6, "only EAP methods can be alternatives"),
        (EAP + 'certificate = "alice.pem"\nmethod = "eap-mschapv2"\n', 6, "not used"),
        (EAP + 'psk = "x"\nmethod = "eap-mschapv2"\n', 6, "not used"),
        (EAP + 'key = "alice.key"\npkcs12 = "alice.p12"\n', 5, "not used"),
        (EAP + "[network]\nrequest = []\n", 7, "no traffic of this side"),
        (EAP + "[network]\nmtu = 100\n", 7, "MTU"),
        (EAP + '[network]\ndns = "off"\ndomains = "x.example"\n', 8, "not used"),
        (EAP + '[ike]\nrekey = "2h"\nlifetime = "1h"\n', 8, "not above"),
        (EAP + "[ike]\nfragment_size = 100\n", 7, "below"),
        (EAP + "[ike]\nretransmit = { first = 0 }\n", 7, "first wait"),
        (EAP + '[esp]\nrekey_bytes = "2GB"\nlifetime_bytes = "1GB"\n', 8, "not above"),
        (EAP + '[children.x]\nrekey = "2h"\nlifetime = "1h"\n', 8, "not above"),
    ],
)
def test_what_does_not_go_together(pki: Path, text: str, line: int, words: str) -> None:
    assert words in mistakes(pki, text)[line].reason


def test_any_gateway_with_a_public_certificate_is_refused(pki: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "SYSTEM_AUTHORITIES", (pki / "ca.pem",))
    text = EAP.replace('ca = "ca.pem"', 'identity = "%any"')
    assert "any site" in mistakes(pki, text)[3].reason


def test_mistakes_of_all_kinds_come_together(pki: Path) -> None:
    """What pydantic finds does not hide what does not go together."""
    found = mistakes(pki, EAP + '[ike]\ndpd = "soon"\nrekey = "2h"\nlifetime = "1h"\n')
    assert set(found) == {7, 9}


def test_profiles_by_name(pki: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(paths, "SYSTEM", tmp_path / "etc")
    for folder in (tmp_path / "config" / "ikeway" / "profiles", tmp_path / "etc" / "profiles"):
        folder.mkdir(parents=True)
        make_pki(folder)
    ours = write_private(tmp_path / "config" / "ikeway" / "profiles" / "work.toml", EAP)
    write_private(tmp_path / "etc" / "profiles" / "work.toml", EAP)
    write_private(tmp_path / "etc" / "profiles" / "home.toml", EAP)
    assert load_profile("work").path == ours
    assert load_profile("home").path == tmp_path / "etc" / "profiles" / "home.toml"
    assert paths.profile_names() == ["home", "work"]
    with pytest.raises(ConfigError, match="known: home, work") as caught:
        load_profile("nonesuch")
    assert str(tmp_path / "config" / "ikeway" / "profiles" / "nonesuch.toml") in caught.value.remedy
    with pytest.raises(ConfigError, match="no name of a profile"):
        load_profile("-x")
    with pytest.raises(ConfigError, match="no such file"):
        load_profile("./nonesuch")


def test_secrets_are_in_no_representation(pki: Path) -> None:
    found = profile(pki, EAP + 'password = "hunter2"\n')
    assert not found.asks_secret
    assert "hunter2" not in repr(found)
    assert "hunter2" not in repr(found.connection())


# --- several log-ins --------------------------------------------------------------------------------------------------


MACHINE = (
    '[gateway]\naddress = "vpn.example.com"\nca = "ca.pem"\n[login]\npkcs12 = "alice.p12"\nkey_password = "open"\n'
)


def test_a_certificate_and_then_a_person(pki: Path) -> None:
    found = profile(pki, MACHINE + '[[login.then]]\nusername = "bob"\npassword = "hunter2"\n')
    connection = found.connection()
    assert isinstance(connection.local_credential, CertificateCredential)
    (further,) = connection.further_credentials
    assert isinstance(further.credential, EapCredential) and further.identity == Identity.parse("bob")
    assert found.username == "" and [each.username for each in found.further] == ["bob"]
    assert not found.asks_secret


def test_a_password_and_then_a_code_of_the_same_user(pki: Path) -> None:
    found = profile(pki, EAP + 'password = "x"\n[[login.then]]\nmethod = "eap-gtc"\ncode = { command = "true" }\n')
    (further,) = found.connection().further_credentials
    assert further.identity is None  # the one of before
    (seen,) = found.further
    assert seen.username == "alice" and seen.code is not None and seen.password is None
    assert found.code is None


def test_a_person_and_then_a_certificate(pki: Path) -> None:
    found = profile(pki, EAP + '[[login.then]]\npkcs12 = "alice.p12"\nkey_password = "open"\n')
    (further,) = found.connection().further_credentials
    assert isinstance(further.credential, CertificateCredential) and further.identity is None


def test_mistakes_of_further_log_ins(pki: Path) -> None:
    further = (
        '[[login.then]]\nmethod = "eap-mschapv2"\ncode = "1"\n[[login.then]]\npsk = "x"\n[[login.then]]\nthen = []\n'
    )
    found = mistakes(pki, MACHINE + further)
    lines = (MACHINE + further).splitlines()
    reasons = {lines[line - 1]: error.reason for line, error in found.items() if line}
    assert "`code` is not used" in reasons['code = "1"']
    assert "cannot follow" in reasons['psk = "x"']
    assert "unknown key `then`" in reasons["then = []"]
    assert any("no user name" in error.reason for error in found.values())


async def test_each_log_in_asks_for_its_own_password(pki: Path) -> None:
    """What EAP asks in the second log-in is answered from there, through the engine's own question."""
    found = profile(pki, EAP + 'password = "first"\n[[login.then]]\nusername = "alice"\npassword = "second"\n')
    secrets = ClientSecrets(found)
    asked = PasswordQuestion(b"alice", "vpn", "", "EAP-MSCHAPv2")
    assert await secrets.password(asked) == "first"
    assert await secrets.further_password(FurtherPassword(0, asked)) == "second"


def test_a_gateway_that_proves_itself_twice(pki: Path) -> None:
    second = '[[gateway.then]]\nca = "ca.pem"\nidentity = "*.example.com"\n'
    (further,) = profile(pki, EAP + second).connection().further_expectations
    assert isinstance(further.expectation, CertificateExpected)
    assert str(further.identity) == "*.example.com"


def test_mistakes_of_a_second_proof_of_the_gateway(pki: Path) -> None:
    text = EAP + '[[gateway.then]]\nidentity = "b.example.com"\n'
    assert any("`ca` is missing" in error.reason for error in mistakes(pki, text).values())
    text = (
        '[gateway]\naddress = "vpn.example.com"\nauthentication = "eap-only"\n'
        '[login]\nmethod = "eap-tls"\nusername = "alice"\npkcs12 = "alice.p12"\nkey_password = "open"\n'
        '[[gateway.then]]\nca = "ca.pem"\n'
    )
    assert any("by EAP alone cannot go on" in error.reason for error in mistakes(pki, text).values())

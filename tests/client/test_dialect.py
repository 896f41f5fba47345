"""Dialects in profiles and gateways: what they mean, every mistake in them, and a tunnel over namespaces."""

from __future__ import annotations

import hashlib
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ikeway.address import Address
from ikeway.auth.identity import Identity, IdentityPattern
from ikeway.client.profile import Profile, load_profile
from ikeway.config.dialects import UNTRIED, UNTRIED_FORTIGATE
from ikeway.dialects import microsoft
from ikeway.dialects.anyconnect.options import ANYCONNECT_CLIENT, VENDOR_IDS
from ikeway.dialects.fortigate_eap import SecondFactorAuthenticator, SecondFactorPeer
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.errors import AuthenticationFailed, ConfigErrors
from ikeway.gateway.config import GatewayConfig, load_gateway_config
from ikeway.gateway.select import select_connection, settle_connection
from ikeway.ike.questions import SelectConnection
from ikeway.ike.settings import EapCredential, EapExpected
from ikeway.wire.registry import IdentificationType
from tests.client.live import READY, Program, live, private
from tests.config.material import make_pki, write_private
from tests.netlab import GATEWAY

HEAD = '[gateway]\naddress = "vpn.example.com"\nca = "ca.pem"\ndialect = "anyconnect"\n'
USER = '[login]\nusername = "alice"\n'
OURS = (
    '[gateway]\ncertificate = "vpn.pem"\nkey = "vpn.key"\nusers = "users.toml"\n[pools.office]\nipv4 = "10.99.0.0/24"\n'
)
CONNECTION = '[connections.cisco]\nlogin = "eap-anyconnect"\ndialect = "anyconnect"\npools = "office"\n'
PLAIN = '[connections.people]\nlogin = "eap-mschapv2"\npools = "office"\n'


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_pki(tmp_path_factory.mktemp("dialects"))
    write_private(folder / "users.toml", '[users.alice]\npassword = "wonderland"\n')
    return folder


def speaking(dialect: str, more: str = "") -> str:
    return HEAD.replace("anyconnect", dialect) + more + USER


def profile(pki: Path, text: str) -> Profile:
    return load_profile(write_private(pki / "work.toml", text))


def gateway(pki: Path, text: str) -> GatewayConfig:
    return load_gateway_config(write_private(pki / "gateway.toml", text))


def mistakes(read, pki: Path, text: str) -> str:
    with pytest.raises(ConfigErrors) as caught:
        read(pki, text)
    assert all(error.remedy for error in caught.value.errors)
    return str(caught.value)


# --- profiles ---------------------------------------------------------------------------------------------------------


def test_a_profile_that_speaks_anyconnect(pki: Path) -> None:
    found = profile(pki, HEAD + USER)
    connection = found.connection()
    assert connection.local_identity == ANYCONNECT_CLIENT
    assert not connection.send_idr
    assert connection.interception is not None
    assert connection.own_fragmentation is not None and connection.own_fragmentation(VENDOR_IDS) is not None
    assert isinstance(connection.local_credential, EapCredential)
    session = connection.local_credential.new_peer(lambda question: None)  # type: ignore[arg-type,return-value]
    assert isinstance(session, EapPeer)
    assert found.username == "alice"
    assert UNTRIED in found.warnings


def test_settings_of_a_profile(pki: Path) -> None:
    text = (
        '[gateway.anyconnect]\nidentity_type = 11\nvendor_ids = "0x0102"\nauth_vendor_id = "none"\ngroup = "staff"\n'
        'fragments = "standard"\nhost_scan = { file = "token" }\nmac_addresses = ["82-00-11-aa-bb-cc"]\n'
    )
    write_private(pki / "token", "a token\n")
    connection = profile(pki, HEAD + text + USER).connection()
    assert connection.local_identity == Identity(IdentificationType.ID_KEY_ID, ANYCONNECT_CLIENT.value)
    assert connection.interception.dialect.vendor_ids == (b"\x01\x02",)
    assert connection.interception.dialect.auth_payloads(bytes) == ()


def test_an_own_identity_counts_more(pki: Path) -> None:
    connection = profile(pki, HEAD + USER + 'identity = "keyid:somebody"\n').connection()
    assert connection.local_identity == Identity.parse("keyid:somebody")


def test_a_certificate_alone_is_enough(pki: Path) -> None:
    login = '[login]\ncertificate = "alice.pem"\nkey = "alice.key"\n'
    assert profile(pki, HEAD + login).connection().local_identity == ANYCONNECT_CLIENT


def test_another_eap_method_may_be_spoken_in_the_dialect(pki: Path) -> None:
    connection = profile(pki, HEAD + USER + 'method = "eap-mschapv2"\n').connection()
    assert connection.local_identity == ANYCONNECT_CLIENT


@pytest.mark.parametrize(
    "text,expected",
    [
        (HEAD.replace("anyconnect", "cisco") + USER, '"anyconnect"'),
        (HEAD.replace('dialect = "anyconnect"\n', "") + USER + 'method = "eap-anyconnect"\n', "does not speak"),
        (HEAD.replace('dialect = "anyconnect"\n', "") + "[gateway.anyconnect]\n" + USER, "is not used"),
        (HEAD, "nothing to log in with"),
        (HEAD + "[gateway.fortigate]\n" + USER, "`fortigate` is not used"),
        (speaking("fortigate", '[gateway.fortigate]\nhost = "a\\nb"\n'), "host"),
        (HEAD + USER + 'psk = "x"\n', "`psk` is not used"),
        (speaking("fortigate") + 'psk = "x"\n', 'write method = "eap-mschapv2"'),
        (HEAD + "[gateway.anyconnect]\nidentity_type = 0\n" + USER, "expected 1 to 255"),
        (HEAD + '[gateway.anyconnect]\nauth_vendor_id = "0xabc"\n' + USER, "hexadecimal"),
        (HEAD + '[gateway.anyconnect]\nhost_scan = { file = "nowhere" }\n' + USER, "nowhere"),
        (HEAD + USER + '[[login.then]]\nmethod = "eap-anyconnect"\n', "cannot follow"),
        (HEAD.replace('ca = "ca.pem"', 'authentication = "eap-only"') + USER, "eap-only"),
    ],
)  # fmt: skip
def test_mistakes_in_profiles(pki: Path, text: str, expected: str) -> None:
    assert expected in mistakes(profile, pki, text)


def test_a_profile_that_passes_for_forticlient(pki: Path) -> None:
    text = '[gateway.fortigate]\nhost = "pc"\nmac_addresses = ["82-00-11-aa-bb-cc"]\n'
    connection = profile(pki, speaking("fortigate", text)).connection()
    assert connection.local_identity == Identity.parse("alice")
    assert not connection.send_idr
    (notify,) = connection.interception.dialect.auth_payloads(SimpleNamespace(local=Address("fd00::1", 500)))
    assert b"\nIP=\nMAC=82-00-11-aa-bb-cc;\nHOST=pc\nUSER=alice\n" in notify.value


def test_a_fortigate_with_a_pre_shared_key_may_call_itself_as_it_likes(pki: Path) -> None:
    """By its outer address, mostly; a certificate has to have the name that is wanted, as ever."""
    by_key = '[gateway]\naddress = "vpn.example.com"\ndialect = "fortigate"\nauthentication = "psk"\n'
    login = '[login]\nmethod = "eap-mschapv2"\nusername = "alice"\npsk = "a secret that is long enough"\n'
    assert profile(pki, by_key + login).connection().remote_identity == IdentityPattern.ANY
    named = profile(pki, by_key + 'identity = "fg.example.com"\n' + login).connection().remote_identity
    assert named == IdentityPattern.parse("fg.example.com")
    for text in (speaking("fortigate"), by_key.replace("fortigate", "azure") + login):
        wanted = profile(pki, text).connection().remote_identity
        assert wanted == IdentityPattern.parse("vpn.example.com")


def test_a_second_factor_of_the_fortigate(pki: Path) -> None:
    """It follows EAP-MSCHAPv2, and may have its code where other codes are."""
    codes = 'method = "eap-mschapv2"\ntotp = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"\n'
    for settings, kind in (("", SecondFactorPeer), ('second_factor = "off"\n', SecondFactorPeer)):
        text = speaking("fortigate", "[gateway.fortigate]\n" + settings)
        connection = profile(pki, text + (codes if not settings else "")).connection()
        assert isinstance(connection.local_credential, EapCredential)
        assert type(connection.local_credential.new_peer(lambda question: None)) is kind  # type: ignore[arg-type,return-value]
    assert "`totp` is not used" in mistakes(profile, pki, text + codes)
    other = profile(pki, speaking("fortigate") + 'method = "eap-gtc"\n').connection()
    assert type(other.local_credential.new_peer(lambda question: None)) is EapPeer  # type: ignore[arg-type,return-value,union-attr]
    plain = profile(pki, speaking("windows")).connection()
    assert type(plain.local_credential.new_peer(lambda question: None)) is EapPeer  # type: ignore[arg-type,return-value,union-attr]


@pytest.mark.parametrize("dialect", ["anyconnect", "fortigate", "windows", "azure", None])
def test_gateways_of_some_vendors_grant_everything_and_name_what_they_mean(pki: Path, dialect: str | None) -> None:
    text = speaking(dialect) if dialect else HEAD.replace('dialect = "anyconnect"\n', "") + USER
    assert profile(pki, text).host.told_routes is (dialect in ("anyconnect", "fortigate"))
    assert not profile(pki, text + '[network]\nroutes = "granted"\n').host.told_routes
    assert profile(pki, text + '[network]\nroutes = "told"\n').host.told_routes
    only = profile(pki, text + '[network]\nroutes = ["10.0.0.0/8"]\n').host
    assert not only.told_routes and only.routes == (ip_network("10.0.0.0/8"),)


@pytest.mark.parametrize("name", ["windows", "azure"])
def test_a_profile_for_gateways_of_microsoft_offers_what_is_old_and_warns(pki: Path, name: str) -> None:
    found = profile(pki, speaking(name))
    assert found.connection().ike_proposals == microsoft.IKE_PROPOSALS
    assert found.connection().children[0].proposals == microsoft.ESP_PROPOSALS
    assert any("modp1024" in warning for warning in found.warnings)


def test_proposals_that_the_user_names_count_more(pki: Path) -> None:
    own = '[ike]\nproposals = "aes256gcm16-prfsha384-ecp384"\n[esp]\nproposals = "aes256gcm16"\n'
    found = profile(pki, speaking("azure") + own)
    assert len(found.connection().ike_proposals) == 1
    assert len(found.connection().children[0].proposals) == 1
    assert found.warnings == ()


def test_a_child_sa_that_names_its_own_proposals_keeps_them(pki: Path) -> None:
    children = '[children.a]\nremote = "10.1.0.0/16"\nproposals = "aes256gcm16"\n[children.b]\nremote = "10.2.0.0/16"\n'
    first, second = profile(pki, speaking("azure") + children).connection().children
    assert len(first.proposals) == 1
    assert second.proposals == microsoft.ESP_PROPOSALS


# --- gateways ---------------------------------------------------------------------------------------------------------


def asks(identity: Identity) -> SelectConnection:
    return SelectConnection(Address("192.0.2.1", 500), Address("192.0.2.2", 500), identity, None, None)


def test_a_gateway_tells_anyconnect_clients_from_others(pki: Path) -> None:
    for text in (OURS + PLAIN + CONNECTION, OURS + CONNECTION + PLAIN):
        found = gateway(pki, text)
        chosen = select_connection(found.candidates, asks(ANYCONNECT_CLIENT))
        assert chosen.name == "cisco"
        assert chosen.interception is found.responder.interception
        assert isinstance(chosen.remote_expectation, EapExpected)
        session = chosen.remote_expectation.new_authenticator(lambda question: None)
        assert isinstance(session, EapAuthenticator) and session.identity == ANYCONNECT_CLIENT.value
        assert select_connection(found.candidates, asks(Identity.parse("alice"))).name == "people"
        assert UNTRIED in found.warnings


def test_the_identity_of_anyconnect_clients_is_a_setting(pki: Path) -> None:
    own = gateway(pki, OURS + PLAIN + CONNECTION + '[connections.cisco.anyconnect]\nclient_identities = "Staff"\n')
    for kind in (201, 11):
        staff = Identity(IdentificationType(kind), b"Staff")
        assert select_connection(own.candidates, asks(staff)).name == "cisco"
    for other in (ANYCONNECT_CLIENT, Identity(IdentificationType.ID_FQDN, b"Staff")):
        assert select_connection(own.candidates, asks(other)).name == "people"


def test_who_logged_in_by_a_dialect_stays_in_its_connection(pki: Path) -> None:
    """What the other connections demand was not proven, nor is this one's proof that of the others."""
    candidates = gateway(pki, OURS + PLAIN + CONNECTION).candidates
    people, cisco = (each.connections[0] for each in candidates)
    assert settle_connection(candidates, cisco, b"alice", lambda name: True) is cisco
    with pytest.raises(AuthenticationFailed):
        settle_connection(candidates, cisco, b"alice", lambda name: name == "people")
    with pytest.raises(AuthenticationFailed):
        settle_connection(candidates, people, b"alice", lambda name: name == "cisco")


FORTI = '[connections.forti]\nlogin = "eap-mschapv2"\ndialect = "fortigate"\nidentities = "alice"\npools = "office"\n'


def test_who_gave_no_code_gets_into_no_connection_that_wants_one(pki: Path) -> None:
    """The code is asked for within EAP: who is moved there after EAP would never be asked."""
    for text in (OURS + PLAIN + FORTI, OURS + FORTI + PLAIN):
        found = gateway(pki, text)
        by_name = {each.name: each.connections[0] for each in found.candidates}
        assert settle_connection(found.candidates, by_name["people"], b"alice", lambda name: True) is by_name["people"]
        assert settle_connection(found.candidates, by_name["forti"], b"alice", lambda name: True) is by_name["forti"]
        session = by_name["forti"].remote_expectation.new_authenticator(lambda question: None)
        assert isinstance(session, SecondFactorAuthenticator)
        assert UNTRIED_FORTIGATE in found.warnings


def test_a_gateway_for_anyconnect_alone_refuses_others(pki: Path) -> None:
    with pytest.raises(AuthenticationFailed):
        select_connection(gateway(pki, OURS + CONNECTION).candidates, asks(Identity.parse("alice")))


def test_unity_attributes_are_those_of_the_connection(pki: Path) -> None:
    more = 'domains = ["example.com"]\nsubnets = ["10.1.0.0/16", "fd00::/8"]\n'
    dialect = gateway(pki, OURS + CONNECTION + more).candidates[0].connections[0].interception.dialect
    assert {int(each.type): each.value for each in dialect.replies} == {
        28675: b"example.com",
        28676: bytes.fromhex("0a010000ffff0000000000000000"),
    }
    own = "[connections.cisco.anyconnect]\n" + 'split_include = "10.2.0.0/16"\nbanner = "Hello"\n'
    dialect = gateway(pki, OURS + CONNECTION + more + own).candidates[0].connections[0].interception.dialect
    assert {int(each.type): each.value for each in dialect.replies} == {
        28672: b"Hello",
        28675: b"example.com",
        28676: bytes.fromhex("0a020000ffff0000000000000000"),
    }


@pytest.mark.parametrize("setting", ["certificate", "public-key", "none"])
def test_the_hash_in_the_last_document_is_that_of_the_gateway_s_certificate(pki: Path, setting: str) -> None:
    table = f'[connections.cisco.anyconnect]\nserver_cert_hash = "{setting}"\n'
    expected = gateway(pki, OURS + CONNECTION + table).candidates[0].connections[0].remote_expectation
    assert isinstance(expected, EapExpected)
    (make,) = expected.new_authenticator(lambda question: None)._untried  # type: ignore[arg-type,return-value,attr-defined]
    certificate = x509.load_pem_x509_certificate((pki / "vpn.pem").read_bytes())
    # strongSwan's KEYID_PUBKEY_SHA1: of the key's bits, without what algorithm it is of.
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    wanted = {
        "certificate": hashlib.sha1(certificate.public_bytes(Encoding.DER)).hexdigest().upper(),
        "public-key": hashlib.sha1(spki[spki.rindex(b"\x03\x42\x00") + 3 :]).hexdigest().upper(),
        "none": "",
    }
    assert make()._options.server_cert_hash == wanted[setting]  # type: ignore[attr-defined]


RADIUS = '[radius.corp]\nservers = "10.0.0.1"\nsecret = "a secret of enough letters"\n'


def test_radius_servers_may_judge_the_passwords(pki: Path) -> None:
    text = OURS.replace('users = "users.toml"\n', "") + RADIUS + CONNECTION + 'radius = "corp"\n'
    expected = gateway(pki, text).candidates[0].connections[0].remote_expectation
    assert isinstance(expected, EapExpected) and expected.settles


def test_a_gateway_by_certificate_needs_no_users(pki: Path) -> None:
    text = OURS.replace('users = "users.toml"\n', "") + CONNECTION + 'ca = "ca.pem"\n'
    gateway(pki, text + "[connections.cisco.anyconnect]\npassword = false\ncertificate = true\n")


TABLE = "[connections.cisco.anyconnect]\n"


@pytest.mark.parametrize(
    "text,expected",
    [
        (OURS + CONNECTION.replace('dialect = "anyconnect"\n', ""), "does not speak"),
        (OURS + PLAIN + "[connections.people.anyconnect]\n", "is not used"),
        (OURS + CONNECTION.replace('"eap-anyconnect"', '["eap-anyconnect", "eap-mschapv2"]'), "stands alone"),
        (OURS + CONNECTION + '[[connections.cisco.then]]\nlogin = "eap-gtc"\n', "stands alone"),
        (OURS + CONNECTION + TABLE + "password = false\n", "prove nothing"),
        (OURS + CONNECTION + TABLE + "certificate = true\n", "belong together"),
        (OURS + CONNECTION + 'ca = "ca.pem"\n', "belong together"),
        (OURS.replace('users = "users.toml"\n', "") + CONNECTION, "there are no users"),
        (OURS + CONNECTION + TABLE + "attempts = 0\n", "expected 1 to 10"),
        (OURS + FORTI.replace("eap-mschapv2", "eap-gtc"), "in FortiGate's way"),
        (OURS + FORTI + '[[connections.forti.then]]\nlogin = "eap-gtc"\n', "in FortiGate's way"),
        (OURS + PLAIN + "[connections.people.fortigate]\n", "`fortigate` is not used"),
        (OURS + FORTI + '[connections.forti.fortigate]\nsecond_factor_auth = "psk"\n', "sk_p"),
        (
            OURS
            + RADIUS
            + CONNECTION
            + 'radius = "corp"\nca = "ca.pem"\n'
            + TABLE
            + "password = false\ncertificate = true\n",
            "none is asked for",
        ),
    ],
)
def test_mistakes_in_gateways(pki: Path, text: str, expected: str) -> None:
    assert expected in mistakes(gateway, pki, text)


def test_a_token_is_not_shown(pki: Path) -> None:
    write_private(pki / "token", "very secret\n")
    found = profile(pki, HEAD + '[gateway.anyconnect]\nhost_scan = { file = "token" }\n' + USER)
    assert "very secret" not in repr(found)


# --- over namespaces --------------------------------------------------------------------------------------------------

LIVE_GATEWAY = """
[gateway]
certificate = "vpn.pem"
key = "vpn.key"
users = "users.toml"

[ike]
fragment_size = 576

[pools.office]
ipv4 = "10.99.0.0/24"

[connections.people]
login = "eap-mschapv2"
pools = "office"

[connections.cisco]
login = "eap-anyconnect"
dialect = "anyconnect"
pools = "office"
subnets = "10.91.0.0/24"
{keys}

[connections.cisco.anyconnect]
banner = "Be kind."
default_domain = "example.com"
{settings}
"""

LIVE_PROFILE = """
[gateway]
address = "{address}"
identity = "vpn.example.com"
ca = "ca.pem"
dialect = "anyconnect"

[gateway.anyconnect]
{settings}

[login]
{login}

[network]
dns = "off"

[ike]
fragment_size = 576
"""

PASSWORD = 'username = "alice"\npassword = "wonderland"'
CERTIFICATE = 'certificate = "alice.pem"\nkey = "alice.key"'


@pytest.mark.root
@pytest.mark.parametrize(
    "keys,settings,login,ours",
    [
        ("", "", PASSWORD, ""),
        ("", 'groups = ["staff", "sales"]', PASSWORD, 'group = "sales"'),
        ('ca = "ca.pem"', "password = false\ncertificate = true", CERTIFICATE, ""),
    ],
    ids=["password", "group", "certificate"],
)
def test_a_tunnel_in_the_dialect(tmp_path: Path, keys: str, settings: str, login: str, ours: str) -> None:
    make_pki(tmp_path)
    write_private(tmp_path / "users.toml", '[users.alice]\npassword = "wonderland"\n')
    with live(tmp_path) as stage:
        config = private(tmp_path / "gateway.toml", LIVE_GATEWAY.format(keys=keys, settings=settings))
        text = LIVE_PROFILE.format(address=GATEWAY, settings=ours, login=login)
        programs = []
        for host, role, path in (
            (stage.hosts.gateway, "gateway", config),
            (stage.hosts.client, "client", private(tmp_path / "work.toml", text)),
        ):
            program = Program(host, tmp_path, role, path)
            stage.programs.append(program)
            programs.append(program)
            program.wait_for(READY[role])
        assert stage.ping_arrives()
        assert "Be kind." in programs[1].log()
        assert "AnyConnect-EAP" in programs[1].log()
        user = "alice@example.com" if "certificate" in login else "alice"
        assert user in programs[0].log()


@pytest.mark.root
def test_a_disabled_user_with_a_good_certificate_is_refused(tmp_path: Path) -> None:
    make_pki(tmp_path)
    write_private(tmp_path / "users.toml", '[users."alice@example.com"]\npassword = "x"\ndisabled = true\n')
    settings = "password = false\ncertificate = true"
    with live(tmp_path) as stage:
        config = private(tmp_path / "gateway.toml", LIVE_GATEWAY.format(keys='ca = "ca.pem"', settings=settings))
        serving = Program(stage.hosts.gateway, tmp_path, "gateway", config)
        stage.programs.append(serving)
        serving.wait_for(READY["gateway"])
        text = LIVE_PROFILE.format(address=GATEWAY, settings="", login=CERTIFICATE)
        client = Program(stage.hosts.client, tmp_path, "client", private(tmp_path / "work.toml", text))
        stage.programs.append(client)
        assert client.process.wait(30) != 0
        serving.wait_for("alice@example.com is disabled")


@pytest.mark.root
def test_a_wrong_password_in_the_dialect_is_told_in_words(tmp_path: Path) -> None:
    make_pki(tmp_path)
    write_private(tmp_path / "users.toml", '[users.alice]\npassword = "another"\n')
    with live(tmp_path) as stage:
        config = private(tmp_path / "gateway.toml", LIVE_GATEWAY.format(keys="", settings=""))
        text = LIVE_PROFILE.format(address=GATEWAY, settings="", login=PASSWORD)
        serving = Program(stage.hosts.gateway, tmp_path, "gateway", config)
        stage.programs.append(serving)
        serving.wait_for(READY["gateway"])
        client = Program(stage.hosts.client, tmp_path, "client", private(tmp_path / "work.toml", text))
        stage.programs.append(client)
        assert client.process.wait(30) != 0
        assert "password" in client.log()
        serving.wait_for("wrong password, or no such user")
        assert "wonderland" not in client.log() + serving.log()


SEED = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"


@pytest.mark.root
@pytest.mark.parametrize("code", [f'totp = "{SEED}"', 'code = "none"'], ids=["right", "wrong"])
def test_a_code_in_fortigate_s_way(tmp_path: Path, code: str) -> None:
    make_pki(tmp_path)
    write_private(tmp_path / "users.toml", f'[users.alice]\npassword = "wonderland"\ntotp = "{SEED}"\n')
    serves = OURS + FORTI.replace('identities = "alice"', 'subnets = "10.91.0.0/24"')
    login = f'{PASSWORD}\nmethod = "eap-mschapv2"\n{code}'
    text = LIVE_PROFILE.format(address=GATEWAY, settings="", login=login).replace("anyconnect", "fortigate")
    with live(tmp_path) as stage:
        serving = Program(stage.hosts.gateway, tmp_path, "gateway", private(tmp_path / "gateway.toml", serves))
        stage.programs.append(serving)
        serving.wait_for(READY["gateway"])
        client = Program(stage.hosts.client, tmp_path, "client", private(tmp_path / "work.toml", text))
        stage.programs.append(client)
        if SEED in code:
            client.wait_for(READY["client"])
            assert stage.ping_arrives()
            assert "EAP-MSCHAPv2, then EAP-GTC" in client.log()
            return
        assert client.process.wait(30) != 0
        assert "refused the code of alice" in client.log()
        serving.wait_for("wrong code")
        assert "wonderland" not in client.log() + serving.log()


@pytest.mark.root
def test_split_include_of_a_gateway_that_grants_everything(tmp_path: Path) -> None:
    make_pki(tmp_path)
    write_private(tmp_path / "users.toml", '[users.alice]\npassword = "wonderland"\n')
    serves = LIVE_GATEWAY.format(keys="", settings='split_include = "10.91.0.0/24"\n')
    serves = serves.replace('subnets = "10.91.0.0/24"\n', "")
    text = LIVE_PROFILE.format(address=GATEWAY, settings="", login=PASSWORD)
    with live(tmp_path) as stage:
        serving = Program(stage.hosts.gateway, tmp_path, "gateway", private(tmp_path / "gateway.toml", serves))
        stage.programs.append(serving)
        serving.wait_for(READY["gateway"])
        for more, leads in (("", False), ('routes = "granted"', True)):
            path = private(tmp_path / "work.toml", text.replace('dns = "off"', f'dns = "off"\n{more}'))
            client = Program(stage.hosts.client, tmp_path, "client", path)
            stage.programs.append(client)
            client.wait_for(READY["client"])
            assert stage.ping_arrives()
            route = stage.hosts.client.run(["ip", "route", "get", "1.1.1.1"])
            assert ("dev ikeway" in route) is leads
            assert client.end() == 0

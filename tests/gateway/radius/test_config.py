"""[radius.NAME] and what connections say of it: what it means, and every mistake."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from ikeway.eap.authenticator import Authenticator
from ikeway.eap.relay import EapRelay
from ikeway.errors import ConfigError, ConfigErrors
from ikeway.gateway.config import GatewayConfig, load_gateway_config
from ikeway.gateway.radius.settings import ServerAddress
from ikeway.ike.settings import EapExpected
from tests.config.material import make_pki, write_private

BASE = '[gateway]\ncertificate = "vpn.pem"\nkey = "vpn.key"\n[pools.office]\nipv4 = "10.99.0.0/24"\n'
SERVERS = '[radius.corp]\nservers = ["10.0.0.1", "radius.example.com:1645"]\nsecret = "a secret of enough letters"\n'
PEOPLE = '[connections.people]\nlogin = "eap"\nradius = "corp"\npools = "office"\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("radius"))


def config(folder: Path, text: str) -> GatewayConfig:
    return load_gateway_config(write_private(folder / "gateway.toml", text))


def mistakes(folder: Path, text: str) -> list[ConfigError]:
    with pytest.raises(ConfigErrors) as caught:
        config(folder, text)
    assert all(error.remedy and error.file for error in caught.value.errors)
    return list(caught.value.errors)


async def nobody(question: object) -> None:
    return None


def test_a_short_configuration(folder):
    found = config(folder, BASE + SERVERS + PEOPLE)
    corp = found.radius["corp"]
    assert corp.servers == (ServerAddress("10.0.0.1"), ServerAddress("radius.example.com", 1645))
    assert (corp.servers[1].accounting_port, corp.nas_identifier) == (1646, "vpn.example.com")
    assert (corp.timeout, corp.tries, corp.accounting, corp.dynamic) == (2.0, 3, False, None)
    assert corp.require_message_authenticator and corp.longest < 30
    assert corp.secret == b"a secret of enough letters" and "enough" not in repr(found)
    (candidate,) = found.candidates
    expected = candidate.connections[0].remote_expectation
    assert isinstance(expected, EapExpected) and expected.settles
    session: Authenticator = expected.new_authenticator(nobody)  # type: ignore[arg-type]
    assert isinstance(session, EapRelay)
    assert found.warnings == ()


def test_everything(folder):
    write_private(folder / "secret", "from a file of its own\n")
    found = config(
        folder,
        BASE
        + PEOPLE
        + """groups = ["staff", "admins"]
[radius.corp]
servers = "[fd00::1]:1912"
secret = { file = "secret" }
source = "fd00::2"
nas_identifier = "gate"
timeout = "30s"
tries = 1
dead_time = "never"
accounting = true
interim = "5m"
coa = { listen = "fd00::2", port = 4000, secret = "another one of enough letters", require_timestamp = false }
""",
    )
    corp = found.radius["corp"]
    assert corp.servers == (ServerAddress("fd00::1", 1912),)
    assert (corp.secret, corp.source, corp.nas_identifier) == (b"from a file of its own", ip_address("fd00::2"), "gate")
    assert (corp.timeout, corp.tries, corp.dead_time, corp.accounting, corp.interim) == (30, 1, 0, True, 300)
    assert corp.dynamic is not None
    assert (corp.dynamic.clients, corp.dynamic.port) == (frozenset({ip_address("fd00::1")}), 4000)
    assert (corp.dynamic.secret, corp.dynamic.require_timestamp) == (b"another one of enough letters", False)
    assert found.clients["people"].groups == ("staff", "admins")
    assert found.clients["people"].radius == "corp"


@pytest.mark.parametrize("login", ['"eap-gtc"', '"eap-ttls"\ninner = "pap"', '"eap-peap"\ninner = "eap-gtc"'])
def test_passwords_may_be_judged_elsewhere_without_a_users_file(folder, login):
    found = config(folder, BASE + SERVERS + PEOPLE.replace('"eap"', login))
    assert found.candidates[0].connections[0].remote_expectation.settles


def test_a_gateway_without_certificate_may_leave_its_proof_to_the_method(folder):
    found = config(
        folder,
        '[gateway]\nidentity = "gate"\n[pools.office]\nipv4 = "10.99.0.0/24"\n'
        + SERVERS
        + PEOPLE
        + 'gateway_authentication = "eap-only"\n',
    )
    assert found.candidates


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (SERVERS + PEOPLE.replace('radius = "corp"\n', ""), "nobody judges them"),
        (SERVERS + PEOPLE.replace('"corp"', '"crop"'), "no RADIUS servers 'crop'"),
        (SERVERS + PEOPLE.replace('"eap"', '"certificate"') + 'ca = "ca.pem"\n', "`radius` is not used"),
        (SERVERS + PEOPLE.replace('"eap"', '["eap-gtc", "eap-md5"]'), "cannot judge a log-in by eap-md5"),
        (SERVERS + PEOPLE.replace('"eap"', '["eap", "eap-md5"]'), "alternatives"),
        (SERVERS + PEOPLE.replace('"eap"', '"eap-ttls"'), "cannot judge mschapv2 within the tunnel"),
        (SERVERS + PEOPLE.replace('"eap"', '"eap-peap"'), "cannot judge eap-mschapv2 within the tunnel"),
        (SERVERS + PEOPLE + 'then = [{ login = "eap", radius = "corp", identities = "bob" }]\n', "not looked at again"),
        (SERVERS.replace('"10.0.0.1"', '"10.0.0.1", "10.0.0.1"') + PEOPLE, "named twice"),
        (SERVERS.replace('"10.0.0.1"', '"not a server"') + PEOPLE, "no RADIUS server"),
        (SERVERS.replace('"10.0.0.1"', '"10.0.0.1:70000"') + PEOPLE, "no port"),
        (SERVERS + "timeout = 0.01\n" + PEOPLE, "out of range"),
        (SERVERS + 'interim = "5m"\n' + PEOPLE, "needs `accounting`"),
        (SERVERS + 'accounting = true\ninterim = "5s"\n' + PEOPLE, "too often"),
        (SERVERS + "tries = 0\n" + PEOPLE, "out of range"),
        (SERVERS.replace('["10.0.0.1", "radius.example.com:1645"]', '"radius.example.com"')
         + 'coa = { listen = "10.0.0.2" }\n' + PEOPLE, "whose requests"),
        (SERVERS + 'coa = { listen = "10.0.0.2" }\n' + SERVERS.replace("corp", "other")
         + 'coa = { listen = "10.0.0.2" }\n' + PEOPLE, "listens there too"),
        (SERVERS.replace('"a secret of enough letters"', '{ file = "nothing" }') + PEOPLE, "cannot be read"),
        (SERVERS.replace("servers", "server") + PEOPLE, "server"),
    ],
)  # fmt: skip
def test_mistakes(folder, text, reason):
    assert any(reason in error.reason for error in mistakes(folder, BASE + text)), reason


def test_warnings(folder):
    text = SERVERS.replace("a secret of enough letters", "short")
    found = config(folder, BASE + text + "require_message_authenticator = false\n" + PEOPLE)
    assert any("CVE-2024-3596" in warning for warning in found.warnings)
    assert any("5 octets" in warning for warning in found.warnings) and not any("short" in w for w in found.warnings)
    found = config(folder, BASE + SERVERS + SERVERS.replace("corp", "spare") + PEOPLE)
    assert found.warnings == ("[radius.spare] is not used by any connection",)

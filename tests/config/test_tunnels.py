"""EAP methods on TLS in profiles and in a gateway's configuration: both of them log in against each other, in memory."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ikeway.auth.errors import IdentityMismatch, UntrustedCertificate
from ikeway.client.profile import Profile, load_profile
from ikeway.eap.errors import EapFailed
from ikeway.eap.questions import Granted, PasswordCheck, PasswordQuestion, Refused, ResumptionQuestion, SecretQuestion
from ikeway.eap.relay import PasswordRelay
from ikeway.errors import ConfigError, ConfigErrors, IkewayError
from ikeway.gateway.config import GatewayConfig, load_gateway_config
from ikeway.ike.settings import EapCredential, EapExpected, EapOnlyExpected
from ikeway.questions import CurrentTime
from tests.config.material import make_pki, write_private
from tests.eap.conversations import Asker, log_in

PROFILE = '[gateway]\naddress = "vpn.example.com"\nca = "ca.pem"\n[login]\n'
USER = 'username = "alice"\n'
CERTIFICATE = 'username = "alice@example.com"\ncertificate = "alice.pem"\nkey = "alice.key"\n'
GATEWAY = (
    '[gateway]\ncertificate = "vpn.pem"\nkey = "vpn.key"\nusers = "users.toml"\n[pools.office]\nipv4 = "10.99.0.0/24"\n'
    '[connections.people]\npools = "office"\n'
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_pki(tmp_path_factory.mktemp("tunnels"))
    write_private(folder / "users.toml", '[users.alice]\npassword = "x"\n')
    return folder


def profile(folder: Path, text: str) -> Profile:
    return load_profile(write_private(folder / "work.toml", PROFILE + text))


def gateway(folder: Path, text: str) -> GatewayConfig:
    return load_gateway_config(write_private(folder / "gateway.toml", GATEWAY + text))


def answer(question: Any) -> Any:
    match question:
        case CurrentTime():
            return datetime.now(UTC)
        case PasswordQuestion():
            return "x"
        case SecretQuestion():
            return "x" if question.identity == b"alice" else None
        case PasswordCheck():
            return Granted() if (question.identity, question.answer) == (b"alice", b"x") else Refused()
        case ResumptionQuestion():
            return b"mark"
    raise AssertionError(question)


def meet(client: Profile, server: GatewayConfig, asker: Asker | None = None) -> tuple[Any, Any]:
    credential = client.connection().local_credential
    expectation = server.candidates[0].connections[0].remote_expectation
    assert isinstance(credential, EapCredential) and isinstance(expectation, EapExpected)
    asker = asker or Asker(answer)
    peer, authenticator = credential.new_peer(asker), expectation.new_authenticator(asker)
    log_in(peer, authenticator)
    assert peer.msk == authenticator.msk is not None
    return peer, authenticator


@pytest.mark.parametrize(
    ("login", "connection", "user"),
    [
        ('method = "eap-tls"\n' + CERTIFICATE, 'login = "eap-tls"\nca = "ca.pem"\n', "alice@example.com"),
        (
            'method = "eap-tls"\nusername = "alice@example.com"\npkcs12 = "alice.p12"\nkey_password = "open"\n',
            'login = "eap-tls"\nca = "ca.pem"\nidentities = "*@example.com"\n',
            "alice@example.com",
        ),
        (
            'method = "eap-tls"\ncertificate = "alice.pem"\nkey = "alice.key"\n',
            'login = "eap-tls"\nca = "ca.pem"\n',
            "alice@example.com",
        ),
        ('method = "eap-ttls"\n' + USER, 'login = "eap-ttls"\n', "alice"),
        ('method = "eap-ttls"\ninner = "mschapv2"\n' + USER, 'login = "eap-ttls"\n', "alice"),
        ('method = "eap-ttls"\ninner = "eap-mschapv2"\n' + USER, 'login = "eap-ttls"\nretries = 1\n', "alice"),
        ('method = "eap-ttls"\ninner = "eap-gtc"\n' + USER, 'login = "eap-ttls"\ninner = "eap-gtc"\n', "alice"),
        (
            'method = "eap-ttls"\ninner = "eap-tls"\n' + CERTIFICATE,
            'login = "eap-ttls"\ninner = ["pap", "eap-tls"]\nca = "ca.pem"\n',
            "alice@example.com",
        ),
        ('method = "eap-peap"\n' + USER, 'login = "eap-peap"\n', "alice"),
        (
            'method = "eap-peap"\nrequire_cryptobinding = true\ninner = ["eap-tls", "eap-gtc"]\n' + CERTIFICATE,
            'login = "eap-peap"\nrequire_cryptobinding = true\ninner = ["eap-mschapv2", "eap-tls"]\nca = "ca.pem"\n',
            "alice@example.com",
        ),
        ('method = ["eap-mschapv2", "eap-peap"]\n' + USER, 'login = ["eap-ttls", "eap-peap"]\n', "alice"),
    ],
)
def test_both_sides_log_in(folder: Path, login: str, connection: str, user: str) -> None:
    peer, authenticator = meet(profile(folder, login), gateway(folder, connection))
    assert authenticator.identity == user.encode()
    assert peer.mutual


RADIUS = '[radius.corp]\nservers = "10.0.0.1"\nsecret = "a secret of enough letters"\n'


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ("", 1),
        ("resume = false\n", 2),
        ('identities = "alice"\n', 1),
        ('inner = "pap"\nradius = "corp"\n' + RADIUS, 2),  # which says more than that the password is right
    ],
)
@pytest.mark.parametrize("login", ["eap-ttls", "eap-peap"])
def test_later_log_ins_resume_the_session(folder: Path, login: str, more: str, asked: int) -> None:
    if login == "eap-peap":
        more = more.replace("pap", "eap-gtc")
    inner = 'inner = "eap-gtc"\n' if "eap-gtc" in more else ""
    client = profile(folder, f'method = "{login}"\n' + inner + USER)
    server = gateway(folder, f'login = "{login}"\n' + more)
    relaying = Asker(lambda question: Granted() if isinstance(question, PasswordRelay) else answer(question))
    for _ in range(2):
        meet(client, server, relaying)
    assert len([each for each in relaying.questions if isinstance(each, PasswordQuestion)]) == asked


@pytest.mark.parametrize("login", ["eap-ttls", "eap-peap"])
def test_no_session_stands_for_a_certificate_that_was_shown_in_the_tunnel(folder: Path, login: str) -> None:
    """It may expire within the hour, and only the password is asked after."""
    client = profile(folder, f'method = "{login}"\ninner = "eap-tls"\n' + CERTIFICATE)
    server = gateway(folder, f'login = "{login}"\ninner = ["eap-tls", "eap-mschapv2"]\nca = "ca.pem"\n')
    ask = Asker(answer)
    for _ in range(2):
        meet(client, server, ask)
    assert not any(isinstance(each, ResumptionQuestion) for each in ask.questions)


def test_an_anonymous_identity_is_all_that_is_said_outside(folder: Path) -> None:
    client = profile(folder, 'method = "eap-ttls"\nanonymous_identity = "anonymous@example.com"\n' + USER)
    assert str(client.connection().local_identity) == "anonymous@example.com"
    credential = client.connection().local_credential
    assert isinstance(credential, EapCredential)
    server = gateway(folder, 'login = "eap-ttls"\n').candidates[0].connections[0].remote_expectation
    assert isinstance(server, EapExpected)
    packets = log_in(credential.new_peer(Asker(answer)), server.new_authenticator(Asker(answer)))
    assert b"anonymous@example.com" in packets[1] and not any(b"alice" in packet for packet in packets)


def test_users_that_the_connection_is_not_for(folder: Path) -> None:
    client = profile(folder, 'method = "eap-ttls"\n' + USER)
    with pytest.raises(IkewayError):
        meet(client, gateway(folder, 'login = "eap-ttls"\nidentities = "bob"\n'))
    client = profile(folder, 'method = "eap-tls"\n' + CERTIFICATE)
    with pytest.raises(IkewayError):
        meet(client, gateway(folder, 'login = "eap-tls"\nca = "ca.pem"\nidentities = "*@example.org"\n'))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ('server_identity = "radius.example.com"\n', IdentityMismatch),
        ('server_ca = "alice.pem"\n', UntrustedCertificate),
        ('server_ca = "ca.pem"\nserver_crls = "crl.pem"\nserver_identity = "vpn.example.com"\n', None),
    ],
)
def test_the_eap_server_may_be_another_than_the_gateway(folder: Path, more: str, expected: Any) -> None:
    client, server = profile(folder, 'method = "eap-ttls"\n' + more + USER), gateway(folder, 'login = "eap-ttls"\n')
    if expected is None:
        meet(client, server)
        return
    with pytest.raises(expected):
        meet(client, server)


def test_the_log_in_alone_proves_the_gateway(folder: Path) -> None:
    text = PROFILE.replace("[login]", 'authentication = "eap-only"\n[login]') + 'method = "eap-ttls"\n' + USER
    client = load_profile(write_private(folder / "alone.toml", text))
    assert isinstance(client.connection().remote_expectation, EapOnlyExpected)
    meet(client, gateway(folder, 'login = "eap-ttls"\ngateway_authentication = "eap-only"\n'))


def mistake(load: Any, folder: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigErrors) as caught:
        load(folder, text)
    (error,) = caught.value.errors
    return error


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('method = "eap-tls"\n' + USER, "something of it is missing"),
        ('method = "eap-tls"\n', "something of it is missing"),
        ('method = "eap-ttls"\n', "no user name"),
        ('method = "eap-peap"\ninner = "pap"\n' + USER, "does not carry pap"),
        ('method = "eap-ttls"\ninner = ["pap", "mschapv2"]\n' + USER, "the client chooses"),
        ('method = "eap-ttls"\ninner = "eap-tls"\n' + USER, "something of it is missing"),
        ('method = "eap-ttls"\nrequire_cryptobinding = true\n' + USER, "`require_cryptobinding` is not used"),
        ('method = "eap-mschapv2"\ninner = "eap-gtc"\n' + USER, "`inner` is not used"),
        ('method = "eap-ttls"\nserver_ca = "none.pem"\n' + USER, "cannot be read"),
        ('method = "eap-ttls"\nserver_crls = "none.pem"\n' + USER, "cannot be read"),
        ('method = "eap-tls"\ncertificate = "alice.pem"\nkey = "vpn.key"\n' + USER, "does not belong"),
    ],
)
def test_mistakes_of_a_profile(folder: Path, text: str, words: str) -> None:
    error = mistake(profile, folder, text)
    assert words in str(error) and error.line >= 4


def test_any_site_must_not_pass_for_the_server(folder: Path) -> None:
    text = '[gateway]\naddress = "vpn.example.com"\n[login]\nmethod = "eap-ttls"\nserver_identity = "*.com"\n' + USER
    with pytest.raises(ConfigErrors, match="any site"):
        load_profile(write_private(folder / "wide.toml", text))


def test_a_missing_ca_is_complained_of_once(folder: Path) -> None:
    for authentication in ("", 'authentication = "eap-only"\n'):
        text = '[gateway]\naddress = "vpn.example.com"\nca = "none.pem"\n' + authentication + "[login]\n"
        with pytest.raises(ConfigErrors) as caught:
            load_profile(write_private(folder / "missing.toml", text + 'method = "eap-ttls"\n' + USER))
        assert [error.line for error in caught.value.errors] == [3]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('login = "eap-tls"\n', "something of it is missing"),
        ('login = "eap-peap"\ninner = "mschapv2"\n', "does not carry mschapv2"),
        ('login = "eap-ttls"\ninner = "eap-tls"\n', "something of it is missing"),
        ('login = "eap-tls"\nca = "ca.pem"\ninner = "pap"\n', "`inner` is not used"),
        ('login = "eap-tls"\nca = "none.pem"\n', "cannot be read"),
    ],
)
def test_mistakes_of_a_gateway(folder: Path, text: str, words: str) -> None:
    assert words in str(mistake(gateway, folder, text))


@pytest.mark.parametrize("authentication", ["certificate", "eap-only"])
def test_a_gateway_without_a_certificate(folder: Path, authentication: str) -> None:
    text = GATEWAY.replace('certificate = "vpn.pem"\nkey = "vpn.key"\n', "")
    text += f'login = "eap-ttls"\ngateway_authentication = "{authentication}"\n'
    with pytest.raises(ConfigErrors) as caught:
        load_gateway_config(write_private(folder / "bare.toml", text))
    (error,) = caught.value.errors
    assert "certificate" in error.reason


def test_no_password_for_another_gateway(folder: Path, tmp_path: Path) -> None:
    client = profile(folder, 'method = "eap-ttls"\nserver_identity = "another.example.com"\n' + USER)
    credential = client.connection().local_credential
    server = gateway(folder, 'login = "eap-ttls"\n').candidates[0].connections[0].remote_expectation
    assert isinstance(credential, EapCredential) and isinstance(server, EapExpected)
    asked = Asker(answer)
    with pytest.raises((IdentityMismatch, EapFailed)):
        log_in(credential.new_peer(asked), server.new_authenticator(Asker(answer)))
    assert not any(isinstance(question, PasswordQuestion) for question in asked.questions)


RADIUS = '\nradius = "corp"\n[radius.corp]\nservers = "127.0.0.1"\nsecret = "a secret of the two"\n'


@pytest.mark.parametrize(
    ("login", "connection"),
    [
        ('method = "eap-ttls"\n', 'login = "eap-ttls"\ninner = ["pap", "eap-gtc"]'),
        ('method = "eap-ttls"\ninner = "eap-gtc"\n', 'login = "eap-ttls"\ninner = ["pap", "eap-gtc"]'),
        ('method = "eap-peap"\ninner = "eap-gtc"\n', 'login = "eap-peap"\ninner = "eap-gtc"'),
    ],
)
def test_passwords_out_of_the_tunnel_are_judged_by_radius(folder: Path, login: str, connection: str) -> None:
    asked = []

    def relayed(question: Any) -> Any:
        asked.append(question)
        return Granted() if isinstance(question, PasswordRelay) else answer(question)

    text = GATEWAY.replace('users = "users.toml"\n', "") + connection + RADIUS
    server = load_gateway_config(write_private(folder / "radius.toml", text))
    credential = profile(folder, login + USER).connection().local_credential
    expectation = server.candidates[0].connections[0].remote_expectation
    assert isinstance(credential, EapCredential) and isinstance(expectation, EapExpected) and expectation.settles
    log_in(credential.new_peer(Asker(answer)), expectation.new_authenticator(Asker(relayed)))
    (question,) = (each for each in asked if isinstance(each, PasswordRelay))
    assert (question.server, question.check.identity, question.check.answer) == ("corp", b"alice", b"x")

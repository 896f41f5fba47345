"""Our authenticator against wpa_supplicant's EAP peer (`eapol_test`), which compares the keys."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ikeway.auth.errors import UntrustedCertificate
from ikeway.eap.errors import BindingFailed, EapFailed, WrongPassword
from ikeway.eap.gtc import GtcAuthenticator
from ikeway.eap.md5 import Md5Authenticator
from ikeway.eap.method import AuthenticatorMethodFactory
from ikeway.eap.mschapv2 import MsChapV2Authenticator
from ikeway.eap.peap import PeapAuthenticator
from ikeway.eap.questions import PasswordCheck, ResumptionQuestion, SecretQuestion
from ikeway.eap.session import EapAuthenticator
from ikeway.eap.tls import EapTlsAuthenticator
from ikeway.eap.ttls import TtlsAuthenticator, TtlsWays
from ikeway.eap.tunnel.sessions import ProvenLogins
from tests.eap.conversations import Asker
from tests.eap.eapol import eapol_test
from tests.eap.live import CLIENT, PASSWORD, SERVER, USER, Authority, asker, authority, make_authority, server_end
from tests.eap.radius_stage import RadiusStage

pytestmark = pytest.mark.programs("eapoltest")

VERSIONS = {"1.2": "tls_disable_tlsv1_3=1", "1.3": "tls_disable_tlsv1_3=0"}
WAYS = TtlsWays(pap=True, mschapv2=True, eap=[MsChapV2Authenticator, GtcAuthenticator, Md5Authenticator])
Serve = Callable[..., RadiusStage]


@pytest.fixture
def serve() -> Iterator[Serve]:
    made: list[RadiusStage] = []

    def make(*methods: AuthenticatorMethodFactory, ask: Asker | None = None) -> RadiusStage:
        made.append(RadiusStage(lambda: EapAuthenticator(ask or asker(), methods)))
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    authority().write(tmp_path)
    return tmp_path


def user(password: str = PASSWORD) -> tuple[str, ...]:
    return f'identity="{USER}"', f'password="{password}"', 'anonymous_identity="anonymous"'


CA = ('ca_cert="ca.pem"', f'domain_match="{SERVER}"')
CERTIFICATE = (f'identity="{CLIENT}"', 'client_cert="client.pem"', 'private_key="client.key"')


def phase1(version: str, *more: str) -> str:
    return f'phase1="{" ".join((VERSIONS[version], *more))}"'


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", ["ttls", "peap-0", "peap-1", "peap-2"])
def test_a_session_stands_for_the_password(serve: Serve, folder: Path, way: str, version: str) -> None:
    """Without tickets in TLS 1.2, and with the cryptobinding of a session as [MS-PEAP] has it."""
    end = server_end(logins=ProvenLogins())
    methods: dict[str, AuthenticatorMethodFactory] = {
        "ttls": lambda: TtlsAuthenticator(end, WAYS),
        "peap": lambda: PeapAuthenticator(end, [MsChapV2Authenticator]),
    }
    usual = asker()
    ask = Asker(lambda question: b"same" if isinstance(question, ResumptionQuestion) else usual.answer(question))
    server = serve(methods[way[:4]], ask=ask)
    inner = "PAP" if way == "ttls" else "MSCHAPV2"
    outer = () if way == "ttls" else ("peapver=0", f"crypto_binding={way[-1]}")
    options = (f"eap={way[:4].upper()}", *CA, *user(), f'phase2="auth={inner}"', phase1(version, *outer))
    result = eapol_test(server.port, folder, *options, more=("-r2",))
    assert result.returncode == 0 and "MPPE keys OK: 3  mismatch: 0" in result.stdout, result.stdout[-4000:]
    assert [session.identity for session in server.made] == [USER.encode()] * 3
    judged = [question for question in ask.questions if isinstance(question, PasswordCheck | SecretQuestion)]
    assert len(judged) == 1


def succeeds(server: RadiusStage, folder: Path, *options: str, keys: bool = True) -> EapAuthenticator:
    result = eapol_test(server.port, folder, *options, keys=keys)
    assert result.returncode == 0, result.stdout[-4000:] + server.made[-1].reason
    assert "SUCCESS" in result.stdout
    outer = re.search(r"Using TLS version TLSv(\S+)", result.stdout)
    assert outer is None or any(VERSIONS[outer[1]] in option for option in options)
    return server.made[-1]


def fails(server: RadiusStage, folder: Path, *options: str) -> EapAuthenticator:
    result = eapol_test(server.port, folder, *options)
    assert result.returncode != 0, result.stdout[-4000:]
    assert not server.made[-1].succeeded
    return server.made[-1]


@pytest.mark.parametrize("version", VERSIONS)
def test_tls(serve: Serve, folder: Path, version: str) -> None:
    end = server_end(clients=True)
    server = serve(lambda: EapTlsAuthenticator(end))
    session = succeeds(server, folder, "eap=TLS", *CA, *CERTIFICATE, phase1(version))
    assert session.identity == CLIENT.encode()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("inner", ["auth=PAP", "auth=MSCHAPV2", "autheap=MSCHAPV2", "autheap=GTC", "autheap=MD5"])
def test_ttls(serve: Serve, folder: Path, version: str, inner: str) -> None:
    end = server_end()
    server = serve(lambda: TtlsAuthenticator(end, WAYS))
    session = succeeds(server, folder, "eap=TTLS", *CA, *user(), f'phase2="{inner}"', phase1(version))
    assert session.identity == USER.encode()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("binding", [0, 1, 2])
@pytest.mark.parametrize("inner", ["MSCHAPV2", "GTC"])
def test_peap(serve: Serve, folder: Path, version: str, inner: str, binding: int) -> None:
    end = server_end()
    server = serve(lambda: PeapAuthenticator(end, [MsChapV2Authenticator, GtcAuthenticator]))
    options = phase1(version, "peapver=0", f"crypto_binding={binding}")
    session = succeeds(server, folder, "eap=PEAP", *CA, *user(), f'phase2="auth={inner}"', options)
    assert session.identity == USER.encode()


@pytest.mark.parametrize("version", VERSIONS)
def test_peap_with_certificates(serve: Serve, folder: Path, version: str) -> None:
    end, inner = server_end(), server_end(clients=True)
    server = serve(lambda: PeapAuthenticator(end, [lambda: EapTlsAuthenticator(inner)]))
    within = ('ca_cert2="ca.pem"', 'client_cert2="client.pem"', 'private_key2="client.key"', 'phase2="auth=TLS"')
    options = ("eap=PEAP", *CA, f'identity="{CLIENT}"', *within, phase1(version, "peapver=0 crypto_binding=2"))
    assert succeeds(server, folder, *options).identity == CLIENT.encode()


def test_a_client_without_cryptobinding_where_it_is_required(serve: Serve, folder: Path) -> None:
    end = server_end()
    server = serve(lambda: PeapAuthenticator(end, [MsChapV2Authenticator], require_binding=True))
    options = ("eap=PEAP", *CA, *user(), 'phase2="auth=MSCHAPV2"')
    assert isinstance(fails(server, folder, *options, phase1("1.2", "crypto_binding=0")).error, BindingFailed)
    succeeds(server, folder, *options, phase1("1.2", "crypto_binding=1"))


@pytest.mark.parametrize("method", [MsChapV2Authenticator, Md5Authenticator, GtcAuthenticator])
def test_without_a_tunnel(serve: Serve, folder: Path, method: AuthenticatorMethodFactory) -> None:
    name = {"EAP-MSCHAPv2": "MSCHAPV2", "EAP-MD5": "MD5", "EAP-GTC": "GTC"}[method().name]
    server = serve(method)
    options = (f"eap={name}", f'identity="{USER}"', f'password="{PASSWORD}"')
    assert succeeds(server, folder, *options, keys=False).identity == USER.encode()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("inner", ["auth=PAP", "auth=MSCHAPV2", "autheap=MSCHAPV2"])
def test_a_wrong_password(serve: Serve, folder: Path, version: str, inner: str) -> None:
    end = server_end()
    server = serve(lambda: TtlsAuthenticator(end, WAYS))
    session = fails(server, folder, "eap=TTLS", *CA, *user("wrong"), f'phase2="{inner}"', phase1(version))
    assert isinstance(session.error, WrongPassword)


def test_a_wrong_password_in_peap(serve: Serve, folder: Path) -> None:
    end = server_end()
    server = serve(lambda: PeapAuthenticator(end, [MsChapV2Authenticator]))
    session = fails(server, folder, "eap=PEAP", *CA, *user("wrong"), 'phase2="auth=MSCHAPV2"', phase1("1.3"))
    assert isinstance(session.abandon(EapFailed("it left")), WrongPassword)


@pytest.mark.parametrize("version", VERSIONS)
def test_it_does_not_trust_us(serve: Serve, folder: Path, version: str) -> None:
    end = server_end(node=make_authority("Another").server)
    server = serve(lambda: TtlsAuthenticator(end, WAYS))
    session = fails(server, folder, "eap=TTLS", *CA, *user(), 'phase2="auth=PAP"', phase1(version))
    assert "does not trust the CA of the server's certificate" in session.reason


@pytest.mark.parametrize("version", VERSIONS)
def test_we_do_not_trust_it(serve: Serve, folder: Path, version: str) -> None:
    end, stranger = server_end(clients=True), make_authority("Another")
    Authority(authority().ca, authority().server, stranger.client).write(folder)
    server = serve(lambda: EapTlsAuthenticator(end))
    session = fails(server, folder, "eap=TLS", *CA, *CERTIFICATE, phase1(version))
    assert isinstance(session.error, UntrustedCertificate)


@pytest.mark.parametrize("version", VERSIONS)
def test_fragments_both_ways(serve: Serve, folder: Path, version: str) -> None:
    end = server_end(clients=True)
    server = serve(lambda: EapTlsAuthenticator(end, fragment=300))
    succeeds(server, folder, "eap=TLS", *CA, *CERTIFICATE, "fragment_size=200", phase1(version))


def test_negotiation(serve: Serve, folder: Path) -> None:
    end, clients = server_end(), server_end(clients=True)
    server = serve(
        lambda: EapTlsAuthenticator(clients),
        lambda: PeapAuthenticator(end, [MsChapV2Authenticator]),
        lambda: TtlsAuthenticator(end, WAYS),
    )
    session = succeeds(server, folder, "eap=TTLS", *CA, *user(), 'phase2="auth=PAP"', phase1("1.3"))
    assert session.method == "EAP-TTLS"

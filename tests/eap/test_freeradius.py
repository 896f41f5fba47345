"""Our peer against FreeRADIUS: every method, both versions of TLS, and the keys of its Access-Accept."""

import gc
import re
from collections.abc import Callable, Iterator

import pytest

from ikeway.auth.errors import IdentityMismatch, UntrustedCertificate
from ikeway.auth.path import Role
from ikeway.eap.errors import BindingFailed, EapFailed, TlsFailed, WrongPassword
from ikeway.eap.gtc import GtcPeer
from ikeway.eap.md5 import Md5Peer
from ikeway.eap.method import PeerMethodFactory
from ikeway.eap.mschapv2 import MsChapV2Peer
from ikeway.eap.peap import PeapPeer
from ikeway.eap.questions import PasswordQuestion
from ikeway.eap.session import EapPeer
from ikeway.eap.tls import EapTlsPeer
from ikeway.eap.ttls import TtlsPeer
from ikeway.eap.ttls_inner import EapInTunnel, InnerPeer, MsChapV2InTunnel, PapPeer
from ikeway.eap.tunnel.channel import TlsVersion
from ikeway.eap.tunnel.sessions import SessionCache
from ikeway.errors import IkewayError
from tests.eap.freeradius import FreeRadius, running
from tests.eap.live import CLIENT, SERVER, USER, asker, client_end, make_authority, trust
from tests.eap.radius_stage import log_in_by_radius
from tests.eap.tunnel.parties import VERSIONS

pytestmark = pytest.mark.programs("freeradius")

NAME, CLIENT_NAME = USER.encode(), CLIENT.encode()
INNER: dict[str, Callable[[], InnerPeer]] = {
    "pap": lambda: PapPeer(NAME),
    "mschapv2": lambda: MsChapV2InTunnel(NAME),
    "eap-mschapv2": lambda: EapInTunnel(NAME, [lambda: MsChapV2Peer(NAME)]),
    "eap-md5": lambda: EapInTunnel(NAME, [lambda: Md5Peer(NAME)]),
    "eap-gtc": lambda: EapInTunnel(NAME, [lambda: GtcPeer(NAME)]),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreeRadius]:
    with running(tmp_path_factory.mktemp("freeradius")) as server:
        yield server


def peer(method: PeerMethodFactory, identity: bytes = b"anonymous", password: str | None = None) -> EapPeer:
    return EapPeer(asker() if password is None else asker(password), identity, [method])


def agrees(server: FreeRadius, peer: EapPeer, identity: bytes = b"anonymous") -> None:
    keys = log_in_by_radius(server.port, peer, identity)
    assert peer.succeeded, server.log.read_text()
    assert keys == peer.msk and len(keys or b"") == 64


@pytest.mark.parametrize("version", VERSIONS)
def test_tls(server: FreeRadius, version: TlsVersion) -> None:
    end = client_end(version, certificate=True)
    agrees(server, peer(lambda: EapTlsPeer(end, CLIENT_NAME), CLIENT_NAME), CLIENT_NAME)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", INNER)
def test_ttls(server: FreeRadius, version: TlsVersion, way: str) -> None:
    end = client_end(version)
    agrees(server, peer(lambda: TtlsPeer(end, NAME, INNER[way]())))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("inner", [MsChapV2Peer, GtcPeer, Md5Peer])
def test_peap(server: FreeRadius, version: TlsVersion, inner: Callable[[bytes], object]) -> None:
    end = client_end(version)
    agrees(server, peer(lambda: PeapPeer(end, NAME, [lambda: inner(NAME)])))  # type: ignore[list-item, return-value]


@pytest.mark.parametrize("inner", [MsChapV2Peer, GtcPeer, Md5Peer])
def test_without_a_tunnel(server: FreeRadius, inner: Callable[[bytes], object]) -> None:
    session = peer(lambda: inner(NAME), NAME)  # type: ignore[arg-type, return-value]
    keys = log_in_by_radius(server.port, session, NAME)
    assert session.succeeded
    assert (keys or None) == session.msk or inner is MsChapV2Peer
    if inner is MsChapV2Peer:
        assert session.msk is not None and keys == session.msk[:32]


@pytest.mark.parametrize("version", VERSIONS)
def test_fragments_both_ways(tmp_path_factory: pytest.TempPathFactory, version: TlsVersion) -> None:
    with running(tmp_path_factory.mktemp("freeradius"), fragment=300) as server:
        end = client_end(version, certificate=True)
        agrees(server, peer(lambda: EapTlsPeer(end, CLIENT_NAME, fragment=256), CLIENT_NAME), CLIENT_NAME)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_is_resumed(tmp_path_factory: pytest.TempPathFactory, version: TlsVersion) -> None:
    with running(tmp_path_factory.mktemp("freeradius"), cache=True) as server:
        end, sessions = client_end(version, certificate=True), SessionCache()
        for _ in range(2):
            agrees(server, peer(lambda: EapTlsPeer(end, CLIENT_NAME, sessions=sessions), CLIENT_NAME), CLIENT_NAME)
            gc.collect()
        proofs = re.findall(r"eap_tls: \(TLS\) recv TLS \S+ Handshake, CertificateVerify", server.log.read_text())
        assert len(proofs) == 1  # two log-ins, one certificate


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_stands_for_the_password(tmp_path_factory: pytest.TempPathFactory, version: TlsVersion) -> None:
    with running(tmp_path_factory.mktemp("freeradius"), cache=True) as server:
        end, sessions = client_end(version), SessionCache()
        methods: dict[str, PeerMethodFactory] = {
            "eap_ttls": lambda: TtlsPeer(end, NAME, PapPeer(NAME), sessions=sessions),
            "eap_peap": lambda: PeapPeer(end, NAME, [lambda: MsChapV2Peer(NAME)], sessions=sessions),
        }
        for name, method in methods.items():
            for password in (None, "not asked for"):
                agrees(server, peer(method, password=password))
                gc.collect()  # a connection that is dropped must not take its session along
            assert (
                len(re.findall(rf"{name}: \(TLS\) send TLS \S+ Handshake, Certificate\n", server.log.read_text())) == 1
            )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", ["ttls", "peap"])
def test_a_wrong_password(server: FreeRadius, version: TlsVersion, way: str) -> None:
    end = client_end(version)
    methods: dict[str, PeerMethodFactory] = {
        "ttls": lambda: TtlsPeer(end, NAME, PapPeer(NAME)),
        "peap": lambda: PeapPeer(end, NAME, [lambda: MsChapV2Peer(NAME)]),
    }
    with pytest.raises(WrongPassword if way == "ttls" else EapFailed, match="refused"):
        log_in_by_radius(server.port, peer(methods[way], password="wrong"), b"anonymous")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("judge", "expected"),
    [
        (trust(Role.RESPONDER, SERVER, anchor=make_authority("Another").ca), UntrustedCertificate),
        (trust(Role.RESPONDER, "other.example.org"), IdentityMismatch),
    ],
)
def test_it_is_not_the_right_one(
    server: FreeRadius, version: TlsVersion, judge: object, expected: type[IkewayError]
) -> None:
    end = client_end(version, judge=judge)  # type: ignore[arg-type]
    ask = asker()
    session = EapPeer(ask, b"anonymous", [lambda: TtlsPeer(end, NAME, PapPeer(NAME))])
    with pytest.raises(expected):
        log_in_by_radius(server.port, session, b"anonymous")
    assert not any(isinstance(question, PasswordQuestion) for question in ask.questions)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_certificate_of_another_ca(server: FreeRadius, version: TlsVersion) -> None:
    end = client_end(version, node=make_authority("Another").client)
    with pytest.raises(TlsFailed, match="certificate"):
        log_in_by_radius(server.port, peer(lambda: EapTlsPeer(end, CLIENT_NAME), CLIENT_NAME), CLIENT_NAME)


def test_it_does_no_cryptobinding(server: FreeRadius) -> None:
    end = client_end()
    session = peer(lambda: PeapPeer(end, NAME, [lambda: MsChapV2Peer(NAME)], require_binding=True))
    with pytest.raises(BindingFailed):
        log_in_by_radius(server.port, session, b"anonymous")

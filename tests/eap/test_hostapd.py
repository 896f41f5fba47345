"""Our peer against the EAP server in hostapd, which does cryptobinding as FreeRADIUS does not."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from ikeway.eap.errors import EapFailed, WrongPassword
from ikeway.eap.gtc import GtcPeer
from ikeway.eap.method import EapPeerMethod, PeerMethodFactory
from ikeway.eap.mschapv2 import MsChapV2Peer
from ikeway.eap.peap import PeapPeer
from ikeway.eap.session import EapPeer
from ikeway.eap.tls import EapTlsPeer
from ikeway.eap.ttls import TtlsPeer
from ikeway.eap.ttls_inner import EapInTunnel, InnerPeer, MsChapV2InTunnel, PapPeer
from ikeway.eap.tunnel.channel import TlsVersion
from ikeway.eap.tunnel.sessions import SessionCache
from ikeway.errors import IkewayError
from tests.conftest import OTHER_PROGRAMS
from tests.eap.live import CLIENT, PASSWORD, USER, asker, authority, client_end
from tests.eap.radius_stage import SECRET, log_in_by_radius
from tests.eap.tunnel.parties import VERSIONS
from tests.ports import unused_port

pytestmark = pytest.mark.programs("hostapd")

NAME = USER.encode()
INNER: dict[str, Callable[[], InnerPeer]] = {
    "pap": lambda: PapPeer(NAME),
    "mschapv2": lambda: MsChapV2InTunnel(NAME),
    "eap-mschapv2": lambda: EapInTunnel(NAME, [lambda: MsChapV2Peer(NAME)]),
}
_USERS = f"""
"anonymous" PEAP,TTLS
"{CLIENT}" TLS
"{USER}" MSCHAPV2,GTC,TTLS-PAP,TTLS-MSCHAPV2 "{PASSWORD}" [2]
"{CLIENT}" TLS [2]
"""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("hostapd")
    authority().write(folder)
    number = unused_port()
    (folder / "users").write_text(_USERS)
    (folder / "clients").write_text(f"127.0.0.1 {SECRET.decode()}\n")
    (folder / "conf").write_text(
        f"interface=none1\ndriver=none\nlogger_stdout=-1\nlogger_stdout_level=0\neap_server=1\n"
        f"eap_user_file={folder}/users\nradius_server_clients={folder}/clients\nradius_server_auth_port={number}\n"
        f"ca_cert={folder}/ca.pem\nserver_cert={folder}/server.pem\nprivate_key={folder}/server.key\n"
        "tls_flags=[ENABLE-TLSv1.3]\ntls_session_lifetime=3600\n"
    )
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [OTHER_PROGRAMS["hostapd"], "-dd", str(folder / "conf")], stdout=output, stderr=output
        )
    deadline = time.monotonic() + 15
    while "AP-ENABLED" not in log.read_text(errors="replace"):
        assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.02)
    yield number
    process.terminate()
    process.wait(10)


def agrees(port: int, method: PeerMethodFactory, identity: bytes = b"anonymous", password: str = PASSWORD) -> None:
    peer = EapPeer(asker(password), identity, [method])
    keys = log_in_by_radius(port, peer, identity)
    assert peer.succeeded and keys == peer.msk and len(keys or b"") == 64


@pytest.mark.parametrize("way", ["ttls", "peap"])
def test_a_session_stands_for_the_password(port: int, way: str) -> None:
    """With TLS 1.2 EAP-Success follows the handshake at once."""
    end, sessions = client_end(TlsVersion.TLS_1_2), SessionCache()
    methods: dict[str, PeerMethodFactory] = {
        "ttls": lambda: TtlsPeer(end, NAME, PapPeer(NAME), sessions=sessions),
        "peap": lambda: PeapPeer(end, NAME, [lambda: MsChapV2Peer(NAME)], sessions=sessions),
    }
    for password in (PASSWORD, "not asked for"):
        agrees(port, methods[way], password=password)


def test_a_session_that_the_server_does_not_commit_itself_to(port: int) -> None:
    """With TLS 1.3 hostapd 2.10 sends EAP-Success without the octet that RFC 9427 section 4 wants: the next log-in is a
    full one."""
    end, sessions = client_end(TlsVersion.TLS_1_3), SessionCache()
    agrees(port, lambda: TtlsPeer(end, NAME, PapPeer(NAME), sessions=sessions))
    with pytest.raises(EapFailed, match="before the method was at its end"):
        agrees(port, lambda: TtlsPeer(end, NAME, PapPeer(NAME), sessions=sessions))
    agrees(port, lambda: TtlsPeer(end, NAME, PapPeer(NAME), sessions=sessions))


@pytest.mark.parametrize("version", VERSIONS)
def test_tls(port: int, version: TlsVersion) -> None:
    end = client_end(version, certificate=True)
    agrees(port, lambda: EapTlsPeer(end, CLIENT.encode()), CLIENT.encode())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", INNER)
def test_ttls(port: int, version: TlsVersion, way: str) -> None:
    end = client_end(version)
    agrees(port, lambda: TtlsPeer(end, NAME, INNER[way]()))


@pytest.mark.parametrize("inner", [MsChapV2Peer, GtcPeer])
def test_peap_is_bound(port: int, inner: Callable[[bytes], EapPeerMethod]) -> None:
    """With TLS 1.3 hostapd 2.10 binds with the label of TLS 1.2, which RFC 9427 forbids; wpa_supplicant does as we do."""
    end = client_end(TlsVersion.TLS_1_2)
    agrees(port, lambda: PeapPeer(end, NAME, [lambda: inner(NAME)], require_binding=True))


def test_peap_with_certificates(port: int) -> None:
    """With TLS 1.3 within, hostapd 2.10 declares success without the inner server's last word."""
    end = client_end(TlsVersion.TLS_1_2)
    within = client_end(TlsVersion.TLS_1_2, certificate=True)
    name = CLIENT.encode()
    agrees(port, lambda: PeapPeer(end, name, [lambda: EapTlsPeer(within, name)], require_binding=True))


@pytest.mark.parametrize("way", ["pap", "mschapv2", "eap-mschapv2", "peap"])
def test_a_wrong_password(port: int, way: str) -> None:
    end = client_end()
    method: PeerMethodFactory = (
        (lambda: PeapPeer(end, NAME, [lambda: MsChapV2Peer(NAME)]))
        if way == "peap"
        else (lambda: TtlsPeer(end, NAME, INNER[way]()))
    )
    with pytest.raises((WrongPassword, IkewayError), match="refused"):
        agrees(port, method, password="wrong")

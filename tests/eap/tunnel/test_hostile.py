"""Log-ins in which somebody changes the packets: every one ends, by a typed error, and never with keys that differ."""

from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from ikeway.auth.path import Role
from ikeway.eap.mschapv2 import MsChapV2Authenticator, MsChapV2Peer
from ikeway.eap.packet import EapCode, EapPacket
from ikeway.eap.peap import PeapAuthenticator, PeapPeer
from ikeway.eap.session import MAX_ROUNDS, EapAuthenticator, EapPeer
from ikeway.eap.tls import EapTlsAuthenticator, EapTlsPeer
from ikeway.eap.ttls import TtlsAuthenticator, TtlsPeer, TtlsWays
from ikeway.eap.ttls_inner import EapInTunnel
from ikeway.eap.tunnel.channel import TlsVersion
from ikeway.eap.tunnel.sessions import ProvenLogins, SessionCache
from ikeway.eap.tunnel.trust import TlsIdentity
from ikeway.errors import IkewayError
from tests.auth.pki import Node
from tests.eap.conversations import finish, log_in
from tests.eap.tunnel.parties import CLIENT, asker, client_end, client_node, server_end, server_node, trust

Change = Callable[[int, bytes], bytes]
USER = b"alice"
ENDS = {version: client_end(version, node=client_node()) for version in TlsVersion}
SERVER, CLIENTS = server_end(logins=ProvenLogins()), server_end(judge=trust(Role.INITIATOR))


def sides(method: str, version: TlsVersion, sessions: SessionCache | None = None) -> tuple[EapPeer, EapAuthenticator]:
    end = ENDS[version]
    peers = {
        "tls": lambda: EapTlsPeer(end, CLIENT.encode(), sessions=sessions),
        "ttls": lambda: TtlsPeer(end, USER, EapInTunnel(USER, [lambda: MsChapV2Peer(USER)]), sessions=sessions),
        "peap": lambda: PeapPeer(end, USER, [lambda: MsChapV2Peer(USER)], sessions=sessions),
    }
    servers = {
        "tls": lambda: EapTlsAuthenticator(CLIENTS),
        "ttls": lambda: TtlsAuthenticator(SERVER, TtlsWays(eap=[MsChapV2Authenticator])),
        "peap": lambda: PeapAuthenticator(SERVER, [MsChapV2Authenticator]),
    }
    return EapPeer(asker(), USER, [peers[method]]), EapAuthenticator(asker(), [servers[method]])


def carry(peer: EapPeer, authenticator: EapAuthenticator, change: Change) -> int:
    """How many packets it took until an end."""
    packet, count = finish(authenticator.start()), 0
    while count < 4 * MAX_ROUNDS:
        try:
            response = finish(peer.receive(change(count, packet)))
        except IkewayError:
            break
        if response is None:
            break
        packet = finish(authenticator.receive(change(count + 1, response)))
        count += 2
    return count


@pytest.mark.parametrize("version", TlsVersion)
@pytest.mark.parametrize("method", ["tls", "ttls", "peap"])
@pytest.mark.parametrize("resumed", [False, True])
@settings(max_examples=25)
@given(
    at=st.integers(0, 24),
    place=st.integers(4, 1100),
    what=st.integers(1, 255),
    how=st.sampled_from(["flip", "cut", "double", "insert"]),
)
def test_one_packet_is_changed(
    method: str, version: TlsVersion, resumed: bool, at: int, place: int, what: int, how: str
) -> None:
    def change(number: int, packet: bytes) -> bytes:
        if number != at or EapPacket.decode(packet).code in (EapCode.SUCCESS, EapCode.FAILURE):
            return packet
        place_in = 4 + place % (len(packet) - 4) if len(packet) > 4 else 4
        head, tail = packet[4:place_in], packet[place_in:]
        body = {
            "flip": head + bytes((tail[0] ^ what,)) + tail[1:] if tail else head,
            "cut": head,
            "double": head + tail + tail,
            "insert": head + bytes(what) + tail,
        }[how]
        return packet[:2] + (4 + len(body)).to_bytes(2) + body

    sessions = SessionCache()
    if resumed:
        log_in(*sides(method, version, sessions))
    peer, authenticator = sides(method, version, sessions)
    assert carry(peer, authenticator, change) < 4 * MAX_ROUNDS
    if peer.succeeded and authenticator.succeeded:
        assert peer.msk == authenticator.msk is not None
    if peer.succeeded:
        assert authenticator.succeeded  # nobody else's success is believed


@pytest.mark.parametrize("version", TlsVersion)
@pytest.mark.parametrize("method", ["tls", "ttls", "peap"])
def test_an_early_success_is_not_believed(method: str, version: TlsVersion) -> None:
    """At each turn but the last. With TLS 1.2, EAP-TLS has nothing more to wait for after the server's Finished."""
    ends = 0
    peer, authenticator = sides(method, version)
    ends = carry(peer, authenticator, lambda number, packet: packet)
    for turn in range(0, ends - 1, 2):
        peer, authenticator = sides(method, version)
        carry(
            peer,
            authenticator,
            lambda number, packet: (
                EapPacket(EapCode.SUCCESS, packet[1]).encode() if number == turn else packet  # noqa: B023
            ),
        )
        assert peer.failed and not peer.succeeded


def twice_the_names(node: Node) -> TlsIdentity:
    """A certificate with two extensions of one kind, which nobody may have (RFC 5280 section 4.2)."""
    der = node.certificate.public_bytes(Encoding.DER)
    usage, names = bytes.fromhex("0603551d25"), bytes.fromhex("0603551d11")
    assert der.count(usage) == der.count(names) == 1
    return TlsIdentity((x509.load_der_x509_certificate(der.replace(usage, names)),), node.key)


@pytest.mark.parametrize(
    ("version", "whose"),
    # OpenSSL's servers do not take such a certificate for their own with TLS 1.2.
    [(TlsVersion.TLS_1_2, "client"), (TlsVersion.TLS_1_3, "client"), (TlsVersion.TLS_1_3, "server")],
)
def test_a_certificate_that_nobody_can_read_ends_it_by_a_typed_error(version: TlsVersion, whose: str) -> None:
    """Anybody may show one, before anything is known of who it is."""
    client, server = client_end(version, node=client_node()), server_end(judge=trust(Role.INITIATOR))
    if whose == "client":
        client.own = twice_the_names(client_node())
    else:
        server.own = twice_the_names(server_node())
    peer = EapPeer(asker(), USER, [lambda: EapTlsPeer(client, CLIENT.encode())])
    authenticator = EapAuthenticator(asker(), [lambda: EapTlsAuthenticator(server)])
    carry(peer, authenticator, lambda number, packet: packet)
    assert authenticator.failed and not peer.succeeded
    if whose == "client":
        assert "cannot be read" in authenticator.reason
    else:
        reason = peer.failure_reason()
        assert reason is not None and "cannot be read" in str(reason)

"""EAP-TLS: both roles against each other, and every way in which one refuses the other."""

from datetime import timedelta
from typing import Any

import pytest

from ikeway.auth.errors import (
    CertificateExpired,
    IdentityMismatch,
    Revoked,
    UnsuitableCertificate,
    UntrustedCertificate,
)
from ikeway.auth.path import Role
from ikeway.eap.errors import EapFailed, MalformedEap, TlsFailed
from ikeway.eap.packet import EapCode, EapPacket, EapType
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.eap.tls import EapTlsAuthenticator, EapTlsPeer
from ikeway.eap.ttls import TtlsAuthenticator, TtlsPeer, TtlsWays
from ikeway.eap.ttls_inner import PapPeer
from ikeway.eap.tunnel.channel import Endpoint, TlsVersion
from ikeway.eap.tunnel.sessions import LIFETIME, SessionCache
from ikeway.errors import ConfigError, IkewayError
from tests.auth.pki import DAY, NOW, Node, new_key, root
from tests.eap.conversations import Asker, finish, log_in
from tests.eap.tunnel.parties import (
    CLIENT,
    SERVER,
    TLS_CLIENT,
    TLS_SERVER,
    VERSIONS,
    asker,
    authority,
    client_end,
    client_node,
    server_end,
    server_node,
    trust,
)


def clients_trust(**options: Any) -> Any:
    return trust(Role.INITIATOR, **options)


def sides(
    client: Endpoint,
    server: Endpoint,
    *,
    ask: Asker | None = None,
    sessions: SessionCache | None = None,
    **options: Any,
) -> tuple[EapPeer, EapAuthenticator]:
    ask = ask or asker()
    peer = EapPeer(ask, CLIENT.encode(), [lambda: EapTlsPeer(client, CLIENT.encode(), sessions=sessions, **options)])
    return peer, EapAuthenticator(ask, [lambda: EapTlsAuthenticator(server, **options)])


def refused(peer: EapPeer, authenticator: EapAuthenticator) -> IkewayError:
    """Why the peer gave up; the authenticator has ended too."""
    with pytest.raises(IkewayError) as caught:
        log_in(peer, authenticator)
    assert authenticator.failed and not authenticator.succeeded
    assert peer.msk is None and authenticator.msk is None
    return caught.value


@pytest.mark.parametrize("version", VERSIONS)
def test_both_prove_themselves_and_have_the_same_key(version: TlsVersion) -> None:
    peer, authenticator = sides(client_end(version, node=client_node()), server_end(judge=clients_trust()))
    log_in(peer, authenticator)
    assert peer.succeeded and authenticator.succeeded
    assert peer.msk == authenticator.msk and len(peer.msk or b"") == 64
    assert authenticator.identity == CLIENT.encode()
    assert peer.mutual


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["rsa", "p384", "ed25519"])
def test_kinds_of_keys(version: TlsVersion, kind: str) -> None:
    client = authority().issue("a", key=new_key(kind), alternatives=(f"email:{CLIENT}",), extended=(TLS_CLIENT,))
    server = authority().issue("s", key=new_key(kind), alternatives=(f"dns:{SERVER}",), extended=(TLS_SERVER,))
    peer, authenticator = sides(client_end(version, node=client), server_end(node=server, judge=clients_trust()))
    log_in(peer, authenticator)
    assert peer.msk == authenticator.msk is not None


@pytest.mark.parametrize("version", VERSIONS)
def test_long_chains_are_cut_into_fragments_both_ways(version: TlsVersion) -> None:
    chain = [authority()]
    for index in range(4):
        chain.insert(0, chain[0].issue(f"intermediate {index}", key=new_key("rsa"), ca=True))
    client = chain[0].issue("alice", key=new_key("rsa"), alternatives=(f"email:{CLIENT}",), extended=(TLS_CLIENT,))
    server = chain[0].issue("s", key=new_key("rsa"), alternatives=(f"dns:{SERVER}",), extended=(TLS_SERVER,))
    from tests.eap.tunnel.parties import credential, tls_identity

    ends = [
        Endpoint(is_server=is_server, trust=judge, own=tls_identity(credential(node, *chain[:-1])), **options)
        for is_server, judge, node, options in (
            (False, trust(Role.RESPONDER, SERVER), client, {"minimum": version, "maximum": version}),
            (True, clients_trust(), server, {}),
        )
    ]
    peer, authenticator = sides(ends[0], ends[1], fragment=300)
    packets = log_in(peer, authenticator)
    assert peer.msk == authenticator.msk is not None
    assert max(map(len, packets)) <= 5 + 5 + 300
    assert len(packets) > 30


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("server", "judge", "expected"),
    [
        (lambda: root("Impostor").issue("s", alternatives=(f"dns:{SERVER}",)), None, UntrustedCertificate),
        (lambda: root("EAP Root").issue("s", alternatives=(f"dns:{SERVER}",)), None, UntrustedCertificate),
        (lambda: authority().issue("s", alternatives=("dns:other.example.org",)), None, IdentityMismatch),
        (lambda: authority().issue("s", alternatives=(f"dns:{SERVER}",), end=NOW - DAY), None, CertificateExpired),
        (
            lambda: authority().issue("s", alternatives=(f"dns:{SERVER}",), extended=(TLS_CLIENT,)),
            None,
            UnsuitableCertificate,
        ),
    ],
)
def test_a_server_that_is_not_the_right_one(version: TlsVersion, server: Any, judge: Any, expected: Any) -> None:
    ask = asker()
    end = client_end(version, node=client_node(), judge=judge)
    peer, authenticator = sides(end, server_end(node=server(), judge=clients_trust()), ask=ask)
    error = refused(peer, authenticator)
    assert isinstance(error, expected), error
    assert error.remedy
    assert isinstance(authenticator.error, TlsFailed) and "alert" in str(authenticator.error)


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_of_ours_goes_to_a_server_that_is_not_the_right_one(version: TlsVersion) -> None:
    server = root("Impostor").issue("s", alternatives=(f"dns:{SERVER}",))
    peer, authenticator = sides(client_end(version, node=client_node()), server_end(node=server, judge=clients_trust()))
    sent = 0
    packet = finish(authenticator.start())
    with pytest.raises(UntrustedCertificate):
        while (response := finish(peer.receive(packet))) is not None:
            sent = len(response)
            packet = finish(authenticator.receive(response))
    assert sent < 40  # the last response is an alert, not a certificate


@pytest.mark.parametrize("version", VERSIONS)
def test_a_revoked_server(version: TlsVersion) -> None:
    server = authority().issue("s", alternatives=(f"dns:{SERVER}",))
    judge = trust(Role.RESPONDER, SERVER, crls=[authority().crl(server.certificate)])
    peer, authenticator = sides(
        client_end(version, node=client_node(), judge=judge), server_end(node=server, judge=clients_trust())
    )
    assert isinstance(refused(peer, authenticator), Revoked)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (lambda: root("Elsewhere").issue("alice", alternatives=(f"email:{CLIENT}",)), UntrustedCertificate),
        (lambda: authority().issue("alice", alternatives=(f"email:{CLIENT}",), end=NOW - DAY), CertificateExpired),
    ],
)
def test_a_client_that_is_not_the_right_one(version: TlsVersion, client: Any, expected: Any) -> None:
    peer, authenticator = sides(client_end(version, node=client()), server_end(judge=clients_trust()))
    error = refused(peer, authenticator)
    assert isinstance(error, TlsFailed) and "alert" in error.got, error
    assert isinstance(authenticator.error, expected)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_without_a_certificate(version: TlsVersion) -> None:
    """EAP-TLS of ours does not begin without one; a client of TTLS may be asked for one all the same."""
    server, ask = server_end(judge=clients_trust()), asker()
    with pytest.raises(ConfigError):
        EapTlsPeer(client_end(version), CLIENT.encode())
    peer = EapPeer(ask, b"x", [lambda: TtlsPeer(client_end(version), b"alice", PapPeer(b"alice"))])
    authenticator = EapAuthenticator(ask, [lambda: TtlsAuthenticator(server, TtlsWays(pap=True))])
    error = refused(peer, authenticator)
    assert "certificate" in error.reason + error.remedy
    assert "the client sent no certificate" in authenticator.reason


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_that_ends_without_a_word(version: TlsVersion) -> None:
    peer, authenticator = sides(client_end(version, node=client_node()), server_end(judge=clients_trust()))
    response = finish(peer.receive(finish(authenticator.start())))
    for end in (1, 2, 3):
        request = finish(authenticator.receive(response or b""))
        response = finish(peer.receive(request))
        if end == 3:
            with pytest.raises(TlsFailed, match=r"without saying why|after it had seen"):
                finish(peer.receive(EapPacket(EapCode.FAILURE, 9).encode()))


def test_no_version_in_common() -> None:
    client = client_end(TlsVersion.TLS_1_2, node=client_node())
    server = server_end(judge=clients_trust(), minimum=TlsVersion.TLS_1_3)
    error = refused(*sides(client, server))
    assert "versions of TLS" in error.reason


@pytest.mark.parametrize("version", VERSIONS)
def test_the_clock_is_the_one_that_was_asked_for(version: TlsVersion) -> None:
    peer, authenticator = sides(
        client_end(version, node=client_node()), server_end(judge=clients_trust()), ask=asker(now=NOW + 40 * DAY)
    )
    assert isinstance(refused(peer, authenticator), CertificateExpired)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_second_log_in_resumes_the_session(version: TlsVersion) -> None:
    client, server, sessions = (
        client_end(version, node=client_node()),
        server_end(judge=clients_trust()),
        SessionCache(),
    )
    octets = []
    keys = []
    for _ in range(3):
        peer, authenticator = sides(client, server, sessions=sessions)
        octets.append(sum(map(len, log_in(peer, authenticator))))
        assert peer.msk == authenticator.msk is not None
        assert authenticator.identity == CLIENT.encode()
        keys.append(peer.msk)
        assert len(sessions) == 1
    assert max(octets[1:]) < octets[0] - 300  # no certificates
    assert len(set(keys)) == 3


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_does_not_outlive_the_certificates(version: TlsVersion) -> None:
    sessions, client_trust = SessionCache(), clients_trust()
    client, server = client_end(version, node=client_node()), server_end(judge=client_trust)
    log_in(*sides(client, server, sessions=sessions))
    revoking = clients_trust(crls=[authority().crl(client_node().certificate)])
    server.trust = revoking  # as when a CRL has come
    peer, authenticator = sides(client, server, sessions=sessions)
    refused(peer, authenticator)
    assert isinstance(authenticator.error, Revoked)


def test_sessions_grow_old_and_are_few() -> None:
    sessions, token = SessionCache(), object()
    sessions.keep(b"x", token, (), NOW)  # type: ignore[arg-type]
    assert sessions.take(b"x", NOW + LIFETIME) is None
    sessions.keep(b"x", token, (), NOW)  # type: ignore[arg-type]
    kept = sessions.take(b"x", NOW + LIFETIME - timedelta(seconds=1))
    assert kept is not None and kept.session is token
    assert sessions.take(b"x", NOW) is None
    for index in range(40):
        sessions.keep(b"%d" % index, token, (), NOW)  # type: ignore[arg-type]
    assert len(sessions) == 16 and sessions.take(b"39", NOW) is not None


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_that_was_revoked_is_met_anew_and_refused(version: TlsVersion) -> None:
    sessions, certificate = SessionCache(), server_node().certificate
    client, server = client_end(version, node=client_node()), server_end(judge=clients_trust())
    log_in(*sides(client, server, sessions=sessions))
    client.trust = trust(Role.RESPONDER, SERVER, crls=[authority().crl(certificate)])  # as when a CRL has come
    peer, authenticator = sides(client, server, sessions=sessions)
    assert isinstance(refused(peer, authenticator), Revoked)
    assert isinstance(authenticator.error, TlsFailed) and not len(sessions)


def test_success_before_the_commitment_is_refused() -> None:
    peer, authenticator = sides(client_end(TlsVersion.TLS_1_3, node=client_node()), server_end(judge=clients_trust()))
    packet = finish(authenticator.start())
    while len(response := finish(peer.receive(packet)) or b"") < 500:
        packet = finish(authenticator.receive(response))
    identifier = EapPacket.decode(response).identifier
    for _ in range(3):  # the rest of the client's fragments
        frame = EapPacket.decode(response)
        if not frame.data[0] & 0x40:
            break
        response = finish(peer.receive(finish(authenticator.receive(response)))) or b""
    with pytest.raises(EapFailed, match="before the method was at its end"):
        finish(peer.receive(EapPacket(EapCode.SUCCESS, identifier).encode()))


@pytest.mark.parametrize("octets", [b"", b"\0", b"\x20", b"\xa0\0\0", b"\0garbage that is no TLS record at all"])
def test_garbage_ends_the_log_in(octets: bytes) -> None:
    _, authenticator = sides(client_end(node=client_node()), server_end(judge=clients_trust()))
    start = EapPacket.decode(finish(authenticator.start()))
    assert start.type == EapType.IDENTITY
    identity = EapPacket(EapCode.RESPONSE, start.identifier, EapType.IDENTITY, CLIENT.encode())
    packet = finish(authenticator.receive(identity.encode()))
    for _ in range(70):
        request = EapPacket.decode(packet)
        if request.code is EapCode.FAILURE:
            break
        packet = finish(
            authenticator.receive(EapPacket(EapCode.RESPONSE, request.identifier, EapType.TLS, octets).encode())
        )
    assert authenticator.failed and isinstance(authenticator.error, EapFailed)


@pytest.mark.parametrize("data", [b"", b"\0", b"\x80\0\0\0\1x", b"\x60"])
def test_a_server_that_does_not_start(data: bytes) -> None:
    peer, _ = sides(client_end(node=client_node()), server_end(judge=clients_trust()))
    with pytest.raises(MalformedEap):
        finish(peer.receive(EapPacket(EapCode.REQUEST, 1, EapType.TLS, data).encode()))


def test_what_cannot_work_is_said_when_it_is_configured() -> None:
    with pytest.raises(ConfigError):
        EapTlsAuthenticator(server_end())
    with pytest.raises(ConfigError):
        Endpoint(is_server=True, trust=None)
    with pytest.raises(ConfigError):
        Endpoint(is_server=False, trust=None)
    with pytest.raises(ConfigError):
        client_end(minimum=TlsVersion.TLS_1_3, maximum=TlsVersion.TLS_1_2)


def test_the_identity_is_the_one_that_the_certificate_carries() -> None:
    judge = clients_trust()
    certificate = client_node().certificate
    assert judge.name(certificate, CLIENT.upper().encode()) == CLIENT.upper().encode()
    assert judge.name(certificate, b"alice") == b"alice"  # its CN
    assert judge.name(certificate, b"bob@example.org") == CLIENT.encode()
    assert judge.name(certificate, b"") == CLIENT.encode()


def test_keys_are_in_no_repr() -> None:
    node: Node = client_node()
    end = client_end(node=node)
    assert end.own is not None and "Key" not in repr(end.own)

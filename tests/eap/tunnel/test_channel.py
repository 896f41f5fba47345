"""TLS on octets, without EAP around it."""

import pytest

from ikeway.auth.path import Role
from ikeway.eap.errors import TlsFailed
from ikeway.eap.packet import EapType
from ikeway.eap.tunnel.alerts import explain
from ikeway.eap.tunnel.channel import MAX_TOTAL, Channel, TlsVersion
from ikeway.eap.tunnel.keys import derive
from ikeway.errors import IkewayError, Side
from tests.auth.pki import NOW
from tests.eap.tunnel.parties import SERVER, VERSIONS, client_end, client_node, server_end, trust


def connect(client: Channel, server: Channel) -> None:
    for _ in range(6):
        server.feed(client.output())
        client.feed(server.output())


def pair(version: TlsVersion | None = None) -> tuple[Channel, Channel]:
    client, server = client_end(version).open(NOW), server_end().open(NOW)
    connect(client, server)
    return client, server


def test_the_newest_version_is_taken() -> None:
    client, server = pair()
    assert client.version == server.version == TlsVersion.TLS_1_3
    assert client.is_tls13 and client.established and server.established


@pytest.mark.parametrize("version", VERSIONS)
def test_plaintext_both_ways_and_exported_keys(version: TlsVersion) -> None:
    client, server = pair(version)
    client.write(b"hello")
    server.feed(client.output())
    assert server.read() == b"hello" and server.read() == b""
    assert client.export(b"a label", 32, b"x") == server.export(b"a label", 32, b"x")
    assert client.export(b"a label", 32, b"x") != client.export(b"another label", 32, b"x")
    for method in (EapType.TLS, EapType.TTLS, EapType.PEAP):
        assert derive(client, method) == derive(server, method)
        assert len(derive(client, method).material) == 128
    labels = {derive(client, method).msk for method in (EapType.TLS, EapType.TTLS, EapType.PEAP)}
    assert len(labels) == (3 if client.is_tls13 else 2)  # with TLS 1.2 PEAP has the label of EAP-TLS


def test_keys_of_tls_1_2_are_those_of_rfc_5216() -> None:
    """TLS-PRF-128 over the master secret and both randoms, computed here by hand from SHA-256 or SHA-384."""
    import hashlib
    import hmac

    client, _ = pair(TlsVersion.TLS_1_2)
    connection = client._connection
    digest = hashlib.sha384 if "SHA384" in (connection.get_cipher_name() or "") else hashlib.sha256
    secret, seed = connection.master_key(), b"client EAP encryption"
    seed += (connection.client_random() or b"") + (connection.server_random() or b"")
    assert secret is not None
    block, material = seed, b""
    while len(material) < 128:
        block = hmac.digest(secret, block, digest)
        material += hmac.digest(secret, block + seed, digest)
    assert derive(client, EapType.TLS).material == material[:128]


def test_a_certificate_of_the_client_is_judged_by_the_server() -> None:
    client = client_end(node=client_node()).open(NOW)
    server = server_end(judge=trust(Role.INITIATOR)).open(NOW)
    connect(client, server)
    assert server.peer_chain[0] == client_node().certificate
    assert client.peer_chain and not server.resumed


def test_a_tunnel_that_is_closed() -> None:
    client, server = pair()
    server._connection.shutdown()
    with pytest.raises(TlsFailed, match="closed"):
        client.feed(server.output())


def test_octets_without_an_end() -> None:
    client, server = pair()
    for _ in range(MAX_TOTAL // 60000):
        server.write(bytes(60000))
        client.feed(server.output())
        assert client.read()
    server.write(bytes(60000))
    with pytest.raises(TlsFailed, match="end"):
        client.feed(server.output())


def test_records_without_an_end() -> None:
    client, server = pair()
    for _ in range(300):
        server.write(b"x")
    with pytest.raises(TlsFailed, match="records"):
        client.feed(server.output())


def test_records_that_were_changed() -> None:
    client, server = pair()
    server.write(b"hello")
    octets = bytearray(server.output())
    octets[-1] ^= 1
    with pytest.raises(TlsFailed):
        client.feed(bytes(octets))


def test_no_keys_before_tls_is_up() -> None:
    with pytest.raises(TlsFailed):
        client_end().open(NOW).export(b"a label", 32)


@pytest.mark.parametrize(
    ("reasons", "words"),
    [
        (["tlsv1 alert unknown ca"], "does not trust the CA of ours"),
        (["ssl/tls alert bad certificate"], "finds ours wrong"),
        (["sslv3 alert certificate expired"], "expired"),
        (["tlsv13 alert certificate required"], "got none"),
        (["tlsv1 alert something new"], "broke TLS off"),
        (["no shared cipher"], "no cipher in common"),
        (["a reason nobody knows"], "TLS broke off here"),
        ([], "gave no reason"),
    ],
)
def test_alerts_in_words(reasons: list[str], words: str) -> None:
    error = explain(reasons, own="ours")
    assert isinstance(error, IkewayError) and words in error.reason
    assert error.side in (Side.BOTH, Side.PEER)


def test_a_server_by_another_name_is_refused_before_anything_is_sent() -> None:
    client = client_end(judge=trust(Role.RESPONDER, "other." + SERVER)).open(NOW)
    server = server_end().open(NOW)
    server.feed(client.output())
    with pytest.raises(IkewayError, match="somebody else"):
        client.feed(server.output())
    assert not client.established
    with pytest.raises(TlsFailed):
        client.export(b"a label", 8)

"""The library: what it issues is what our trust store, openssl and strongSwan's pki accept."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ikeway.auth.certificate import CertificateCredential, CertificatePolicy, Role, TrustStore
from ikeway.auth.errors import CertificateError, Revoked
from ikeway.auth.identity import Identity
from ikeway.auth.parse import parse_pkcs12, parse_private_key
from ikeway.errors import ConfigError
from ikeway.pki import (
    Authority,
    KeyKind,
    Revocation,
    describe_key,
    encode_certificates,
    encode_private_key,
    export_pkcs12,
    generate_key,
)

# Real time: openssl and pki judge by the clock.
NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("Test CA", generate_key(KeyKind.ECDSA_P256), NOW)


@pytest.mark.parametrize("kind", list(KeyKind))
def test_every_kind_of_key_as_ca_and_as_gateway(kind: KeyKind) -> None:
    key = generate_key(kind)
    own = Authority.create("C=CH, O=Example, CN=Test CA", key, NOW)
    certificate = own.issue_gateway(["vpn.example.org"], key.public_key(), NOW)
    trust = TrustStore((own.certificate,), (), (), CertificatePolicy(require_server_eku=True))
    trust.verify([certificate], Identity.parse("vpn.example.org"), NOW, Role.RESPONDER)
    assert describe_key(key.public_key()).split()[0].lower() in str(kind)
    assert parse_private_key(encode_private_key(key)).public_key() == key.public_key()
    assert parse_private_key(encode_private_key(key, b"x"), b"x").public_key() == key.public_key()


def test_gateways(authority: Authority) -> None:
    key = generate_key(KeyKind.ECDSA_P256)
    names = ["vpn.example.org", "vpn2.example.org", "192.0.2.1", "2001:db8::1"]
    certificate = authority.issue_gateway(names, key.public_key(), NOW, days=90)
    trust = TrustStore((authority.certificate,))
    for name in names:
        trust.verify([certificate], Identity.parse(name), NOW, Role.RESPONDER)
    assert certificate.not_valid_after_utc == NOW + timedelta(days=90)
    assert certificate.not_valid_before_utc <= NOW - timedelta(minutes=59)
    assert CertificateCredential((certificate,), key).identity == Identity.parse("vpn.example.org")


@pytest.mark.parametrize(
    ("text", "proves"),
    [
        ("alice@example.org", "alice@example.org"),
        ("laptop7", "laptop7"),
        ("10.0.0.7", "10.0.0.7"),
        ("C=CH, O=Example, CN=alice", "c=ch, o=example, cn=alice"),
        ("x" * 70 + ".example.org", "x" * 70 + ".example.org"),
    ],
)
def test_clients(authority: Authority, text: str, proves: str) -> None:
    certificate = authority.issue_client(text, generate_key(KeyKind.ED25519).public_key(), NOW)
    trust = TrustStore((authority.certificate,))
    trust.verify([certificate], Identity.parse(proves), NOW, Role.INITIATOR)
    with pytest.raises(CertificateError):  # a client cannot stand in for the gateway
        policy = CertificatePolicy(require_server_eku=True)
        gateway = TrustStore((authority.certificate,), (), (), policy)
        gateway.verify([certificate], Identity.parse("vpn.example.org"), NOW, Role.RESPONDER)


def test_a_subject_of_ones_own(authority: Authority) -> None:
    key = generate_key(KeyKind.ECDSA_P256).public_key()
    certificate = authority.issue_client("alice@example.org", key, NOW, subject="O=Example, OU=Sales, CN=Alice")
    trust = TrustStore((authority.certificate,))
    for text in ("alice@example.org", "O=Example, OU=Sales, CN=Alice"):
        trust.verify([certificate], Identity.parse(text), NOW, Role.INITIATOR)


@pytest.mark.parametrize(
    ("names", "subject"),
    [
        ([], ""),
        (["alice@example.org"], ""),
        (["keyid:x"], ""),
        (["vpn.example.org"], "C=Switzerland, CN=x"),
        (["vpn.example.org"], "CN="),
        (["vpn.example.org"], "CN=#0c0161"),
        (["vpn.example.org"], "CN=" + "x" * 65),
        (["dns:gräte.example.org"], ""),
        (["*.example.org"], ""),
    ],
)
def test_names_that_cannot_be(authority: Authority, names: list[str], subject: str) -> None:
    with pytest.raises(ConfigError) as caught:
        key = generate_key(KeyKind.ECDSA_P256).public_key()
        authority.issue_gateway(names, key, NOW, subject=subject)
    assert caught.value.expected


def test_nothing_outlives_its_ca(authority: Authority) -> None:
    key = generate_key(KeyKind.ECDSA_P256).public_key()
    with pytest.raises(ConfigError) as caught:
        authority.issue_client("alice", key, NOW, days=3651)
    assert caught.value.expected == "at most 3650 days"
    with pytest.raises(ConfigError):
        authority.issue_client("alice", key, NOW, days=0)


def test_a_ca_of_two_halves_that_do_not_belong_together(authority: Authority) -> None:
    with pytest.raises(ConfigError, match="does not belong"):
        Authority(authority.certificate, generate_key(KeyKind.ECDSA_P256))
    assert "private_key" not in repr(authority)


def test_no_ca_below_this_one(authority: Authority) -> None:
    """Path length 0: who gets hold of a client's key cannot make certificates, nor a CA."""
    basic = authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical and basic.value.ca and basic.value.path_length == 0


def test_revocation(authority: Authority) -> None:
    key = generate_key(KeyKind.ECDSA_P256).public_key()
    alice, bob = (authority.issue_client(name, key, NOW) for name in ("alice", "bob"))
    crl = authority.revocation_list([Revocation(alice.serial_number, NOW, "keyCompromise")], 7, NOW, days=3)
    trust = TrustStore((authority.certificate,), (crl,), (), CertificatePolicy(require_crl=True))
    with pytest.raises(Revoked, match="keyCompromise"):
        trust.verify([alice], None, NOW, Role.INITIATOR)
    trust.verify([bob], None, NOW, Role.INITIATOR)
    assert crl.next_update_utc == NOW + timedelta(days=3)
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 7


@pytest.mark.parametrize("legacy", [False, True])
def test_pkcs12(authority: Authority, legacy: bool, tmp_path: Path) -> None:
    key = generate_key(KeyKind.RSA_2048)
    certificate = authority.issue_client("alice", key.public_key(), NOW)
    octets = export_pkcs12("alice", key, certificate, [authority.certificate], b"secret", legacy=legacy)
    bundle = parse_pkcs12(octets, b"secret")
    assert bundle.chain == (certificate,)
    assert bundle.authorities == (authority.certificate,)
    assert bundle.private_key.public_key() == key.public_key()
    (tmp_path / "a.p12").write_bytes(octets)
    command = ["openssl", "pkcs12", "-in", "a.p12", "-passin", "pass:secret", "-nodes", "-info"]
    result = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert ("3-KeyTripleDES" in result.stderr) is legacy
    assert ("AES-256-CBC" in result.stderr) is not legacy
    with pytest.raises(ConfigError):
        export_pkcs12("alice", key, certificate, [], b"")


@pytest.mark.parametrize("kind", [KeyKind.RSA_2048, KeyKind.ECDSA_P384, KeyKind.ED25519])
def test_openssl_agrees(kind: KeyKind, tmp_path: Path) -> None:
    key = generate_key(kind)
    own = Authority.create("C=CH, O=Example, CN=CA", key, NOW)
    gateway = own.issue_gateway(["vpn.example.org", "192.0.2.1"], key.public_key(), NOW)
    client = own.issue_client("alice@example.org", key.public_key(), NOW)
    crl = own.revocation_list([Revocation(client.serial_number, NOW)], 1, NOW)
    (tmp_path / "ca.pem").write_bytes(encode_certificates(own.certificate))
    (tmp_path / "ca-crl.pem").write_bytes(encode_certificates(own.certificate) + crl.public_bytes(Encoding.PEM))
    (tmp_path / "gateway.pem").write_bytes(encode_certificates(gateway))
    (tmp_path / "client.pem").write_bytes(encode_certificates(client))

    def verify(*arguments: str) -> int:
        command = ["openssl", "verify", "-x509_strict", "-CAfile", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode

    assert verify("ca.pem", "-purpose", "sslserver", "-verify_hostname", "vpn.example.org", "gateway.pem") == 0
    assert verify("ca.pem", "-purpose", "sslserver", "-verify_ip", "192.0.2.1", "gateway.pem") == 0
    assert verify("ca.pem", "-purpose", "sslclient", "-verify_email", "alice@example.org", "client.pem") == 0
    assert verify("ca.pem", "-purpose", "sslserver", "client.pem") != 0
    assert verify("ca-crl.pem", "-crl_check", "gateway.pem") == 0
    assert verify("ca-crl.pem", "-crl_check", "client.pem") != 0


@pytest.mark.skipif(shutil.which("pki") is None, reason="needs strongSwan's pki")
def test_strongswan_agrees(authority: Authority, tmp_path: Path) -> None:
    key = generate_key(KeyKind.ECDSA_P256)
    gateway = authority.issue_gateway(["vpn.example.org"], key.public_key(), NOW)
    (tmp_path / "ca.pem").write_bytes(encode_certificates(authority.certificate))
    (tmp_path / "gateway.pem").write_bytes(encode_certificates(gateway))
    verify = ["pki", "--verify", "--in", "gateway.pem", "--cacert", "ca.pem"]
    subprocess.run(verify, cwd=tmp_path, check=True, capture_output=True)
    shown = subprocess.run(["pki", "--print", "--in", "gateway.pem"], cwd=tmp_path, check=True, capture_output=True)
    assert b"serverAuth" in shown.stdout
    assert b"ikeIntermediate" in shown.stdout

"""Our own credentials, CERT and CERTREQ payloads, and what is read from files' octets."""

from __future__ import annotations

import subprocess
import warnings
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs7,
    pkcs12,
)
from hypothesis import given
from hypothesis import strategies as st

from ikeway.auth.binding import carried_identities, spki_hash
from ikeway.auth.certificate import (
    CertificateCredential,
    Role,
    TrustStore,
    decode_certificates,
    parse_certificates,
    parse_crls,
    parse_pkcs12,
    parse_private_key,
    select_credential,
)
from ikeway.auth.der import encode
from ikeway.auth.errors import MalformedCertificate, UnsupportedCertificateEncoding
from ikeway.auth.identity import Identity
from ikeway.auth.parse import PasswordNeeded, is_pkcs12
from ikeway.errors import AuthenticationFailed, ConfigError
from ikeway.wire.payloads import Certificate, CertificateRequest
from ikeway.wire.registry import CertificateEncoding as C
from ikeway.wire.registry import IdentificationType
from tests.auth.pki import NOW, Node, new_key, root


@pytest.fixture(scope="module")
def ca() -> Node:
    return root()


@pytest.fixture(scope="module")
def sub(ca: Node) -> Node:
    return ca.issue("sub", ca=True)


@pytest.fixture(scope="module")
def leaf(sub: Node) -> Node:
    return sub.issue("vpn", alternatives=("dns:VPN.example.org",))


def der(node: Node) -> bytes:
    return node.certificate.public_bytes(Encoding.DER)


def pem(node: Node) -> bytes:
    return node.certificate.public_bytes(Encoding.PEM)


def test_what_is_sent(ca: Node, sub: Node, leaf: Node) -> None:
    """Own first, then intermediates; never the root, which the peer must have by itself."""
    own = CertificateCredential((leaf.certificate, sub.certificate, ca.certificate), leaf.key)
    assert own.payloads == (Certificate(C.X509_SIGNATURE, der(leaf)), Certificate(C.X509_SIGNATURE, der(sub)))
    assert decode_certificates(own.payloads) == (leaf.certificate, sub.certificate)
    alone = CertificateCredential((ca.certificate,), ca.key)
    assert len(alone.payloads) == 1


def test_a_key_that_does_not_belong(ca: Node, leaf: Node) -> None:
    with pytest.raises(ConfigError, match="does not belong"):
        CertificateCredential((leaf.certificate,), ca.key)
    with pytest.raises(ConfigError):
        CertificateCredential((), ca.key)


def test_the_key_is_not_shown(leaf: Node) -> None:
    assert "key" not in repr(CertificateCredential((leaf.certificate,), leaf.key)).lower()


def test_default_identity(leaf: Node) -> None:
    own = CertificateCredential((leaf.certificate,), leaf.key)
    assert own.identity == carried_identities(leaf.certificate)[1]  # the alternative name that stands first
    plain = root("plain")
    subject = Identity(IdentificationType.ID_DER_ASN1_DN, plain.subject.public_bytes())
    assert CertificateCredential((plain.certificate,), plain.key).identity == subject
    nameless = root("", subject=x509.Name([]), alternatives=("email:a@b",))
    assert CertificateCredential((nameless.certificate,), nameless.key).identity == Identity.parse("a@b")
    nothing = root("", subject=x509.Name([]))
    with pytest.raises(ConfigError):
        _ = CertificateCredential((nothing.certificate,), nothing.key).identity


def test_identities_are_spelled_as_in_the_certificate(leaf: Node) -> None:
    own = CertificateCredential((leaf.certificate,), leaf.key)
    assert own.spelled(Identity.parse("vpn.example.org")).value == b"VPN.example.org"
    assert own.spelled(Identity.parse("o=example, cn=VPN")) == carried_identities(leaf.certificate)[0]
    assert own.spelled(Identity.parse("other")) == Identity.parse("other")


def test_certificate_requests(ca: Node, sub: Node, leaf: Node) -> None:
    store = TrustStore((ca.certificate, sub.certificate, ca.certificate))
    assert store.authorities == spki_hash(ca.certificate) + spki_hash(sub.certificate)
    assert store.request == CertificateRequest(C.X509_SIGNATURE, store.authorities)
    own = CertificateCredential((leaf.certificate, sub.certificate), leaf.key)
    other = root("other", ca=None)
    strange = CertificateCredential((other.certificate,), other.key)
    assert own.is_wanted_by(store.authorities)
    assert own.is_wanted_by(b"")
    assert not strange.is_wanted_by(store.authorities)
    assert not strange.is_wanted_by(store.authorities + b"odd")
    assert select_credential([strange, own], store.authorities) is own
    assert select_credential([strange, own], b"") is strange
    assert select_credential([strange], store.authorities) is strange


@pytest.mark.parametrize("encoding", [C.HASH_AND_URL_X509, C.HASH_AND_URL_BUNDLE])
def test_hash_and_url_is_refused_politely(encoding: C) -> None:
    with pytest.raises(UnsupportedCertificateEncoding) as caught:
        decode_certificates([Certificate(encoding, bytes(20) + b"http://example.org/cert.der")])
    assert "HTTP_CERT_LOOKUP_SUPPORTED" in caught.value.expected
    assert "hash-and-URL" in caught.value.remedy


def test_other_encodings(leaf: Node) -> None:
    with pytest.raises(UnsupportedCertificateEncoding, match="not taken"):
        decode_certificates([Certificate(C(1), b"x")])
    good = Certificate(C.X509_SIGNATURE, der(leaf))
    assert decode_certificates([Certificate(C(7), b"a CRL"), good]) == (leaf.certificate,)
    assert decode_certificates([]) == ()


def test_bad_certificates_on_the_wire(leaf: Node) -> None:
    good = Certificate(C.X509_SIGNATURE, der(leaf))
    with pytest.raises(MalformedCertificate):
        decode_certificates([Certificate(C.X509_SIGNATURE, der(leaf)[:-1])])
    with pytest.raises(MalformedCertificate, match="more or larger"):
        decode_certificates([good] * 17)
    with pytest.raises(MalformedCertificate, match="more or larger"):
        decode_certificates([Certificate(C.X509_SIGNATURE, bytes(40000))])


def mutate(data: st.DataObject, octets: bytes) -> bytes:
    changed = bytearray(octets)
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    return bytes(changed)


@given(st.data(), st.booleans())
def test_mutated_certificates_never_raise_anything_else(data: st.DataObject, resign: bool) -> None:
    """Any octets in CERT, also signed ones: a typed error, or a certificate that a trust store can judge."""
    if resign:
        body = mutate(data, TEMPLATE.tbs_certificate_bytes)
        signature = _ROOT.key.sign(body, ec.ECDSA(hashes.SHA256()))
        octets = encode(0x30, body, bytes.fromhex("300a06082a8648ce3d040302"), encode(3, b"\0", signature))
    else:
        octets = mutate(data, TEMPLATE.public_bytes(Encoding.DER))
    try:
        with warnings.catch_warnings(action="error"):
            chain = decode_certificates([Certificate(C.X509_SIGNATURE, octets)])
            STORE.verify(chain, Identity.parse("vpn.example.org"), NOW, Role.RESPONDER)
    except AuthenticationFailed as error:
        assert error.reason
    else:
        assert resign or chain[0].tbs_certificate_bytes == TEMPLATE.tbs_certificate_bytes


_ROOT = root("Fuzz", permitted=("dns:example.org", "email:example.org", "net:10.0.0.0/8", "org:Example"))
TEMPLATE = _ROOT.issue(
    "vpn",
    ca=False,
    uses=("digital_signature",),
    extended=("1.3.6.1.5.5.7.3.1",),
    alternatives=("dns:vpn.example.org", "email:a@example.org", "ip:10.0.0.1", "dn:x", "uri:https://example.org/"),
).certificate
STORE = TrustStore((_ROOT.certificate,), (_ROOT.crl(_ROOT.certificate),))


def test_parse_certificates(ca: Node, sub: Node, leaf: Node) -> None:
    chain = (leaf.certificate, sub.certificate)
    assert parse_certificates(b"junk in front\n" + pem(leaf) + b"\n# comment\n" + pem(sub)) == chain
    assert parse_certificates(der(leaf)) == (leaf.certificate,)
    for encoding in (Encoding.PEM, Encoding.DER):
        bundle = pkcs7.serialize_certificates(list(chain), encoding)
        assert set(parse_certificates(bundle)) == set(chain)
    key = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert parse_certificates(key + pem(leaf)) == (leaf.certificate,)


@pytest.mark.parametrize(
    "octets", [b"", b"text", b"\x30\x03abc", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_files_without_certificates(octets: bytes) -> None:
    for function in (parse_certificates, parse_crls):
        with pytest.raises(ConfigError) as caught:
            function(octets)
        assert caught.value.expected


def test_a_key_where_a_certificate_is_due(leaf: Node) -> None:
    key = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ConfigError) as caught:
        parse_certificates(key)
    assert caught.value.got == "PRIVATE KEY"
    with pytest.raises(ConfigError) as caught:
        parse_private_key(pem(leaf))
    assert caught.value.got == "CERTIFICATE"


@pytest.mark.parametrize("kind", ["rsa", "p256", "ed25519", "ed448"])
def test_parse_private_keys(kind: str) -> None:
    key = new_key(kind)
    formats = [PrivateFormat.PKCS8]
    if kind in ("rsa", "p256"):
        formats.append(PrivateFormat.TraditionalOpenSSL)
    for encoding in (Encoding.PEM, Encoding.DER):
        for form in formats:
            octets = key.private_bytes(encoding, form, NoEncryption())
            assert parse_private_key(octets).public_key() == key.public_key()
            assert parse_private_key(octets, b"needless").public_key() == key.public_key()
        locked = key.private_bytes(encoding, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
        assert parse_private_key(locked, b"secret").public_key() == key.public_key()
        for wrong in (None, b"wrong"):
            with pytest.raises(PasswordNeeded):
                parse_private_key(locked, wrong)


def test_keys_that_cannot_sign() -> None:
    key = dsa.generate_private_key(1024).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ConfigError, match="cannot sign"):
        parse_private_key(key)
    with pytest.raises(ConfigError):
        parse_private_key(b"nothing")


def test_parse_crls(ca: Node, leaf: Node) -> None:
    crl = ca.crl(leaf.certificate)
    assert parse_crls(crl.public_bytes(Encoding.DER)) == (crl,)
    assert parse_crls(crl.public_bytes(Encoding.PEM) * 2) == (crl, crl)


def test_pkcs12(ca: Node, sub: Node, leaf: Node) -> None:
    others = [sub.certificate, ca.certificate]
    octets = pkcs12.serialize_key_and_certificates(
        b"vpn", leaf.key, leaf.certificate, others, BestAvailableEncryption(b"secret")
    )
    assert is_pkcs12(octets)
    assert not is_pkcs12(der(leaf))
    bundle = parse_pkcs12(octets, b"secret")
    assert bundle.chain == (leaf.certificate, sub.certificate)
    assert bundle.authorities == (ca.certificate,)
    assert "private_key" not in repr(bundle)
    CertificateCredential(bundle.chain, bundle.private_key)
    for wrong in (None, b"wrong"):
        with pytest.raises(PasswordNeeded):
            parse_pkcs12(octets, wrong)
    with pytest.raises(ConfigError, match="not a PKCS"):
        parse_pkcs12(pem(leaf))
    without_key = pkcs12.serialize_key_and_certificates(None, None, None, others, NoEncryption())
    with pytest.raises(ConfigError, match="no private key"):
        parse_pkcs12(without_key)


def test_files_made_by_openssl(tmp_path: Path) -> None:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "key.pem",
            "-out", "cert.pem", "-subj", "/C=CH/O=Example, Inc./CN=vpn", "-addext", "subjectAltName=DNS:vpn")  # fmt: skip
    openssl("pkcs12", "-export", "-inkey", "key.pem", "-in", "cert.pem", "-out", "a.p12", "-passout", "pass:x")
    (certificate,) = parse_certificates((tmp_path / "cert.pem").read_bytes())
    key = parse_private_key((tmp_path / "key.pem").read_bytes())
    own = CertificateCredential((certificate,), key)
    subject = own.spelled(Identity.parse('C=CH, O="Example, Inc.", CN=vpn'))
    assert carried_identities(certificate) == [subject, own.identity]
    assert parse_pkcs12((tmp_path / "a.p12").read_bytes(), b"x").chain == (certificate,)

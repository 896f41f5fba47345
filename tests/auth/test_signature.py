"""AUTH by certificate: which method, which scheme, and every way it can be wrong."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from ikeway.auth.certificate import CertificateCredential
from ikeway.auth.errors import BadSignature, MethodNotAllowed, NoCommonSignature
from ikeway.auth.parse import PublicKey
from ikeway.auth.signature import SUPPORTED_HASHES, plan_signature, sign_auth, verify_auth
from ikeway.crypto.signature import SignatureScheme
from ikeway.errors import AuthenticationFailed
from ikeway.wire.payloads import Authentication
from ikeway.wire.registry import AuthenticationMethod as M
from ikeway.wire.registry import HashAlgorithm as H
from tests.auth.pki import new_key, root

OCTETS = b"what the initiator signs" * 40
ALL = frozenset(SUPPORTED_HASHES)
KINDS = ["rsa", "p256", "p384", "p521", "bp256", "ed25519", "ed448"]


def credential(kind: str, **options: Any) -> CertificateCredential:
    node = root(key=new_key(kind))
    return CertificateCredential((node.certificate,), node.key, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_rfc7427(kind: str) -> None:
    own = credential(kind)
    authentication = sign_auth(own, ALL, OCTETS)
    assert authentication.method == M.DIGITAL_SIGNATURE
    verify_auth(own.public_key, authentication, OCTETS)
    with pytest.raises(BadSignature):
        verify_auth(own.public_key, authentication, OCTETS + b"!")
    with pytest.raises(BadSignature):
        verify_auth(credential(kind if kind != "rsa" else "p256").public_key, authentication, OCTETS)


@pytest.mark.parametrize(
    ("kind", "hashes", "name"),
    [
        ("rsa", ALL, "RSA PKCS#1 v1.5 with SHA2_256"),
        ("rsa", {H.SHA2_512}, "RSA PKCS#1 v1.5 with SHA2_512"),
        ("p256", ALL, "ECDSA with SHA2_256"),
        ("p384", ALL, "ECDSA with SHA2_384"),
        ("p521", ALL, "ECDSA with SHA2_512"),
        ("p256", {H.SHA2_384}, "ECDSA with SHA2_384"),
        ("ed25519", {H.IDENTITY}, "Ed25519"),
        ("ed448", ALL, "Ed448"),
    ],
)
def test_choice_of_scheme(kind: str, hashes: Any, name: str) -> None:
    assert plan_signature(credential(kind), frozenset(hashes)).scheme.name == name


def test_pss_when_asked_for() -> None:
    own = credential("rsa", rsa_pss=True)
    plan = plan_signature(own, ALL)
    assert plan.scheme.is_pss
    verify_auth(own.public_key, sign_auth(own, ALL, OCTETS), OCTETS)


@pytest.mark.parametrize(
    ("kind", "method", "size"),
    [
        ("rsa", M.RSA_DIGITAL_SIGNATURE, 256),
        ("p256", M.ECDSA_SHA256_P256, 64),
        ("p384", M.ECDSA_SHA384_P384, 96),
        ("p521", M.ECDSA_SHA512_P521, 132),
    ],
)
@pytest.mark.parametrize("announced", [None, frozenset({H.SHA1}), frozenset({H(77)})])
def test_classic_methods(kind: str, method: M, size: int, announced: Any) -> None:
    own = credential(kind)
    authentication = sign_auth(own, announced, OCTETS)
    assert authentication.method == method
    assert len(authentication.value) == size
    verify_auth(own.public_key, authentication, OCTETS)
    with pytest.raises(BadSignature):
        verify_auth(own.public_key, authentication, OCTETS[1:])
    with pytest.raises(BadSignature):
        verify_auth(own.public_key, Authentication(method, authentication.value[:-1]), OCTETS)


@pytest.mark.parametrize("kind", ["ed25519", "ed448", "bp256"])
def test_keys_without_a_classic_method(kind: str) -> None:
    with pytest.raises(NoCommonSignature) as caught:
        sign_auth(credential(kind), None, OCTETS)
    assert "RFC 7427" in caught.value.got
    if kind != "bp256":
        with pytest.raises(NoCommonSignature):
            sign_auth(credential(kind), frozenset({H.SHA2_256}), OCTETS)


@pytest.mark.parametrize("digest", [hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
def test_method_1_with_the_hash_that_the_peer_likes(digest: Any) -> None:
    key = new_key("rsa")
    signature = key.sign(OCTETS, padding.PKCS1v15(), digest)
    verify_auth(key.public_key(), Authentication(M.RSA_DIGITAL_SIGNATURE, signature), OCTETS)


def test_sha1_is_not_taken_in_rfc7427() -> None:
    key = new_key("rsa")
    identifier = bytes.fromhex("300d06092a864886f70d0101050500")
    signature = key.sign(OCTETS, padding.PKCS1v15(), hashes.SHA1())
    with pytest.raises(BadSignature, match="not one that is taken"):
        value = bytes((len(identifier),)) + identifier + signature
        verify_auth(key.public_key(), Authentication(M.DIGITAL_SIGNATURE, value), OCTETS)


def test_rsa_identifier_without_parameters() -> None:
    """RFC 4055 section 5: accepted with NULL and without."""
    key = new_key("rsa")
    identifier = bytes.fromhex("300b06092a864886f70d01010b")
    signature = key.sign(OCTETS, padding.PKCS1v15(), hashes.SHA256())
    value = bytes((len(identifier),)) + identifier + signature
    verify_auth(key.public_key(), Authentication(M.DIGITAL_SIGNATURE, value), OCTETS)


def test_the_scheme_must_fit_the_key() -> None:
    authentication = sign_auth(credential("p256"), ALL, OCTETS)
    with pytest.raises(BadSignature, match="Ed25519"):
        verify_auth(credential("ed25519").public_key, authentication, OCTETS)
    classic = sign_auth(credential("p256"), None, OCTETS)
    with pytest.raises(BadSignature):
        verify_auth(credential("p384").public_key, classic, OCTETS)


@pytest.mark.parametrize("method", [M.SHARED_KEY_MIC, M.NULL, M.DSS, M(99)])
def test_other_methods_prove_no_certificate(method: M) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        verify_auth(credential("p256").public_key, Authentication(method, b"x" * 32), OCTETS)
    assert str(int(method)) in caught.value.got


def test_a_key_that_is_none() -> None:
    with pytest.raises(MethodNotAllowed):
        verify_auth(object(), Authentication(M.DIGITAL_SIGNATURE, b"x"), OCTETS)


SOME_KEYS = [new_key(kind).public_key() for kind in KINDS]


@given(
    st.sampled_from(SOME_KEYS),
    st.sampled_from([M.RSA_DIGITAL_SIGNATURE, *list(M)[8:], M.DIGITAL_SIGNATURE]),
    st.binary(max_size=300)
    | st.builds(lambda scheme, rest: bytes((len(scheme),)) + scheme + rest, st.binary(max_size=20), st.binary()),
)
def test_hostile_authentications_raise_typed_errors(key: PublicKey, method: M, value: bytes) -> None:
    with pytest.raises(AuthenticationFailed):
        verify_auth(key, Authentication(method, value), OCTETS)


def test_overlong_signatures_are_not_even_tried() -> None:
    with pytest.raises(BadSignature, match="longer"):
        verify_auth(SOME_KEYS[0], Authentication(M.RSA_DIGITAL_SIGNATURE, bytes(5000)), OCTETS)


class Token:
    """A signer that keeps its key to itself."""

    def __init__(self, key: Any) -> None:
        self._key = key
        self.signed: list[SignatureScheme] = []

    @property
    def public_key(self) -> PublicKey:
        return self._key.public_key()  # type: ignore[no-any-return]

    def sign(self, scheme: SignatureScheme, octets: bytes) -> bytes:
        from ikeway.crypto.signature import sign

        self.signed.append(scheme)
        return sign(self._key, scheme, octets)


def test_a_signer_that_is_no_key_in_memory() -> None:
    node = root()
    token = Token(node.key)
    own = CertificateCredential((node.certificate,), token)
    verify_auth(own.public_key, sign_auth(own, ALL, OCTETS), OCTETS)
    assert [scheme.name for scheme in token.signed] == ["ECDSA with SHA2_256"]
    # In two steps, for a token that answers later.
    plan = plan_signature(own, ALL)
    verify_auth(own.public_key, plan.finish(token.sign(plan.scheme, OCTETS)), OCTETS)


@pytest.mark.parametrize("kind", ["rsa", "p256", "ed25519"])
def test_openssl_agrees(kind: str, tmp_path: Path) -> None:
    own = credential(kind)
    authentication = sign_auth(own, ALL, OCTETS)
    signature = authentication.value[1 + authentication.value[0] :]
    files = {"key.pem": own.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)}
    for file_name, content in {**files, "octets": OCTETS, "signature": signature}.items():
        (tmp_path / file_name).write_bytes(content)
    digest = [] if kind == "ed25519" else ["-digest", "sha256"]
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem", "-sigfile", "signature", "-in", "octets"]
    subprocess.run([*command, "-rawin", *digest], cwd=tmp_path, check=True, capture_output=True)

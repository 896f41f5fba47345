"""Signatures: what fits which key, what is announced, and what is refused."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ikeway.crypto import signature as s
from ikeway.errors import CryptoError, IntegrityCheckFailed
from ikeway.wire.registry import AuthenticationMethod, HashAlgorithm

KEYS = {
    "rsa2048": rsa.generate_private_key(65537, 2048),
    "rsa1024": rsa.generate_private_key(65537, 1024),
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "p521": ec.generate_private_key(ec.SECP521R1()),
    "brainpool256": ec.generate_private_key(ec.BrainpoolP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "ed448": ed448.Ed448PrivateKey.generate(),
}
ALL_SCHEMES = (*s.SCHEMES, *s.CLASSIC_SCHEMES.values())
CASES = [(name, scheme) for name, key in KEYS.items() for scheme in ALL_SCHEMES if scheme.fits(key)]


@pytest.mark.parametrize(("name", "scheme"), CASES, ids=str)
def test_sign_and_verify(name, scheme):
    key = KEYS[name]
    public = key.public_key()
    signature = s.sign(key, scheme, b"octets")
    s.verify(public, scheme, signature, b"octets")
    for wrong_signature, octets in (
        (signature, b"other octets"),
        (bytes((*signature[:-1], signature[-1] ^ 1)), b"octets"),
        (signature[:-1], b"octets"),
        (signature + b"\0", b"octets"),
        (b"", b"octets"),
        (bytes(len(signature)), b"octets"),
    ):
        with pytest.raises(IntegrityCheckFailed, match=r"the signature \(.*\) is wrong"):
            s.verify(public, scheme, wrong_signature, octets)


@pytest.mark.parametrize("name", KEYS)
def test_schemes_that_do_not_fit_are_refused(name):
    key = KEYS[name]
    for scheme in ALL_SCHEMES:
        assert scheme.fits(key) == scheme.fits(key.public_key())
        if not scheme.fits(key):
            with pytest.raises(CryptoError, match="cannot be used for"):
                s.sign(key, scheme, b"octets")
            with pytest.raises(CryptoError, match="cannot be used for") as caught:
                s.verify(key.public_key(), scheme, b"signature", b"octets")
            assert not isinstance(caught.value, IntegrityCheckFailed)


def test_preferences():
    first = {name: s.schemes_for(key)[0] for name, key in KEYS.items()}
    assert first == {
        "rsa2048": s.RSA_PSS_SHA256,
        "rsa1024": s.RSA_PSS_SHA256,
        "p256": s.ECDSA_SHA256,
        "p384": s.ECDSA_SHA384,
        "p521": s.ECDSA_SHA512,
        "brainpool256": s.ECDSA_SHA256,
        "ed25519": s.ED25519,
        "ed448": s.ED448,
    }
    assert s.schemes_for(KEYS["ed25519"]) == (s.ED25519,)
    assert set(s.schemes_for(KEYS["p384"])) == {s.ECDSA_SHA256, s.ECDSA_SHA384, s.ECDSA_SHA512}
    assert s.schemes_for(KEYS["p384"].public_key()) == s.schemes_for(KEYS["p384"])
    # A key of 1024 bits has no room for two SHA-512 hashes.
    assert s.RSA_PSS_SHA512 not in s.schemes_for(KEYS["rsa1024"])


def test_the_smallest_rsa_key():
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

    tiny = RSAPublicNumbers(65537, (1 << 1022) | 1).public_key()
    assert s.schemes_for(tiny) == ()


def test_no_scheme_with_sha1_is_announced():
    assert all(scheme.hash != HashAlgorithm.SHA1 for scheme in s.SCHEMES)
    assert s.scheme_of_identifier(s.RSA_PKCS1_SHA1.algorithm_identifier) is None
    assert s.scheme_of_identifier(bytes.fromhex("300906072a8648ce3d0401")) is None  # ecdsa-with-SHA1
    assert s.scheme_of_identifier(b"") is None


def test_classic_ecdsa_has_its_curve_and_its_raw_form():
    """RFC 4754 section 7: r | s, each as long as the curve's order."""
    for method, name, octets in (
        (AuthenticationMethod.ECDSA_SHA256_P256, "p256", 32),
        (AuthenticationMethod.ECDSA_SHA384_P384, "p384", 48),
        (AuthenticationMethod.ECDSA_SHA512_P521, "p521", 66),
    ):
        scheme = s.CLASSIC_SCHEMES[method]
        key = KEYS[name]
        signature = s.sign(key, scheme, b"octets")
        assert len(signature) == 2 * octets
        r, t = (int.from_bytes(half, "big") for half in (signature[:octets], signature[octets:]))
        algorithm = {32: hashes.SHA256(), 48: hashes.SHA384(), 66: hashes.SHA512()}[octets]
        key.public_key().verify(encode_dss_signature(r, t), b"octets", ec.ECDSA(algorithm))
        assert [other for other in KEYS if scheme.fits(KEYS[other])] == [name]


def test_classic_rsa_is_sha1():
    scheme = s.CLASSIC_SCHEMES[AuthenticationMethod.RSA_DIGITAL_SIGNATURE]
    signature = s.sign(KEYS["rsa2048"], scheme, b"octets")
    KEYS["rsa2048"].public_key().verify(signature, b"octets", padding.PKCS1v15(), hashes.SHA1())


def test_all_ways_to_announce_pss():
    """RFC 4055 section 3.1. The long one with trailer is the example of RFC 7427 appendix A.4.3."""
    short = "304106092a864886f70d01010a3034a00f300d06096086480165030402010500"
    assert s.RSA_PSS_SHA256.algorithm_identifier.hex().startswith(short)
    with_trailer = (
        "304606092a864886f70d01010a3039a00f300d06096086480165030402010500"
        "a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120a303020101"
    )
    assert s.scheme_of_identifier(bytes.fromhex(with_trailer)) is s.RSA_PSS_SHA256
    without_nulls = (
        "303d06092a864886f70d01010a3030a00d300b0609608648016503040203"
        "a11a301806092a864886f70d010108300b0609608648016503040203a203020140"
    )
    assert s.scheme_of_identifier(bytes.fromhex(without_nulls)) is s.RSA_PSS_SHA512
    other_salt = with_trailer.replace("a203020120", "a203020114")
    assert s.scheme_of_identifier(bytes.fromhex(other_salt)) is None


@pytest.mark.parametrize("scheme", [scheme for scheme in s.SCHEMES if scheme.is_pss], ids=str)
def test_pss_salt_is_as_long_as_the_hash(scheme):
    algorithm = {"SHA2_256": hashes.SHA256(), "SHA2_384": hashes.SHA384(), "SHA2_512": hashes.SHA512()}[
        scheme.hash.name
    ]
    key = KEYS["rsa2048"]
    key.public_key().verify(
        s.sign(key, scheme, b"octets"),
        b"octets",
        padding.PSS(padding.MGF1(algorithm), algorithm.digest_size),
        algorithm,
    )

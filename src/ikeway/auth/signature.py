"""AUTH made with a private key (RFC 7296 section 3.8, RFC 4754, RFC 7427, RFC 8420).

Method 14 carries the AlgorithmIdentifier of the signature; it is used when the peer has sent the hashes that it takes
(SIGNATURE_HASH_ALGORITHMS). Else the classic methods are used: 1 for RSA with SHA-1, 9 to 11 for ECDSA by curve.
Method 1 is taken and made all the same, since peers without RFC 7427 (Windows, older gateways) have nothing else for
their RSA keys; who uses it warns. A signature lives as long as the log-in: a collision would be needed within seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from cryptography.x509.oid import PublicKeyAlgorithmOID

from ikeway.auth.certificate import CertificateCredential
from ikeway.auth.errors import BadSignature, MethodNotAllowed, NoCommonSignature
from ikeway.auth.parse import PUBLIC_KEY_TYPES, PublicKey
from ikeway.crypto.signature import (
    CLASSIC_SCHEMES,
    RSA_PKCS1_SHA1,
    RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512,
    SignatureScheme,
    scheme_of_identifier,
    schemes_for,
    verify,
)
from ikeway.errors import CryptoError, Side
from ikeway.wire.payloads import Authentication
from ikeway.wire.registry import AuthenticationMethod, HashAlgorithm

# What we announce in SIGNATURE_HASH_ALGORITHMS: in order of numbers, and never SHA-1.
SUPPORTED_HASHES = (
    HashAlgorithm.SHA2_256,
    HashAlgorithm.SHA2_384,
    HashAlgorithm.SHA2_512,
    HashAlgorithm.IDENTITY,
)
# Method 1 means SHA-1, but peers with stronger certificates take the hash of those (RFC 7296 section 3.8).
_HASHES_OF_METHOD_1 = (RSA_PKCS1_SHA1, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512)
_BY_HASH_OF_METHOD_1 = {scheme.hash: scheme for scheme in _HASHES_OF_METHOD_1}
_NULL = b"\x05\x00"
_MAX_SIGNATURE = 4096


@dataclass(frozen=True, slots=True)
class SignaturePlan:
    """How AUTH will be signed; for keys that are not in this process, which sign between the two steps."""

    method: AuthenticationMethod
    scheme: SignatureScheme

    def finish(self, signature: bytes) -> Authentication:
        """Make the AUTH payload around the signature."""
        if self.method != AuthenticationMethod.DIGITAL_SIGNATURE:
            return Authentication(self.method, signature)
        identifier = self.scheme.algorithm_identifier
        return Authentication(self.method, bytes((len(identifier),)) + identifier + signature)


def plan_auth(
    credential: CertificateCredential,
    peer_hashes: frozenset[HashAlgorithm] | None,
    hash_of_method_1: Callable[[], HashAlgorithm] = lambda: HashAlgorithm.SHA1,
) -> SignaturePlan:
    """How to sign; `peer_hashes` None says that the peer sent no SIGNATURE_HASH_ALGORITHMS. Raises NoCommonSignature.

    `hash_of_method_1`: another than the RFC's for RSA without RFC 7427, where a peer is known to want it.
    """
    plan = plan_signature(credential, peer_hashes)
    if plan.method == AuthenticationMethod.RSA_DIGITAL_SIGNATURE:
        return SignaturePlan(plan.method, _BY_HASH_OF_METHOD_1[hash_of_method_1()])
    return plan


def sign_auth(
    credential: CertificateCredential,
    peer_hashes: frozenset[HashAlgorithm] | None,
    octets: bytes,
    hash_of_method_1: Callable[[], HashAlgorithm] = lambda: HashAlgorithm.SHA1,
) -> Authentication:
    """Sign, with a key in this process; see `plan_auth`. Raises NoCommonSignature."""
    plan = plan_auth(credential, peer_hashes, hash_of_method_1)
    return plan.finish(credential.signer.sign(plan.scheme, octets))


@lru_cache(maxsize=256)
def plan_signature(credential: CertificateCredential, peer_hashes: frozenset[HashAlgorithm] | None) -> SignaturePlan:
    """Choose method and scheme; raises NoCommonSignature."""
    if peer_hashes is not None:
        for scheme in _preferred(credential):
            if scheme.hash in peer_hashes:
                return SignaturePlan(AuthenticationMethod.DIGITAL_SIGNATURE, scheme)
    if not _only_pss(credential):
        for method, scheme in CLASSIC_SCHEMES.items():
            if scheme.fits(credential.public_key):
                return SignaturePlan(method, scheme)
    hashes = ", ".join(sorted(known.name for known in peer_hashes or ())) or "no signature hashes (RFC 7427)"
    raise NoCommonSignature(
        "our certificate's key can make no signature that the peer can check",
        expected=", ".join(str(scheme) for scheme in _preferred(credential)),
        got=f"a peer that announces {hashes}",
        side=Side.BOTH,
        remedy="use a certificate with an ECDSA (P-256, P-384, P-521) or RSA key here, or turn on RFC 7427 there",
    )


def _preferred(credential: CertificateCredential) -> list[SignatureScheme]:
    """The key's schemes, the one to use first: for RSA, PKCS #1 unless PSS is asked for or the key is for PSS alone.

    PSS is the better one, but PKCS #1 v1.5 is the one that every peer with RFC 7427 checks.
    """
    schemes = list(schemes_for(credential.public_key))
    if _only_pss(credential):
        return [scheme for scheme in schemes if scheme.is_pss]
    return sorted(schemes, key=lambda scheme: scheme.is_pss != credential.rsa_pss)


def _only_pss(credential: CertificateCredential) -> bool:
    return credential.certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS


def verify_auth(public_key: object, authentication: Authentication, octets: bytes) -> SignatureScheme:
    """Check the peer's AUTH against the key of its certificate; returns how it was made. Raises MethodNotAllowed,
    BadSignature."""
    if not isinstance(public_key, PUBLIC_KEY_TYPES):
        raise _method_not_allowed(authentication, f"a key of type {type(public_key).__name__}")
    if len(authentication.value) > _MAX_SIGNATURE:
        raise _bad_signature("it is longer than any signature", f"{len(authentication.value)} octets")
    if authentication.method == AuthenticationMethod.DIGITAL_SIGNATURE:
        schemes, signature = _decode_digital_signature(authentication.value)
    elif authentication.method == AuthenticationMethod.RSA_DIGITAL_SIGNATURE:
        schemes, signature = _HASHES_OF_METHOD_1, authentication.value
    elif authentication.method in CLASSIC_SCHEMES:
        schemes, signature = (CLASSIC_SCHEMES[authentication.method],), authentication.value
    else:
        raise _method_not_allowed(authentication, "a certificate")
    return _verify_any(public_key, schemes, signature, octets)


def _verify_any(
    public_key: PublicKey, schemes: tuple[SignatureScheme, ...], signature: bytes, octets: bytes
) -> SignatureScheme:
    fitting = [scheme for scheme in schemes if scheme.fits(public_key)]
    if not fitting:
        kind = type(public_key).__name__.removesuffix("PublicKey")
        raise _bad_signature(f"the certificate has a key of type {kind}", f"{schemes[0]}")
    for scheme in fitting:
        try:
            verify(public_key, scheme, signature, octets)
        except CryptoError:
            continue
        return scheme
    raise _bad_signature("it was made with another key, or the messages were changed on the way", f"{fitting[0]}")


def _decode_digital_signature(value: bytes) -> tuple[tuple[SignatureScheme, ...], bytes]:
    """Take apart length, AlgorithmIdentifier and signature (RFC 7427 section 3)."""
    length = value[0] if value else 0
    identifier, signature = value[1 : 1 + length], value[1 + length :]
    if not length or len(identifier) < length or not signature:
        raise _bad_signature("its AlgorithmIdentifier is cut off", f"{len(value)} octets")
    scheme = scheme_of_identifier(identifier)
    if scheme is None and identifier[:1] == b"\x30":
        # RFC 4055 section 5: the NULL parameters of RSA may be left out, and we must accept that.
        body = identifier[2:] + _NULL
        scheme = scheme_of_identifier(bytes((0x30, len(body))) + body) if len(body) < 128 else None
    if scheme is None:
        raise _bad_signature(
            "its algorithm is not one that is taken here", f"AlgorithmIdentifier {identifier[:64].hex()}"
        )
    return (scheme,), signature


def _bad_signature(why: str, got: str) -> BadSignature:
    return BadSignature(
        f"the peer's signature does not prove its certificate: {why}",
        expected="a signature by the key of the certificate over this exchange",
        got=got,
        remedy="on the peer, use the private key that belongs to the certificate that it sends",
    )


def _method_not_allowed(authentication: Authentication, key: str) -> MethodNotAllowed:
    return MethodNotAllowed(
        "the peer authenticates in a way that no certificate can prove",
        expected=f"a signature that fits {key}",
        got=f"{authentication.method.name} ({int(authentication.method)})",
        side=Side.BOTH,
        remedy="set the same authentication on both sides",
    )

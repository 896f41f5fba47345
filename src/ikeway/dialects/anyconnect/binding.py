"""How a client's certificate is proven inside AnyConnect-EAP: a signature over what AUTH of an initiator would cover.

The hash is that of the negotiated PRF: HMAC-SHA2 means the same SHA-2, everything else SHA-1. The value is the signature
and nothing else: neither method nor algorithm is said. ECDSA keys sign as in RFC 4754, by their curve; nobody has said
what Cisco's gateways make of that.
"""

from __future__ import annotations

from typing import Literal

from ikeway.auth.certificate import CertificateCredential
from ikeway.auth.errors import BadSignature
from ikeway.auth.parse import PUBLIC_KEY_TYPES
from ikeway.crypto.signature import (
    CLASSIC_SCHEMES,
    RSA_PKCS1_SHA1,
    RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512,
    SignatureScheme,
    verify,
)
from ikeway.eap.errors import EapFailed
from ikeway.eap.questions import IkeBinding
from ikeway.errors import CryptoError, Side
from ikeway.wire.registry import HashAlgorithm, PseudorandomFunction

HashRule = Literal["prf", "sha1", "sha256", "sha384", "sha512"]

_RULES: dict[HashRule, HashAlgorithm] = {
    "sha1": HashAlgorithm.SHA1,
    "sha256": HashAlgorithm.SHA2_256,
    "sha384": HashAlgorithm.SHA2_384,
    "sha512": HashAlgorithm.SHA2_512,
}
_OF_PRF = {
    PseudorandomFunction.PRF_HMAC_SHA2_256: HashAlgorithm.SHA2_256,
    PseudorandomFunction.PRF_HMAC_SHA2_384: HashAlgorithm.SHA2_384,
    PseudorandomFunction.PRF_HMAC_SHA2_512: HashAlgorithm.SHA2_512,
}
_RSA = {scheme.hash: scheme for scheme in (RSA_PKCS1_SHA1, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512)}
_MAX_SIGNATURE = 4096


def hash_for(prf: PseudorandomFunction, rule: HashRule = "prf") -> HashAlgorithm:
    """The hash to sign with. Raises EapFailed for HMAC-MD5, whose hash is not signed with here."""
    if rule != "prf":
        return _RULES[rule]
    if prf == PseudorandomFunction.PRF_HMAC_MD5:
        raise EapFailed(
            "a signature with MD5, as the rule of AnyConnect wants it with the PRF HMAC-MD5, is not made here",
            expected="a PRF with SHA-2",
            side=Side.BOTH,
            remedy="give both sides an IKE proposal with prfsha256",
        )
    return _OF_PRF.get(prf, HashAlgorithm.SHA1)


def sign(credential: CertificateCredential, binding: IkeBinding, rule: HashRule = "prf") -> bytes:
    """The signature. Raises EapFailed when the key can make none."""
    wanted = hash_for(binding.prf, rule)
    for scheme in _schemes(wanted):
        if scheme.fits(credential.public_key):
            return credential.signer.sign(scheme, binding.octets)
    raise EapFailed(
        "the certificate's key cannot sign for AnyConnect",
        expected="RSA, or ECDSA with P-256, P-384 or P-521",
        got=type(credential.public_key).__name__,
        side=Side.LOCAL,
        remedy="use a certificate with an RSA key",
    )


def check(public_key: object, binding: IkeBinding, signature: bytes, rule: HashRule = "prf") -> None:
    """Verify the client's signature; raises BadSignature."""
    if isinstance(public_key, PUBLIC_KEY_TYPES) and len(signature) <= _MAX_SIGNATURE:
        for scheme in _schemes(hash_for(binding.prf, rule)):
            if scheme.fits(public_key):
                try:
                    verify(public_key, scheme, signature, binding.octets)
                except CryptoError:
                    break
                return
    raise BadSignature(
        "the client's signature inside AnyConnect-EAP does not prove its certificate",
        expected=f"a signature with {hash_for(binding.prf, rule).name} by the certificate's key over this IKE SA",
        got=f"{len(signature)} octets of something else",
        side=Side.PEER,
        remedy="on the client, use the private key that belongs to its certificate; see `signature_hash` here",
    )


def _schemes(wanted: HashAlgorithm) -> tuple[SignatureScheme, ...]:
    ecdsa = tuple(scheme for scheme in CLASSIC_SCHEMES.values() if scheme.curve)
    return (_RSA[wanted], *ecdsa)

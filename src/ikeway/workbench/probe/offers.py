"""What is offered to a gateway to learn what it takes: transforms by the registry, and IKE_SA_INIT requests.

A transform is asked for alone in its type, beside all that is possible in the others. The KE payload is of a method that
is not offered, so a gateway that takes the offer says INVALID_KE_PAYLOAD (RFC 7296 section 1.3) and keeps no state: it
computes nothing for us and no half-open IKE SA stays behind.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import lru_cache

from ikeway.address import Address
from ikeway.auth.signature import SUPPORTED_HASHES
from ikeway.crypto import PrivateKeyExchange, initiate_key_exchange
from ikeway.crypto.support import is_supported
from ikeway.ike.nat import detection_notifies
from ikeway.wire.message import Message
from ikeway.wire.payloads import (
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    Proposal,
    SecurityAssociation,
    Transform,
)
from ikeway.wire.registry import (
    EncryptionAlgorithm,
    ExchangeType,
    IntegrityAlgorithm,
    KeyExchangeMethod,
    NotifyType,
    ProtocolId,
    PseudorandomFunction,
    TransformType,
)

_E, _I, _P, _K, _T = EncryptionAlgorithm, IntegrityAlgorithm, PseudorandomFunction, KeyExchangeMethod, TransformType
_SIZES = (256, 128, 192)

AEADS: tuple[Transform, ...] = (
    *(
        Transform.of(_T.ENCR, algorithm, bits)
        for algorithm in (
            _E.ENCR_AES_GCM_16, _E.ENCR_AES_GCM_12, _E.ENCR_AES_GCM_8,
            _E.ENCR_AES_CCM_16, _E.ENCR_AES_CCM_12, _E.ENCR_AES_CCM_8,
            _E.ENCR_CAMELLIA_CCM_16,
        )
        for bits in _SIZES
    ),
    Transform.of(_T.ENCR, _E.ENCR_CHACHA20_POLY1305),
)  # fmt: skip
CIPHERS: tuple[Transform, ...] = (
    *(
        Transform.of(_T.ENCR, algorithm, bits)
        for algorithm in (_E.ENCR_AES_CBC, _E.ENCR_AES_CTR, _E.ENCR_CAMELLIA_CBC, _E.ENCR_CAMELLIA_CTR)
        for bits in _SIZES
    ),
    *(
        Transform.of(_T.ENCR, algorithm)
        for algorithm in (_E.ENCR_3DES, _E.ENCR_CAST, _E.ENCR_BLOWFISH, _E.ENCR_IDEA, _E.ENCR_DES, _E.ENCR_NULL)
    ),
)
FUNCTIONS: tuple[Transform, ...] = tuple(
    Transform.of(_T.PRF, function)
    for function in (
        _P.PRF_HMAC_SHA2_256, _P.PRF_HMAC_SHA2_384, _P.PRF_HMAC_SHA2_512, _P.PRF_AES128_XCBC, _P.PRF_AES128_CMAC,
        _P.PRF_HMAC_SHA1, _P.PRF_HMAC_MD5, _P.PRF_HMAC_TIGER,
    )
)  # fmt: skip
INTEGRITIES: tuple[Transform, ...] = tuple(
    Transform.of(_T.INTEG, algorithm)
    for algorithm in (
        _I.AUTH_HMAC_SHA2_256_128, _I.AUTH_HMAC_SHA2_384_192, _I.AUTH_HMAC_SHA2_512_256, _I.AUTH_AES_XCBC_96,
        _I.AUTH_AES_CMAC_96, _I.AUTH_HMAC_SHA1_96, _I.AUTH_HMAC_SHA1_160, _I.AUTH_HMAC_MD5_96, _I.AUTH_HMAC_MD5_128,
    )
)  # fmt: skip
METHODS: tuple[Transform, ...] = tuple(
    Transform.of(_T.KE, method)
    for method in (
        _K.CURVE25519, _K.ECP_256, _K.ECP_384, _K.ECP_521, _K.CURVE448, _K.MODP_2048, _K.MODP_3072, _K.MODP_4096,
        _K.MODP_6144, _K.MODP_8192, _K.BRAINPOOL_P256R1, _K.BRAINPOOL_P384R1, _K.BRAINPOOL_P512R1, _K.ML_KEM_768,
        _K.ML_KEM_1024, _K.ML_KEM_512, _K.MODP_2048_256, _K.MODP_2048_224, _K.BRAINPOOL_P224R1, _K.ECP_224, _K.ECP_192,
        _K.MODP_1536, _K.MODP_1024, _K.MODP_1024_160, _K.MODP_768,
    )
)  # fmt: skip
ADDITIONAL: tuple[Transform, ...] = tuple(
    Transform.of(_T.ADDKE1, method) for method in (_K.ML_KEM_768, _K.ML_KEM_1024, _K.ML_KEM_512)
)
NONSENSE = Transform.of(_T.ADDKE1, _K(1023))  # the last number that IANA could give away, and has not
EVERYTHING: tuple[Transform, ...] = AEADS + CIPHERS + FUNCTIONS + INTEGRITIES + METHODS
REDIRECT_SUPPORTED = Notify(NotifyType.REDIRECT_SUPPORTED)
CHEAP = (_K.CURVE25519, _K.ECP_256, _K.ECP_384, _K.CURVE448, _K.MODP_2048)
"""Methods whose public values cost next to nothing to make and to take in."""
_SPARE = (
    _K.ECP_521, _K.BRAINPOOL_P256R1, _K.BRAINPOOL_P384R1, _K.BRAINPOOL_P512R1, _K.MODP_1024, _K.MODP_1536, _K.MODP_3072,
)  # fmt: skip
"""For who takes all of these. Public values that leave a question in one datagram."""


def can_do(transform: Transform) -> bool:
    """Whether we could go on with it."""
    return is_supported(transform.type, transform.id, transform.key_length)


def computable(transforms: Iterable[Transform]) -> tuple[Transform, ...]:
    """Those that we could go on with. ML-KEM is left to additional key exchanges: alone it is nobody's first offer."""
    return tuple(each for each in transforms if can_do(each) and not (each.type == _T.KE and each.id >= _K.ML_KEM_512))


def beside(taken: Iterable[Transform]) -> KeyExchangeMethod:
    """A method for a KE payload that is not among these, and cheap if possible; a cheap one when there is no other."""
    ids = {each.id for each in taken}
    return next((each for each in (*CHEAP, *_SPARE) if each not in ids), CHEAP[0])


def offer(transforms: Sequence[Transform]) -> SecurityAssociation:
    """One or two proposals of these transforms: authenticated ciphers have no integrity algorithm beside them, so the
    others make a proposal of their own (RFC 7296 section 3.3)."""
    by_type = {kind: tuple(each for each in transforms if each.type == kind) for kind in (_T.PRF, _T.INTEG)}
    exchanges = tuple(each for each in transforms if each.type in (_T.KE, _T.ADDKE1))
    aeads = tuple(each for each in transforms if each in AEADS)
    ciphers = tuple(each for each in transforms if each in CIPHERS)
    proposals = []
    if aeads:
        proposals.append(aeads + by_type[_T.PRF] + exchanges)
    if ciphers and by_type[_T.INTEG]:
        proposals.append(ciphers + by_type[_T.PRF] + by_type[_T.INTEG] + exchanges)
    return SecurityAssociation(
        tuple(Proposal(number, ProtocolId.IKE, b"", chosen) for number, chosen in enumerate(proposals, 1))
    )


def alone(transform: Transform, methods: Sequence[Transform]) -> SecurityAssociation:
    """`transform` as the only one of its type, beside everything else; key exchange by one of `methods`."""
    others = [each for each in AEADS + CIPHERS + FUNCTIONS + INTEGRITIES if each.type != transform.type]
    if transform.type == _T.INTEG:
        others = [each for each in others if each not in AEADS]
    return offer([transform, *others] if transform.type == _T.KE else [transform, *others, *methods])


@lru_cache(maxsize=32)
def key_for(method: KeyExchangeMethod) -> PrivateKeyExchange:
    """A key of this method, the same for all questions: nothing is protected with it but questions."""
    return initiate_key_exchange(method)


def request(
    security: SecurityAssociation,
    method: KeyExchangeMethod,
    path: tuple[Address, Address],
    extra: Sequence[Payload] = (),
    *,
    spi: bytes | None = None,
    nonce: bytes | None = None,
) -> Message:
    """An IKE_SA_INIT request with this offer and a KE payload of `method`, on `path` (local, remote); a COOKIE among
    `extra` goes in front (RFC 7296 section 2.6)."""
    spi = spi or os.urandom(8)
    hashes = b"".join(int(algorithm).to_bytes(2, "big") for algorithm in SUPPORTED_HASHES)
    cookie = tuple(each for each in extra if isinstance(each, Notify) and each.type == NotifyType.COOKIE)
    payloads: tuple[Payload, ...] = (
        *cookie,
        security,
        KeyExchange(method, key_for(method).public_value),
        Nonce(nonce or os.urandom(32)),
        *detection_notifies(spi, bytes(8), *path),
        Notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED),
        Notify(NotifyType.SIGNATURE_HASH_ALGORITHMS, hashes),
        REDIRECT_SUPPORTED,
        *(each for each in extra if each not in cookie),
    )
    return Message(spi, bytes(8), ExchangeType.IKE_SA_INIT, True, False, 0, payloads)

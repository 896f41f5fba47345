"""Which transforms this build can do."""

from __future__ import annotations

from ikeway.wire.registry import (
    EncryptionAlgorithm,
    ExtendedSequenceNumbers,
    IntegrityAlgorithm,
    KeyExchangeMethod,
    TransformType,
)

from .algorithms import encryption_algorithms, integrity_algorithms
from .key_exchange import key_exchange_methods
from .prf import pseudorandom_functions

_ENCRYPTION = frozenset((int(algorithm), key_bits) for algorithm, key_bits in encryption_algorithms())
_PRF = frozenset(map(int, pseudorandom_functions()))
_INTEGRITY = frozenset(map(int, integrity_algorithms())) | {int(IntegrityAlgorithm.NONE)}
_KEY_EXCHANGE = frozenset(map(int, key_exchange_methods())) | {int(KeyExchangeMethod.NONE)}
_SEQUENCE_NUMBERS = frozenset((int(ExtendedSequenceNumbers.NO), int(ExtendedSequenceNumbers.YES)))

_WITHOUT_KEY_LENGTH = {
    TransformType.PRF: _PRF,
    TransformType.INTEG: _INTEGRITY,
    TransformType.KE: _KEY_EXCHANGE,
    TransformType.ESN: _SEQUENCE_NUMBERS,
    TransformType.ADDKE1: _KEY_EXCHANGE,
    TransformType.ADDKE2: _KEY_EXCHANGE,
    TransformType.ADDKE3: _KEY_EXCHANGE,
    TransformType.ADDKE4: _KEY_EXCHANGE,
    TransformType.ADDKE5: _KEY_EXCHANGE,
    TransformType.ADDKE6: _KEY_EXCHANGE,
    TransformType.ADDKE7: _KEY_EXCHANGE,
}


def is_supported(transform_type: TransformType, identifier: int, key_bits: int | None = None) -> bool:
    """True when we can do this transform. NONE counts for integrity and key exchange; whether it may stand there is
    a question of the proposal."""
    if transform_type == TransformType.ENCR:
        return (int(EncryptionAlgorithm(identifier)), key_bits) in _ENCRYPTION
    known = _WITHOUT_KEY_LENGTH.get(transform_type)
    return known is not None and key_bits is None and identifier in known

"""Which transforms this build can do."""

from __future__ import annotations

from collections.abc import Iterator

from ikeway.wire.registry import (
    ExtendedSequenceNumbers,
    IntegrityAlgorithm,
    KeyExchangeMethod,
    TransformType,
)

from .algorithms import encryption_algorithms, integrity_algorithms
from .key_exchange import key_exchange_methods
from .prf import pseudorandom_functions

_KEY_EXCHANGES = (
    TransformType.KE,
    TransformType.ADDKE1,
    TransformType.ADDKE2,
    TransformType.ADDKE3,
    TransformType.ADDKE4,
    TransformType.ADDKE5,
    TransformType.ADDKE6,
    TransformType.ADDKE7,
)


def _supported() -> Iterator[tuple[int, int, int | None]]:
    for algorithm, key_bits in encryption_algorithms():
        yield TransformType.ENCR, algorithm, key_bits
    for function in pseudorandom_functions():
        yield TransformType.PRF, function, None
    for integrity in (IntegrityAlgorithm.NONE, *integrity_algorithms()):
        yield TransformType.INTEG, integrity, None
    for kind in _KEY_EXCHANGES:
        for method in (KeyExchangeMethod.NONE, *key_exchange_methods()):
            yield kind, method, None
    for numbers in (ExtendedSequenceNumbers.NO, ExtendedSequenceNumbers.YES):
        yield TransformType.ESN, numbers, None


_SUPPORTED: frozenset[tuple[int, int, int | None]] = frozenset(_supported())


def is_supported(transform_type: int, identifier: int, key_bits: int | None = None) -> bool:
    """True when we can do this transform. NONE counts for integrity and key exchange; whether it may stand there is
    a question of the proposal."""
    return (transform_type, identifier, key_bits) in _SUPPORTED

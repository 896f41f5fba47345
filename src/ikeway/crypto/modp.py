"""Diffie-Hellman modulo the safe primes of RFC 2409 (group 2) and RFC 3526 (groups 5, 14 to 18).

Exponents are short: in a safe-prime group twice the security strength is enough. Their sizes are those of RFC 7919
appendix A, rounded up to 32 bits (groups 2 and 5, which that RFC does not have, use the size of group 14). A peer's
value y is taken when 1 < y < p - 1, which for safe primes is all that is needed (RFC 6989 section 2.1).

OpenSSL computes these powers in constant time at about twice the speed of GMP, and `cryptography` still offers its
finite-field Diffie-Hellman, but has announced to drop it. Then, and for group 2, which OpenSSL does not know by name
(it would test the prime on each use), gmpy2's `powmod_sec` does the work. Both are always tested.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from ikeway.errors import InvalidPublicValue
from ikeway.wire.registry import KeyExchangeMethod

from .private_key import PrivateKeyExchange, check_length

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.dh import DHParameters, DHPrivateKey

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its deprecation: we have the other way ready
        from cryptography.hazmat.primitives.asymmetric.dh import (
            DHParameterNumbers,
            DHPrivateNumbers,
            DHPublicNumbers,
        )
    HAS_OPENSSL_DH = True
except ImportError:  # pragma: no cover - a future cryptography
    HAS_OPENSSL_DH = False

_GENERATOR = 2
_K = KeyExchangeMethod

# method: bits of the prime, the number in its definition, bits of our exponents
_DEFINITIONS = {
    _K.MODP_1024: (1024, 129093, 256),
    _K.MODP_1536: (1536, 741804, 256),
    _K.MODP_2048: (2048, 124476, 256),
    _K.MODP_3072: (3072, 1690314, 288),
    _K.MODP_4096: (4096, 240904, 352),
    _K.MODP_6144: (6144, 929484, 384),
    _K.MODP_8192: (8192, 4743158, 416),
}
METHODS = tuple(_DEFINITIONS)


@dataclass(frozen=True, slots=True)
class ModpGroup:
    """A safe prime and the size of the exponents used with it."""

    method: KeyExchangeMethod
    prime: int
    octets: int
    exponent_bits: int

    def check(self, peer_public_value: bytes) -> int:
        """The peer's y, in range; `InvalidPublicValue` otherwise."""
        check_length(self.method, peer_public_value, self.octets)
        y = int.from_bytes(peer_public_value, "big")
        if not 1 < y < self.prime - 1:
            raise InvalidPublicValue(
                f"the public value for {self.method.name} leads to a secret that anyone can guess",
                expected="1 < y < p - 1",
                remedy="a sound implementation never sends such a value; look who is answering",
            )
        return y


@cache
def group(method: KeyExchangeMethod) -> ModpGroup:
    """The group with this number. Its prime is 2^n - 2^(n-64) - 1 + 2^64 * ([2^(n-130) pi] + number)."""
    import gmpy2  # here and below: it takes as long as all else in this room together

    bits, number, exponent_bits = _DEFINITIONS[method]
    with gmpy2.context(gmpy2.get_context(), precision=bits + 64):
        digits_of_pi = int(gmpy2.floor(gmpy2.mul_2exp(gmpy2.const_pi(), bits - 130)))
    prime = (1 << bits) - (1 << (bits - 64)) - 1 + ((digits_of_pi + number) << 64)
    return ModpGroup(method, prime, bits // 8, exponent_bits)


class GmpModp(PrivateKeyExchange):
    """A private exponent, and GMP's side-channel silent powers."""

    __slots__ = ("_exponent", "_group")

    def __init__(self, method: KeyExchangeMethod, exponent: int | None = None) -> None:
        self._group = group(method)
        if exponent is None:
            # The top bit set, so that every exponent has the same length.
            octets = self._group.exponent_bits // 8
            exponent = int.from_bytes(os.urandom(octets), "big") | 1 << (8 * octets - 1)
        self._exponent = exponent
        super().__init__(method, self._power(_GENERATOR))

    def shared_secret(self, peer_public_value: bytes) -> bytes:
        """g^ir, as long as the prime."""
        return self._power(self._group.check(peer_public_value))

    def _power(self, base: int) -> bytes:
        import gmpy2

        return int(gmpy2.powmod_sec(base, self._exponent, self._group.prime)).to_bytes(self._group.octets, "big")


@cache
def _openssl_group(method: KeyExchangeMethod) -> tuple[DHParameterNumbers, DHParameters]:
    """The group as OpenSSL takes it; it knows these primes and then chooses exponents of the right size itself."""
    numbers = DHParameterNumbers(group(method).prime, _GENERATOR)
    return numbers, numbers.parameters()


class OpensslModp(PrivateKeyExchange):
    """A private key of OpenSSL's."""

    __slots__ = ("_group", "_key")

    def __init__(self, method: KeyExchangeMethod, exponent: int | None = None) -> None:
        self._group = group(method)
        numbers, parameters = _openssl_group(method)
        self._key: DHPrivateKey
        if exponent is None:
            self._key = parameters.generate_private_key()
        else:
            import gmpy2

            y = int(gmpy2.powmod_sec(_GENERATOR, exponent, self._group.prime))
            self._key = DHPrivateNumbers(exponent, DHPublicNumbers(y, numbers)).private_key()
        y = self._key.public_key().public_numbers().y
        super().__init__(method, y.to_bytes(self._group.octets, "big"))

    def shared_secret(self, peer_public_value: bytes) -> bytes:
        """g^ir, as long as the prime."""
        y = self._group.check(peer_public_value)
        numbers, _ = _openssl_group(self.method)
        return self._key.exchange(DHPublicNumbers(y, numbers).public_key()).rjust(self._group.octets, b"\0")


def new_modp(method: KeyExchangeMethod, exponent: int | None = None) -> PrivateKeyExchange:
    """Our half of an exchange in the group with this number."""
    if HAS_OPENSSL_DH and method != _K.MODP_1024:
        return OpensslModp(method, exponent)
    return GmpModp(method, exponent)

"""Key exchange: both sides agree, and bad public values are refused (RFC 7296 section 3.4, RFC 6989, 8031)."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ikeway.crypto import (
    initiate_key_exchange,
    is_key_encapsulation,
    is_supported,
    key_exchange_methods,
    modp,
    respond_key_exchange,
)
from ikeway.crypto.modp import GmpModp, OpensslModp
from ikeway.errors import InvalidPublicValue, UnsupportedAlgorithm
from ikeway.wire.registry import KeyExchangeMethod, TransformType

K = KeyExchangeMethod
CURVES = {
    K.ECP_256: ec.SECP256R1(),
    K.ECP_384: ec.SECP384R1(),
    K.ECP_521: ec.SECP521R1(),
    K.BRAINPOOL_P256R1: ec.BrainpoolP256R1(),
    K.BRAINPOOL_P384R1: ec.BrainpoolP384R1(),
    K.BRAINPOOL_P512R1: ec.BrainpoolP512R1(),
}
EVERY = pytest.mark.parametrize("method", key_exchange_methods(), ids=str)


def test_the_list():
    wanted = {2, 5, 14, 15, 16, 17, 18, 19, 20, 21, 28, 29, 30, 31, 32, 36, 37}
    assert set(key_exchange_methods()) == wanted
    assert {number for number in range(1025) if is_supported(TransformType.KE, number)} == wanted | {0}
    with pytest.raises(UnsupportedAlgorithm, match="ML_KEM_512"):
        initiate_key_exchange(K.ML_KEM_512)
    with pytest.raises(UnsupportedAlgorithm, match="UNKNOWN_1025"):
        respond_key_exchange(K(1025), bytes(32))


@EVERY
def test_both_sides_agree(method):
    initiator = initiate_key_exchange(method)
    public_value, secret = respond_key_exchange(method, initiator.public_value)
    assert initiator.method == method
    assert initiator.shared_secret(public_value) == secret
    other = initiate_key_exchange(method)
    assert other.public_value != initiator.public_value
    if not is_key_encapsulation(method):
        assert other.shared_secret(initiator.public_value) == initiator.shared_secret(other.public_value) != secret


@EVERY
def test_wrong_lengths_are_refused(method):
    initiator = initiate_key_exchange(method)
    good, _ = respond_key_exchange(method, initiator.public_value)
    for wrong in (b"", good[:-1], good + b"\0", b"\0" + good):
        with pytest.raises(InvalidPublicValue, match="wrong length"):
            initiator.shared_secret(wrong)
    for wrong in (b"", initiator.public_value[:-1], initiator.public_value + b"\0"):
        with pytest.raises(InvalidPublicValue, match="wrong length"):
            respond_key_exchange(method, wrong)


@pytest.mark.parametrize("method", modp.METHODS, ids=str)
def test_modp_range(method):
    """RFC 6989 section 2.1: 1 < y < p - 1."""
    group = modp.group(method)
    exchange = initiate_key_exchange(method)
    for y in (0, 1, group.prime - 1, group.prime, group.prime + 1, 2 ** (8 * group.octets) - 1):
        with pytest.raises(InvalidPublicValue, match="anyone can guess"):
            exchange.shared_secret(y.to_bytes(group.octets, "big"))
    for y in (2, group.prime - 2):
        assert len(exchange.shared_secret(y.to_bytes(group.octets, "big"))) == group.octets


@pytest.mark.parametrize("method", modp.METHODS, ids=str)
def test_modp_primes(method):
    """Safe primes, as RFC 2409 and RFC 3526 make them; a typing error would hardly leave one."""
    import gmpy2

    prime = modp.group(method).prime
    assert prime.bit_length() == int(method.name.removeprefix("MODP_"))
    assert gmpy2.is_prime(prime, 2)
    assert gmpy2.is_prime(prime // 2, 2)


@pytest.mark.parametrize("make", [GmpModp, OpensslModp])
def test_modp_secrets_and_public_values_keep_their_leading_zeros(make):
    """RFC 7296 section 2.14: as long as the prime. One in 256 begins with a zero octet."""
    method = K.MODP_1536
    octets = modp.group(method).octets
    peer = GmpModp(method, 3 << 200)
    short = next(
        exponent for exponent in range(1 << 224, (1 << 224) + 20000) if GmpModp(method, exponent).public_value[0] == 0
    )
    assert len(make(method, short).public_value) == octets
    assert make(method, short).shared_secret(peer.public_value) == peer.shared_secret(
        GmpModp(method, short).public_value
    )
    # y such that the secret is small: y = g, so that the secret is our public value.
    secret = make(method, short).shared_secret((2).to_bytes(octets, "big"))
    assert secret == GmpModp(method, short).public_value
    assert (len(secret), secret[0]) == (octets, 0)


def test_modp_exponents_are_short_and_long_enough():
    """RFC 7919 appendix A gives 225, 275, 325, 375 and 400 bits."""
    least = {14: 225, 15: 275, 16: 325, 17: 375, 18: 400}
    for method in modp.METHODS:
        bits = modp.group(method).exponent_bits
        assert least.get(method, 225) <= bits <= least.get(method, 225) + 32
        assert GmpModp(method)._exponent.bit_length() == bits


def test_modp_without_openssl(monkeypatch):
    """Once `cryptography` drops finite fields, gmpy2 does it all."""
    monkeypatch.setattr(modp, "HAS_OPENSSL_DH", False)
    initiator = initiate_key_exchange(K.MODP_2048)
    assert isinstance(initiator, GmpModp)
    public_value, secret = respond_key_exchange(K.MODP_2048, initiator.public_value)
    assert initiator.shared_secret(public_value) == secret


@pytest.mark.parametrize(("method", "curve"), CURVES.items(), ids=lambda one: str(getattr(one, "name", one)))
def test_points_must_be_on_the_curve(method, curve):
    exchange = initiate_key_exchange(method)
    half = len(exchange.public_value) // 2
    x, y = exchange.public_value[:half], exchange.public_value[half:]
    field = (1 << (8 * half)) - 1
    for wrong in (
        x + bytes((*y[:-1], y[-1] ^ 1)),
        y + x,
        bytes(2 * half),
        field.to_bytes(half, "big") + y,
        x + field.to_bytes(half, "big"),
    ):
        with pytest.raises(InvalidPublicValue, match="not a point of the curve"):
            exchange.shared_secret(wrong)
    # A point of another curve of the same size: the invalid-curve attack.
    for other_method, other in CURVES.items():
        if other_method != method and other.key_size == curve.key_size:
            with pytest.raises(InvalidPublicValue):
                exchange.shared_secret(initiate_key_exchange(other_method).public_value)


LOW_ORDER = {
    K.CURVE25519: [
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        2**255 - 20,
        2**255 - 19,
        2**255 - 18,
    ],
    K.CURVE448: [0, 1, 2**448 - 2**224 - 2, 2**448 - 2**224 - 1, 2**448 - 2**224],
}


@pytest.mark.parametrize(
    ("method", "u"), [(method, u) for method, points in LOW_ORDER.items() for u in points], ids=str
)
def test_points_of_low_order_are_refused(method, u):
    """RFC 8031 section 3: a secret of all zeros must be refused, as initiator and as responder."""
    point = u.to_bytes(32 if method == K.CURVE25519 else 56, "little")
    with pytest.raises(InvalidPublicValue, match="all-zero"):
        initiate_key_exchange(method).shared_secret(point)
    with pytest.raises(InvalidPublicValue, match="all-zero"):
        respond_key_exchange(method, point)


@pytest.mark.parametrize("method", [K.ML_KEM_768, K.ML_KEM_1024], ids=str)
def test_encapsulation(method):
    initiator = initiate_key_exchange(method)
    first, first_secret = respond_key_exchange(method, initiator.public_value)
    second, second_secret = respond_key_exchange(method, initiator.public_value)
    assert first != second
    assert first_secret != second_secret
    forged = bytes((first[0] ^ 1,)) + first[1:]
    assert initiator.shared_secret(forged) != first_secret  # implicit rejection (FIPS 203 section 6.3)
    # FIPS 203 section 7.2: coefficients are below q = 3329; 0xfff is none.
    with pytest.raises(InvalidPublicValue, match="not an encapsulation key"):
        respond_key_exchange(method, b"\xff\xff\xff" + initiator.public_value[3:])

"""What the cryptography of a handshake costs: `python -m bench.crypto`. Ends with 1 above the limit.

CPU time of one operation in microseconds, the best of several rounds. The limit is for all that a responder computes in
an X25519 + PSK handshake with AES-128-GCM, from the KE payload to the keys of the child SA.
"""

from __future__ import annotations

import os
import sys
import time
import timeit
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ikeway.crypto import (
    derive_child_keys,
    derive_ike_keys,
    derive_skeyseed,
    encryption_algorithms,
    encryption_info,
    initiate_key_exchange,
    integrity_info,
    is_key_encapsulation,
    key_exchange_methods,
    new_cipher,
    new_prf,
    pseudorandom_functions,
    respond_key_exchange,
)
from ikeway.crypto import signature as signatures
from ikeway.ike.proposals import DEFAULT_ESP_PROPOSALS, DEFAULT_IKE_PROPOSALS, select, with_numbers
from ikeway.wire.registry import (
    EncryptionAlgorithm,
    IntegrityAlgorithm,
    KeyExchangeMethod,
    PseudorandomFunction,
)

LIMIT_MICROSECONDS = 150.0

NONCES = os.urandom(32), os.urandom(32)
SPIS = os.urandom(8), os.urandom(8)
MESSAGE = os.urandom(400)  # an IKE_SA_INIT message, as it is signed


def microseconds(operation: Callable[[], object]) -> float:
    """CPU time of one call."""
    timer = timeit.Timer(operation, timer=time.process_time)
    once = timer.timeit(3) / 3
    number = max(3, int(0.01 / max(once, 1e-7)))
    return min(timer.repeat(repeat=7, number=number)) / number * 1e6


def report(name: str, operation: Callable[[], object]) -> float:
    """Measure and print."""
    cost = microseconds(operation)
    print(f"  {name:58}{cost:10.1f}")
    return cost


def key_exchanges() -> None:
    print("key exchange, the responder's part (public value and secret)")
    for method in key_exchange_methods():
        peer = initiate_key_exchange(method)
        report(method.name, lambda method=method, peer=peer: respond_key_exchange(method, peer.public_value))
    print("key exchange, the initiator's first half")
    for method in key_exchange_methods():
        if is_key_encapsulation(method) or method == KeyExchangeMethod.CURVE25519:
            report(method.name, lambda method=method: initiate_key_exchange(method))


def pseudorandom() -> None:
    print("prf of a message of 400 octets; prf+ of 136 octets (all keys of an IKE SA with AES-128-GCM and SHA-256)")
    for algorithm in pseudorandom_functions():
        prf = new_prf(algorithm)
        report(algorithm.name, lambda prf=prf: prf(b"k" * 32, MESSAGE))
        report(f"{algorithm.name}, prf+", lambda prf=prf: prf.plus(b"k" * 32, b"s" * 80, 136))


def ciphers() -> None:
    print("encrypt and decrypt 256 octets; objects made for the keys beforehand")
    for algorithm, bits in encryption_algorithms():
        if bits == 192:
            continue
        info = encryption_info(algorithm, bits)
        check = None if info.is_aead else IntegrityAlgorithm.AUTH_HMAC_SHA2_256_128
        key, check_key = os.urandom(info.keying_octets), os.urandom(integrity_info(check).key_octets if check else 0)
        if algorithm == EncryptionAlgorithm.ENCR_3DES:
            key = os.urandom(24)
        cipher = new_cipher(algorithm, bits, check, key, check_key)
        sealed = cipher.encrypt(bytes(info.iv_octets), bytes(256), bytes(32))

        def both(cipher=cipher, sealed=sealed, iv=bytes(info.iv_octets)):
            cipher.encrypt(iv, bytes(256), bytes(32))
            cipher.decrypt(iv, sealed, bytes(32))

        report(f"{algorithm.name} {bits or ''}", both)
        report("  making the object", lambda a=(algorithm, bits, check, key, check_key): new_cipher(*a))


def signing() -> None:
    print("signatures")
    for key in (
        rsa.generate_private_key(65537, 2048),
        rsa.generate_private_key(65537, 3072),
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ):
        scheme = signatures.schemes_for(key)[0]
        size = f" ({key.key_size} bits)" if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) else ""
        signature, public = signatures.sign(key, scheme, MESSAGE), key.public_key()
        report(f"{scheme}{size}, sign", lambda k=key, s=scheme: signatures.sign(k, s, MESSAGE))
        report(f"{scheme}{size}, verify", lambda k=public, s=scheme, g=signature: signatures.verify(k, s, g, MESSAGE))


def proposals() -> None:
    print("proposals (not counted as cryptography)")
    offered = with_numbers(DEFAULT_IKE_PROPOSALS, b"")
    report("choose from our own default offer, IKE", lambda: select(offered, DEFAULT_IKE_PROPOSALS))
    child = with_numbers(DEFAULT_ESP_PROPOSALS, b"spi.")
    report("choose from it, ESP in IKE_AUTH", lambda: select(child, DEFAULT_ESP_PROPOSALS, ignore_key_exchange=True))


def handshake() -> float:
    """All that a responder computes for one IKE SA with one child SA."""
    print("responder, X25519 + PSK + AES-128-GCM + PRF-HMAC-SHA2-256, one child SA")
    method, encryption = KeyExchangeMethod.CURVE25519, EncryptionAlgorithm.ENCR_AES_GCM_16
    prf = new_prf(PseudorandomFunction.PRF_HMAC_SHA2_256)
    peer = initiate_key_exchange(method)
    secret = os.urandom(32)
    keys = derive_ike_keys(prf, os.urandom(32), *NONCES, *SPIS, 20, 0)
    sealed = new_cipher(encryption, 128, None, keys.sk_ei, b"").encrypt(bytes(8), bytes(250), bytes(32))

    def derivation() -> None:
        skeyseed = derive_skeyseed(prf, *NONCES, secret)
        derive_ike_keys(prf, skeyseed, *NONCES, *SPIS, 20, 0)
        derive_child_keys(prf, keys.sk_d, *NONCES, 20, 0)

    def protection() -> None:
        inbound = new_cipher(encryption, 128, None, keys.sk_ei, b"")
        outbound = new_cipher(encryption, 128, None, keys.sk_er, b"")
        inbound.decrypt(bytes(8), sealed, bytes(32))
        outbound.encrypt(outbound.new_iv(), bytes(200), bytes(32))

    def authentication() -> None:
        for sk_p in (keys.sk_pi, keys.sk_pr):
            signed = MESSAGE + NONCES[0] + prf(sk_p, b"\2\0\0\0gateway.example.org")
            prf(prf(b"a pre-shared secret", b"Key Pad for IKEv2"), signed)

    return sum(
        (
            report("key exchange", lambda: respond_key_exchange(method, peer.public_value)),
            report("SKEYSEED, keys of the IKE SA and of the child SA", derivation),
            report("ciphers of the IKE SA, one message in, one out", protection),
            report("AUTH by shared key, both directions", authentication),
        )
    )


def main() -> int:
    key_exchanges()
    pseudorandom()
    ciphers()
    signing()
    proposals()
    total = handshake()
    print(f"  {'in all':58}{total:10.1f}   limit {LIMIT_MICROSECONDS:.0f}")
    return 0 if total <= LIMIT_MICROSECONDS else 1


if __name__ == "__main__":
    sys.exit(main())

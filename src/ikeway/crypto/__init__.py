"""Transforms by their IANA names: encryption, integrity, PRF, key exchange, key derivation, signatures.

A thin wall around `cryptography` and gmpy2. Nothing here knows of messages or SAs.
"""

from .algorithms import (
    EncryptionInfo,
    IntegrityInfo,
    encryption_algorithms,
    encryption_info,
    integrity_algorithms,
    integrity_info,
)
from .cipher import AeadCipher, Cipher, SeparateCipher, new_cipher
from .key_exchange import initiate_key_exchange, is_key_encapsulation, key_exchange_methods, respond_key_exchange
from .keys import (
    ChildKeys,
    IkeKeys,
    derive_child_keys,
    derive_ike_keys,
    derive_rekeyed_skeyseed,
    derive_skeyseed,
)
from .prf import Prf, new_prf, pseudorandom_functions
from .private_key import PrivateKeyExchange
from .support import is_supported

__all__ = [
    "AeadCipher",
    "ChildKeys",
    "Cipher",
    "EncryptionInfo",
    "IkeKeys",
    "IntegrityInfo",
    "Prf",
    "PrivateKeyExchange",
    "SeparateCipher",
    "derive_child_keys",
    "derive_ike_keys",
    "derive_rekeyed_skeyseed",
    "derive_skeyseed",
    "encryption_algorithms",
    "encryption_info",
    "initiate_key_exchange",
    "integrity_algorithms",
    "integrity_info",
    "is_key_encapsulation",
    "is_supported",
    "key_exchange_methods",
    "new_cipher",
    "new_prf",
    "pseudorandom_functions",
    "respond_key_exchange",
]

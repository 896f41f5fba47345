"""Encryption with integrity, as IKE and ESP use it: an AEAD, or a cipher and a separate check value.

Both kinds look alike from outside: `encrypt` gives ciphertext and ICV, `decrypt` checks the ICV before anything is
decrypted. What is authenticated besides is the caller's: the IKE header up to the SK payload's (RFC 5282 section 5.1),
or SPI and sequence number of ESP (RFC 4106 section 5). With a separate ICV it covers associated octets, IV, ciphertext
and, for extended sequence numbers, the high half that is not sent (RFC 4303 section 3.3.2.2).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import ciphers
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

from ikeway.errors import CryptoError, IntegrityCheckFailed, UnsupportedAlgorithm
from ikeway.wire.registry import EncryptionAlgorithm, IntegrityAlgorithm

from .algorithms import EncryptionInfo, encryption_info
from .mac import Integrity

Octets: TypeAlias = bytes | bytearray | memoryview

_E = EncryptionAlgorithm
_COUNTER_MASK = (1 << 64) - 1


class Cipher(ABC):
    """One direction of an SA: protects what one side sends."""

    __slots__ = ("block_octets", "icv_octets", "is_aead", "iv_octets")

    iv_octets: int
    icv_octets: int
    block_octets: int
    """Plaintext must be padded to a multiple of this; 1 where the transform itself asks for none."""
    is_aead: bool

    def __init__(self, info: EncryptionInfo, icv_octets: int) -> None:
        self.iv_octets = info.iv_octets
        self.icv_octets = icv_octets
        self.block_octets = info.block_octets
        self.is_aead = info.is_aead

    @abstractmethod
    def new_iv(self) -> bytes:
        """An IV never used before under this key; unpredictable where the mode needs that (CBC)."""

    @abstractmethod
    def encrypt(self, iv: Octets, plaintext: Octets, associated: Octets, integrity_suffix: bytes = b"") -> bytes:
        """Ciphertext, then ICV. The IV is not part of it. `integrity_suffix`: never with an AEAD."""

    @abstractmethod
    def decrypt(self, iv: Octets, protected: Octets, associated: Octets, integrity_suffix: bytes = b"") -> bytes:
        """The plaintext of ciphertext and ICV. Raises `IntegrityCheckFailed`."""


class AeadPrimitive(Protocol):
    """What the AEADs of `cryptography` have in common."""

    def encrypt(self, nonce: Octets, data: Octets, associated_data: Octets | None) -> bytes:
        """Ciphertext and tag."""
        ...

    def decrypt(self, nonce: Octets, data: Octets, associated_data: Octets | None) -> bytes:
        """Plaintext; raises `InvalidTag`."""
        ...

    def encrypt_into(
        self, nonce: Octets, data: Octets, associated_data: Octets | None, buf: bytearray | memoryview
    ) -> int:
        """Ciphertext and tag into `buf`, which may hold the plaintext."""
        ...

    def decrypt_into(
        self, nonce: Octets, data: Octets, associated_data: Octets | None, buf: bytearray | memoryview
    ) -> int:
        """Plaintext into `buf`; raises `InvalidTag`."""
        ...


class _CounterIv:
    """IVs of 64 bits that count (RFC 4106 section 3.1, RFC 3686 section 3.1).

    They start at random: should two objects ever be made for one key by mistake, their IVs still differ.
    """

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = -1  # a cipher that only decrypts never needs it

    def __call__(self) -> bytes:
        iv = self._next if self._next >= 0 else int.from_bytes(os.urandom(8), "big")
        self._next = (iv + 1) & _COUNTER_MASK
        return iv.to_bytes(8, "big")


class AeadCipher(Cipher):
    """AES-GCM, AES-CCM or ChaCha20-Poly1305: nonce = salt | IV, the salt being the end of the key (RFC 5282, 7634).

    `encrypt_into` and `decrypt_into` do the same without allocating. `primitive` takes whole nonces and raises
    `InvalidTag`: the data plane calls it directly for many packets at once.
    """

    __slots__ = ("_counter", "primitive", "salt")

    def __init__(self, info: EncryptionInfo, salt: bytes, primitive: AeadPrimitive) -> None:
        super().__init__(info, info.icv_octets)
        self.salt = salt
        self.primitive = primitive
        self._counter = _CounterIv()

    def new_iv(self) -> bytes:
        """The next value of the counter."""
        return self._counter()

    def encrypt(self, iv: Octets, plaintext: Octets, associated: Octets, integrity_suffix: bytes = b"") -> bytes:
        """Ciphertext, then ICV; see `Cipher.encrypt`."""
        if integrity_suffix or len(iv) != 8:
            raise ValueError("an AEAD takes an IV of 8 octets and has everything that it authenticates in `associated`")
        return self.primitive.encrypt(self.salt + iv, plaintext, associated)

    def decrypt(self, iv: Octets, protected: Octets, associated: Octets, integrity_suffix: bytes = b"") -> bytes:
        """The plaintext; see `Cipher.decrypt`."""
        if integrity_suffix or len(iv) != 8:
            raise ValueError("an AEAD takes an IV of 8 octets and has everything that it authenticates in `associated`")
        try:
            return self.primitive.decrypt(self.salt + iv, protected, associated)
        except InvalidTag:
            raise _icv_is_wrong() from None

    def encrypt_into(self, iv: Octets, plaintext: Octets, associated: Octets, out: bytearray | memoryview) -> int:
        """Write ciphertext and ICV to `out`, which has exactly their length (it may be `plaintext`'s own memory)."""
        return self.primitive.encrypt_into(self.salt + iv, plaintext, associated, out)

    def decrypt_into(self, iv: Octets, protected: Octets, associated: Octets, out: bytearray | memoryview) -> int:
        """Write the plaintext to `out`, which has exactly its length. Its content is void when this raises."""
        try:
            return self.primitive.decrypt_into(self.salt + iv, protected, associated, out)
        except InvalidTag:
            raise _icv_is_wrong() from None


class _ShortTagGcm:
    """AES-GCM with a tag of 8 or 12 octets (RFC 4106 section 6): the leading octets of the whole tag."""

    __slots__ = ("_key", "_tag_octets", "_whole")

    def __init__(self, key: bytes, tag_octets: int) -> None:
        self._whole = AESGCM(key)
        self._key = algorithms.AES(key)
        self._tag_octets = tag_octets

    def encrypt(self, nonce: Octets, data: Octets, associated_data: Octets | None) -> bytes:
        return self._whole.encrypt(nonce, data, associated_data)[: self._tag_octets - 16]

    def decrypt(self, nonce: Octets, data: Octets, associated_data: Octets | None) -> bytes:
        end = len(data) - self._tag_octets
        if end < 0:
            raise InvalidTag
        mode = modes.GCM(bytes(nonce), bytes(data[end:]), min_tag_length=self._tag_octets)
        context = ciphers.Cipher(self._key, mode).decryptor()
        if associated_data:
            context.authenticate_additional_data(associated_data)
        plaintext = context.update(data[:end])
        context.finalize()  # raises InvalidTag before the plaintext has left this function
        return plaintext

    def encrypt_into(
        self, nonce: Octets, data: Octets, associated_data: Octets | None, buf: bytearray | memoryview
    ) -> int:
        return _fill(buf, self.encrypt(nonce, data, associated_data))

    def decrypt_into(
        self, nonce: Octets, data: Octets, associated_data: Octets | None, buf: bytearray | memoryview
    ) -> int:
        return _fill(buf, self.decrypt(nonce, data, associated_data))


class SeparateCipher(Cipher):
    """A cipher and an integrity transform of its own: encrypt, then authenticate (RFC 7296 section 3.14, 4303)."""

    __slots__ = ("integrity",)

    def __init__(self, info: EncryptionInfo, integrity: Integrity) -> None:
        super().__init__(info, integrity.icv_octets)
        self.integrity = integrity

    @abstractmethod
    def encipher(self, iv: bytes, plaintext: Octets) -> bytes:
        """Encrypt only."""

    @abstractmethod
    def decipher(self, iv: bytes, ciphertext: Octets) -> bytes:
        """Decrypt only."""

    def encrypt(self, iv: Octets, plaintext: Octets, associated: Octets, integrity_suffix: bytes = b"") -> bytes:
        """Ciphertext, then ICV; see `Cipher.encrypt`."""
        if len(iv) != self.iv_octets:
            raise ValueError(f"the IV has {self.iv_octets} octets, not {len(iv)}")
        ciphertext = self.encipher(bytes(iv), plaintext)
        return ciphertext + self.integrity.icv(b"".join((associated, iv, ciphertext, integrity_suffix)))

    def decrypt(self, iv: Octets, protected: Octets, associated: Octets, integrity_suffix: bytes = b"") -> bytes:
        """The plaintext; see `Cipher.decrypt`."""
        if len(iv) != self.iv_octets:
            raise ValueError(f"the IV has {self.iv_octets} octets, not {len(iv)}")
        end = len(protected) - self.icv_octets
        if end < 0:
            raise _icv_is_wrong()
        ciphertext = protected[:end]
        authenticated = b"".join((associated, iv, ciphertext, integrity_suffix))
        self.integrity.verify(bytes(protected[end:]), authenticated)
        return self.decipher(bytes(iv), ciphertext)


class _Cbc(SeparateCipher):
    """AES-CBC (RFC 3602) and 3DES-CBC (RFC 2451): random IV, whole blocks.

    Setting up a context of the library costs more than encrypting a packet, so there is one for each direction and it
    never ends: all messages are one chain to it. What CBC adds to a first block, the last ciphertext block of the
    message before, is exchanged for the IV.
    """

    __slots__ = ("_decryptor", "_encryptor", "_key", "_last_decrypted", "_last_encrypted")

    def __init__(self, info: EncryptionInfo, integrity: Integrity, key: algorithms.AES | TripleDES) -> None:
        super().__init__(info, integrity)
        self._key = key
        self._encryptor: ciphers.CipherContext | None = None
        self._decryptor: ciphers.CipherContext | None = None
        self._last_encrypted = self._last_decrypted = 0

    def new_iv(self) -> bytes:
        """Random octets: with CBC an IV that an attacker can predict betrays plaintext."""
        return os.urandom(self.iv_octets)

    def encipher(self, iv: bytes, plaintext: Octets) -> bytes:
        size = self.block_octets
        if len(plaintext) % size:
            raise ValueError(f"plaintext of {len(plaintext)} octets is not padded to blocks of {size}")
        if not plaintext:
            return b""
        if self._encryptor is None:
            self._encryptor = ciphers.Cipher(self._key, modes.CBC(bytes(size))).encryptor()
        first = int.from_bytes(plaintext[:size], "big") ^ int.from_bytes(iv, "big") ^ self._last_encrypted
        ciphertext = self._encryptor.update(b"".join((first.to_bytes(size, "big"), memoryview(plaintext)[size:])))
        self._last_encrypted = int.from_bytes(ciphertext[-size:], "big")
        return ciphertext

    def decipher(self, iv: bytes, ciphertext: Octets) -> bytes:
        size = self.block_octets
        if len(ciphertext) % size:
            expected = f"a multiple of {size} octets"
            raise CryptoError("the ciphertext has no whole blocks", expected=expected, got=str(len(ciphertext)))
        if not ciphertext:
            return b""
        if self._decryptor is None:
            self._decryptor = ciphers.Cipher(self._key, modes.CBC(bytes(size))).decryptor()
        plaintext = self._decryptor.update(ciphertext)
        first = int.from_bytes(plaintext[:size], "big") ^ int.from_bytes(iv, "big") ^ self._last_decrypted
        self._last_decrypted = int.from_bytes(ciphertext[-size:], "big")
        return first.to_bytes(size, "big") + plaintext[size:]


class _Ctr(SeparateCipher):
    """AES-CTR: counter block = nonce from the keying material | IV | 1, counted up (RFC 3686 section 4, RFC 5930)."""

    __slots__ = ("_counter", "_nonce", "_stream")

    def __init__(self, info: EncryptionInfo, integrity: Integrity, key: bytes, nonce: bytes) -> None:
        super().__init__(info, integrity)
        self._stream = ciphers.Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        self._nonce = nonce
        self._counter = _CounterIv()

    def new_iv(self) -> bytes:
        """The next value of the counter."""
        return self._counter()

    def encipher(self, iv: bytes, plaintext: Octets) -> bytes:
        self._stream.reset_nonce(self._nonce + iv + b"\0\0\0\1")
        return self._stream.update(plaintext)

    def decipher(self, iv: bytes, ciphertext: Octets) -> bytes:
        return self.encipher(iv, ciphertext)  # the key stream undoes itself


class _Null(SeparateCipher):
    """ENCR_NULL (RFC 2410), for ESP only: integrity without confidentiality."""

    __slots__ = ()

    def new_iv(self) -> bytes:
        """No IV."""
        return b""

    def encipher(self, iv: bytes, plaintext: Octets) -> bytes:
        return bytes(plaintext)

    def decipher(self, iv: bytes, ciphertext: Octets) -> bytes:
        return bytes(ciphertext)


_PRIMITIVES: dict[EncryptionAlgorithm, Callable[[bytes], AeadPrimitive]] = {
    _E.ENCR_AES_GCM_16: AESGCM,
    _E.ENCR_AES_GCM_12: lambda key: _ShortTagGcm(key, 12),
    _E.ENCR_AES_GCM_8: lambda key: _ShortTagGcm(key, 8),
    _E.ENCR_AES_CCM_16: lambda key: AESCCM(key, 16),
    _E.ENCR_AES_CCM_12: lambda key: AESCCM(key, 12),
    _E.ENCR_AES_CCM_8: lambda key: AESCCM(key, 8),
    _E.ENCR_CHACHA20_POLY1305: ChaCha20Poly1305,
}


def new_cipher(
    encryption: EncryptionAlgorithm,
    key_bits: int | None,
    integrity: IntegrityAlgorithm | None,
    encryption_key: bytes,
    integrity_key: bytes,
) -> Cipher:
    """The cipher of one direction. `encryption_key` ends with the salt, if the transform has one.

    `integrity` is None (or NONE) with an AEAD and named with everything else: ciphertext without integrity is refused.
    """
    info = encryption_info(encryption, key_bits)
    if len(encryption_key) != info.keying_octets:
        raise ValueError(f"{encryption.name} takes {info.keying_octets} octets of key, not {len(encryption_key)}")
    key, salt = encryption_key[: info.key_octets], encryption_key[info.key_octets :]
    if info.is_aead:
        if integrity or integrity_key:
            raise UnsupportedAlgorithm(f"{encryption.name} has integrity of its own; none goes beside it")
        return AeadCipher(info, salt, _PRIMITIVES[encryption](key))
    if not integrity:
        raise UnsupportedAlgorithm(f"{encryption.name} needs an integrity algorithm beside it")
    check = Integrity(integrity, integrity_key)
    if encryption == _E.ENCR_AES_CBC:
        return _Cbc(info, check, algorithms.AES(key))
    if encryption == _E.ENCR_AES_CTR:
        return _Ctr(info, check, key, salt)
    if encryption == _E.ENCR_3DES:
        return _Cbc(info, check, TripleDES(key))
    return _Null(info, check)


def _icv_is_wrong() -> IntegrityCheckFailed:
    return IntegrityCheckFailed("the integrity check value is wrong")


def _fill(out: bytearray | memoryview, octets: bytes) -> int:
    if len(out) != len(octets):
        raise ValueError(f"the buffer has {len(out)} octets where {len(octets)} are written")
    out[:] = octets
    return len(octets)

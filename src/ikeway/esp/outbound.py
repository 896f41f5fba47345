"""Sealing packets: one outbound SA (RFC 4303 section 3.3)."""

from __future__ import annotations

import os
import struct
from collections import deque
from functools import lru_cache
from itertools import islice, starmap

import numpy as np

from ikeway.crypto import AeadCipher, new_cipher
from ikeway.esp.drops import Drop
from ikeway.esp.frames import Frames, FrameShape
from ikeway.esp.inner import Octets
from ikeway.esp.native_suites import native_sa
from ikeway.esp.parameters import EspSa
from ikeway.esp.sequence import LAST_EXTENDED, LAST_SHORT, MARGIN
from ikeway.esp.usage import Usage
from ikeway.native.layout import SealJob
from ikeway.wire.registry import EncryptionAlgorithm

_HEADER = struct.Struct(">II")
_EXTENDED_AAD = struct.Struct(">IQ")

_IV_MASK = (1 << 64) - 1
_MOST_OCTETS = (1 << 64) - 1

# Padding is 1, 2, 3, ... (RFC 4303 section 2.4).
PADDING = bytes(range(1, 256))


@lru_cache(maxsize=1024)
def _trailer(padding: int, next_header: int) -> bytes:
    return PADDING[:padding] + bytes((padding, next_header))


class OutboundSa:
    """Sequence number, cipher and limits of one direction that we send in.

    `usage` counts; `soft_due` and `hard_due` say when the owner has to be told. `sequence` is the last number used.
    IVs that count (those of AEADs and of AES-CTR) are `iv_base + sequence` modulo 2^64, so that whoever knows both can
    go on with an SA elsewhere without using an IV twice. `iv_base` is random where none is given.
    """

    __slots__ = (
        "_aead",
        "_align",
        "_cipher",
        "_counts_ivs",
        "_extended",
        "_last_octets",
        "_last_sequence",
        "_soft_octets",
        "_soft_sequence",
        "iv_base",
        "native",
        "parameters",
        "sequence",
        "usage",
    )

    def __init__(self, parameters: EspSa, iv_base: int | None = None, sequence: int = 0) -> None:
        transforms, limits = parameters.transforms, parameters.limits
        self.parameters = parameters
        self.usage = Usage()
        self.sequence = sequence
        self._cipher = new_cipher(
            transforms.encryption,
            transforms.key_bits,
            transforms.integrity,
            parameters.encryption_key,
            parameters.integrity_key,
        )
        self.native = native_sa(parameters, sealing=True)
        self._aead = self._cipher.is_aead
        self._counts_ivs = self._aead or transforms.encryption == EncryptionAlgorithm.ENCR_AES_CTR
        self.iv_base = int.from_bytes(os.urandom(8), "big") if iv_base is None else iv_base & _IV_MASK
        self._align = max(4, self._cipher.block_octets)
        self._extended = transforms.extended_sequence_numbers
        last = LAST_EXTENDED if self._extended else LAST_SHORT
        self._last_sequence = min(last, limits.hard_packets or last)
        self._soft_sequence = min(last - MARGIN, limits.soft_packets or last)
        self._last_octets = limits.hard_bytes or 1 << 128
        self._soft_octets = limits.soft_bytes or 1 << 128

    @property
    def soft_due(self) -> bool:
        """A soft limit is reached, or the sequence numbers come to their end."""
        return self.sequence >= self._soft_sequence or self.usage.octets >= self._soft_octets

    @property
    def hard_due(self) -> bool:
        """Nothing can be sent any more."""
        return self.sequence >= self._last_sequence or self.usage.octets >= self._last_octets

    def refusal(self) -> Drop | None:
        """Why the next packet cannot be sealed; None when it can."""
        if not self.hard_due:
            return None
        last = LAST_EXTENDED if self._extended else LAST_SHORT
        return Drop.SEQUENCE_END if self.sequence >= last else Drop.EXPIRED

    def overhead(self, payload: int) -> int:
        """Octets that ESP adds to a payload of this length: header, IV, padding, trailer, ICV."""
        return 8 + self._cipher.iv_octets + 2 + (-(payload + 2) % self._align) + self._cipher.icv_octets

    def largest_payload(self, room: int) -> int:
        """The longest payload whose ESP packet is not longer than `room` octets."""
        fixed = 8 + self._cipher.iv_octets + self._cipher.icv_octets
        return max((room - fixed) // self._align * self._align - 2, 0)

    def trailer(self, payload: int, next_header: int) -> bytes:
        """Padding, its length, and the next header for a payload of this length."""
        return _trailer(-(payload + 2) % self._align, next_header)

    def seal(self, payload: Octets, next_header: int) -> bytes | Drop:
        """One ESP packet."""
        if self.sequence >= self._last_sequence or self.usage.octets >= self._last_octets:
            return self.refusal() or Drop.EXPIRED
        return self.seal_padded(b"".join((payload, self.trailer(len(payload), next_header))), len(payload))

    def seal_padded(self, padded: Octets, payload: int, iv: bytes | None = None) -> bytes:
        """One ESP packet of a payload that has its trailer; the caller has asked `refusal` before.

        `payload` is the length without trailer, which is what is counted.
        """
        self.sequence = sequence = self.sequence + 1
        usage = self.usage
        usage.packets += 1
        usage.octets += payload
        spi = self.parameters.spi
        header = _HEADER.pack(spi, sequence & LAST_SHORT)
        if iv is None:
            iv = self._iv(sequence)
        if not self._extended:
            return b"".join((header, iv, self._cipher.encrypt(iv, padded, header)))
        if self._aead:  # RFC 4106 section 5: the whole 64 bits are associated
            return b"".join((header, iv, self._cipher.encrypt(iv, padded, _EXTENDED_AAD.pack(spi, sequence))))
        high = (sequence >> 32).to_bytes(4, "big")  # RFC 4303 section 2.2.1: behind what is authenticated, not sent
        return b"".join((header, iv, self._cipher.encrypt(iv, padded, header, high)))

    def shape(self, padded: int) -> FrameShape:
        """The layout of frames for payloads that have this length with their trailer."""
        cipher = self._cipher
        nonce = len(cipher.salt) + 8 if isinstance(cipher, AeadCipher) else 0
        return FrameShape(
            self.packet_octets(padded), 8 + cipher.iv_octets, cipher.icv_octets, nonce, 12 if self._extended else 8
        )

    def seal_frames(self, frames: Frames, count: int, payload: int) -> int:
        """Seal the first `count` rows in place: their payloads are there, each with its trailer.

        As many as limits and sequence numbers allow; how many is returned. `payload` is what is counted of each.
        """
        if self.hard_due:
            return 0
        left = self._last_octets - self.usage.octets
        count = min(count, self._last_sequence - self.sequence, -(-left // payload) if payload else count)
        cipher = self._cipher
        if not isinstance(cipher, AeadCipher):
            for number in range(count):
                frames.row(number)[:] = self.seal_padded(frames.plain[number], payload)
            return count
        sequences = np.arange(self.sequence + 1, self.sequence + count + 1, dtype=np.uint64)
        ivs = sequences + np.uint64(self.iv_base)  # wraps, as IVs may
        matrix = frames.matrix[:count]
        matrix[:, :4] = tuple(self.parameters.spi.to_bytes(4, "big"))
        matrix[:, 4:8].view(">u4")[:, 0] = sequences
        matrix[:, 8:16].view(">u8")[:, 0] = ivs
        salt = len(cipher.salt)
        frames.nonces[:count, :salt] = tuple(cipher.salt)
        frames.nonces[:count, salt:].view(">u8")[:, 0] = ivs
        if self._extended:
            frames.extended[:count, :4] = matrix[:, :4]
            frames.extended[:count, 4:].view(">u8")[:, 0] = sequences
        seal = cipher.primitive.encrypt_into
        rows = islice(zip(frames.nonce_rows, frames.plain, frames.associated, frames.protected, strict=True), count)
        deque(starmap(seal, rows), maxlen=0)
        self.sequence += count
        self.usage.packets += count
        self.usage.octets += count * payload
        return count

    def prepare(self, job: SealJob) -> None:
        """Tell a job of the native core what this SA is and how far it may go (`native` is there)."""
        if self.native is None:
            raise ValueError("this SA is not in the native core")
        job.sa, job.spi = self.native.pointer, self.parameters.spi
        job.sequence, job.iv_base = self.sequence, self.iv_base
        job.sequences_left = max(self._last_sequence - self.sequence, 0)
        job.octets_left = min(max(self._last_octets - self.usage.octets, 0), _MOST_OCTETS)

    def take_over(self, sequence: int, packets: int, octets: int) -> None:
        """Count what the native core has sealed, up to this sequence number."""
        self.sequence = sequence
        self.usage.packets += packets
        self.usage.octets += octets

    def packet_octets(self, padded: int) -> int:
        """The length of the ESP packet of a payload with trailer."""
        return 8 + self._cipher.iv_octets + padded + self._cipher.icv_octets

    def _iv(self, sequence: int) -> bytes:
        if self._counts_ivs:
            return (self.iv_base + sequence & _IV_MASK).to_bytes(8, "big")
        return self._cipher.new_iv()

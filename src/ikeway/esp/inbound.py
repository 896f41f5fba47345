"""Opening packets: one inbound SA (RFC 4303 section 3.4)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import islice, starmap
from typing import NamedTuple

from cryptography.exceptions import InvalidTag

from ikeway.crypto import AeadCipher, new_cipher
from ikeway.errors import CryptoError
from ikeway.esp.drops import Drop
from ikeway.esp.frames import Frames, FrameShape
from ikeway.esp.inner import Octets
from ikeway.esp.native_suites import native_sa
from ikeway.esp.outbound import PADDING
from ikeway.esp.parameters import EspSa
from ikeway.esp.replay import ReplayWindow
from ikeway.esp.sequence import LAST_SHORT, MARGIN, infer_sequence
from ikeway.esp.usage import Usage
from ikeway.native.layout import OpenJob

NO_NEXT_HEADER = 59
_MOST_PACKETS = (1 << 64) - 1

_HEADER = struct.Struct(">II")
_EXTENDED_AAD = struct.Struct(">IQ")


class Opened(NamedTuple):
    """What an authentic ESP packet carried."""

    payload: Octets
    next_header: int


class InboundSa:
    """Replay window, cipher and limits of one direction that we receive in.

    Numbers up to `highest` count as seen: for going on with an SA that was used elsewhere.
    """

    __slots__ = (
        "_aead",
        "_align",
        "_cipher",
        "_extended",
        "_head",
        "_last_octets",
        "_last_packets",
        "_smallest",
        "_soft_octets",
        "_soft_packets",
        "native",
        "parameters",
        "usage",
        "window",
    )

    def __init__(self, parameters: EspSa, highest: int = 0) -> None:
        transforms, limits = parameters.transforms, parameters.limits
        self.parameters = parameters
        self.usage = Usage()
        self.window = ReplayWindow(parameters.replay_window, highest)
        self._cipher = new_cipher(
            transforms.encryption,
            transforms.key_bits,
            transforms.integrity,
            parameters.encryption_key,
            parameters.integrity_key,
        )
        self.native = native_sa(parameters, sealing=False)
        self._aead = self._cipher.is_aead
        self._extended = transforms.extended_sequence_numbers
        self._align = max(4, self._cipher.block_octets)
        self._head = 8 + self._cipher.iv_octets
        self._smallest = self._head + self._align + self._cipher.icv_octets
        self._last_packets = limits.hard_packets or 1 << 128
        self._last_octets = limits.hard_bytes or 1 << 128
        self._soft_packets = limits.soft_packets or 1 << 128
        self._soft_octets = limits.soft_bytes or 1 << 128

    @property
    def soft_due(self) -> bool:
        """A soft limit is reached, or the peer's sequence numbers come to their end."""
        usage = self.usage
        return (
            usage.packets >= self._soft_packets
            or usage.octets >= self._soft_octets
            or (not self._extended and self.window.highest > LAST_SHORT - MARGIN)
        )

    @property
    def hard_due(self) -> bool:
        """Nothing is accepted any more."""
        return self.usage.packets >= self._last_packets or self.usage.octets >= self._last_octets

    def open(self, packet: Octets) -> Opened | Drop:
        """Verify and decrypt one ESP packet, whatever its octets are. Nothing is counted here."""
        if self.hard_due:
            return Drop.EXPIRED
        plain = self._decrypt(packet)
        return plain if isinstance(plain, Drop) else strip(plain)

    def shape(self, size: int) -> FrameShape:
        """The layout of received packets of this length."""
        cipher = self._cipher
        nonce = len(cipher.salt) + 8 if isinstance(cipher, AeadCipher) else 0
        return FrameShape(size, self._head, cipher.icv_octets, nonce, 12 if self._extended else 8)

    def open_frames(self, frames: Frames, count: int) -> list[Drop | None]:
        """Verify and decrypt the first `count` rows in place.

        What became of each: None when its plaintext stands in `frames.plain`, trailer included; that is void
        otherwise.
        """
        if self.hard_due or count > self._last_packets - self.usage.packets:
            allowed = 0 if self.hard_due else self._last_packets - self.usage.packets
            return [*(self._open_row(frames, number) for number in range(allowed)), *[Drop.EXPIRED] * (count - allowed)]
        cipher = self._cipher
        if isinstance(cipher, AeadCipher) and self._fits(frames.shape.size):
            sequences = self._sequences(frames, count)
            if sequences is not None:
                return self._open_newest(cipher.primitive.decrypt_into, cipher.salt, frames, sequences)
        return [self._open_row(frames, number) for number in range(count)]

    def prepare(self, job: OpenJob) -> None:
        """Tell a job of the native core what this SA is and how far it may go (`native` is there).

        The core moves the job's `highest` and the ring of the window; whoever calls it takes `highest` over.
        """
        if self.native is None:
            raise ValueError("this SA is not in the native core")
        window, usage = self.window, self.usage
        job.sa, job.window, job.highest, job.ring = self.native.pointer, window.size, window.highest, window.address
        left = 0 if usage.octets >= self._last_octets else self._last_packets - usage.packets
        job.packets_left = min(max(left, 0), _MOST_PACKETS)

    def _fits(self, size: int) -> bool:
        return size >= self._smallest and not (size - self._head - self._cipher.icv_octets) % self._align

    def _sequences(self, frames: Frames, count: int) -> list[int] | None:
        """The sequence numbers, if they rise and are all beyond the highest one seen: then all are new."""
        low: list[int] = frames.matrix[:count, 4:8].copy().view(">u4")[:, 0].tolist()
        window = self.window
        if self._extended:
            low = [infer_sequence(number, window.highest, window.size) for number in low]
        if low[0] <= window.highest or any(low[at] <= low[at - 1] for at in range(1, count)):
            return None
        return low

    def _open_newest(
        self, decrypt: Callable[..., int], salt: bytes, frames: Frames, sequences: list[int]
    ) -> list[Drop | None]:
        """Open rows that are newer than everything before, and then move the window over those that are authentic."""
        count = len(sequences)
        frames.nonces[:count, : len(salt)] = tuple(salt)
        frames.nonces[:count, len(salt) :] = frames.matrix[:count, 8:16]
        if self._extended:
            frames.extended[:count, :4] = frames.matrix[:count, :4]
            frames.extended[:count, 4:].view(">u8")[:, 0] = sequences
        rows = islice(zip(frames.nonce_rows, frames.protected, frames.associated, frames.plain, strict=True), count)
        results: list[Drop | None] = []
        opened = starmap(decrypt, rows)
        while len(results) < count:
            try:
                for _ in opened:
                    results.append(None)
            except InvalidTag:
                results.append(Drop.INTEGRITY)
        if sequences[-1] - sequences[0] == count - 1 and not any(results):
            self.window.add_run(sequences[0], count)
            return results
        add = self.window.add
        for sequence, result in zip(sequences, results, strict=True):
            if result is None:
                add(sequence)
        return results

    def _open_row(self, frames: Frames, number: int) -> Drop | None:
        """Open one row in place."""
        plain = self._decrypt(frames.row(number))
        if isinstance(plain, Drop):
            return plain
        frames.plain[number][:] = plain
        return None

    def plain_octets(self, packet: int) -> int:
        """The length of the plaintext in a packet of this length, trailer included; not positive: it has none."""
        return packet - self._head - self._cipher.icv_octets

    def _decrypt(self, packet: Octets) -> bytes | Drop:
        """The plaintext with its trailer.

        The window is looked at, then the ICV is checked, then the window is moved.
        """
        if not self._fits(len(packet)):
            return Drop.TOO_SHORT
        window, cipher = self.window, self._cipher
        spi, sequence = _HEADER.unpack_from(packet)
        associated, suffix = packet[:8], b""
        if self._extended:
            low, sequence = sequence, infer_sequence(sequence, window.highest, window.size)
            if sequence > 0 and self._aead:
                associated = _EXTENDED_AAD.pack(spi, sequence)
            elif sequence > 0:
                suffix = ((sequence - low) >> 32).to_bytes(4, "big")
        if not window.is_new(sequence):
            return Drop.TOO_OLD if window.is_too_old(sequence) else Drop.REPLAYED
        try:
            plain = cipher.decrypt(bytes(packet[8 : self._head]), packet[self._head :], associated, suffix)
        except CryptoError:
            return Drop.INTEGRITY
        window.add(sequence)
        return plain


def strip(plain: Octets) -> Opened | Drop:
    """Take the trailer off an authentic plaintext (RFC 4303 section 2.4 to 2.6)."""
    padding, next_header = plain[-2], plain[-1]
    if next_header == NO_NEXT_HEADER:  # nothing else in it need be well-formed (RFC 4303 section 2.6)
        return Drop.DUMMY
    end = len(plain) - 2 - padding
    if end < 0 or plain[end:-2] != PADDING[:padding]:
        return Drop.PADDING
    return Opened(memoryview(plain)[:end], next_header)

"""Opening packets: one inbound SA (RFC 4303 section 3.4)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from ikeway.crypto import AeadCipher, new_cipher
from ikeway.errors import CryptoError
from ikeway.esp.drops import Drop
from ikeway.esp.inner import Octets
from ikeway.esp.outbound import PADDING
from ikeway.esp.parameters import EspSa
from ikeway.esp.replay import ReplayWindow
from ikeway.esp.sequence import LAST_SHORT, MARGIN, infer_sequence
from ikeway.esp.usage import Usage

NO_NEXT_HEADER = 59

_HEADER = struct.Struct(">II")
_EXTENDED_AAD = struct.Struct(">IQ")


class Opened(NamedTuple):
    """What an authentic ESP packet carried."""

    payload: Octets
    next_header: int


class InboundSa:
    """Replay window, cipher and limits of one direction that we receive in."""

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
        "parameters",
        "usage",
        "window",
    )

    def __init__(self, parameters: EspSa) -> None:
        transforms, limits = parameters.transforms, parameters.limits
        self.parameters = parameters
        self.usage = Usage()
        self.window = ReplayWindow(parameters.replay_window)
        self._cipher = new_cipher(
            transforms.encryption,
            transforms.key_bits,
            transforms.integrity,
            parameters.encryption_key,
            parameters.integrity_key,
        )
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
        plain = self._decrypt(packet, None)
        return plain if isinstance(plain, Drop) else strip(plain)

    def open_rows(self, packets: memoryview, size: int, rows: memoryview) -> list[Drop | None]:
        """Verify and decrypt packets of `size` octets that lie side by side, to plaintexts side by side in `rows`.

        What became of each: None when it is in its row, trailer included; its row is void otherwise.
        """
        width = self.plain_octets(size)
        results: list[Drop | None] = []
        left = 0 if self.hard_due else self._last_packets - self.usage.packets
        at = 0
        for start in range(0, len(packets), size):
            plain = self._decrypt(packets[start : start + size], rows[at : at + width]) if left > 0 else Drop.EXPIRED
            results.append(plain if isinstance(plain, Drop) else None)
            at += width
            left -= 1
        return results

    def plain_octets(self, packet: int) -> int:
        """The length of the plaintext in a packet of this length, trailer included; not positive: it has none."""
        return packet - self._head - self._cipher.icv_octets

    def _decrypt(self, packet: Octets, out: memoryview | None) -> Octets | Drop:
        """The plaintext with its trailer (in `out`, if given).

        The window is looked at, then the ICV is checked, then the window is moved.
        """
        if len(packet) < self._smallest or (len(packet) - self._head - self._cipher.icv_octets) % self._align:
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
        plain: Octets
        try:
            if out is not None and isinstance(cipher, AeadCipher):
                plain = out
                cipher.decrypt_into(packet[8 : self._head], packet[self._head :], associated, plain)
            else:
                plain = cipher.decrypt(bytes(packet[8 : self._head]), packet[self._head :], associated, suffix)
                if out is not None:
                    out[:] = plain
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

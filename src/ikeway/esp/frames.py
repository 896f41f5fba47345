"""ESP packets of one length side by side: what makes sealing and opening of many cost little more than their AEAD.

A row is SPI, sequence number, IV, ciphertext, ICV. numpy writes or reads the columns of all rows at once; the AEAD works
in place, row by row, on views that are made once and used again for every train of that length.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_KEPT = 32


class FrameShape(NamedTuple):
    """What the layout of a row depends on, all in octets. `associated` is 12 with extended sequence numbers."""

    size: int
    head: int
    icv: int
    nonce: int
    associated: int


class Frames:
    """Rows over a part of a buffer. All rows are views of it: they are valid until it is used for something else.

    The lists have views for the first rows only, as many as `prepare` was asked for.
    """

    __slots__ = (
        "_buffer",
        "_sides",
        "associated",
        "extended",
        "matrix",
        "nonce_rows",
        "nonces",
        "plain",
        "protected",
        "shape",
    )

    def __init__(self, buffer: memoryview, shape: FrameShape) -> None:
        count = len(buffer) // shape.size
        self._buffer = buffer
        self.shape = shape
        self.matrix: Bytes = np.frombuffer(buffer, np.uint8, count * shape.size).reshape(count, shape.size)
        # Octets that belong to the rows but are not sent: nonces, and what is associated with ESN.
        extended = 12 if shape.associated == 12 else 0
        self._sides = memoryview(bytearray(count * shape.nonce)), memoryview(bytearray(count * extended))
        self.nonces: Bytes = np.frombuffer(self._sides[0], np.uint8).reshape(count, shape.nonce)
        self.extended: Bytes = np.frombuffer(self._sides[1], np.uint8).reshape(count, extended)
        self.nonce_rows: list[memoryview] = []
        self.plain: list[memoryview] = []
        self.protected: list[memoryview] = []
        self.associated: list[memoryview] = []

    def prepare(self, count: int) -> None:
        """Make the views of the first `count` rows, unless they are there."""
        size, head, icv, nonce, associated = self.shape
        buffer, (nonces, extended) = self._buffer, self._sides
        for row in range(len(self.plain), count):
            at = row * size
            self.plain.append(buffer[at + head : at + size - icv])
            self.protected.append(buffer[at + head : at + size])
            self.nonce_rows.append(nonces[row * nonce : (row + 1) * nonce])
            self.associated.append(extended[row * 12 : row * 12 + 12] if associated == 12 else buffer[at : at + 8])

    def row(self, number: int) -> memoryview:
        """One whole row."""
        size = self.shape.size
        return self._buffer[number * size : (number + 1) * size]

    def rows(self, count: int) -> memoryview:
        """The first rows, side by side."""
        return self._buffer[: count * self.shape.size]


class FrameBuffer:
    """A buffer, and the views for the lengths that were used last."""

    __slots__ = ("_kept", "buffer")

    def __init__(self, octets: int) -> None:
        self.buffer = memoryview(bytearray(octets))
        self._kept: OrderedDict[FrameShape, Frames] = OrderedDict()

    def frames(self, shape: FrameShape, count: int) -> Frames:
        """Rows of a shape over the whole buffer, the first `count` of them prepared."""
        known = self._kept.get(shape)
        if known is None:
            known = self._kept[shape] = Frames(self.buffer, shape)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(shape)
        known.prepare(count)
        return known

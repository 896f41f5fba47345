"""What was decided about flows and SPIs, remembered by the core until something changes (forward.c)."""

from __future__ import annotations

import os
from ctypes import Structure, addressof

from ikeway.native import Core

_BITS = 13  # 8,192 places of 56 octets


class Flows:
    """`value` is a structure that lives until `forget`; `owner` tells the flows of one SA from those of others."""

    __slots__ = ("_core", "pointer")

    def __init__(self, core: Core) -> None:
        self._core = core
        pointer = core.ikw_flows_new(_BITS, int.from_bytes(os.urandom(8), "little"))
        if pointer is None:
            raise MemoryError
        self.pointer = pointer

    def __del__(self) -> None:
        if hasattr(self, "pointer"):
            self._core.ikw_flows_free(self.pointer)

    def forget(self) -> None:
        """Everything."""
        self._core.ikw_flows_clear(self.pointer)

    def remember_flow(self, packet_at: int, length: int, value: Structure, owner: Structure | None = None) -> None:
        """What the flow of the packet at this address means. Of one that has no plain flow, nothing is remembered."""
        owner_at = addressof(owner) if owner is not None else None
        self._core.ikw_remember_flow(self.pointer, owner_at, packet_at, length, addressof(value))

    def remember_spi(self, spi: int, value: Structure) -> None:
        """What an SPI means."""
        self._core.ikw_remember_spi(self.pointer, spi, addressof(value))

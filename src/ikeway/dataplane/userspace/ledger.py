"""What must be known of SAs when their worker has died: memory that it shares with the daemon, a slot for each SA.

A worker can die at any instruction, so the ledger is written ahead of what it speaks of:

- *Outbound*, `mark` is the sequence number up to which numbers may have been used. Before a batch it is at least
  `LARGEST_BATCH` beyond the last number used, so that the batch stays under it whatever becomes of the worker. Who
  goes on with the SA begins above it. IVs that count are the SA's base plus the sequence number, so they do not
  come again either.
- *Inbound*, `mark` is the highest number authenticated, written before the host gets the packet. Who goes on with the
  SA takes everything up to it for seen; a packet that was late just then is lost, none is delivered twice.

Packets and octets stand beside it, so that limits and counters go on. Every number is one aligned store of 64 bits,
which the death of a process cannot tear.
"""

from __future__ import annotations

import mmap
import os
from typing import NamedTuple

from ikeway.errors import HostError
from ikeway.esp.sequence import LAST_EXTENDED
from ikeway.esp.usage import Usage

SLOTS = 1 << 18
GONE = -1  # the slot of an SA that was removed: nothing is written any more
_WORDS = 4  # of 64 bits: mark, packets, octets, time of the last packet

# A batch ends when 192 KiB have been read, so its last super-packet ends before 256 KiB (a test holds both ways of reading
# to it), and a segment has an octet at the least. The rest is room for other batches to come.
LARGEST_BATCH = 1 << 19
MARGIN = 1 << 20


class Entry(NamedTuple):
    """One slot. `last_used` as in `Usage`."""

    mark: int
    packets: int
    octets: int
    last_used: float


class Ledger:
    """The memory. The daemon makes it (`fd` None), and claims and frees slots; the worker, which inherits its
    descriptor, writes into those that it is told of."""

    def __init__(self, fd: int | None = None) -> None:
        """Map it. Pages that no slot lies in take no memory."""
        octets = SLOTS * _WORDS * 8
        if fd is None:
            fd = os.memfd_create("ikeway-ledger")
            os.ftruncate(fd, octets)
        self.fd = fd
        self._memory = mmap.mmap(fd, octets)
        self._words = memoryview(self._memory).cast("Q")
        self._times = memoryview(self._memory).cast("d")
        self._free: list[int] = []
        self._first_unused = 0

    # -- the daemon's side

    def claim(self, mark: int) -> int:
        """A slot for an SA that begins with this mark. Raises `HostError` when all are taken."""
        if self._free:
            slot = self._free.pop()
        elif self._first_unused < SLOTS:
            slot = self._first_unused
            self._first_unused += 1
        else:
            raise HostError(
                f"the data plane has {SLOTS} SAs", remedy="let the gateway have more workers, or let SAs live shorter"
            )
        self._write(slot, mark, Usage())
        return slot

    def free(self, slot: int) -> None:
        """Nobody writes into this slot any more: either the worker has said so, or it is dead."""
        self._free.append(slot)

    def read(self, slot: int) -> Entry:
        """What stands there. Of a worker that lives, it may be some packets old."""
        at = slot * _WORDS
        words = self._words
        return Entry(words[at], words[at + 1], words[at + 2], self._times[at + 3])

    def reserve(self, slot: int, mark: int) -> None:
        """Let an SA go on up to this mark. No worker lives meanwhile."""
        self._words[slot * _WORDS] = mark

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        if self.fd < 0:
            return
        fd, self.fd = self.fd, -1
        self._words.release()
        self._times.release()
        self._memory.close()
        os.close(fd)

    # -- the worker's side

    def ahead(self, slot: int, mark: int, sequence: int, usage: Usage) -> int:
        """Note what an outbound SA has used so far, and reserve more when the next batch might not fit under `mark`.
        Returns the mark of now."""
        if sequence + LARGEST_BATCH > mark:
            mark = min(sequence + MARGIN, LAST_EXTENDED)
        self._write(slot, mark, usage)
        return mark

    def seen(self, slot: int, highest: int, usage: Usage) -> None:
        """Note the highest number authenticated on an inbound SA."""
        self._write(slot, highest, usage)

    def address(self, slot: int) -> int:
        """Where in this process the slot lies, for a native core that delivers by itself: it has to write the mark of an
        inbound SA first. The worker's side only: the memory cannot be given back any more."""
        import ctypes

        return ctypes.addressof(ctypes.c_char.from_buffer(self._memory)) + slot * _WORDS * 8

    def _write(self, slot: int, mark: int, usage: Usage) -> None:
        if slot < 0:
            return
        at = slot * _WORDS
        words = self._words
        words[at] = mark
        words[at + 1] = usage.packets
        words[at + 2] = usage.octets
        self._times[at + 3] = usage.last_used

"""Writing to files that others read while they grow, on disks that may be full."""

from __future__ import annotations

import contextlib
import os


def write_whole(fd: int, octets: bytes) -> None:
    """Write all of it at the end of a file, or nothing. Raises `OSError`."""
    size, left = os.fstat(fd).st_size, memoryview(octets)
    try:
        while left:
            left = left[os.write(fd, left) :]
    except OSError:
        if len(left) < len(octets):
            with contextlib.suppress(OSError):  # a pipe, from which nothing comes back
                os.ftruncate(fd, size)
        raise

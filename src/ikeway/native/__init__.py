"""The native core: what a C compiler made of the files beside this one, loaded with ctypes.

It has the loops over octets of the userspace data plane: cutting, sealing, opening, merging, and system calls for many
packets at once. Python decides and counts. Everything works without it, slower: it is left out where no C compiler was
there when Ikeway was installed, where the process finds no OpenSSL 3, or where the environment says `IKEWAY_NATIVE=0`.
`IKEWAY_NATIVE=openssl` leaves AES-GCM to OpenSSL as well (gcm.c is faster, with a CPU that has VAES).

`core()` is the library or None, `status()` says why.
"""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

from ikeway.native.layout import LAYOUT

SWITCH = "IKEWAY_NATIVE"

_OPENSSL = ("libcrypto.so.3", "libcrypto.so.4", "libcrypto.so")


class Core(Protocol):
    """The functions of the library. Jobs are structures of `layout`, passed by reference."""

    def ikw_sa_new(self, suite: object, /) -> int | None:
        """See crypto.c."""

    def ikw_sa_free(self, sa: int | None, /) -> None:
        """See crypto.c."""

    def ikw_take(self, arena: object, at: int, length: int, header: int, packet: object, /) -> None:
        """See outbound.c."""

    def ikw_seal(self, job: object, /) -> None:
        """See outbound.c."""

    def ikw_flows_new(self, bits: int, seed: object, /) -> int | None:
        """See forward.c."""

    def ikw_flows_free(self, flows: object, /) -> None:
        """See forward.c."""

    def ikw_flows_clear(self, flows: object, /) -> None:
        """See forward.c."""

    def ikw_remember_flow(self, flows: object, owner: object, packet: object, length: int, value: object, /) -> None:
        """See forward.c."""

    def ikw_remember_spi(self, flows: object, spi: int, value: object, /) -> None:
        """See forward.c."""

    def ikw_out(self, job: object, /) -> int:
        """See forward.c."""

    def ikw_in(self, job: object, /) -> int:
        """See forward.c."""

    def ikw_loop(self, job: object, /) -> int:
        """See forward.c."""

    def ikw_left(self, job: object, /) -> int:
        """See outbound.c."""

    def ikw_sort(self, job: object, /) -> None:
        """See inbound.c."""

    def ikw_open(self, job: object, /) -> None:
        """See inbound.c."""

    def ikw_merge(self, job: object, /) -> None:
        """See inbound.c."""

    def ikw_read(self, job: object, /) -> int:
        """See io.c."""

    def ikw_write(self, job: object, /) -> None:
        """See io.c."""

    def ikw_receive(self, job: object, /) -> int:
        """See io.c."""

    def ikw_send(self, job: object, /) -> int:
        """See io.c."""


class Status(NamedTuple):
    """Whether the native core is used, and in a sentence which one or why not."""

    used: bool
    detail: str


def core() -> Core | None:
    """The library, if it can be used here."""
    return _loaded(os.environ.get(SWITCH, ""))[0]


def status() -> Status:
    """Whether and why."""
    library, detail = _loaded(os.environ.get(SWITCH, ""))
    return Status(library is not None, detail)


def openssl_only() -> bool:
    """Whether the environment leaves all ciphers to OpenSSL."""
    return os.environ.get(SWITCH, "").lower() == "openssl"


def built() -> Path | None:
    """The library's file."""
    return next(iter(sorted(Path(__file__).parent.glob("_core*.so"))), None)


@lru_cache(maxsize=4)
def _loaded(switch: str) -> tuple[Core | None, str]:
    if switch.lower() in ("0", "off", "no"):
        return None, f"switched off ({SWITCH}={switch} in the environment)"
    file = built()
    if file is None:
        return None, "it was not built: install a C compiler (Debian: gcc libc6-dev) and install Ikeway again"
    try:
        library = ctypes.CDLL(str(file))
        library.ikw_layout.restype = ctypes.c_uint32
        layout = library.ikw_layout()
    except (OSError, AttributeError) as error:
        return None, f"{file.name} cannot be loaded ({error}): install Ikeway again"
    if layout != LAYOUT:
        return None, f"{file.name} is of another version of Ikeway: install Ikeway again"
    library.ikw_load.restype = ctypes.c_char_p
    for name in _OPENSSL:
        if library.ikw_load(name.encode()) is None:
            own = library.ikw_vaes() and switch.lower() != "openssl"
            return _declared(library), f"{file.name} with {name}" + (", AES-GCM with VAES" if own else "")
    return None, f"no OpenSSL 3 was found ({_OPENSSL[0]}; Debian: libssl3)"


def _declared(library: ctypes.CDLL) -> Core:
    library.ikw_sa_new.restype = ctypes.c_void_p
    library.ikw_sa_free.argtypes = [ctypes.c_void_p]
    library.ikw_left.restype = ctypes.c_uint32
    pointer, number = ctypes.c_void_p, ctypes.c_uint32
    library.ikw_flows_new.restype = pointer
    library.ikw_flows_new.argtypes = [number, ctypes.c_uint64]
    library.ikw_flows_free.argtypes = library.ikw_flows_clear.argtypes = [pointer]
    library.ikw_remember_flow.argtypes = [pointer, pointer, pointer, number, pointer]
    library.ikw_remember_spi.argtypes = [pointer, number, pointer]
    for name in (
        "ikw_sa_free",
        "ikw_take",
        "ikw_seal",
        "ikw_sort",
        "ikw_open",
        "ikw_merge",
        "ikw_write",
        "ikw_flows_free",
        "ikw_flows_clear",
        "ikw_remember_flow",
        "ikw_remember_spi",
    ):
        getattr(library, name).restype = None
    for name in ("ikw_read", "ikw_receive", "ikw_send", "ikw_out", "ikw_in", "ikw_loop"):
        getattr(library, name).restype = ctypes.c_int
    result: Core = library
    return result

"""One direction of an ESP SA under the native core: its cipher contexts, which are wiped when it goes."""

from __future__ import annotations

import ctypes

from ikeway.native import Core, core, openssl_only
from ikeway.native.layout import MODE_AEAD, MODE_CBC, MODE_CCM, MODE_CTR, Suite


class NativeSa:
    """A handle of the library (`pointer`)."""

    __slots__ = ("core", "pointer")

    def __init__(self, library: Core, pointer: int) -> None:
        self.core = library
        self.pointer = pointer

    def __del__(self) -> None:
        self.core.ikw_sa_free(self.pointer)


def new_sa(
    cipher: str,
    key: bytes,
    *,
    salt: bytes,
    iv_octets: int,
    icv_octets: int,
    align: int,
    digest: str,
    integrity_key: bytes,
    extended: bool,
    sealing: bool,
) -> NativeSa | None:
    """An SA by OpenSSL's names of cipher and digest (empty with an AEAD); None where the core is not used, or lacks it."""
    library = core()
    if library is None:
        return None
    suite = Suite(
        cipher.encode(),
        digest.encode() or None,
        key,
        integrity_key,
        salt,
        len(integrity_key),
        len(salt),
        iv_octets,
        icv_octets,
        align,
        _mode(cipher, digest),
        extended,
        sealing,
        openssl_only(),
    )
    pointer = library.ikw_sa_new(ctypes.byref(suite))
    return NativeSa(library, pointer) if pointer else None


def _mode(cipher: str, digest: str) -> int:
    if not digest:
        return MODE_CCM if cipher.endswith("CCM") else MODE_AEAD
    return MODE_CTR if cipher.endswith("CTR") else MODE_CBC

"""`--keylog FILE`: the session keys, in the words of Wireshark's tables `ikev2_decryption_table` and `esp_sa`.

Whoever has such a file and a capture reads all of the traffic. So the file is its owner's only, and the log says loudly
that it is being written. Each line is an option for tshark or Wireshark: `-o uat:TABLE:RECORD`.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from types import TracebackType

from ikeway.crypto.keys import IkeKeys
from ikeway.daemon.writing import write_whole
from ikeway.errors import HostError
from ikeway.esp.parameters import EspSa
from ikeway.ike.proposals import Suite
from ikeway.wire.registry import EncryptionAlgorithm as Encr
from ikeway.wire.registry import IntegrityAlgorithm as Integ

log = logging.getLogger("ikeway.keylog")

HEAD = """\
# Keys of IKE and ESP. Whoever has this file can read the traffic: delete it when you are done.
# Use it with a capture FILE.pcapng:
#   grep -v '^#' KEYLOG | sed 's/^/-o/' | tr '\\n' '\\0' |
#     xargs -0 tshark -r FILE.pcapng -o esp.enable_encryption_decode:TRUE
"""

_AEAD_ICV = {
    Encr.ENCR_AES_GCM_8: ("GCM", 8),
    Encr.ENCR_AES_GCM_12: ("GCM", 12),
    Encr.ENCR_AES_GCM_16: ("GCM", 16),
    Encr.ENCR_AES_CCM_8: ("CCM", 8),
    Encr.ENCR_AES_CCM_12: ("CCM", 12),
    Encr.ENCR_AES_CCM_16: ("CCM", 16),
}
_IKE_INTEGRITY = {
    Integ.AUTH_HMAC_MD5_96: "HMAC_MD5_96 [RFC2403]",
    Integ.AUTH_HMAC_SHA1_96: "HMAC_SHA1_96 [RFC2404]",
    Integ.AUTH_HMAC_SHA2_256_128: "HMAC_SHA2_256_128 [RFC4868]",
    Integ.AUTH_HMAC_SHA2_384_192: "HMAC_SHA2_384_192 [RFC4868]",
    Integ.AUTH_HMAC_SHA2_512_256: "HMAC_SHA2_512_256 [RFC4868]",
}
_ESP_INTEGRITY = {
    Integ.AUTH_HMAC_MD5_96: "HMAC-MD5-96 [RFC2403]",
    Integ.AUTH_HMAC_SHA1_96: "HMAC-SHA-1-96 [RFC2404]",
    Integ.AUTH_HMAC_SHA2_256_128: "HMAC-SHA-256-128 [RFC4868]",
    Integ.AUTH_HMAC_SHA2_384_192: "HMAC-SHA-384-192 [RFC4868]",
    Integ.AUTH_HMAC_SHA2_512_256: "HMAC-SHA-512-256 [RFC4868]",
    # Wireshark has no way to check these; it can skip an authentication code of their length.
    Integ.AUTH_AES_XCBC_96: "ANY 96 bit authentication [no checking]",
    Integ.AUTH_AES_CMAC_96: "ANY 96 bit authentication [no checking]",
}


def ike_record(initiator_spi: bytes, responder_spi: bytes, suite: Suite, keys: IkeKeys) -> str | None:
    """A line of `ikev2_decryption_table`; None for algorithms that Wireshark has no word for."""
    encryption = _ike_encryption(suite)
    integrity = "NONE [RFC4306]" if suite.integrity is None else _IKE_INTEGRITY.get(suite.integrity)
    if encryption is None or integrity is None:
        return None
    return ",".join(
        (
            initiator_spi.hex(),
            responder_spi.hex(),
            keys.sk_ei.hex(),
            keys.sk_er.hex(),
            f'"{encryption}"',
            keys.sk_ai.hex(),
            keys.sk_ar.hex(),
            f'"{integrity}"',
        )
    )


def esp_record(esp: EspSa, *, inbound: bool) -> str | None:
    """A line of `esp_sa` for one direction; None for algorithms that Wireshark has no word for."""
    transforms = esp.transforms
    encryption = _esp_encryption(transforms.encryption)
    integrity = "NULL" if transforms.integrity is None else _ESP_INTEGRITY.get(transforms.integrity)
    if encryption is None or integrity is None:
        return None
    source, destination = (esp.remote, esp.local) if inbound else (esp.local, esp.remote)
    fields = (
        "IPv6" if destination.is_ipv6 else "IPv4",
        source.host,
        destination.host,
        f"0x{esp.spi:08x}",
        encryption,
        f"0x{esp.encryption_key.hex()}" if esp.encryption_key else "",
        integrity,
        f"0x{esp.integrity_key.hex()}" if esp.integrity_key else "",
    )
    return ",".join(f'"{field}"' for field in fields)


class KeyLog:
    """The file. Lines are written through at once: they are wanted most when something dies."""

    def __init__(self, path: Path) -> None:
        """Open or go on with the file. Raises `HostError`, also when others may read it."""
        self.path = path
        try:
            self._fd = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, stat.S_IRUSR | stat.S_IWUSR
            )
        except OSError as error:
            raise _unwritable(path, error) from None
        status = os.fstat(self._fd)
        if status.st_mode & 0o077 or status.st_uid != os.geteuid() or not stat.S_ISREG(status.st_mode):
            os.close(self._fd)
            raise HostError(
                f"others may read the key log {path}",
                expected="a file of our own with mode 0600",
                got=f"mode {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}",
                remedy=f"chmod 600 {path}, or name another file",
            )
        if status.st_size == 0:
            try:
                self._write(HEAD)
            except OSError as error:
                self.close()
                raise _unwritable(path, error) from None
        log.warning("ALL SESSION KEYS ARE WRITTEN TO %s: whoever has that file can read the traffic", path)

    def ike(self, initiator_spi: bytes, responder_spi: bytes, suite: Suite, keys: IkeKeys) -> None:
        """Note the keys of an IKE SA."""
        record = ike_record(initiator_spi, responder_spi, suite, keys)
        self.note("ikev2_decryption_table", record, f"IKE SA {initiator_spi.hex()} ({suite})")

    def esp(self, esp: EspSa, *, inbound: bool) -> None:
        """Note the keys of one direction of a child SA."""
        self.note(
            "esp_sa", esp_record(esp, inbound=inbound), f"ESP SA {esp.spi:08x} ({esp.transforms.encryption.name})"
        )

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> KeyLog:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def note(self, table: str, record: str | None, what: str) -> None:
        """Write a record of one of Wireshark's tables; without one, that there is none for `what`."""
        self._write(f"uat:{table}:{record}\n" if record else f"# {what}: Wireshark has no word for its algorithms\n")

    def _write(self, text: str) -> None:
        write_whole(self._fd, text.encode())


def _unwritable(path: Path, error: OSError) -> HostError:
    return HostError(f"the key log {path} cannot be written: {error.strerror}", remedy="name another file")


def _ike_encryption(suite: Suite) -> str | None:
    algorithm, bits = suite.encryption, suite.key_bits
    if algorithm in _AEAD_ICV:
        mode, icv = _AEAD_ICV[algorithm]
        return f"AES-{mode}-{bits} with {icv} octet ICV [RFC5282]"
    return {
        Encr.ENCR_3DES: "3DES [RFC2451]",
        Encr.ENCR_AES_CBC: f"AES-CBC-{bits} [RFC3602]",
        Encr.ENCR_AES_CTR: f"AES-CTR-{bits} [RFC5930]",
        Encr.ENCR_NULL: "NULL [RFC2410]",
    }.get(algorithm)


def _esp_encryption(algorithm: Encr) -> str | None:
    if algorithm in _AEAD_ICV:
        mode, icv = _AEAD_ICV[algorithm]
        return f"AES-GCM with {icv} octet ICV [RFC4106]" if mode == "GCM" else None
    return {
        Encr.ENCR_3DES: "TripleDES-CBC [RFC2451]",
        Encr.ENCR_AES_CBC: "AES-CBC [RFC3602]",
        Encr.ENCR_AES_CTR: "AES-CTR [RFC3686]",
        Encr.ENCR_NULL: "NULL",
    }.get(algorithm)

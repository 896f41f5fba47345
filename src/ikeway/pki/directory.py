"""The directory that a CA lives in: its key, what it issued, and what it took back.

    ca.pem  ca.key                certificate and key of the CA; the key is for nobody else to read
    index.json                    every certificate issued: serial, subject, kind, file, dates, revocation
    crl.pem                       the newest CRL
    gateways/NAME.pem  NAME.key   what `ikeway pki gateway` made
    clients/NAME.pem  NAME.key  NAME.p12

A file is there whole or not at all, and nothing that exists is overwritten but the index and the CRL. One process at a
time writes: the others wait for the lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ikeway.auth.binding import carried_identities, describe
from ikeway.auth.parse import PrivateKey, parse_certificates, parse_private_key
from ikeway.errors import ConfigError, HostError
from ikeway.pki.authority import CRL_DAYS, REVOCATION_REASONS, Authority, Revocation, encode_certificates
from ikeway.pki.files import make_directory, replace_file, write_new
from ikeway.pki.keys import encode_private_key

SECRET, PUBLIC = 0o600, 0o644
KINDS = {"gateway": "gateways", "client": "clients"}
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Issued:
    """A line of the index. Times are ISO 8601 in UTC; `revoked` is empty as long as the certificate is good."""

    serial: str
    kind: str
    subject: str
    names: tuple[str, ...]
    file: str
    not_after: str
    revoked: str = ""
    reason: str = ""

    def state(self, now: datetime) -> str:
        """`valid`, `expired` or `revoked`."""
        if self.revoked:
            return "revoked"
        return "expired" if now > datetime.fromisoformat(self.not_after) else "valid"


@dataclass(frozen=True, slots=True)
class Made:
    """The files of a new certificate."""

    certificate: Path
    private_key: Path
    pkcs12: Path | None = None


class PkiDirectory:
    """A CA and what belongs to it, on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def certificate_file(self) -> Path:
        """The CA's certificate, to be trusted by gateways and clients."""
        return self.path / "ca.pem"

    @property
    def key_file(self) -> Path:
        """The CA's key."""
        return self.path / "ca.key"

    @property
    def crl_file(self) -> Path:
        """The newest CRL."""
        return self.path / "crl.pem"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who writes here."""
        try:
            descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, SECRET)
        except FileNotFoundError as error:
            raise self._no_authority(self.path) from error
        except OSError as error:
            raise HostError(
                f"cannot write in {self.path}: {error.strerror}", remedy="check the directory's owner and permissions"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def create(self, authority: Authority, password: bytes | None) -> None:
        """Write a new CA; refuses when there is one. The key goes first: a CA whose key was lost is of no use."""
        make_directory(self.path, 0o700)
        with self.locked():
            if self.certificate_file.exists():
                raise ConfigError(
                    f"there is a CA in {self.path} already",
                    file=str(self.certificate_file),
                    remedy="choose another directory with --dir, or use the CA that is there",
                )
            write_new(self.key_file, encode_private_key(authority.private_key, password), SECRET)
            write_new(self.certificate_file, encode_certificates(authority.certificate), PUBLIC)
            self._save([], 0)

    def certificate(self) -> x509.Certificate:
        """The CA's certificate."""
        return parse_certificates(self._read(self.certificate_file))[0]

    def authority(self, password: bytes | None) -> Authority:
        """The CA; raises PasswordNeeded when its key is encrypted and the password missing or wrong."""
        return Authority(self.certificate(), parse_private_key(self._read(self.key_file), password))

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise self._no_authority(path) from error
        except OSError as error:
            raise HostError(f"{path} cannot be read: {error.strerror}", remedy="check owner and permissions") from error

    def _no_authority(self, path: Path) -> ConfigError:
        return ConfigError(
            f"there is no CA in {self.path}",
            file=str(path),
            expected="ca.pem, ca.key and index.json",
            remedy="make one with `ikeway pki ca`, or name its directory with --dir",
        )

    def add(
        self,
        kind: str,
        authority: Authority,
        certificate: x509.Certificate,
        private_key: PrivateKey,
        pkcs12: bytes | None = None,
    ) -> Made:
        """Write a new certificate with its key, and enter it in the index. The caller holds the lock."""
        names = [str(name) for name in carried_identities(certificate) if name.distinguished_name is None]
        folder = self.path / KINDS[kind]
        stem = self._free_stem(folder, names[0] if names else describe(certificate))
        make_directory(folder, 0o700)
        made = Made(folder / f"{stem}.pem", folder / f"{stem}.key", folder / f"{stem}.p12" if pkcs12 else None)
        issued, crl_number = self._load()
        line = Issued(
            f"{certificate.serial_number:x}",
            kind,
            describe(certificate),
            tuple(names),
            str(made.certificate.relative_to(self.path)),
            certificate.not_valid_after_utc.isoformat(),
        )
        self._save([*issued, line], crl_number)  # first: what is out must be in the index, to be revocable
        write_new(made.private_key, encode_private_key(private_key), SECRET)
        if made.pkcs12 is not None and pkcs12 is not None:
            write_new(made.pkcs12, pkcs12, SECRET)
        is_root = authority.certificate.subject == authority.certificate.issuer  # then the other side must have it
        chain = (certificate,) if is_root else (certificate, authority.certificate)
        write_new(made.certificate, encode_certificates(*chain), PUBLIC)
        return made

    @staticmethod
    def _free_stem(folder: Path, name: str) -> str:
        """A file name after the certificate's name; numbered when there is one of that name, as after a renewal."""
        stem = re.sub(r"[^\w@.+-]+", "_", name).strip("._")[:80] or "certificate"
        candidates = [stem, *(f"{stem}-{number}" for number in range(2, 10_000))]
        for candidate in candidates:
            if not any((folder / f"{candidate}{suffix}").exists() for suffix in (".pem", ".key", ".p12")):
                return candidate
        raise ConfigError(f"too many certificates of the name {name}", file=str(folder))

    def issued(self) -> list[Issued]:
        """Every certificate that was issued here, the oldest first."""
        return self._load()[0]

    def find(self, wanted: str) -> list[Issued]:
        """Certificates by serial number (hexadecimal), file, or one of their names; not those revoked already."""
        serial = wanted.lower().removeprefix("0x").replace(":", "")
        return [
            line
            for line in self.issued()
            if not line.revoked
            and (
                line.serial == serial or wanted in (line.file, line.subject, *line.names) or self._is_file(line, wanted)
            )
        ]

    def _is_file(self, line: Issued, wanted: str) -> bool:
        return Path(wanted).resolve() == (self.path / line.file).resolve()

    def revoke(self, serial: str, reason: str, now: datetime) -> None:
        """Enter a revocation in the index; `write_crl` makes it known. The caller holds the lock."""
        if reason and reason not in REVOCATION_REASONS:
            raise ConfigError(f"{reason!r} is not a reason", expected=", ".join(sorted(REVOCATION_REASONS)))
        issued, crl_number = self._load()
        when = now.astimezone(UTC).isoformat(timespec="seconds")
        self._save(
            [replace(line, revoked=when, reason=reason) if line.serial == serial else line for line in issued],
            crl_number,
        )

    def write_crl(self, authority: Authority, now: datetime, days: int = CRL_DAYS) -> x509.CertificateRevocationList:
        """Write a new CRL of all that is revoked. The caller holds the lock."""
        issued, crl_number = self._load()
        revocations = [
            Revocation(int(line.serial, 16), datetime.fromisoformat(line.revoked), line.reason)
            for line in issued
            if line.revoked
        ]
        crl = authority.revocation_list(revocations, crl_number + 1, now, days=days)
        self._save(issued, crl_number + 1)
        replace_file(self.crl_file, crl.public_bytes(Encoding.PEM), PUBLIC)
        return crl

    def _load(self) -> tuple[list[Issued], int]:
        index = self.path / "index.json"
        try:
            content: Any = json.loads(self._read(index))
            if content["format"] != _FORMAT:
                raise ConfigError(
                    f"{index} was written by another version",
                    expected=f"format {_FORMAT}",
                    got=f"format {content['format']}",
                )
            lines = [Issued(**{**line, "names": tuple(line["names"])}) for line in content["issued"]]
            return lines, int(content["crl_number"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                "the index of issued certificates is damaged",
                file=str(index),
                remedy="restore it from a backup: without it nothing can be revoked",
            ) from error

    def _save(self, issued: list[Issued], crl_number: int) -> None:
        content = {"format": _FORMAT, "crl_number": crl_number, "issued": [asdict(line) for line in issued]}
        replace_file(self.path / "index.json", json.dumps(content, indent=1, ensure_ascii=False).encode(), SECRET)

"""Who may use a proxy: names and passwords in a file, one `name:password` a line."""

from __future__ import annotations

import base64
import binascii
import hmac
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ikeway.errors import ConfigError

_LONGEST = 255  # octets of a name or a password (RFC 1929 section 2)


@dataclass(frozen=True, slots=True)
class ProxyUsers:
    """None at all: everybody may."""

    passwords: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)

    def __bool__(self) -> bool:
        """True when a log-in is asked for."""
        return bool(self.passwords)

    def admits(self, name: bytes, password: bytes) -> bool:
        """True for a right name and password; takes the same time whichever is wrong."""
        wanted = self.passwords.get(name)
        same = hmac.compare_digest(wanted if wanted is not None else b"", password)
        return same and wanted is not None

    def admits_basic(self, credentials: bytes) -> bool:
        """The same for HTTP's `Basic` credentials (RFC 7617 section 2)."""
        scheme, _, encoded = credentials.strip().partition(b" ")
        if scheme.lower() != b"basic":
            return False
        try:
            name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        except binascii.Error:
            return False
        return bool(colon) and self.admits(name, password)

    @classmethod
    def read(cls, path: Path) -> ProxyUsers:
        """Read a file that only its owner may read (`ConfigError`)."""
        try:
            mode, text = path.stat().st_mode, path.read_bytes()
        except OSError as error:
            raise ConfigError(f"the file cannot be read: {error.strerror}", file=str(path)) from None
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError("others may read the passwords in it", file=str(path), remedy=f"chmod 600 {path}")
        passwords: dict[bytes, bytes] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith(b"#"):
                continue
            name, colon, password = line.partition(b":")
            if not name or not colon or not 0 < len(password) <= _LONGEST or len(name) > _LONGEST:
                raise ConfigError(
                    "this is no name and password",
                    file=str(path),
                    line=number,
                    expected=f"name:password, each of 1 to {_LONGEST} octets",
                )
            passwords[name] = password
        if not passwords:
            raise ConfigError("nobody is named in it, and so nobody could use the proxy", file=str(path))
        return cls(passwords)

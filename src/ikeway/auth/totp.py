"""One-time codes by the clock: TOTP (RFC 6238) on HOTP (RFC 4226), and how apps learn of a secret (otpauth URIs)."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, cast, get_args
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from ikeway.errors import ConfigError

Algorithm = Literal["sha1", "sha256", "sha512"]
ALGORITHMS: tuple[str, ...] = get_args(Algorithm)
SECRET_TEXT = "a secret in base32 (letters and digits 2 to 7), or an otpauth://totp/ URI"  # noqa: S105 - not one
_MIN_OCTETS, _MAX_OCTETS = 10, 512  # authenticator apps are given 80 bits and more


def hotp(key: bytes, counter: int, digits: int = 6, algorithm: Algorithm = "sha1") -> str:
    """The code of a counter (RFC 4226 section 5.3; with the other hashes: RFC 6238 section 1.2)."""
    digest = hmac.digest(key, counter.to_bytes(8), algorithm)
    offset = digest[-1] & 0x0F
    number = int.from_bytes(digest[offset : offset + 4]) & 0x7FFFFFFF
    return str(number % 10**digits).zfill(digits)


@dataclass(frozen=True, slots=True)
class Totp:
    """What a user's app and we share. `period` in seconds."""

    key: bytes = field(repr=False)
    digits: int = 6
    algorithm: Algorithm = "sha1"
    period: int = 30

    @classmethod
    def parse(cls, text: str) -> Totp:
        """From base32 (spaces and case do not count), or an otpauth URI, which can say more. Raises `ConfigError`."""
        if not text.startswith("otpauth:"):
            return cls(_base32(text))
        uri = urlsplit(text)
        if uri.netloc != "totp":
            raise _refused("this otpauth URI is not of codes by the clock", uri.netloc[:20])
        values = {name: found[-1] for name, found in parse_qs(uri.query).items()}
        algorithm = values.get("algorithm", "sha1").lower()
        digits, period = values.get("digits", "6"), values.get("period", "30")
        if algorithm not in ALGORITHMS or digits not in {"6", "7", "8"} or not re.fullmatch(r"[0-9]{1,4}", period):
            raise _refused("this otpauth URI wants something that is not provided for", f"{algorithm}, {digits} digits")
        return cls(_base32(values.get("secret", "")), int(digits), cast(Algorithm, algorithm), max(1, int(period)))

    def uri(self, user: str, issuer: str) -> str:
        """What an app reads from a QR code (the "Key Uri Format" of authenticator apps)."""
        secret = base64.b32encode(self.key).decode().rstrip("=")
        values = {"secret": secret, "issuer": issuer, "algorithm": self.algorithm.upper()}
        values |= {"digits": str(self.digits), "period": str(self.period)}
        return f"otpauth://totp/{quote(issuer)}:{quote(user)}?{urlencode(values, quote_via=quote)}"

    def step(self, at: datetime) -> int:
        """The number of the period that `at` lies in (T of RFC 6238 section 4.2, T0 = 0)."""
        return int(at.timestamp()) // self.period

    def code(self, at: datetime) -> str:
        """The code that the user's app shows then."""
        return hotp(self.key, self.step(at), self.digits, self.algorithm)

    def matching_step(self, code: str, at: datetime, *, window: int = 1, after: int = -1) -> int | None:
        """The period whose code this is, None when it is none.

        Clocks differ and people are slow, so `window` periods before and behind now are taken too (RFC 6238 section
        5.2). Periods up to `after` are not: a code is good once, and so is all before it. Takes the same time whatever
        the code is.
        """
        octets = code.encode("utf-8", "replace")
        now, found = self.step(at), None
        for step in range(max(0, now - window), now + window + 1):
            right = hmac.compare_digest(hotp(self.key, step, self.digits, self.algorithm).encode(), octets)
            if right and step > after:
                found = step
        return found


def _base32(text: str) -> bytes:
    letters = re.sub(r"[\s-]", "", text).upper().rstrip("=")
    try:
        key = base64.b32decode(letters + "=" * (-len(letters) % 8))
    except (binascii.Error, ValueError):
        raise _refused("the secret is not base32", f"{len(text)} characters") from None
    if not _MIN_OCTETS <= len(key) <= _MAX_OCTETS:
        raise _refused(f"the secret has not {_MIN_OCTETS} to {_MAX_OCTETS} octets", f"{len(key)} octets")
    return key


def _refused(reason: str, got: str) -> ConfigError:
    return ConfigError(reason, expected=SECRET_TEXT, got=got, remedy="have `ikeway user totp` make one")

"""Stateless cookies against floods from forged addresses (RFC 7296 section 2.6)."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Callable

from ikeway.address import Address

SECRET_SECONDS = 60.0  # a secret makes cookies for this long and is honoured for as long again


class CookieJar:
    """Makes and checks cookies: version | HMAC-SHA-256(secret, Ni | IPi | port | SPIi), cut to 16 octets."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._secrets: list[tuple[int, bytes]] = []  # newest first, at most two
        self._version = 0
        self._renew_at = 0.0

    def make(self, nonce: bytes, initiator_spi: bytes, remote: Address, now: float) -> bytes:
        """A cookie for this initiator."""
        self._rotate(now)
        version, secret = self._secrets[0]
        return bytes([version]) + _digest(secret, nonce, initiator_spi, remote)

    def check(self, cookie: bytes, nonce: bytes, initiator_spi: bytes, remote: Address, now: float) -> bool:
        """True when we made this cookie for this initiator not long ago."""
        self._rotate(now)
        for version, secret in self._secrets:
            expected = bytes([version]) + _digest(secret, nonce, initiator_spi, remote)
            if hmac.compare_digest(cookie, expected):
                return True
        return False

    def _rotate(self, now: float) -> None:
        if self._secrets and now < self._renew_at:
            return
        keep = self._secrets[:1] if now < self._renew_at + SECRET_SECONDS else []
        self._version = (self._version + 1) & 0xFF
        self._secrets = [(self._version, self._random(32)), *keep]
        self._renew_at = now + SECRET_SECONDS


def _digest(secret: bytes, nonce: bytes, initiator_spi: bytes, remote: Address) -> bytes:
    source = ipaddress.ip_address(remote.host).packed + remote.port.to_bytes(2, "big")
    return hmac.digest(secret, bytes([len(nonce)]) + nonce + source + initiator_spi, hashlib.sha256)[:16]

"""What every key exchange method gives: our half, and what it makes of the peer's."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ikeway.errors import InvalidPublicValue
from ikeway.wire.registry import KeyExchangeMethod


class PrivateKeyExchange(ABC):
    """The private half of one key exchange, for one use: a fresh one is made for every exchange (PFS)."""

    __slots__ = ("method", "public_value")

    method: KeyExchangeMethod
    public_value: bytes
    """What goes into our KE payload."""

    def __init__(self, method: KeyExchangeMethod, public_value: bytes) -> None:
        self.method = method
        self.public_value = public_value

    @abstractmethod
    def shared_secret(self, peer_public_value: bytes) -> bytes:
        """g^ir as key derivation takes it (RFC 7296 section 2.14). Raises `InvalidPublicValue`."""


def check_length(method: KeyExchangeMethod, peer_public_value: bytes, octets: int) -> None:
    """Raise `InvalidPublicValue` unless the peer's value has the length that the method prescribes."""
    if len(peer_public_value) != octets:
        raise InvalidPublicValue(
            f"the public value for {method.name} has the wrong length",
            expected=f"{octets} octets",
            got=f"{len(peer_public_value)} octets",
            remedy="the peer must send a public value that fits the method it names",
        )

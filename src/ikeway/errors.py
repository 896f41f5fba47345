"""One vocabulary of errors: what the peer did, what we refused, what the host refused.

Every error is a value with a type. It names what was expected, what arrived, which side has to change and how, so that
the same object serves a log line, a person at a terminal and a program.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Self


class Side(enum.Enum):
    """Where the remedy lies."""

    LOCAL = "this side"
    PEER = "the peer"
    BOTH = "both sides"
    HOST = "this host"
    NETWORK = "the network between"


class IkewayError(Exception):
    """Base of every error that Ikeway raises on purpose.

    `reason` says what happened in one sentence; `expected` and `got` are short facts; `side` says who has to change
    something; `remedy` says what.
    """

    default_side = Side.LOCAL

    def __init__(
        self,
        reason: str,
        *,
        expected: str = "",
        got: str = "",
        side: Side | None = None,
        remedy: str = "",
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.expected = expected
        self.got = got
        self.side = side if side is not None else self.default_side
        self.remedy = remedy

    @property
    def place(self) -> str:
        """Where in what was read, to follow the reason."""
        return ""

    def __str__(self) -> str:
        """Return one line for a person: reason, expectation, remedy."""
        parts = [self.reason + self.place]
        if self.expected or self.got:
            facts = [f"expected {self.expected}" if self.expected else "", f"got {self.got}" if self.got else ""]
            parts.append(f"({', '.join(fact for fact in facts if fact)})")
        line = " ".join(parts)
        return f"{line}; to mend it, on {self.side.value}: {self.remedy}" if self.remedy else line


class WireError(IkewayError):
    """Octets that are not a well-formed message. `offset` counts octets from the start of what was decoded."""

    default_side = Side.PEER

    def __init__(self, reason: str, *, offset: int = 0, expected: str = "", got: str = "") -> None:
        super().__init__(reason, expected=expected, got=got)
        self.offset = offset

    @property
    def place(self) -> str:
        """The octet."""
        return f" at octet {self.offset}"


class CryptoError(IkewayError):
    """A cryptographic operation that did not succeed."""

    default_side = Side.PEER


class IntegrityCheckFailed(CryptoError):
    """The integrity check value is wrong: corrupted, forged, or made with other keys."""


class InvalidPublicValue(CryptoError):
    """A key exchange value out of range, off the curve, or leading to an all-zero secret."""


class UnsupportedAlgorithm(CryptoError):
    """An algorithm number that this build has no implementation for."""

    default_side = Side.LOCAL


class ConfigError(IkewayError):
    """A mistake in a configuration file: `file`, `line` (1-based, 0 when unknown), and what was expected."""

    def __init__(
        self, reason: str, *, file: str = "", line: int = 0, expected: str = "", got: str = "", remedy: str = ""
    ) -> None:
        super().__init__(reason, expected=expected, got=got, remedy=remedy)
        self.file = file
        self.line = line

    def __str__(self) -> str:
        """Return `file:line: reason`."""
        place = f"{self.file}:{self.line}: " if self.line else f"{self.file}: " if self.file else ""
        return place + super().__str__()


class ConfigErrors(ConfigError):
    """Several mistakes of a configuration; `errors` has each of them, in the order of files and lines."""

    def __init__(self, errors: Iterable[ConfigError]) -> None:
        self.errors: tuple[ConfigError, ...] = tuple(sorted(errors, key=lambda error: (error.file, error.line)))
        count = len(self.errors)
        super().__init__(f"{count} mistake{'' if count == 1 else 's'} in the configuration", file=self.errors[0].file)

    def __str__(self) -> str:
        """Return one line a mistake."""
        return "\n".join(str(error) for error in self.errors)


class HostError(IkewayError):
    """What the host refused: a right, a device, a kernel feature that is missing."""

    default_side = Side.HOST


class PeerError(IkewayError):
    """What the peer did, said or failed to do. `notify` is the notify type (RFC 7296 section 3.10.1) that was
    received or that is sent for it; 0 for none."""

    default_side = Side.BOTH

    def __init__(
        self,
        reason: str,
        *,
        notify: int = 0,
        expected: str = "",
        got: str = "",
        side: Side | None = None,
        remedy: str = "",
    ) -> None:
        super().__init__(reason, expected=expected, got=got, side=side, remedy=remedy)
        self.notify = notify
        self.octets = b""  # the notify's data, where its type has some
        self.told_by_peer = False  # the peer said so itself

    def with_octets(self, octets: bytes) -> Self:
        """The same error with data for its notify."""
        self.octets = octets
        return self


class AuthenticationFailed(PeerError):
    """A peer that could not prove who it is, or to whom we could not."""


class NegotiationFailed(PeerError):
    """No common proposal, key exchange method, traffic selector or address."""


class ProtocolViolation(PeerError):
    """A peer that broke a rule of the RFC."""

    default_side = Side.PEER


class PeerUnreachable(PeerError):
    """No answer within the retransmission limit."""

    default_side = Side.NETWORK


class Closed(PeerError):
    """The SA was closed, by either side, without fault."""

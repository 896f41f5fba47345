"""As much of IKEv1 as it takes to ask whether somebody still speaks it (RFC 2408, RFC 2409): the first message of Main
Mode or Aggressive Mode, and what comes back, which is in the clear.

Pure: octets in, octets out. Nothing here can go on to the second exchange.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ikeway.errors import WireError

VERSION_1_0 = 0x10
MAX_PAYLOADS = 64
_HEADER = struct.Struct("!8s8sBBBBII")
_PAYLOAD = struct.Struct("!BxH")
_ENCRYPTED = 0x01
_DOI, _IDENTITY_ONLY, _ISAKMP, _KEY_IKE = 1, 1, 1, 1
_ENCRYPTION, _HASH, _METHOD, _GROUP, _LIFE_TYPE, _LIFE, _KEY_BITS = 1, 2, 3, 4, 11, 12, 14  # RFC 2409 appendix A
_SECONDS, _EIGHT_HOURS = 1, 28800


class Exchange(enum.IntEnum):
    """Exchange types (RFC 2408 section 3.1)."""

    MAIN_MODE = 2  # "Identity Protection"
    AGGRESSIVE_MODE = 4
    INFORMATIONAL = 5


class Kind(enum.IntEnum):
    """Payload types (RFC 2408 section 3.1)."""

    SA = 1
    KE = 4
    ID = 5
    HASH = 8
    NONCE = 10
    NOTIFY = 11
    VENDOR_ID = 13


class Method(enum.IntEnum):
    """Authentication methods (RFC 2409 appendix A; from 65001 on: XAUTH, which never became an RFC)."""

    PSK = 1
    RSA = 3
    XAUTH_PSK = 65001
    XAUTH_RSA = 65005


INVALID_ID = "INVALID-ID-INFORMATION"
_METHODS = {
    Method.PSK: "pre-shared key",
    Method.RSA: "RSA certificates",
    Method.XAUTH_PSK: "pre-shared key and XAUTH",
    Method.XAUTH_RSA: "RSA certificates and XAUTH",
}
_CIPHERS = {1: "des", 3: "blowfish", 5: "3des", 6: "cast128", 7: "aes"}
_HASHES = {1: "md5", 2: "sha1", 4: "sha256", 5: "sha384", 6: "sha512"}
_GROUPS = {
    1: "modp768",
    2: "modp1024",
    5: "modp1536",
    14: "modp2048",
    15: "modp3072",
    16: "modp4096",
    19: "ecp256",
    20: "ecp384",
}
_NOTIFIES = {
    4: "INVALID-COOKIE",
    5: "INVALID-MAJOR-VERSION",
    7: "INVALID-EXCHANGE-TYPE",
    14: "NO-PROPOSAL-CHOSEN",
    16: "PAYLOAD-MALFORMED",
    18: INVALID_ID,
    23: "INVALID-HASH-INFORMATION",
    24: "AUTHENTICATION-FAILED",
    29: "UNSUPPORTED-EXCHANGE-TYPE",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Suite:
    """One transform of phase 1. Numbers of RFC 2409 appendix A; `key_bits` 0: the cipher has only one length."""

    cipher: int
    key_bits: int
    hash: int
    group: int
    method: int

    def __str__(self) -> str:
        """Return it as a proposal is written: `aes256-sha1-modp2048, pre-shared key`."""
        cipher = _CIPHERS.get(self.cipher, f"cipher {self.cipher}") + (str(self.key_bits) if self.key_bits else "")
        algorithms = (
            f"{cipher}-{_HASHES.get(self.hash, f'hash {self.hash}')}-{_GROUPS.get(self.group, f'group {self.group}')}"
        )
        return f"{algorithms}, {_METHODS.get(self.method, f'method {self.method}')}"  # type: ignore[call-overload]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, as far as it is of use. `notify` in words; `proven` where a HASH came with it."""

    exchange: int
    chosen: Suite | None
    notify: str
    vendors: tuple[bytes, ...]
    identity: tuple[int, bytes] | None
    proven: bool


def first_message(
    exchange: Exchange, cookie: bytes, suites: Sequence[Suite], payloads: Iterable[tuple[Kind, bytes]] = ()
) -> bytes:
    """The message that begins phase 1: an SA payload with these transforms, and what follows it."""
    chain = [(Kind.SA, _security_association(suites)), *payloads]
    kinds = [kind for kind, _ in chain[1:]] + [0]
    body = b"".join(
        _PAYLOAD.pack(following, 4 + len(content)) + content
        for (_, content), following in zip(chain, kinds, strict=True)
    )
    length = _HEADER.size + len(body)
    return _HEADER.pack(cookie, bytes(8), Kind.SA, VERSION_1_0, exchange, 0, 0, length) + body


def identification(type: int, value: bytes) -> bytes:
    """The body of an ID payload (RFC 2407 section 4.6.2), for no protocol and port."""
    return struct.pack("!BBH", type, 0, 0) + value


def parse(octets: bytes, cookie: bytes) -> Reply | None:
    """A message of IKEv1 that answers the one with this initiator cookie; None for anything else.

    Raises `WireError` when it is one and malformed.
    """
    if len(octets) < _HEADER.size:
        return None
    initiator, _, first, version, exchange, flags, _, length = _HEADER.unpack_from(octets)
    if initiator != cookie or version >> 4 != 1:
        return None
    if length != len(octets):
        raise WireError("the ISAKMP header's length is not that of the message", offset=24, got=str(length))
    found = [] if flags & _ENCRYPTED else _payloads(first, octets)
    by_kind: dict[int, bytes] = {}
    for kind, content in found:
        by_kind.setdefault(kind, content)
    identity = by_kind.get(Kind.ID)
    return Reply(
        exchange,
        _chosen(by_kind[Kind.SA]) if Kind.SA in by_kind else None,
        _notify(by_kind[Kind.NOTIFY]) if Kind.NOTIFY in by_kind else "",
        tuple(content for kind, content in found if kind == Kind.VENDOR_ID),
        (identity[0], identity[4:]) if identity is not None and len(identity) >= 4 else None,
        Kind.HASH in by_kind,
    )


def _security_association(suites: Sequence[Suite]) -> bytes:
    """RFC 2408 sections 3.4 to 3.6: one proposal with a transform for each suite."""
    transforms = b""
    for number, suite in enumerate(suites, 1):
        attributes = _attributes(suite)
        following = 3 if number < len(suites) else 0
        transforms += struct.pack("!BxHBBxx", following, 8 + len(attributes), number, _KEY_IKE) + attributes
    proposal = struct.pack("!BxHBBBB", 0, 8 + len(transforms), 1, _ISAKMP, 0, len(suites)) + transforms
    return struct.pack("!II", _DOI, _IDENTITY_ONLY) + proposal


def _attributes(suite: Suite) -> bytes:
    values = [(_ENCRYPTION, suite.cipher), (_HASH, suite.hash), (_METHOD, suite.method), (_GROUP, suite.group)]
    values += [(_KEY_BITS, suite.key_bits)] if suite.key_bits else []
    values += [(_LIFE_TYPE, _SECONDS), (_LIFE, _EIGHT_HOURS)]
    return b"".join(struct.pack("!HH", 0x8000 | kind, value) for kind, value in values)


def _payloads(first: int, octets: bytes) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    position, kind = _HEADER.size, first
    while kind:
        if len(found) == MAX_PAYLOADS:
            raise WireError("too many payloads", offset=position, expected=f"at most {MAX_PAYLOADS}")
        if len(octets) - position < _PAYLOAD.size:
            raise WireError("an ISAKMP payload is cut short", offset=position)
        following, length = _PAYLOAD.unpack_from(octets, position)
        if not _PAYLOAD.size <= length <= len(octets) - position:
            raise WireError("impossible length of an ISAKMP payload", offset=position + 2, got=str(length))
        found.append((kind, octets[position + _PAYLOAD.size : position + length]))
        position, kind = position + length, following
    return found


def _chosen(content: bytes) -> Suite:
    """The one transform of an SA payload that answers ours."""
    # DOI and situation (8), the proposal's head (8) and SPI, the transform's head (8): then attributes.
    if len(content) < 24:
        raise WireError("an SA payload of IKEv1 is cut short", expected="24 octets", got=str(len(content)))
    start = 16 + content[14]
    if len(content) < start + 8:
        raise WireError("a transform of IKEv1 is cut short", offset=start)
    (length,) = struct.unpack_from("!H", content, start + 2)
    if not 8 <= length <= len(content) - start:
        raise WireError("impossible length of a transform of IKEv1", offset=start + 2, got=str(length))
    values: dict[int, int] = {}
    position, end = start + 8, start + length
    while end - position >= 4:
        kind, value = struct.unpack_from("!HH", content, position)
        position += 4
        if kind & 0x8000:
            values.setdefault(kind & 0x7FFF, value)
        else:
            position += value  # a long value: a lifetime
    return Suite(*(values.get(kind, 0) for kind in (_ENCRYPTION, _KEY_BITS, _HASH, _GROUP, _METHOD)))


def _notify(content: bytes) -> str:
    if len(content) < 8:
        raise WireError("a notification of IKEv1 is cut short", expected="8 octets", got=str(len(content)))
    (number,) = struct.unpack_from("!H", content, 6)
    return _NOTIFIES.get(number, f"notification {number}")

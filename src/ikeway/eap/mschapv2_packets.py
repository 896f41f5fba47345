"""The packets of EAP-MSCHAPv2 (draft-kamath-pppext-eap-mschapv2 section 2 around RFC 2759 sections 3 to 7)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ikeway.eap.errors import MalformedEap
from ikeway.eap.words import printable

CHALLENGE, RESPONSE, SUCCESS, FAILURE, CHANGE_PASSWORD = 1, 2, 3, 4, 7
CHALLENGE_OCTETS = 16
MAX_NAME = 256
_RESPONSE_OCTETS = 49  # peer challenge 16, reserved 8, proof 24, flags 1
_CHANGE_OCTETS = 582  # password 516, hash 16, peer challenge 16, reserved 8, proof 24, flags 2
ERROR_RESTRICTED_HOURS, ERROR_DISABLED, ERROR_EXPIRED, ERROR_NO_DIALIN = 646, 647, 648, 649
ERROR_AUTHENTICATION, ERROR_CHANGING_PASSWORD = 691, 709


@dataclass(frozen=True, slots=True)
class Challenge:
    """The authenticator's first packet."""

    identifier: int
    value: bytes
    name: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """The peer's proof."""

    identifier: int
    peer_challenge: bytes
    proof: bytes
    name: bytes


@dataclass(frozen=True, slots=True)
class ChangePassword:
    """A new password under the hash of the old one, and the proof made with the new one (RFC 2759 section 7)."""

    identifier: int
    encrypted_password: bytes = field(repr=False)
    encrypted_hash: bytes = field(repr=False)
    peer_challenge: bytes
    proof: bytes


@dataclass(frozen=True, slots=True)
class FailureReport:
    """The authenticator's "E=... R=... C=... V=... M=..." taken apart (RFC 2759 section 6)."""

    error: int
    retry: bool
    challenge: bytes | None
    message: str


def encode_packet(opcode: int, identifier: int, body: bytes) -> bytes:
    """Opcode, MS-CHAPv2-ID, MS-Length, body."""
    return bytes((opcode, identifier & 0xFF)) + (4 + len(body)).to_bytes(2) + body


def decode_packet(octets: bytes, expected: int) -> tuple[int, bytes]:
    """Return MS-CHAPv2-ID and body of a packet with that opcode."""
    if len(octets) < 4 or octets[0] != expected:
        raise malformed(f"opcode {expected} with a header", f"{octets[:4].hex() or 'nothing'}")
    length = int.from_bytes(octets[2:4])
    if not 4 <= length <= len(octets):
        raise malformed(f"a length of 4 to {len(octets)}", f"{length}")
    return octets[1], octets[4:length]


def malformed(expected: str, got: str) -> MalformedEap:
    """A packet that is none."""
    return MalformedEap("an EAP-MSCHAPv2 packet that breaks the rules", expected=expected, got=got)


def _decode_value(body: bytes, size: int) -> tuple[bytes, bytes]:
    if len(body) < 1 + size or body[0] != size or len(body) > 1 + size + MAX_NAME:
        raise malformed(f"a value of {size} octets and a name of at most {MAX_NAME}", f"{len(body)} octets")
    return body[1 : 1 + size], body[1 + size :]


def decode_challenge(octets: bytes) -> Challenge:
    """Decode a Challenge; raises MalformedEap."""
    identifier, body = decode_packet(octets, CHALLENGE)
    return Challenge(identifier, *_decode_value(body, CHALLENGE_OCTETS))


def decode_response(octets: bytes) -> Response:
    """Decode a Response; raises MalformedEap."""
    identifier, body = decode_packet(octets, RESPONSE)
    value, name = _decode_value(body, _RESPONSE_OCTETS)
    return Response(identifier, value[:16], value[24:48], name)


def encode_response(response: Response) -> bytes:
    """The peer's answer to a challenge."""
    value = response.peer_challenge + bytes(8) + response.proof + b"\0"
    return encode_packet(RESPONSE, response.identifier, bytes((_RESPONSE_OCTETS,)) + value + response.name)


def encode_change(change: ChangePassword) -> bytes:
    """The peer's answer to a Failure that says that the password has expired."""
    body = change.encrypted_password + change.encrypted_hash + change.peer_challenge + bytes(8) + change.proof
    return encode_packet(CHANGE_PASSWORD, change.identifier, body + bytes(2))


def decode_change(octets: bytes) -> ChangePassword:
    """Decode a Change-Password; raises MalformedEap."""
    identifier, body = decode_packet(octets, CHANGE_PASSWORD)
    if len(body) != _CHANGE_OCTETS:
        raise malformed(f"{_CHANGE_OCTETS} octets of a new password", f"{len(body)}")
    return ChangePassword(identifier, body[:516], body[516:532], body[532:548], body[556:580])


def encode_failure(identifier: int, report: FailureReport) -> bytes:
    """The authenticator's refusal (RFC 2759 section 6)."""
    challenge = (report.challenge or b"").hex().upper()
    text = f"E={report.error} R={int(report.retry)} C={challenge} V=3 M={report.message}"
    return encode_packet(FAILURE, identifier, text.encode())


def decode_failure(octets: bytes) -> tuple[int, FailureReport]:
    """Decode a Failure request; raises MalformedEap."""
    identifier, body = decode_packet(octets, FAILURE)
    text = body[:1024].decode("utf-8", "replace")
    settings, _, message = text.partition("M=")
    fields = dict(re.findall(r"([ERCV])=([0-9A-Fa-f]{1,32})\b", settings))
    if not re.fullmatch(r"[0-9]{1,10}", fields.get("E", "")):
        raise malformed("E=number", repr(text[:40]))
    challenge = fields.get("C", "")
    return identifier, FailureReport(
        int(fields["E"]),
        fields.get("R") == "1",
        bytes.fromhex(challenge) if len(challenge) == 32 else None,
        printable(message.strip("\0").encode())[:200],
    )

"""TLS messages in EAP packets: flags, length, fragments, acknowledgements (RFC 5216 section 3, RFC 5281 section 9).

sender                                   receiver
flags L M, length, first fragment  -->
                                     <-- flags only: acknowledged
flags M, next fragment             -->
                                     <-- flags only
flags, last fragment               -->
                                     <-- the answer, framed in the same way

The two sides take turns, so one object does both directions. An empty packet that acknowledges nothing is an empty
message: its sender had nothing to say.
"""

from __future__ import annotations

from dataclasses import dataclass

from ikeway.eap.errors import MalformedEap

LENGTH_INCLUDED, MORE_FRAGMENTS, START = 0x80, 0x40, 0x20
VERSION_BITS = 0x07
FRAGMENT_OCTETS = 1024  # of TLS in one packet: it fits into a datagram, also when RADIUS carries it
MAX_MESSAGE = 65536  # octets of one TLS message; long chains of RSA-4096 certificates take a third
MAX_FRAGMENTS = 64
_SMALLEST_FRAGMENT = 256


@dataclass(frozen=True, slots=True)
class Frame:
    """One packet's data: flags with the version, the declared length of the whole message, and the piece."""

    flags: int
    length: int | None
    octets: bytes

    @classmethod
    def decode(cls, octets: bytes) -> Frame:
        """Decode; raises MalformedEap. A packet of no octets at all counts as an acknowledgement."""
        flags = octets[0] if octets else 0
        if not flags & LENGTH_INCLUDED:
            return cls(flags, None, octets[1:])
        if len(octets) < 5:
            raise _malformed("whose length is cut off", "5 octets or more", f"{len(octets)}")
        return cls(flags, int.from_bytes(octets[1:5]), octets[5:])

    def encode(self) -> bytes:
        """Encode."""
        length = b"" if self.length is None else self.length.to_bytes(4)
        return bytes((self.flags,)) + length + self.octets


class Framing:
    """Both directions of one log-in. `version` goes into the flags of what we send."""

    def __init__(self, version: int = 0, *, fragment: int = FRAGMENT_OCTETS) -> None:
        self._version = version & VERSION_BITS
        self._room = max(fragment, _SMALLEST_FRAGMENT)
        self._waiting = b""  # what is still to be sent
        self._first = False  # the next fragment is the first of several and names the length
        self._awaits_answer = True  # nothing of ours is waiting for an acknowledgement
        self._received = bytearray()
        self._fragments = 0
        self._declared: int | None = None

    def send(self, message: bytes) -> None:
        """Set the next message, after `take` gave one."""
        self._waiting = message
        self._first = len(message) > self._room

    def emit(self) -> bytes:
        """The next packet: a fragment of our message, or an acknowledgement when there is none."""
        piece, self._waiting = self._waiting[: self._room], self._waiting[self._room :]
        flags, length = self._version, None
        if self._first:
            flags, length = flags | LENGTH_INCLUDED, len(piece) + len(self._waiting)
        if self._waiting:
            flags |= MORE_FRAGMENTS
        self._first = False
        self._awaits_answer = not self._waiting
        return Frame(flags, length, piece).encode()

    def take(self, octets: bytes) -> bytes | None:
        """Take a packet. Returns a whole message; None when the turn is ours to `emit` what comes next."""
        frame = Frame.decode(octets)
        if frame.flags & START:
            raise _malformed("that starts anew in the middle", "no S flag", "S")
        if not self._awaits_answer:
            if frame.octets or frame.flags & MORE_FRAGMENTS:
                raise _malformed("where an acknowledgement is due", "no octets", f"{len(frame.octets)} octets")
            return None
        self._check(frame)
        self._received += frame.octets
        if frame.flags & MORE_FRAGMENTS:
            return None
        message, declared = bytes(self._received), self._declared
        self._received.clear()
        self._fragments, self._declared = 0, None
        if declared is not None and declared != len(message):
            raise _malformed("with a length that lies", f"{declared} octets", f"{len(message)}")
        return message

    def _check(self, frame: Frame) -> None:
        """Every bound, before anything is kept."""
        self._fragments += 1
        more = bool(frame.flags & MORE_FRAGMENTS)
        if frame.length is not None:
            if self._declared is not None and frame.length != self._declared:
                raise _malformed("that changes its length", f"{self._declared}", f"{frame.length}")
            if frame.length > MAX_MESSAGE:
                raise _malformed("that is too long", f"at most {MAX_MESSAGE} octets", f"{frame.length} declared")
            self._declared = frame.length
        if more and not frame.octets:
            raise _malformed("of which a fragment is empty", "octets", "none")
        if self._fragments > MAX_FRAGMENTS:
            raise _malformed("in too many fragments", f"at most {MAX_FRAGMENTS}", "more")
        total = len(self._received) + len(frame.octets)
        limit = MAX_MESSAGE if self._declared is None else self._declared
        if total > limit:
            raise _malformed("that is longer than allowed", f"at most {limit} octets", f"{total}")


def start_packet(version: int = 0) -> bytes:
    """The authenticator's first packet."""
    return bytes((START | version & VERSION_BITS,))


def read_start(octets: bytes) -> int:
    """The version that the server offers in its first packet. What else it may carry is of no use (RFC 5281: AVPs)."""
    frame = Frame.decode(octets)
    if not frame.flags & START or frame.flags & MORE_FRAGMENTS:
        raise _malformed("where the start is due", "the S flag", f"flags {frame.flags:#04x}")
    return frame.flags & VERSION_BITS


def _malformed(what: str, expected: str, got: str) -> MalformedEap:
    return MalformedEap(f"a TLS message in EAP {what}", expected=expected, got=got)

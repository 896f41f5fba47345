"""Cisco's fragmentation of IKE messages, older than RFC 7383: encrypted first, then cut.

    IKE header as that of the message, but next payload 132 and the length of this fragment
    next(1) = 0, reserved(1), length(2, these 8 octets and the data), id(2), number(1, from 1), flags(1, bit 0: last)
    data: a slice of the whole encrypted message, its own header included

Used between peers that both sent the FRAGMENTATION vendor ID. No single fragment is authentic: anybody on the way can
make one. So there are few messages in the making at a time, of bounded size and age, and what is put together is an
ordinary encrypted message that is checked as ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ikeway.errors import WireError
from ikeway.wire.message import HEADER_OCTETS, Header
from ikeway.wire.registry import PayloadType

PAYLOAD_TYPE = 132
FRAGMENT_OCTETS = 8
MAX_FRAGMENTS = 255  # the number has one octet
MAX_OCTETS = 65536
MAX_PARTIAL = 2  # messages in the making
MAX_AGE = 30.0  # seconds from the first fragment to the last

_LAST = 0x01
_NEXT_PAYLOAD, _LENGTH = 16, slice(24, 28)

_Key = tuple[bytes, bytes, bool, int, int]  # SPIs, is_response, message id, fragment id


@dataclass(slots=True)
class _Partial:
    begun: float
    pieces: dict[int, bytes] = field(default_factory=dict)
    last: int = 0  # the last one's number; 0: not here yet

    @property
    def octets(self) -> int:
        return sum(map(len, self.pieces.values()))


class CiscoFragmentation:
    """See the module. `goes_first`: used although RFC 7383 was agreed on too."""

    payload_type = PAYLOAD_TYPE

    def __init__(self, *, goes_first: bool = True, identifier: int = 1) -> None:
        self.goes_first = goes_first
        self._identifier = identifier
        self._partial: dict[_Key, _Partial] = {}

    def split(self, octets: bytes, room: int) -> list[bytes]:
        """Cut an encrypted message into datagrams of at most `room` octets each (more where 255 would not do)."""
        most = max(room - HEADER_OCTETS - FRAGMENT_OCTETS, -(-len(octets) // MAX_FRAGMENTS), 16)
        pieces = [octets[start : start + most] for start in range(0, len(octets), most)]
        return [self._fragment(octets, number, len(pieces), piece) for number, piece in enumerate(pieces, 1)]

    def _fragment(self, octets: bytes, number: int, total: int, piece: bytes) -> bytes:
        header = bytearray(octets[:HEADER_OCTETS])
        header[_NEXT_PAYLOAD] = PAYLOAD_TYPE
        header[_LENGTH] = (HEADER_OCTETS + FRAGMENT_OCTETS + len(piece)).to_bytes(4)
        length = (FRAGMENT_OCTETS + len(piece)).to_bytes(2)
        flags = _LAST if number == total else 0
        return bytes(header) + bytes(2) + length + self._identifier.to_bytes(2) + bytes((number, flags)) + piece

    def join(self, header: Header, octets: bytes, now: float) -> bytes | None:
        """Take in a fragment; returns the message once all are here. Raises WireError for what is none."""
        identifier, number, last, piece = _read(octets)
        for key in [key for key, partial in self._partial.items() if now - partial.begun > MAX_AGE]:
            del self._partial[key]
        key = (header.initiator_spi, header.responder_spi, header.is_response, header.message_id, identifier)
        partial = self._partial.get(key)
        if partial is not None and _contradicts(partial, number, last, piece):
            partial = None  # another try of the peer, or somebody else's: the newer one counts
        if partial is None:
            self._partial.pop(key, None)
            while len(self._partial) >= MAX_PARTIAL:
                del self._partial[next(iter(self._partial))]
            partial = self._partial[key] = _Partial(now)
        partial.pieces[number] = piece
        partial.last = number if last else partial.last
        if partial.octets > MAX_OCTETS:
            del self._partial[key]
            raise WireError(f"a message in Cisco fragments grows beyond {MAX_OCTETS} octets")
        if not partial.last or len(partial.pieces) < partial.last:
            return None
        del self._partial[key]
        whole = b"".join(partial.pieces[index] for index in range(1, partial.last + 1))
        _check_whole(header, whole)
        return whole


def _read(octets: bytes) -> tuple[int, int, bool, bytes]:
    """Fragment id, number, whether it is the last, and the data."""
    body = octets[HEADER_OCTETS:]
    length = int.from_bytes(body[2:4])
    if len(body) < FRAGMENT_OCTETS or length != len(body) or body[0] != 0:
        raise WireError(
            "a Cisco fragment with a length that lies, or with something behind it",
            offset=HEADER_OCTETS,
            expected=f"{FRAGMENT_OCTETS} octets or more, the last payload",
            got=f"length {length} of {len(body)} octets",
        )
    if body[6] == 0 or len(body) == FRAGMENT_OCTETS:
        raise WireError("a Cisco fragment without number or data", offset=HEADER_OCTETS + 6, expected="1 to 255")
    return int.from_bytes(body[4:6]), body[6], bool(body[7] & _LAST), body[FRAGMENT_OCTETS:]


def _contradicts(partial: _Partial, number: int, last: bool, piece: bytes) -> bool:
    known = partial.pieces.get(number)
    if known is not None and known != piece:
        return True
    if last:
        return partial.last not in (0, number) or max(partial.pieces, default=0) > number
    return bool(partial.last) and number >= partial.last


def _check_whole(header: Header, whole: bytes) -> None:
    inner = Header.decode(whole)
    if inner.length != len(whole):
        raise WireError("Cisco fragments that make up another length", expected=str(inner.length), got=str(len(whole)))
    same = (
        (inner.initiator_spi, inner.responder_spi, inner.message_id, inner.exchange_type)
        == (header.initiator_spi, header.responder_spi, header.message_id, header.exchange_type)
        and inner.is_response is header.is_response
        and inner.is_initiator is header.is_initiator
    )
    if not same or inner.next_payload != PayloadType.SK:
        raise WireError("Cisco fragments that make up no encrypted message of their own header", offset=HEADER_OCTETS)

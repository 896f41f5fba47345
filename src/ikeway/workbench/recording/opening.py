"""Opens what was on the wire with the recorded keys: a second look at what the engine said that it saw. Fragments are put
together, those of RFC 7383 and Cisco's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ikeway.dialects.anyconnect.fragments import PAYLOAD_TYPE as CISCO_FRAGMENT
from ikeway.dialects.anyconnect.fragments import CiscoFragmentation
from ikeway.errors import IkewayError, IntegrityCheckFailed, WireError
from ikeway.ike.fragments import Reassembly
from ikeway.ike.protection import MAX_FRAGMENTS, NON_ESP_MARKER, Protection
from ikeway.wire.message import Header, Message, decode_payloads
from ikeway.wire.payloads import Encrypted, EncryptedFragment
from ikeway.wire.registry import PayloadType
from ikeway.workbench.recording.format import Datagram, Recording


@dataclass(frozen=True, slots=True)
class Opened:
    """A message out of one datagram, or out of the last of its fragments; or why there is none."""

    datagram: Datagram
    message: Message | None
    error: IkewayError | None = None


def open_all(recording: Recording) -> Iterator[Opened]:
    """Every datagram but ESP, keepalives, and fragments before the last one."""
    protections: dict[tuple[bytes, bytes], tuple[Protection, Protection]] = {}
    for each in recording.keys:
        # One reads what the initiator has sealed, one what the responder has.
        protections[each.initiator_spi, each.responder_spi] = (
            Protection(each.suite, each.keys, is_initiator=False),
            Protection(each.suite, each.keys, is_initiator=True),
        )
    parts: dict[tuple[bytes, bytes, bool], Reassembly] = {}
    cisco: dict[bool, CiscoFragmentation] = {sent: CiscoFragmentation() for sent in (True, False)}
    for datagram in recording.datagrams:
        octets = ike_of(datagram)
        if octets is None:
            continue
        try:
            header = Header.decode(octets)
            if header.next_payload == CISCO_FRAGMENT:
                whole = cisco[datagram.sent].join(header, octets, datagram.t)
                if whole is None:
                    continue
                octets = whole
            message = Message.decode(octets, refuse_critical=False)
            pair = protections.get((message.initiator_spi, message.responder_spi))
            opened = _open(message, octets, pair, parts)
        except IkewayError as error:
            yield Opened(datagram, None, error)
            continue
        if opened is not None:
            yield Opened(datagram, opened)


def ike_of(datagram: Datagram) -> bytes | None:
    """The IKE message in a datagram: whole on port 500, behind the non-ESP marker elsewhere."""
    octets = datagram.octets
    if octets[:4] == NON_ESP_MARKER:
        return octets[4:]
    on_ike_port = len(octets) >= 28 and int.from_bytes(octets[24:28]) == len(octets)
    return octets if on_ike_port else None


def _open(
    message: Message,
    octets: bytes,
    pair: tuple[Protection, Protection] | None,
    parts: dict[tuple[bytes, bytes, bool], Reassembly],
) -> Message | None:
    last = message.payloads[-1] if message.payloads else None
    if not isinstance(last, Encrypted | EncryptedFragment):
        return message
    if pair is None:
        raise IntegrityCheckFailed("there are no keys for this message in the recording")
    plaintext = pair[0 if message.is_initiator else 1].open(octets, last)
    first = int(last.first_payload)
    if isinstance(last, EncryptedFragment):
        if not 1 <= last.fragment_number <= last.total_fragments <= MAX_FRAGMENTS:
            raise WireError(f"fragment {last.fragment_number} of {last.total_fragments}")
        sender = (message.initiator_spi, message.responder_spi, message.is_initiator)
        reassembly = parts.setdefault(sender, Reassembly(1 << 20))
        whole = reassembly.add(
            (message.is_response, message.message_id), last.fragment_number, last.total_fragments, first, plaintext
        )
        if whole is None:
            return None
        first, plaintext = whole
    payloads = decode_payloads(PayloadType(first), plaintext, refuse_critical=False)
    return replace(message, payloads=tuple(payloads))

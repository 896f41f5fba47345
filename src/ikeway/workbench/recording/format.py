r"""The file: a JSON object a line. The first says the version, each other one what happened, and when.

    {"ikeway_recording": 1, "role": "responder", "began": "2026-11-30T08:00:00+00:00", "by": "ikeway 0.1.0", ...}
    {"what": "datagram", "t": 0.0, "sent": false, "local": ["192.0.2.1", 500], "remote": [...], "octets": "..."}
    {"what": "message", "t": 0.0, "sent": false, "local": ..., "remote": ..., "again": 0, "octets": "..."}
    {"what": "keys", "t": 0.0, "spi_i": "...", "spi_r": "...", "proposal": "aes256gcm16-prfsha256-x25519", "sk_d": ...}
    {"what": "esp", "t": 0.1, "spi": "c0ffee00", "algorithms": "aes256gcm16", "wireshark": "\"IPv4\",..."}
    {"what": "note", "t": 0.2, "kind": "held", "text": "..."}

`t` is seconds since the beginning. A datagram is as on the wire, the non-ESP marker of port 4500 included. A message is
in the clear: the IKE header and its payloads where the Encrypted payload was. All octets are hexadecimal. What a relay
records has a "label" as well: "client" or "server".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from ikeway.address import Address
from ikeway.crypto import IkeKeys
from ikeway.errors import ConfigError
from ikeway.ike.proposals import Suite
from ikeway.wire.message import Message
from ikeway.wire.registry import ExchangeType

VERSION = 1
MARK = "ikeway_recording"


class RecordingError(ConfigError):
    """A line of a recording that could not be used; `file` and `line` say where."""


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP payload that went out or came in."""

    t: float
    sent: bool
    local: Address
    remote: Address
    octets: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Plaintext:
    """A message in the clear. `again` counts its retransmissions; `label` says of a relay's which side it is of."""

    t: float
    sent: bool
    local: Address
    remote: Address
    message: Message
    again: int = 0
    label: str = ""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of an IKE SA."""

    t: float
    initiator_spi: bytes
    responder_spi: bytes
    suite: Suite
    keys: IkeKeys = field(repr=False)


@dataclass(frozen=True, slots=True)
class EspKeys:
    """The keys of one direction of a child SA, as a record of Wireshark's table `esp_sa`; empty where it has no word
    for the algorithms."""

    t: float
    spi: int
    algorithms: str
    wireshark: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Note:
    """What the workbench or the engineer did: held, changed, answered, an error."""

    t: float
    kind: str
    text: str
    label: str = ""


Entry = Datagram | Plaintext | Keys | EspKeys | Note


@dataclass(frozen=True, slots=True)
class Recording:
    """All that could be read, in order, and what could not."""

    role: str  # initiator, responder or relay: which side we were
    began: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    by: str = ""
    entries: tuple[Entry, ...] = ()
    errors: tuple[RecordingError, ...] = ()

    @property
    def messages(self) -> tuple[Plaintext, ...]:
        """The messages, without their repetitions."""
        return tuple(each for each in self.entries if isinstance(each, Plaintext) and not each.again)

    def said_by(self, *, initiator: bool) -> tuple[Message, ...]:
        """What one side said, whoever of the two recorded it: the original initiator, or the responder. Of several
        sessions the longest. Of a relay's two the one that the real peer had a part in. IKE SAs that came from
        rekeying are left out: their message ids begin anew, and who is their initiator is another question."""
        real = [each for each in self.messages if self.role != "relay" or not each.sent]
        begun = {each.message.initiator_spi for each in real if each.message.exchange_type == ExchangeType.IKE_SA_INIT}
        sessions: dict[bytes, list[Message]] = {}
        for each in real:
            if each.message.initiator_spi in begun and each.message.is_initiator is initiator:
                sessions.setdefault(each.message.initiator_spi, []).append(each.message)
        longest: list[Message] = max(sessions.values(), key=len) if sessions else []
        return tuple(longest)

    @property
    def keys(self) -> tuple[Keys, ...]:
        """The keys of the IKE SAs."""
        return tuple(each for each in self.entries if isinstance(each, Keys))

    @property
    def datagrams(self) -> tuple[Datagram, ...]:
        """What was on the wire."""
        return tuple(each for each in self.entries if isinstance(each, Datagram))

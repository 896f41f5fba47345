"""Packets on the wire: pyrad's, and what we want of them beyond.

pyrad encodes and decodes, makes and checks authenticators (RFC 2865 section 3, RFC 2866, RFC 5176 section 3.3) and the
Message-Authenticator (RFC 3579 section 3.2), and hides and reveals passwords and keys (RFC 2865 section 5.2, RFC 2868
section 3.5). It is given raw octets only: its conversion of values guesses, and a peer chooses what is in an EAP-Message.

Ours is what is to be believed. CVE-2024-3596 ("Blast-RADIUS") lets somebody on the path turn a refusal into an acceptance,
as MD5 without a key stands behind the Response Authenticator. Against that every Access-Request begins with a
Message-Authenticator, and a response without one is dropped (unless `require_message_authenticator` is off), and with EAP
always (RFC 3579 section 3.1).
"""

from __future__ import annotations

import enum
import functools
import io
import secrets
from collections.abc import Iterable
from typing import Any

from pyrad.dictionary import Dictionary
from pyrad.packet import AcctPacket, AuthPacket, CoAPacket, PacketError

from ikeway.gateway.radius.attributes import MICROSOFT, Attr, Attributes, Pair, grouped

HEADER = 20
MAX_PACKET = 4096


class Code(enum.IntEnum):
    """RFC 2865 section 3, RFC 2866, RFC 5176."""

    ACCESS_REQUEST = 1
    ACCESS_ACCEPT = 2
    ACCESS_REJECT = 3
    ACCOUNTING_REQUEST = 4
    ACCOUNTING_RESPONSE = 5
    ACCESS_CHALLENGE = 11
    DISCONNECT_REQUEST = 40
    DISCONNECT_ACK = 41
    DISCONNECT_NAK = 42
    COA_REQUEST = 43
    COA_ACK = 44
    COA_NAK = 45


_RESPONSES = {
    Code.ACCESS_REQUEST: frozenset({Code.ACCESS_ACCEPT, Code.ACCESS_REJECT, Code.ACCESS_CHALLENGE}),
    Code.ACCOUNTING_REQUEST: frozenset({Code.ACCOUNTING_RESPONSE}),
}
_REQUESTS_TO_US = frozenset({Code.DISCONNECT_REQUEST, Code.COA_REQUEST})


class Fault(enum.Enum):
    """Why a packet is dropped, and what would mend it."""

    MALFORMED = ("malformed", "see what sends from this address; it does not speak RADIUS as it should")
    CODE = ("with a code that has no place here", "see that authentication and accounting ports are not mixed up")
    AUTHENTICATOR = ("with a wrong authenticator", "the shared secret differs: enter the same on both sides")
    UNPROTECTED = (
        "without a Message-Authenticator",
        "update the RADIUS server, or let it send Message-Authenticator in every response (CVE-2024-3596); "
        "`require_message_authenticator = false` takes the risk, but not for EAP",
    )

    @property
    def words(self) -> str:
        """What is wrong."""
        return self.value[0]

    @property
    def remedy(self) -> str:
        """What to do."""
        return self.value[1]


class Dropped(Exception):
    """A packet that is not believed."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.words)
        self.fault = fault


class Reply:
    """A response that is authentic."""

    def __init__(self, packet: Any) -> None:  # noqa: ANN401 - pyrad has no types
        self._packet = packet
        self.code = Code(packet.code)
        self.attributes = _attributes(packet)

    def reveal(self, value: bytes) -> bytes:
        """A key that was hidden with a salt (RFC 2548 section 2.4.2). Raises ValueError."""
        try:
            return bytes(self._packet.SaltDecrypt(value))
        except PacketError as error:
            raise ValueError(str(error)) from None


class Request:
    """A request of ours. It is sent again as it is; a request to another server is another request."""

    def __init__(
        self, code: Code, identifier: int, secret: bytes, pairs: Iterable[Pair], *, password: bytes | None = None
    ) -> None:
        """`password` goes in as User-Password. Raises ValueError when it does not fit into a packet."""
        self._code = code
        if code is Code.ACCESS_REQUEST:
            self._packet = AuthPacket(
                id=identifier, secret=secret, authenticator=secrets.token_bytes(16), dict=_dictionary()
            )
            self._packet.add_message_authenticator()  # the first attribute
            if password is not None:
                self._packet[int(Attr.USER_PASSWORD)] = [self._packet.PwCrypt(password)]
        else:
            self._packet = AcctPacket(id=identifier, secret=secret, dict=_dictionary())
        pairs = list(pairs)
        for key, values in grouped(pairs).items():
            self._packet[key] = values
        self._is_eap = any(key == Attr.EAP_MESSAGE for key, _ in pairs)
        self.octets: bytes = self._packet.RequestPacket()
        if len(self.octets) > MAX_PACKET:
            raise ValueError(f"a RADIUS packet of {len(self.octets)} octets, where {MAX_PACKET} is the most")

    def judge(self, octets: bytes, *, protected: bool) -> Reply:
        """The reply, if it is one to this request. `protected`: it needs a Message-Authenticator. Raises `Dropped`."""
        _check_layout(octets)
        if octets[0] not in _RESPONSES[self._code]:
            raise Dropped(Fault.CODE)
        try:
            packet = self._packet.CreateReply(packet=octets)
        except PacketError:
            raise Dropped(Fault.MALFORMED) from None
        if not self._packet.VerifyReply(packet):
            raise Dropped(Fault.AUTHENTICATOR)
        signed = Attr.MESSAGE_AUTHENTICATOR in packet
        # Of answers to EAP only a bare refusal may come without one: a forged one costs a log-in and opens nothing.
        refusal = packet.code == Code.ACCESS_REJECT and Attr.EAP_MESSAGE not in packet
        must = protected or (self._is_eap and not refusal)
        if self._code is Code.ACCESS_REQUEST and must and not signed:
            raise Dropped(Fault.UNPROTECTED)
        packet.request_authenticator = self._packet.authenticator
        return Reply(packet)


class ServerRequest:
    """A request that a server sends to us (RFC 5176): authentic as far as its secret is."""

    def __init__(self, octets: bytes, secret: bytes) -> None:
        """Raises `Dropped`."""
        _check_layout(octets)
        if octets[0] not in _REQUESTS_TO_US:
            raise Dropped(Fault.CODE)
        try:
            self._packet = CoAPacket(secret=secret, packet=octets, dict=_dictionary())
        except PacketError:
            raise Dropped(Fault.MALFORMED) from None
        if not self._packet.VerifyCoARequest():
            raise Dropped(Fault.AUTHENTICATOR)
        if Attr.MESSAGE_AUTHENTICATOR in self._packet and not self._packet.verify_message_authenticator():
            raise Dropped(Fault.AUTHENTICATOR)
        self.code = Code(self._packet.code)
        self.attributes = _attributes(self._packet)

    def reply(self, code: Code, pairs: Iterable[Pair] = ()) -> bytes:
        """The response, with what has to come back in it (Proxy-State), and signed."""
        answer = self._packet.CreateReply()
        answer.code = int(code)
        answer.add_message_authenticator()
        for key, values in grouped(pairs).items():
            answer[key] = values
        return bytes(answer.ReplyPacket())


@functools.cache
def _dictionary() -> Any:  # noqa: ANN401 - pyrad has no types
    """What pyrad has to know to take a vendor's attributes apart. Values we read ourselves."""
    return Dictionary(io.StringIO(f"VENDOR Microsoft {MICROSOFT}\n"))


def _attributes(packet: Any) -> Attributes:  # noqa: ANN401 - pyrad has no types
    return Attributes({key: tuple(packet[key]) for key in dict.keys(packet)})


def _check_layout(octets: bytes) -> None:
    """Lengths have to add up (RFC 2865 section 3 and 5); pyrad takes an attribute that is cut off. Raises `Dropped`."""
    if len(octets) < HEADER:
        raise Dropped(Fault.MALFORMED)
    length = int.from_bytes(octets[2:4])
    if not HEADER <= length <= min(len(octets), MAX_PACKET):
        raise Dropped(Fault.MALFORMED)
    at = HEADER
    while at < length:
        size = octets[at + 1] if at + 1 < length else 0
        if size < 2 or at + size > length:
            raise Dropped(Fault.MALFORMED)
        at += size

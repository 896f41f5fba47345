"""The message channel of one IKE SA: windows, retransmission, duplicates, fragments, protection.

What is below a conversation and never seen by it (RFC 7296 sections 2.1 to 2.3, RFC 7383):

- A request stays outstanding until its response is here; its datagrams are sent again, octet for octet, with growing
  pauses, until `Retransmission` gives up.
- A request of the peer is delivered once. When it comes again the cached response goes out again, to where it came
  from; while it is still being worked on it is dropped.
- Message ids outside the window are dropped (section 2.2), and nothing that is not authentic changes any state. The
  window begins with the oldest request that has no answer yet, so that a peer cannot begin more than it may.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ikeway.address import Address
from ikeway.errors import IkewayError, IntegrityCheckFailed, WireError
from ikeway.ike.fragments import Reassembly
from ikeway.ike.interception import InterceptionFailed
from ikeway.ike.own_fragments import OwnFragmentation
from ikeway.ike.protection import IP_UDP_OCTETS, MAX_FRAGMENTS, Protection
from ikeway.ike.settings import Retransmission
from ikeway.ike.timers import Timers
from ikeway.wire.message import Header, Message, decode_payloads
from ikeway.wire.payloads import Encrypted, EncryptedFragment, Payload
from ikeway.wire.registry import ExchangeType, PayloadType

LAST_MESSAGE_ID = 0xFFFFFFFF
# Answers repeated to a peer that is not authenticated: the source of its request may be a lie, and the answer larger.
MAX_REPEATS = 32
NEXT_PAYLOAD = 16  # where the header names the first payload


@dataclass(frozen=True, slots=True)
class Datagram:
    """What goes out: a UDP payload without the non-ESP marker, and from where to where."""

    octets: bytes
    local: Address
    remote: Address


@dataclass(frozen=True, slots=True)
class Accepted:
    """A new authentic message. `error` is set when its payloads could not be decoded; then it has none."""

    message: Message
    octets: bytes
    local: Address
    remote: Address
    error: WireError | None = None


@dataclass(slots=True)
class _Outstanding:
    message: Message
    packets: list[bytes]
    sent: int = 0


@dataclass(slots=True)
class _Answered:
    digest: bytes
    local: Address
    remote: Address
    packets: list[bytes] | None = None  # None while the answer is being made
    repeats: int = 0


@dataclass(slots=True)
class ChannelCounters:
    """What was dropped, by reason."""

    integrity: int = 0
    malformed: int = 0
    outside_window: int = 0
    duplicates: int = 0
    retransmissions: int = 0


Sent = Callable[[Message, Address, Address, int], None]


@dataclass(slots=True)
class Channel:
    """See the module. `local`/`remote` is the path of requests; answers go back to where the request came from."""

    initiator_spi: bytes
    responder_spi: bytes
    is_initiator: bool
    local: Address
    remote: Address
    timers: Timers
    transmit: Callable[[Datagram], None]
    on_sent: Sent
    retransmission: Retransmission = Retransmission()
    reassembly_limit: int = 65536
    protection: Protection | None = None
    authenticated: bool = False  # IKE_AUTH is over
    accept_fragments: bool = False  # both sides announced RFC 7383
    own_fragmentation: OwnFragmentation | None = None  # a vendor's, which both sides announced
    fragment_octets: int = 0  # of the IP packets that we make; 0: none are made
    window: int = 1  # requests that the peer may have outstanding
    peer_window: int = 1  # requests that we may have outstanding
    next_id: int = 0
    expected_id: int = 0
    # What `interception` makes of a message before it is encoded; it then gets unknown critical payloads as well.
    before_sending: Callable[[Message], Message] | None = None
    counters: ChannelCounters = field(default_factory=ChannelCounters)
    # The latest request sent and response accepted: IKE_AUTH signs those of IKE_SA_INIT.
    request_octets: bytes = b""
    response_octets: bytes = b""
    _outstanding: dict[int, _Outstanding] = field(default_factory=dict)
    _answered: dict[int, _Answered] = field(default_factory=dict)
    _reassembly: Reassembly | None = None
    _first_fragments: dict[int, bytes] = field(default_factory=dict)  # digests, by message id of the request

    # --- requests of ours -------------------------------------------------------------------------------------------

    @property
    def can_request(self) -> bool:
        """True when the peer's window has room."""
        if self.next_id >= LAST_MESSAGE_ID:
            return False
        return not self._outstanding or self.next_id < min(self._outstanding) + self.peer_window

    @property
    def outstanding(self) -> int:
        """Requests without a response yet."""
        return len(self._outstanding)

    def requested(self, message_id: int) -> Message | None:
        """The request whose response is awaited."""
        outstanding = self._outstanding.get(message_id)
        return outstanding.message if outstanding is not None else None

    def request(
        self, exchange: ExchangeType, payloads: Iterable[Payload], now: float, *, message_id: int | None = None
    ) -> int:
        """Send a request; returns its message id. `message_id` only for IKE_SA_INIT, which begins again with 0.

        Raises `IkewayError` when the interception does not let it pass.
        """
        if message_id is None:
            message_id = self.next_id
        message, packets = self._prepare(self._message(exchange, message_id, payloads, is_response=False))
        self.next_id = message_id + 1
        outstanding = self._outstanding[message_id] = _Outstanding(message, packets)
        self.request_octets = outstanding.packets[0]
        self._send_outstanding(message_id, now)
        return message_id

    def notify_once(self, exchange: ExchangeType, payloads: Iterable[Payload], *, intercepted: bool = True) -> None:
        """Send a request for whose response nobody will wait: the SA ends with it, even past an interception."""
        made = self._message(exchange, self.next_id, payloads, is_response=False)
        self.next_id += 1
        try:
            message, packets = self._prepare(made, intercepted=intercepted)
        except IkewayError:
            message, packets = self._prepare(made, intercepted=False)
        self._transmit(packets, self.local, self.remote)
        self.on_sent(message, self.local, self.remote, 0)

    def retransmit(self, message_id: int, now: float) -> bool:
        """The retransmission timer of a request fell due: send it again. False when the tries are used up."""
        outstanding = self._outstanding.get(message_id)
        if outstanding is None:
            return True
        if outstanding.sent > self.retransmission.tries:
            return False
        self.counters.retransmissions += 1
        self._send_outstanding(message_id, now)
        return True

    def resend_all(self, now: float) -> None:
        """Send what is outstanding at once on a new path, with fresh tries (RFC 4555 section 3.5)."""
        for message_id, outstanding in self._outstanding.items():
            outstanding.sent = 0
            self._send_outstanding(message_id, now)

    def cancel_requests(self) -> None:
        """Forget what is outstanding."""
        for message_id in self._outstanding:
            self.timers.cancel(("retransmit", message_id))
        self._outstanding.clear()

    def _send_outstanding(self, message_id: int, now: float) -> None:
        outstanding = self._outstanding[message_id]
        outstanding.sent += 1
        self._transmit(outstanding.packets, self.local, self.remote)
        self.on_sent(outstanding.message, self.local, self.remote, outstanding.sent - 1)
        timeout = self.retransmission.timeout(outstanding.sent)
        if timeout is not None:
            self.timers.set(("retransmit", message_id), now + timeout)

    # --- answers of ours --------------------------------------------------------------------------------------------

    def respond(
        self, message_id: int, exchange: ExchangeType, payloads: Iterable[Payload], *, intercepted: bool = True
    ) -> bytes:
        """Answer a delivered request, and keep the answer for its duplicates. Returns the first datagram's octets.

        Raises `IkewayError` when the interception does not let it pass; nothing is answered then.
        """
        answered = self._answered[message_id]
        made = self._message(exchange, message_id, payloads, is_response=True)
        message, answered.packets = self._prepare(made, intercepted=intercepted)
        self._transmit(answered.packets, answered.local, answered.remote)
        self.on_sent(message, answered.local, answered.remote, 0)
        return answered.packets[0]

    def expect_answered(self, message_id: int, octets: bytes, local: Address, remote: Address) -> None:
        """Record a request that was taken in elsewhere (IKE_SA_INIT)."""
        self._answered[message_id] = _Answered(_digest(octets), local, remote)
        self.expected_id = message_id + 1

    def expect_also(self, message_id: int, octets: bytes) -> None:
        """A request that was taken in comes in other octets now, which are as good: these are its duplicates."""
        answered = self._answered.get(message_id)
        if answered is not None:  # else the log-in has gone on, and nobody waits for that answer any more
            answered.digest = _digest(octets)

    # --- what comes in ----------------------------------------------------------------------------------------------

    def accept(self, header: Header, octets: bytes, local: Address, remote: Address) -> Accepted | None:
        """Check, decrypt and deliver a message, or drop it and count why."""
        if header.is_response:
            outstanding = self._outstanding.get(header.message_id)
            if outstanding is None:
                self.counters.duplicates += 1
                return None
            if outstanding.message.exchange_type != header.exchange_type:
                self.counters.malformed += 1
                return None
        elif self.protection is None:
            self.counters.integrity += 1  # all that may come in the clear is the answer to IKE_SA_INIT
            return None
        elif not self._is_new_request(header.message_id, octets, local, remote):
            return None
        try:
            accepted = self._open(header, octets, local, remote)
        except IntegrityCheckFailed:
            self.counters.integrity += 1
            return None
        except WireError:
            self.counters.malformed += 1
            return None
        if accepted is None:
            return None
        if self._reassembly is not None:
            self._reassembly.forget((header.is_response, header.message_id))
        if not header.is_response:
            self._take_request(header, octets, local, remote)
        elif self.protection is not None:
            self.take_response(header.message_id)
        return accepted

    @property
    def may_fragment(self) -> bool:
        """True when there is a way to cut messages that the peer understands."""
        return self.accept_fragments or self.own_fragmentation is not None

    def is_own_fragment(self, header: Header) -> bool:
        """True for a fragment in the vendor's own form."""
        own = self.own_fragmentation
        return own is not None and header.next_payload == own.payload_type and self.protection is not None

    def join(self, header: Header, octets: bytes, now: float) -> tuple[Header, bytes] | None:
        """Take in a fragment in the vendor's own form; returns the message that is whole with it."""
        assert self.own_fragmentation is not None
        try:
            whole = self.own_fragmentation.join(header, octets, now)
            return (Header.decode(whole), whole) if whole is not None else None
        except WireError:
            self.counters.malformed += 1
            return None

    def _is_new_request(self, message_id: int, octets: bytes, local: Address, remote: Address) -> bool:
        answered = self._answered.get(message_id)
        if answered is not None:
            self.counters.duplicates += 1
            if self._is_duplicate(answered, octets):
                # The peer may have moved since, or its NAT (RFC 7296 section 2.11, RFC 4555 section 3.5).
                answered.local, answered.remote = local, remote
                answered.repeats += 1
                if answered.packets is not None and (self.authenticated or answered.repeats <= MAX_REPEATS):
                    self._transmit(answered.packets, local, remote)
            return False
        if not self.expected_id <= message_id < self._first_unanswered() + self.window:
            self.counters.outside_window += 1
            return False
        return True

    def _is_duplicate(self, answered: _Answered, octets: bytes) -> bool:
        """The same octets again; or the first fragment of the same message, split anew into smaller ones."""
        if answered.digest == _digest(octets):
            return True
        if not self.accept_fragments or self.protection is None or octets[NEXT_PAYLOAD] != PayloadType.SKF:
            return False
        try:
            payload = Message.decode(octets).find(EncryptedFragment)
            if payload is None or payload.fragment_number != 1:
                return False
            self.protection.open(octets, payload)
        except (IntegrityCheckFailed, WireError):
            return False
        answered.digest = _digest(octets)
        return True

    def _first_unanswered(self) -> int:
        waiting = (message_id for message_id, answered in self._answered.items() if answered.packets is None)
        return min(waiting, default=self.expected_id)

    def _take_request(self, header: Header, octets: bytes, local: Address, remote: Address) -> None:
        message_id = header.message_id
        # The first fragment of a request asks for its answer again (RFC 7383 section 2.6.1).
        first = self._first_fragments.pop(message_id, None)
        self._answered[message_id] = _Answered(
            first if first is not None and header.next_payload == PayloadType.SKF else _digest(octets), local, remote
        )
        while self.expected_id in self._answered:
            self.expected_id += 1
        for old in [key for key in self._answered if key < self.expected_id - self.window]:
            del self._answered[old]

    def take_response(self, message_id: int) -> None:
        """Wait for that response no longer. One in the clear is taken by whoever believes it, not by `accept`."""
        self._outstanding.pop(message_id, None)
        self.timers.cancel(("retransmit", message_id))

    def _open(self, header: Header, octets: bytes, local: Address, remote: Address) -> Accepted | None:
        plain = self.before_sending is None
        message = Message.decode(octets, refuse_critical=plain)
        if self.protection is None:
            return Accepted(message, octets, local, remote)
        last = message.payloads[-1] if message.payloads else None
        if isinstance(last, Encrypted):
            first, plaintext = int(last.first_payload), self.protection.open(octets, last)
        elif isinstance(last, EncryptedFragment) and self.accept_fragments:
            whole = self._open_fragment(header, octets, last)
            if whole is None:
                return None
            first, plaintext = whole
        else:
            raise IntegrityCheckFailed("a message without protection on a protected SA")
        try:
            payloads: Sequence[Payload] = decode_payloads(PayloadType(first), plaintext, refuse_critical=plain)
            error = None
        except WireError as failure:
            payloads, error = (), failure
        return Accepted(_with(message, tuple(payloads)), octets, local, remote, error)

    def _open_fragment(self, header: Header, octets: bytes, payload: EncryptedFragment) -> tuple[int, bytes] | None:
        assert self.protection is not None
        if self._reassembly is None:
            self._reassembly = Reassembly(self.reassembly_limit)
        key = (header.is_response, header.message_id)
        number, total = payload.fragment_number, payload.total_fragments
        if not 1 <= number <= total <= MAX_FRAGMENTS:
            raise WireError(f"fragment {number} of {total}")
        if self._reassembly.has(key, number, total):
            return None
        plaintext = self.protection.open(octets, payload)
        if number == 1 and not header.is_response:
            self._first_fragments[header.message_id] = _digest(octets)
        return self._reassembly.add(key, number, total, int(payload.first_payload), plaintext)

    # --- octets -----------------------------------------------------------------------------------------------------

    def _message(
        self, exchange: ExchangeType, message_id: int, payloads: Iterable[Payload], *, is_response: bool
    ) -> Message:
        return Message(
            self.initiator_spi,
            self.responder_spi,
            exchange,
            self.is_initiator,
            is_response,
            message_id,
            tuple(payloads),
        )

    def _prepare(self, message: Message, *, intercepted: bool = True) -> tuple[Message, list[bytes]]:
        """What goes out in the end: the message, and its datagrams."""
        if self.before_sending is None or not intercepted:
            return message, self._encode(message)
        changed = self.before_sending(message)
        try:
            return changed, self._encode(changed)
        except ValueError as error:
            raise InterceptionFailed(f"what the interception made of the message cannot be encoded: {error}") from error

    def _encode(self, message: Message) -> list[bytes]:
        if self.protection is None:
            return [message.encode()]
        sealed = self.protection.seal(message)
        overhead = IP_UDP_OCTETS[self.remote.is_ipv6] + 4
        if self.fragment_octets and len(sealed) + overhead > self.fragment_octets:
            own = self.own_fragmentation
            if own is not None and (own.goes_first or not self.accept_fragments):
                return own.split(sealed, self.fragment_octets - overhead)
            return self.protection.seal_fragments(message, self.fragment_octets, ipv6=self.remote.is_ipv6)
        return [sealed]

    def _transmit(self, packets: Iterable[bytes], local: Address, remote: Address) -> None:
        for octets in packets:
            self.transmit(Datagram(octets, local, remote))


def _digest(octets: bytes) -> bytes:
    return hashlib.sha256(octets).digest()


def _with(message: Message, payloads: tuple[Payload, ...]) -> Message:
    return Message(
        message.initiator_spi,
        message.responder_spi,
        message.exchange_type,
        message.is_initiator,
        message.is_response,
        message.message_id,
        payloads,
    )

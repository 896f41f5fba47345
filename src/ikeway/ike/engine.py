"""`Engine`: all IKE SAs of one endpoint, both roles. The only class that a user of the protocol drives.

    engine = Engine(EngineSettings(responder=ResponderSettings()))
    engine.receive(octets, local, remote, now)      # a datagram came in (non-ESP marker removed)
    for event in engine.events(): ...               # first: what happened, what is asked, which SAs to install
    for datagram in engine.outgoing(): ...          # then: what to send
    engine.tick(now)                                # when engine.deadline() is reached

`now` is seconds on any clock that never goes back; `EngineSettings.epoch` ties it to the calendar.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ikeway.address import Address
from ikeway.errors import IkewayError, PeerError, WireError
from ikeway.ike import events
from ikeway.ike.channel import Datagram
from ikeway.ike.cookies import CookieJar
from ikeway.ike.driver import Task, notify_for
from ikeway.ike.events import Event
from ikeway.ike.exchanges import auth, init
from ikeway.ike.half_open import Admission, HalfOpen
from ikeway.ike.interception import combine, take_in_first
from ikeway.ike.sa import IkeSa, IkeState
from ikeway.ike.settings import Connection, EngineSettings, ResponderSettings
from ikeway.ike.shared import Shared
from ikeway.questions import Question
from ikeway.wire.errors import UnsupportedCriticalPayload, UnsupportedVersion
from ikeway.wire.message import Header, Message
from ikeway.wire.payloads import Nonce, Notify, Payload
from ikeway.wire.registry import ExchangeType, NotifyType

MAX_INIT_OCTETS = 16384  # of an IKE_SA_INIT request: it is kept until the initiator is authenticated


@dataclass(slots=True)
class EngineCounters:
    """What strangers sent, by what became of it."""

    malformed: int = 0
    unknown_spi: int = 0
    cookies_demanded: int = 0
    cookies_wrong: int = 0
    half_open_dropped: int = 0
    turned_away: int = 0


class Engine:
    """See the module. Not for use from several threads."""

    def __init__(self, settings: EngineSettings | None = None, *, random: Callable[[int], bytes] = os.urandom) -> None:
        self.settings = settings or EngineSettings()
        self.counters = EngineCounters()
        self._shared = Shared(self.settings, random)
        self._shared.wake = self._push
        self._shared.connect = self._connect
        self._responder = self.settings.responder
        self._cookies = CookieJar(random)
        self._deadlines: list[tuple[float, int, IkeSa]] = []
        self._serial = 0
        self._half_open = HalfOpen()

    # --- what a user calls ------------------------------------------------------------------------------------------

    @property
    def sas(self) -> list[IkeSa]:
        """All IKE SAs that are not closed."""
        return [sa for sa in self._shared.table.values() if sa.state is not IkeState.CLOSED]

    def remark(self, kind: str, text: str) -> None:
        """Something to tell among the events, behind those that are there already: for interceptions."""
        self._shared.report(events.Remark(kind, text))

    def reconfigure(self, responder: ResponderSettings | None) -> None:
        """Other settings for IKE SAs to come."""
        self._responder = responder

    def connect(self, connection: Connection, local: Address, remote: Address, now: float) -> IkeSa:
        """Begin to connect as the initiator."""
        return self._connect(connection, local, remote, now, None)

    def receive(self, octets: bytes, local: Address, remote: Address, now: float) -> None:
        """Take in one datagram, without the non-ESP marker. Raises nothing, whatever it holds."""
        try:
            header = Header.decode(octets)
            if header.length != len(octets):
                raise WireError(f"the header says {header.length} octets, the datagram has {len(octets)}")
        except UnsupportedVersion as error:
            self._refuse_version(error, local, remote)
            return
        except WireError as error:
            self._malformed(error, local, remote)
            return
        if header.exchange_type == ExchangeType.IKE_SA_INIT and not header.is_response:
            self._on_init_request(header, octets, local, remote, now)
            return
        sa = self._shared.table.get(header.responder_spi if header.is_initiator else header.initiator_spi)
        own_turn = sa is not None and sa.is_initiator is not header.is_initiator and self._spis_fit(sa, header)
        if sa is None or not own_turn:
            # RFC 7296 section 2.21.4 allows an answer; silence is worth more than telling strangers apart.
            self.counters.unknown_spi += 1
            return
        sa.receive(header, octets, local, remote, now)
        self._settle(sa)

    def outgoing(self) -> list[Datagram]:
        """What is to be sent, oldest first. Carry out `events()` before."""
        datagrams = list(self._shared.outbox)
        self._shared.outbox.clear()
        return datagrams

    def events(self) -> list[Event]:
        """What happened, oldest first."""
        found = list(self._shared.event_queue)
        self._shared.event_queue.clear()
        return found

    def answer(self, question: Question[Any], answer: Any, now: float, *, sa: IkeSa | None = None) -> None:  # noqa: ANN401
        """Answer what an `Asked` event asked: with a value, or with an `IkewayError` to refuse.

        `sa` is the event's; without it all SAs are searched. Questions of SAs that are gone are ignored.
        """
        value, error = (None, answer) if isinstance(answer, IkewayError) else (answer, None)
        candidates = [sa] if sa is not None else list(self._shared.table.values())
        for candidate in candidates:
            if candidate.driver.owns(question):
                candidate.answer(question, value, error, now)
                self._settle(candidate)
                return

    def deadline(self) -> float | None:
        """When `tick` has to be called at the latest."""
        while self._deadlines:
            at, _, sa = self._deadlines[0]
            if sa.timers.next() == at:
                return at
            heapq.heappop(self._deadlines)
            if sa.next_wake == at:
                sa.next_wake = None
            self._push(sa)
        return None

    def tick(self, now: float) -> None:
        """Carry out what has fallen due."""
        while (at := self.deadline()) is not None and at <= now:
            _, _, sa = heapq.heappop(self._deadlines)
            sa.next_wake = None
            sa.tick(now)
            self._settle(sa)

    def close_all(self, now: float) -> None:
        """Close every IKE SA; the peers are told."""
        for sa in list(self._shared.table.values()):
            sa.close(now)
            self._settle(sa)

    # --- initiator --------------------------------------------------------------------------------------------------

    def _connect(
        self, connection: Connection, local: Address, remote: Address, now: float, replaces: IkeSa | None
    ) -> IkeSa:
        sa = IkeSa(
            self._shared,
            connection,
            is_initiator=True,
            spi=self._shared.new_ike_spi(),
            peer_spi=bytes(8),
            local=local,
            remote=remote,
            now=now,
        )
        sa.channel.window = connection.window
        sa.replaces = replaces
        self._shared.table[sa.spi] = sa
        sa.driver.enqueue(Task("connect", auth.connect))
        self._settle(sa)
        return sa

    # --- responder --------------------------------------------------------------------------------------------------

    def _on_init_request(self, header: Header, octets: bytes, local: Address, remote: Address, now: float) -> None:
        responder = self._responder
        if responder is None or not self._is_first(header):
            self.counters.unknown_spi += 1
            return
        if len(octets) > MAX_INIT_OCTETS:
            self._malformed(WireError(f"an IKE_SA_INIT request of {len(octets)} octets"), local, remote)
            return
        known = self._half_open.find(header.initiator_spi, remote, octets)
        if known is not None:
            known.channel.expect_also(0, octets)  # the last may have been the one without the cookie
            known.receive(header, octets, local, remote, now)  # the channel sends its answer again
            return
        hook = combine(self.settings.interception, responder.interception)
        try:
            message = Message.decode(octets, refuse_critical=hook is None)
        except UnsupportedCriticalPayload as error:
            self._turn_away(header, local, remote, _unsupported(error))
            return
        except WireError as error:
            self._malformed(error, local, remote)
            return
        self._shared.report(events.MessageReceived(None, message, local, remote))
        if self._repeats(header, message, octets, local, remote, now):
            return
        if not self._admit(responder, message, local, remote, now):
            return
        try:
            message = take_in_first(hook, message)
            sa = init.respond(self._shared, responder, message, octets, (local, remote), now)
        except init.Turned as turned:
            reason = PeerError(str(turned), notify=int(turned.notify.type), remedy=turned.remedy)
            self._shared.report(events.Refused(local, remote, reason, rate_limited=True))
            self._turn_away(header, local, remote, turned.notify)
            return
        except IkewayError as failure:
            self._shared.report(events.Refused(local, remote, failure, rate_limited=True))
            self._turn_away(header, local, remote, _notify_of(failure))
            return
        self._shared.table[sa.spi] = sa
        self._half_open.add(sa, octets)
        sa.timers.set("establish", now + responder.half_open_seconds)
        self._settle(sa)

    def _repeats(
        self, header: Header, message: Message, octets: bytes, local: Address, remote: Address, now: float
    ) -> bool:
        """The same request with or without a cookie is the same IKE SA, and is answered alike.

        When a request that was sent twice gets a cookie the first time and a place the second time, its initiator takes
        the answer for one to the request with the cookie, and signs that one. All else must be equal: the suite was
        chosen from the other one's proposals.
        """
        nonce, cookie = message.find(Nonce), message.notify(NotifyType.COOKIE)
        if nonce is None:
            return False
        for sa in self._half_open.others(header.initiator_spi, remote, nonce.value):
            if not _differ_in_cookie_only(message, Message.decode(sa.init_request, refuse_critical=False)):
                continue
            if cookie is not None:
                if not self._cookies.check(cookie.value, nonce.value, message.initiator_spi, remote, now):
                    return False
                sa.init_request = octets  # whoever has a cookie has sent this one last
            sa.channel.expect_also(0, octets)
            self._half_open.add(sa, octets)
            sa.receive(header, octets, local, remote, now)
            return True
        return False

    def _is_first(self, header: Header) -> bool:
        """What the header of an IKE_SA_INIT request must be like; our own one, sent back to us, is none."""
        well_formed = header.is_initiator and not any(header.responder_spi) and header.message_id == 0
        return well_formed and any(header.initiator_spi) and header.initiator_spi not in self._shared.table

    def _admit(
        self, responder: ResponderSettings, message: Message, local: Address, remote: Address, now: float
    ) -> bool:
        """Cookies and limits: no state and no costly work for an initiator that may be forged (section 2.6)."""
        admission = self._half_open.admission(responder, remote)
        if admission is Admission.FULL:
            self.counters.half_open_dropped += 1
            return False
        if admission is Admission.FREE:
            return True
        nonce = message.find(Nonce)
        if nonce is None:
            self.counters.malformed += 1
            return False
        cookie = message.notify(NotifyType.COOKIE)
        if cookie is not None and self._cookies.check(cookie.value, nonce.value, message.initiator_spi, remote, now):
            return True
        if cookie is not None:
            self.counters.cookies_wrong += 1
        self.counters.cookies_demanded += 1
        fresh = self._cookies.make(nonce.value, message.initiator_spi, remote, now)
        self._reply(message.initiator_spi, local, remote, Notify(NotifyType.COOKIE, fresh))
        return False

    def _turn_away(self, header: Header, local: Address, remote: Address, notify: Notify) -> None:
        self.counters.turned_away += 1
        self._reply(header.initiator_spi, local, remote, notify)

    def _reply(self, initiator_spi: bytes, local: Address, remote: Address, notify: Notify) -> None:
        """A stateless answer to an IKE_SA_INIT request."""
        message = Message(initiator_spi, bytes(8), ExchangeType.IKE_SA_INIT, False, True, 0, (notify,))
        self._shared.transmit(Datagram(message.encode(), local, remote))
        self._shared.report(events.MessageSent(None, message, local, remote))

    def _refuse_version(self, error: UnsupportedVersion, local: Address, remote: Address) -> None:
        """A request of a later major version is told ours (RFC 7296 section 2.5); IKEv1 is met with silence."""
        self._malformed(error, local, remote)
        header = error.header
        if error.version > 2 and not header.is_response and self._responder is not None:
            message = Message(
                header.initiator_spi,
                header.responder_spi,
                header.exchange_type,
                False,
                True,
                header.message_id,
                (Notify(NotifyType.INVALID_MAJOR_VERSION),),
            )
            self._shared.transmit(Datagram(message.encode(), local, remote))

    def _malformed(self, error: IkewayError, local: Address, remote: Address) -> None:
        self.counters.malformed += 1
        self._shared.report(events.Refused(local, remote, error, rate_limited=True))

    @staticmethod
    def _spis_fit(sa: IkeSa, header: Header) -> bool:
        channel = sa.channel
        if header.initiator_spi != channel.initiator_spi:
            return False
        # The responder's SPI is not known before its first answer.
        return header.responder_spi == channel.responder_spi or (sa.is_initiator and not any(channel.responder_spi))

    # --- bookkeeping ------------------------------------------------------------------------------------------------

    def _settle(self, sa: IkeSa) -> None:
        """After anything happened to an SA: is it half open still, when does it want to be woken."""
        self._half_open.settle(sa, forgotten=sa.spi not in self._shared.table)
        self._push(sa)

    def _push(self, sa: IkeSa) -> None:
        at = sa.timers.next()
        if at is not None and (sa.next_wake is None or at < sa.next_wake):
            sa.next_wake = at
            self._serial += 1
            heapq.heappush(self._deadlines, (at, self._serial, sa))
            if len(self._deadlines) > 64 + 4 * len(self._shared.table):
                self._compact()

    def _compact(self) -> None:
        """Let go of SAs that are gone: what they once waited for may be hours away."""
        self._deadlines = [
            (at, serial, sa)
            for at, serial, sa in self._deadlines
            if sa.next_wake == at and sa.spi in self._shared.table
        ]
        heapq.heapify(self._deadlines)


def _differ_in_cookie_only(one: Message, other: Message) -> bool:
    """True for requests that are the same but for their COOKIE notifies (RFC 7296 section 2.6)."""

    def rest(message: Message) -> list[Payload]:
        return [each for each in message.payloads if not (isinstance(each, Notify) and each.type == NotifyType.COOKIE)]

    return rest(one) == rest(other)


def _unsupported(error: UnsupportedCriticalPayload) -> Notify:
    return Notify(NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD, bytes([int(error.payload_type) & 0xFF]))


def _notify_of(failure: IkewayError) -> Notify:
    """What a refused IKE_SA_INIT request is answered with."""
    if isinstance(failure, UnsupportedCriticalPayload):
        return _unsupported(failure)
    return notify_for(failure) if isinstance(failure, PeerError) else Notify(NotifyType.NO_PROPOSAL_CHOSEN)

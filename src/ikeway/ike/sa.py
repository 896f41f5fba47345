"""`IkeSa`: what lasts of one IKE SA. SPIs, keys, message windows, child SAs. It knows exchanges only by name.

Theory of operation. Datagrams go through the `Channel`, which delivers each authentic message once. A request of the peer
starts a conversation out of `exchanges/`, a wish of ours is a `Task` that waits in the `Driver`'s queue until the peer's
window has room. Conversations change the SA only between messages, so between two calls from outside its state is
always whole. Rekeying makes a new `IkeSa`; child SAs, timers and waiting tasks move over, and the old one lives
until its delete has been answered. A closed SA stays in the table a little while, only to answer duplicates.
"""

from __future__ import annotations

import enum
import importlib
from collections.abc import Awaitable
from types import ModuleType
from typing import Any, TypeVar, cast

from ikeway.address import Address
from ikeway.auth.identity import Identity
from ikeway.crypto import IkeKeys, Prf, new_prf
from ikeway.eap.questions import IkeBindingQuestion
from ikeway.errors import IkewayError, NegotiationFailed, PeerUnreachable, ProtocolViolation
from ikeway.ike import events, interception, lifetimes, succession
from ikeway.ike.abilities import Abilities
from ikeway.ike.binding import binding_of
from ikeway.ike.channel import Accepted, Channel
from ikeway.ike.child import ChildSa, ChildState
from ikeway.ike.conversation import Asking, Payloads, Request, suspend
from ikeway.ike.driver import Driver, Task
from ikeway.ike.events import Event
from ikeway.ike.half_open import Key as HalfOpenKey
from ikeway.ike.interception import Interception
from ikeway.ike.nat import NatFindings
from ikeway.ike.proof import Proof
from ikeway.ike.proposals import Suite
from ikeway.ike.protection import Protection
from ikeway.ike.settings import ChildSettings, Connection
from ikeway.ike.shared import Shared
from ikeway.ike.silence import unanswered
from ikeway.ike.timers import Timers
from ikeway.questions import Question
from ikeway.wire.errors import UnsupportedCriticalPayload
from ikeway.wire.message import Header, Message
from ikeway.wire.payloads import ConfigurationAttribute, Notify, Proposal
from ikeway.wire.registry import ExchangeType, KeyExchangeMethod, NotifyType

FORGET_SECONDS = 10.0  # how long a closed SA answers duplicates

T = TypeVar("T")


class IkeState(enum.Enum):
    """Where an IKE SA is in its life."""

    CONNECTING = "connecting"
    ESTABLISHED = "established"
    REKEYING = "rekeying"  # our rekeying of it is under way
    REKEYED = "rekeyed"  # replaced; the peer will delete it
    DELETING = "deleting"  # our delete is under way
    CLOSED = "closed"


ALIVE = frozenset({IkeState.ESTABLISHED, IkeState.REKEYING})


class IkeSa:
    """One IKE SA, of either role. Made by `Engine` and by rekeying, never by a user."""

    interception: Interception | None = None  # set by `interception.install`
    login_lifetime = 0.0  # responder: how long the log-in holds (RFC 4478); 0: no limit

    def __init__(
        self,
        shared: Shared,
        connection: Connection | None,
        *,
        is_initiator: bool,
        spi: bytes,
        peer_spi: bytes,
        local: Address,
        remote: Address,
        now: float,
        connection_id: int | None = None,
    ) -> None:
        self.shared = shared
        self._connection = connection
        self.connection_id = connection_id or shared.new_connection_id()
        self.is_initiator = is_initiator  # of this IKE SA: whose SPI comes first in the header
        self.spi = spi
        self.now = self.created = now
        self.state = IkeState.CONNECTING
        self.established = False
        self.timers = Timers(lambda: shared.wake(self))
        initiator_spi, responder_spi = (spi, peer_spi) if is_initiator else (peer_spi, spi)
        self.channel = Channel(
            initiator_spi=initiator_spi,
            responder_spi=responder_spi,
            is_initiator=is_initiator,
            local=local,
            remote=remote,
            timers=self.timers,
            transmit=shared.transmit,
            on_sent=self._on_sent,
            reassembly_limit=shared.settings.reassembly_limit,
        )
        if connection is not None:
            self.connection = connection
        self.driver = Driver(self)
        self.suite: Suite | None = None
        self.chosen_from: tuple[Proposal, ...] = ()  # responder: what IKE_SA_INIT allowed
        self.keys: IkeKeys | None = None
        self._prf: Prf | None = None
        # What IKE_AUTH signs (RFC 7296 section 2.15).
        self.init_request = self.init_response = b""
        self.nonce_initiator = self.nonce_responder = b""
        self.local_identity: Identity | None = None
        self.remote_identity: Identity | None = None
        self.eap_identity: bytes | None = None
        self.peer_certificate: object | None = None
        self.proofs: tuple[Proof, ...] = ()  # of the peer, in order
        self.peer = Abilities()
        self.refusal: Message | None = None  # initiator: of IKE_SA_INIT, not believed yet
        self.mobike = False
        self.is_mobike_initiator = is_initiator  # of the first IKE SA: who decides on the path (RFC 4555 section 3.1)
        self.peer_addresses: tuple[str, ...] = ()
        self.untried_addresses: list[str] = []
        self.last_path = (local, remote)  # of the last authentic message
        self.nat = NatFindings()
        self.pretends_nat = self.udp_encapsulation = False
        self.configuration: tuple[ConfigurationAttribute, ...] = ()  # the CFG_REPLY, sent or received
        self.children: list[ChildSa] = []
        self.last_received = self.last_sent = now
        self.latest_update = -1  # message id of the peer's last UPDATE_SA_ADDRESSES
        self.replaces: IkeSa | None = None  # the SA that this one reauthenticates
        self.successor: IkeSa | None = None
        self.predecessor: IkeSa | None = None  # what it has replaced, until that one is closed
        self.rekeyed_by_peer: tuple[IkeSa, bytes] | None = None  # a colliding rekeying: its SA and lowest nonce
        self.half_open_key: HalfOpenKey | None = None  # the engine's, while it is half open
        self.next_wake: float | None = None  # the engine's: what it has noted as our deadline
        self.preferred_method: KeyExchangeMethod | None = None  # what the peer demanded at the last rekeying
        self.makings = 0  # exchanges of ours under way that make or rekey child SAs
        self.reserved_spis: set[int] = set()  # of child SAs that are being agreed on
        self.early_deletes: set[int] = set()  # the peer's SPIs deleted before we knew them

    # --- what others read -------------------------------------------------------------------------------------------

    @property
    def connection(self) -> Connection:
        """The agreement; a responder has one from IKE_AUTH on."""
        assert self._connection is not None, "no connection selected yet"
        return self._connection

    @connection.setter
    def connection(self, connection: Connection) -> None:
        self._connection = connection
        self.channel.retransmission = connection.retransmission
        interception.install(self, connection.interception)

    @property
    def has_connection(self) -> bool:
        """False for a responder that does not know yet who is calling."""
        return self._connection is not None

    @property
    def name(self) -> str:
        """The connection's name, for people."""
        return self._connection.name if self._connection is not None else "new"

    @property
    def local(self) -> Address:
        """Our outer address."""
        return self.channel.local

    @property
    def remote(self) -> Address:
        """The peer's outer address."""
        return self.channel.remote

    @property
    def prf(self) -> Prf:
        """The negotiated PRF."""
        assert self._prf is not None
        return self._prf

    @property
    def is_alive(self) -> bool:
        """True while child SAs may be made on it."""
        return self.state in ALIVE

    @property
    def live_children(self) -> list[ChildSa]:
        """Child SAs but those that only linger."""
        return [child for child in self.children if child.state is not ChildState.DELETED]

    @property
    def latest(self) -> IkeSa:
        """What rekeying has made of this SA: itself, or the one that has replaced it in the end."""
        sa = self
        while sa.successor is not None:
            sa = sa.successor
        return sa

    def find_child(self, *, spi_in: int | None = None, spi_out: int | None = None) -> ChildSa | None:
        """The child SA with this SPI."""
        for child in self.children:
            if (spi_in is not None and child.spi_in == spi_in) or (spi_out is not None and child.spi_out == spi_out):
                return child
        return None

    # --- what conversations use -------------------------------------------------------------------------------------

    async def request(self, exchange: ExchangeType, payloads: Payloads, *, message_id: int | None = None) -> Message:
        """Send a request and wait for its response."""
        response: Message = await suspend(Request(exchange, payloads, message_id))
        return response

    def ask(self, question: Question[T]) -> Awaitable[T]:
        """Ask the outside (see `ikeway.questions.Ask`)."""
        if isinstance(question, IkeBindingQuestion):
            return cast("Awaitable[T]", binding_of(self))
        return suspend(Asking(question))

    def report(self, event: Event) -> None:
        """Tell the outside."""
        self.shared.report(event)

    def send_response(self, message_id: int, exchange: ExchangeType, payloads: Payloads) -> bytes:
        """Answer a request; returns the octets sent. IKE_SA_INIT: raises what an interception does."""
        self.last_sent = self.now
        try:
            return self.channel.respond(message_id, exchange, payloads)
        except IkewayError as error:
            if exchange == ExchangeType.IKE_SA_INIT:
                raise
            interception.answer_failed(self, message_id, exchange, error)
            return b""

    def protect(self, suite: Suite, keys: IkeKeys) -> None:
        """From now on messages are encrypted."""
        self.suite, self.keys = suite, keys
        assert suite.prf is not None
        self._prf = new_prf(suite.prf)
        self.channel.protection = Protection(suite, keys, is_initiator=self.is_initiator)
        self.report(events.IkeKeysDerived(self, self.channel.initiator_spi, self.channel.responder_spi, suite, keys))

    def establish(self) -> None:
        """Both sides are authenticated, or this SA takes over from one that was."""
        self.state = IkeState.ESTABLISHED
        self.established = self.channel.authenticated = True
        self.timers.cancel("establish")
        self.shared.established(self)
        lifetimes.start(self)

    def may_start(self, task: Task) -> bool:
        """Whether a task of ours may begin in this state."""
        if self.state is IkeState.CONNECTING:
            return task.name == "connect"
        if self.state is IkeState.ESTABLISHED:
            return True
        return task.name == "delete-ike"

    # --- commands: of an SA that was replaced, to the latest one, as who gives them may not have heard of it yet --------

    def rekey(self, now: float) -> None:
        """Rekey the IKE SA."""
        self._command(now, Task("rekey-ike", self._exchanges.rekey_ike.rekey, exclusive=True))

    def rekey_child(self, child: ChildSa, now: float) -> None:
        """Rekey a child SA."""
        self._command(now, Task("rekey-child", self._exchanges.rekey_child.rekey, (child,)))

    def create_child(self, settings: ChildSettings, now: float) -> None:
        """Make another child SA."""
        self._command(now, Task("create-child", self._exchanges.create_child.create, (settings,)))

    def delete_child(self, child: ChildSa, now: float) -> None:
        """Delete a child SA."""
        self._command(now, Task("delete-child", self._exchanges.delete.delete_child, (child,)))

    def expire_child(self, child: ChildSa, now: float) -> None:
        """The data plane says that a child SA reached a hard limit."""
        self._exchanges.delete.expire_child(self._latest_at(now), child)

    def check_liveness(self, now: float) -> None:
        """See whether the peer answers; when it does not, the SA ends."""
        self._command(now, Task("liveness", self._exchanges.informational.check_liveness))

    def move(self, local: Address, remote: Address | None, now: float) -> None:
        """Use another local (and remote) address from now on. Raises `NegotiationFailed` without MOBIKE."""
        sa = self._latest_at(now)
        if not (sa.mobike and sa.is_mobike_initiator):
            raise NegotiationFailed(
                "the peer does not do MOBIKE: connect anew", remedy="switch MOBIKE on at both sides"
            )
        self._exchanges.mobike.move(sa, local, remote or sa.remote)

    def peer_moved(self, remote: Address, now: float) -> None:
        """The data plane saw authentic traffic from another address of a peer behind a NAT (RFC 7296, 2.23)."""
        sa = self._latest_at(now)
        if sa.is_alive and sa.nat.peer_behind_nat and not sa.mobike and remote != sa.remote:
            sa.set_path(sa.local, remote)

    def traffic_seen(self, now: float) -> None:
        """Authentic ESP came in: the peer lives, no need to ask (RFC 7296 section 2.4)."""
        sa = self.latest
        sa.last_received = max(sa.last_received, now)

    def reauthenticate(self, now: float) -> IkeSa:
        """Log in anew beside this SA; the new one closes this one when it is up (make before break)."""
        sa = self._latest_at(now)
        return self.shared.connect(sa.connection, sa.local, sa.remote, now, sa)

    def close(self, now: float) -> None:
        """Delete the IKE SA and with it its child SAs."""
        self._exchanges.delete.close(self._latest_at(now))

    def _command(self, now: float, task: Task) -> None:
        self._latest_at(now).driver.enqueue(task)

    def _latest_at(self, now: float) -> IkeSa:
        sa = self.latest
        sa.now = now
        return sa

    @property
    def _exchanges(self) -> ModuleType:
        # Exchanges import this module, so it reaches them late.
        return importlib.import_module("ikeway.ike.exchanges.all")

    # --- what the engine calls --------------------------------------------------------------------------------------

    def receive(self, header: Header, octets: bytes, local: Address, remote: Address, now: float) -> None:
        """Take in a datagram that names our SPI."""
        self.now = now
        if self.state is IkeState.CONNECTING and self.is_initiator and not header.is_response:
            return  # overtook the end of IKE_AUTH, or is forged: the responder has not proven itself. It comes again.
        if self.channel.is_own_fragment(header):
            whole = self.channel.join(header, octets, now)
            if whole is None:
                return
            header, octets = whole
        accepted = self.channel.accept(header, octets, local, remote)
        if accepted is None or self.state is IkeState.CLOSED:
            return
        self.last_received = now
        self.last_path = (local, remote)
        self.report(events.MessageReceived(self, accepted.message, local, remote))
        self._follow_peer(accepted)
        self.go_on(accepted, now)

    def go_on(self, accepted: Accepted, now: float) -> None:
        """Act on a message that came in, once the interceptions let it pass."""
        self.now = now
        taken: Accepted | None = accepted
        if self.interception is not None:
            taken = interception.take_in(self, self.interception, accepted)
        if taken is None or self.state is IkeState.CLOSED:
            return
        if taken.message.is_response:
            self._on_response(taken)
        else:
            self._on_request(taken)
        self.driver.run()

    def tick(self, now: float) -> None:
        """Carry out what has fallen due."""
        self.now = now
        while (name := self.timers.pop_due(now)) is not None:
            if isinstance(name, tuple) and name[0] == "retransmit":
                self._on_retransmission_due(name[1])
            else:
                lifetimes.due(self, name)
        self.driver.run()

    def answer(self, question: Question[Any], value: Any, error: IkewayError | None, now: float) -> None:  # noqa: ANN401
        """Resume the conversation that asked."""
        self.now = now
        self.driver.answer(question, value, error)

    # --- the end ----------------------------------------------------------------------------------------------------

    def terminate(self, error: IkewayError | None, *, replaced: bool = False) -> None:
        """Close at once, without a word to the peer. `replaced`: another SA has taken over; nobody is told."""
        if self.state is IkeState.CLOSED:
            return
        self.state = IkeState.CLOSED
        if self.successor is not None:
            replaced = True
            if self.successor.predecessor is self:
                self.successor.predecessor = None
        if self.established:
            succession.make_way(self)
        self.shared.ended(self)
        self.driver.cancel_all()
        self.channel.cancel_requests()
        self.timers.clear()
        for child in list(self.children):
            self.remove_child(child, error)
        if self.rekeyed_by_peer is not None:
            self.rekeyed_by_peer[0].terminate(None, replaced=True)
            self.rekeyed_by_peer = None
        self.shared.esp_spis -= self.reserved_spis
        self.timers.set("forget", self.now + FORGET_SECONDS)
        if not replaced:
            self.report(events.IkeClosed(self, error, self.established))
        if self.replaces is not None and isinstance(error, PeerUnreachable):
            lifetimes.retry_log_in(self.replaces.latest, self.now)

    def forget(self) -> None:
        """Leave the table: nothing of this SA is answered any more."""
        self.timers.clear()
        self.shared.table.pop(self.spi, None)

    def remove_child(self, child: ChildSa, error: IkewayError | None = None) -> None:
        """Take a child SA out of the data plane and forget it; tells ChildDown unless something replaced it."""
        if child not in self.children:
            return
        self.children.remove(child)
        child.remove_outbound()
        child.remove_inbound()
        for name in lifetimes.CHILD_TIMERS:
            self.timers.cancel((name, child))
        replaced = child.successor is not None or child.state is ChildState.DELETED
        child.state = ChildState.DELETED
        if child.announced and not replaced:
            self.report(events.ChildDown(self, child, error))

    def add_child(self, child: ChildSa) -> None:
        """Adopt a new child SA (its data plane halves are installed by who made it)."""
        self.reserved_spis.discard(child.spi_in)
        self.children.append(child)
        lifetimes.start_child(self, child)

    def announce_child(self, child: ChildSa, replaces: ChildSa | None = None) -> None:
        """Tell that a child SA is up, once."""
        if not child.announced:
            child.announced = True
            self.report(events.ChildUp(self, child, replaces))

    # --- inside -----------------------------------------------------------------------------------------------------

    def _on_request(self, accepted: Accepted) -> None:
        from ikeway.ike.exchanges.dispatch import responder_of

        message = accepted.message
        if accepted.error is not None:
            self._refuse_malformed(accepted)
            return
        self.driver.respond(message, responder_of(self, message))

    def _refuse_malformed(self, accepted: Accepted) -> None:
        message, error = accepted.message, accepted.error
        if isinstance(error, UnsupportedCriticalPayload):
            notify = Notify(NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD, bytes([int(error.payload_type) & 0xFF]))
            self.send_response(message.message_id, message.exchange_type, (notify,))
            return
        self.send_response(message.message_id, message.exchange_type, (Notify(NotifyType.INVALID_SYNTAX),))
        # Authentic octets that are no message: the peer is broken, and both sides give up (RFC 7296 section 2.21).
        self.terminate(
            ProtocolViolation(f"the peer sent a malformed message: {error}", notify=NotifyType.INVALID_SYNTAX)
        )

    def _on_response(self, accepted: Accepted) -> None:
        if accepted.error is not None:
            self.terminate(ProtocolViolation(f"the peer sent a malformed response: {accepted.error}"))
            return
        if self.channel.protection is None and not self._exchanges.init.believes(self, accepted.message):
            return
        self.channel.response_octets = accepted.octets
        self.untried_addresses = list(self.peer_addresses)
        self.driver.on_response(accepted.message)

    def _follow_peer(self, accepted: Accepted) -> None:
        """Answer where the peer is now, when it is behind a NAT (RFC 7296 section 2.23) and MOBIKE does not do it."""
        if self.state is IkeState.CONNECTING:
            if not self.is_initiator and accepted.message.exchange_type != ExchangeType.IKE_SA_INIT:
                self.channel.local, self.channel.remote = accepted.local, accepted.remote
            return
        if self.mobike or not self.nat.peer_behind_nat or accepted.remote == self.remote:
            return
        self.set_path(accepted.local, accepted.remote)

    def set_path(self, local: Address, remote: Address) -> None:
        """Use other outer addresses from now on, for IKE and for the child SAs."""
        self.channel.local, self.channel.remote = local, remote
        self.report(events.PathChanged(self, local, remote, self.udp_encapsulation))

    def _on_retransmission_due(self, message_id: int) -> None:
        from ikeway.ike.exchanges.mobike import try_another_path

        if self.channel.retransmit(message_id, self.now) or try_another_path(self):
            return
        if self.state is IkeState.DELETING or self.state is IkeState.REKEYED:
            self.terminate(None)
            return
        self.terminate(unanswered(self))

    def _on_sent(self, message: Message, local: Address, remote: Address, retransmission: int) -> None:
        self.last_sent = self.now
        self.report(events.MessageSent(self, message, local, remote, retransmission))

    def __repr__(self) -> str:
        return f"<{self}, {self.state.value}>"

    def __str__(self) -> str:
        return f"IKE SA {self.name} {self.channel.initiator_spi.hex()}/{self.channel.responder_spi.hex()}"

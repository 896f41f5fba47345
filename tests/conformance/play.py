"""Plays a scenario on the stage, line by line, and checks what every line says.

What is left out, because it is another implementation's bookkeeping: "N IKE_SA(s) checked in" (its table of SAs), and
"calls destroy" of both peers, with which it frees its memory at the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ikeway.ike import events
from ikeway.ike.child import ChildState, Outbound
from ikeway.ike.driver import Task
from ikeway.ike.exchanges import delete
from ikeway.ike.sa import IkeSa, IkeState
from ikeway.ike.settings import ChildSettings
from ikeway.wire.message import Message
from ikeway.wire.payloads import (
    Delete,
    KeyExchange,
    Nonce,
    SecurityAssociation,
    TrafficSelectorsInitiator,
    TrafficSelectorsResponder,
)
from ikeway.wire.registry import ExchangeType, NotifyType
from tests.conformance.scenarios import Step
from tests.conformance.stage import ESP_BASE, Peer, Sent, Stage, ike_number

PAYLOADS: dict[str, type] = {
    "SA": SecurityAssociation,
    "Ni": Nonce,
    "Nr": Nonce,
    "KEi": KeyExchange,
    "KEr": KeyExchange,
    "TSi": TrafficSelectorsInitiator,
    "TSr": TrafficSelectorsResponder,
    "D": Delete,
    "PLV2_DELETE": Delete,
    "PLV2_KEY_EXCHANGE": KeyExchange,
    "PLV2_SECURITY_ASSOCIATION": SecurityAssociation,
    "PLV2_TS_INITIATOR": TrafficSelectorsInitiator,
    "PLV2_TS_RESPONDER": TrafficSelectorsResponder,
}
NOTIFIES = {
    "REKEY_SA": NotifyType.REKEY_SA,
    "INVAL_KE": NotifyType.INVALID_KE_PAYLOAD,
    "TEMP_FAIL": NotifyType.TEMPORARY_FAILURE,
    "NO_CHILD_SA": NotifyType.CHILD_SA_NOT_FOUND,
}
CHILD_STATES = {f"CHILD_{state.name}": state for state in ChildState}
OUTBOUNDS = {f"CHILD_OUTBOUND_{state.name}": state for state in Outbound}
IKE_STATES = {f"IKE_{state.name}": state for state in IkeState}
QUIET = "must not fire"


class Player:
    """One run of one variant."""

    def __init__(self, stage: Stage, row: dict[str, int], child_settings: ChildSettings | None = None) -> None:
        self.stage = stage
        self.row = row
        self.child_settings = child_settings  # what `initiate, child_cfg` makes
        self.current: Sent | None = None  # the message of the step, not delivered yet
        self.held: list[Sent] = []
        self.receiver: Peer | None = None
        self.spoken_of: IkeSa | None = None  # what "sa" and "new_sa" stand for
        self.successor = 0  # the number of the IKE SA that the last rekeying made
        self.demands: dict[str, list[str]] = {}  # what events still have to fire, or must not; by kind
        self.passing: set[str] = set()  # kinds whose demand ends with the step
        self.expected_jobs: int | None = None
        self.jobs_set = 0
        self.expected_answers: list[Callable[[Message], None]] = []

    def play(self, steps: list[Step]) -> None:
        """All of it."""
        for number, step in enumerate(steps):
            try:
                self._step(step)
            except AssertionError as error:
                error.add_note(f"in step {number}: {step.message or step.note or 'the beginning'}")
                raise
        self._deliver_current()
        for kind in list(self.demands):
            self._close(kind)

    def _step(self, step: Step) -> None:
        commands = any(" calls " in line for line in step.lines)
        if step.message or commands:
            self._deliver_current()
            for kind in list(self.passing):
                if step.message or self.demands.get(kind) == [QUIET]:
                    self._close(kind)
        if step.message:
            self._choose(step.message)
        elif step.note:
            self._note(step.note)
        for line in step.lines:
            try:
                self._line(line, step)
            except AssertionError as error:
                error.add_note(f"at: {line}")
                raise
        if step.note == "trigger retransmits until the request times out":
            self._time_out()
        if self.expected_jobs is not None:
            assert self.jobs_set == self.expected_jobs, f"{self.jobs_set} timers set, not {self.expected_jobs}"
            self.expected_jobs = None

    # --- messages ---------------------------------------------------------------------------------------------------

    def _choose(self, text: str) -> None:
        found = re.fullmatch(r"(<-- )?(\w+)(?: \{(.*?)\})?( -->)?(.*)", text)
        assert found is not None, text
        sender = self.stage.peer("b" if found[1] else "a")
        waiting = self.held if "delayed" in found[5] or not self._queued(sender) else self.stage.wire
        self.current = next(sent for sent in waiting if sent.sender is sender)
        waiting.remove(self.current)
        message = self.current.message
        assert message.exchange_type == ExchangeType[found[2]], message
        if found[3] is not None:
            _check_label(message, found[3])

    def _queued(self, sender: Peer) -> bool:
        return any(sent.sender is sender for sent in self.stage.wire)

    def _deliver_current(self) -> None:
        if self.current is not None:
            sent, self.current = self.current, None
            self._act(self.stage.other(sent.sender), lambda: self._receive(sent))

    def _receive(self, sent: Sent) -> None:
        self.receiver = self.stage.deliver(sent)

    def _act(self, peer: Peer, action: Callable[[], object]) -> list[Sent]:
        """Do something to a peer and judge what comes of it. Returns the messages that it sent."""
        before, on_wire = peer.jobs(), len(self.stage.wire)
        action()
        for event in self.stage.take(peer):
            self._judge(event)
        after = peer.jobs()
        self.jobs_set += sum(before.get(name) != at for name, at in after.items())
        sent = self.stage.wire[on_wire:]
        for check in self.expected_answers:
            check(sent[0].message)
        self.expected_answers.clear()
        return sent

    # --- notes that do something ------------------------------------------------------------------------------------

    def _note(self, note: str) -> None:
        if re.match(r"(delay|drop|drop/delay) the ", note):
            self._hold(note)
        elif note.startswith("inject an incorrect delete"):
            body = Task("delete-spi", delete.delete_spi_task, (self._incorrect_spi(),))
            self._act(self.stage.peer("b"), lambda: self.stage.peer("b").sa.driver.enqueue(body))
        elif note.startswith("simulate the execution of the scheduled job"):
            linger = self.stage.peer("a").host.engine._shared.settings.linger_seconds
            self.stage.pass_time(linger + 0.1)
            for peer in self.stage.peers.values():
                self._act(peer, lambda: None)
        elif note.startswith("a does not know the SA yet"):
            assert not self._act(self.stage.peer("a"), lambda: self._receive(self.held[-1]))
        elif re.fullmatch(r"((ike|child)_(rekey|updown)(\(\))?/?)+", note):
            for kind in note.replace("()", "").split("/"):
                self._close(kind)

    def _time_out(self) -> None:
        """Let a's retransmissions run until it gives up."""
        peer = self.stage.peer("a")
        while (at := peer.host.engine.deadline()) is not None and peer.sa.state is not IkeState.CLOSED:
            self.stage.now = max(at, self.stage.now)
            self._act(peer, lambda: peer.host.engine.tick(self.stage.now))
        assert peer.sa.state is IkeState.CLOSED
        self.stage.wire.clear()

    def _hold(self, note: str) -> None:
        sent = self.stage.wire.pop(0)
        message = sent.message
        words = note.split()
        if "CREATE_CHILD_SA" in words:
            assert message.exchange_type == ExchangeType.CREATE_CHILD_SA
        if "INFORMATIONAL" in words or "DELETE" in words:
            assert message.exchange_type == ExchangeType.INFORMATIONAL
            assert message.find(Delete)
        if "request" in words or "response" in words:
            assert message.is_response is ("response" in words)
        if "from" in words:
            assert sent.sender.name == words[words.index("from") + 1]
        self.held.append(sent)

    def _incorrect_spi(self) -> int:
        """The SPI that b would put into a delete of the old child SA."""
        return self.stage.peer("b").child(2).spi_in

    # --- events -----------------------------------------------------------------------------------------------------

    def _demand(self, kind: str, what: str) -> None:
        self._close(kind)
        self.demands[kind] = [what]

    def _close(self, kind: str) -> None:
        self.passing.discard(kind)
        missing = [what for what in self.demands.pop(kind, []) if what != QUIET]
        assert not missing, f"event {kind} has not fired: {missing}"

    def _judge(self, event: events.Event) -> None:
        kind, what = self._name(event)
        if kind is None or kind not in self.demands:
            return
        demanded = self.demands[kind]
        fitting = [one for one in demanded if one != QUIET and (one == "fires" or one == f"fires: {what}")]
        assert fitting, f"event {kind} {what}, but demanded is: {demanded}"
        demanded.remove(fitting[0])
        demanded.append(QUIET)

    def _name(self, event: events.Event) -> tuple[str | None, str]:
        match event:
            case events.ChildUp(child=child, replaces=None):
                return "child_updown", "up=TRUE"
            case events.ChildUp(child=child, replaces=old):
                return "child_rekey", f"{old.spi_in - ESP_BASE} -> {child.spi_in - ESP_BASE}"
            case events.ChildDown():
                return "child_updown", "up=FALSE"
            case events.IkeRekeyed(sa=new, old=old):
                self.successor = ike_number(new)
                return "ike_rekey", f"{ike_number(old)} -> {ike_number(new)}"
            case events.IkeClosed():
                return "ike_updown", "up=FALSE"
            case events.IkeEstablished():
                return "ike_updown", "up=TRUE"
            case _:
                return None, ""

    # --- lines ------------------------------------------------------------------------------------------------------

    def _line(self, line: str, step: Step) -> None:
        for pattern, method in LINES:
            found = re.fullmatch(pattern, line)
            if found is not None:
                method(self, step, *found.groups())
                return
        raise ValueError(f"no such line: {line}")

    def event(self, step: Step, kind: str, what: str) -> None:
        if kind == "message":
            return  # "must not fire": nothing is sent; `initiate` checks it
        self._demand(kind, what)
        if step.message:
            self.passing.add(kind)

    def jobs(self, _: Step, count: str) -> None:
        self.expected_jobs = 0 if count == "no" else int(count)
        self.jobs_set = 0

    def delivered(self, _: Step, name: str) -> None:
        assert self.current is not None
        assert self.current.sender is not self.stage.peer(name)
        self._deliver_current()

    def ike_state(self, _: Step, name: str, state: str) -> None:
        sa = self._sa(name, state)
        assert sa.state is IKE_STATES[state], sa

    def _sa(self, name: str, state: str | None = None) -> IkeSa:
        if name in ("a", "b"):
            return self.stage.peer(name).sa
        if state is not None:
            self.spoken_of = self._sa_in(state)
        assert self.spoken_of is not None
        return self.spoken_of

    def _sa_in(self, state: str) -> IkeSa:
        """Which of its IKE SAs a peer has in this state: what it keeps, what it deletes, what the other deletes."""
        peer = self.receiver
        assert peer is not None
        other = self.stage.other(peer)
        if state == "IKE_ESTABLISHED":
            return peer.ike_sa(self.successor)
        return peer.ike_sa(self.row[f"del_{peer.name if state == 'IKE_DELETING' else other.name}_i"])

    def children(self, _: Step, name: str, count: str) -> None:
        found = self._sa(name).children
        assert len(found) == int(count), found

    def child_state(self, _: Step, name: str, number: str, state: str, outbound: str | None) -> None:
        child = self.stage.peer(name).child(int(number))
        assert child.state is CHILD_STATES[state], child
        if outbound is not None:
            assert child.outbound is OUTBOUNDS[outbound], (child, child.outbound)

    def installed(self, _: Step, name: str, numbers: str) -> None:
        found = self.stage.peer(name).installed
        assert found == {int(number) for number in numbers.split()}, found

    def payload(self, _: Step, carries: str, kind: str, what: str) -> None:
        assert self.current is not None
        _check_carries(self.current.message, carries, kind, what)

    def answer(self, _: Step, carries: str, kind: str, what: str) -> None:
        self.expected_answers.append(lambda message: _check_carries(message, carries, kind, what))

    def empty(self, _: Step, which: str) -> None:
        if which == "IN":
            assert self.current is not None
            assert self.current.message.payloads == ()
        else:
            self.expected_answers.append(lambda message: _assert_empty(message))

    def starts(self, _: Step, name: str, number: str | None = None) -> None:
        peer = self.stage.peer(name)
        if number is None:
            self._act(peer, lambda: peer.sa.rekey(self.stage.now))
        else:
            self._act(peer, lambda: peer.sa.rekey_child(peer.child(int(number)), self.stage.now))

    def rekeys_child(self, step: Step, name: str, number: str) -> None:
        peer = self.stage.peer(name)
        assert not self._act(peer, lambda: peer.sa.rekey_child(peer.child(int(number)), self.stage.now))

    def deletes(self, _: Step, name: str) -> None:
        peer = self.stage.peer(name)
        self._act(peer, lambda: peer.sa.close(self.stage.now))

    def deletes_child(self, _: Step, name: str, number: str, expired: str) -> None:
        peer = self.stage.peer(name)
        command = peer.sa.expire_child if expired == "TRUE" else peer.sa.delete_child
        self._act(peer, lambda: command(peer.child(int(number)), self.stage.now))

    def loses_child(self, _: Step, name: str, number: str) -> None:
        peer = self.stage.peer(name)
        self._act(peer, lambda: peer.sa.remove_child(peer.child(int(number))))

    def initiates(self, step: Step, name: str, what: str) -> None:
        peer = self.stage.peer(name)
        if peer.original is None:
            peer.original = peer.host.engine.connect(
                peer.host.connection, peer.host.address, self.stage.other(peer).host.address, self.stage.now
            )
            self._act(peer, lambda: None)
            return
        if what == "NULL":
            assert not self._act(peer, peer.sa.driver.run)
            return
        settings = self.child_settings or peer.sa.children[0].settings
        sent = self._act(peer, lambda: peer.sa.create_child(settings, self.stage.now))
        assert bool(sent) is ("event message must not fire" not in step.lines)

    def destroyed(self, step: Step, name: str) -> None:
        if sum("calls destroy" in line for line in step.lines) == 1:
            self._deliver_current()
            assert self.stage.peer(name).sa.state is IkeState.CLOSED, self.stage.peer(name).sa

    def idle(self, _: Step, name: str) -> None:
        assert self._sa(name).driver.idle

    def tasks(self, _: Step, name: str, count: str, queue: str) -> None:
        sa = self.stage.peer(name).sa
        if queue == "ACTIVE":
            assert sa.channel.outstanding == int(count)
        else:  # queued: it waits for a timer
            waiting = [one for one in sa.timers._at if isinstance(one, tuple) and one[0] == "create-child"]
            assert len(waiting) == int(count)

    def nothing(self, *_: Any) -> None:
        """See the module: what is left out."""


def _check_label(message: Message, label: str) -> None:
    """A label names the payloads of a message; optional ones are in brackets."""
    tokens = [token for token in re.sub(r"\[.*?\]", "", label).replace(",", " ").split() if token]
    if not tokens:
        assert message.payloads == ()
    for token in tokens:
        notify = re.fullmatch(r"N\((\w+)\)", token)
        if notify:
            assert message.notify(NOTIFIES[notify[1]]), message
        else:
            assert message.find(PAYLOADS[token]), message


def _check_carries(message: Message, carries: str, kind: str, what: str) -> None:
    if kind == "payload":
        found: Any = message.find(PAYLOADS[what])
    else:
        found = message.notify(NotifyType[what])
    if carries == "no":
        assert found is None, message
    else:
        assert found is not None, message
    if carries == "exactly one":
        assert message.payloads == (found,), message


def _assert_empty(message: Message) -> None:
    assert message.payloads == (), message


LINES: list[tuple[str, Callable[..., None]]] = [
    (r"event (\w+) (must not fire|fires.*)", Player.event),
    (r"(\d+|no) job(?:\(s\) get| gets) scheduled", Player.jobs),
    (r"message delivered to peer (a|b)(?: \(message msg\))?", Player.delivered),
    (r"(a|b|sa|new_sa): IKE_SA is (IKE_\w+)", Player.ike_state),
    (r"(a|b|sa|new_sa): has (\d+) CHILD_SA\(s\)", Player.children),
    (r"(a|b): CHILD_SA (\d+) is (CHILD_\w+)(?:/(CHILD_\w+))?", Player.child_state),
    (r"(a|b): installed inbound/outbound SPIs ([\d ]*)", Player.installed),
    (r"the IN message carries (?:(no|exactly one) )?(payload|notify):? (\w+)", Player.payload),
    (r"the OUT message carries (?:(no|exactly one) )?(payload|notify):? (\w+)", Player.answer),
    (r"the (IN|OUT) message is empty", Player.empty),
    (r"peer (a|b)(?:, (\d+))? starts rekeying", Player.starts),
    (r"peer (a|b) calls rekey", Player.starts),
    (r"peer (a|b) calls rekey_child_sa, PROTO_ESP, (\d+)", Player.rekeys_child),
    (r"peer (a|b) calls delete, FALSE", Player.deletes),
    (r"peer (a|b) calls delete_child_sa, PROTO_ESP, (\d+), (TRUE|FALSE)", Player.deletes_child),
    (r"peer (a|b) calls destroy_child_sa, PROTO_ESP, (\d+)", Player.loses_child),
    (r"peer (a|b) calls initiate, (\w+), NULL", Player.initiates),
    (r"peer (a|b) calls destroy", Player.destroyed),
    (r"sa_idle (a|b|sa)", Player.idle),
    (r"num_tasks (a|b), (\d+), TASK_QUEUE_(ACTIVE|QUEUED)", Player.tasks),
    (r"(\d+) IKE_SA\(s\) checked in", Player.nothing),
]

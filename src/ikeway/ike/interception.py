"""A place to see, and to change, the plaintext messages of an IKE SA: for vendors' dialects and for the workbench.

Theory of operation. `sending` gets a message that the engine has made, just before it is encoded (and encrypted);
`received` one that was opened, just before the engine acts on it. What they return takes the message's place. Of the
messages of an IKE SA none is left out, those of IKE_SA_INIT included: AUTH signs the octets that went out, and those
that came in as they came. Retransmissions and answers to duplicates are the same octets again and are not shown again;
nor are answers for which no state is kept (COOKIE, refusals of IKE_SA_INIT).

Up to two interceptions see a message: that of the engine (`EngineSettings`) is next to the wire, that of the connection
next to the engine. Until a responder knows who is calling, that of `ResponderSettings` stands in for the connection's.

Header and payloads may be changed at will; AUTH is made before, for the identity that the connection names, and keys are
derived from the nonce and the key exchange that the engine chose. So another IDi belongs into the connection, or into the
interception's `identity`, which is asked before (`Naming`).

Whoever raises an error ends the exchange, and the IKE SA with it: a request gets a notify (that of a `PeerError`, else
AUTHENTICATION_FAILED during the log-in and INVALID_SYNTAX after it), and what is raised is why the SA was closed. Other
exceptions than ours are defects of the interception, told as `InterceptionFailed` with their place. Only the answer to
IKE_SA_INIT is met otherwise: anybody can forge it, so a `PeerError` over it lets us wait for a better one.

Who cannot decide at once raises `Hold`. The message then waits: its exchange stays open, repetitions of it are dropped, and
nothing else happens until `release`, `answer_held` or `refuse_held`. Only the request that makes an IKE SA cannot be held.
"""

from __future__ import annotations

import contextlib
import dataclasses
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ikeway.errors import IkewayError, PeerError, Side
from ikeway.ike import events
from ikeway.wire.errors import UnsupportedCriticalPayload
from ikeway.wire.message import Message
from ikeway.wire.payloads import Delete, Notify, Payload, UnknownPayload
from ikeway.wire.registry import ExchangeType, NotifyType, ProtocolId

if TYPE_CHECKING:
    from ikeway.auth.identity import Identity
    from ikeway.ike.channel import Accepted
    from ikeway.ike.sa import IkeSa


class Interception(Protocol):
    """See the module. One object serves many IKE SAs; what it has to remember of one it keeps by the SA."""

    def sending(self, sa: IkeSa, message: Message) -> Message:
        """A message is about to be encoded: return what is to be sent."""
        ...

    def received(self, sa: IkeSa | None, message: Message) -> Message:
        """A message was opened: return what is to be taken for it. `sa` None: a request that would make a new one."""
        ...


@runtime_checkable
class Naming(Protocol):
    """An interception that also has a say in who we say we are."""

    def identity(self, sa: IkeSa, identity: Identity) -> Identity:
        """We are about to say that we are this: return who we are to be. AUTH is made for it."""
        ...


class InterceptionFailed(PeerError):
    """An interception raised something, or returned no message, or one that cannot be encoded."""

    default_side = Side.LOCAL


class Hold(Exception):
    """Raised by `received`: let the message wait."""


@dataclass(frozen=True, slots=True)
class _Chain:
    """Two interceptions: `outer` is next to the wire."""

    outer: Interception
    inner: Interception

    def sending(self, sa: IkeSa, message: Message) -> Message:
        """First the inner one."""
        return through(self.outer.sending, sa, through(self.inner.sending, sa, message))

    def received(self, sa: IkeSa | None, message: Message) -> Message:
        """First the outer one."""
        return through(self.inner.received, sa, through(self.outer.received, sa, message))


def name_ourselves(sa: IkeSa, identity: Identity) -> Identity:
    """Who we say we are, as the interceptions want it: asked before AUTH is made, which covers it. Raises `IkewayError`s
    only."""
    for each in _members(sa.interception):
        if isinstance(each, Naming):
            with _told():
                identity = each.identity(sa, identity)
    return identity


def _members(hook: Interception | None) -> Iterator[Interception]:
    """From the engine to the wire."""
    if isinstance(hook, _Chain):
        yield from _members(hook.inner)
        yield from _members(hook.outer)
    elif hook is not None:
        yield hook


def combine(outer: Interception | None, inner: Interception | None) -> Interception | None:
    """Both, one of them, or none."""
    if outer is None or inner is None:
        return outer or inner
    return _Chain(outer, inner)


Step = Callable[["IkeSa", Message], Message] | Callable[["IkeSa | None", Message], Message]


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Whatever an interception raises is told with its place."""
    try:
        yield
    except (IkewayError, Hold):
        raise
    except Exception as error:
        raise InterceptionFailed(
            f"the interception raised {type(error).__name__}: {error} ({_place(error)})"
        ) from error


def through(step: Step, sa: IkeSa | None, message: Message) -> Message:
    """What `step` makes of the message. Raises `IkewayError`s only."""
    with _told():
        changed = step(sa, message)  # type: ignore[arg-type]
    if not isinstance(changed, Message):
        raise InterceptionFailed(
            "the interception returned no message",
            expected="the message, changed or not",
            got=type(changed).__name__,
            remedy="end the hook with `return message`",
        )
    return changed


def _place(error: Exception) -> str:
    """Where in the interception's own file, not in what it calls elsewhere."""
    _, _, *frames = traceback.extract_tb(error.__traceback__)  # the first two are `_told` and whoever entered it
    if not frames:
        return "it could not be called"
    last = [frame for frame in frames if frame.filename == frames[0].filename][-1]
    return f"{PurePath(last.filename).name}, line {last.lineno}, in {last.name}"


def install(sa: IkeSa, inner: Interception | None) -> None:
    """Let the messages of `sa` pass by the engine's interception and `inner`, from now on."""
    hook = sa.interception = combine(sa.shared.settings.interception, inner)
    sa.channel.before_sending = None if hook is None else lambda message: through(hook.sending, sa, message)


def take_in(sa: IkeSa, hook: Interception, accepted: Accepted) -> Accepted | None:
    """A message that the channel delivered, as the interception wants it to be; None when it ends the SA."""
    if accepted.error is not None:
        return accepted
    try:
        message = through(hook.received, sa, accepted.message)
    except Hold:
        sa.driver.held[_key(accepted.message)] = accepted
        return None
    except IkewayError as error:
        _refuse(sa, accepted, error)
        return None
    return dataclasses.replace(accepted, message=message, error=unsupported(message))


def take_in_first(hook: Interception | None, message: Message) -> Message:
    """The request of an IKE_SA_INIT that has no SA yet. Raises `IkewayError`s."""
    if hook is None:
        return message
    try:
        changed = through(hook.received, None, message)
    except Hold:
        raise InterceptionFailed(
            "the request that makes an IKE SA cannot be held: no state is kept for it yet"
        ) from None
    if (error := unsupported(changed)) is not None:
        raise error
    return changed


def is_held(sa: IkeSa, message: Message) -> bool:
    """Whether this message waits."""
    return _key(message) in sa.driver.held


def release(sa: IkeSa, message: Message, now: float, *, changed: Message | None = None) -> None:
    """Go on with a message that was held, or with `changed` in its place: it passes the interceptions once more. Unknown,
    or the SA is gone: nothing happens."""
    accepted = sa.driver.held.pop(_key(message), None)
    if accepted is not None:
        sa.go_on(dataclasses.replace(accepted, message=changed or message), now)


def answer_held(sa: IkeSa, message: Message, payloads: tuple[Payload, ...], now: float) -> None:
    """Answer a request that was held with these payloads; the conversation that it is for goes on waiting for another one.

    Raises `IkewayError` when they cannot be sent; the request is still held then.
    """
    if _key(message) not in sa.driver.held or message.is_response:
        return
    sa.now = sa.last_sent = now
    sa.channel.respond(message.message_id, message.exchange_type, payloads)
    sa.driver.held.pop(_key(message), None)


def refuse_held(sa: IkeSa, message: Message, error: IkewayError, now: float) -> None:
    """End the SA over a message that was held, as if the interception had raised `error`."""
    accepted = sa.driver.held.pop(_key(message), None)
    if accepted is not None:
        sa.now = now
        _refuse(sa, accepted, error)


def request_beside(sa: IkeSa, exchange: ExchangeType, payloads: tuple[Payload, ...], now: float) -> int:
    """Send a request that belongs to no conversation; returns its message id. Its response is seen by the interceptions
    and by nobody else. Raises `IkewayError` when it cannot be sent."""
    sa.now = sa.last_sent = now
    return sa.channel.request(exchange, payloads, now)


def _key(message: Message) -> tuple[bool, int]:
    return message.is_response, message.message_id


def unsupported(message: Message) -> UnsupportedCriticalPayload | None:
    """With an interception the decoder lets unknown critical payloads pass (RFC 7296 section 2.5): are any left?"""
    for payload in message.payloads:
        if isinstance(payload, UnknownPayload) and payload.critical:
            return UnsupportedCriticalPayload(payload.type, offset=0)
    return None


def _refuse(sa: IkeSa, accepted: Accepted, error: IkewayError) -> None:
    message = accepted.message
    if not message.is_response:
        answer_failed(sa, message.message_id, message.exchange_type, error)
    elif sa.channel.protection is None and isinstance(error, PeerError) and not isinstance(error, InterceptionFailed):
        sa.report(events.Refused(accepted.local, accepted.remote, error, rate_limited=True))
    else:
        give_up(sa, error)


def answer_failed(sa: IkeSa, message_id: int, exchange: ExchangeType, error: IkewayError) -> None:
    """Answer a request with the notify that tells of `error`, past the interception, and end the SA."""
    sa.channel.respond(message_id, exchange, (_notify(exchange, error),), intercepted=False)
    sa.terminate(error)


def give_up(sa: IkeSa, error: IkewayError) -> None:
    """End the SA; the peer is told, past the interception, when there are keys to tell it with."""
    if sa.channel.protection is not None:
        last: Payload = Delete(ProtocolId.IKE) if sa.established else _notify(ExchangeType.IKE_AUTH, error)
        sa.channel.notify_once(ExchangeType.INFORMATIONAL, (last,), intercepted=False)
    sa.terminate(error)


def _notify(exchange: ExchangeType, error: IkewayError) -> Notify:
    if isinstance(error, PeerError) and error.notify:
        return Notify(NotifyType(error.notify), error.octets)
    return Notify(NotifyType.AUTHENTICATION_FAILED if exchange == ExchangeType.IKE_AUTH else NotifyType.INVALID_SYNTAX)

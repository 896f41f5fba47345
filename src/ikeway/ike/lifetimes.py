"""What time does to an IKE SA: rekeying, hard ends, dead peer detection, NAT keep-alives, waiting for the slow."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from ikeway.errors import PeerUnreachable
from ikeway.ike import events, succession
from ikeway.ike.child import ChildSa, ChildState
from ikeway.ike.driver import Task
from ikeway.ike.settings import ChildSettings
from ikeway.wire.registry import ExchangeType

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa

HARD_SHARE, HARD_EXTRA = (
    1.1,
    60.0,
)  # hard lifetime, where none is set: so much of the time to rekeying, and seconds more
LOGIN_SHARE, LOGIN_SECONDS = (
    0.1,
    60.0,
)  # of the time to the next log-in: what is left for it, at the most so many seconds
RETRY_SECONDS = 5.0  # after TEMPORARY_FAILURE; up to twice that
RETRY_LOG_IN_SECONDS = 60.0  # after a log-in anew that found nobody; up to twice that
AWAIT_DELETE_SECONDS = 30.0  # how long a replaced SA waits for the peer's delete, at the least


def start(sa: IkeSa) -> None:
    """Set the clocks of an established IKE SA."""
    from ikeway.ike.sa import IkeState

    assert sa.state is IkeState.ESTABLISHED
    connection = sa.connection
    _start_rekeying(sa, "rekey", "life", connection.rekey_seconds, connection.life_seconds, connection.jitter)
    if connection.dpd_seconds:
        sa.timers.set("dpd", sa.now + connection.dpd_seconds)
    keep_mapping(sa)


def keep_mapping(sa: IkeSa) -> None:
    """Behind a NAT its mapping is kept alive (RFC 3948 section 4), in front of none there is nothing to keep."""
    seconds = sa.connection.nat_keepalive_seconds
    if not (sa.nat.self_behind_nat and seconds):
        sa.timers.cancel("keepalive")
    elif "keepalive" not in sa.timers:
        sa.timers.set("keepalive", sa.now + seconds)


def log_in_again(sa: IkeSa) -> None:
    """Whoever has logged in does it anew after a time of its own choice. No rekeying puts it off."""
    connection = sa.connection
    if connection.reauthenticate_seconds and connection.children:
        early = 1 - connection.jitter * sa.shared.uniform()
        sa.timers.set("reauthenticate", sa.now + connection.reauthenticate_seconds * early)


def retry_log_in(sa: IkeSa, now: float) -> None:
    """The log-in that was to replace this SA found nobody: try again later."""
    if sa.is_alive and "reauthenticate" not in sa.timers:
        sa.timers.set("reauthenticate", now + RETRY_LOG_IN_SECONDS * (1 + sa.shared.uniform()))


def log_in_within(sa: IkeSa, seconds: float) -> None:
    """The peer wants another log-in within this time; some of it is left for the log-in itself."""
    at = sa.now + seconds - min(seconds * LOGIN_SHARE, LOGIN_SECONDS)
    before = sa.timers.get("reauthenticate")
    if sa.connection.children and (before is None or at < before):
        sa.timers.set("reauthenticate", at)


def start_child(sa: IkeSa, child: ChildSa) -> None:
    """Set the clocks of a new child SA."""
    settings = child.settings
    names = ("child-rekey", child), ("child-life", child)
    _start_rekeying(sa, *names, settings.rekey_seconds, settings.life_seconds, settings.jitter)


def adopt(sa: IkeSa, old: IkeSa) -> None:
    """Move the clocks that go on when an IKE SA takes over: of child SAs, those still to be made too, and of the next
    log-in."""
    for name in old.timers:
        at = old.timers.get(name)
        if at is not None and (name == "reauthenticate" or (isinstance(name, tuple) and name[0] != "retransmit")):
            old.timers.cancel(name)
            sa.timers.set(name, at)


def _start_rekeying(
    sa: IkeSa, soft: Hashable, hard: Hashable, rekey_seconds: float, life_seconds: float, jitter: float
) -> None:
    if rekey_seconds:
        sa.timers.set(soft, sa.now + rekey_seconds * (1 - jitter * sa.shared.uniform()))
    life = life_seconds or (rekey_seconds * HARD_SHARE + HARD_EXTRA if rekey_seconds else 0.0)
    if life:
        sa.timers.set(hard, sa.now + life)


def retry_rekey(sa: IkeSa, child: ChildSa | None = None) -> None:
    """Try again soon: the peer said TEMPORARY_FAILURE (RFC 7296 section 2.25)."""
    delay = RETRY_SECONDS * (1 + sa.shared.uniform())
    sa.timers.set(("child-rekey", child) if child is not None else "rekey", sa.now + delay)


def retry_create(sa: IkeSa, settings: ChildSettings) -> None:
    """Try again soon to make a child SA."""
    sa.timers.set(("create-child", settings), sa.now + RETRY_SECONDS * (1 + sa.shared.uniform()))


def linger(sa: IkeSa, child: ChildSa) -> None:
    """Keep a replaced child SA's inbound half for packets on their way; nothing else of it is left."""
    child.state = ChildState.DELETED
    child.remove_outbound()
    for name in ("child-rekey", "child-life", succession.TIMER):
        sa.timers.cancel((name, child))
    sa.timers.set(("child-linger", child), sa.now + sa.shared.settings.linger_seconds)


def may_be_unheard_of(sa: IkeSa, child: ChildSa) -> bool:
    """The peer has asked for it a moment ago, and perhaps not got our response: it will have it, and then must not be the
    only one."""
    return not child.is_initiator and sa.now - child.created < AWAIT_DELETE_SECONDS


def await_delete(sa: IkeSa) -> None:
    """The SA was replaced; the peer has to delete it, but not for ever. While it may still ask for our response again,
    because it has not got it, there is someone to give it."""
    sa.timers.clear()
    sa.timers.set("await-delete", sa.now + max(AWAIT_DELETE_SECONDS, sa.connection.retransmission.total))


def due(sa: IkeSa, name: Hashable) -> None:
    """Carry out what `name` stands for."""
    if isinstance(name, tuple):
        kind, subject = name
        if isinstance(subject, ChildSettings):
            _create_child(sa, subject)
        else:
            _CHILD_ACTIONS[str(kind)](sa, subject)
    else:
        _ACTIONS[str(name)](sa)


def _rekey(sa: IkeSa) -> None:
    from ikeway.ike.exchanges import rekey_ike

    sa.driver.enqueue(Task("rekey-ike", rekey_ike.rekey, exclusive=True))


def _end_of_life(sa: IkeSa) -> None:
    from ikeway.ike.exchanges import delete

    delete.close(sa, PeerUnreachable("the IKE SA reached its hard lifetime before it could be rekeyed"))


def _reauthenticate(sa: IkeSa) -> None:
    sa.reauthenticate(sa.now)


def _dead_peer_detection(sa: IkeSa) -> None:
    from ikeway.ike.exchanges import informational

    interval = sa.connection.dpd_seconds
    quiet_until = sa.last_received + interval
    if sa.now < quiet_until:
        sa.timers.set("dpd", quiet_until)
        return
    sa.timers.set("dpd", sa.now + interval)
    if sa.driver.idle:
        sa.driver.enqueue(Task("liveness", informational.check_liveness))


def _keepalive(sa: IkeSa) -> None:
    interval = sa.connection.nat_keepalive_seconds
    quiet_until = sa.last_sent + interval
    if sa.now >= quiet_until:
        sa.last_sent = sa.now
        sa.report(events.KeepaliveDue(sa.local, sa.remote))
    sa.timers.set("keepalive", max(quiet_until, sa.now + interval / 2))


def _establish(sa: IkeSa) -> None:
    reason = "the peer began to log in and did not finish in time"
    if sa.remote_identity is None:
        reason += ": IKE_SA_INIT came, and no IKE_AUTH that could be read"
    error = PeerUnreachable(reason, remedy="see whether UDP port 4500 is open and large packets (fragments) pass")
    if not sa.driver.interrupt(ExchangeType.IKE_AUTH, error):
        sa.report(events.Refused(sa.local, sa.remote, error, rate_limited=True))
    sa.terminate(error)


def _refusal(sa: IkeSa) -> None:
    from ikeway.ike.exchanges import init

    init.believe_refusal(sa)


def _await_delete(sa: IkeSa) -> None:
    sa.terminate(None)


def _forget(sa: IkeSa) -> None:
    sa.forget()


def _child_rekey(sa: IkeSa, child: ChildSa) -> None:
    from ikeway.ike.exchanges import rekey_child

    if child.state is ChildState.INSTALLED:
        sa.driver.enqueue(Task("rekey-child", rekey_child.rekey, (child,)))


def _child_end(sa: IkeSa, child: ChildSa) -> None:
    from ikeway.ike.exchanges import delete

    delete.expire_child(sa, child)


def _child_linger(sa: IkeSa, child: ChildSa) -> None:
    if child.state is ChildState.DELETED:
        sa.remove_child(child)


def _create_child(sa: IkeSa, settings: ChildSettings) -> None:
    from ikeway.ike.exchanges import create_child

    sa.driver.enqueue(Task("create-child", create_child.create, (settings,)))


_ACTIONS: dict[str, Callable[[IkeSa], None]] = {
    "rekey": _rekey,
    "life": _end_of_life,
    "reauthenticate": _reauthenticate,
    "dpd": _dead_peer_detection,
    "keepalive": _keepalive,
    "establish": _establish,
    "refusal": _refusal,
    "await-delete": _await_delete,
    "forget": _forget,
}
_CHILD_ACTIONS: dict[str, Callable[[IkeSa, ChildSa], None]] = {
    "child-rekey": _child_rekey,
    "child-life": _child_end,
    "child-linger": _child_linger,
    succession.TIMER: succession.take_over,
}
CHILD_TIMERS = tuple(_CHILD_ACTIONS)

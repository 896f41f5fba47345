"""INFORMATIONAL (RFC 7296 section 1.4): liveness, deletes, errors, MOBIKE."""

from __future__ import annotations

from ikeway.errors import Closed
from ikeway.ike.driver import Answer
from ikeway.ike.exchanges import delete, mobike
from ikeway.ike.notifies import error_from, failure_of
from ikeway.ike.sa import IkeSa
from ikeway.wire.message import Message
from ikeway.wire.payloads import Delete
from ikeway.wire.registry import ExchangeType, NotifyType


async def check_liveness(sa: IkeSa) -> None:
    """Ask for nothing: the answer says that the peer lives (section 2.4). No answer ends the SA below us."""
    mobike.judge_probe(sa, await sa.request(ExchangeType.INFORMATIONAL, mobike.probe(sa)))


async def respond(sa: IkeSa, message: Message) -> Answer:
    """Whatever the peer has to say."""
    if deletes := message.find_all(Delete):
        return delete.on_delete(sa, deletes)
    failure = failure_of(message)
    if failure is not None and failure.type == NotifyType.AUTHENTICATION_FAILED:
        error = error_from(failure, "the peer refused our log-in")
        return Answer((), lambda: sa.terminate(error))
    return Answer(await mobike.respond(sa, message))


def initial_contact(sa: IkeSa) -> None:
    """The peer has no other IKE SA: those of the same identities are left over from a crash (section 2.4)."""
    for other in sa.shared.namesakes(sa):
        of_another_login = other.connection_id != sa.connection_id and other.is_alive and other.successor is None
        if of_another_login and _may_be_one_device(sa, other):
            other.now = max(other.now, sa.now)
            other.terminate(Closed(f"{sa.remote_identity} connected anew and says that it has no other connection"))


def _may_be_one_device(sa: IkeSa, other: IkeSa) -> bool:
    """A user who logs in by EAP does so from several devices, and each knows of its own SAs alone: their claims to be
    the only one must not push each other out for ever. What a crash left elsewhere, liveness checks find."""
    if sa.eap_identity is None:
        return True
    if sa.nat.peer_behind_nat or other.nat.peer_behind_nat:
        return sa.remote == other.remote
    return sa.remote.host == other.remote.host

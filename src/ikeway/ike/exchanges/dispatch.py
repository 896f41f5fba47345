"""Which conversation answers a request (RFC 7296 section 1)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from ikeway.errors import ProtocolViolation
from ikeway.ike.conversation import Effect
from ikeway.ike.driver import Answer
from ikeway.ike.exchanges import auth, create_child, informational, rekey_child, rekey_ike
from ikeway.ike.sa import IkeSa, IkeState
from ikeway.wire.message import Message
from ikeway.wire.payloads import SecurityAssociation
from ikeway.wire.registry import ExchangeType, NotifyType, ProtocolId

Responder = Callable[[IkeSa, Message], Coroutine[Effect, Any, Answer]]


def responder_of(sa: IkeSa, message: Message) -> Responder:
    """The responder's side of the exchange that `message` begins."""
    if sa.state is IkeState.CONNECTING:
        if sa.is_initiator:
            return _refuse
        return _OF_LOG_IN.get(message.exchange_type, _refuse)
    if message.exchange_type == ExchangeType.INFORMATIONAL:
        return informational.respond
    if message.exchange_type == ExchangeType.CREATE_CHILD_SA:
        return _create_child_sa
    return _refuse


_OF_LOG_IN: dict[int, Responder] = {
    ExchangeType.IKE_AUTH: auth.respond,
    ExchangeType.INFORMATIONAL: auth.given_up,
}


async def _create_child_sa(sa: IkeSa, message: Message) -> Answer:
    rekeyed = message.notify(NotifyType.REKEY_SA)
    if rekeyed is not None:
        return await rekey_child.respond(sa, message, rekeyed)
    security = message.find(SecurityAssociation)
    if security is not None and security.proposals and security.proposals[0].protocol == ProtocolId.IKE:
        return await rekey_ike.respond(sa, message)
    return await create_child.respond(sa, message)


async def _refuse(sa: IkeSa, message: Message) -> Answer:
    raise ProtocolViolation(
        f"exchange {message.exchange_type.name} while the IKE SA is {sa.state.value}", notify=NotifyType.INVALID_SYNTAX
    )

"""Log-ins that a RADIUS server judges: EAP that is passed on (RFC 3579), and passwords (RFC 2865 section 5.2)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ikeway.daemon.log import event
from ikeway.eap.questions import Granted, PasswordCheck, Prompt, Refused, Verdict, Wanted
from ikeway.eap.relay import Accepted, Rejected, RelayAnswer, Relayed, RelayQuestion
from ikeway.errors import AuthenticationFailed, IkewayError, Side
from ikeway.gateway.radius.attributes import (
    MS_MPPE_RECV_KEY,
    MS_MPPE_SEND_KEY,
    NAS_PORT_TYPE_VIRTUAL,
    SERVICE_TYPE_FRAMED,
    Attr,
    Attributes,
    Pair,
    integer,
    split,
    text,
)
from ikeway.gateway.radius.grant import Grant, read_grant
from ikeway.gateway.radius.group import Group
from ikeway.gateway.radius.packets import Code, Reply
from ikeway.gateway.radius.server import Server
from ikeway.wire.registry import NotifyType

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa

log = logging.getLogger("ikeway.radius")

MAX_NAME = 253
MAX_PASSWORD = 128
MSK_OCTETS = 64
# A server cuts EAP-TLS by this (RFC 3579 section 2.4). Larger ones would only become several fragments of IKE.
FRAMED_MTU = 1100

# Says what follows from a grant, or refuses it.
Settle = Callable[["IkeSa", Grant], None]


@dataclass(frozen=True, slots=True)
class _Begun:
    """Which server has begun a log-in, and what it wants to be told again (State)."""

    server: Server
    states: tuple[bytes, ...] = field(repr=False)

    @property
    def pairs(self) -> list[Pair]:
        return [(Attr.STATE, state) for state in self.states]


class Logins:
    """Answers `RelayQuestion` and `PasswordCheck` by asking the servers of one group."""

    def __init__(self, group: Group, settle: Settle) -> None:
        """`settle` is called with each grant, before the client hears of it; it may raise."""
        self._group = group
        self._settle = settle

    async def relay(self, question: RelayQuestion, sa: IkeSa) -> RelayAnswer:
        """What the server says to an EAP response."""
        begun = question.state if isinstance(question.state, _Begun) else None
        user = _name(question.identity)
        pairs: list[Pair] = [(Attr.USER_NAME, user), *who_calls(sa), (Attr.FRAMED_MTU, integer(FRAMED_MTU))]
        pairs += split(Attr.EAP_MESSAGE, question.response)
        reply, server = await self._ask(pairs, begun)
        packet = reply.attributes.joined(Attr.EAP_MESSAGE)
        if reply.code is Code.ACCESS_CHALLENGE:
            return Relayed(packet, _Begun(server, reply.attributes.all(Attr.STATE)))
        if reply.code is Code.ACCESS_REJECT:
            return Rejected(packet, self._said(reply.attributes, question.identity, server))
        key = master_session_key(reply)
        grant = self._granted(reply.attributes, question.identity, sa)
        return Accepted(packet, key, grant.user.encode())

    async def check(self, question: PasswordCheck, sa: IkeSa) -> Verdict:
        """What the server says to a password, or to the answer to its last prompt."""
        begun = question.state if isinstance(question.state, _Begun) else None
        if len(question.answer) > MAX_PASSWORD:
            return Refused(f"a password of {len(question.answer)} octets, where RADIUS takes {MAX_PASSWORD}")
        pairs = [(Attr.USER_NAME, _name(question.identity)), *who_calls(sa)]
        reply, server = await self._ask(pairs, begun, question.answer)
        attributes = reply.attributes
        if reply.code is Code.ACCESS_CHALLENGE:
            if not question.may_prompt:
                return Refused("the RADIUS server has another question, and this method has one round only")
            words = "".join(attributes.texts(Attr.REPLY_MESSAGE))
            return Prompt(words, Wanted.CODE, _Begun(server, attributes.all(Attr.STATE)))
        if reply.code is Code.ACCESS_REJECT:
            said = self._said(attributes, question.identity, server)
            return Refused(f"the RADIUS server {server} refused the user{f': {said!r}' if said else ''}")
        self._granted(attributes, question.identity, sa)
        return Granted()

    async def _ask(
        self, pairs: list[Pair], begun: _Begun | None, password: bytes | None = None
    ) -> tuple[Reply, Server]:
        if begun is not None:
            return await self._group.authenticate([*pairs, *begun.pairs], password=password, server=begun.server)
        return await self._group.authenticate(pairs, password=password)

    def _granted(self, attributes: Attributes, identity: bytes, sa: IkeSa) -> Grant:
        grant = read_grant(attributes, self._group.settings.name, identity.decode("utf-8", "replace"))
        self._settle(sa, grant)
        return grant

    def _said(self, attributes: Attributes, identity: bytes, server: Server) -> str:
        """The server's Reply-Message: for the log, as RFC 3579 section 2.6.5 has it."""
        said = " ".join(attributes.texts(Attr.REPLY_MESSAGE)).strip()
        user = identity.decode("utf-8", "backslashreplace")
        about = {"server": str(server), "user": user, "said": said}
        words = f": {said!r}" if said else ""
        event(log, logging.DEBUG, "radius-reject", f"the RADIUS server {server} refused {user!r}{words}", about)
        return said


def who_calls(sa: IkeSa) -> tuple[Pair, ...]:
    """Where a client is and where it came in (RFC 2865 sections 5.5, 5.30, 5.31)."""
    return (
        (Attr.NAS_PORT_TYPE, integer(NAS_PORT_TYPE_VIRTUAL)),
        (Attr.NAS_PORT, integer(sa.connection_id & 0xFFFFFFFF)),
        (Attr.NAS_PORT_ID, text(sa.name)),
        (Attr.SERVICE_TYPE, integer(SERVICE_TYPE_FRAMED)),
        (Attr.CALLED_STATION_ID, text(sa.local.host)),
        (Attr.CALLING_STATION_ID, text(sa.remote.host)),
    )


def master_session_key(reply: Reply) -> bytes | None:
    """The MSK: MS-MPPE-Recv-Key and MS-MPPE-Send-Key (RFC 2548 section 2.4, RFC 5216 section 2.3); None without these.

    A method with shorter keys fills up with zeros (RFC 3748 section 7.10 wants 64 octets).
    """
    attributes = reply.attributes
    hidden = attributes.first(MS_MPPE_RECV_KEY), attributes.first(MS_MPPE_SEND_KEY)
    if hidden == (None, None):
        return None
    try:
        keys = [reply.reveal(value) for value in hidden if value is not None]
    except ValueError as error:
        raise _bad_key(str(error)) from None
    if len(keys) != 2 or min(map(len, keys)) < 16:
        raise _bad_key(f"keys of {' and '.join(str(len(key)) for key in keys)} octets")
    return b"".join(keys).ljust(MSK_OCTETS, b"\0")


def _bad_key(got: str) -> IkewayError:
    return AuthenticationFailed(
        "the RADIUS server's keys are of no use",
        notify=NotifyType.AUTHENTICATION_FAILED,
        expected="MS-MPPE-Recv-Key and MS-MPPE-Send-Key, each of 16 octets or more",
        got=got,
        side=Side.LOCAL,
        remedy="see what the RADIUS server replies with Access-Accept; no proxy between may change it",
    )


def _name(identity: bytes) -> bytes:
    if len(identity) > MAX_NAME:
        raise AuthenticationFailed(
            "the user name is longer than RADIUS allows",
            notify=NotifyType.AUTHENTICATION_FAILED,
            expected=f"at most {MAX_NAME} octets",
            got=f"{len(identity)}",
            side=Side.PEER,
            remedy="correct the user name on the client",
        )
    return identity

"""What servers may tell us: end a session, change one (RFC 5176). We answer, once, and never do a thing twice.

server                                       gateway
Disconnect-Request {session} -->
                                  <-- Disconnect-ACK, or Disconnect-NAK {Error-Cause}
CoA-Request {session, changes} -->
                                  <-- CoA-ACK, or CoA-NAK {Error-Cause}
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from ikeway.daemon.log import event
from ikeway.errors import HostError
from ikeway.gateway.radius.attributes import Attr, Attributes, Key, MalformedAttribute, integer
from ikeway.gateway.radius.packets import Code, Dropped, ServerRequest
from ikeway.gateway.radius.settings import DynamicSettings, RadiusSettings

log = logging.getLogger("ikeway.radius")

TIMESTAMP_WINDOW = 300.0  # seconds (RFC 5176 section 6.3)
_REMEMBERED = 1024  # answers, for requests that come again
# For how long. A request that is this old is not fresh any more; where requests have no time, the same octets may by then be
# a new wish (of servers that always begin with the same identifier).
_REMEMBERED_SECONDS = 2 * TIMESTAMP_WINDOW


class ErrorCause(enum.IntEnum):
    """Error-Cause (RFC 5176 section 3.5)."""

    UNSUPPORTED_ATTRIBUTE = 401
    MISSING_ATTRIBUTE = 402
    NAS_IDENTIFICATION_MISMATCH = 403
    INVALID_REQUEST = 404
    INVALID_ATTRIBUTE_VALUE = 407
    SESSION_CONTEXT_NOT_FOUND = 503


class Refusal(Exception):
    """What a NAK says."""

    def __init__(self, cause: ErrorCause, why: str) -> None:
        super().__init__(why)
        self.cause, self.why = cause, why


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which sessions a request is about: all that it names have to fit."""

    user: str | None
    session: str | None
    addresses: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]
    classes: tuple[bytes, ...]
    calling: str | None


class Sessions(Protocol):
    """What a request can be about."""

    def find(self, wanted: Wanted) -> Sequence[int]:
        """The connections that fit."""
        ...

    def disconnect(self, connection_id: int) -> None:
        """End one."""
        ...

    def change(self, connection_ids: Sequence[int], attributes: Attributes) -> None:
        """Change some as the attributes say. Raises `Refusal`, and changes nothing then."""
        ...


_NAS = frozenset({Attr.NAS_IDENTIFIER, Attr.NAS_IP_ADDRESS, Attr.NAS_IPV6_ADDRESS})
_NAMES = frozenset(
    {
        Attr.USER_NAME,
        Attr.ACCT_SESSION_ID,
        Attr.FRAMED_IP_ADDRESS,
        Attr.FRAMED_IPV6_ADDRESS,
        Attr.CLASS,
        Attr.CALLING_STATION_ID,
    }
)
CHANGEABLE = frozenset({Attr.SESSION_TIMEOUT, Attr.IDLE_TIMEOUT, Attr.FILTER_ID, Attr.ACCT_INTERIM_INTERVAL})
_ALWAYS = frozenset({Attr.EVENT_TIMESTAMP, Attr.MESSAGE_AUTHENTICATOR, Attr.PROXY_STATE, Attr.REPLY_MESSAGE})


class DynamicServer(asyncio.DatagramProtocol):
    """See the module. Requests of others than the configured clients are dropped unread."""

    def __init__(self, settings: RadiusSettings, dynamic: DynamicSettings, sessions: Sessions) -> None:
        self._settings, self._dynamic, self._sessions = settings, dynamic, sessions
        self._transport: asyncio.DatagramTransport | None = None
        self._answered: OrderedDict[tuple[str, bytes], tuple[float, bytes]] = OrderedDict()  # until when, what

    async def start(self) -> None:
        """Listen. Raises HostError."""
        where = (str(self._dynamic.listen), self._dynamic.port)
        try:
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, local_addr=where)
        except OSError as error:
            raise HostError(
                f"RADIUS servers cannot be listened to at {where[0]} port {where[1]}: {error.strerror}",
                remedy="correct `listen` of `coa`, or end the program that has this port",
            ) from None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        assert self._transport is not None
        host, port = self._transport.get_extra_info("sockname")[:2]
        return str(host), int(port)

    def close(self) -> None:
        """Listen no more."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It listens."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """One request."""
        client = _plain(addr[0])
        if client not in self._dynamic.clients:
            self._drop(addr, "from an address that is none of `clients`", "add the RADIUS server to `clients` of `coa`")
            return
        # A request is known again by identifier and authenticator: the same octets (RFC 5176 section 2.3).
        # The port does not count: whoever has recorded a request may send it from any.
        known, now = (addr[0], data[:20]), asyncio.get_running_loop().time()
        until, answer = self._answered.get(known, (now, None))
        if answer is None or until <= now:
            answer = self._answer(data, addr)
            if answer is None:
                return
            self._answered.pop(known, None)
            self._answered[known] = (now + _REMEMBERED_SECONDS, answer)
            while len(self._answered) > _REMEMBERED:
                self._answered.popitem(last=False)
        assert self._transport is not None
        self._transport.sendto(answer, addr)

    def _answer(self, octets: bytes, addr: tuple[str, int]) -> bytes | None:
        """The answer; None for a request that is not to be believed."""
        try:
            request = ServerRequest(octets, self._dynamic.secret)
        except Dropped as dropped:
            self._drop(addr, dropped.fault.words, dropped.fault.remedy)
            return None
        disconnects = request.code is Code.DISCONNECT_REQUEST
        done, refused = (Code.DISCONNECT_ACK, Code.DISCONNECT_NAK) if disconnects else (Code.COA_ACK, Code.COA_NAK)
        try:
            if not self._is_fresh(request.attributes, addr):
                return None
            ids = self._carry_out(request.attributes, disconnects=disconnects)
        except MalformedAttribute as error:
            refusal = Refusal(ErrorCause.INVALID_ATTRIBUTE_VALUE, error.reason)
        except Refusal as found:
            refusal = found
        else:
            did = "ended" if disconnects else "changed"
            text = f"the RADIUS server {addr[0]} has {did} the session{'s' * (len(ids) > 1)} {', '.join(map(str, ids))}"
            event(log, logging.INFO, "radius-dynamic", text, {"server": addr[0], "sessions": ids})
            return request.reply(done)
        text = (
            f"a {request.code.name.replace('_', ' ').lower()} of the RADIUS server {addr[0]} was refused: {refusal.why}"
        )
        about = {"server": addr[0], "cause": int(refusal.cause), "reason": refusal.why}
        event(log, logging.WARNING, "radius-dynamic-refused", text, about, limited=addr[0])
        return request.reply(refused, [(Attr.ERROR_CAUSE, integer(refusal.cause))])

    def _is_fresh(self, attributes: Attributes, addr: tuple[str, int]) -> bool:
        """A request that was recorded must not be of use later (RFC 5176 section 6.3)."""
        told = attributes.integer(Attr.EVENT_TIMESTAMP)
        if told is None:
            if self._dynamic.require_timestamp:
                self._drop(
                    addr,
                    "without Event-Timestamp, so that it might be an old one",
                    "let the server send it, or write `require_timestamp = false` in `coa`",
                )
            return not self._dynamic.require_timestamp
        apart = abs(time.time() - told)
        if apart > TIMESTAMP_WINDOW:
            self._drop(addr, f"whose time is {apart:.0f} s apart from ours", "set the clocks on both sides (NTP)")
        return apart <= TIMESTAMP_WINDOW

    def _carry_out(self, attributes: Attributes, *, disconnects: bool) -> list[int]:
        self._check_nas(attributes)
        allowed: frozenset[Key] = _NAS | _NAMES | _ALWAYS | (frozenset() if disconnects else CHANGEABLE)
        strange = [key for key in attributes.values if key not in allowed]
        if strange:
            raise Refusal(ErrorCause.UNSUPPORTED_ATTRIBUTE, f"there is nothing to do for attribute {strange[0]}")
        if not disconnects and not CHANGEABLE & set(attributes.values):
            raise Refusal(ErrorCause.MISSING_ATTRIBUTE, "nothing is to be changed")
        if not _NAMES & set(attributes.values):
            raise Refusal(ErrorCause.MISSING_ATTRIBUTE, "no session is named")
        found = list(self._sessions.find(_wanted(attributes)))
        if not found:
            raise Refusal(ErrorCause.SESSION_CONTEXT_NOT_FOUND, "there is no such session")
        if not disconnects:
            self._sessions.change(found, attributes)
        for connection_id in found if disconnects else ():
            self._sessions.disconnect(connection_id)
        return found

    def _check_nas(self, attributes: Attributes) -> None:
        """A request may say which gateway it means (RFC 5176 section 3)."""
        own = self._settings.nas_identifier
        name = attributes.text(Attr.NAS_IDENTIFIER)
        address = attributes.address(Attr.NAS_IP_ADDRESS) or attributes.address(Attr.NAS_IPV6_ADDRESS)
        here = {self._dynamic.listen, self._settings.source}
        unknown = address is not None and not self._dynamic.listen.is_unspecified and address not in here
        if (name is not None and name != own) or unknown:
            raise Refusal(ErrorCause.NAS_IDENTIFICATION_MISMATCH, f"it is for {name or address}, and this is {own}")

    def _drop(self, addr: tuple[str, int], what: str, remedy: str) -> None:
        text = f"a request of {addr[0]} to change sessions was dropped: it came {what}; {remedy}"
        about = {"server": addr[0], "radius": self._settings.name, "reason": what, "remedy": remedy}
        event(log, logging.WARNING, "radius-dynamic-dropped", text, about, limited=addr[0])


def _plain(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Where a request came from. One over IPv4 has an IPv6 address around it when `::` is listened on."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def _wanted(attributes: Attributes) -> Wanted:
    return Wanted(
        user=attributes.text(Attr.USER_NAME),
        session=attributes.text(Attr.ACCT_SESSION_ID),
        addresses=(*attributes.addresses(Attr.FRAMED_IP_ADDRESS), *attributes.addresses(Attr.FRAMED_IPV6_ADDRESS)),
        classes=attributes.all(Attr.CLASS),
        calling=attributes.text(Attr.CALLING_STATION_ID),
    )

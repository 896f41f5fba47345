"""All of RADIUS that a gateway has: groups of servers, who is logged in by them, and what follows from it.

Theory of operation. A grant comes with the last answer to a log-in, before the client hears of it; `RadiusHost.settle`
decides what it means here. It is kept by the number of the connection until the connection is gone, so that a log-in
that fails later leaves nothing. Accounts and limits begin when the IKE SA is established, and end with it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ikeway.config.fields import IpAddress
from ikeway.daemon.log import event
from ikeway.daemon.status import CountersBySa, RadiusServerStatus
from ikeway.eap.questions import PasswordCheck, Verdict
from ikeway.eap.relay import RelayAnswer, RelayQuestion
from ikeway.errors import AuthenticationFailed, Closed, HostError, IkewayError, PeerUnreachable
from ikeway.gateway.radius.accounting import Accounting, TerminateCause
from ikeway.gateway.radius.attributes import Attr, Attributes, Pair
from ikeway.gateway.radius.dynamic import DynamicServer, ErrorCause, Refusal, Wanted
from ikeway.gateway.radius.grant import Grant, groups_of, interim_of
from ikeway.gateway.radius.group import Group
from ikeway.gateway.radius.limits import Limits
from ikeway.gateway.radius.login import Logins
from ikeway.gateway.radius.settings import RadiusSettings
from ikeway.gateway.usage import Usage, UsageBook
from ikeway.ike import events as ike
from ikeway.ike.questions import SettleConnection, Settled
from ikeway.ike.settings import Connection
from ikeway.wire.registry import NotifyType

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa

log = logging.getLogger("ikeway.radius")

_FLUSH_SECONDS = 3.0  # for the last accounting records


class RadiusHost(Protocol):
    """What the gateway is to RADIUS."""

    def settle(self, sa: IkeSa, grant: Grant) -> Connection:
        """The connection that a client with this grant gets. Raises when there is none for it."""
        ...

    def addresses_of(self, connection_id: int) -> Sequence[IpAddress]:
        """What a client has got."""
        ...

    def disconnect(self, connection_id: int) -> bool:
        """End a session."""
        ...

    async def counters(self) -> CountersBySa:
        """Of all SAs."""
        ...


@dataclass(slots=True)
class _Member:
    """One `[radius.NAME]`."""

    group: Group
    logins: Logins
    accounting: Accounting
    dynamic: DynamicServer | None = None


class RadiusService:
    """See the module. Made and used on one running event loop."""

    def __init__(self, settings: Mapping[str, RadiusSettings], host: RadiusHost, usage: UsageBook) -> None:
        self._host, self._book = host, usage
        self._members = {name: self._member(each) for name, each in settings.items()}
        self._former: list[_Member] = []  # not configured any more, with accounts that are to be closed
        self._replaced: list[Group] = []  # what they are waiting for may still come
        self._grants: dict[int, Grant] = {}
        self._settled: dict[int, Settled] = {}
        self._sessions: dict[int, IkeSa] = {}
        self._causes: dict[int, TerminateCause] = {}
        self._limits = Limits(self._end)
        self._idle: asyncio.Task[None] | None = None
        self._leaving = False

    async def start(self) -> None:
        """Listen where servers may tell us something. Raises HostError."""
        for member in self._members.values():
            await self._listen(member)

    async def close(self) -> None:
        """Let the last accounting records go out, but not for long, and end."""
        if self._idle is not None:
            self._idle.cancel()
        if self._sessions:  # clients that did not answer our goodbye
            counters = await self._host.counters()
            for connection_id, sa in list(self._sessions.items()):
                self._finish(connection_id, None, self._book.total(sa, counters))
        members = [*self._members.values(), *self._former]
        await asyncio.gather(*(member.accounting.flush(_FLUSH_SECONDS) for member in members))
        for member in members:
            self._silence(member)
        for group in (*self._replaced, *(member.group for member in members)):
            group.close()

    def leave(self) -> None:
        """Sessions that end from now on do so because the gateway ends."""
        self._leaving = True

    async def reload(self, settings: Mapping[str, RadiusSettings]) -> None:
        """Go on with other servers. Log-ins under way end with those that they began with. Raises HostError where servers
        cannot be listened to; everything else is done all the same."""
        self._let_go_of_former()
        before, self._members = self._members, {}
        fresh: list[_Member] = []
        for name, wanted in settings.items():
            old = before.pop(name, None)
            if old is not None and old.group.settings == wanted:
                self._members[name] = old
                continue
            self._members[name] = self._member(wanted, self._kept(old, wanted) if old is not None else None)
            fresh.append(self._members[name])
        self._former += before.values()
        # Only now is anything waited for: whoever logs in or out meanwhile finds all of the new ones, and no account lost.
        for old in before.values():
            self._silence(old)
        await asyncio.sleep(0)  # until sockets are closed: the next ones may have the same addresses
        refused: list[HostError] = []
        for member in fresh:
            try:
                await self._listen(member)
            except HostError as error:
                refused.append(error)
        if refused:
            raise refused[0]

    def _let_go_of_former(self) -> None:
        done = [member for member in self._former if member.accounting.is_idle]
        for member in done:
            self._former.remove(member)
            member.group.close()

    def _kept(self, old: _Member, wanted: RadiusSettings) -> Accounting | None:
        """What goes on of a member that has other settings now: its accounts, unless there are to be none. Those that were
        begun are then closed where they were."""
        self._silence(old)
        if old.group.settings.accounting and not wanted.accounting:
            self._former.append(old)
            return None
        self._replaced.append(old.group)
        asyncio.get_running_loop().call_later(old.group.settings.longest, old.group.close)
        return old.accounting

    def status(self) -> tuple[RadiusServerStatus, ...]:
        """How all servers are."""
        return tuple(each for member in self._members.values() for each in member.group.status())

    def grant_of(self, connection_id: int) -> Grant | None:
        """What a client was granted."""
        return self._grants.get(connection_id)

    # -- questions of log-ins

    async def relay(self, question: RelayQuestion, sa: IkeSa) -> RelayAnswer:
        """What the server says to an EAP packet."""
        return await self._named(question.server).logins.relay(question, sa)

    async def check(self, question: PasswordCheck, sa: IkeSa, server: str) -> Verdict:
        """What the server says to a password."""
        return await self._named(server).logins.check(question, sa)

    async def settled(self, question: SettleConnection) -> Settled:
        """Which agreement holds with a client that was let in."""
        found = self._settled.get(question.connection_id)
        if found is None:
            raise AuthenticationFailed(
                "the log-in succeeded without the RADIUS server", notify=NotifyType.AUTHENTICATION_FAILED
            )
        return found

    def _named(self, name: str) -> _Member:
        member = self._members.get(name)
        if member is None:
            raise AuthenticationFailed(
                f"there is no [radius.{name}] any more",
                notify=NotifyType.AUTHENTICATION_FAILED,
                remedy="log in again",
            )
        return member

    def _settle(self, sa: IkeSa, grant: Grant) -> None:
        self._settled[sa.connection_id] = Settled(self._host.settle(sa, grant), grant.session_timeout)
        self._grants[sa.connection_id] = grant

    # -- sessions

    def on_event(self, happened: ike.Event) -> None:
        """To be told of everything that happens, after the gateway itself."""
        match happened:
            case ike.IkeEstablished(sa=sa) if sa.connection_id in self._grants:
                self._begin(sa, self._grants[sa.connection_id])
            case ike.IkeRekeyed(sa=sa) if sa.connection_id in self._sessions:
                self._sessions[sa.connection_id] = sa
                self._limits.follow(sa)
                for member in self._all:
                    member.accounting.follow(sa)
            case ike.IkeClosed(sa=sa, error=error):
                self._finish(sa.connection_id, error)

    @property
    def _all(self) -> list[_Member]:
        return [*self._members.values(), *self._former]

    def _begin(self, sa: IkeSa, grant: Grant) -> None:
        self._sessions[sa.connection_id] = sa
        self._limits.open(sa)
        self._limits.set(sa.connection_id, session=grant.session_timeout, idle=grant.idle_timeout)
        self._watch_idle()
        member = self._members.get(grant.server)
        if member is not None and member.group.settings.accounting:
            member.accounting.open(sa, grant, self._framed(sa.connection_id))

    def _finish(self, connection_id: int, error: IkewayError | None, usage: Usage | None = None) -> None:
        self._grants.pop(connection_id, None)
        self._settled.pop(connection_id, None)
        if self._sessions.pop(connection_id, None) is None:
            return
        self._limits.close(connection_id)
        cause = self._causes.pop(connection_id, None) or self._cause_of(error)
        for member in self._all:
            member.accounting.close(connection_id, usage or self._book.ended(connection_id), cause)

    def _cause_of(self, error: IkewayError | None) -> TerminateCause:
        match error:
            case None:
                return TerminateCause.ADMIN_REBOOT if self._leaving else TerminateCause.ADMIN_RESET
            case Closed():
                return TerminateCause.USER_REQUEST
            case PeerUnreachable():
                return TerminateCause.LOST_CARRIER
            case HostError():
                return TerminateCause.NAS_ERROR
        return TerminateCause.NAS_REQUEST

    def _framed(self, connection_id: int) -> list[Pair]:
        return [
            (Attr.FRAMED_IP_ADDRESS if each.version == 4 else Attr.FRAMED_IPV6_ADDRESS, each.packed)
            for each in self._host.addresses_of(connection_id)
        ]

    def _end(self, connection_id: int, cause: TerminateCause, why: str) -> None:
        self._causes[connection_id] = cause
        grant = self._grants.get(connection_id)
        user = grant.user if grant is not None else ""
        text = f"the session of {user} is ended: {why}"
        event(log, logging.INFO, "radius-ends", text, {"user": user, "id": connection_id, "reason": why})
        self._host.disconnect(connection_id)

    # -- usage

    async def usage(self, sa: IkeSa) -> Usage:
        """What a session has carried so far."""
        return self._book.total(sa, await self._host.counters())

    def _watch_idle(self) -> None:
        if self._limits.any_idle and (self._idle is None or self._idle.done()):
            self._idle = asyncio.get_running_loop().create_task(self._look_for_idle())

    async def _look_for_idle(self) -> None:
        while self._limits.any_idle:
            await asyncio.sleep(self._limits.pause)
            counters = await self._host.counters()
            self._limits.look(lambda sa: self._book.total(sa, counters))  # noqa: B023 - called at once

    # -- what servers tell us

    def find(self, server: str, wanted: Wanted) -> list[int]:
        """The sessions that this group of servers granted and that fit."""
        return [
            connection_id
            for connection_id, sa in self._sessions.items()
            if (grant := self._grants[connection_id]).server == server and self._fits(sa, grant, wanted)
        ]

    def _fits(self, sa: IkeSa, grant: Grant, wanted: Wanted) -> bool:
        account = next((found for each in self._all if (found := each.accounting.find(sa.connection_id))), None)
        return (
            (wanted.user is None or wanted.user == grant.user)
            and (wanted.session is None or (account is not None and wanted.session == account.id))
            and set(wanted.addresses) <= set(self._host.addresses_of(sa.connection_id))
            and set(wanted.classes) <= set(grant.classes)
            and (wanted.calling is None or wanted.calling == sa.remote.host)
        )

    def disconnect(self, connection_id: int) -> None:
        """A server ends a session."""
        self._end(connection_id, TerminateCause.ADMIN_RESET, "the RADIUS server says so (Disconnect-Request)")

    def change(self, connection_ids: Sequence[int], attributes: Attributes) -> None:
        """A server changes sessions. Raises `Refusal`, and changes nothing then."""
        session, idle = attributes.integer(Attr.SESSION_TIMEOUT), attributes.integer(Attr.IDLE_TIMEOUT)
        changed = {each: self._changed(self._sessions[each], attributes) for each in connection_ids}
        for connection_id, grant in changed.items():
            self._grants[connection_id] = grant
            self._limits.set(
                connection_id,
                session=float(session) if session is not None else None,
                idle=float(idle) if idle is not None else None,
            )
            for member in self._all:
                member.accounting.change(connection_id, grant)
        self._watch_idle()

    def _changed(self, sa: IkeSa, attributes: Attributes) -> Grant:
        grant = self._grants[sa.connection_id]
        if (interim := interim_of(attributes)) is not None:
            grant = dataclasses.replace(grant, interim=interim)
        if Attr.FILTER_ID not in attributes:
            return grant
        named = Attributes({Attr.FILTER_ID: attributes.all(Attr.FILTER_ID)})
        grant = dataclasses.replace(grant, groups=groups_of(named))
        try:
            leads_to = self._host.settle(sa, grant)
        except IkewayError as error:
            raise Refusal(ErrorCause.INVALID_ATTRIBUTE_VALUE, error.reason) from None
        if leads_to.name != sa.connection.name:
            why = f"the group leads to the connection {leads_to.name}, which takes a new log-in: disconnect the session"
            raise Refusal(ErrorCause.INVALID_ATTRIBUTE_VALUE, why)
        return grant

    # -- members

    def _member(self, settings: RadiusSettings, accounting: Accounting | None = None) -> _Member:
        group = Group(settings)
        if accounting is None:
            accounting = Accounting(group, self.usage)
        else:
            accounting.send_to(group)
        return _Member(group, Logins(group, self._settle), accounting)

    async def _listen(self, member: _Member) -> None:
        settings = member.group.settings
        if settings.dynamic is None:
            return
        server = DynamicServer(settings, settings.dynamic, _Served(self, settings.name))
        await server.start()
        member.dynamic = server

    @staticmethod
    def _silence(member: _Member) -> None:
        if member.dynamic is not None:
            member.dynamic.close()
            member.dynamic = None


class _Served:
    """The sessions as the servers of one group see them."""

    def __init__(self, service: RadiusService, server: str) -> None:
        self._service, self._server = service, server

    def find(self, wanted: Wanted) -> Sequence[int]:
        """The sessions that fit."""
        return self._service.find(self._server, wanted)

    def disconnect(self, connection_id: int) -> None:
        """End one."""
        self._service.disconnect(connection_id)

    def change(self, connection_ids: Sequence[int], attributes: Attributes) -> None:
        """Change them."""
        self._service.change(connection_ids, attributes)

"""Accounts of sessions for the servers: start, interim and stop (RFC 2866, RFC 2869 section 2.1).

A record is never in anybody's way: it waits for its answer in a task of its own. What begins and ends an account is sent
again for minutes, an interim record once: the next one says it all again. Records of one account do not overtake each other,
or a server that was away would hear of the beginning of a session last, and show it for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ikeway.daemon.log import event
from ikeway.gateway.radius.attributes import Attr, Pair, integer, text
from ikeway.gateway.radius.errors import RadiusUnavailable
from ikeway.gateway.radius.grant import Grant
from ikeway.gateway.radius.group import Group
from ikeway.gateway.radius.login import who_calls
from ikeway.gateway.usage import Usage

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa

log = logging.getLogger("ikeway.radius")

MAX_RECORDS = 10_000  # under way at a time; what is more is lost, and said
_PAUSES = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)  # between one round through the servers and the next


class StatusType(enum.IntEnum):
    """Acct-Status-Type (RFC 2866 section 5.1)."""

    START = 1
    STOP = 2
    INTERIM_UPDATE = 3


class TerminateCause(enum.IntEnum):
    """Acct-Terminate-Cause (RFC 2866 section 5.10), as far as a VPN has them."""

    USER_REQUEST = 1
    LOST_CARRIER = 2
    IDLE_TIMEOUT = 4
    SESSION_TIMEOUT = 5
    ADMIN_RESET = 6
    ADMIN_REBOOT = 7
    NAS_ERROR = 9
    NAS_REQUEST = 10
    USER_ERROR = 17


_AUTHENTIC_RADIUS = 1


@dataclass(slots=True)
class Account:
    """One session, from its log-in to its end."""

    id: str  # Acct-Session-Id
    sa: IkeSa
    grant: Grant
    addresses: tuple[Pair, ...]
    began: float  # on the event loop's clock
    interim: asyncio.TimerHandle | None = field(default=None, repr=False)
    last: asyncio.Task[None] | None = field(default=None, repr=False)  # that delivers the record before the next one

    @property
    def connection_id(self) -> int:
        """Of its IKE SAs."""
        return self.sa.connection_id


class Accounting:
    """The accounts of one group of servers. `usage` says what a session has carried so far."""

    def __init__(self, group: Group, usage: Callable[[IkeSa], Awaitable[Usage]]) -> None:
        self._group = group
        self._usage = usage
        self._prefix = secrets.token_hex(4)  # so that no session of another run has the same name
        self._accounts: dict[int, Account] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._leaving = asyncio.Event()

    @property
    def pending(self) -> int:
        """Records that are not acknowledged yet."""
        return len(self._sending)

    @property
    def is_idle(self) -> bool:
        """True when there is no account, and no record that is to be delivered still."""
        return not (self._accounts or self._sending)

    def send_to(self, group: Group) -> None:
        """Go on with these servers."""
        self._group = group

    def find(self, connection_id: int) -> Account | None:
        """The account of a connection."""
        return self._accounts.get(connection_id)

    def open(self, sa: IkeSa, grant: Grant, addresses: Sequence[Pair]) -> Account:
        """A session begins."""
        name = f"{self._prefix}-{sa.connection_id:08x}"
        account = Account(name, sa, grant, tuple(addresses), asyncio.get_running_loop().time())
        self._accounts[sa.connection_id] = account
        self._send(account, StatusType.START, None)
        self._set_interim(account)
        return account

    def follow(self, sa: IkeSa) -> None:
        """The session has another IKE SA now."""
        account = self._accounts.get(sa.connection_id)
        if account is not None:
            account.sa = sa

    def change(self, connection_id: int, grant: Grant) -> None:
        """The session is granted something else now (CoA)."""
        account = self._accounts.get(connection_id)
        if account is not None:
            account.grant = grant
            self._set_interim(account)

    def close(self, connection_id: int, usage: Usage, cause: TerminateCause) -> None:
        """A session has ended. Unknown: no error."""
        account = self._accounts.pop(connection_id, None)
        if account is None:
            return
        if account.interim is not None:
            account.interim.cancel()
        self._send(account, StatusType.STOP, usage, [(Attr.ACCT_TERMINATE_CAUSE, integer(cause))])

    async def flush(self, seconds: float) -> None:
        """Wait for what is not acknowledged, but no longer than that. What waited to be sent again is sent now."""
        self._leaving.set()
        if self._sending:
            _, lost = await asyncio.wait(self._sending, timeout=seconds)
            for task in lost:
                task.cancel()
            if lost:
                await asyncio.gather(*lost, return_exceptions=True)
                text_ = f"{len(lost)} accounting records were not acknowledged by RADIUS servers before the end"
                event(log, logging.WARNING, "radius-accounting-lost", text_, {"records": len(lost)})

    # -- inside

    def _set_interim(self, account: Account) -> None:
        if account.interim is not None:
            account.interim.cancel()
            account.interim = None
        wanted = account.grant.interim if account.grant.interim is not None else self._group.settings.interim
        if wanted:
            account.interim = asyncio.get_running_loop().call_later(wanted, self._report, account)

    def _report(self, account: Account) -> None:
        self._set_interim(account)
        self._start(self._report_usage(account))

    async def _report_usage(self, account: Account) -> None:
        usage = await self._usage(account.sa)
        waits = account.last is not None and not account.last.done()
        if self._accounts.get(account.connection_id) is account and not waits:
            self._send(account, StatusType.INTERIM_UPDATE, usage)

    def _send(self, account: Account, kind: StatusType, usage: Usage | None, more: Sequence[Pair] = ()) -> None:
        now = asyncio.get_running_loop().time()
        pairs: list[Pair] = [(Attr.ACCT_STATUS_TYPE, integer(kind)), *self._about(account)]
        if usage is not None:
            pairs += [(Attr.ACCT_SESSION_TIME, integer(round(now - account.began))), *_carried(usage)]
        pairs += [*more, (Attr.EVENT_TIMESTAMP, integer(int(time.time())))]
        if len(self._sending) >= MAX_RECORDS:
            self._lost(account, kind, f"{MAX_RECORDS} records wait already")
            return
        account.last = self._start(self._deliver(account, kind, pairs, now, account.last))

    def _start(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return task

    async def _deliver(
        self,
        account: Account,
        kind: StatusType,
        pairs: Sequence[Pair],
        since: float,
        before: asyncio.Task[None] | None,
    ) -> None:
        if before is not None:
            await asyncio.wait({before})
        loop = asyncio.get_running_loop()
        pauses = iter(() if kind is StatusType.INTERIM_UPDATE else _PAUSES)
        while True:
            delay = loop.time() - since
            try:
                await self._group.account([*pairs, (Attr.ACCT_DELAY_TIME, integer(int(delay)))])
            except RadiusUnavailable as error:
                pause = None if self._leaving.is_set() else next(pauses, None)
                if pause is None:
                    self._lost(account, kind, error.reason)
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._leaving.wait()
            else:
                return

    def _lost(self, account: Account, kind: StatusType, why: str) -> None:
        what = kind.name.lower().replace("_", "-")
        event(
            log,
            logging.WARNING,
            "radius-accounting-lost",
            f"the accounting record {what} of {account.grant.user} (session {account.id}) was lost: {why}",
            {"user": account.grant.user, "session": account.id, "record": what, "reason": why},
            limited=self._group.settings.name,
        )

    def _about(self, account: Account) -> list[Pair]:
        grant = account.grant
        return [
            (Attr.ACCT_SESSION_ID, text(account.id)),
            (Attr.USER_NAME, text(grant.user)),
            (Attr.ACCT_AUTHENTIC, integer(_AUTHENTIC_RADIUS)),
            *who_calls(account.sa),
            *account.addresses,
            *((Attr.CLASS, value) for value in grant.classes),
        ]


def _carried(usage: Usage) -> list[Pair]:
    """Counters of 32 bits, and how often they have wrapped (RFC 2869 sections 5.1, 5.2). Input is from the client."""
    return [
        (Attr.ACCT_INPUT_OCTETS, integer(usage.octets_in & 0xFFFFFFFF)),
        (Attr.ACCT_OUTPUT_OCTETS, integer(usage.octets_out & 0xFFFFFFFF)),
        (Attr.ACCT_INPUT_GIGAWORDS, integer(usage.octets_in >> 32)),
        (Attr.ACCT_OUTPUT_GIGAWORDS, integer(usage.octets_out >> 32)),
        (Attr.ACCT_INPUT_PACKETS, integer(usage.packets_in & 0xFFFFFFFF)),
        (Attr.ACCT_OUTPUT_PACKETS, integer(usage.packets_out & 0xFFFFFFFF)),
    ]

"""How long a session may last, and how long it may be idle (Session-Timeout and Idle-Timeout, RFC 2865)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ikeway.daemon import clock
from ikeway.gateway.radius.accounting import TerminateCause
from ikeway.gateway.usage import Usage

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa

_LOOK_SECONDS = 10.0  # between two looks at what is idle; more often where a limit is short

# Ends a session: its connection, the cause for its account, and why in words.
End = Callable[[int, TerminateCause, str], None]
UsageOf = Callable[["IkeSa"], Usage]


@dataclass(slots=True)
class _Limited:
    sa: IkeSa
    since: float  # on the clock of `Usage.last_used`
    idle: float = 0.0
    timer: asyncio.TimerHandle | None = None


class Limits:
    """Watches sessions. Made and used on one running event loop."""

    def __init__(self, end: End) -> None:
        self._end = end
        self._sessions: dict[int, _Limited] = {}

    @property
    def pause(self) -> float:
        """How long to wait before `look` is due again."""
        shortest = min((each.idle for each in self._sessions.values() if each.idle), default=_LOOK_SECONDS * 4)
        return max(min(_LOOK_SECONDS, shortest / 4), 0.25)

    @property
    def any_idle(self) -> bool:
        """True when there is a session that may not be idle for ever."""
        return any(each.idle for each in self._sessions.values())

    def open(self, sa: IkeSa) -> None:
        """A session begins."""
        self._sessions[sa.connection_id] = _Limited(sa, clock.now())

    def follow(self, sa: IkeSa) -> None:
        """It has another IKE SA now."""
        if sa.connection_id in self._sessions:
            self._sessions[sa.connection_id].sa = sa

    def set(self, connection_id: int, *, session: float | None = None, idle: float | None = None) -> None:
        """Limit a session, from now on; 0: no limit, None: as it was."""
        limited = self._sessions.get(connection_id)
        if limited is None:
            return
        if idle is not None:
            limited.idle = idle
        if session is not None:
            if limited.timer is not None:
                limited.timer.cancel()
            limited.timer = (
                asyncio.get_running_loop().call_later(session, self._over, connection_id, session) if session else None
            )

    def close(self, connection_id: int) -> None:
        """A session is over. Unknown: no error."""
        limited = self._sessions.pop(connection_id, None)
        if limited is not None and limited.timer is not None:
            limited.timer.cancel()

    def look(self, usage_of: UsageOf) -> None:
        """End what was idle for too long."""
        now = clock.now()
        for connection_id, limited in list(self._sessions.items()):
            if not limited.idle:
                continue
            limited.since = max(limited.since, usage_of(limited.sa).last_used)
            if now - limited.since >= limited.idle:
                why = f"nothing was sent or received for {limited.idle:.0f} s (Idle-Timeout)"
                self._end(connection_id, TerminateCause.IDLE_TIMEOUT, why)

    def _over(self, connection_id: int, seconds: float) -> None:
        self._end(connection_id, TerminateCause.SESSION_TIMEOUT, f"its {seconds:.0f} s are over (Session-Timeout)")

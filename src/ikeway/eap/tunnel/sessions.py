"""TLS sessions that a client may resume: few, short-lived, and in the memory of this process only."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from OpenSSL import SSL

MAX_SESSIONS = 16
LIFETIME = timedelta(hours=1)


class SessionCache:
    """The last session of each method and identity with one `Endpoint`. A session is taken out to be used: one that
    leads to a failure is not tried again, and tickets of TLS 1.3 are good once."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[bytes, tuple[SSL.Session, datetime]] = OrderedDict()

    def take(self, key: bytes, when: datetime) -> SSL.Session | None:
        """The session to resume; None when there is none, or it is too old."""
        session, until = self._sessions.pop(key, (None, when))
        return session if when < until else None

    def keep(self, key: bytes, session: SSL.Session | None, when: datetime) -> None:
        """Keep a session of a log-in that has succeeded."""
        if session is None:
            return
        self._sessions.pop(key, None)
        self._sessions[key] = session, when + LIFETIME
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)

    def __len__(self) -> int:
        return len(self._sessions)

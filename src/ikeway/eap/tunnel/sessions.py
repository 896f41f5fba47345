"""TLS sessions that a client may resume: few, short-lived, and in the memory of this process only."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509
    from OpenSSL import SSL

MAX_SESSIONS = 16
LIFETIME = timedelta(hours=1)


@dataclass(frozen=True, slots=True, eq=False)
class KeptSession:
    """A session, and the certificates that the server had proven itself with."""

    session: SSL.Session = field(repr=False)
    chain: tuple[x509.Certificate, ...]
    until: datetime


class SessionCache:
    """The last session of each method and identity with one `Endpoint`. A session is taken out to be used: one that
    leads to a failure is not tried again, and tickets of TLS 1.3 are good once."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[bytes, KeptSession] = OrderedDict()

    def take(self, key: bytes, when: datetime) -> KeptSession | None:
        """The session to resume; None when there is none, or it is too old."""
        kept = self._sessions.pop(key, None)
        return kept if kept is not None and when < kept.until else None

    def keep(
        self, key: bytes, session: SSL.Session | None, chain: tuple[x509.Certificate, ...], when: datetime
    ) -> None:
        """Keep a session of a log-in that has succeeded."""
        if session is None:
            return
        self._sessions.pop(key, None)
        self._sessions[key] = KeptSession(session, chain, when + LIFETIME)
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)

    def __len__(self) -> int:
        return len(self._sessions)

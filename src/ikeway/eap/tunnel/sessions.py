"""TLS sessions that may be resumed, in the memory of this process only: those that a client has kept, and whom those
belong to that a server has handed out."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ikeway.eap.packet import EapType

if TYPE_CHECKING:
    from cryptography import x509
    from OpenSSL import SSL

MAX_SESSIONS = 16
MAX_LOGINS = 4096  # that a server remembers; whose log-in is forgotten logs in fully
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


@dataclass(frozen=True, slots=True)
class ProvenLogin:
    """Who has logged in in the tunnel of a session, by which method around it, the `mark` that is to be the same still
    (`ResumptionQuestion`), and how long the session may stand for the log-in."""

    method: EapType  # no other: PEAP may have demanded a cryptobinding, which TTLS does not know
    identity: bytes
    mark: bytes = field(repr=False)
    until: datetime


class ProvenLogins:
    """A server's memory of whom a session belongs to, where the log-in was in the tunnel: TLS knows nothing of it.

    Tickets are the client's to keep, and go out before the log-in has ended. So what says that a session is good is an
    entry here, under a digest of the session's secret.
    """

    def __init__(self) -> None:
        self._logins: OrderedDict[bytes, ProvenLogin] = OrderedDict()

    def find(self, digest: bytes, when: datetime) -> ProvenLogin | None:
        """The log-in that a session stands for; None when there is none, or not any more."""
        login = self._logins.get(digest)
        return login if login is not None and when < login.until else None

    def keep(self, digest: bytes, login: ProvenLogin) -> None:
        """Remember a log-in that has succeeded."""
        self._logins.pop(digest, None)
        self._logins[digest] = login
        if len(self._logins) > MAX_LOGINS:
            self._logins.popitem(last=False)

    def __len__(self) -> int:
        return len(self._logins)

"""How often somebody may fail to log in, by user and by address, in bounded memory.

Counted are failures of one user from one address, of one address whoever it says to be, and of one user from anywhere. A
user who failed too often *from an address* waits, and longer after each further failure; so does an address that failed
too often. Too many failures of a user from many addresses lock nobody out, for that would be a stranger's weapon: each
address then has one try in place of several, so the user, who knows the password, gets in from wherever he or she is.

A refused log-in is not looked into and does not count. A success takes away what the same user failed from there; what
others failed from there stays, or somebody with an account could guess for ever. IPv6 hosts own a /64, which is one address
here.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ikeway.address import Address
from ikeway.errors import AuthenticationFailed, Side
from ikeway.wire.registry import NotifyType

log = logging.getLogger("ikeway.gateway")

MAX_RECORDS = 50_000  # some 15 MB; the oldest go first
MEMORY_SECONDS = 3600.0
_LONG_NAME = 64
_MOST_DOUBLINGS = 20

_Key = tuple[str, str]  # address and user; one of them may be empty, for any


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptLimits:
    """Failures that are let pass; 0: any number. `wait` seconds after them, doubled each time up to `longest_wait`."""

    per_user_and_address: int = 5
    per_address: int = 50
    per_user: int = 30
    wait: float = 30.0
    longest_wait: float = 900.0


class TooManyFailures(AuthenticationFailed):
    """A log-in that is refused without a look at it."""


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last: float = 0.0


@dataclass(slots=True)
class _Login:
    """One that has begun. `guesses` by user: secrets that were looked up for it. `right`: those users of whom they were the
    right ones, under whatever name the log-in then goes on."""

    address: str
    claimed: str
    guesses: Counter[str] = field(default_factory=Counter)
    right: set[str] = field(default_factory=set)
    refused: bool = False


class LoginAttempts:
    """Asked before a secret is looked up, told how each log-in ended."""

    def __init__(self, limits: AttemptLimits, now: Callable[[], float]) -> None:
        self.limits = limits
        self._now = now
        self._records: OrderedDict[_Key, _Failures] = OrderedDict()
        self._open: dict[int, _Login] = {}
        self._under_way: Counter[_Key] = Counter()

    def admit(self, login: int, remote: Address, name: str, *, guess: bool = False) -> None:
        """Let `login` go on as `name`; with `guess`, a secret of this user is looked up next. Raises
        `TooManyFailures`."""
        address, user = _prefix(remote.host), _key_of(name)
        entry = self._open.setdefault(login, _Login(address, user))
        wait = max(
            self._wait((address, user), self._limit_of(user), entry.guesses[user]),
            self._wait((address, ""), self.limits.per_address, 0),
        )
        if wait > 0:
            entry.refused = True
            raise TooManyFailures(
                f"too many log-ins of {name!r} from {address}, or from there at all, have failed",
                notify=NotifyType.AUTHENTICATION_FAILED,
                expected=f"no log-in for another {wait:.0f} s",
                side=Side.PEER,
                remedy="wait, then log in with the right password (see login_failures in [limits])",
            )
        if guess:
            entry.guesses[user] += 1
            self._under_way[address, user] += 1

    def was_right(self, login: int, name: str) -> None:
        """Whoever judges has let `login` in as `name`; it may say that this is somebody of another name (RADIUS does)."""
        entry = self._open.get(login)
        if entry is not None:
            entry.right.add(_key_of(name))

    def withdraw(self, login: int, name: str) -> None:
        """The last guess of `login` as `name` has met nobody who could say whether it is right."""
        entry, user = self._open.get(login), _key_of(name)
        if entry is not None and entry.guesses[user]:
            self._take_back(entry, user, 1)
            entry.guesses -= Counter({user: 1})

    def ended(self, login: int, *, proven: str | None, refused: bool, also: Iterable[str] = ()) -> None:
        """It came to its end: `proven` is who has logged in, None when nobody has, and `also` who else was proven with
        several log-ins in one (RFC 4739). `refused`: by us, as the client had not proven who it is."""
        entry = self._open.pop(login, None)
        if entry is None:
            return
        for user, count in entry.guesses.items():
            self._take_back(entry, user, count)
        right = {_key_of(name) for name in (proven, *also)} | entry.right if proven is not None else frozenset[str]()
        for user in right:
            self._forgive(entry.address, user)
        for user, count in entry.guesses.items():  # of others than the one who has logged in they were wrong
            if user not in right:
                self._fail(entry.address, user, count)
        if refused and not entry.guesses and not entry.refused:
            self._fail(entry.address, entry.claimed, 1)

    def __len__(self) -> int:
        """Records that are kept."""
        return len(self._records)

    def _take_back(self, entry: _Login, user: str, count: int) -> None:
        self._under_way[entry.address, user] -= count
        if self._under_way[entry.address, user] <= 0:
            del self._under_way[entry.address, user]

    def _limit_of(self, user: str) -> int:
        """Failures that one address may have with this user."""
        limits = self.limits
        found = self._standing(("", user))
        pressed = limits.per_user and found is not None and found.count >= limits.per_user
        return min(1, limits.per_user_and_address) if pressed else limits.per_user_and_address

    def _wait(self, key: _Key, limit: int, own: int) -> float:
        """Seconds until the next try; 0 for now. `own`: guesses of this log-in, which may have a code after the
        password, and so one more than is left.

        Where nobody has failed yet, any number of log-ins may be under way: devices that share an account come all at
        once after an outage.
        """
        found = self._standing(key) if limit else None
        if found is None:
            return 0.0
        if found.count >= limit:
            waits = found.last + self._wait_after(found.count, limit) - self._now()
            if waits > 0:
                return waits
        left = max(1, limit - found.count)
        return self.limits.wait if self._under_way[key] - own >= left or own > left else 0.0

    def _wait_after(self, failed: int, limit: int) -> float:
        doubled = self.limits.wait * 2.0 ** min(failed - limit, _MOST_DOUBLINGS)
        return min(doubled, self.limits.longest_wait)

    def _standing(self, key: _Key) -> _Failures | None:
        found = self._records.get(key)
        if found is not None and self._now() - found.last > max(MEMORY_SECONDS, self.limits.longest_wait):
            del self._records[key]
            return None
        return found

    def _fail(self, address: str, user: str, count: int) -> None:
        limits = self.limits
        for key, limit in (
            ((address, user), self._limit_of(user)),
            ((address, ""), limits.per_address),
            (("", user), limits.per_user),
        ):
            record = self._standing(key) or _Failures()
            before, record.count, record.last = record.count, record.count + count, self._now()
            self._records[key] = record
            self._records.move_to_end(key)
            if limit and record.count >= limit and (key[0] or before < limit):
                self._say(key, record.count, self._wait_after(record.count, limit))
        while len(self._records) > MAX_RECORDS:
            self._records.popitem(last=False)

    @staticmethod
    def _say(key: _Key, failed: int, wait: float) -> None:
        address, user = key
        if not address:
            log.warning("%d log-ins of %r have failed; each address now has one try at a time", failed, user)
        elif user:
            log.warning(
                "%d log-ins of %r from %s have failed; the next is refused for %.0f s", failed, user, address, wait
            )
        else:
            log.warning("%d log-ins from %s have failed; all from there are refused for %.0f s", failed, address, wait)

    def _forgive(self, address: str, user: str) -> None:
        gone = self._records.pop((address, user), None)
        if gone is None:
            return
        for key in ((address, ""), ("", user)):
            record = self._records.get(key)
            if record is not None:
                record.count -= gone.count
                if record.count <= 0:
                    del self._records[key]


def _prefix(host: str) -> str:
    """The address, of IPv6 the /64."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))


def _key_of(name: str) -> str:
    """The user as the users file compares names; of a long name a digest stands behind its beginning."""
    folded = name.casefold()
    if len(folded) <= _LONG_NAME:
        return folded
    return folded[:_LONG_NAME] + hashlib.sha256(folded.encode("utf-8", "surrogatepass")).hexdigest()[:16]

"""Identities of EAP-SIM and EAP-AKA: permanent ones, pseudonyms, and those of fast re-authentication (RFC 4187 section
4.1), as each side remembers them.

A pseudonym keeps an eavesdropper from knowing who logs in again; a fast re-authentication identity stands for keys of an
earlier log-in that both sides still have. Both live as long as the process: when one side has forgotten, the log-in is a
full one under the permanent identity.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ikeway.eap.sim_keys import SimFamily, SimKeys

MAX_COUNTER = 16  # fast re-authentications in a row, then keys are made anew
MAX_SUBSCRIBERS = 10_000
_PSEUDONYMS_EACH = 2  # the peer may have missed the last one
_RANDOM_OCTETS = 15


@dataclass(frozen=True, slots=True)
class Reauthentication:
    """What a fast re-authentication needs: the identity that stands for it, and the keys of the full one before."""

    identity: bytes
    subscriber: bytes
    counter: int  # the next one
    k_encr: bytes = field(repr=False)
    k_aut: bytes = field(repr=False)
    secret: bytes = field(repr=False)

    @classmethod
    def after(cls, keys: SimKeys, identity: bytes, subscriber: bytes) -> Reauthentication:
        """The first one behind a full authentication."""
        return cls(identity, subscriber, 1, keys.k_encr, keys.k_aut, keys.reauthentication)

    def followed_by(self, identity: bytes, counter: int) -> Reauthentication:
        """The next one, under another identity."""
        return replace(self, identity=identity, counter=counter + 1)


def user_part(identity: bytes) -> bytes:
    """What stands before the realm."""
    return identity.partition(b"@")[0]


def with_realm_of(user: bytes, identity: bytes) -> bytes:
    """`user`, with the realm that `identity` has."""
    _, at, realm = identity.partition(b"@")
    return user + at + realm


def permanent_identity(family: SimFamily, name: bytes) -> bytes:
    """The permanent identity for a configured name: before an IMSI (at most 15 digits) the method's digit is put."""
    user = user_part(name)
    is_imsi = user.isdigit() and 6 <= len(user) <= 15
    return with_realm_of(family.permanent + user, name) if is_imsi else name


def looks_permanent(family: SimFamily, identity: bytes) -> bool:
    """True for the method's digit and an IMSI."""
    user = user_part(identity)
    return user[:1] == family.permanent and user.isdigit() and 7 <= len(user) <= 16


class PeerIdentities:
    """What a peer remembers of one subscription from log-in to log-in. Used by one log-in at a time."""

    def __init__(self, family: SimFamily, name: bytes) -> None:
        self.permanent = permanent_identity(family, name)
        self.pseudonym: bytes | None = None
        self.next: Reauthentication | None = None
        self.offered: Reauthentication | None = None
        self.told = self.permanent

    def offer(self, told: bytes | None = None) -> bytes:
        """The identity for the log-in that begins; `told`: EAP-Identity is answered with this one, for another method.
        One of fast re-authentication is used once, whatever comes of it."""
        self.offered, self.next = self.next, None
        own = self.offered.identity if self.offered is not None else self.full
        self.told = own if told is None else told
        return self.told

    @property
    def full(self) -> bytes:
        """The identity for a full authentication: the pseudonym, if there is one."""
        return self.pseudonym or self.permanent

    def need_full(self) -> None:
        """The next authentication is a full one. The pseudonym stays: a server that has forgotten it asks for another."""
        self.next = self.offered = None


class TemporaryIdentities:
    """What an authenticator has given out, of the subscribers who logged in last."""

    def __init__(self, family: SimFamily, *, limit: int = MAX_SUBSCRIBERS) -> None:
        self._family = family
        self._limit = limit
        self._given: OrderedDict[bytes, tuple[list[bytes], Reauthentication | None]] = OrderedDict()
        self._subscribers: dict[bytes, bytes] = {}  # by the user part of a pseudonym or re-authentication identity

    def subscriber(self, identity: bytes) -> bytes | None:
        """The permanent identity behind a pseudonym."""
        user = user_part(identity)
        subscriber = self._subscribers.get(user)
        return subscriber if subscriber is not None and user in self._given[subscriber][0] else None

    def reauthentication(self, identity: bytes) -> Reauthentication | None:
        """What is known behind an identity of fast re-authentication."""
        subscriber = self._subscribers.get(user_part(identity))
        known = self._given[subscriber][1] if subscriber is not None else None
        return known if known is not None and known.identity == identity else None

    def new_pseudonym(self, random: Callable[[int], bytes]) -> bytes:
        """A user name that says nothing (RFC 4187 section 4.1.1.7)."""
        return self._family.pseudonym + _name(random)

    def new_reauthentication(self, subscriber: bytes, random: Callable[[int], bytes]) -> bytes:
        """An identity with the realm of the subscriber's, which leads back here."""
        return with_realm_of(self._family.reauthentication + _name(random), subscriber)

    def remember(self, subscriber: bytes, pseudonym: bytes | None, context: Reauthentication | None) -> None:
        """The subscriber, who is proven, has got these. Who has not logged in for longest is forgotten, if need be."""
        pseudonyms, before = self._given.pop(subscriber, ([], None))
        if pseudonym is not None:
            pseudonyms = [*pseudonyms, pseudonym]
        for old in pseudonyms[:-_PSEUDONYMS_EACH]:
            self._subscribers.pop(old, None)
        if before is not None:
            self._subscribers.pop(user_part(before.identity), None)
        pseudonyms = pseudonyms[-_PSEUDONYMS_EACH:]
        self._given[subscriber] = (pseudonyms, context)
        for name in pseudonyms:
            self._subscribers[name] = subscriber
        if context is not None:
            self._subscribers[user_part(context.identity)] = subscriber
        if len(self._given) > self._limit:
            _, (names, last) = self._given.popitem(last=False)
            for name in (*names, *((user_part(last.identity),) if last is not None else ())):
                self._subscribers.pop(name, None)


def _name(random: Callable[[int], bytes]) -> bytes:
    return base64.b32encode(random(_RANDOM_OCTETS)).lower()

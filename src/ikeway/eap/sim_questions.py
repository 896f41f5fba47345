"""What EAP-SIM and EAP-AKA ask of the outside: the card on the peer's side, the authentication centre on the other one.

Both may be software that has Ki and OPc, as in `usim.py` and `authentication_centre.py`; or a card in a reader there, and
an HSS here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ikeway.crypto.milenage import GsmTriplet, UmtsVector
from ikeway.eap.questions import AboutUser
from ikeway.questions import Question


@dataclass(frozen=True, slots=True)
class UmtsAnswer:
    """The card takes the network for genuine, and this is its answer with the keys (TS 33.102 section 6.3.3)."""

    res: bytes = field(repr=False)
    ck: bytes = field(repr=False)
    ik: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class OutOfSync:
    """The network is genuine, but its sequence number is not fresh: AUTS tells it the card's own."""

    auts: bytes


@dataclass(frozen=True, slots=True)
class NetworkNotAuthentic:
    """Who made AUTN does not know the card's key."""


UmtsReply = UmtsAnswer | OutOfSync | NetworkNotAuthentic
CardReply = UmtsReply | tuple[GsmTriplet, ...]


@dataclass(frozen=True, slots=True, eq=False)
class UmtsChallenge(Question[UmtsReply]):
    """The peer's side: what does the card say to this challenge?"""

    subscriber: bytes  # the permanent identity
    rand: bytes
    autn: bytes


@dataclass(frozen=True, slots=True, eq=False)
class GsmChallenge(Question["tuple[GsmTriplet, ...]"]):
    """The peer's side: the card's SRES and Kc for each of these RANDs, in their order."""

    subscriber: bytes
    rands: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SubscriberVector:
    """An authentication vector, and the name by which the subscriber is known here."""

    subscriber: bytes
    vector: UmtsVector


@dataclass(frozen=True, slots=True)
class SubscriberTriplets:
    """GSM triplets, and the name by which the subscriber is known here."""

    subscriber: bytes
    triplets: tuple[GsmTriplet, ...]


@dataclass(frozen=True, slots=True)
class Resynchronisation:
    """The card found the vector with this RAND stale; AUTS has its own sequence number, for who has its key."""

    rand: bytes
    auts: bytes


@dataclass(frozen=True, slots=True, eq=False)
class UmtsVectorQuestion(AboutUser["SubscriberVector | None"]):
    """The authenticator's side: a fresh vector for this subscriber; None when there is none of that name.

    `separation`: with the AMF separation bit, as EAP-AKA' wants it (TS 33.402), and without it for EAP-AKA.
    """

    identity: bytes  # permanent, as the peer told it
    method: str
    separation: bool
    resynchronise: Resynchronisation | None = None

    def for_nobody(self) -> None:
        """The answer for a user who is not known here."""


@dataclass(frozen=True, slots=True, eq=False)
class GsmTripletsQuestion(AboutUser["SubscriberTriplets | None"]):
    """The authenticator's side: so many fresh triplets for this subscriber; None when there is none of that name."""

    identity: bytes
    method: str
    count: int

    def for_nobody(self) -> None:
        """The answer for a user who is not known here."""


@dataclass(frozen=True, slots=True, eq=False)
class SubscriberQuestion(AboutUser["bytes | None"]):
    """The authenticator's side: under which name is this subscriber known here? None when there is none of that name, or
    none who may log in. Asked where no vector is: before a fast re-authentication, and to tell a permanent identity of
    an unusual form from a forgotten pseudonym."""

    identity: bytes
    method: str

    def for_nobody(self) -> None:
        """The answer for a user who is not known here."""

"""What the gateway says of subscribers with SIM cards: vectors and triplets from the keys of the users (TS 35.206).

The users file is the authentication centre, for tests and private networks. A subscriber is found by the whole permanent
identity, by its user part, or by the IMSI in it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from ikeway.crypto.milenage import Milenage
from ikeway.eap.authentication_centre import SequenceNumbers, gsm_triplets, umts_vector
from ikeway.eap.errors import EapFailed
from ikeway.eap.sim_questions import (
    GsmTripletsQuestion,
    SubscriberQuestion,
    SubscriberTriplets,
    SubscriberVector,
    UmtsVectorQuestion,
)
from ikeway.errors import Side
from ikeway.gateway.users import CardKeys, UserStore

_METHOD_DIGITS = "016"  # what stands before the IMSI (TS 23.003 chapter 19)


class SubscriberDesk:
    """Answers the authenticators' questions from the users. Outlives reloads: sequence numbers go on."""

    def __init__(self, users: UserStore, now: Callable[[], float] = time.time) -> None:
        self._users = users
        self._now = now
        self._numbers = SequenceNumbers()

    def reload(self, users: UserStore) -> None:
        """Go on with other users."""
        self._users = users

    async def known(self, question: SubscriberQuestion) -> bytes | None:
        """The name of this subscriber here."""
        found = await self._find(question.identity)
        return found[0].encode() if found is not None else None

    async def triplets(self, question: GsmTripletsQuestion) -> SubscriberTriplets | None:
        """Fresh triplets of GSM."""
        found = await self._find(question.identity)
        if found is None:
            return None
        name, keys = found
        return SubscriberTriplets(name.encode(), gsm_triplets(Milenage(keys.ki, keys.opc), question.count, os.urandom))

    async def vector(self, question: UmtsVectorQuestion) -> SubscriberVector | None:
        """A fresh vector of UMTS, with a sequence number that the card has not seen."""
        found = await self._find(question.identity)
        if found is None:
            return None
        name, keys = found
        milenage, stale = Milenage(keys.ki, keys.opc), question.resynchronise
        if stale is not None:
            sqn = milenage.open_auts(stale.rand, stale.auts)
            if sqn is None:
                raise EapFailed(
                    f"a synchronisation failure of {name} is not from the card",
                    expected="an AUTS made with its key",
                    got="another one",
                    side=Side.PEER,
                    remedy="see that both sides have the same Ki and OPc for this subscriber",
                )
            self._numbers.resynchronise(name, self._now(), sqn)
        sqn = self._numbers.following(name, self._now())
        return SubscriberVector(name.encode(), umts_vector(milenage, sqn, keys.amf, question.separation, os.urandom))

    async def _find(self, identity: bytes) -> tuple[str, CardKeys] | None:
        for name in _names(identity):
            user = await self._users.find(name)
            if user is not None and user.card is not None and not user.disabled:
                return user.name, user.card
        return None


def _names(identity: bytes) -> Iterator[str]:
    """The names under which the owner of a permanent identity may stand in the users, the most particular one first."""
    try:
        text = identity.decode()
    except UnicodeDecodeError:
        return
    user, at, realm = text.partition("@")
    yield text
    if user[:1] in _METHOD_DIGITS and user.isdecimal() and len(user) > 1:
        yield user[1:] + at + realm
        if at:
            yield user
            yield user[1:]

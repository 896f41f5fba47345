"""What the authenticators of EAP-SIM, EAP-AKA and EAP-AKA' have in common: which identity to ask for, fast
re-authentication, notifications. `sim_peer` has the diagram.

A subscriber who is not known gets a challenge that no card takes for genuine, so that nobody learns who is known.
"""

from __future__ import annotations

import hmac
import os
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable
from typing import ClassVar

from ikeway.eap.errors import EapFailed, MalformedEap
from ikeway.eap.method import EapAuthenticatorMethod
from ikeway.eap.packet import EapCode
from ikeway.eap.sim_attributes import (
    Attribute,
    Pair,
    SimMessage,
    Subtype,
    decode_message,
    encode_message,
    flag,
    number,
)
from ikeway.eap.sim_identities import MAX_COUNTER, Reauthentication, TemporaryIdentities, looks_permanent, user_part
from ikeway.eap.sim_keys import SimFamily, SimKeys, reauthenticated_keys
from ikeway.eap.sim_notifications import GENERAL_FAILURE, GENERAL_FAILURE_AFTER, SUCCESS, refused_by_peer
from ikeway.eap.sim_protection import Checkcode, authenticated, decrypted, encrypted, verify
from ikeway.eap.sim_questions import SubscriberQuestion
from ikeway.errors import Side
from ikeway.questions import Ask

Random = Callable[[int], bytes]
_A = Attribute
_NONCE_OCTETS = 16


class ToldByPeer(EapFailed):
    """The peer ended it and said why: EAP-Failure follows at once (RFC 4187 section 6.3.1)."""


class SimFamilyAuthenticator(EapAuthenticatorMethod):
    """The network's side. `identities` are those that were given out before, and last from log-in to log-in."""

    family: ClassVar[SimFamily]

    def __init__(self, identities: TemporaryIdentities, *, random: Random = os.urandom) -> None:
        self._identities = identities
        self._random = random
        self._identity = b""  # the one that the peer told last: it goes into the keys
        self._permanent: bytes | None = None  # whom vectors are asked for, once that is settled
        self._context: Reauthentication | None = None  # of a fast re-authentication, as long as it may come to one
        self._asked: Attribute | None = None
        self._checkcode = Checkcode(self.family)
        self._offered: tuple[bytes, bytes] = b"", b""  # next pseudonym, next re-authentication identity
        self._known = True  # False: nobody of that name, who is led on to the end
        self._keys: tuple[bytes, bytes, int | None] | None = None  # once proven: K_encr, K_aut, counter of a fast one

    async def run(self, identity: bytes, ask: Ask) -> AsyncGenerator[bytes, bytes]:
        """Carry out the exchange; what goes wrong here is notified to the peer before EAP-Failure."""
        exchange = self._exchange(identity, ask)
        failed: EapFailed
        try:
            request = await anext(exchange)
            while True:
                request = await exchange.asend((yield request))
        except StopAsyncIteration:
            return
        except ToldByPeer as error:
            raise self._explained(error) from None
        except EapFailed as error:
            failed = self._explained(error)
        self.msk = None
        yield self._notification(GENERAL_FAILURE_AFTER if self._keys is not None else GENERAL_FAILURE)
        raise failed

    @abstractmethod
    def _exchange(self, identity: bytes, ask: Ask) -> AsyncGenerator[bytes, bytes]:
        """The exchange without the notification of errors."""
        raise NotImplementedError

    def _explained(self, error: EapFailed) -> EapFailed:
        """What the log is told; the peer is told the same of all."""
        if self._known:
            return error
        shown = self._identity.decode("utf-8", "backslashreplace")
        return EapFailed(
            f"no subscriber {shown!r} with a key is known here",
            expected="an IMSI or identity of the users, with `ki`",
            got=error.reason,
            side=Side.BOTH,
            remedy="add the subscriber, or correct the identity on the client",
        )

    @property
    def _next_identifier(self) -> int:
        return (self.identifier + 1) & 0xFF

    def _read(self, response: bytes, *expected: Subtype) -> SimMessage:
        """Decode a response. Raises ToldByPeer for a client error."""
        message = decode_message(response)
        if message.subtype is Subtype.CLIENT_ERROR:
            error = refused_by_peer(self.family, message.number(_A.AT_CLIENT_ERROR_CODE))
            raise ToldByPeer(error.reason, expected=error.expected, got=error.got, side=error.side, remedy=error.remedy)
        if message.subtype not in expected:
            raise MalformedEap(
                f"a response that {self.family.name} does not have here",
                expected=" or ".join(subtype.name for subtype in expected),
                got=message.subtype.name,
            )
        return message

    def _request(self, k_aut: bytes, subtype: Subtype, pairs: list[Pair], extra: bytes = b"") -> bytes:
        return authenticated(self.family, k_aut, EapCode.REQUEST, self._next_identifier, subtype, pairs, extra)

    def _verify(self, k_aut: bytes, message: SimMessage, octets: bytes, extra: bytes = b"") -> None:
        verify(self.family, k_aut, EapCode.RESPONSE, self.identifier, octets, message, extra)

    async def _wanted(self, identity: bytes, ask: Ask) -> Attribute | None:
        """Who is this? Returns what has to be asked for to know it; None when it is known (RFC 4187 section 4.1.6)."""
        self._identity, self._context, self._permanent = identity, None, None
        if (context := self._identities.reauthentication(identity)) is not None:
            known = await ask(SubscriberQuestion(context.subscriber, self.family.name))
            if known is not None:
                self._context, self._permanent, self.identity = context, context.subscriber, known
                return None
        if (subscriber := self._identities.subscriber(identity)) is not None:
            self._permanent = subscriber
            return None
        if looks_permanent(self.family, identity) or self._asked is _A.AT_PERMANENT_ID_REQ:
            self._permanent = identity
            return None
        if await ask(SubscriberQuestion(identity, self.family.name)) is not None:
            self._permanent = identity
            return None
        return self._next_request(identity)

    def _next_request(self, identity: bytes) -> Attribute:
        """An identity of ours that is forgotten here asks for less; one that says nothing for any."""
        user = user_part(identity)
        if self._asked is None and not user.startswith((self.family.pseudonym, self.family.reauthentication)):
            self._asked = _A.AT_ANY_ID_REQ
        elif self._asked in (None, _A.AT_ANY_ID_REQ) and not user.startswith(self.family.pseudonym):
            self._asked = _A.AT_FULLAUTH_ID_REQ
        else:
            self._asked = _A.AT_PERMANENT_ID_REQ
        return self._asked

    def _new_identities(self, k_encr: bytes) -> list[Pair]:
        """AT_ENCR_DATA with the identities for the next log-in."""
        assert self._permanent is not None
        self._offered = (
            self._identities.new_pseudonym(self._random),
            self._identities.new_reauthentication(self._permanent, self._random),
        )
        pairs = [(_A.AT_NEXT_PSEUDONYM, self._offered[0]), (_A.AT_NEXT_REAUTH_ID, self._offered[1])]
        return encrypted(k_encr, pairs, self._random)

    def _proven(self, keys: SimKeys, subscriber: bytes) -> None:
        """A full authentication is done: the identities that were offered hold from now on."""
        assert self._permanent is not None
        pseudonym, following = self._offered
        context = Reauthentication.after(keys, following, self._permanent)
        self._identities.remember(self._permanent, pseudonym, context)
        self.msk, self.identity = keys.msk, subscriber
        self._keys = keys.k_encr, keys.k_aut, None

    def _reauthentication_request(self, context: Reauthentication, nonce_s: bytes, checkcode: list[Pair]) -> bytes:
        """Counter and nonce, and while the keys may be used again the next identity (RFC 4187 section 9.9)."""
        inside = [number(_A.AT_COUNTER, context.counter), (_A.AT_NONCE_S, nonce_s)]
        following = b""
        if context.counter < MAX_COUNTER:
            following = self._identities.new_reauthentication(context.subscriber, self._random)
            inside.append((_A.AT_NEXT_REAUTH_ID, following))
        self._offered = b"", following
        pairs = [*checkcode, flag(_A.AT_RESULT_IND), *encrypted(context.k_encr, inside, self._random)]
        return self._request(context.k_aut, Subtype.REAUTHENTICATION, pairs)

    def _reauthenticated(self, response: bytes, context: Reauthentication, nonce_s: bytes) -> SimMessage | None:
        """The response when it proves the peer; None when its counter is further on, and a full authentication has to
        follow. Raises EapFailed."""
        message = self._read(response, Subtype.REAUTHENTICATION)
        message.allow(_A.AT_IV, _A.AT_ENCR_DATA, _A.AT_MAC, _A.AT_RESULT_IND, _A.AT_CHECKCODE)
        self._verify(context.k_aut, message, response, nonce_s)
        self._checkcode.check(message)
        inside = decrypted(context.k_encr, message).allow(_A.AT_COUNTER, _A.AT_COUNTER_TOO_SMALL)
        counter = inside.number(_A.AT_COUNTER)
        if counter != context.counter:
            raise MalformedEap("another counter than asked for", expected=f"{context.counter}", got=f"{counter}")
        if _A.AT_COUNTER_TOO_SMALL in inside:
            self._identities.remember(context.subscriber, None, None)
            self._context = None
            return None
        self.msk, _ = reauthenticated_keys(self.family, context.secret, context.identity, counter, nonce_s)
        following = self._offered[1]
        self._identities.remember(
            context.subscriber, None, context.followed_by(following, counter) if following else None
        )
        self._keys = context.k_encr, context.k_aut, counter
        return message

    def _notification(self, code: int) -> bytes:
        """A notification; once the peer is proven it is protected (RFC 4187 section 9.10)."""
        pairs = [number(_A.AT_NOTIFICATION, code)]
        if self._keys is None:
            return encode_message(Subtype.NOTIFICATION, pairs)
        k_encr, k_aut, counter = self._keys
        if counter is not None:
            pairs += encrypted(k_encr, [number(_A.AT_COUNTER, counter)], self._random)
        return self._request(k_aut, Subtype.NOTIFICATION, pairs)

    def _success_notification(self) -> bytes:
        return self._notification(SUCCESS)

    def _acknowledged(self, response: bytes) -> None:
        """The answer to the notification of success. Raises EapFailed."""
        assert self._keys is not None
        k_encr, k_aut, counter = self._keys
        message = self._read(response, Subtype.NOTIFICATION).allow(_A.AT_MAC, _A.AT_IV, _A.AT_ENCR_DATA)
        self._verify(k_aut, message, response)
        inside = decrypted(k_encr, message).allow(_A.AT_COUNTER)
        if counter is not None and inside.number(_A.AT_COUNTER) != counter:
            raise MalformedEap("an answer to another notification", expected=f"{counter}", got="another counter")

    def _new_nonce(self) -> bytes:
        return self._random(_NONCE_OCTETS)


def same_answer(expected: bytes, got: bytes, family: SimFamily) -> None:
    """Raise EapFailed unless the card's answer is the right one."""
    if not hmac.compare_digest(expected, got):
        raise EapFailed(
            "the card gave a wrong answer",
            expected="the answer that the subscriber's key gives",
            got=f"another AT_RES in {family.name}",
            side=Side.BOTH,
            remedy="see that both sides have the same Ki and OPc for this subscriber",
        )

"""What the peers of EAP-SIM, EAP-AKA and EAP-AKA' have in common: identities, fast re-authentication, notifications.

peer                                     authenticator
        <-- which identity?              not if the one that EAP-Identity told will do; three times at most
identity -->
        <-- challenge, AT_MAC            or re-authentication: counter, nonce, AT_MAC
answer, AT_MAC -->                       or client error, which ends it
        <-- notification                 if both want the result to be told under AT_MAC
acknowledged -->
        <-- EAP-Success

The server chooses what comes next, so each request is answered by what it is (RFC 4187 section 3). An error is told the
server, and then explains the EAP-Failure that follows.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable
from typing import ClassVar

from ikeway.eap.errors import EapFailed, MalformedEap
from ikeway.eap.method import EapPeerMethod
from ikeway.eap.packet import EapCode
from ikeway.eap.sim_attributes import (
    Attribute,
    AttributeList,
    Pair,
    SimMessage,
    Subtype,
    decode_message,
    encode_message,
    flag,
    number,
)
from ikeway.eap.sim_identities import PeerIdentities, Reauthentication, with_realm_of
from ikeway.eap.sim_keys import SimFamily, SimKeys, reauthenticated_keys
from ikeway.eap.sim_notifications import PHASE_BIT, SUCCESS_BIT, UNABLE_TO_PROCESS, refused_by_server
from ikeway.eap.sim_protection import Checkcode, authenticated, decrypted, encrypted, verify
from ikeway.errors import IkewayError, Side
from ikeway.questions import Ask

Random = Callable[[int], bytes]
_A = Attribute
# Which identity is asked for, in the order in which a server may go on asking (RFC 4187 section 4.1.5).
_IDENTITY_REQUESTS = (_A.AT_ANY_ID_REQ, _A.AT_FULLAUTH_ID_REQ, _A.AT_PERMANENT_ID_REQ)


class TellTheServer(EapFailed):
    """An error with a code of its own for the server."""

    def __init__(self, code: int, reason: str, *, expected: str, got: str, side: Side, remedy: str) -> None:
        super().__init__(reason, expected=expected, got=got, side=side, remedy=remedy)
        self.code = code


class SimFamilyPeer(EapPeerMethod):
    """The side of the card. `identities` last from log-in to log-in, and `offer()` told the identity of this one."""

    family: ClassVar[SimFamily]
    _identity_subtype: ClassVar[Subtype]
    _challenge_subtype: ClassVar[Subtype]

    def __init__(self, identities: PeerIdentities, *, random: Random = os.urandom) -> None:
        self._identities = identities
        self._random = random
        self._identity = b""  # the one that was told last: it goes into the keys
        self._asked = -1  # index in _IDENTITY_REQUESTS
        self._checkcode = Checkcode(self.family)
        self._authenticated: tuple[bytes, bytes, int | None] | None = None  # K_encr, K_aut, counter of a fast one
        self._error: IkewayError | None = None

    def failure_reason(self) -> IkewayError | None:
        """What went wrong here, or what the server's notification said."""
        return self._error

    async def run(self, request: bytes, ask: Ask) -> AsyncGenerator[bytes, bytes]:
        """Answer whatever the server asks."""
        self._identity = self._identities.told
        while True:
            if self._error is not None:
                raise self._error  # the server goes on although this side, or it itself, has given up
            try:
                response = await self._respond(decode_message(request), request, ask)
            except EapFailed as error:
                self._error, self.may_succeed = error, False
                self._identities.need_full()
                code = error.code if isinstance(error, TellTheServer) else UNABLE_TO_PROCESS
                response = encode_message(Subtype.CLIENT_ERROR, [number(_A.AT_CLIENT_ERROR_CODE, code)])
            request = yield response

    async def _respond(self, message: SimMessage, octets: bytes, ask: Ask) -> bytes:
        subtype = message.subtype
        if subtype is Subtype.NOTIFICATION:
            return self._notified(message, octets)
        if self._authenticated is None:
            if subtype is self._identity_subtype:
                return self._identify(message, octets)
            if subtype is self._challenge_subtype:
                return await self._challenged(message, octets, ask)
            if subtype is Subtype.REAUTHENTICATION:
                return self._reauthenticate(message, octets)
        raise MalformedEap(
            f"a request that {self.family.name} does not have here",
            expected="a notification" if self._authenticated is not None else "an identity request or a challenge",
            got=subtype.name,
        )

    @abstractmethod
    def _identify(self, message: SimMessage, octets: bytes) -> bytes:
        """Answer a request for identities."""
        raise NotImplementedError

    @abstractmethod
    async def _challenged(self, message: SimMessage, octets: bytes, ask: Ask) -> bytes:
        """Answer the challenge of a full authentication."""
        raise NotImplementedError

    def _requested_identity(self, message: SimMessage) -> bytes | None:
        """The identity that the request wants; None when it wants none. Raises MalformedEap."""
        requests = [kind for kind in _IDENTITY_REQUESTS if kind in message]
        if not requests:
            return None
        index = _IDENTITY_REQUESTS.index(requests[0])
        if len(requests) > 1 or index <= self._asked:
            raise MalformedEap(
                "the server asks for identities in an order that the standard does not have",
                expected="any, then one for full authentication, then the permanent one, each once",
                got=" and ".join(kind.name for kind in requests),
            )
        self._asked = index
        if requests[0] is _A.AT_PERMANENT_ID_REQ:
            self._identity = self._identities.permanent
        elif requests[0] is _A.AT_FULLAUTH_ID_REQ or self._identities.offered is None:
            self._identity = self._identities.full
        else:
            self._identity = self._identities.offered.identity
        return self._identity

    def _verify(self, k_aut: bytes, message: SimMessage, octets: bytes, extra: bytes = b"") -> None:
        verify(self.family, k_aut, EapCode.REQUEST, self.identifier, octets, message, extra)

    def _answer(self, k_aut: bytes, subtype: Subtype, pairs: list[Pair], extra: bytes = b"") -> bytes:
        return authenticated(self.family, k_aut, EapCode.RESPONSE, self.identifier, subtype, pairs, extra)

    def _finish(self, keys: SimKeys, message: SimMessage) -> list[Pair]:
        """The challenge is authentic: take over keys and identities. Returns what the answer says of the result."""
        inside = decrypted(keys.k_encr, message).allow(_A.AT_NEXT_PSEUDONYM, _A.AT_NEXT_REAUTH_ID)
        pseudonym, following = inside.find(_A.AT_NEXT_PSEUDONYM), inside.find(_A.AT_NEXT_REAUTH_ID)
        identities = self._identities
        if pseudonym:
            identities.pseudonym = with_realm_of(pseudonym, identities.permanent)
        if following:
            identities.next = Reauthentication.after(keys, following, identities.permanent)
        self.msk = keys.msk
        return self._succeed(keys.k_encr, keys.k_aut, None, message)

    def _succeed(self, k_encr: bytes, k_aut: bytes, counter: int | None, message: SimMessage) -> list[Pair]:
        self._authenticated = k_encr, k_aut, counter
        wants_indication = _A.AT_RESULT_IND in message
        self.may_succeed = not wants_indication
        return [flag(_A.AT_RESULT_IND)] if wants_indication else []

    def _reauthenticate(self, message: SimMessage, octets: bytes) -> bytes:
        """Fast re-authentication (RFC 4187 section 5)."""
        message.allow(_A.AT_IV, _A.AT_ENCR_DATA, _A.AT_MAC, _A.AT_RESULT_IND, _A.AT_CHECKCODE)
        context = self._identities.offered
        if context is None or context.identity != self._identity:
            raise MalformedEap(
                "a fast re-authentication of an identity that was not told",
                expected="a full authentication",
                got=message.subtype.name,
            )
        self._verify(context.k_aut, message, octets)
        self._checkcode.check(message)
        inside = decrypted(context.k_encr, message).allow(_A.AT_COUNTER, _A.AT_NONCE_S, _A.AT_NEXT_REAUTH_ID)
        counter, nonce_s = inside.number(_A.AT_COUNTER), inside.need(_A.AT_NONCE_S)
        extra = [self._checkcode.pair] if _A.AT_CHECKCODE in message else []
        if counter < context.counter:
            # Not fresh, but it has the keys: the server goes on with a full authentication (RFC 4187 section 5.4).
            self._identities.offered = None
            refusal = [number(_A.AT_COUNTER, counter), flag(_A.AT_COUNTER_TOO_SMALL)]
            pairs = [*extra, *encrypted(context.k_encr, refusal, self._random)]
            return self._answer(context.k_aut, Subtype.REAUTHENTICATION, pairs, nonce_s)
        self._take_over(context, counter, nonce_s, inside)
        extra += self._succeed(context.k_encr, context.k_aut, counter, message)
        pairs = [*extra, *encrypted(context.k_encr, [number(_A.AT_COUNTER, counter)], self._random)]
        return self._answer(context.k_aut, Subtype.REAUTHENTICATION, pairs, nonce_s)

    def _take_over(self, context: Reauthentication, counter: int, nonce_s: bytes, inside: AttributeList) -> None:
        self.msk, _ = reauthenticated_keys(self.family, context.secret, context.identity, counter, nonce_s)
        following = inside.find(_A.AT_NEXT_REAUTH_ID)
        self._identities.next = context.followed_by(following, counter) if following else None

    def _notified(self, message: SimMessage, octets: bytes) -> bytes:
        """A notification (RFC 4187 section 6): before the authentication without AT_MAC, then with it."""
        message.allow(_A.AT_NOTIFICATION, _A.AT_MAC, _A.AT_IV, _A.AT_ENCR_DATA)
        code = message.number(_A.AT_NOTIFICATION)
        if code & PHASE_BIT:
            if code & SUCCESS_BIT or self._authenticated is not None or _A.AT_MAC in message:
                raise self._untimely(code)
            self._error, self.may_succeed = refused_by_server(self.family, code), False
            return encode_message(Subtype.NOTIFICATION, [])
        if self._authenticated is None:
            raise self._untimely(code)
        k_encr, k_aut, counter = self._authenticated
        self._verify(k_aut, message, octets)
        inside = decrypted(k_encr, message).allow(_A.AT_COUNTER)
        if counter is not None and inside.number(_A.AT_COUNTER) != counter:
            raise MalformedEap("a notification of another re-authentication", expected=f"{counter}", got="another")
        if code & SUCCESS_BIT:
            self.may_succeed = True
        else:
            self._error, self.may_succeed = refused_by_server(self.family, code), False
        pairs = encrypted(k_encr, [number(_A.AT_COUNTER, counter)], self._random) if counter is not None else []
        return self._answer(k_aut, Subtype.NOTIFICATION, pairs)

    def _untimely(self, code: int) -> MalformedEap:
        return MalformedEap(
            "a notification that cannot come at this time",
            expected="one for the phase of the exchange",
            got=f"code {code}",
        )

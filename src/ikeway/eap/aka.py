"""EAP-AKA, both roles (RFC 4187). EAP-AKA' differs in its keys (`aka_prime`).

peer                                     authenticator
        <-- Identity (which one?)        not if the one that EAP-Identity told will do
Identity -->
        <-- Challenge (RAND, AUTN, next identities under the new keys, AT_MAC)
Challenge (RES, AT_MAC) -->              or Synchronization-Failure (AUTS): the challenge comes anew
        <-- EAP-Success                  or Authentication-Reject: the card does not know this network
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from typing import ClassVar

from ikeway.crypto.milenage import AUTN_OCTETS, UmtsVector
from ikeway.eap.errors import EapFailed, MalformedEap, ServerNotAuthentic
from ikeway.eap.packet import EapCode, MethodType
from ikeway.eap.sim_attributes import Attribute, Pair, SimMessage, Subtype, encode_message, flag, number
from ikeway.eap.sim_authenticator import SimFamilyAuthenticator, ToldByPeer, same_answer
from ikeway.eap.sim_identities import PeerIdentities, TemporaryIdentities
from ikeway.eap.sim_keys import AKA, SimFamily, SimKeys, aka_keys
from ikeway.eap.sim_peer import Random, SimFamilyPeer
from ikeway.eap.sim_questions import (
    NetworkNotAuthentic,
    OutOfSync,
    Resynchronisation,
    UmtsAnswer,
    UmtsChallenge,
    UmtsVectorQuestion,
)
from ikeway.errors import Side
from ikeway.questions import Ask

_A = Attribute
_PREFERS_PRIME = 0x8000  # AT_BIDDING (RFC 9048 section 4)
_MAX_RESYNCHRONISATIONS = 2
_ID_REQUESTS = (_A.AT_ANY_ID_REQ, _A.AT_FULLAUTH_ID_REQ, _A.AT_PERMANENT_ID_REQ)
_IN_CHALLENGE = (_A.AT_RAND, _A.AT_AUTN, _A.AT_MAC, _A.AT_IV, _A.AT_ENCR_DATA, _A.AT_CHECKCODE, _A.AT_RESULT_IND)
_RAND, _CK, _RES = 16, 16, 8


class AkaPeer(SimFamilyPeer):
    """The side of the card, which answers `UmtsChallenge`. `prefers_prime`: it would rather have taken EAP-AKA'."""

    type: ClassVar[MethodType] = AKA.type
    name: ClassVar[str] = AKA.name
    mutual: ClassVar[bool] = True
    family: ClassVar[SimFamily] = AKA
    _identity_subtype: ClassVar[Subtype] = Subtype.AKA_IDENTITY
    _challenge_subtype: ClassVar[Subtype] = Subtype.AKA_CHALLENGE

    def __init__(self, identities: PeerIdentities, *, prefers_prime: bool = False, random: Random = os.urandom) -> None:
        super().__init__(identities, random=random)
        self._prefers_prime = prefers_prime
        self._resynchronisations = 0

    def _identify(self, message: SimMessage, octets: bytes) -> bytes:
        """Tell the identity that is asked for."""
        told = self._requested_identity(message.allow(*_ID_REQUESTS))
        if told is None:
            raise MalformedEap("a request for an identity that does not say which", expected="one", got="none")
        response = encode_message(Subtype.AKA_IDENTITY, [(_A.AT_IDENTITY, told)])
        self._checkcode.add(EapCode.REQUEST, self.identifier, octets)
        self._checkcode.add(EapCode.RESPONSE, self.identifier, response)
        return response

    async def _challenged(self, message: SimMessage, octets: bytes, ask: Ask) -> bytes:
        """Let the card check the network and answer (RFC 4187 section 9.4)."""
        message.allow(*_IN_CHALLENGE, _A.AT_BIDDING)
        return await self._answer_challenge(message, octets, ask)

    async def _answer_challenge(self, message: SimMessage, octets: bytes, ask: Ask) -> bytes:
        rand, autn = message.need(_A.AT_RAND), message.need(_A.AT_AUTN)
        if len(rand) != _RAND:
            raise MalformedEap("several RANDs in one challenge", expected="one", got=f"{len(rand) // _RAND}")
        said = await ask(UmtsChallenge(self._identities.permanent, rand, autn))
        if isinstance(said, OutOfSync):
            return self._out_of_sync(said, message)
        if isinstance(said, NetworkNotAuthentic):
            return self._reject(
                "the card does not take the network for its own",
                expected="an AUTN made with the card's key",
                got="one made with another key",
                remedy="see that both sides have the same Ki and OPc; if they have, treat the server as an impostor",
            )
        keys = self._derive(said, message, autn)
        self._verify(keys.k_aut, message, octets)
        self._checkcode.check(message)
        bidding = message.find(_A.AT_BIDDING)
        if self._prefers_prime and bidding is not None and int.from_bytes(bidding) & _PREFERS_PRIME:
            return self._reject(
                "somebody made the server use EAP-AKA where both sides would rather use EAP-AKA'",
                expected="EAP-AKA'",
                got="EAP-AKA",
                remedy="look for who is between the two sides",
            )
        pairs: list[Pair] = [(_A.AT_RES, said.res)]
        if _A.AT_CHECKCODE in message:
            pairs.append(self._checkcode.pair)
        return self._answer(keys.k_aut, Subtype.AKA_CHALLENGE, [*pairs, *self._finish(keys, message)])

    def _derive(self, said: UmtsAnswer, message: SimMessage, autn: bytes) -> SimKeys:
        return aka_keys(self._identity, said.ck, said.ik)

    def _out_of_sync(self, said: OutOfSync, message: SimMessage) -> bytes:
        """Tell the network the card's sequence number (RFC 4187 section 9.6)."""
        self._resynchronisations += 1
        if self._resynchronisations > _MAX_RESYNCHRONISATIONS:
            raise EapFailed(
                "the network's sequence numbers stay stale for the card",
                expected="a fresh one after the card told its own",
                got=f"{self._resynchronisations} stale ones",
                side=Side.PEER,
                remedy="see to the sequence numbers of this subscriber in the server's authentication centre",
            )
        kdfs = [(_A.AT_KDF, kdf) for kdf in message.all(_A.AT_KDF)]  # RFC 9048 section 3.2
        return encode_message(Subtype.AKA_SYNCHRONIZATION_FAILURE, [(_A.AT_AUTS, said.auts), *kdfs])

    def _reject(self, reason: str, *, expected: str, got: str, remedy: str) -> bytes:
        """Authentication-Reject (RFC 4187 section 9.5): there is no way on from here."""
        self._error, self.may_succeed = ServerNotAuthentic(reason, expected=expected, got=got, remedy=remedy), False
        self._identities.need_full()
        return encode_message(Subtype.AKA_AUTHENTICATION_REJECT, [])


class AkaAuthenticator(SimFamilyAuthenticator):
    """The network's side. Vectors come as answers to `UmtsVectorQuestion`. `prefers_prime`: EAP-AKA' was offered, so that
    a peer who has it knows of a trick when it comes to EAP-AKA."""

    type: ClassVar[MethodType] = AKA.type
    name: ClassVar[str] = AKA.name
    mutual: ClassVar[bool] = True
    family: ClassVar[SimFamily] = AKA
    _separation: ClassVar[bool] = False

    def __init__(
        self, identities: TemporaryIdentities, *, prefers_prime: bool = False, random: Random = os.urandom
    ) -> None:
        super().__init__(identities, random=random)
        self._prefers_prime = prefers_prime

    async def _exchange(self, identity: bytes, ask: Ask) -> AsyncGenerator[bytes, bytes]:
        """Identity, as often as it has to be; then Challenge. Or a fast re-authentication."""
        wanted = await self._wanted(identity, ask)
        answer = None
        while answer is None:
            while wanted is not None:
                request = self._identity_request(wanted)
                wanted = await self._wanted(self._told((yield request), request), ask)
            if (context := self._context) is None:
                break
            nonce_s = self._new_nonce()
            response = yield self._reauthentication_request(context, nonce_s, [self._checkcode.pair])
            answer = self._reauthenticated(response, context, nonce_s)
        resynchronise = None
        for _ in range(1 + _MAX_RESYNCHRONISATIONS if answer is None else 0):
            vector, subscriber = await self._vector(ask, resynchronise)
            keys = self._derive(vector)
            response = yield self._challenge(keys, vector)
            message = self._challenge_answer(response)
            if message.subtype is Subtype.AKA_CHALLENGE:
                answer = self._answered(message, response, keys, vector, subscriber)
                break
            resynchronise = Resynchronisation(vector.rand, message.need(_A.AT_AUTS))
        if answer is None:
            raise EapFailed(
                "the card does not take our sequence numbers for fresh, although it told its own",
                expected="a fresh one",
                got="a synchronisation failure again",
                side=Side.BOTH,
                remedy="see that no other authentication centre serves this subscriber at the same time",
            )
        if _A.AT_RESULT_IND in answer:
            self._acknowledged((yield self._success_notification()))

    def _identity_request(self, wanted: Attribute) -> bytes:
        request = encode_message(Subtype.AKA_IDENTITY, [flag(wanted)])
        self._checkcode.add(EapCode.REQUEST, self._next_identifier, request)
        return request

    def _told(self, response: bytes, request: bytes) -> bytes:
        message = self._read(response, Subtype.AKA_IDENTITY).allow(_A.AT_IDENTITY)
        self._checkcode.add(EapCode.RESPONSE, self.identifier, response)
        return message.need(_A.AT_IDENTITY)

    async def _vector(self, ask: Ask, resynchronise: Resynchronisation | None) -> tuple[UmtsVector, bytes]:
        """A vector and whose it is; one of nobody, which no card takes, when there is no such subscriber."""
        assert self._permanent is not None
        found = await ask(UmtsVectorQuestion(self._permanent, self.name, self._separation, resynchronise))
        if found is not None:
            return found.vector, found.subscriber
        self._known = False
        rand, autn, xres, ck, ik = map(self._random, (_RAND, AUTN_OCTETS, _RES, _CK, _CK))
        amf = b"\x80\0" if self._separation else bytes(2)
        return UmtsVector(rand, autn[:6] + amf + autn[8:], xres, ck, ik), b""

    def _derive(self, vector: UmtsVector) -> SimKeys:
        return aka_keys(self._identity, vector.ck, vector.ik)

    def _particulars(self) -> list[Pair]:
        """What only this method has in its challenge."""
        return [number(_A.AT_BIDDING, _PREFERS_PRIME)] if self._prefers_prime else []

    def _challenge(self, keys: SimKeys, vector: UmtsVector) -> bytes:
        pairs: list[Pair] = [(_A.AT_RAND, vector.rand), (_A.AT_AUTN, vector.autn), *self._particulars()]
        pairs += [self._checkcode.pair, flag(_A.AT_RESULT_IND), *self._new_identities(keys.k_encr)]
        return self._request(keys.k_aut, Subtype.AKA_CHALLENGE, pairs)

    def _challenge_answer(self, response: bytes) -> SimMessage:
        """An answer, or a synchronisation failure. Raises ToldByPeer for Authentication-Reject."""
        message = self._read(
            response,
            Subtype.AKA_CHALLENGE,
            Subtype.AKA_SYNCHRONIZATION_FAILURE,
            Subtype.AKA_AUTHENTICATION_REJECT,
        )
        if message.subtype is Subtype.AKA_AUTHENTICATION_REJECT:
            raise ToldByPeer(
                "the peer's card does not take this network for its own",
                expected="an answer to the challenge",
                got="Authentication-Reject",
                side=Side.BOTH,
                remedy="see that both sides have the same Ki and OPc for this subscriber",
            )
        if message.subtype is Subtype.AKA_SYNCHRONIZATION_FAILURE:
            return message.allow(_A.AT_AUTS, _A.AT_KDF)
        return message.allow(_A.AT_RES, _A.AT_MAC, _A.AT_CHECKCODE, _A.AT_RESULT_IND, _A.AT_IV, _A.AT_ENCR_DATA)

    def _answered(
        self, message: SimMessage, response: bytes, keys: SimKeys, vector: UmtsVector, subscriber: bytes
    ) -> SimMessage:
        self._verify(keys.k_aut, message, response)
        self._checkcode.check(message)
        same_answer(vector.xres, message.need(_A.AT_RES), self.family)
        self._proven(keys, subscriber)
        return message

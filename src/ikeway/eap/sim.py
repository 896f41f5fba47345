"""EAP-SIM, both roles (RFC 4186).

peer                                     authenticator
        <-- Start (versions, which identity?)
Start (nonce, version, identity) -->
        <-- Challenge (RANDs, next identities under the new keys, AT_MAC over it and the nonce)
Challenge (AT_MAC over it and the SRES) -->
        <-- EAP-Success

Keys of GSM are short: two or three make one, and who has learnt a card's answers to some RANDs elsewhere can pass for
its network. So it is never taken for a method that proves the server (RFC 4186 section 12.2); EAP-AKA does.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from typing import ClassVar

from ikeway.crypto.milenage import GsmTriplet
from ikeway.eap.errors import MalformedEap
from ikeway.eap.packet import MethodType
from ikeway.eap.sim_attributes import Attribute, SimMessage, Subtype, encode_message, flag, number
from ikeway.eap.sim_authenticator import SimFamilyAuthenticator
from ikeway.eap.sim_identities import PeerIdentities
from ikeway.eap.sim_keys import SIM, SimFamily, SimKeys, sim_keys
from ikeway.eap.sim_notifications import RANDS_NOT_FRESH, TOO_FEW_CHALLENGES, UNSUPPORTED_VERSION
from ikeway.eap.sim_peer import Random, SimFamilyPeer, TellTheServer
from ikeway.eap.sim_questions import GsmChallenge, GsmTripletsQuestion
from ikeway.errors import Side
from ikeway.questions import Ask

_A = Attribute
VERSION = 1
_VERSIONS = VERSION.to_bytes(2)
_RAND, _SRES, _KC, _NONCE = 16, 4, 8, 16
_CHALLENGES, _FEWEST_CHALLENGES = 3, 2  # RFC 4186 section 9.3: two or three
_ID_REQUESTS = (_A.AT_ANY_ID_REQ, _A.AT_FULLAUTH_ID_REQ, _A.AT_PERMANENT_ID_REQ)


class SimPeer(SimFamilyPeer):
    """The side of the card, which answers `GsmChallenge`."""

    type: ClassVar[MethodType] = SIM.type
    name: ClassVar[str] = SIM.name
    family: ClassVar[SimFamily] = SIM
    _identity_subtype: ClassVar[Subtype] = Subtype.SIM_START
    _challenge_subtype: ClassVar[Subtype] = Subtype.SIM_CHALLENGE

    def __init__(self, identities: PeerIdentities, *, random: Random = os.urandom) -> None:
        super().__init__(identities, random=random)
        self._nonce_mt = random(_NONCE)
        self._versions: bytes | None = None  # of the Start that began a full authentication

    def _identify(self, message: SimMessage, octets: bytes) -> bytes:
        """Choose a version and tell the identity (RFC 4186 section 9.2)."""
        message.allow(_A.AT_VERSION_LIST, *_ID_REQUESTS)
        versions = message.need(_A.AT_VERSION_LIST)
        if _VERSIONS not in (versions[at : at + 2] for at in range(0, len(versions), 2)):
            raise TellTheServer(
                UNSUPPORTED_VERSION,
                "the server has no version of EAP-SIM that this side has",
                expected=f"{VERSION}",
                got=versions.hex(" ", 2),
                side=Side.PEER,
                remedy="use another method",
            )
        told = self._requested_identity(message)
        pairs = [] if told is None else [(_A.AT_IDENTITY, told)]
        offered = self._identities.offered
        if offered is not None and self._identity == offered.identity and told is not None:
            return encode_message(Subtype.SIM_START, pairs)  # a fast re-authentication has no use for the others
        self._versions = versions
        full = [(_A.AT_NONCE_MT, self._nonce_mt), number(_A.AT_SELECTED_VERSION, VERSION)]
        return encode_message(Subtype.SIM_START, [*full, *pairs])

    async def _challenged(self, message: SimMessage, octets: bytes, ask: Ask) -> bytes:
        """Let the card answer two or three RANDs (RFC 4186 sections 9.3 and 9.4)."""
        message.allow(_A.AT_RAND, _A.AT_MAC, _A.AT_IV, _A.AT_ENCR_DATA, _A.AT_RESULT_IND)
        if self._versions is None:
            raise MalformedEap("a challenge before the nonce was told", expected="SIM_START", got="SIM_CHALLENGE")
        rands = _checked_rands(message.need(_A.AT_RAND))
        triplets = await ask(GsmChallenge(self._identities.permanent, rands))
        kcs = [triplet.kc for triplet in triplets]
        keys = sim_keys(self._identity, kcs, self._nonce_mt, self._versions, VERSION)
        self._verify(keys.k_aut, message, octets, self._nonce_mt)
        answers = b"".join(triplet.sres for triplet in triplets)
        return self._answer(keys.k_aut, Subtype.SIM_CHALLENGE, self._finish(keys, message), answers)


def _checked_rands(octets: bytes) -> tuple[bytes, ...]:
    rands = tuple(octets[at : at + _RAND] for at in range(0, len(octets), _RAND))
    if len(rands) < _FEWEST_CHALLENGES:
        raise TellTheServer(
            TOO_FEW_CHALLENGES,
            "the server wants to make keys of too few challenges",
            expected="two or three RANDs",
            got=f"{len(rands)}",
            side=Side.PEER,
            remedy="configure the server to use three GSM triplets",
        )
    if len(set(rands)) != len(rands):
        raise TellTheServer(
            RANDS_NOT_FRESH,
            "the server asks the card the same twice",
            expected="different RANDs",
            got="equal ones",
            side=Side.PEER,
            remedy="distrust this server",
        )
    return rands


class SimAuthenticator(SimFamilyAuthenticator):
    """The network's side. Triplets come as answers to `GsmTripletsQuestion`."""

    type: ClassVar[MethodType] = SIM.type
    name: ClassVar[str] = SIM.name
    family: ClassVar[SimFamily] = SIM

    async def _exchange(self, identity: bytes, ask: Ask) -> AsyncGenerator[bytes, bytes]:
        """Start, as often as identities have to be asked for; then Challenge. Or a fast re-authentication."""
        wanted = await self._wanted(identity, ask)
        while True:
            if (context := self._context) is not None:
                nonce_s = self._new_nonce()
                response = yield self._reauthentication_request(context, nonce_s, [])
                answer = self._reauthenticated(response, context, nonce_s)
                if answer is not None:
                    break
                wanted = None
            start = self._read((yield self._start(wanted)), Subtype.SIM_START)
            start.allow(_A.AT_NONCE_MT, _A.AT_SELECTED_VERSION, _A.AT_IDENTITY)
            if wanted is not None:
                wanted = await self._wanted(start.need(_A.AT_IDENTITY), ask)
            if wanted is None and self._context is None:
                triplets, subscriber = await self._triplets(ask)
                keys = self._derive(start, triplets)
                response = yield self._challenge(keys, triplets, start.need(_A.AT_NONCE_MT))
                answer = self._answered(response, keys, triplets, subscriber)
                break
        if _A.AT_RESULT_IND in answer:
            self._acknowledged((yield self._success_notification()))

    def _start(self, wanted: Attribute | None) -> bytes:
        pairs = [(_A.AT_VERSION_LIST, _VERSIONS)]
        return encode_message(Subtype.SIM_START, pairs if wanted is None else [*pairs, flag(wanted)])

    async def _triplets(self, ask: Ask) -> tuple[tuple[GsmTriplet, ...], bytes]:
        """Three triplets and whose they are; those of nobody, which no card answers, when there is no subscriber."""
        assert self._permanent is not None
        found = await ask(GsmTripletsQuestion(self._permanent, self.name, _CHALLENGES))
        if found is not None:
            return found.triplets, found.subscriber
        self._known = False
        random = self._random
        return tuple(GsmTriplet(random(_RAND), random(_SRES), random(_KC)) for _ in range(_CHALLENGES)), b""

    def _derive(self, start: SimMessage, triplets: tuple[GsmTriplet, ...]) -> SimKeys:
        version = start.number(_A.AT_SELECTED_VERSION)
        if version != VERSION:
            raise MalformedEap("the peer chose a version that was not offered", expected=f"{VERSION}", got=f"{version}")
        kcs = [triplet.kc for triplet in triplets]
        return sim_keys(self._identity, kcs, start.need(_A.AT_NONCE_MT), _VERSIONS, version)

    def _challenge(self, keys: SimKeys, triplets: tuple[GsmTriplet, ...], nonce_mt: bytes) -> bytes:
        rands = b"".join(triplet.rand for triplet in triplets)
        pairs = [(_A.AT_RAND, rands), flag(_A.AT_RESULT_IND), *self._new_identities(keys.k_encr)]
        return self._request(keys.k_aut, Subtype.SIM_CHALLENGE, pairs, nonce_mt)

    def _answered(
        self, response: bytes, keys: SimKeys, triplets: tuple[GsmTriplet, ...], subscriber: bytes
    ) -> SimMessage:
        message = self._read(response, Subtype.SIM_CHALLENGE)
        message.allow(_A.AT_MAC, _A.AT_RESULT_IND, _A.AT_IV, _A.AT_ENCR_DATA)
        self._verify(keys.k_aut, message, response, b"".join(triplet.sres for triplet in triplets))
        self._proven(keys, subscriber)
        return message

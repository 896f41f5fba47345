"""Cards, subscribers and both sides of EAP-SIM, EAP-AKA and EAP-AKA', in memory."""

from __future__ import annotations

import itertools
import os

from ikeway.crypto.milenage import Milenage
from ikeway.eap.aka import AkaAuthenticator, AkaPeer
from ikeway.eap.aka_prime import AkaPrimeAuthenticator, AkaPrimePeer
from ikeway.eap.authentication_centre import SequenceNumbers, gsm_triplets, umts_vector
from ikeway.eap.errors import EapFailed
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.eap.sim import SimAuthenticator, SimPeer
from ikeway.eap.sim_identities import PeerIdentities, TemporaryIdentities, user_part
from ikeway.eap.sim_keys import AKA, AKA_PRIME, SIM
from ikeway.eap.sim_questions import (
    GsmChallenge,
    GsmTripletsQuestion,
    SubscriberQuestion,
    SubscriberTriplets,
    SubscriberVector,
    UmtsChallenge,
    UmtsVectorQuestion,
)
from ikeway.eap.usim import Usim
from tests.eap.conversations import Asker, log_in

IMSI = b"001010000000001"
REALM = b"@wlan.mnc001.mcc001.3gppnetwork.org"
KI, OPC = bytes(range(16)), bytes(range(16, 32))

METHODS = {
    "sim": (SIM, SimPeer, SimAuthenticator),
    "aka": (AKA, AkaPeer, AkaAuthenticator),
    "aka-prime": (AKA_PRIME, AkaPrimePeer, AkaPrimeAuthenticator),
}


class Centre:
    """Subscribers by IMSI, on a clock of its own."""

    def __init__(self, *imsis: bytes, ki: bytes = KI, opc: bytes = OPC) -> None:
        self.milenage = {imsi: Milenage(ki, opc) for imsi in imsis or (IMSI,)}
        self.numbers = SequenceNumbers()
        self.amf = bytes(2)
        self.clock = itertools.count(1_800_000_000)
        self.vectors = 0

    def __call__(self, question):
        # Under the method's digit and without the realm, or as it is.
        imsi = user_part(question.identity)[1:]
        milenage = self.milenage.get(imsi)
        if isinstance(question, SubscriberQuestion):
            return imsi if milenage is not None else None
        if milenage is None:
            return question.for_nobody()
        self.vectors += 1
        if isinstance(question, GsmTripletsQuestion):
            return SubscriberTriplets(imsi, gsm_triplets(milenage, question.count, os.urandom))
        assert isinstance(question, UmtsVectorQuestion)
        now = next(self.clock)
        if question.resynchronise is not None:
            sqn = milenage.open_auts(question.resynchronise.rand, question.resynchronise.auts)
            if sqn is None:
                return EapFailed("AUTS is not the card's")
            self.numbers.resynchronise(imsi.decode(), now, sqn)
        sqn = self.numbers.following(imsi.decode(), now)
        return SubscriberVector(imsi, umts_vector(milenage, sqn, self.amf, question.separation, os.urandom))


def card(ki: bytes = KI, opc: bytes = OPC):
    """Answers what a peer asks."""
    usim = Usim(ki, opc)

    def answer(question):
        if isinstance(question, GsmChallenge):
            return usim.answer_gsm(question.rands)
        assert isinstance(question, UmtsChallenge)
        return usim.authenticate(question.rand, question.autn)

    return answer


class Pair:
    """A client and a gateway that remember each other from log-in to log-in."""

    def __init__(self, method: str, *, name: bytes = IMSI + REALM, centre=None, answers=None) -> None:
        self.family, self.peer_class, self.authenticator_class = METHODS[method]
        self.identities = PeerIdentities(self.family, name)
        self.given = TemporaryIdentities(self.family)
        self.centre = centre if centre is not None else Centre()
        self.ask_card = Asker(answers if answers is not None else card())
        self.ask_centre = Asker(self.centre)
        self.peer_options: dict = {}
        self.authenticator_options: dict = {}
        self.packets: list[bytes] = []

    def begin(self, *, told: bytes | None = None) -> tuple[EapPeer, EapAuthenticator]:
        """Both sides of one log-in. `told`: EAP-Identity's answer, in place of the right one."""
        identity = self.identities.offer()
        peer = EapPeer(
            self.ask_card,
            told if told is not None else identity,
            [lambda: self.peer_class(self.identities, **self.peer_options)],
        )
        authenticator = EapAuthenticator(
            self.ask_centre, [lambda: self.authenticator_class(self.given, **self.authenticator_options)]
        )
        return peer, authenticator

    def log_in(self, **options) -> tuple[EapPeer, EapAuthenticator]:
        """One log-in, which succeeds on both sides with the same key."""
        peer, authenticator = self.begin(**options)
        self.packets = log_in(peer, authenticator)
        assert peer.succeeded and authenticator.succeeded, authenticator.reason
        assert peer.msk == authenticator.msk and peer.msk is not None and len(peer.msk) == 64
        return peer, authenticator

    def subtypes(self) -> list[int]:
        """Of the requests of the last log-in that are the method's."""
        return [packet[5] for packet in self.packets if packet[0] == 1 and packet[4] == self.family.type.type]

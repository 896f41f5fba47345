"""EAP-AKA', both roles (RFC 9048): EAP-AKA with keys that are bound to the network's name, and with SHA-256.

The challenge has AT_KDF_INPUT (the name) and one AT_KDF for each key derivation function, the best first. A peer that
has not the first one answers with the AT_KDF that it wants, and the challenge comes again with that one in front
(section 3.2). There is one function so far, so our own authenticator never has to do so.
"""

from __future__ import annotations

import os
from typing import ClassVar

from ikeway.crypto.milenage import UmtsVector
from ikeway.eap.aka import _IN_CHALLENGE, AkaAuthenticator, AkaPeer
from ikeway.eap.errors import EapFailed, MalformedEap
from ikeway.eap.packet import MethodType
from ikeway.eap.sim_attributes import Attribute, Pair, SimMessage, Subtype, decode_message, encode_message, number
from ikeway.eap.sim_identities import PeerIdentities, TemporaryIdentities
from ikeway.eap.sim_keys import AKA_PRIME, SimFamily, SimKeys, aka_prime_keys, bind_to_network
from ikeway.eap.sim_peer import Random
from ikeway.eap.sim_questions import UmtsAnswer
from ikeway.errors import Side
from ikeway.questions import Ask

_A = Attribute
KDF_CK_PRIME_IK_PRIME = 1
DEFAULT_NETWORK_NAME = b"WLAN"  # TS 24.302 table 8.1.1.2: what untrusted access by IKEv2 is called, too
_SEPARATION_BIT = 0x80  # in the first octet of AMF


class AkaPrimePeer(AkaPeer):
    """The side of the card. `network_name`: refuse a network of another name; None takes any."""

    type: ClassVar[MethodType] = AKA_PRIME.type
    name: ClassVar[str] = AKA_PRIME.name
    family: ClassVar[SimFamily] = AKA_PRIME

    def __init__(
        self, identities: PeerIdentities, *, network_name: bytes | None = None, random: Random = os.urandom
    ) -> None:
        super().__init__(identities, random=random)
        self._network_name = network_name
        self._offered_kdfs: tuple[bytes, ...] | None = None  # before we chose another than the first

    async def _challenged(self, message: SimMessage, octets: bytes, ask: Ask) -> bytes:
        """Agree on a key derivation function; then as with EAP-AKA."""
        message.allow(*_IN_CHALLENGE, _A.AT_KDF, _A.AT_KDF_INPUT)
        kdfs, ours = message.all(_A.AT_KDF), KDF_CK_PRIME_IK_PRIME.to_bytes(2)
        if self._offered_kdfs is not None:
            if kdfs != (ours, *self._offered_kdfs):
                raise MalformedEap(
                    "somebody changed the list of key derivation functions",
                    expected="the same as before, behind the one that was chosen",
                    got=_listed(kdfs),
                )
        elif len(set(kdfs)) != len(kdfs) or not kdfs:
            raise MalformedEap("a wrong list of key derivation functions", expected="each once", got=_listed(kdfs))
        elif ours not in kdfs:
            return self._reject(
                "the server has no key derivation function that this side has",
                expected=f"{KDF_CK_PRIME_IK_PRIME}",
                got=_listed(kdfs),
                remedy="use EAP-AKA, or have the server offer function 1",
            )
        elif kdfs[0] != ours:
            self._offered_kdfs = kdfs
            return encode_message(Subtype.AKA_CHALLENGE, [number(_A.AT_KDF, KDF_CK_PRIME_IK_PRIME)])
        if refusal := self._check_network(message):
            return refusal
        return await self._answer_challenge(message, octets, ask)

    def _check_network(self, message: SimMessage) -> bytes | None:
        """Compare names field by field (TS 24.302 section 8.1.1.2); the separation bit is RFC 9048 section 3.1's."""
        name, wanted = message.need(_A.AT_KDF_INPUT), self._network_name
        if not name:
            raise MalformedEap("a network without a name", expected="AT_KDF_INPUT with a name", got="an empty one")
        if wanted is not None and any(
            own != theirs for own, theirs in zip(wanted.split(b":"), name.split(b":"), strict=False)
        ):
            return self._reject(
                "the network has another name than it should",
                expected=wanted.decode("utf-8", "backslashreplace"),
                got=name.decode("utf-8", "backslashreplace"),
                remedy="correct `network_name` on one side",
            )
        if not message.need(_A.AT_AUTN)[6] & _SEPARATION_BIT:
            return self._reject(
                "the server's vectors are not for EAP-AKA'",
                expected="an AMF with the separation bit (TS 33.402)",
                got="one without it",
                remedy="have the server's authentication centre set bit 0 of AMF, as in 8000",
            )
        return None

    def _derive(self, said: UmtsAnswer, message: SimMessage, autn: bytes) -> SimKeys:
        bound = bind_to_network(said.ck, said.ik, message.need(_A.AT_KDF_INPUT), autn)
        return aka_prime_keys(self._identity, *bound)


class AkaPrimeAuthenticator(AkaAuthenticator):
    """The network's side."""

    type: ClassVar[MethodType] = AKA_PRIME.type
    name: ClassVar[str] = AKA_PRIME.name
    family: ClassVar[SimFamily] = AKA_PRIME
    _separation: ClassVar[bool] = True

    def __init__(
        self,
        identities: TemporaryIdentities,
        *,
        network_name: bytes = DEFAULT_NETWORK_NAME,
        random: Random = os.urandom,
    ) -> None:
        super().__init__(identities, random=random)
        self._network_name = network_name

    def _derive(self, vector: UmtsVector) -> SimKeys:
        bound = bind_to_network(vector.ck, vector.ik, self._network_name, vector.autn)
        return aka_prime_keys(self._identity, *bound)

    def _particulars(self) -> list[Pair]:
        return [(_A.AT_KDF_INPUT, self._network_name), number(_A.AT_KDF, KDF_CK_PRIME_IK_PRIME)]

    def _challenge_answer(self, response: bytes) -> SimMessage:
        """As with EAP-AKA; who asks for another function than the one there is cannot be served."""
        message = decode_message(response)
        if message.subtype is Subtype.AKA_CHALLENGE and _A.AT_KDF in message:
            raise EapFailed(
                "the peer wants another key derivation function",
                expected=f"{KDF_CK_PRIME_IK_PRIME}",
                got=_listed(message.all(_A.AT_KDF)),
                side=Side.PEER,
                remedy="use EAP-AKA with this peer",
            )
        return super()._challenge_answer(response)


def _listed(kdfs: tuple[bytes, ...]) -> str:
    return ", ".join(str(int.from_bytes(kdf)) for kdf in kdfs) or "none"

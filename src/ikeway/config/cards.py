"""EAP-SIM, EAP-AKA and EAP-AKA' for the table of EAP methods: what lasts from log-in to log-in, and how methods are made.

What a card and an authentication centre know is not here: methods ask for it. Methods are imported when one is used.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ikeway.eap.method import AuthenticatorMethodFactory, EapPeerMethod
    from ikeway.eap.sim_keys import SimFamily


class CardMethod(enum.Enum):
    """The methods, by their names in a configuration."""

    SIM = "eap-sim"
    AKA = "eap-aka"
    AKA_PRIME = "eap-aka-prime"

    @property
    def family(self) -> SimFamily:
        """What tells the methods apart."""
        from ikeway.eap.sim_keys import AKA, AKA_PRIME, SIM

        return {CardMethod.SIM: SIM, CardMethod.AKA: AKA, CardMethod.AKA_PRIME: AKA_PRIME}[self]

    def prefers_prime(self, logins: Sequence[str]) -> bool:
        """True when EAP-AKA' comes before this method (RFC 9048 section 4)."""
        before = logins[: logins.index(self.value)] if self.value in logins else logins
        return CardMethod.AKA_PRIME.value in before


class CardPeerFactory:
    """Makes the card's side of log-ins, and keeps pseudonyms and identities of fast re-authentication between them."""

    def __init__(self, method: CardMethod, name: bytes, logins: Sequence[str], network_name: bytes | None) -> None:
        from ikeway.eap.sim_identities import PeerIdentities

        self._method = method
        self._prefers_prime = method.prefers_prime(logins)
        self._network_name = network_name
        self._identities = PeerIdentities(method.family, name)

    def offer(self, told: bytes | None = None) -> bytes:
        """What EAP-Identity is to be answered with in the log-in that begins; `told`, when another method comes first."""
        return self._identities.offer(told)

    def __call__(self) -> EapPeerMethod:
        """The method for one log-in."""
        if self._method is CardMethod.SIM:
            from ikeway.eap.sim import SimPeer

            return SimPeer(self._identities)
        if self._method is CardMethod.AKA:
            from ikeway.eap.aka import AkaPeer

            return AkaPeer(self._identities, prefers_prime=self._prefers_prime)
        from ikeway.eap.aka_prime import AkaPrimePeer

        return AkaPrimePeer(self._identities, network_name=self._network_name)


def card_authenticator(
    method: CardMethod, logins: Sequence[str], network_name: bytes | None
) -> AuthenticatorMethodFactory:
    """Makes the network's side of log-ins, which share what they give out to be told the next time."""
    from ikeway.eap.sim_identities import TemporaryIdentities

    given = TemporaryIdentities(method.family)
    if method is CardMethod.SIM:
        from ikeway.eap.sim import SimAuthenticator

        return lambda: SimAuthenticator(given)
    if method is CardMethod.AKA:
        from ikeway.eap.aka import AkaAuthenticator

        prefers_prime = method.prefers_prime(logins)
        return lambda: AkaAuthenticator(given, prefers_prime=prefers_prime)
    from ikeway.eap.aka_prime import DEFAULT_NETWORK_NAME, AkaPrimeAuthenticator

    name = network_name or DEFAULT_NETWORK_NAME
    return lambda: AkaPrimeAuthenticator(given, network_name=name)

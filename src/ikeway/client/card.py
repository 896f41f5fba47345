"""Answers what EAP-SIM and EAP-AKA ask of the card: a SIM or USIM in software, with the keys that the profile names."""

from __future__ import annotations

import asyncio
import re
from functools import partial

from ikeway.client.login import FurtherCard
from ikeway.client.profile import Profile
from ikeway.config.secrets import SecretSource
from ikeway.crypto.milenage import GsmTriplet, derive_opc
from ikeway.daemon.threads import in_thread
from ikeway.eap.sim_questions import CardReply, GsmChallenge, UmtsChallenge, UmtsReply
from ikeway.eap.usim import Usim
from ikeway.errors import ConfigError


class ClientCard:
    """The card of one profile. Its keys are read when they are needed first; its sequence numbers live as long as it."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._usim: Usim | None = None
        self._reading = asyncio.Lock()
        self._further = [ClientCard(each) for each in profile.further]

    async def answer_umts(self, question: UmtsChallenge) -> UmtsReply:
        """What the card says to a challenge of UMTS."""
        return (await self._card()).authenticate(question.rand, question.autn)

    async def answer_gsm(self, question: GsmChallenge) -> tuple[GsmTriplet, ...]:
        """What the card says to challenges of GSM."""
        return (await self._card()).answer_gsm(question.rands)

    async def answer_further(self, question: FurtherCard) -> CardReply:
        """What the card of a further log-in says."""
        card, asked = self._further[question.number], question.question
        return await (card.answer_umts(asked) if isinstance(asked, UmtsChallenge) else card.answer_gsm(asked))

    async def _card(self) -> Usim:
        async with self._reading:
            if self._usim is None:
                profile = self._profile
                ki = await self._key("ki", profile.ki)
                if profile.op is not None:
                    opc = derive_opc(ki, await self._key("op", profile.op))
                else:
                    opc = await self._key("opc", profile.opc)
                self._usim = Usim(ki, opc)
            return self._usim

    async def _key(self, name: str, source: SecretSource | None) -> bytes:
        if source is None:
            raise ConfigError(
                f"the card's key `{name}` is needed", file=str(self._profile.path), remedy=f"add `{name}` to [login]"
            )
        text = await in_thread(partial(source.read, name))
        if not re.fullmatch("[0-9A-Fa-f]{32}", text):
            raise ConfigError(
                f"`{name}` is no key of a card",
                file=str(self._profile.path),
                expected="32 hexadecimal digits",
                got=f"{len(text)} characters",
                remedy=f"correct `{name}`, or the file or command that it names",
            )
        return bytes.fromhex(text)

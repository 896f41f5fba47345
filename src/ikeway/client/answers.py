"""What a client's engine asks, answered out of the profile, by a person, or by a card."""

from __future__ import annotations

from ikeway.auth.questions import PskQuestion, SignQuestion
from ikeway.client.card import ClientCard
from ikeway.client.login import FurtherCard, FurtherPassword
from ikeway.client.secrets import ClientSecrets
from ikeway.daemon.loop import Driver
from ikeway.daemon.signing import sign
from ikeway.eap.questions import PasswordQuestion
from ikeway.eap.sim_questions import GsmChallenge, UmtsChallenge


def attach(driver: Driver, secrets: ClientSecrets, card: ClientCard) -> None:
    """Answer a driver's questions."""
    driver.answer_with(PasswordQuestion, secrets.password)
    driver.answer_with(FurtherPassword, secrets.further_password)
    driver.answer_with(PskQuestion, lambda question: secrets.psk())
    driver.answer_with(SignQuestion, sign)
    driver.answer_with(UmtsChallenge, card.answer_umts)
    driver.answer_with(GsmChallenge, card.answer_gsm)
    driver.answer_with(FurtherCard, card.answer_further)

"""Signatures of keys that are elsewhere: in a thread, as a token takes its time."""

from __future__ import annotations

from functools import partial

from ikeway.auth.questions import SignQuestion
from ikeway.daemon.threads import in_thread


async def sign(question: SignQuestion) -> bytes:
    """The signature. Raises `HostError` when the token is gone."""
    return await in_thread(partial(question.signer.sign, question.scheme, question.octets))

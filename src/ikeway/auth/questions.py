"""What authentication has to ask of the outside."""

from __future__ import annotations

from dataclasses import dataclass

from ikeway.auth.identity import Identity
from ikeway.questions import Question


@dataclass(frozen=True, slots=True, eq=False)
class PskQuestion(Question["bytes | None"]):
    """Which secret do these two share? None: none, and the log-in fails."""

    local_identity: Identity
    remote_identity: Identity

"""What authentication has to ask of the outside."""

from __future__ import annotations

from dataclasses import dataclass, field

from ikeway.auth.certificate import Signer
from ikeway.auth.identity import Identity
from ikeway.crypto.signature import SignatureScheme
from ikeway.questions import Question


@dataclass(frozen=True, slots=True, eq=False)
class PskQuestion(Question["bytes | None"]):
    """Which secret do these two share? None: none, and the log-in fails."""

    local_identity: Identity
    remote_identity: Identity


@dataclass(frozen=True, slots=True, eq=False)
class SignQuestion(Question[bytes]):
    """What `signer.sign` gives for these octets. It blocks: a token takes a while, or asks a person for a finger."""

    signer: Signer
    scheme: SignatureScheme
    octets: bytes = field(repr=False)

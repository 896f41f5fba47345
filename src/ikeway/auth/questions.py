"""What authentication has to ask of the outside."""

from __future__ import annotations

from dataclasses import dataclass, field

from ikeway.auth.identity import Identity
from ikeway.crypto.signature import SignatureScheme
from ikeway.questions import Question


@dataclass(frozen=True, slots=True, eq=False)
class PskQuestion(Question["bytes | None"]):
    """Which secret do these two share? None: none, and the log-in fails."""

    local_identity: Identity
    remote_identity: Identity


@dataclass(frozen=True, slots=True, eq=False)
class SignatureQuestion(Question[bytes]):
    """Sign these octets with the key of `credential_name`, which is not in this process (a token, an agent)."""

    credential_name: str
    scheme: SignatureScheme
    octets: bytes = field(repr=False)

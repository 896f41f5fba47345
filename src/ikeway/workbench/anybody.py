"""A trust store for looking at a gateway, and for nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509

from ikeway.auth.certificate import TrustStore
from ikeway.auth.errors import MalformedCertificate
from ikeway.auth.identity import Identity
from ikeway.auth.path import VerifiedPath


class Anybody(TrustStore):
    """Believes every certificate. What signs is still checked against it."""

    def verify(
        self, chain: Sequence[x509.Certificate], identity: Identity | None, when: datetime, role: object
    ) -> VerifiedPath:
        """Take the first for good, for a day."""
        if not chain:
            raise MalformedCertificate("the peer sent no certificate", remedy="set the peer to send it always")
        key = chain[0].public_key()
        return VerifiedPath(tuple(chain[:1]), key, when - timedelta(days=1), when + timedelta(days=1))  # type: ignore[arg-type]

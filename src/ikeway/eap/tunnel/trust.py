"""Who the other end of the tunnel may be, and who we are in it: what `auth` and configurations fill in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

    TlsKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey


class PeerTrust(Protocol):
    """Judges the certificate of the other end."""

    @property
    def anchors(self) -> Sequence[x509.Certificate]:
        """The CAs that are trusted; they help to find a path and tell the other end what to send."""
        ...

    def judge(self, chain: Sequence[x509.Certificate], when: datetime) -> None:
        """Raise the IkewayError that says why the owner of `chain[0]` is not to be talked to at that time."""
        ...

    def name(self, certificate: x509.Certificate, claimed: bytes) -> bytes:
        """Who a certificate proves its owner to be: `claimed` when it carries that name, else its own first name."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class TlsIdentity:
    """Our certificate (first in `chain`), the intermediates to send with it, and its key."""

    chain: tuple[x509.Certificate, ...]
    private_key: TlsKey = field(repr=False)

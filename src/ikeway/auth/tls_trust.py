"""The trust of IKE, given to the EAP methods that are built on TLS (`ikeway.eap.tunnel`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from ikeway.auth.binding import carried_identities, carries, common_names, describe
from ikeway.auth.certificate import CertificateCredential, TrustStore
from ikeway.auth.errors import IdentityMismatch
from ikeway.auth.identity import Identity, IdentityPattern
from ikeway.auth.parse import PRIVATE_KEY_TYPES
from ikeway.auth.path import Role
from ikeway.eap.tunnel.trust import TlsIdentity
from ikeway.errors import ConfigError, Side
from ikeway.wire.registry import IdentificationType


@dataclass(frozen=True, slots=True, eq=False)
class TlsTrust:
    """CAs, CRLs and names. `role` is what the owner of the certificate is: a server stands for the responder.

    `names`: the certificate has to carry one of them; none: any certificate of these CAs will do.
    """

    store: TrustStore
    names: tuple[IdentityPattern, ...]
    role: Role

    @property
    def anchors(self) -> Sequence[x509.Certificate]:
        """The trusted CAs."""
        return self.store.anchors

    def judge(self, chain: Sequence[x509.Certificate], when: datetime) -> None:
        """Judge path, time, use, revocation, and the name. Raises a CertificateError."""
        self.store.verify(chain, None, when, self.role)
        if not self.names or any(self._carries(chain[0], pattern) for pattern in self.names):
            return
        whose = "EAP server" if self.role is Role.RESPONDER else "client"
        error = IdentityMismatch(
            f"the certificate of the {whose} is for somebody else",
            expected=f"a certificate for {' or '.join(map(str, self.names))}",
            got=", ".join(map(str, carried_identities(chain[0])[:6])) or "a certificate without names",
            side=Side.BOTH,
            remedy=f"configure a name that the {whose}'s certificate carries, if it is the right one",
        )
        error.subject = describe(chain[0])
        raise error

    def _carries(self, certificate: x509.Certificate, pattern: IdentityPattern) -> bool:
        if pattern.exact is not None:
            policy = self.store.policy
            return carries(
                certificate, pattern.exact, wildcards=policy.allow_wildcards, common_name=policy.allow_common_name
            )
        return any(pattern.matches(identity) for identity in carried_identities(certificate))

    def name(self, certificate: x509.Certificate, claimed: bytes) -> bytes:
        """The claimed name when the certificate carries it, as a name or as its CN; else the first that it carries."""
        carried = carried_identities(certificate)
        wanted = claimed.decode("utf-8", "replace")
        if wanted and (wanted in common_names(certificate) or any(_is_named(name, wanted) for name in carried)):
            return claimed
        first = next((name for name in carried if name.distinguished_name is None), None)
        return str(first or carried[0]).encode() if carried else describe(certificate).encode()


def _is_named(identity: Identity, text: str) -> bool:
    if identity.type in (IdentificationType.ID_FQDN, IdentificationType.ID_RFC822_ADDR):
        return identity.value.decode("utf-8", "replace").lower() == text.lower()
    return str(identity) == text


def tls_identity(credential: CertificateCredential) -> TlsIdentity:
    """Our certificate and key for TLS. Raises ConfigError for a key that is not in this process: OpenSSL signs itself."""
    if not isinstance(credential.private_key, PRIVATE_KEY_TYPES):
        raise ConfigError(
            "an EAP method on TLS cannot use a key on a token",
            expected="a private key in a file or PKCS#12",
            remedy="name a certificate whose key is in a file; the token's is good for IKE itself",
        )
    sent = tuple(
        certificate
        for index, certificate in enumerate(credential.chain)
        if index == 0 or certificate.issuer != certificate.subject
    )
    return TlsIdentity(sent, credential.private_key)

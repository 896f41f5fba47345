"""A certificate authority of one's own: pure, the time and the keys come from outside."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ikeway.auth.binding import describe
from ikeway.auth.der import DerError
from ikeway.auth.identity import Identity
from ikeway.auth.names import DistinguishedName, NamePart, parse_name
from ikeway.auth.parse import PrivateKey, PublicKey
from ikeway.errors import ConfigError
from ikeway.pki.keys import signing_hash
from ikeway.wire.registry import IdentificationType

AUTHORITY_DAYS = 3650
GATEWAY_DAYS = 825  # the longest that Apple's devices take for a server
CLIENT_DAYS = 825
CRL_DAYS = 30

_CLOCK_SKEW = timedelta(hours=1)  # a client with a slow clock must not find the certificate too young
_IPSEC_IKE = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.17")
_IKE_INTERMEDIATE = x509.ObjectIdentifier("1.3.6.1.5.5.8.2.2")
_GATEWAY_USAGES = (ExtendedKeyUsageOID.SERVER_AUTH, _IPSEC_IKE, _IKE_INTERMEDIATE)
_CLIENT_USAGES = (ExtendedKeyUsageOID.CLIENT_AUTH, _IPSEC_IKE)
_CA_USES = frozenset({"key_cert_sign", "crl_sign"})
_LEAF_USES = frozenset({"digital_signature"})
_EVERY_USE = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)

REVOCATION_REASONS = {
    flag.value: flag
    for flag in x509.ReasonFlags
    if flag not in (x509.ReasonFlags.remove_from_crl, x509.ReasonFlags.unspecified)
}


@dataclass(frozen=True, slots=True)
class Revocation:
    """A line of a CRL. `reason` is one of REVOCATION_REASONS, or empty."""

    serial: int
    when: datetime
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA: its certificate and its key."""

    certificate: x509.Certificate
    private_key: PrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        if self.certificate.public_key() != self.private_key.public_key():
            raise ConfigError(
                f"the key does not belong to the certificate of {describe(self.certificate)}",
                expected="the CA's own key",
                remedy="put the two files that were made together back together",
            )

    @classmethod
    def create(
        cls,
        name: str,
        private_key: PrivateKey,
        now: datetime,
        *,
        days: int = AUTHORITY_DAYS,
        path_length: int | None = 0,
    ) -> Authority:
        """Make a self-signed CA. `name` is a common name or a whole DN; `path_length` 0: no CAs below it."""
        subject = to_x509(subject_name(name))
        builder = _builder(subject, subject, private_key.public_key(), now, days)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        builder = builder.add_extension(_key_usage(_CA_USES), critical=True)
        return cls(builder.sign(private_key, signing_hash(private_key)), private_key)

    def issue_gateway(
        self, names: Sequence[str], public_key: PublicKey, now: datetime, *, days: int = GATEWAY_DAYS, subject: str = ""
    ) -> x509.Certificate:
        """Make a gateway's certificate for host names and addresses, all of which clients may connect to."""
        if not names:
            raise ConfigError("a gateway certificate without a name", expected="the host name that clients connect to")
        alternatives = [_alternative_name(name) for name in names]
        if not all(isinstance(name, x509.DNSName | x509.IPAddress) for name in alternatives):
            raise ConfigError(
                f"{', '.join(names)}: not only host names and addresses",
                expected="host names (vpn.example.org) and IP addresses",
                remedy="give what clients enter as the server",
            )
        return self._issue(subject or _quoted(names[0]), alternatives, _GATEWAY_USAGES, public_key, now, days)

    def issue_client(
        self, identity: str, public_key: PublicKey, now: datetime, *, days: int = CLIENT_DAYS, subject: str = ""
    ) -> x509.Certificate:
        """Make a client's certificate for an identity such as alice@example.org, laptop7, or a whole DN."""
        if Identity.parse(identity).distinguished_name is not None:
            return self._issue(identity, (), _CLIENT_USAGES, public_key, now, days)
        alternatives = [_alternative_name(identity)]
        return self._issue(subject or _quoted(identity), alternatives, _CLIENT_USAGES, public_key, now, days)

    def _issue(
        self,
        subject: str,
        alternatives: Sequence[x509.GeneralName],
        usages: Sequence[x509.ObjectIdentifier],
        public_key: PublicKey,
        now: datetime,
        days: int,
    ) -> x509.Certificate:
        end = self.certificate.not_valid_after_utc
        if now + timedelta(days=days) > end:
            raise ConfigError(
                "the certificate would outlive its CA",
                expected=f"at most {max((end - now).days, 0)} days",
                got=f"{days} days",
                remedy="ask for fewer days, or make a new CA",
            )
        name = to_x509(subject_name(subject))
        builder = _builder(name, self.certificate.subject, public_key, now, days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(_LEAF_USES), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        builder = builder.add_extension(self._key_identifier(), critical=False)
        return builder.sign(self.private_key, signing_hash(self.private_key))

    def revocation_list(
        self, revocations: Iterable[Revocation], number: int, now: datetime, *, days: int = CRL_DAYS
    ) -> x509.CertificateRevocationList:
        """Make a CRL that holds for `days`; `number` has to grow from one to the next."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now)
            .next_update(now + timedelta(days=days))
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(self._key_identifier(), critical=False)
        )
        for revocation in revocations:
            entry = x509.RevokedCertificateBuilder().serial_number(revocation.serial).revocation_date(revocation.when)
            if revocation.reason:
                reason = REVOCATION_REASONS[revocation.reason]
                entry = entry.add_extension(x509.CRLReason(reason), critical=False)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.private_key, signing_hash(self.private_key))

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def encode_certificates(*certificates: x509.Certificate) -> bytes:
    """PEM, one after the other."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def subject_name(text: str) -> DistinguishedName:
    """A DN from `C=CH, O=Example, CN=vpn`, or of one CN from any other text."""
    try:
        return parse_name(text) if "=" in text else DistinguishedName(((NamePart("2.5.4.3", text),),))
    except (ValueError, DerError) as error:
        raise ConfigError(
            f"{text!r} is not a name: {error}", expected="a common name, or 'C=.., O=.., CN=..'"
        ) from error


def to_x509(name: DistinguishedName) -> x509.Name:
    """The name as `cryptography` has it; raises ConfigError when a part is too long or not allowed."""
    try:
        return x509.Name(
            x509.RelativeDistinguishedName(_attribute(part) for part in parts) for parts in name.relative_names
        )
    except ValueError as error:
        raise ConfigError(
            f"{name} cannot be the name of a certificate: {error}",
            expected="parts of at most 64 characters, and a country of two letters",
        ) from error


def _attribute(part: NamePart) -> x509.NameAttribute[str]:
    if isinstance(part.value, bytes):
        raise ValueError("a value in hexadecimal")
    return x509.NameAttribute(x509.ObjectIdentifier(part.oid), part.value)


def _quoted(text: str) -> str:
    """A host name or identity as a CN, also one that contains an equals sign or is longer than a CN may be."""
    return text if len(text) <= 64 and "=" not in text else str(subject_name(f'CN="{text[:64]}"'))


def _alternative_name(text: str) -> x509.GeneralName:
    identity = Identity.parse(text)
    try:
        if identity.type == IdentificationType.ID_FQDN:
            return x509.DNSName(identity.value.decode("ascii"))
        if identity.type == IdentificationType.ID_RFC822_ADDR:
            return x509.RFC822Name(identity.value.decode("ascii"))
        if identity.type in (IdentificationType.ID_IPV4_ADDR, IdentificationType.ID_IPV6_ADDR):
            return x509.IPAddress(ipaddress.ip_address(identity.value))
    except (UnicodeDecodeError, ValueError) as error:
        raise ConfigError(
            f"{text!r} cannot stand in subjectAltName: {error}",
            expected="letters, digits, dots, hyphens and @",
            remedy="write names with other letters in punycode (xn--...)",
        ) from error
    raise ConfigError(f"no certificate can carry {text!r}", expected="a host name, user@host, an IP address or a DN")


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: PublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    if days < 1:
        raise ConfigError("a certificate has to be valid for a day at least", got=f"{days} days")
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(uses: frozenset[str]) -> x509.KeyUsage:
    return x509.KeyUsage(**{use: use in uses for use in _EVERY_USE})


def common_name_of(certificate: x509.Certificate) -> str:
    """The common name, or the whole subject when it has none."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else describe(certificate)

"""Does a certificate carry an identity? Subject and subjectAltName against the ID payload (RFC 4945 section 3.1)."""

from __future__ import annotations

import hashlib
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ikeway.auth.der import DerError, read
from ikeway.auth.errors import IdentityMismatch
from ikeway.auth.identity import Identity
from ikeway.auth.names import DistinguishedName, decode_name
from ikeway.errors import Side
from ikeway.wire.registry import IdentificationType

_COMMON_NAME = "2.5.4.3"


def subject_of(certificate: x509.Certificate) -> DistinguishedName:
    """The decoded subject; raises DerError."""
    return decode_name(certificate.subject.public_bytes())


def describe(certificate: x509.Certificate) -> str:
    """Name a certificate for a person: its subject, or a name from subjectAltName, or its serial number."""
    try:
        text = str(subject_of(certificate))
    except (DerError, ValueError):
        text = ""
    if not text:
        text = ", ".join(map(str, carried_identities(certificate)[:1])) or f"serial {certificate.serial_number:x}"
    return text if len(text) <= 160 else text[:157] + "..."


def describe_name(name: x509.Name) -> str:
    """A name for a person."""
    try:
        return str(decode_name(name.public_bytes())) or "a CA without a name"
    except (DerError, ValueError):
        return "a CA with an unreadable name"


def alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    """The subjectAltName extension, None when there is none or it cannot be read."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError, x509.UnsupportedGeneralNameType, x509.DuplicateExtension):
        return None


def carried_identities(certificate: x509.Certificate) -> list[Identity]:
    """Every identity that the certificate proves: subject, then the names of subjectAltName."""
    found = []
    subject = certificate.subject.public_bytes()
    if len(certificate.subject.rdns):
        found.append(Identity(IdentificationType.ID_DER_ASN1_DN, subject))
    for name in alternative_names(certificate) or ():
        if isinstance(name, x509.DNSName):
            found.append(Identity(IdentificationType.ID_FQDN, name.value.encode()))
        elif isinstance(name, x509.RFC822Name):
            found.append(Identity(IdentificationType.ID_RFC822_ADDR, name.value.encode()))
        elif isinstance(name, x509.IPAddress) and isinstance(name.value, ipaddress.IPv4Address | ipaddress.IPv6Address):
            kind = IdentificationType.ID_IPV4_ADDR if name.value.version == 4 else IdentificationType.ID_IPV6_ADDR
            found.append(Identity(kind, name.value.packed))
        elif isinstance(name, x509.DirectoryName):
            found.append(Identity(IdentificationType.ID_DER_ASN1_DN, name.value.public_bytes()))
    return found


def common_names(certificate: x509.Certificate) -> list[str]:
    """The common names of the subject."""
    try:
        names = subject_of(certificate).relative_names
    except DerError:
        return []
    return [part.value for parts in names for part in parts if part.oid == _COMMON_NAME and isinstance(part.value, str)]


def carries(
    certificate: x509.Certificate, identity: Identity, *, wildcards: bool = False, common_name: bool = False
) -> bool:
    """True when the certificate proves the identity.

    `wildcards`: a dNSName `*.example.org` stands for one more label. `common_name`: a host name may also stand in the
    subject's CN, as it did in old certificates. Neither is so unless asked for.
    """
    if identity.type == IdentificationType.ID_KEY_ID:
        return identity.value in _key_identifiers(certificate)
    if identity.type == IdentificationType.ID_DER_ASN1_GN:
        simpler = _from_general_name(identity.value)
        return simpler is not None and carries(certificate, simpler, wildcards=wildcards, common_name=common_name)
    for carried in carried_identities(certificate):
        if carried.matches(identity) or (wildcards and _wildcard_covers(carried, identity)):
            return not (carried.type == IdentificationType.ID_FQDN and identity.value.startswith(b"*"))
    if common_name and identity.type == IdentificationType.ID_FQDN:
        wanted = identity.value.decode("latin-1").lower()
        return any(name.lower() == wanted for name in common_names(certificate))
    return False


def _wildcard_covers(carried: Identity, identity: Identity) -> bool:
    """`*.example.org` covers `vpn.example.org`: one label, the leftmost, and at least two behind it."""
    if carried.type != IdentificationType.ID_FQDN or identity.type != IdentificationType.ID_FQDN:
        return False
    star, _, base = carried.value.lower().partition(b".")
    label, _, rest = identity.value.lower().partition(b".")
    return star == b"*" and b"." in base and bool(label) and rest == base


def _key_identifiers(certificate: x509.Certificate) -> list[bytes]:
    """What a KEY_ID may be: the subjectKeyIdentifier, or SHA-1 of the SubjectPublicKeyInfo."""
    found = [spki_hash(certificate)]
    try:
        found.append(certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest)
    except (x509.ExtensionNotFound, ValueError, x509.DuplicateExtension):
        pass
    return found


def spki_hash(certificate: x509.Certificate) -> bytes:
    """SHA-1 of the SubjectPublicKeyInfo, as CERTREQ names an authority (RFC 7296 section 3.7)."""
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha1(spki, usedforsecurity=False).digest()


def _from_general_name(der: bytes) -> Identity | None:
    """Turn an ID_DER_ASN1_GN into the identity type that says the same (RFC 5280 section 4.2.1.6)."""
    try:
        tag, content, end = read(der)
    except DerError:
        return None
    if end != len(der):
        return None
    kind = {
        0x81: IdentificationType.ID_RFC822_ADDR,
        0x82: IdentificationType.ID_FQDN,
        0xA4: IdentificationType.ID_DER_ASN1_DN,
        0x87: {4: IdentificationType.ID_IPV4_ADDR, 16: IdentificationType.ID_IPV6_ADDR}.get(len(content)),
    }.get(tag)
    return None if kind is None else Identity(kind, content)


def require_identity(
    certificate: x509.Certificate, identity: Identity, *, wildcards: bool = False, common_name: bool = False
) -> None:
    """Raise IdentityMismatch unless the certificate proves the identity."""
    if carries(certificate, identity, wildcards=wildcards, common_name=common_name):
        return
    carried = carried_identities(certificate)
    error = IdentityMismatch(
        f"the certificate is not one of {identity}",
        expected=f"a certificate for {identity}",
        got=", ".join(map(str, carried[:6])) or "a certificate without names",
        side=Side.BOTH,
        remedy=_remedy(certificate, identity),
    )
    error.subject = describe(certificate)
    raise error


def _remedy(certificate: x509.Certificate, identity: Identity) -> str:
    if identity.type == IdentificationType.ID_FQDN:
        if identity.value.decode("latin-1").lower() in (name.lower() for name in common_names(certificate)):
            return f"the name stands only in the CN; issue the certificate with subjectAltName DNS:{identity}"
        if carries(certificate, identity, wildcards=True):
            return "the certificate has it only by a wildcard; allow wildcards, or issue one with the full name"
    return "configure an identity that the certificate carries, or issue a certificate that carries this one"

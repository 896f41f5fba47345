"""What a certificate or a CRL says, for a person."""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from ikeway.auth.binding import carried_identities, describe_name
from ikeway.auth.parse import parse_certificates, parse_crls
from ikeway.errors import ConfigError
from ikeway.pki.keys import describe_key

Facts = dict[str, str | list[str]]

_USAGES = {
    ExtendedKeyUsageOID.SERVER_AUTH.dotted_string: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string: "clientAuth",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE.dotted_string: "any",
    "1.3.6.1.5.5.7.3.17": "ipsecIKE",
    "1.3.6.1.5.5.8.2.2": "iKEIntermediate",
}


def describe_file(octets: bytes, now: datetime) -> list[Facts]:
    """The certificates of a file, or its CRLs; raises ConfigError when it has neither."""
    try:
        return [describe_certificate(certificate, now) for certificate in parse_certificates(octets)]
    except ConfigError as error:
        try:
            return [describe_crl(crl, now) for crl in parse_crls(octets)]
        except ConfigError:
            raise error from None


def describe_certificate(certificate: x509.Certificate, now: datetime) -> Facts:
    """Who it is for, who issued it, what it may be used for, and until when."""
    try:
        key = describe_key(certificate.public_key())
    except UnsupportedAlgorithm:
        key = f"of a kind that is not known here ({certificate.public_key_algorithm_oid.dotted_string})"
    facts: Facts = {
        "subject": describe_name(certificate.subject),
        "names": [str(name) for name in carried_identities(certificate) if name.distinguished_name is None],
        "issuer": describe_name(certificate.issuer),
        "serial": f"{certificate.serial_number:x}",
        "valid_from": _time(certificate.not_valid_before_utc),
        "valid_until": _until(certificate.not_valid_before_utc, certificate.not_valid_after_utc, now),
        "key": key,
        "signed_by": _signature(certificate),
        "usages": _usages(certificate),
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
    }
    return {label: value for label, value in facts.items() if value}


def describe_crl(crl: x509.CertificateRevocationList, now: datetime) -> Facts:
    """Whose it is, until when it holds, and what it lists."""
    end = crl.next_update_utc
    return {
        "CRL_of": describe_name(crl.issuer),
        "made": _time(crl.last_update_utc),
        "valid_until": _until(crl.last_update_utc, end, now) if end is not None else "not said",
        "revoked": [f"{entry.serial_number:x} on {_time(entry.revocation_date_utc)}" for entry in crl] or "nothing",
    }


def _time(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"


def _until(start: datetime, end: datetime, now: datetime) -> str:
    if now > end:
        return f"{_time(end)} (it has expired)"
    return f"{_time(end)} (not valid yet)" if now < start else f"{_time(end)} ({(end - now).days} days)"


def _signature(certificate: x509.Certificate) -> str:
    name = certificate.signature_algorithm_oid._name
    return name if name != "Unknown OID" else certificate.signature_algorithm_oid.dotted_string


def _usages(certificate: x509.Certificate) -> list[str]:
    found = []
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints) and value.ca:
            limit = f", path length {value.path_length}" if value.path_length is not None else ""
            found.append(f"CA{limit}")
        elif isinstance(value, x509.ExtendedKeyUsage):
            found += [_USAGES.get(usage.dotted_string, usage.dotted_string) for usage in value]
    return found

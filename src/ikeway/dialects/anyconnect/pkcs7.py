"""Certificates in PKCS #7 (RFC 2315 section 9.1): SignedData that signs nothing.

Cisco's client puts an empty OCTET STRING where the content would be, which usual encoders leave out; whether the gateway
minds is unknown, so it is put there here too, and both forms are read.
"""

from __future__ import annotations

from collections.abc import Iterable

from ikeway.auth import der
from ikeway.eap.errors import MalformedEap

MAX_CERTIFICATES = 8

_SIGNED_DATA = der.encode_oid("1.2.840.113549.1.7.2")
_DATA = der.encode_oid("1.2.840.113549.1.7.1")
_EXPLICIT_0, _INTEGER, _OCTET_STRING = 0xA0, 0x02, 0x04


def encode(certificates: Iterable[bytes]) -> bytes:
    """Encode certificates in DER, the end entity's first."""
    content = der.encode(der.SEQUENCE, _DATA, der.encode(_EXPLICIT_0, der.encode(_OCTET_STRING)))
    signed = der.encode(
        der.SEQUENCE,
        der.encode(_INTEGER, b"\x01"),
        der.encode(der.SET),
        content,
        der.encode(_EXPLICIT_0, *certificates),
        der.encode(der.SET),
    )
    return der.encode(der.SEQUENCE, _SIGNED_DATA, der.encode(_EXPLICIT_0, signed))


def decode(octets: bytes) -> tuple[bytes, ...]:
    """The certificates in DER, not looked into. Raises MalformedEap."""
    try:
        return _decode(octets)
    except der.DerError as error:
        raise MalformedEap(f"certificates that are not PKCS #7: {error}", expected="SignedData in DER") from None


def _decode(octets: bytes) -> tuple[bytes, ...]:
    outer = der.read_all(der.read_only(octets, der.SEQUENCE))
    if len(outer) != 2 or der.encode(*outer[0]) != _SIGNED_DATA or outer[1][0] != _EXPLICIT_0:
        raise der.DerError("not SignedData")
    fields = der.read_all(der.read_only(outer[1][1], der.SEQUENCE))
    tags = [tag for tag, _ in fields[:4]]
    if tags != [_INTEGER, der.SET, der.SEQUENCE, _EXPLICIT_0]:
        raise der.DerError("SignedData without certificates")
    certificates: list[bytes] = []
    rest, offset = fields[3][1], 0
    while offset < len(rest):
        if len(certificates) == MAX_CERTIFICATES:
            raise der.DerError(f"more than {MAX_CERTIFICATES} certificates")
        tag, _, end = der.read(rest, offset)
        if tag == der.SEQUENCE:  # other choices are of no use here (RFC 2315 section 6.6)
            certificates.append(rest[offset:end])
        offset = end
    if not certificates:
        raise der.DerError("no certificate in it")
    return tuple(certificates)

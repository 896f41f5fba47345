"""Distinguished names for the eye: just enough DER (X.690) to show who an identity or a certificate names.

Nothing is decided by what this says; what is malformed gives None.
"""

from __future__ import annotations

SEQUENCE = 0x30
_SET = 0x31
_OID = 0x06
_VERSION = 0xA0
_MAX_ATTRIBUTES = 32

_ENCODINGS = {12: "utf-8", 19: "ascii", 20: "latin-1", 22: "ascii", 28: "utf-32-be", 30: "utf-16-be"}

# DER of the object identifier -> short name (RFC 4514 section 3, and e-mail).
_ATTRIBUTES = {
    bytes.fromhex("550403"): "CN",
    bytes.fromhex("550404"): "SN",
    bytes.fromhex("550405"): "serialNumber",
    bytes.fromhex("550406"): "C",
    bytes.fromhex("550407"): "L",
    bytes.fromhex("550408"): "ST",
    bytes.fromhex("550409"): "STREET",
    bytes.fromhex("55040a"): "O",
    bytes.fromhex("55040b"): "OU",
    bytes.fromhex("55040c"): "T",
    bytes.fromhex("55042a"): "GN",
    bytes.fromhex("0992268993f22c640101"): "UID",
    bytes.fromhex("0992268993f22c640119"): "DC",
    bytes.fromhex("2a864886f70d010901"): "E",
}


class _Malformed(ValueError):
    """Not the DER that was expected."""


def _element(octets: bytes, position: int, end: int, tag: int | None = None) -> tuple[int, int, int]:
    """Return tag, start and end of the contents of the element at `position`."""
    if end - position < 2:
        raise _Malformed
    found = octets[position]
    length = octets[position + 1]
    start = position + 2
    if length >= 0x80:
        count = length - 0x80
        if not 1 <= count <= 3 or start + count > end:
            raise _Malformed
        length = int.from_bytes(octets[start : start + count])
        start += count
    if start + length > end or (tag is not None and found != tag):
        raise _Malformed
    return found, start, start + length


def _name(octets: bytes, position: int, end: int) -> str:
    parts: list[str] = []
    _, position, stop = _element(octets, position, end, SEQUENCE)
    while position < stop:
        _, inner, position = _element(octets, position, stop, _SET)
        together: list[str] = []
        while inner < position:
            _, start, inner = _element(octets, inner, position, SEQUENCE)
            _, oid, value = _element(octets, start, inner, _OID)
            kind, text, text_end = _element(octets, value, inner)
            label = _ATTRIBUTES.get(octets[oid:value], f"OID.{octets[oid:value].hex()}")
            encoding = _ENCODINGS.get(kind, "ascii")
            together.append(f"{label}={octets[text:text_end].decode(encoding, 'backslashreplace')}")
            if len(parts) + len(together) > _MAX_ATTRIBUTES:
                raise _Malformed
        parts.append("+".join(together))
    return ", ".join(parts)


def distinguished_name(der: bytes) -> str | None:
    """Show an X.501 Name in the order of its encoding, as `C=CH, O=Example, CN=gw`; None when malformed."""
    try:
        return _name(der, 0, len(der))
    except _Malformed:
        return None


def certificate_subject(der: bytes) -> str | None:
    """Show the subject of an X.509 certificate (RFC 5280 section 4.1); None when malformed."""
    try:
        _, start, end = _element(der, 0, len(der), SEQUENCE)
        _, position, end = _element(der, start, end, SEQUENCE)
        tag, _, following = _element(der, position, end)
        if tag == _VERSION:
            position = following
        for _ in range(4):  # serial number, signature algorithm, issuer, validity
            _, _, position = _element(der, position, end)
        return _name(der, position, end)
    except _Malformed:
        return None

"""The little DER (ITU-T X.690) that identities need and `cryptography` keeps to itself: names outside certificates."""

from __future__ import annotations

SEQUENCE = 0x30
SET = 0x31
OBJECT_IDENTIFIER = 0x06

# Character strings by tag, and how their octets are text.
STRING_ENCODINGS = {
    0x0C: "utf-8",  # UTF8String
    0x12: "ascii",  # NumericString
    0x13: "ascii",  # PrintableString
    0x14: "latin-1",  # TeletexString, as everybody reads it
    0x16: "ascii",  # IA5String
    0x1A: "ascii",  # VisibleString
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}
UTF8_STRING, PRINTABLE_STRING, IA5_STRING = 0x0C, 0x13, 0x16


class DerError(ValueError):
    """Octets that are not the DER that was expected."""


def read(octets: bytes, offset: int = 0) -> tuple[int, bytes, int]:
    """Read one element: its tag (one octet), its content, and the offset behind it."""
    if offset + 2 > len(octets):
        raise DerError("an element is cut off")
    tag, length = octets[offset], octets[offset + 1]
    if tag & 0x1F == 0x1F:
        raise DerError("tags of several octets do not occur in names")
    start = offset + 2
    if length & 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4 or start + count > len(octets):
            raise DerError("a length that DER does not allow")
        length = int.from_bytes(octets[start : start + count])
        start += count
    if start + length > len(octets):
        raise DerError("an element is longer than what holds it")
    return tag, octets[start : start + length], start + length


def read_all(octets: bytes) -> list[tuple[int, bytes]]:
    """Read the elements that fill `octets` to the end."""
    elements = []
    offset = 0
    while offset < len(octets):
        tag, content, offset = read(octets, offset)
        elements.append((tag, content))
    return elements


def read_only(octets: bytes, tag: int) -> bytes:
    """Read the one element of that tag that `octets` must be, and return its content."""
    found, content, end = read(octets)
    if found != tag or end != len(octets):
        raise DerError(f"not one element with tag {tag:#04x}")
    return content


def encode(tag: int, *contents: bytes) -> bytes:
    """Encode one element around the concatenated contents."""
    content = b"".join(contents)
    if len(content) < 0x80:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + content


def decode_oid(content: bytes) -> str:
    """Return the dotted form of an object identifier's content."""
    if not content or content[-1] & 0x80 or len(content) > 64:
        raise DerError("not an object identifier")
    arcs: list[int] = []
    value = 0
    for octet in content:
        value = value << 7 | octet & 0x7F
        if not octet & 0x80:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, [first, arcs[0] - 40 * first, *arcs[1:]]))


def encode_oid(dotted: str) -> bytes:
    """Encode a dotted object identifier as a whole element."""
    arcs = [int(arc) for arc in dotted.split(".")]
    if len(arcs) < 2 or arcs[0] > 2 or (arcs[0] < 2 and arcs[1] > 39) or min(arcs) < 0:
        raise ValueError(f"{dotted} is not an object identifier")
    content = b""
    for arc in [arcs[0] * 40 + arcs[1], *arcs[2:]]:
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(arc & 0x7F | 0x80)
        content += bytes(reversed(groups))
    return encode(OBJECT_IDENTIFIER, content)

"""The pseudorandom function of FIPS 186-2 with change notice 1 and no reduction modulo q, as EAP-SIM and EAP-AKA use it
(RFC 4186 appendix B, RFC 4187 appendix A).

Its G is SHA-1's compression function alone, without SHA-1's padding. No library gives access to that, so it stands here;
it is a dozen blocks a log-in.
"""

from __future__ import annotations

import struct

_INITIAL = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)  # FIPS 180-4 section 5.3.1
_MASK = 0xFFFFFFFF
_KEY_OCTETS = 20
_MODULUS = 1 << (8 * _KEY_OCTETS)


def fips_186_2_prf(key: bytes, length: int) -> bytes:
    """The first `length` octets that the 20 octets of XKEY give."""
    if len(key) != _KEY_OCTETS:
        raise ValueError(f"XKEY has {_KEY_OCTETS} octets, not {len(key)}")
    xkey = int.from_bytes(key)
    stream = b""
    while len(stream) < length:
        block = _g(xkey.to_bytes(_KEY_OCTETS))
        stream += block
        xkey = (1 + xkey + int.from_bytes(block)) % _MODULUS
    return stream[:length]


def _rotated(word: int, bits: int) -> int:
    return ((word << bits) | (word >> (32 - bits))) & _MASK


def _g(value: bytes) -> bytes:
    """SHA-1's compression of one block, `value` filled up with zeros (FIPS 180-4 section 6.1.2)."""
    schedule = list(struct.unpack(">16I", value.ljust(64, b"\0")))
    for index in range(16, 80):
        mixed = schedule[index - 3] ^ schedule[index - 8] ^ schedule[index - 14] ^ schedule[index - 16]
        schedule.append(_rotated(mixed, 1))
    a, b, c, d, e = _INITIAL
    for index, word in enumerate(schedule):
        if index < 20:
            function, constant = (b & c) | (~b & d), 0x5A827999
        elif index < 40:
            function, constant = b ^ c ^ d, 0x6ED9EBA1
        elif index < 60:
            function, constant = (b & c) | (b & d) | (c & d), 0x8F1BBCDC
        else:
            function, constant = b ^ c ^ d, 0xCA62C1D6
        a, b, c, d, e = (_rotated(a, 5) + (function & _MASK) + e + constant + word) & _MASK, a, _rotated(b, 30), c, d
    return struct.pack(">5I", *((old + new) & _MASK for old, new in zip(_INITIAL, (a, b, c, d, e), strict=True)))

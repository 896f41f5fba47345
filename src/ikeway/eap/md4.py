"""MD4 (RFC 1320), for MS-CHAPv2 alone: OpenSSL 3 has it only as legacy, and a library for it takes longer to import than
to log in. It is broken as a hash; here it only stands for what a server stores.
"""

from __future__ import annotations

import struct

_START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
_BLOCK = struct.Struct("<16I")
_STATE = struct.Struct("<4I")
_MASK = 0xFFFFFFFF

# A round (section 3.4): the constant, the order of the words, the shifts.
_ROUND_2, _ROUND_3 = 0x5A827999, 0x6ED9EBA1
_ORDER_2 = (0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
_ORDER_3 = (0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15)


def md4(octets: bytes) -> bytes:
    """The digest, 16 octets."""
    state = _START
    bits = struct.pack("<Q", len(octets) * 8 & 0xFFFFFFFFFFFFFFFF)
    padded = octets + b"\x80" + bytes(-(len(octets) + 9) % 64) + bits
    for at in range(0, len(padded), _BLOCK.size):
        state = _compress(state, _BLOCK.unpack_from(padded, at))
    return _STATE.pack(*state)


def _compress(state: tuple[int, int, int, int], words: tuple[int, ...]) -> tuple[int, int, int, int]:
    """One block of 16 words. In each step the four values move on by one place."""
    a, b, c, d = state
    for step in range(16):
        f = (b & c) | (~b & d)
        a, b, c, d = d, _rotated(a + f + words[step], (3, 7, 11, 19)[step % 4]), b, c
    for step in range(16):
        f = (b & c) | (b & d) | (c & d)
        a, b, c, d = d, _rotated(a + f + words[_ORDER_2[step]] + _ROUND_2, (3, 5, 9, 13)[step % 4]), b, c
    for step in range(16):
        f = b ^ c ^ d
        a, b, c, d = d, _rotated(a + f + words[_ORDER_3[step]] + _ROUND_3, (3, 9, 11, 15)[step % 4]), b, c
    return (state[0] + a & _MASK, state[1] + b & _MASK, state[2] + c & _MASK, state[3] + d & _MASK)


def _rotated(value: int, places: int) -> int:
    value &= _MASK
    return (value << places | value >> (32 - places)) & _MASK

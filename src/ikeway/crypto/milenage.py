"""Milenage, the example algorithm set of 3GPP for authentication (TS 35.206), and GSM-Milenage (TS 55.205).

A subscriber's K and OPc make authentication vectors on the network's side, and answer them on the card's side. Sequence
numbers are octets here; which one comes next, and which is fresh, is decided by those who keep them.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

KEY_OCTETS = 16
SQN_OCTETS, AMF_OCTETS, MAC_OCTETS = 6, 2, 8
AUTN_OCTETS = SQN_OCTETS + AMF_OCTETS + MAC_OCTETS
AUTS_OCTETS = SQN_OCTETS + MAC_OCTETS
_RESYNCHRONISATION_AMF = bytes(AMF_OCTETS)  # TS 33.102 section 6.3.3: MAC-S is made with an AMF of zeros


@dataclass(frozen=True, slots=True)
class UmtsVector:
    """An authentication vector (quintet, TS 33.102 section 6.3.2). The network sends RAND and AUTN, XRES is expected."""

    rand: bytes
    autn: bytes
    xres: bytes = field(repr=False)
    ck: bytes = field(repr=False)
    ik: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class GsmTriplet:
    """RAND, the answer to it (SRES, 4 octets) and the key (Kc, 8 octets)."""

    rand: bytes
    sres: bytes = field(repr=False)
    kc: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Outputs:
    res: bytes  # f2
    ck: bytes  # f3
    ik: bytes  # f4
    ak: bytes  # f5
    resynchronisation_ak: bytes  # f5*


def derive_opc(k: bytes, op: bytes) -> bytes:
    """OPc of a subscriber, from the operator's OP (TS 35.206 section 4.1)."""
    return _xor(_checked(op, KEY_OCTETS, "OP"), _block_cipher(k, op))


class Milenage:
    """The functions f1 to f5* under one subscriber's K and OPc, of 16 octets each."""

    __slots__ = ("_k", "_opc")

    def __init__(self, k: bytes, opc: bytes) -> None:
        self._k = _checked(k, KEY_OCTETS, "K")
        self._opc = _checked(opc, KEY_OCTETS, "OPc")

    def vector(self, rand: bytes, sqn: bytes, amf: bytes) -> UmtsVector:
        """The authentication vector with this sequence number (TS 33.102 section 6.3.2)."""
        outputs = self._f2345(rand)
        mac = self._f1(rand, sqn, amf)[:MAC_OCTETS]
        return UmtsVector(rand, _xor(sqn, outputs.ak) + amf + mac, outputs.res, outputs.ck, outputs.ik)

    def open_autn(self, rand: bytes, autn: bytes) -> tuple[bytes, bytes] | None:
        """SQN and AMF of an AUTN; None when who made it does not know the keys (TS 33.102 section 6.3.3)."""
        _checked(autn, AUTN_OCTETS, "AUTN")
        sqn, amf = _xor(autn[:SQN_OCTETS], self._f2345(rand).ak), autn[SQN_OCTETS : SQN_OCTETS + AMF_OCTETS]
        genuine = hmac.compare_digest(autn[-MAC_OCTETS:], self._f1(rand, sqn, amf)[:MAC_OCTETS])
        return (sqn, amf) if genuine else None

    def answer(self, rand: bytes) -> tuple[bytes, bytes, bytes]:
        """RES, CK and IK for a RAND, whose AUTN was checked."""
        outputs = self._f2345(rand)
        return outputs.res, outputs.ck, outputs.ik

    def auts(self, rand: bytes, sqn: bytes) -> bytes:
        """What the card says when a sequence number is not fresh: its own one, protected (TS 33.102 section 6.3.3)."""
        mac = self._f1(rand, sqn, _RESYNCHRONISATION_AMF)[MAC_OCTETS:]
        return _xor(sqn, self._f2345(rand).resynchronisation_ak) + mac

    def open_auts(self, rand: bytes, auts: bytes) -> bytes | None:
        """The card's sequence number in an AUTS; None when it is not the card's."""
        _checked(auts, AUTS_OCTETS, "AUTS")
        sqn = _xor(auts[:SQN_OCTETS], self._f2345(rand).resynchronisation_ak)
        expected = self._f1(rand, sqn, _RESYNCHRONISATION_AMF)[MAC_OCTETS:]
        return sqn if hmac.compare_digest(auts[SQN_OCTETS:], expected) else None

    def triplet(self, rand: bytes) -> GsmTriplet:
        """The GSM triplet of a RAND (TS 55.205; conversions c2 and c3 of TS 33.102 section 6.8.1.2)."""
        outputs = self._f2345(rand)
        kc = _xor(_xor(outputs.ck[:8], outputs.ck[8:]), _xor(outputs.ik[:8], outputs.ik[8:]))
        return GsmTriplet(rand, _xor(outputs.res[:4], outputs.res[4:]), kc)

    def _f1(self, rand: bytes, sqn: bytes, amf: bytes) -> bytes:
        """OUT1: f1 and f1*, eight octets each."""
        once = _checked(sqn, SQN_OCTETS, "SQN") + _checked(amf, AMF_OCTETS, "AMF")
        block = _xor(self._temp(rand), _rotated(_xor(once + once, self._opc), 8))
        return _xor(_block_cipher(self._k, block), self._opc)

    def _f2345(self, rand: bytes) -> _Outputs:
        mixed = _xor(self._temp(rand), self._opc)
        out2, ck, ik, out5 = (
            _xor(_block_cipher(self._k, _xor(_rotated(mixed, octets), constant.to_bytes(16))), self._opc)
            for octets, constant in ((0, 1), (4, 2), (8, 4), (12, 8))  # r2 to r5 in octets, c2 to c5
        )
        return _Outputs(out2[8:], ck, ik, out2[:SQN_OCTETS], out5[:SQN_OCTETS])

    def _temp(self, rand: bytes) -> bytes:
        return _block_cipher(self._k, _xor(_checked(rand, 16, "RAND"), self._opc))


def _block_cipher(k: bytes, block: bytes) -> bytes:
    return Cipher(algorithms.AES(k), modes.ECB()).encryptor().update(block)  # noqa: S305 - single blocks


def _rotated(block: bytes, octets: int) -> bytes:
    return block[octets:] + block[:octets]


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(left ^ right for left, right in zip(one, other, strict=True))


def _checked(octets: bytes, size: int, name: str) -> bytes:
    if len(octets) != size:
        raise ValueError(f"{name} has {size} octets, not {len(octets)}")
    return octets

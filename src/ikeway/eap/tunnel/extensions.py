"""What PEAPv0 says in its tunnel beside EAP: packets without headers, the extensions method and its TLVs, the compound
keys ([MS-PEAP] sections 2.2, 3.1.5.5; draft-kamath-pppext-peapv0)."""

from __future__ import annotations

import enum
import hmac
from dataclasses import dataclass, field

from ikeway.eap.errors import MalformedEap
from ikeway.eap.packet import EapCode, EapPacket, EapType

EXTENSIONS = 33  # the EAP type that carries TLVs
MAX_TLVS = 32
_MANDATORY = 0x8000
_TYPE_BITS = 0x3FFF
_BINDING_OCTETS = 56
_ISK_OCTETS, _TEMP_KEY_OCTETS, _IPMK_OCTETS, _CMK_OCTETS = 32, 40, 40, 20


class TlvType(enum.IntEnum):
    """Those that PEAPv0 uses."""

    RESULT = 3
    NAK = 4
    CRYPTO_BINDING = 12


class Result(enum.IntEnum):
    """What a side thinks of the log-in."""

    SUCCESS = 1
    FAILURE = 2


@dataclass(frozen=True, slots=True)
class Tlv:
    """Type, length, value; `mandatory`: who does not know it has to fail."""

    type: int
    value: bytes
    mandatory: bool = False

    def encode(self) -> bytes:
        """Encode."""
        kind = self.type | (_MANDATORY if self.mandatory else 0)
        return kind.to_bytes(2) + len(self.value).to_bytes(2) + self.value


@dataclass(frozen=True, slots=True)
class Binding:
    """The Crypto-Binding TLV's value ([MS-PEAP] section 2.2.8.1.1): who proves to know the compound keys, over what."""

    is_response: bool
    nonce: bytes
    mac: bytes

    @classmethod
    def decode(cls, value: bytes) -> Binding:
        """Decode; raises MalformedEap."""
        if len(value) != _BINDING_OCTETS or value[1] != 0 or value[3] > 1:
            raise _malformed("a cryptobinding", f"{_BINDING_OCTETS} octets of version 0", f"{value[:4].hex()}")
        return cls(value[3] == 1, value[4:36], value[36:])

    def tlv(self) -> Tlv:
        """The whole TLV; both versions in it are 0."""
        return Tlv(TlvType.CRYPTO_BINDING, bytes((0, 0, 0, int(self.is_response))) + self.nonce + self.mac)


@dataclass(frozen=True, slots=True)
class CompoundKeys:
    """Keys of tunnel and inner log-in together ([MS-PEAP] section 3.1.5.5.2): only who took part in both has them."""

    intermediate: bytes = field(repr=False)  # IPMK
    mac: bytes = field(repr=False)  # CMK

    @classmethod
    def derive(cls, key_material: bytes, inner_msk: bytes | None) -> CompoundKeys:
        """From the tunnel's Key_Material and the MSK of the inner method; one without a key counts as zeros."""
        session_key = (inner_msk or b"")[:_ISK_OCTETS].ljust(_ISK_OCTETS, b"\0")
        keys = prf_plus(
            key_material[:_TEMP_KEY_OCTETS], b"Inner Methods Compound Keys" + session_key, _IPMK_OCTETS + _CMK_OCTETS
        )
        return cls(keys[:_IPMK_OCTETS], keys[_IPMK_OCTETS:])

    @classmethod
    def of_tunnel(cls, key_material: bytes) -> CompoundKeys:
        """Those of a session that was resumed, without a log-in in it (fast reconnect): the tunnel's own."""
        return cls(key_material[:_IPMK_OCTETS], key_material[_IPMK_OCTETS : _IPMK_OCTETS + _CMK_OCTETS])

    def binding(self, nonce: bytes, *, is_response: bool) -> Binding:
        """Make our side's proof: HMAC-SHA1 over the TLV, its MAC zeros, and the type octet of PEAP."""
        blank = Binding(is_response, nonce, bytes(_CMK_OCTETS)).tlv().encode()
        return Binding(is_response, nonce, hmac.digest(self.mac, blank + bytes((EapType.PEAP,)), "sha1"))

    def proves(self, binding: Binding) -> bool:
        """True when the other side's proof fits."""
        return hmac.compare_digest(self.binding(binding.nonce, is_response=binding.is_response).mac, binding.mac)

    def msk(self) -> bytes:
        """The key that IKE gets: 64 octets."""
        return prf_plus(self.intermediate, b"Session Key Generating Function\0", 128)[:64]


def prf_plus(key: bytes, seed: bytes, length: int) -> bytes:
    """PRF+ of PEAPv0: T(n) = HMAC-SHA1(key, T(n-1) | seed | n | 0 | 0)."""
    block, octets = b"", b""
    for index in range(1, 1 + -(-length // 20)):
        block = hmac.digest(key, block + seed + bytes((index, 0, 0)), "sha1")
        octets += block
    return octets[:length]


def encode_inner(packet: EapPacket) -> bytes:
    """A packet as it goes through the tunnel: without its header, but for the extensions."""
    octets = packet.encode()
    return octets if packet.type == EXTENSIONS else octets[4:]


def decode_inner(octets: bytes, code: EapCode, identifier: int) -> EapPacket:
    """The packet again. Some send the header all the same, and Success and Failure cannot do without."""
    if not octets:
        raise _malformed("an empty packet", "an octet or more", "none")
    whole = len(octets) >= 4 and int.from_bytes(octets[2:4]) == len(octets)
    if whole and (octets[0] == code or (len(octets) == 4 and octets[0] in (EapCode.SUCCESS, EapCode.FAILURE))):
        return EapPacket.decode(octets)
    return EapPacket(code, identifier, octets[0], bytes(octets[1:]))


def encode_extensions(code: EapCode, identifier: int, *tlvs: Tlv) -> EapPacket:
    """The packet of the extensions method."""
    return EapPacket(code, identifier, EXTENSIONS, b"".join(tlv.encode() for tlv in tlvs))


def result_tlv(result: Result) -> Tlv:
    """The Result TLV."""
    return Tlv(TlvType.RESULT, result.to_bytes(2), mandatory=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an extensions packet says: a result, and perhaps a cryptobinding."""

    result: Result
    binding: Binding | None

    @classmethod
    def decode(cls, octets: bytes) -> Outcome:
        """Decode the TLVs; raises MalformedEap, also for a mandatory one that is not known."""
        result: Result | None = None
        binding: Binding | None = None
        for tlv in decode_tlvs(octets):
            if tlv.type == TlvType.RESULT:
                if tlv.value not in (b"\0\1", b"\0\2"):
                    raise _malformed("a result", "1 or 2", tlv.value[:4].hex() or "nothing")
                result = Result(tlv.value[1])
            elif tlv.type == TlvType.CRYPTO_BINDING:
                binding = Binding.decode(tlv.value)
            elif tlv.mandatory:
                raise _malformed("a mandatory TLV that is not known here", "a result", f"type {tlv.type}")
        if result is None:
            raise _malformed("extensions without a result", "a Result TLV", "none")
        return cls(result, binding)


def decode_tlvs(octets: bytes) -> tuple[Tlv, ...]:
    """Decode all; raises MalformedEap."""
    found: list[Tlv] = []
    position = 0
    while position < len(octets):
        header, length = octets[position : position + 4], int.from_bytes(octets[position + 2 : position + 4])
        end = position + 4 + length
        if len(header) < 4 or end > len(octets) or len(found) == MAX_TLVS:
            raise _malformed(
                "a TLV that is cut off, or one too many", f"at most {MAX_TLVS}", f"{len(octets)} octets in all"
            )
        kind = int.from_bytes(header[:2])
        found.append(Tlv(kind & _TYPE_BITS, bytes(octets[position + 4 : end]), bool(kind & _MANDATORY)))
        position = end
    return tuple(found)


def _malformed(what: str, expected: str, got: str) -> MalformedEap:
    return MalformedEap(f"in the tunnel of PEAP, {what}", expected=expected, got=got)

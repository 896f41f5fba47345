"""What protects the messages of EAP-SIM and EAP-AKA: AT_MAC, AT_ENCR_DATA under AT_IV, AT_CHECKCODE (RFC 4187 sections
10.12, 10.13 and 10.15)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ikeway.eap.errors import EapFailed, MalformedEap
from ikeway.eap.packet import EapCode, EapPacket
from ikeway.eap.sim_attributes import (
    Attribute,
    AttributeList,
    Pair,
    SimMessage,
    Subtype,
    decode_attributes,
    encode_attributes,
    encode_message,
)
from ikeway.eap.sim_keys import SimFamily
from ikeway.errors import Side

_MAC_OCTETS = 16
_BLOCK = 16


def _mac(family: SimFamily, k_aut: bytes, packet: EapPacket, extra: bytes) -> bytes:
    return hmac.digest(k_aut, packet.encode() + extra, family.hash_name)[:_MAC_OCTETS]


def packet_of(family: SimFamily, code: EapCode, identifier: int, data: bytes) -> EapPacket:
    """The EAP packet around a message: AT_MAC and AT_CHECKCODE cover it from its first octet."""
    return EapPacket.of(code, identifier, family.type, data)


def authenticated(
    family: SimFamily,
    k_aut: bytes,
    code: EapCode,
    identifier: int,
    subtype: Subtype,
    pairs: Iterable[Pair],
    extra: bytes = b"",
) -> bytes:
    """The message with AT_MAC behind its attributes. `extra` goes into the code and is not sent."""
    octets = encode_message(subtype, (*pairs, (Attribute.AT_MAC, bytes(_MAC_OCTETS))))
    code_of_it = _mac(family, k_aut, packet_of(family, code, identifier, octets), extra)
    return octets[:-_MAC_OCTETS] + code_of_it


def verify(
    family: SimFamily,
    k_aut: bytes,
    code: EapCode,
    identifier: int,
    octets: bytes,
    message: SimMessage,
    extra: bytes = b"",
) -> None:
    """Check AT_MAC of `octets`, of which `message` was decoded. Raises EapFailed, without AT_MAC MalformedEap."""
    claimed = message.need(Attribute.AT_MAC)
    at = message.mac_at
    assert at is not None
    blank = octets[:at] + bytes(_MAC_OCTETS) + octets[at + _MAC_OCTETS :]
    if not hmac.compare_digest(claimed, _mac(family, k_aut, packet_of(family, code, identifier, blank), extra)):
        raise EapFailed(
            f"a message of {family.name} is not authentic",
            expected="the code that the subscriber's key gives",
            got="a wrong AT_MAC",
            side=Side.BOTH,
            remedy="see that both sides have the same Ki and OPc for this subscriber",
        )


def encrypted(k_encr: bytes, pairs: Iterable[Pair], random: Callable[[int], bytes]) -> list[Pair]:
    """AT_IV and AT_ENCR_DATA with these attributes inside, padded to whole blocks."""
    plain = encode_attributes(pairs)
    if missing := -len(plain) % _BLOCK:
        plain += encode_attributes([(Attribute.AT_PADDING, bytes(missing - 2))])
    iv = random(_BLOCK)
    cipher = Cipher(algorithms.AES(k_encr), modes.CBC(iv)).encryptor()
    return [(Attribute.AT_IV, iv), (Attribute.AT_ENCR_DATA, cipher.update(plain))]


def decrypted(k_encr: bytes, message: SimMessage) -> AttributeList:
    """What is inside AT_ENCR_DATA, nothing when there is none. To be called once AT_MAC is checked."""
    ciphertext = message.find(Attribute.AT_ENCR_DATA)
    if ciphertext is None:
        return AttributeList(())
    cipher = Cipher(algorithms.AES(k_encr), modes.CBC(message.need(Attribute.AT_IV))).decryptor()
    inside = decode_attributes(cipher.update(ciphertext))
    if Attribute.AT_PADDING in inside:
        if inside.pairs[-1][0] is not Attribute.AT_PADDING:
            raise MalformedEap(
                "AT_PADDING is not the last of the encrypted attributes", expected="it at the end", got="others behind"
            )
        inside = AttributeList(inside.pairs[:-1])
    return inside


class Checkcode:
    """A hash over all packets in which identities were asked for and told, so that nobody changes the questions."""

    def __init__(self, family: SimFamily) -> None:
        self._family = family
        self._hash = hashlib.new(family.hash_name, usedforsecurity=False)
        self._used = False

    def add(self, code: EapCode, identifier: int, data: bytes) -> None:
        """Take in a packet, in the order in which they were exchanged."""
        self._hash.update(packet_of(self._family, code, identifier, data).encode())
        self._used = True

    @property
    def pair(self) -> Pair:
        """AT_CHECKCODE; empty when no identities were asked for."""
        return Attribute.AT_CHECKCODE, self._hash.digest() if self._used else b""

    def check(self, message: SimMessage) -> None:
        """Compare with the other side's, when that sent one. Raises EapFailed."""
        claimed = message.find(Attribute.AT_CHECKCODE)
        if claimed is not None and not hmac.compare_digest(claimed, self.pair[1]):
            raise EapFailed(
                "somebody changed what was said about identities on its way",
                expected="the hash of the packets as this side has seen them",
                got="another AT_CHECKCODE",
                side=Side.PEER,
                remedy="look for who is between the two sides",
            )

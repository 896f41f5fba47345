"""The Encrypted payload and its fragments: sealing and opening messages (RFC 7296 section 3.14, RFC 7383, RFC 5282)."""

from __future__ import annotations

from ikeway.crypto import Cipher, IkeKeys, encryption_info, integrity_info, new_cipher
from ikeway.errors import IntegrityCheckFailed, WireError
from ikeway.ike.proposals import Suite
from ikeway.wire.message import Message, encode_payloads
from ikeway.wire.payloads import Encrypted, EncryptedFragment
from ikeway.wire.registry import PayloadType

IP_UDP_OCTETS = {False: 20 + 8, True: 40 + 8}  # by is_ipv6
NON_ESP_MARKER = bytes(4)
HEADER_OCTETS = 28
FRAGMENT_HEADER_OCTETS = 8
MAX_FRAGMENTS = 255


def key_octets(suite: Suite) -> tuple[int, int]:
    """Octets of SK_e (with salt) and SK_a for a suite."""
    encryption = encryption_info(suite.encryption, suite.key_bits)
    integrity = integrity_info(suite.integrity).key_octets if suite.integrity is not None else 0
    return encryption.key_octets + encryption.salt_octets, integrity


class Protection:
    """Both directions of one IKE SA."""

    def __init__(self, suite: Suite, keys: IkeKeys, *, is_initiator: bool) -> None:
        initiator = new_cipher(suite.encryption, suite.key_bits, suite.integrity, keys.sk_ei, keys.sk_ai)
        responder = new_cipher(suite.encryption, suite.key_bits, suite.integrity, keys.sk_er, keys.sk_ar)
        self._out, self._in = (initiator, responder) if is_initiator else (responder, initiator)

    def seal(self, message: Message) -> bytes:
        """The message with all its payloads in one Encrypted payload."""
        first, plaintext = encode_payloads(message.payloads)
        padded = _pad(self._out, plaintext)
        shell = _replace(message, Encrypted(first, bytes(self._body_octets(len(padded)))))
        return self._fill(shell, padded)

    def seal_fragments(self, message: Message, fragment_octets: int, *, ipv6: bool) -> list[bytes]:
        """The message as IKE fragments of at most `fragment_octets` of IP packet each (RFC 7383 section 2.5)."""
        first, plaintext = encode_payloads(message.payloads)
        room = fragment_octets - IP_UDP_OCTETS[ipv6] - len(NON_ESP_MARKER) - HEADER_OCTETS - FRAGMENT_HEADER_OCTETS
        room -= self._out.iv_octets + self._out.icv_octets
        room = max(room - room % self._out.block_octets - 1, -(-len(plaintext) // MAX_FRAGMENTS), 16)
        pieces = [plaintext[start : start + room] for start in range(0, len(plaintext), room)] or [b""]
        packets = []
        for number, piece in enumerate(pieces, 1):
            padded = _pad(self._out, piece)
            body = bytes(self._body_octets(len(padded)))
            next_payload = first if number == 1 else PayloadType(0)
            shell = _replace(message, EncryptedFragment(next_payload, number, len(pieces), body))
            packets.append(self._fill(shell, padded))
        return packets

    def open(self, octets: bytes, payload: Encrypted | EncryptedFragment) -> bytes:
        """The plaintext of the last payload of message `octets`.

        Raises `IntegrityCheckFailed`, or `WireError` when authentic octets are padded wrongly.
        """
        cipher = self._in
        body = payload.body
        smallest = cipher.iv_octets + max(cipher.block_octets, 1) + cipher.icv_octets
        if len(body) < smallest:
            raise IntegrityCheckFailed(f"an Encrypted payload of {len(body)} octets is shorter than {smallest}")
        iv, sealed = body[: cipher.iv_octets], body[cipher.iv_octets :]
        if (len(sealed) - cipher.icv_octets) % cipher.block_octets:
            raise IntegrityCheckFailed("the Encrypted payload is no multiple of the cipher's block")
        plaintext = cipher.decrypt(iv, sealed, octets[: len(octets) - len(body)])
        padding = plaintext[-1] + 1
        if padding > len(plaintext):
            raise WireError(f"pad length {padding - 1} exceeds the {len(plaintext)} octets of the payload")
        return plaintext[:-padding]

    def _body_octets(self, padded: int) -> int:
        return self._out.iv_octets + padded + self._out.icv_octets

    def _fill(self, shell: Message, padded: bytes) -> bytes:
        encoded = shell.encode()
        associated = encoded[: len(encoded) - self._body_octets(len(padded))]
        iv = self._out.new_iv()
        return associated + iv + self._out.encrypt(iv, padded, associated)


def _pad(cipher: Cipher, plaintext: bytes) -> bytes:
    length = -(len(plaintext) + 1) % cipher.block_octets
    return plaintext + bytes(length) + bytes([length])


def _replace(message: Message, payload: Encrypted | EncryptedFragment) -> Message:
    return Message(
        message.initiator_spi,
        message.responder_spi,
        message.exchange_type,
        message.is_initiator,
        message.is_response,
        message.message_id,
        (payload,),
    )

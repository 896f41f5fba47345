"""Messages that others made, through our own protection and AUTH: a capture with its keys, and RFC 7634 appendix B."""

from __future__ import annotations

import csv
import json

import dpkt
from tests.vectors import vector

from ikeway.auth.octets import psk_mac, signed_octets
from ikeway.crypto import IkeKeys, new_prf
from ikeway.ike.proposals import Suite, select
from ikeway.ike.protection import Protection
from ikeway.wire.message import Message, decode_payloads
from ikeway.wire.payloads import (
    Authentication,
    Encrypted,
    IdInitiator,
    IdResponder,
    Nonce,
    Notify,
    Payload,
    SecurityAssociation,
)
from ikeway.wire.registry import (
    AuthenticationMethod,
    EncryptionAlgorithm,
    ExchangeType,
    IntegrityAlgorithm,
    NotifyType,
    ProtocolId,
    PseudorandomFunction,
)


def captured() -> list[bytes]:
    """The IKE messages of the capture, without the non-ESP marker."""
    with vector("pcap/ikev2-aes192ctr/ikev2.pcap").open("rb") as file:
        frames = [dpkt.ethernet.Ethernet(frame) for _, frame in dpkt.pcap.Reader(file)]
    datagrams = [frame.data.data for frame in frames if isinstance(frame.data.data, dpkt.udp.UDP)]
    return [
        bytes(one.data).removeprefix(bytes(4)) if 4500 in (one.sport, one.dport) else bytes(one.data)
        for one in datagrams
    ]


def open_message(octets: bytes, sides: dict[bool, Protection]) -> Message:
    """Decrypt a message, as the side that it was sent to."""
    message = Message.decode(octets)
    sealed = message.payloads[-1]
    assert isinstance(sealed, Encrypted)
    payloads = decode_payloads(sealed.first_payload, sides[not message.is_initiator].open(octets, sealed))
    return Message(
        message.initiator_spi,
        message.responder_spi,
        message.exchange_type,
        message.is_initiator,
        message.is_response,
        message.message_id,
        payloads,
    )


def payload_of(message: Message, kind: type[Payload]):
    found = message.find(kind)
    assert found is not None
    return found


def test_a_captured_exchange_with_its_keys():
    messages = captured()
    text = vector("pcap/ikev2-aes192ctr/ikev2_decryption_table").read_text()
    (row,) = csv.reader(line for line in text.splitlines() if not line.startswith("#"))
    spi_i, spi_r, ei, er, _, ai, ar, _ = row
    request, response = (Message.decode(octets) for octets in messages[:2])
    assert request.exchange_type == response.exchange_type == ExchangeType.IKE_SA_INIT
    assert (response.initiator_spi.hex(), response.responder_spi.hex()) == (spi_i, spi_r)

    # What the responder chose is one of what the initiator offered, and it is the suite of the keys.
    offered = payload_of(request, SecurityAssociation).proposals
    chosen = payload_of(response, SecurityAssociation).proposals
    selection = select(offered, chosen)
    assert selection is not None
    suite = selection.suite
    assert (suite.encryption, suite.key_bits) == (EncryptionAlgorithm.ENCR_AES_CTR, 192)
    assert suite.integrity == IntegrityAlgorithm.AUTH_HMAC_SHA2_512_256

    keys = IkeKeys(b"", *map(bytes.fromhex, (ai, ar, ei, er)), b"", b"")
    sides = {role: Protection(suite, keys, is_initiator=role) for role in (True, False)}
    opened = [open_message(octets, sides) for octets in messages[2:]]
    assert len(opened) == 4
    auth_request, auth_response = opened[:2]
    assert auth_request.exchange_type == auth_response.exchange_type == ExchangeType.IKE_AUTH
    assert payload_of(auth_request, IdInitiator) and payload_of(auth_response, IdResponder)
    authentication = payload_of(auth_request, Authentication)
    expected = text.split("AUTH data ")[1].split()[0]
    assert (authentication.method, authentication.value.hex()) == (AuthenticationMethod.SHARED_KEY_MIC, expected)
    # Sealed again by our own hand, they open to the same.
    for message in opened:
        again = sides[message.is_initiator].seal(message)
        assert open_message(again, sides) == message


def test_auth_by_pre_shared_key_covers_what_the_rfc_says():
    """The capture has no SK_p, so the octets are checked against the definition, with its own messages."""
    request, response = captured()[:2]
    nonce = payload_of(Message.decode(response), Nonce).value
    prf = new_prf(PseudorandomFunction.PRF_HMAC_SHA2_512)
    identity = IdInitiator(1, bytes([10, 0, 0, 1]))
    octets = signed_octets(request, nonce, prf, b"p" * 64, identity.body)
    assert octets == request + nonce + prf(b"p" * 64, bytes([1, 0, 0, 0, 10, 0, 0, 1]))
    assert psk_mac(prf, b"secret", octets) == prf(prf(b"secret", b"Key Pad for IKEv2"), octets)


def test_rfc_7634_appendix_b():
    entry = json.loads(vector("crypto/rfc/rfc7634_appendix_b_ikev2.json").read_text())
    key, packet = bytes.fromhex(entry["key_and_salt"]), bytes.fromhex(entry["packet"])
    suite = Suite(
        ProtocolId.IKE,
        EncryptionAlgorithm.ENCR_CHACHA20_POLY1305,
        None,
        None,
        PseudorandomFunction.PRF_HMAC_SHA2_256,
        None,
    )
    # Sent by the responder of the IKE SA, as a request: no flags.
    keys = IkeKeys(b"", b"", b"", bytes(36), key, b"", b"")
    message = Message.decode(packet)
    assert (message.is_initiator, message.is_response, message.message_id) == (False, False, entry["message_id"])
    sealed = message.payloads[-1]
    assert isinstance(sealed, Encrypted)
    plaintext = Protection(suite, keys, is_initiator=True).open(packet, sealed)
    (notify,) = decode_payloads(sealed.first_payload, plaintext)
    assert notify == Notify(NotifyType.SET_WINDOW_SIZE, (10).to_bytes(4, "big"))

from __future__ import annotations

import pytest
from hypothesis import given

from ikeway.wire import (
    Attribute,
    Delete,
    Encrypted,
    EncryptedFragment,
    ExchangeType,
    Header,
    IdentificationType,
    IdInitiator,
    Message,
    Nonce,
    Notify,
    NotifyType,
    PayloadType,
    Proposal,
    ProtocolId,
    SecurityAssociation,
    TrafficSelector,
    TrafficSelectorsInitiator,
    TrafficSelectorType,
    Transform,
    TransformType,
    UnknownPayload,
    VendorId,
    decode_payloads,
    encode_payloads,
)
from tests.wire import strategies

SPI = bytes(range(8))


@given(strategies.messages)
def test_messages_survive(message):
    octets = message.encode()
    decoded = Message.decode(octets)
    assert decoded == message
    assert decoded.encode() == octets
    assert Message.decode(memoryview(octets)) == message


@given(strategies.payload_chains())
def test_payload_chains_survive(payloads):
    first, octets = encode_payloads(payloads)
    decoded = decode_payloads(first, octets)
    assert decoded == payloads
    assert [type(payload) for payload in decoded] == [type(payload) for payload in payloads]


@given(strategies.messages)
def test_headers_survive(message):
    octets = message.encode()
    header = Header.decode(octets)
    assert header.encode() == octets[:28]
    assert header.length == len(octets) and header.major_version == 2


def test_octets_are_those_of_the_rfc():
    """Written out by hand from the figures of RFC 7296 sections 3.1 to 3.4 and 3.10."""
    transforms = (Transform.of(TransformType.ENCR, 12, 256), Transform.of(TransformType.PRF, 5))
    payloads = (
        SecurityAssociation((Proposal(1, ProtocolId.IKE, b"", transforms),)),
        Notify(NotifyType.REKEY_SA, b"", ProtocolId.ESP, b"\x01\x02\x03\x04"),
    )
    message = Message(SPI, bytes(8), ExchangeType.CREATE_CHILD_SA, True, False, 7, payloads)
    assert message.encode() == bytes.fromhex(
        "0001020304050607 0000000000000000 21 20 24 08 00000007 00000048"
        "29000020"  # SA, next Notify, 32 octets
        "0000001c 01 01 00 02"  # proposal: last, 28 octets, number 1, IKE, no SPI, two transforms
        "0300000c 01 00 000c 800e 0100"  # AES-CBC with 256 bits
        "00000008 02 00 0005"
        "0000000c 03 04 4009 01020304"
    )


def test_reserved_octets_of_an_identity_are_kept_for_auth():
    identity = IdInitiator(IdentificationType.ID_KEY_ID, b"key", b"\x01\x02\x03")
    _, octets = encode_payloads([identity])
    assert octets[4:] == identity.body == b"\x0b\x01\x02\x03key"
    assert decode_payloads(PayloadType.IDI, octets) == (identity,)


def test_an_encrypted_message_can_be_made_in_two_steps():
    head = Message(SPI, SPI, ExchangeType.IKE_AUTH, True, False, 1, (Encrypted(PayloadType.IDI, bytes(40)),)).encode()
    whole = Message(SPI, SPI, ExchangeType.IKE_AUTH, True, False, 1, (Encrypted(PayloadType.IDI, b"x" * 40),)).encode()
    assert whole == head[:-40] + b"x" * 40


def test_no_payloads():
    message = Message(SPI, SPI, ExchangeType.INFORMATIONAL, False, True, 0)
    assert len(message.encode()) == 28
    assert Message.decode(message.encode()) == message


def test_finding():
    notify = Notify(NotifyType.COOKIE, b"1")
    other = Notify(NotifyType.COOKIE, b"2")
    message = Message(SPI, SPI, ExchangeType.IKE_SA_INIT, True, False, 0, (notify, Nonce(bytes(16)), other))
    assert message.find(Nonce) == Nonce(bytes(16))
    assert message.find(Delete) is None
    assert message.find_all(Notify) == [notify, other]
    assert message.notify(NotifyType.COOKIE) is notify
    assert message.notify(NotifyType.REDIRECT) is None
    assert message.notifies(NotifyType.COOKIE) == [notify, other]


def test_key_length():
    assert Transform.of(TransformType.ENCR, 20, 256).key_length == 256
    assert Transform.of(TransformType.PRF, 5).key_length is None
    assert Transform(TransformType.ENCR, 20, (Attribute(14, b"\x01\x00"),)).key_length is None  # TLV is not allowed


def message(*payloads, **changes):
    fields = {"initiator_spi": SPI, "responder_spi": SPI, "message_id": 0} | changes
    return Message(
        fields["initiator_spi"],
        fields["responder_spi"],
        ExchangeType.INFORMATIONAL,
        True,
        False,
        fields["message_id"],
        payloads,
    )


@pytest.mark.parametrize(
    "wrong",
    [
        message(initiator_spi=b"short"),
        message(responder_spi=bytes(9)),
        message(message_id=1 << 32),
        message(message_id=-1),
        message(VendorId(bytes(0xFFFF - 3))),
        message(Notify(NotifyType.COOKIE, spi=bytes(256))),
        message(Notify(NotifyType.COOKIE, protocol=256)),
        message(SecurityAssociation(())),
        message(SecurityAssociation((Proposal(256, ProtocolId.IKE, b"", ()),))),
        message(SecurityAssociation((Proposal(1, ProtocolId.IKE, b"", (Transform.of(TransformType.PRF, 5),) * 256),))),
        message(SecurityAssociation((Proposal(1, ProtocolId.IKE, b"", (Transform(1, 12, (Attribute(14, 65536),)),)),))),
        message(SecurityAssociation((Proposal(1, ProtocolId.IKE, b"", (Transform(1, 12, (Attribute(0x8000, 1),)),)),))),
        message(Delete(ProtocolId.ESP, (b"1234", b"123"))),
        message(Encrypted(PayloadType.NONE, b""), Nonce(bytes(16))),
        message(EncryptedFragment(PayloadType.NONE, 1, 65536, b"")),
        message(IdInitiator(IdentificationType.ID_FQDN, b"a", b"12")),
        message(
            TrafficSelectorsInitiator(
                (TrafficSelector(TrafficSelectorType.TS_IPV4_ADDR_RANGE, 0, 0, 0, bytes(4), bytes(16)),)
            )
        ),
        message(TrafficSelectorsInitiator((TrafficSelector(TrafficSelectorType.TS_SECLABEL, 0, 1, 0, b"", b""),))),
        message(
            TrafficSelectorsInitiator(
                (TrafficSelector(TrafficSelectorType.TS_IPV4_ADDR_RANGE, 0, 0, 0, bytes(4), bytes(4)),) * 256
            )
        ),
    ],
)
def test_what_does_not_fit_is_not_cut_off(wrong):
    with pytest.raises(ValueError):
        wrong.encode()


def test_a_critical_payload_is_sent_as_such():
    _, octets = encode_payloads([UnknownPayload(PayloadType(200), True, b"x")])
    assert octets[1] == 0x80
    assert decode_payloads(PayloadType(200), octets, refuse_critical=False) == (
        UnknownPayload(PayloadType(200), True, b"x"),
    )

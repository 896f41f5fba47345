"""The messages of EAP-SIM, EAP-AKA and EAP-AKA': what is sent is read again, and nothing else is."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.eap.errors import MalformedEap
from ikeway.eap.packet import EapPacket
from ikeway.eap.sim_attributes import (
    _FORMS,
    _MAY_BE_SEVERAL,
    Attribute,
    Subtype,
    decode_attributes,
    decode_message,
    encode_attributes,
    encode_message,
    flag,
    number,
)
from tests.vectors import vector


def content(kind):
    if kind is Attribute.AT_PADDING:
        return st.sampled_from(sorted(_FORMS[kind].sizes)).map(bytes)
    return st.sampled_from(sorted(_FORMS[kind].sizes)).flatmap(lambda size: st.binary(min_size=size, max_size=size))


pairs = st.sampled_from(Attribute).flatmap(lambda kind: st.tuples(st.just(kind), content(kind)))
messages = st.lists(
    pairs, max_size=12, unique_by=lambda pair: pair[0] if pair[0] not in _MAY_BE_SEVERAL else (pair[0], pair[1])
).filter(lambda chosen: len(encode_attributes(chosen)) < 8000)


@given(st.sampled_from(Subtype), messages)
def test_what_is_encoded_is_decoded(subtype, chosen):
    octets = encode_message(subtype, chosen)
    assert len(octets) % 4 == 3  # the fourth octet is the EAP type
    message = decode_message(octets)
    assert (message.subtype, message.pairs) == (subtype, tuple(chosen))
    assert decode_attributes(octets[3:]).pairs == tuple(chosen)
    if message.mac_at is not None:
        assert octets[message.mac_at : message.mac_at + 16] == message.need(Attribute.AT_MAC)


@given(st.binary(max_size=300))
def test_any_octets_are_read_or_refused(octets):
    try:
        message = decode_message(octets)
    except MalformedEap:
        return
    assert decode_message(encode_message(message.subtype, message.pairs)).pairs == message.pairs


@given(st.sampled_from(Subtype), messages, st.data())
def test_a_flipped_bit_is_another_message_or_refused(subtype, chosen, data):
    octets = bytearray(encode_message(subtype, chosen))
    octets[data.draw(st.integers(0, len(octets) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        decode_message(bytes(octets))
    except MalformedEap:
        pass


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        ("", "no known subtype"),
        ("0a00", "no known subtype"),
        ("030000", "no known subtype"),
        ("0a00000b", "cut off"),
        ("0a00000b000000", "length lies"),
        ("0a00000b050000", "length lies"),
        ("0a0000" + "0b050000" + "00" * 16 + "0b050000" + "00" * 16, "AT_MAC twice"),
        ("0a0000" + "7f010000", "must not be skipped"),
        ("0a0000" + "99010000" + "05010000", "must not be skipped"),
        ("0a0000" + "0b040000" + "00" * 12, "AT_MAC of the wrong size"),
        ("0a0000" + "0e0200054142434" + "4", "AT_IDENTITY whose length lies"),
        ("0a0000" + "0e03000141000000" + "00000000", "AT_IDENTITY whose length lies"),
        ("0a0000" + "0e02000141000001", "padding of AT_IDENTITY"),
        ("010000" + "0302001f41424344", "AT_RES whose length lies"),
        ("010000" + "0302001841424300", "AT_RES of the wrong size"),
        ("0d0000" + "06010001", "padding of AT_PADDING"),
        ("0a0000" + "0f020003" + "00010100", "AT_VERSION_LIST of the wrong size"),
        ("0a0000" + "99010000" * 65, "too many"),
        ("0a0000" + "99ff0000" + "00" * 1016 + ("99ff0000" + "00" * 1016) * 8, "too long"),
    ],
)
def test_what_breaks_the_rules_is_refused(octets, why):
    with pytest.raises(MalformedEap, match=why):
        decode_message(bytes.fromhex(octets))


def test_what_may_be_skipped_is_skipped():
    message = decode_message(bytes.fromhex("0a0000" + "99020000" + "ffffffff" + "11010000"))
    assert message.pairs == (flag(Attribute.AT_FULLAUTH_ID_REQ),)


def test_reserved_octets_are_not_looked_at():
    assert decode_message(bytes.fromhex("0affff" + "1101ffff")).pairs == (flag(Attribute.AT_FULLAUTH_ID_REQ),)


def test_what_does_not_belong_or_is_missing_is_named():
    message = decode_message(encode_message(Subtype.SIM_START, [number(Attribute.AT_COUNTER, 7)]))
    assert message.number(Attribute.AT_COUNTER) == 7 and Attribute.AT_COUNTER in message
    assert message.find(Attribute.AT_MAC) is None
    with pytest.raises(MalformedEap, match="without AT_MAC"):
        message.need(Attribute.AT_MAC)
    with pytest.raises(MalformedEap, match="AT_COUNTER that does not belong"):
        message.allow(Attribute.AT_MAC)
    assert message.allow(Attribute.AT_COUNTER) is message


def test_several_kdfs_keep_their_order():
    chosen = [number(Attribute.AT_KDF, 2), number(Attribute.AT_KDF, 1)]
    assert decode_attributes(encode_attributes(chosen)).all(Attribute.AT_KDF) == (b"\0\2", b"\0\1")


def test_content_that_does_not_fit_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="AT_MAC cannot have 15 octets"):
        encode_attributes([(Attribute.AT_MAC, bytes(15))])


def test_the_packets_of_rfc_4186_are_read_and_made_again():
    text = vector("crypto/rfc/rfc4186_eap_sim_appendix_a.txt").read_text()
    text = text[text.index("A.3.  EAP-Request/SIM/Start") :]
    packets = []
    for block in re.split(r"(?=\n +0[12] +; Code: Re)", text)[1:]:
        octets = bytes.fromhex("".join(re.findall(r"^ +((?:[0-9a-f]{2} ?)+)(?: *;.*)?$", block, re.MULTILINE)))
        packets.append(EapPacket.decode(octets))
    methods = [packet for packet in packets if packet.type == 18]
    assert [decode_message(packet.data).subtype for packet in methods] == [10, 10, 11, 11, 13]
    for packet in methods:
        message = decode_message(packet.data)
        assert encode_message(message.subtype, message.pairs) == packet.data

"""TLVs, PKCS #7, Cisco's fragments, Unity attributes: octets of docs/anyconnect.md, and hostile ones."""

from __future__ import annotations

import hashlib
import ipaddress

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization import pkcs7 as reference
from hypothesis import given
from hypothesis import strategies as st

from ikeway.auth.octets import eap_mac, signed_octets
from ikeway.crypto import new_prf
from ikeway.dialects.anyconnect import pkcs7, unity
from ikeway.dialects.anyconnect.fragments import MAX_AGE, MAX_PARTIAL, CiscoFragmentation
from ikeway.dialects.anyconnect.messages import FromGateway, Kind, encode_gateway
from ikeway.dialects.anyconnect.options import ANYCONNECT_CLIENT, METHOD, VENDOR_IDS
from ikeway.dialects.anyconnect.packet import MAX_TLVS, Tlv, TlvType, decode, encode, value_of
from ikeway.eap.errors import MalformedEap
from ikeway.eap.packet import EapCode, EapPacket
from ikeway.errors import WireError
from ikeway.wire.message import Header
from ikeway.wire.payloads import ConfigurationAttribute, IdInitiator
from ikeway.wire.registry import ConfigurationAttributeType as Attribute
from ikeway.wire.registry import IdentificationType, PseudorandomFunction
from tests.auth.pki import root

# --- constructed facts (no capture is at hand) ------------------------------------------------------------------------


def test_the_identity_s_octets():
    body = IdInitiator(ANYCONNECT_CLIENT.type, ANYCONNECT_CLIENT.value).body
    assert body.hex() == "c90000002a24416e79436f6e6e656374436c69656e74242a"


def test_the_vendor_ids():
    assert [len(octets) for octets in VENDOR_IDS] == [19, 55, 16, 14, 22, 20, 15]
    assert VENDOR_IDS[2] == hashlib.md5(b"FRAGMENTATION").digest()
    assert VENDOR_IDS[3].hex() == "434953434f2d4752452d4d4f4445"


def test_the_head_of_a_hello():
    xml = encode_gateway(FromGateway(Kind.HELLO))
    packet = EapPacket.of(EapCode.REQUEST, 1, METHOD, encode((Tlv(TlvType.XML, xml),))).encode()
    assert packet[:2].hex() == "0101"
    assert packet[4:18].hex() == "fe000009" + "44425250" + "0000" + len(xml).to_bytes(2).hex() + "3c3f"
    assert len(packet) == 12 + 4 + len(xml)


def test_pkcs7_around_a_dummy():
    expected = "302d06092a864886f70d010702a020301e0201013100300f06092a864886f70d010701a0020400a004300205003100"
    assert pkcs7.encode([bytes.fromhex("30020500")]).hex() == expected
    assert pkcs7.decode(bytes.fromhex(expected)) == (bytes.fromhex("30020500"),)


def test_a_fragment_of_a_message():
    message = bytes.fromhex("111111111111111122222222222222222e2023080000000" + "20000002c") + bytes(range(16))
    first, second = CiscoFragmentation().split(message, 28 + 8 + 24)
    assert first.hex().startswith("1111111111111111222222222222222284202308000000020000003c0000002000010100" + "11" * 8)
    assert second[24:36].hex() == "00000038" + "0000001c" + "00010201"
    assert first[36:] + second[36:] == message


@pytest.mark.parametrize(
    "kind,expected",
    [
        (201, "498897f2bf94b3ec83f4eb555dccbe13f11400a9af1727dc16e478f6e60a4093"),
        (11, "a261b449a304dca94e9089a72c0b272f6422e2e45937148e2538637137ef3123"),
    ],
)
def test_auth_without_a_key(kind, expected):
    prf, sk = new_prf(PseudorandomFunction.PRF_HMAC_SHA2_256), bytes(range(32))
    init = bytes.fromhex("0001020304050607" + "0000000000000000" + "21202208" + "00000000" + "0000001c")
    body = IdInitiator(IdentificationType(kind), ANYCONNECT_CLIENT.value).body
    octets = signed_octets(init, bytes(range(0x80, 0xA0)), prf, sk, body)
    assert eap_mac(prf, sk, octets).hex() == expected


# --- TLVs -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.builds(Tlv, st.integers(0, 0xFFFF), st.binary(max_size=40)), max_size=MAX_TLVS))
def test_tlvs_survive(tlvs):
    assert decode(encode(tlvs)) == tuple(tlvs)


@pytest.mark.parametrize("octets", ["00", "000000", "00000001", "00000001000001", "0000" * 2 * (MAX_TLVS + 1)])
def test_malformed_tlvs(octets):
    with pytest.raises(MalformedEap):
        decode(bytes.fromhex(octets))


def test_a_tlv_that_is_there_twice_is_refused():
    with pytest.raises(MalformedEap, match="2 times"):
        value_of((Tlv(0, b"a"), Tlv(0, b"b")), TlvType.XML)
    assert value_of((Tlv(2, b"a"), Tlv(2, b"b")), TlvType.XML) is None
    with pytest.raises(ValueError, match="length field"):
        encode((Tlv(0, bytes(65536)),))


@given(st.binary(max_size=64))
def test_any_octets_as_tlvs(octets):
    try:
        decode(octets)
    except MalformedEap:
        pass


# --- PKCS #7 ----------------------------------------------------------------------------------------------------------


def test_our_pkcs7_is_read_by_the_library_and_its_is_read_by_us():
    ca = root()
    node = ca.issue("alice")
    chain = [node.certificate.public_bytes(Encoding.DER), ca.certificate.public_bytes(Encoding.DER)]
    assert reference.load_der_pkcs7_certificates(pkcs7.encode(chain)) == [node.certificate, ca.certificate]
    usual = reference.serialize_certificates([node.certificate, ca.certificate], Encoding.DER)
    assert sorted(pkcs7.decode(usual)) == sorted(chain)  # without the empty content


@given(st.binary(max_size=100))
def test_any_octets_as_pkcs7(octets):
    try:
        pkcs7.decode(octets)
    except MalformedEap:
        pass


@given(st.data())
def test_changed_pkcs7(data):
    octets = bytearray(pkcs7.encode([bytes.fromhex("30020500")] * 3))
    at = data.draw(st.integers(0, len(octets) - 1))
    octets[at] = data.draw(st.integers(0, 255))
    try:
        pkcs7.decode(bytes(octets))
    except MalformedEap:
        pass


def test_bounds_of_pkcs7():
    with pytest.raises(MalformedEap):
        pkcs7.decode(pkcs7.encode([bytes.fromhex("30020500")] * 9))
    with pytest.raises(MalformedEap):
        pkcs7.decode(pkcs7.encode([]))


# --- fragments --------------------------------------------------------------------------------------------------------


def message_of(body: bytes, message_id: int = 2) -> bytes:
    head = b"\x11" * 8 + b"\x22" * 8 + bytes.fromhex("2e202308")
    return head + message_id.to_bytes(4) + (28 + len(body)).to_bytes(4) + body


def join(fragments: CiscoFragmentation, octets: bytes, now: float = 0.0) -> bytes | None:
    return fragments.join(Header.decode(octets), octets, now)


@given(st.binary(min_size=1, max_size=3000), st.integers(60, 600), st.randoms())
def test_fragments_in_any_order_with_doubles(body, room, random):
    whole = message_of(body)
    pieces = CiscoFragmentation().split(whole, room)
    assert all(len(piece) <= room for piece in pieces) or len(whole) > 255 * (room - 36)
    shuffled = pieces * 2
    random.shuffle(shuffled)
    receiver = CiscoFragmentation()
    found = [joined for piece in shuffled if (joined := join(receiver, piece)) is not None]
    assert found[0] == whole


def test_a_message_that_is_large_for_its_room_still_fits_the_count():
    pieces = CiscoFragmentation().split(message_of(bytes(20000)), 60)
    assert len(pieces) <= 255


def test_fragments_that_never_complete_make_room_for_others():
    receiver = CiscoFragmentation()
    for message_id in range(50):
        assert join(receiver, CiscoFragmentation().split(message_of(bytes(200), message_id), 100)[0]) is None
    assert len(receiver._partial) == MAX_PARTIAL


def test_fragments_that_are_too_old_do_not_count():
    pieces = CiscoFragmentation().split(message_of(bytes(100)), 100)
    receiver = CiscoFragmentation()
    assert join(receiver, pieces[0]) is None
    for piece in pieces[1:]:
        assert join(receiver, piece, MAX_AGE + 1) is None
    assert join(receiver, pieces[0], MAX_AGE + 2) == message_of(bytes(100))


def test_overlapping_fragments_begin_anew():
    """The newer try counts: what was forged before does not stay in the way."""
    forged = CiscoFragmentation().split(message_of(b"\xff" * 100), 100)
    pieces = CiscoFragmentation().split(message_of(bytes(100)), 100)
    receiver = CiscoFragmentation()
    assert join(receiver, forged[1]) is None
    assert [join(receiver, piece) for piece in (*pieces, pieces[0])][-1] == message_of(bytes(100))


def test_a_last_fragment_that_moves_begins_anew():
    pieces = CiscoFragmentation().split(message_of(bytes(200)), 100)
    receiver = CiscoFragmentation()
    join(receiver, pieces[-1])
    lying = bytearray(pieces[0])
    lying[35] = 1  # the first one says that it is the last
    with pytest.raises(WireError):
        join(receiver, bytes(lying))
    assert [join(receiver, piece) for piece in pieces][-1] == message_of(bytes(200))


def test_together_they_do_not_grow_without_bound():
    receiver = CiscoFragmentation()
    head = message_of(b"")[:16] + bytes.fromhex("84202308") + (2).to_bytes(4)

    def piece(number: int) -> bytes:
        octets = bytes(2) + (1008).to_bytes(2) + (1).to_bytes(2) + bytes((number, 0)) + bytes(1000)
        return head + (28 + len(octets)).to_bytes(4) + octets

    with pytest.raises(WireError, match="grows beyond"):
        for number in range(1, 256):
            join(receiver, piece(number))
    assert not receiver._partial


CHANGES = {"spi": (0, 9), "id": (23, 9), "length": (27, 9), "next payload": (16, 132), "response": (19, 0x28)}


@pytest.mark.parametrize("change", CHANGES)
def test_what_fragments_make_up_must_be_their_own_message(change):
    pieces = CiscoFragmentation().split(message_of(bytes(100)), 100)
    at, value = CHANGES[change]
    first = bytearray(pieces[0])
    first[36 + at] = value
    receiver = CiscoFragmentation()
    with pytest.raises(WireError):
        for piece in (bytes(first), *pieces[1:]):
            assert join(receiver, piece) is None


@pytest.mark.parametrize("lengths", [b"\0\0\0\7", b"\0\0\0\0", b"\0\0\xff\xff", b"\1\0\0\x09", b"\0\0\0\x08"])
def test_lying_lengths(lengths):
    """Less than the header of a fragment was CVE-2016-1287 on the other side."""
    octets = message_of(b"")[:16] + bytes.fromhex("8420230800000002") + (37).to_bytes(4) + lengths + b"\0\1\1\1x"
    with pytest.raises(WireError):
        join(CiscoFragmentation(), octets)


@given(st.lists(st.tuples(st.binary(max_size=40), st.floats(0, 100)), max_size=12))
def test_any_fragments(pieces):
    receiver = CiscoFragmentation()
    for octets, now in pieces:
        whole = message_of(b"")[:16] + bytes.fromhex("8420230800000002") + (28 + len(octets)).to_bytes(4) + octets
        try:
            join(receiver, whole, now)
        except WireError:
            pass
        assert len(receiver._partial) <= MAX_PARTIAL


# --- Unity ------------------------------------------------------------------------------------------------------------

NETWORKS = (ipaddress.IPv4Network("10.1.0.0/16"), ipaddress.IPv4Network("192.0.2.7/32"))


def test_what_a_gateway_says_is_what_a_client_understands():
    said = unity.encode(
        banner="Welcome\x1b[31m",
        default_domain="example.com",
        split_dns=("a.example", "b.example"),
        split_include=NETWORKS,
    )
    assert [int(each.type) for each in said] == [28672, 28674, 28675, 28676]
    assert said[3].value.hex() == "0a010000ffff000000000000" + "0000" + "c0000207ffffffff" + "000000000000"
    address = ConfigurationAttribute(Attribute.INTERNAL_IP4_ADDRESS, b"\x0a\x00\x00\x07")
    reading = unity.read_reply((address, *said))
    assert reading.attributes == (
        address,
        ConfigurationAttribute(Attribute.INTERNAL_DNS_DOMAIN, b"example.com"),
        ConfigurationAttribute(Attribute.INTERNAL_DNS_DOMAIN, b"a.example"),
        ConfigurationAttribute(Attribute.INTERNAL_DNS_DOMAIN, b"b.example"),
        ConfigurationAttribute(Attribute.INTERNAL_IP4_SUBNET, bytes.fromhex("0a010000ffff0000")),
        ConfigurationAttribute(Attribute.INTERNAL_IP4_SUBNET, bytes.fromhex("c0000207ffffffff")),
    )
    (note,) = reading.notes
    assert "Welcome" in note
    assert "\x1b" not in note


def test_nothing_is_said_of_what_is_empty():
    assert unity.encode(banner="", default_domain="", split_dns=(), split_include=()) == ()


@pytest.mark.parametrize("value", ["00", "0a010000ff00ff00000000000000", "00" * 14 * 257])
def test_networks_that_make_no_sense_are_left_out(value):
    reading = unity.read_reply((ConfigurationAttribute(unity.SPLIT_INCLUDE, bytes.fromhex(value)),))
    assert reading.attributes == ()
    assert len(reading.notes) == 1


def test_unknown_attributes_are_left_alone():
    unknown = tuple(ConfigurationAttribute(Attribute(number), b"?") for number in (28683, 28727, 28729))
    assert unity.read_reply(unknown).attributes == unknown


@given(st.lists(st.builds(ConfigurationAttribute, st.integers(28672, 28685).map(Attribute), st.binary(max_size=60))))
def test_any_attributes(attributes):
    unity.read_reply(tuple(attributes))

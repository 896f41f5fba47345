"""Every way in which octets are not a message: a `WireError` that says where and why, and bounded work."""

from __future__ import annotations

import time

import pytest

from ikeway.errors import IkewayError, Side, WireError
from ikeway.wire import (
    Eap,
    Encrypted,
    Header,
    Message,
    Nonce,
    NotifyType,
    PayloadType,
    UnknownPayload,
    UnsupportedCriticalPayload,
    UnsupportedVersion,
    decode_payloads,
)
from ikeway.wire import decode as limits

HEADER = "0001020304050607 08090a0b0c0d0e0f {first:02x} 20 25 08 00000001 {length:08x}"
TRANSFORM = "0300000801000003"  # ENCR_3DES, more to come
LAST_TRANSFORM = "0000000801000003"


def with_header(first: int, body: bytes, *, length: int | None = None) -> bytes:
    return bytes.fromhex(HEADER.format(first=first, length=28 + len(body) if length is None else length)) + body


def refused(first: int, body: str) -> WireError:
    """The error for one payload body, asked with and without a header around it."""
    octets = bytes.fromhex(body)
    octets = (4 + len(octets)).to_bytes(4, "big") + octets
    with pytest.raises(WireError) as alone:
        decode_payloads(PayloadType(first), octets)
    with pytest.raises(WireError) as in_message:
        Message.decode(with_header(first, octets))
    with pytest.raises(WireError) as shifted:
        decode_payloads(PayloadType(first), octets, 28)
    assert in_message.value.offset == shifted.value.offset == alone.value.offset + 28
    assert alone.value.reason == in_message.value.reason
    assert alone.value.side is Side.PEER
    assert f"at octet {alone.value.offset}" in str(alone.value).partition("(")[0]
    return alone.value


@pytest.mark.parametrize("length", range(28))
def test_short_headers(length):
    with pytest.raises(WireError, match="header is cut short"):
        Message.decode(with_header(0, b"")[:length])


@pytest.mark.parametrize("length", [0, 27, 29, 0xFFFFFFFF])
def test_lengths_that_lie(length):
    with pytest.raises(WireError, match="length") as caught:
        Message.decode(with_header(0, b"", length=length))
    assert caught.value.offset == 24


@pytest.mark.parametrize(("version", "remedy"), [(0x10, "use IKEv2"), (0x11, "use IKEv2"), (0x30, "offer IKEv2 too")])
def test_other_major_versions(version, remedy):
    octets = bytearray(with_header(0, b""))
    octets[17] = version
    with pytest.raises(UnsupportedVersion) as caught:
        Message.decode(bytes(octets))
    assert caught.value.version == version >> 4
    assert caught.value.offset == 17
    assert remedy in str(caught.value)
    assert caught.value.header.initiator_spi == octets[:8]


def test_minor_versions_and_reserved_flags_are_ignored():
    octets = bytearray(with_header(0, b""))
    octets[17] = 0x2F
    octets[19] = 0xFF
    header = Header.decode(octets)
    assert (header.version, header.higher_version, header.is_initiator, header.is_response) == (0x2F, True, True, True)
    assert Message.decode(bytes(octets)).version == 0x2F


def test_reserved_bits_of_a_known_payload_are_ignored():
    assert decode_payloads(PayloadType.NONCE, bytes.fromhex("00ff0014") + bytes(16)) == (Nonce(bytes(16)),)


@pytest.mark.parametrize("octets", ["", "00", "0000", "000000"])
def test_payload_header_cut_short(octets):
    with pytest.raises(WireError, match="payload header is cut short"):
        decode_payloads(PayloadType.NONCE, bytes.fromhex(octets))


@pytest.mark.parametrize("length", [0, 3, 21, 0xFFFF])
def test_payload_lengths(length):
    with pytest.raises(WireError, match="payload length") as caught:
        decode_payloads(PayloadType.NONCE, bytes(2) + length.to_bytes(2, "big") + bytes(16))
    assert caught.value.offset == 2
    assert caught.value.got == str(length)


def test_octets_after_the_last_payload():
    with pytest.raises(WireError, match="octets follow the last payload") as caught:
        decode_payloads(PayloadType.NONCE, bytes.fromhex("00000014") + bytes(17))
    assert caught.value.offset == 20
    with pytest.raises(WireError):
        decode_payloads(PayloadType.NONE, b"x")


def test_encrypted_is_the_last():
    octets = bytes.fromhex("2900000829aabbcc") + bytes.fromhex("00000008000040 02".replace(" ", ""))
    with pytest.raises(WireError, match="octets follow the last payload") as caught:
        decode_payloads(PayloadType.SK, octets)
    assert caught.value.offset == 8
    assert decode_payloads(PayloadType.SK, octets[:8]) == (Encrypted(PayloadType.NOTIFY, b"\x29\xaa\xbb\xcc"),)


def test_unknown_critical_payload():
    octets = bytes.fromhex("c8000005 aa 00800005 bb".replace(" ", ""))
    with pytest.raises(UnsupportedCriticalPayload) as caught:
        decode_payloads(PayloadType(199), octets, 28)
    assert caught.value.payload_type == 200
    assert caught.value.offset == 33
    assert isinstance(caught.value, IkewayError)
    assert decode_payloads(PayloadType(199), octets, refuse_critical=False) == (
        UnknownPayload(PayloadType(199), False, b"\xaa"),
        UnknownPayload(PayloadType(200), True, b"\xbb"),
    )


@pytest.mark.parametrize(
    ("body", "reason", "offset"),
    [
        ("", "proposal is cut short", 4),
        ("00000008010100", "proposal is cut short", 4),
        ("0000000701010000", "proposal length", 6),
        ("0000000901010000", "proposal length", 6),
        ("0000ffff01010000", "proposal length", 6),
        ("0000000801010800", "proposal length", 6),  # the SPI does not fit
        ("0200000801010000", "last-proposal mark", 4),  # more promised
        ("00000008010100000000000801010000", "last-proposal mark", 4),  # none promised
        ("0100000801010000", "last-proposal mark", 4),
        ("0000000c0101040001020304", "SPI size", 10),  # IKE with 4
        ("0000000801030000", "SPI size", 10),  # ESP with none
        ("0000000801010001", "transform is cut short", 12),
        ("0000001001010002" + LAST_TRANSFORM, "last-transform mark", 12),
        ("0000001001010001" + TRANSFORM, "last-transform mark", 12),
        ("0000001801010002" + TRANSFORM + TRANSFORM, "last-transform mark", 20),
        ("0000001801010001" + LAST_TRANSFORM + LAST_TRANSFORM, "octets follow the last transform", 20),
        ("0000001001010001" + "0000000701000003", "transform length", 14),
        ("0000001001010001" + "0000000901000003", "transform length", 14),
        ("0000001301010001" + "0000000b01000003800e00", "attribute is cut short", 20),
        ("0000001401010001" + "0000000c01000003000e0001", "attribute length", 22),
        ("0000001801010001" + "0000001001000003800e0080" + "000f0001", "attribute length", 26),
    ],
)
def test_security_associations(body, reason, offset):
    error = refused(PayloadType.SA, body)
    assert reason in error.reason
    assert error.offset == offset


@pytest.mark.parametrize(
    ("first", "body", "reason", "offset"),
    [
        (PayloadType.KE, "001f00", "key exchange payload is cut short", 4),
        (PayloadType.IDI, "", "identification payload is cut short", 4),
        (PayloadType.IDR, "020000", "identification payload is cut short", 4),
        (PayloadType.CERT, "", "certificate payload is cut short", 4),
        (PayloadType.CERTREQ, "", "certificate request payload is cut short", 4),
        (PayloadType.AUTH, "020000", "authentication payload is cut short", 4),
        (PayloadType.NONCE, "00" * 15, "nonce length", 4),
        (PayloadType.NONCE, "00" * 257, "nonce length", 4),
        (PayloadType.NOTIFY, "000040", "notify payload is cut short", 4),
        (PayloadType.NOTIFY, "0304400901020", "SPI length", 5),
        (PayloadType.DELETE, "030400", "delete payload is cut short", 4),
        (PayloadType.DELETE, "0308000100000000", "SPI size of a delete", 5),
        (PayloadType.DELETE, "0104000100000000", "SPI size of a delete", 5),
        (PayloadType.DELETE, "03040002aabbccdd", "do not fill it", 8),
        (PayloadType.DELETE, "03040001aabbccddee", "do not fill it", 8),
        (PayloadType.DELETE, "01000000aa", "do not fill it", 8),
        (PayloadType.DELETE, "0304ffff", "too many SPIs", 6),
        (PayloadType.TSI, "010000", "traffic selector payload is cut short", 4),
        (PayloadType.TSI, "01000000", "traffic selector is cut short", 8),
        (PayloadType.TSI, "01000000070000", "traffic selector is cut short", 8),
        (PayloadType.TSR, "0100000007000010" + "00" * 11, "traffic selector length", 10),
        (PayloadType.TSR, "0100000007000011" + "00" * 13, "traffic selector length", 10),
        (PayloadType.TSR, "0100000008000010" + "00" * 12, "traffic selector length", 10),
        (PayloadType.TSR, "010000000a000003", "traffic selector length", 10),
        (PayloadType.TSR, "0000000007000010" + "00" * 12, "octets follow the last traffic selector", 8),
        (PayloadType.CP, "010000", "configuration payload is cut short", 4),
        (PayloadType.CP, "01000000000100", "configuration attribute is cut short", 8),
        (PayloadType.CP, "0100000000010001", "configuration attribute length", 10),
        (PayloadType.SKF, "000100", "encrypted fragment payload is cut short", 4),
        (PayloadType.SKF, "00000001", "fragment number", 4),
        (PayloadType.SKF, "00020001", "fragment number", 4),
        (PayloadType.SKF, "00010000", "fragment number", 4),
    ],
)
def test_other_payloads(first, body, reason, offset):
    error = refused(first, body if len(body) % 2 == 0 else body[:-1])
    assert reason in error.reason
    assert error.offset == offset


def test_a_delete_of_the_ike_sa_may_count_what_it_does_not_list():
    (delete,) = decode_payloads(PayloadType.DELETE, bytes.fromhex("0000000801000001"))
    assert delete.spis == ()


def test_reserved_bit_of_a_configuration_attribute_is_ignored():
    (configuration,) = decode_payloads(PayloadType.CP, bytes.fromhex("0000000c 01000000 8001 0000".replace(" ", "")))
    assert configuration.attributes[0].type == 1


def test_what_is_not_looked_into():
    assert decode_payloads(PayloadType.EAP, bytes.fromhex("00000004")) == (Eap(b""),)


def too_many_payloads() -> tuple[int, bytes]:
    return PayloadType.VENDOR_ID, bytes.fromhex("2b000004") * limits.MAX_PAYLOADS + bytes.fromhex("00000004")


def too_many_proposals() -> tuple[int, bytes]:
    body = bytes.fromhex("0200000801010000") * limits.MAX_PROPOSALS + bytes.fromhex("0000000801010000")
    return PayloadType.SA, bytes(2) + (4 + len(body)).to_bytes(2, "big") + body


def too_many_transforms() -> tuple[int, bytes]:
    count = 200
    one = bytes.fromhex(TRANSFORM) * (count - 1) + bytes.fromhex(LAST_TRANSFORM)
    proposals = limits.MAX_TRANSFORMS // count + 1
    body = b"".join(
        bytes([0 if i == proposals - 1 else 2, 0]) + (8 + len(one)).to_bytes(2, "big") + bytes([1, 1, 0, count]) + one
        for i in range(proposals)
    )
    return PayloadType.SA, bytes(2) + (4 + len(body)).to_bytes(2, "big") + body


def too_many_attributes() -> tuple[int, bytes]:
    attributes = bytes.fromhex("800e0080") * (limits.MAX_ATTRIBUTES + 1)
    transform = bytes(2) + (8 + len(attributes)).to_bytes(2, "big") + bytes.fromhex("0100000c") + attributes
    proposal = bytes(2) + (8 + len(transform)).to_bytes(2, "big") + bytes.fromhex("01010001") + transform
    return PayloadType.SA, bytes(2) + (4 + len(proposal)).to_bytes(2, "big") + proposal


def too_many_spis() -> tuple[int, bytes]:
    count = limits.MAX_SPIS + 1
    body = b"\x03\x04" + count.to_bytes(2, "big") + bytes(4 * count)
    return PayloadType.DELETE, bytes(2) + (4 + len(body)).to_bytes(2, "big") + body


def too_many_configuration_attributes() -> tuple[int, bytes]:
    body = bytes.fromhex("01000000") + bytes.fromhex("00010000") * (limits.MAX_CONFIGURATION_ATTRIBUTES + 1)
    return PayloadType.CP, bytes(2) + (4 + len(body)).to_bytes(2, "big") + body


@pytest.mark.parametrize(
    "make",
    [
        too_many_payloads,
        too_many_proposals,
        too_many_transforms,
        too_many_attributes,
        too_many_spis,
        too_many_configuration_attributes,
    ],
)
def test_limits(make):
    first, octets = make()
    with pytest.raises(WireError, match="too many"):
        decode_payloads(PayloadType(first), octets)


def test_the_worst_that_fits_a_datagram_takes_bounded_time():
    """As many small values as the limits allow, of the slowest kind: transforms that no cache has seen."""
    start = time.process_time()
    transforms = b"".join(
        bytes([3 if i % 255 < 254 and i < 1019 else 0, 0, 0, 8, i & 0xFF, i >> 8, 0xF0, i & 0xFF]) for i in range(1020)
    )
    proposals = [transforms[i * 8 * 255 : (i + 1) * 8 * 255] for i in range(4)]
    body = b"".join(
        bytes([0 if i == 3 else 2, 0]) + (8 + len(p)).to_bytes(2, "big") + bytes([i + 1, 1, 0, 255]) + p
        for i, p in enumerate(proposals)
    )
    payload = (4 + len(body)).to_bytes(2, "big") + body
    octets = (bytes([33, 0]) + payload) * 6 + bytes([0, 0]) + payload
    assert len(octets) < 65535
    start = time.process_time()
    payloads = decode_payloads(PayloadType.SA, octets)
    assert time.process_time() - start < 0.5  # about 15 ms here
    assert sum(len(proposal.transforms) for sa in payloads for proposal in sa.proposals) == 7 * 1020


def test_notify_of_an_error_is_decoded_as_such():
    (notify,) = decode_payloads(PayloadType.NOTIFY, bytes.fromhex("000000080000000e"))
    assert notify.type is NotifyType.NO_PROPOSAL_CHOSEN and notify.type.is_error

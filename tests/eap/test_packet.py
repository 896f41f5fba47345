"""The EAP packet codec: total, exact, and faithful."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.eap.errors import MalformedEap
from ikeway.eap.packet import EapCode, EapPacket, EapType, MethodType

exchanges = st.builds(
    EapPacket,
    st.sampled_from([EapCode.REQUEST, EapCode.RESPONSE]),
    st.integers(0, 255),
    st.integers(0, 255),
    st.binary(max_size=300),
)
endings = st.builds(EapPacket, st.sampled_from([EapCode.SUCCESS, EapCode.FAILURE]), st.integers(0, 255))


@given(exchanges | endings, st.binary(max_size=8))
def test_round_trip_also_with_padding_behind(packet: EapPacket, padding: bytes) -> None:
    assert EapPacket.decode(packet.encode() + padding) == packet


@given(st.binary(max_size=64))
def test_any_octets_decode_or_raise_a_typed_error(octets: bytes) -> None:
    try:
        packet = EapPacket.decode(octets)
        kind = packet.method if packet.type is not None else None
    except MalformedEap as error:
        assert error.reason
        assert error.expected
    else:
        assert packet.encode() == octets[: len(packet.encode())]
        if kind is not None:
            assert kind.prefix == packet.encode()[4 : 4 + len(kind.prefix)] or kind.vendor == 0


@pytest.mark.parametrize(
    ("octets", "got"),
    [
        ("", "0"),
        ("0100", "2"),
        ("01000006" + "01", "6"),
        ("01000003" + "01", "3"),
        ("01000004", "4"),
        ("0300000500", "5"),
        ("0900000501", "9"),
    ],
)
def test_malformed_packets_say_what_is_wrong(octets: str, got: str) -> None:
    with pytest.raises(MalformedEap) as caught:
        EapPacket.decode(bytes.fromhex(octets))
    assert caught.value.got == got


def test_expanded_types() -> None:
    cisco = MethodType(9, 255)
    packet = EapPacket.of(EapCode.REQUEST, 7, cisco, b"hello")
    assert packet.encode().hex() == "01070011fe000009000000ff68656c6c6f"
    assert EapPacket.decode(packet.encode()).method == cisco
    assert packet.method_data == b"hello"
    assert str(cisco) == "expanded type 9:255"
    plain = EapPacket(EapCode.REQUEST, 7, EapType.EXPANDED, bytes.fromhex("0000000000001a") + b"x")
    assert plain.method == MethodType(0, EapType.MSCHAPV2)
    assert str(plain.method) == "MSCHAPV2"
    assert plain.method_data == b"x"
    with pytest.raises(MalformedEap):
        _ = EapPacket(EapCode.REQUEST, 7, EapType.EXPANDED, b"short").method


def test_a_packet_that_does_not_fit_is_not_made() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        EapPacket(EapCode.REQUEST, 0, 1, bytes(65531)).encode()

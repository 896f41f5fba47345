"""Attribute-value pairs: the octets of RFC 5281 section 10, and what breaks them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.eap.errors import MalformedEap
from ikeway.eap.tunnel.avp import (
    MAX_AVPS,
    MICROSOFT,
    Avp,
    AvpCode,
    MicrosoftAvp,
    decode_avps,
    encode_avps,
    joined,
    refuse_unknown,
)

AVPS = st.builds(
    Avp, st.integers(0, 2**32 - 1), st.binary(max_size=300), st.sampled_from([0, 0, 311, 2**32 - 1]), st.booleans()
)


@given(st.lists(AVPS, max_size=8))
def test_pairs_are_what_they_were(avps: list[Avp]) -> None:
    assert decode_avps(encode_avps(avps)) == tuple(avps)


def test_octets() -> None:
    assert Avp(AvpCode.USER_NAME, b"alice").encode().hex() == "000000014000000d" + b"alice".hex() + "000000"
    success = Avp(MicrosoftAvp.CHAP2_SUCCESS, b"\x01S=", MICROSOFT)
    assert success.encode().hex() == "0000001ac000000f00000137" + "01533d" + "00"


def test_the_last_padding_may_be_missing() -> None:
    octets = Avp(AvpCode.USER_NAME, b"bob").encode()
    assert decode_avps(octets[:-1]) == decode_avps(octets) == (Avp(AvpCode.USER_NAME, b"bob"),)


@pytest.mark.parametrize(
    "octets",
    [
        b"\0\0\0\1",
        b"\0\0\0\1\x40\0\0\7",
        b"\0\0\0\1\x40\0\0\x09",
        b"\0\0\0\1\xc0\0\0\x0b\0\0\1\x37",
        b"\0\0\0\1\x40\xff\xff\xff" + bytes(100),
        encode_avps([Avp(1, b"")] * (MAX_AVPS + 1)),
    ],
)
def test_what_breaks_the_rules(octets: bytes) -> None:
    with pytest.raises(MalformedEap):
        decode_avps(octets)


@given(st.binary(max_size=400))
def test_garbage(octets: bytes) -> None:
    try:
        decode_avps(octets)
    except MalformedEap:
        pass


def test_a_mandatory_pair_that_nobody_knows() -> None:
    refuse_unknown([Avp(99, b"", 0, False), Avp(AvpCode.REPLY_MESSAGE, b"")])
    for avp in (Avp(99, b""), Avp(25, b"", 9), Avp(99, b"", MICROSOFT)):
        with pytest.raises(MalformedEap, match="mandatory"):
            refuse_unknown([avp])


def test_pieces_are_joined() -> None:
    avps = [Avp(AvpCode.EAP_MESSAGE, b"ab"), Avp(1, b"x"), Avp(AvpCode.EAP_MESSAGE, b"cd")]
    assert joined(avps, AvpCode.EAP_MESSAGE) == b"abcd"
    assert joined(avps, AvpCode.EAP_MESSAGE, MICROSOFT) is None


def test_values_are_in_no_repr() -> None:
    assert "secret" not in repr(Avp(AvpCode.USER_PASSWORD, b"secret"))

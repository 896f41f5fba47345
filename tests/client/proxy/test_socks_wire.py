"""SOCKS5's octets: what is written is read again, and nothing that is not SOCKS gets through."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.client.proxy.socks_wire import (
    Kind,
    Malformed,
    Reply,
    Target,
    UnknownKind,
    decode_datagram,
    decode_target,
    encode_datagram,
    encode_reply,
)

ports = st.integers(0, 65535)
names = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255)
hosts = st.one_of(
    st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).filter(lambda each: each.scope_id is None).map(str), names
)
targets = st.builds(Target, hosts, ports)


def same(one: str, other: str) -> bool:
    try:
        return IPv6Address(one) == IPv6Address(other)
    except ValueError:
        return one == other


@given(targets, st.binary(max_size=64))
def test_a_target_is_read_as_it_was_written(target, rest):
    found = decode_target(target.encode() + rest)
    assert not isinstance(found, int)
    assert found[1] == len(target.encode())
    assert same(found[0].host, target.host)
    assert found[0].port == target.port


@given(targets)
def test_a_target_in_pieces_says_how_much_is_missing(target):
    """Reading just what is asked for never reads too much, and comes to an end."""
    octets, taken, rounds = target.encode(), b"", 0
    while isinstance(found := decode_target(taken), int):
        assert len(taken) < found <= len(octets)
        taken, rounds = octets[:found], rounds + 1
    assert taken == octets
    assert rounds <= 2


@given(st.binary(max_size=600))
def test_any_octets_are_a_target_too_few_or_malformed(octets):
    try:
        found = decode_target(octets)
    except Malformed:
        return
    if isinstance(found, int):
        assert len(octets) < found <= 2 + 255 + 2
    else:
        target, size = found
        assert size <= len(octets)
        assert target.host.isascii()
        assert not set(target.host) & set("\0\r\n \t")


@given(st.binary(max_size=600))
def test_any_datagram_is_read_or_refused(octets):
    try:
        target, payload = decode_datagram(octets)
    except Malformed:
        return
    assert octets.endswith(payload)
    assert 0 <= target.port < 65536


@given(targets, st.binary(max_size=100))
def test_datagrams(target, payload):
    assert decode_datagram(encode_datagram(target, payload))[1] == payload


def test_kinds_that_are_none():
    for kind in set(range(256)) - set(Kind):
        with pytest.raises(UnknownKind):
            decode_target(bytes([kind]) + bytes(20))


@pytest.mark.parametrize("name", [b"a b", b"a\0b", b"a\r\nb", b"\xff", b"a\x7f"])
def test_names_that_are_none(name):
    with pytest.raises(Malformed):
        decode_target(b"\x03" + bytes([len(name)]) + name + b"\0\x50")


def test_a_fragment_is_refused():
    with pytest.raises(Malformed, match="fragment"):
        decode_datagram(b"\0\0\1" + Target("192.0.2.1", 53).encode())


def test_a_reply():
    """RFC 1928 section 6: VER, REP, RSV, ATYP, address, port."""
    assert (
        encode_reply(Reply.SUCCEEDED, Target("192.0.2.1", 80)) == b"\5\0\0\1" + IPv4Address("192.0.2.1").packed + b"\0P"
    )

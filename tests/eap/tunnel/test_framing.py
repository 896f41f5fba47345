"""Fragments of TLS in EAP: any message passes, nothing hostile gets further than its bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.eap.errors import MalformedEap
from ikeway.eap.tunnel.framing import MAX_FRAGMENTS, MAX_MESSAGE, Frame, Framing, read_start, start_packet


def carry(sender: Framing, receiver: Framing) -> bytes:
    """The message that arrives, after all acknowledgements."""
    while (message := receiver.take(sender.emit())) is None:
        assert sender.take(receiver.emit()) is None
    return message


@given(messages=st.lists(st.binary(max_size=3000), min_size=1, max_size=4), fragment=st.integers(256, 1500))
def test_messages_both_ways(messages: list[bytes], fragment: int) -> None:
    ours, theirs = Framing(fragment=fragment), Framing(version=1, fragment=400)
    for message in messages:
        ours.send(message)
        assert carry(ours, theirs) == message
        theirs.send(message[::-1])
        assert carry(theirs, ours) == message[::-1]


def test_only_the_first_of_several_names_the_length() -> None:
    framing = Framing(fragment=300)
    framing.send(bytes(700))
    first = Frame.decode(framing.emit())
    assert (first.flags, first.length, len(first.octets)) == (0xC0, 700, 300)
    assert framing.take(b"\0") is None
    assert Frame.decode(framing.emit()).flags == 0x40
    assert framing.take(b"") is None
    last = Frame.decode(framing.emit())
    assert (last.flags, last.length, len(last.octets)) == (0, None, 100)


def test_a_length_in_every_fragment() -> None:
    framing = Framing()
    assert framing.take(Frame(0xC0, 4, b"ab").encode()) is None
    assert framing.emit() == b"\0"
    assert framing.take(Frame(0x80, 4, b"cd").encode()) == b"abcd"


@pytest.mark.parametrize(
    "packets",
    [
        [Frame(0xC0, MAX_MESSAGE + 1, b"x")],
        [Frame(0xC0, 0xFFFFFFFF, b"x")],
        [Frame(0x80, 5, b"four")],
        [Frame(0x80, 3, b"four")],
        [Frame(0xC0, 10, b"12345"), Frame(0x80, 11, b"12345")],
        [Frame(0xC0, 10, b"12345"), Frame(0, None, b"123")],
        [Frame(0xC0, 10, b"12345"), Frame(0x40, None, b"123456")],
        [Frame(0x40, None, b"")],
        [Frame(0x20, None, b"")],
        [Frame(0x40, None, b"x")] * (MAX_FRAGMENTS + 1),
        [Frame(0x40, None, bytes(30000))] * 3,
    ],
)
def test_what_breaks_the_bounds(packets: list[Frame]) -> None:
    framing = Framing()
    with pytest.raises(MalformedEap):
        for packet in packets:
            assert framing.take(packet.encode()) is None
            framing.emit()


def test_octets_where_an_acknowledgement_is_due() -> None:
    framing = Framing(fragment=256)
    framing.send(bytes(400))
    framing.emit()
    with pytest.raises(MalformedEap, match="acknowledgement"):
        framing.take(b"\0more")


@given(st.lists(st.binary(max_size=40), max_size=80))
def test_garbage_is_refused_or_bounded(packets: list[bytes]) -> None:
    framing = Framing()
    total = 0
    for packet in packets:
        try:
            message = framing.take(packet)
        except MalformedEap:
            return
        total = total + len(packet) if message is None else 0
        assert total <= MAX_MESSAGE
        framing.emit()


@given(st.integers(0, 255), st.none() | st.integers(0, 2**32 - 1), st.binary(max_size=64))
def test_frames_are_what_they_were(flags: int, length: int | None, octets: bytes) -> None:
    flags = flags | 0x80 if length is not None else flags & 0x7F
    frame = Frame(flags, length, octets)
    assert Frame.decode(frame.encode()) == frame


def test_the_start() -> None:
    assert start_packet(1) == b"\x21"
    assert read_start(b"\x21") == 1
    assert read_start(b"\x20\0\0") == 0
    for octets in (b"", b"\0", b"\x60", b"\x80\0"):
        with pytest.raises(MalformedEap):
            read_start(octets)

"""Sealing and opening, and what hostile octets do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ikeway.esp.drops import Drop
from ikeway.esp.frames import FrameBuffer, Frames
from ikeway.esp.inbound import InboundSa, Opened, strip
from ikeway.esp.outbound import OutboundSa
from ikeway.esp.parameters import EspLimits, EspSa
from ikeway.esp.sequence import LAST_SHORT
from tests.esp.material import SUITES, esp_sa


def pair(suite: str = "aes128gcm16", **changes: object) -> tuple[OutboundSa, InboundSa]:
    sa = esp_sa(suite, **changes)
    return OutboundSa(sa), InboundSa(sa)


def sealed(sender: OutboundSa, payload: bytes = b"payload", next_header: int = 4) -> bytes:
    packet = sender.seal(payload, next_header)
    assert isinstance(packet, bytes)
    return packet


@pytest.mark.parametrize("esn", [False, True], ids=["", "esn"])
@pytest.mark.parametrize("suite", SUITES)
def test_what_is_sealed_opens(suite: str, esn: bool) -> None:
    sender, receiver = pair(suite, esn=esn)
    for length in (0, 1, 2, 3, 4, 13, 14, 15, 16, 17, 1400):
        payload = bytes(length)
        packet = sealed(sender, payload, 41)
        assert len(packet) == length + sender.overhead(length)
        assert (len(packet) - receiver._head - receiver._cipher.icv_octets) % 4 == 0
        assert receiver.open(packet) == Opened(payload, 41)
        assert receiver.open(packet) == Drop.REPLAYED


@pytest.mark.parametrize("suite", SUITES)
def test_the_longest_payload_for_a_room(suite: str) -> None:
    sender = OutboundSa(esp_sa(suite))
    for room in range(100, 200):
        largest = sender.largest_payload(room)
        assert largest + sender.overhead(largest) <= room
        assert largest + 1 + sender.overhead(largest + 1) > room


@pytest.mark.parametrize("suite", SUITES)
def test_every_changed_octet_is_noticed(suite: str) -> None:
    sender, receiver = pair(suite, esn=True)
    packet = sealed(sender)
    for at in range(4, len(packet)):  # the SPI is what led here
        changed = bytearray(packet)
        changed[at] ^= 0x40
        assert isinstance(receiver.open(bytes(changed)), Drop), at
    assert receiver.window.highest == 0
    assert isinstance(receiver.open(packet), Opened)


@given(octets=st.binary(max_size=200), suite=st.sampled_from(sorted(SUITES)), esn=st.booleans())
@settings(max_examples=400)
def test_hostile_octets_are_dropped_for_a_reason(octets: bytes, suite: str, esn: bool) -> None:
    receiver = InboundSa(esp_sa(suite, esn=esn))
    assert receiver.open(octets) in (Drop.TOO_SHORT, Drop.REPLAYED, Drop.TOO_OLD, Drop.INTEGRITY)
    assert receiver.window.highest == 0


@given(plain=st.binary(min_size=1, max_size=64))
def test_any_authentic_plaintext_opens_or_is_dropped(plain: bytes) -> None:
    sender, receiver = pair()
    plain += bytes(-len(plain) % 4)
    packet = sender.seal_padded(plain, 0)
    padding = plain[-2]
    opened = receiver.open(packet)
    if plain[-1] == 59:
        assert opened == Drop.DUMMY
    elif padding + 2 <= len(plain) and plain[len(plain) - 2 - padding : -2] == bytes(range(1, padding + 1)):
        assert opened == Opened(plain[: len(plain) - 2 - padding], plain[-1])
    else:
        assert opened == Drop.PADDING


def test_more_padding_than_needed_is_accepted() -> None:
    sender, receiver = pair()
    packet = sender.seal_padded(b"load" + bytes(range(1, 255)) + bytes((254, 4)), 4)
    assert receiver.open(packet) == Opened(b"load", 4)


def test_late_packets_are_accepted_within_the_window() -> None:
    sender, receiver = pair(replay_window=2)
    first, second, third = (sealed(sender) for _ in range(3))
    results = [receiver.open(p) for p in (third, second, first)]
    assert isinstance(results[0], Opened)
    assert isinstance(results[1], Opened)
    assert results[2] == Drop.TOO_OLD


def filled(sender: OutboundSa, payloads: list[bytes]) -> Frames:
    """Frames with payloads of one length and their trailers in them."""
    trailer = sender.trailer(len(payloads[0]), 4)
    shape = sender.shape(len(payloads[0]) + len(trailer))
    frames = FrameBuffer(len(payloads) * shape.size).frames(shape, len(payloads))
    for room, payload in zip(frames.plain, payloads, strict=True):
        room[:] = payload + trailer
    return frames


def received(receiver: InboundSa, packets: list[bytes]) -> Frames:
    """Packets of one length as they come in."""
    frames = FrameBuffer(sum(map(len, packets))).frames(receiver.shape(len(packets[0])), len(packets))
    for number, packet in enumerate(packets):
        frames.row(number)[:] = packet
    return frames


def rows(frames: Frames) -> list[bytes]:
    return [bytes(frames.row(number)) for number in range(len(frames.matrix))]


PAYLOADS = [bytes((number,)) * 100 for number in range(9)]


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("esn", [False, True], ids=["", "esn"])
def test_frames_are_sealed_and_opened_as_single_packets_are(suite: str, esn: bool) -> None:
    sender, receiver = pair(suite, esn=esn)
    sender.sequence = receiver.window.highest = LAST_SHORT - 3 if esn else 77  # over the edge in the middle
    single = InboundSa(receiver.parameters)
    single.window.highest = sender.sequence
    frames = filled(sender, PAYLOADS)
    assert sender.seal_frames(frames, 9, 100) == 9
    assert (sender.usage.packets, sender.usage.octets) == (9, 900)
    packets = rows(frames)
    assert [single.open(packet) for packet in packets] == [Opened(payload, 4) for payload in PAYLOADS]
    incoming = received(receiver, packets)
    assert receiver.open_frames(incoming, 9) == [None] * 9
    assert [strip(plain) for plain in incoming.plain] == [Opened(payload, 4) for payload in PAYLOADS]
    assert receiver.open_frames(received(receiver, packets), 9) == [Drop.REPLAYED] * 9
    assert receiver.window.highest == single.window.highest == sender.sequence


@pytest.mark.parametrize("suite", ["aes128gcm16", "aes128ccm12", "aes256-sha256"])
@given(
    order=st.permutations(range(9)),
    forged=st.sets(st.integers(0, 8)),
    swap=st.booleans(),
    window=st.sampled_from((0, 4, 64)),
)
def test_trains_are_opened_as_single_packets_are(
    suite: str, order: list[int], forged: set[int], swap: bool, window: int
) -> None:
    """Reordered, repeated, forged: the same verdicts, the same plaintexts, the same window."""
    sender, receiver = pair(suite, replay_window=window)
    single = InboundSa(receiver.parameters)
    packets = [sealed(sender, payload) for payload in PAYLOADS]
    if swap:
        packets = [packets[number] for number in order]
    for number in forged:
        packets[number] = packets[number][:-1] + bytes((packets[number][-1] ^ 1,))
    for train in (packets, packets[::-1]):
        expected = [single.open(packet) for packet in train]
        incoming = received(receiver, train)
        results = receiver.open_frames(incoming, 9)
        found = [
            strip(plain) if result is None else result for plain, result in zip(incoming.plain, results, strict=True)
        ]
        assert found == expected
        assert receiver.window.highest == single.window.highest
        assert receiver.window._ring == single.window._ring


@given(octets=st.binary(min_size=30, max_size=600), size=st.integers(26, 200), esn=st.booleans())
def test_hostile_trains_are_dropped_for_a_reason(octets: bytes, size: int, esn: bool) -> None:
    receiver = InboundSa(esp_sa(esn=esn))
    count = len(octets) // size
    if count:
        packets = [octets[at : at + size] for at in range(0, count * size, size)]
        assert all(receiver.open_frames(received(receiver, packets), count))
        assert receiver.window.highest == 0


def test_frames_stop_at_the_limit() -> None:
    sender, receiver = pair(limits=EspLimits(hard_packets=4))
    frames = filled(sender, PAYLOADS)
    assert sender.seal_frames(frames, 9, 100) == 4
    assert sender.seal_frames(frames, 9, 100) == 0
    assert sender.refusal() == Drop.EXPIRED
    receiver.usage.packets = 1
    results = receiver.open_frames(received(receiver, rows(frames)[:4]), 4)
    assert results == [None, None, None, Drop.EXPIRED]
    receiver.usage.packets = 4
    assert receiver.open_frames(received(receiver, rows(frames)[:4]), 4) == [Drop.EXPIRED] * 4


def test_no_iv_is_used_twice() -> None:
    sender = OutboundSa(esp_sa(), iv_base=2**64 - 8)  # counts on over the edge
    ivs = [sealed(sender)[8:16] for _ in range(5)]
    frames = filled(sender, PAYLOADS)
    sender.seal_frames(frames, 9, 100)
    ivs += [row[8:16] for row in rows(frames)]
    ivs += [sealed(sender)[8:16] for _ in range(5)]
    assert len(set(ivs)) == 19


@pytest.mark.parametrize("suite", ["aes128gcm16", "aes128ctr-sha512", "chacha20poly1305"])
def test_an_sa_goes_on_elsewhere(suite: str) -> None:
    """What a new worker gets of a dead one's SA: no sequence number and no IV comes twice."""
    sa = esp_sa(suite)
    first = OutboundSa(sa, iv_base=7)
    before = [sealed(first) for _ in range(5)]
    assert [packet[8:16] for packet in before] == [(7 + number).to_bytes(8, "big") for number in range(1, 6)]
    second = OutboundSa(sa, first.iv_base, first.sequence)
    after = [sealed(second) for _ in range(5)]
    assert len({packet[4:16] for packet in before + after}) == 10
    receiver = InboundSa(sa, highest=5)
    assert all(receiver.open(packet) in (Drop.REPLAYED, Drop.TOO_OLD) for packet in before)
    assert all(isinstance(receiver.open(packet), Opened) for packet in after)


def test_sequence_numbers_never_wrap() -> None:
    sender, receiver = pair()
    sender.sequence = LAST_SHORT - 2
    assert not sender.hard_due
    receiver.window.add(LAST_SHORT - 10)
    for _ in range(2):
        assert isinstance(receiver.open(sealed(sender)), Opened)
    assert sender.hard_due
    assert sender.seal(b"", 4) == Drop.SEQUENCE_END
    assert sender.sequence == LAST_SHORT
    assert receiver.soft_due


def test_extended_numbers_go_on_over_the_edge() -> None:
    sender, receiver = pair(esn=True)
    sender.sequence = LAST_SHORT - 1
    receiver.window.add(LAST_SHORT - 5)
    packets = [sealed(sender) for _ in range(5)]
    assert all(isinstance(receiver.open(p), Opened) for p in reversed(packets))
    assert receiver.window.highest == LAST_SHORT + 4
    assert not sender.hard_due


def test_limits_of_packets() -> None:
    sender, receiver = pair(limits=EspLimits(soft_packets=2, hard_packets=3))
    for due in (False, True, True):
        opened = receiver.open(sealed(sender))
        assert isinstance(opened, Opened)
        receiver.usage.packets += 1
        assert sender.soft_due == receiver.soft_due == due
    assert sender.hard_due
    assert receiver.hard_due
    assert sender.seal(b"", 4) == Drop.EXPIRED
    assert receiver.open(OutboundSa(receiver.parameters).seal_padded(b"\1\2\2\4", 0)) == Drop.EXPIRED


def test_limits_of_octets() -> None:
    sender = OutboundSa(esp_sa(limits=EspLimits(soft_bytes=10, hard_bytes=20)))
    assert isinstance(sender.seal(bytes(10), 4), bytes)
    assert sender.soft_due
    assert isinstance(sender.seal(bytes(10), 4), bytes)
    assert sender.seal(b"", 4) == Drop.EXPIRED
    assert (sender.usage.packets, sender.usage.octets) == (2, 20)


def test_keys_are_not_shown() -> None:
    sa: EspSa = replace(esp_sa("aes256-sha256"), encryption_key=b"K" * 32, integrity_key=b"I" * 32)
    assert "KKKK" not in repr(sa)
    assert "IIII" not in repr(sa)

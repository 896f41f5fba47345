"""A bounded, deterministic fuzz of the decoder: whatever comes in, only `WireError` comes out."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.errors import WireError
from ikeway.wire import Message, PayloadType, decode_payloads, encode_payloads, render, summary
from tests.vectors import vector
from tests.wire import mutation

ROUNDS = 12_000


def check(octets: bytes) -> bool:
    """Decode; what decodes can be shown, and encoded to what decodes to the same."""
    try:
        message = Message.decode(octets, refuse_critical=False)
    except WireError as error:
        assert 0 <= error.offset <= len(octets)
        assert str(error)
        return False
    assert render(message) and summary(message)
    assert Message.decode(message.encode(), refuse_critical=False) == message
    return True


@pytest.mark.parametrize("seed", range(3))
def test_mutations_of_our_messages(seed):
    source = random.Random(seed)
    seeds = list(mutation.own_messages())
    assert all(check(octets) for octets in seeds)
    decoded = sum(check(mutation.mutated(source.choice(seeds), source)) for _ in range(ROUNDS // 3))
    assert ROUNDS // 3 * 0.05 < decoded < ROUNDS // 3 * 0.95  # the mutations reach both ends


def test_mutations_of_captures():
    source = random.Random(9)
    seeds = list(mutation.captured(vector("pcap")))
    assert len(seeds) > 40
    for _ in range(ROUNDS // 3):
        check(mutation.mutated(source.choice(seeds), source))


def test_every_truncation_is_refused():
    for octets in mutation.own_messages():
        for length in range(0, len(octets), 3):
            assert not check(octets[:length])
            with pytest.raises(WireError):
                Message.decode(octets[:24] + length.to_bytes(4, "big") + octets[28:length])


@given(st.integers(0, 255).map(PayloadType), st.binary(max_size=300))
def test_any_octets_as_payloads(first, octets):
    try:
        payloads = decode_payloads(first, octets)
    except WireError as error:
        assert 0 <= error.offset <= len(octets)
        return
    assert decode_payloads(*encode_payloads(payloads)) == payloads


@given(st.binary(max_size=100))
def test_any_octets_as_a_message(octets):
    check(octets)

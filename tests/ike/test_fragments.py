"""Reassembly of IKE fragments (RFC 7383 section 2.6): any order, duplicates, other sizes, and bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.errors import WireError
from ikeway.ike.fragments import Reassembly
from ikeway.wire.registry import PayloadType

KEY = (False, 1)
FIRST = int(PayloadType.IDI)


def held(reassembly: Reassembly) -> int:
    """Octets that it keeps."""
    return sum(len(piece) for partial in reassembly._partial.values() for piece in partial.pieces.values())


def add(reassembly: Reassembly, number: int, total: int, piece: bytes, key=KEY):
    return reassembly.add(key, number, total, FIRST if number == 1 else 0, piece)


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_any_order_and_any_duplicates(pieces, source):
    reassembly = Reassembly(1000)
    arrivals = list(enumerate(pieces, 1)) * 2
    source.shuffle(arrivals)
    seen, done = set(), None
    for number, piece in arrivals:
        if done is not None:
            break
        assert reassembly.has(KEY, number, len(pieces)) == (number in seen)
        seen.add(number)
        done = add(reassembly, number, len(pieces), piece)
        assert (done is not None) == (len(seen) == len(pieces))
    assert done == (FIRST, b"".join(pieces))
    assert not reassembly._partial


def test_a_duplicate_never_replaces_what_is_there():
    reassembly = Reassembly(1000)
    add(reassembly, 1, 2, b"first")
    assert add(reassembly, 1, 2, b"other") is None
    assert add(reassembly, 2, 2, b" last") == (FIRST, b"first last")


def test_a_larger_total_begins_anew_and_a_smaller_one_is_ignored():
    reassembly = Reassembly(1000)
    add(reassembly, 1, 2, b"AAAA")
    assert add(reassembly, 1, 3, b"aa") is None
    assert add(reassembly, 2, 2, b"BBBB") is None
    assert not reassembly.has(KEY, 2, 3)
    assert add(reassembly, 2, 3, b"bb") is None
    assert add(reassembly, 3, 3, b"cc") == (FIRST, b"aabbcc")


def test_what_is_split_anew_pushes_nothing_else_out():
    reassembly = Reassembly(1000, messages=2)
    other = (True, 7)
    add(reassembly, 1, 2, b"one", other)
    add(reassembly, 1, 2, b"AAAA")
    add(reassembly, 1, 3, b"aa")
    assert add(reassembly, 2, 2, b" two", other) == (FIRST, b"one two")


def test_requests_and_responses_of_one_message_id_are_apart():
    reassembly = Reassembly(1000)
    add(reassembly, 1, 2, b"request", (False, 1))
    assert add(reassembly, 2, 2, b"response", (True, 1)) is None
    assert add(reassembly, 2, 2, b"!", (False, 1)) == (FIRST, b"request!")


def test_no_more_messages_than_allowed():
    reassembly = Reassembly(1000, messages=2)
    for message_id in range(100):
        add(reassembly, 1, 2, b"x" * 100, (False, message_id))
    assert held(reassembly) == 200
    assert add(reassembly, 2, 2, b"y", (False, 0)) is None  # the oldest went
    assert add(reassembly, 2, 2, b"y", (False, 99)) is not None


def test_a_message_beyond_the_limit_is_given_up():
    reassembly = Reassembly(100)
    add(reassembly, 1, 255, b"x" * 60)
    with pytest.raises(WireError):
        add(reassembly, 2, 255, b"x" * 41)
    assert held(reassembly) == 0
    assert add(reassembly, 1, 1, b"x" * 100) == (FIRST, b"x" * 100)


def test_one_that_never_ends_is_bounded():
    reassembly = Reassembly(1000)
    for number in range(1, 255):
        add(reassembly, number, 255, b"abc")
        add(reassembly, number, 255, b"abc")
    assert held(reassembly) == 254 * 3


def test_what_is_no_longer_wanted_is_forgotten():
    reassembly = Reassembly(1000)
    add(reassembly, 1, 2, b"x" * 100)
    reassembly.forget((True, 1))
    assert held(reassembly) == 100
    reassembly.forget(KEY)
    assert held(reassembly) == 0

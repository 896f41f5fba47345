"""What settings mean in figures, and that they keep their secrets."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.ike.settings import PskCredential, PskExpected, Retransmission


def waits(schedule: Retransmission) -> list[float]:
    """Every wait until nobody waits any more."""
    found = []
    while (timeout := schedule.timeout(len(found) + 1)) is not None:
        found.append(timeout)
    return found


def test_the_default_gives_up_after_about_three_minutes():
    schedule = waits(Retransmission())
    assert schedule[0] == 4.0 and len(schedule) == 6
    assert 150 <= sum(schedule) <= 200


def test_waits_grow_up_to_the_limit():
    schedule = Retransmission(first=1.0, factor=2.0, tries=5, limit=10.0)
    assert waits(schedule) == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_without_tries_there_is_one_wait():
    assert waits(Retransmission(first=3.0, tries=0)) == [3.0]


@given(st.floats(0.01, 60), st.floats(1, 4), st.integers(0, 12), st.floats(1, 100).map(lambda value: max(value, 1.0)))
def test_one_wait_a_transmission_and_never_shorter_than_the_one_before(first, factor, tries, limit):
    schedule = waits(Retransmission(first=first, factor=factor, tries=tries, limit=limit))
    assert len(schedule) == tries + 1
    assert schedule == sorted(schedule) and max(schedule) <= limit


@pytest.mark.parametrize("kind", [PskCredential, PskExpected])
def test_secrets_stay_out_of_reprs(kind):
    value = kind(b"battery staple")
    assert "battery" not in repr(value) and "battery" not in str(value)
    assert value == kind(b"battery staple") != kind(b"another")
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.secret = b""

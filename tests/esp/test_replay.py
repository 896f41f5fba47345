"""The replay window against a model: a set of everything accepted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.esp.replay import LARGEST, ReplayWindow

SIZES = st.sampled_from((1, 2, 3, 31, 32, 33, 64, 1000, 4096))


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[int, list[tuple[int, bool]]]:
    """A window size, and numbers around a wandering position, authentic or not."""
    size = draw(SIZES)
    at, numbers = 0, []
    for _ in range(draw(st.integers(1, 80))):
        at = max(at + draw(st.sampled_from((0, 1, 1, 1, 2, size - 1, size, size + 1, 3 * size))), 0)
        numbers.append(
            (max(at - draw(st.integers(0, 2 * size + 2)) * draw(st.booleans()), 0), draw(st.integers(0, 9)) > 0)
        )
    return size, numbers


@given(arrivals())
def test_accepts_what_the_model_accepts(case: tuple[int, list[tuple[int, bool]]]) -> None:
    size, numbers = case
    window, accepted = ReplayWindow(size), set()
    for number, authentic in numbers:
        highest = max(accepted, default=0)
        expected = number > 0 and number > highest - size and number not in accepted
        assert window.is_new(number) == expected
        assert window.is_too_old(number) == (number <= highest - size)
        if expected and authentic:  # verify, then update: a forged packet leaves no trace
            window.add(number)
            accepted.add(number)
        assert window.highest == max(accepted, default=0)


def test_without_a_window_only_order_is_known() -> None:
    window = ReplayWindow(0)
    for number in (5, 5, 3):
        assert window.is_new(number)
        window.add(number)
    assert window.highest == 5
    assert not window.is_new(0)
    assert not window.is_too_old(1)


@given(size=SIZES, highest=st.integers(1, 10_000), numbers=st.lists(st.integers(1, 20_000), max_size=20))
def test_a_window_goes_on_after_what_was_seen(size: int, highest: int, numbers: list[int]) -> None:
    window, accepted = ReplayWindow(size, highest), set(range(1, highest + 1))
    for number in numbers:
        expected = number > max(accepted) - size and number not in accepted
        assert window.is_new(number) == expected
        if expected:
            window.add(number)
            accepted.add(number)


def test_numbers_of_64_bits() -> None:
    window = ReplayWindow(64)
    window.add(2**32 + 5)
    assert window.is_new(2**32 - 3)
    window.add(2**32 - 3)
    assert not window.is_new(2**32 - 3)
    assert not window.is_new(2**32 - 59)
    assert window.is_new(2**64 - 1)


@pytest.mark.parametrize("size", [-1, LARGEST + 1])
def test_sizes_have_a_limit(size: int) -> None:
    with pytest.raises(ValueError, match="replay window"):
        ReplayWindow(size)


@given(
    size=st.sampled_from((1, 2, 5, 64)), start=st.integers(1, 200), gap=st.integers(1, 200), count=st.integers(1, 150)
)
def test_a_run_is_remembered_as_its_numbers_are(size: int, start: int, gap: int, count: int) -> None:
    at_once, one_by_one = ReplayWindow(size), ReplayWindow(size)
    for window in (at_once, one_by_one):
        window.add(start)
    at_once.add_run(start + gap, count)
    for number in range(start + gap, start + gap + count):
        one_by_one.add(number)
    assert (at_once.highest, at_once._ring) == (one_by_one.highest, one_by_one._ring)

"""The high half of extended sequence numbers (RFC 4303 appendix A2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.esp.sequence import infer_sequence

HALF = 1 << 32


def by_the_appendix(low: int, highest: int, window: int) -> int:
    """Appendix A2.2 as it is written, with its two cases."""
    top_high, top_low = divmod(highest, HALF)
    if top_low >= window - 1:
        high = top_high if low >= top_low - window + 1 else top_high + 1
    else:
        high = top_high - 1 if low >= (top_low - window + 1) % HALF else top_high
    return high * HALF + low


@given(
    low=st.one_of(st.integers(0, HALF - 1), st.integers(0, 200), st.integers(HALF - 200, HALF - 1)),
    high=st.sampled_from((0, 1, 2, 0x87654321)),
    top_low=st.one_of(st.integers(0, HALF - 1), st.integers(0, 200), st.integers(HALF - 200, HALF - 1)),
    window=st.sampled_from((1, 2, 32, 64, 128, 4096, 1 << 20)),
)
def test_agrees_with_the_appendix(low: int, high: int, top_low: int, window: int) -> None:
    highest = high * HALF + top_low
    assert infer_sequence(low, highest, window) == by_the_appendix(low, highest, window)


@given(st.integers(0, 2**63), st.integers(1, 5000), st.integers(-4999, 2**31))
def test_finds_every_number_near_the_top(highest: int, window: int, distance: int) -> None:
    sent = highest + max(distance, 1 - window)
    if sent >= 0:
        assert infer_sequence(sent % HALF, highest, window) == sent


def test_before_the_first_number_there_is_none() -> None:
    assert infer_sequence(HALF - 1, 0, 64) == -1


@pytest.mark.parametrize(("highest", "sent"), [(2**32 + 7, 2**32 - 100000), (2**32 - 3, 2**32 + 1000)])
def test_without_a_window_the_nearest_is_taken(highest: int, sent: int) -> None:
    assert infer_sequence(sent % HALF, highest, 0) == sent

"""Values that configuration files have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from ikeway.config import fields
from ikeway.config.reference import format_duration


def parse(kind: object, value: object) -> object:
    return TypeAdapter(kind).validate_python(value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("7d", 604800),
        ("2w", 1209600),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("10min", 600),
        ("never", 0),
        (30, 30),
        (0.25, 0.25),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse(fields.Duration, text) == seconds


@pytest.mark.parametrize("value", ["", "5 apples", "h", "-3s", -1, "1h30", True, None, float("inf"), float("nan"), [1]])
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValidationError, match="duration"):
        parse(fields.Duration, value)


@given(st.integers(0, 10**8))
def test_a_duration_is_written_as_it_is_read(seconds: int) -> None:
    assert parse(fields.Duration, format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("10GB", 10**10),
        ("4GiB", 4 << 30),
        ("500 MB", 5 * 10**8),
        ("1.5k", 1500),
        ("7", 7),
        ("12B", 12),
        (9, 9),
        ("never", 0),
    ],
)
def test_sizes(text: object, octets: int) -> None:
    assert parse(fields.Size, text) == octets


@pytest.mark.parametrize("value", ["", "GB", "-1", "1XB", "1 apple", True, -1, 1.5])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ValidationError, match="size"):
        parse(fields.Size, value)


def test_a_network_with_host_bits_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(ValidationError) as caught:
        parse(fields.Network, "10.1.2.3/16")
    assert caught.value.errors()[0]["ctx"]["remedy"] == 'write "10.1.0.0/16"'


def test_one_value_stands_for_a_list_of_it() -> None:
    assert parse(fields.Listed[fields.Domain], "Corp.Example.Com.") == ("corp.example.com",)
    assert parse(fields.Listed[fields.Domain], ["a.example", "b.example"]) == ("a.example", "b.example")


@pytest.mark.parametrize("value", ["", "a b", "-x.example", "x..y", "a" * 64, "x/y", 5])
def test_what_is_no_domain(value: object) -> None:
    with pytest.raises(ValidationError):
        parse(fields.Domain, value)


def test_octets_as_text_and_hexadecimal() -> None:
    assert parse(fields.Octets, "strongSwan") == b"strongSwan"
    assert parse(fields.Octets, "0xAf01") == b"\xaf\x01"
    with pytest.raises(ValidationError, match="hexadecimal"):
        parse(fields.Octets, "0xabc")


def test_bounds() -> None:
    from typing import Annotated

    kind = Annotated[int, fields.between(1, 10)]
    assert parse(kind, 10) == 10
    with pytest.raises(ValidationError, match="out of range"):
        parse(kind, 11)


KINDS = [
    TypeAdapter(kind)
    for kind in (
        fields.Duration,
        fields.Size,
        fields.Address,
        fields.Interface,
        fields.Network,
        fields.IdentityText,
        fields.PatternText,
        fields.Selector,
        fields.IkeProposal,
        fields.EspProposal,
        fields.Octets,
        fields.Domain,
    )
]


@given(st.sampled_from(KINDS), st.text() | st.integers() | st.none() | st.lists(st.integers()))
def test_no_value_makes_another_error(kind: TypeAdapter[object], value: object) -> None:
    try:
        kind.validate_python(value)
    except ValidationError as error:
        assert error.error_count() == 1

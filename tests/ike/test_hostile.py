"""Strangers' octets before authentication: nothing but silence or a notify, no exception, nothing kept."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ike import hostile
from tests.ike.pair import Pair
from tests.wire import mutation


def seeds() -> list[bytes]:
    pair = Pair()
    pair.connect()
    return [datagram.octets for datagram in pair.sent] + list(mutation.own_messages())


@pytest.mark.parametrize("role", [hostile.as_request, hostile.as_answer])
def test_mutations_of_good_messages(role):
    found = seeds()
    source = random.Random(7)
    for number in range(1500):
        role(mutation.mutated_by_number(found[source.randrange(len(found))], number))


@settings(max_examples=150, deadline=None)
@given(octets=st.binary(max_size=400))
def test_any_octets(octets):
    hostile.as_request(octets)
    hostile.as_answer(octets)


@settings(max_examples=100, deadline=None)
@given(
    first=st.sampled_from([33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 47, 48, 99]), body=st.binary(max_size=80)
)
def test_sealed_by_a_peer_that_is_not_authenticated(first, body):
    hostile.sealed(first, body)

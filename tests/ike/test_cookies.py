"""Stateless cookies (RFC 7296 section 2.6): ours are known for a while, all others never."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.address import Address
from ikeway.ike.cookies import SECRET_SECONDS, CookieJar

WHO = (b"n" * 32, b"12345678", Address("192.0.2.1", 500))


def jar() -> CookieJar:
    counter = itertools.count(1)
    return CookieJar(lambda size: next(counter).to_bytes(size, "big"))


def test_a_cookie_is_known_again_and_has_a_size_that_the_rfc_allows():
    ours = jar()
    cookie = ours.make(*WHO, 0.0)
    assert 1 <= len(cookie) <= 64
    assert ours.check(cookie, *WHO, 0.1)
    assert ours.make(*WHO, 0.2) == cookie  # for a request that comes twice: nothing is kept, so nothing differs


@pytest.mark.parametrize(
    "other",
    [
        (b"m" * 32, *WHO[1:]),
        (WHO[0], b"12345679", WHO[2]),
        (*WHO[:2], Address("192.0.2.2", 500)),
        (*WHO[:2], Address("192.0.2.1", 501)),
        (*WHO[:2], Address("2001:db8::1", 500)),
        (WHO[0] + b"1", b"2345678", WHO[2]),  # the same octets, cut elsewhere
    ],
)
def test_it_is_worth_nothing_to_anybody_else(other):
    ours = jar()
    assert not ours.check(ours.make(*WHO, 0.0), *other, 0.0)


@given(st.binary(max_size=80))
def test_forged_cookies_are_refused(forged):
    ours = jar()
    cookie = ours.make(*WHO, 0.0)
    assert forged == cookie or not ours.check(forged, *WHO, 0.0)


def test_cut_longer_and_foreign_cookies_are_refused():
    ours, other = jar(), CookieJar(lambda size: b"\xaa" * size)
    cookie = ours.make(*WHO, 0.0)
    for wrong in (cookie[:-1], cookie + b"\0", cookie[1:], b"", bytes(len(cookie)), other.make(*WHO, 0.0)):
        assert not ours.check(wrong, *WHO, 0.0)
    assert not jar().check(b"", *WHO, 5.0)  # a jar that has never made one


def test_the_secret_changes_and_cookies_age():
    ours = jar()
    cookie = ours.make(*WHO, 0.0)
    assert ours.make(*WHO, SECRET_SECONDS - 0.1) == cookie
    assert ours.make(*WHO, SECRET_SECONDS) != cookie
    # Every cookie is good for one period at least, and none for more than two.
    assert ours.check(cookie, *WHO, 2 * SECRET_SECONDS - 0.1)
    assert not ours.check(cookie, *WHO, 2 * SECRET_SECONDS)


@given(st.floats(0, 1000), st.floats(0, 1000))
def test_age_decides_whenever_it_was_made(made, later):
    ours = jar()
    ours.make(*WHO, 0.0)
    cookie = ours.make(*WHO, made)
    known = ours.check(cookie, *WHO, made + later)
    assert known if later < SECRET_SECONDS else (not known or later < 2 * SECRET_SECONDS)


def test_after_a_long_sleep_the_old_secret_is_gone():
    ours = jar()
    cookie = ours.make(*WHO, 0.0)
    assert not ours.check(cookie, *WHO, 86400.0)


def test_after_256_secrets_nothing_old_is_known():
    ours = jar()
    cookie = ours.make(*WHO, 0.0)
    for period in range(1, 257):
        ours.make(*WHO, period * SECRET_SECONDS)
    fresh = ours.make(*WHO, 256 * SECRET_SECONDS)
    assert fresh[0] == cookie[0] and fresh != cookie  # the version comes round, the secret does not
    assert not ours.check(cookie, *WHO, 256 * SECRET_SECONDS)

"""RFC 6238 appendix B and RFC 4226 appendix D, and what a gateway needs beside the computation."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.auth.totp import Algorithm, Totp, hotp
from ikeway.errors import ConfigError

SEED = b"12345678901234567890"
SEEDS: dict[Algorithm, bytes] = {"sha1": SEED, "sha256": (SEED * 2)[:32], "sha512": (SEED * 4)[:64]}


@pytest.mark.parametrize(
    ("counter", "code"),
    list(
        enumerate(["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"])
    ),
)
def test_hotp(counter: int, code: str) -> None:
    assert hotp(SEED, counter) == code


@pytest.mark.parametrize(
    ("seconds", "sha1", "sha256", "sha512"),
    [
        (59, "94287082", "46119246", "90693936"),
        (1111111109, "07081804", "68084774", "25091201"),
        (1111111111, "14050471", "67062674", "99943326"),
        (1234567890, "89005924", "91819424", "93441116"),
        (2000000000, "69279037", "90698825", "38618901"),
        (20000000000, "65353130", "77737706", "47863826"),
    ],
)
def test_totp(seconds: int, sha1: str, sha256: str, sha512: str) -> None:
    at = datetime.fromtimestamp(seconds, UTC)
    expected: dict[Algorithm, str] = {"sha1": sha1, "sha256": sha256, "sha512": sha512}
    for algorithm, code in expected.items():
        totp = Totp(SEEDS[algorithm], 8, algorithm)
        assert totp.code(at) == code
        assert totp.matching_step(code, at) == seconds // 30


def at(step: int) -> datetime:
    return datetime.fromtimestamp(step * 30 + 10, UTC)


def test_clocks_may_differ_by_a_period_and_no_more() -> None:
    totp = Totp(SEED)
    code = totp.code(at(1000))
    assert [totp.matching_step(code, at(step)) for step in (998, 999, 1000, 1001, 1002)] == [
        None,
        1000,
        1000,
        1000,
        None,
    ]
    assert totp.matching_step(code, at(1002), window=2) == 1000
    assert totp.matching_step(code, at(1001), window=0) is None


def test_a_code_is_good_once_and_those_before_it_no_more() -> None:
    totp = Totp(SEED)
    assert totp.matching_step(totp.code(at(1000)), at(1000), after=999) == 1000
    assert totp.matching_step(totp.code(at(1000)), at(1000), after=1000) is None
    assert totp.matching_step(totp.code(at(999)), at(1000), after=1000) is None
    assert totp.matching_step(totp.code(at(1001)), at(1000), after=1000) == 1001


@pytest.mark.parametrize("code", ["", "12345", "1234567", "aaaaaa", "１２３４５６", "\ud800"])
def test_what_is_no_code(code: str) -> None:
    assert Totp(SEED).matching_step(code, at(5)) is None


@given(
    st.binary(min_size=10, max_size=64), st.sampled_from([6, 7, 8]), st.sampled_from(list(SEEDS)), st.integers(1, 90)
)
def test_what_an_app_is_told_comes_back(key: bytes, digits: int, algorithm: Algorithm, period: int) -> None:
    totp = Totp(key, digits, algorithm, period)
    uri = totp.uri("alice@example.com", "My VPN: at work")
    assert Totp.parse(uri) == totp
    assert uri.startswith("otpauth://totp/My%20VPN%3A%20at%20work:alice%40example.com?secret=")
    assert repr(key) not in repr(totp)


def test_base32_as_people_copy_it() -> None:
    assert Totp.parse("gezd gnbv-GY3T QOJQ gezd gnbv gy3t qojq") == Totp(SEED)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "JBSWY3DP",  # 5 octets
        "0189",
        "JBSWY3DPEHPK3PXPA",  # a length that base32 does not have
        "otpauth://hotp/x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
        "otpauth://totp/x",
        "otpauth://totp/x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&digits=10",
        "otpauth://totp/x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&algorithm=MD5",
        "otpauth://totp/x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&period=soon",
    ],
)
def test_secrets_that_are_none_say_why_without_showing_it(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Totp.parse(text)
    assert "base32" in str(caught.value)
    assert not text or text not in str(caught.value)

"""What an Access-Accept grants."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.gateway.radius.attributes import (
    MS_PRIMARY_DNS_SERVER,
    MS_SECONDARY_DNS_SERVER,
    Attr,
    Attributes,
    MalformedAttribute,
)
from ikeway.gateway.radius.grant import read_grant

INTERFACE = (Attr.FRAMED_INTERFACE_ID, bytes(7) + b"\5")


def grant(*pairs):
    values = {}
    for key, value in pairs:
        values[key] = (*values.get(key, ()), value)
    return read_grant(Attributes(values), "corp", "alice")


def ip(text):
    return ipaddress.ip_address(text)


def test_nothing_grants_no_more_than_the_log_in():
    plain = grant()
    assert (plain.user, plain.server, plain.addresses, plain.dns, plain.groups) == ("alice", "corp", (), (), ())
    assert (plain.session_timeout, plain.idle_timeout, plain.interim) == (0, 0, None)


def test_everything():
    found = grant(
        (Attr.USER_NAME, b"alice@corp"),
        (Attr.FRAMED_IP_ADDRESS, ip("10.9.8.7").packed),
        (Attr.FRAMED_IP_NETMASK, ip("255.255.0.0").packed),
        (Attr.FRAMED_IPV6_ADDRESS, ip("fd00::7").packed),
        (MS_PRIMARY_DNS_SERVER, ip("10.0.0.1").packed),
        (MS_SECONDARY_DNS_SERVER, ip("10.0.0.2").packed),
        (Attr.DNS_SERVER_IPV6_ADDRESS, ip("fd00::53").packed),
        (Attr.FILTER_ID, b"staff"),
        (Attr.CLASS, b"OU=admins;"),
        (Attr.CLASS, b"\xff\x00opaque"),
        (Attr.SESSION_TIMEOUT, (3600).to_bytes(4)),
        (Attr.IDLE_TIMEOUT, (600).to_bytes(4)),
        (Attr.ACCT_INTERIM_INTERVAL, (5).to_bytes(4)),
    )
    assert found.user == "alice@corp"
    assert found.addresses == (ip("10.9.8.7"), ip("fd00::7"))
    assert found.dns == (ip("10.0.0.1"), ip("10.0.0.2"), ip("fd00::53"))
    assert found.groups[:2] == ("staff", "admins")
    assert found.classes == (b"OU=admins;", b"\xff\x00opaque")
    assert (found.session_timeout, found.idle_timeout, found.interim) == (3600, 600, 60)


@pytest.mark.parametrize("address", ["255.255.255.254", "255.255.255.255", "0.0.0.0"])
def test_addresses_that_mean_any(address):
    assert grant((Attr.FRAMED_IP_ADDRESS, ip(address).packed)).ipv4 is None


@pytest.mark.parametrize(
    ("pairs", "found"),
    [
        ([(Attr.FRAMED_IPV6_PREFIX, b"\0\x80" + ip("fd00::9").packed)], "fd00::9"),
        ([(Attr.FRAMED_IPV6_PREFIX, b"\0\x40" + ip("fd00::").packed)], None),
        (
            [
                (Attr.FRAMED_IPV6_PREFIX, b"\0\x40" + ip("fd00::").packed[:8]),
                (Attr.FRAMED_INTERFACE_ID, bytes(7) + b"\5"),
            ],
            "fd00::5",
        ),
        ([(Attr.FRAMED_INTERFACE_ID, bytes(7) + b"\5")], None),
        (
            [
                (Attr.FRAMED_IPV6_PREFIX, b"\0\x60" + ip("fd00::").packed[:12]),
                (Attr.FRAMED_INTERFACE_ID, bytes(7) + b"\5"),
            ],
            None,
        ),
    ],
)
def test_ipv6(pairs, found):
    assert grant(*pairs).ipv6 == (ip(found) if found else None)


@pytest.mark.parametrize(
    "pair",
    [
        (Attr.SESSION_TIMEOUT, b"\1"),
        (Attr.IDLE_TIMEOUT, b""),
        (Attr.FRAMED_IP_ADDRESS, bytes(16)),
        (Attr.FRAMED_IPV6_ADDRESS, bytes(4)),
        (Attr.FRAMED_IPV6_PREFIX, b"\0\x81" + bytes(16)),
        (Attr.FRAMED_IPV6_PREFIX, b"\0\x80" + bytes(15)),
        (Attr.DNS_SERVER_IPV6_ADDRESS, bytes(4)),
    ],
)
def test_a_limit_that_cannot_be_read_does_not_become_none(pair):
    with pytest.raises(MalformedAttribute):
        grant(pair)


_keys = st.sampled_from([*Attr, MS_PRIMARY_DNS_SERVER, MS_SECONDARY_DNS_SERVER])


@given(st.lists(st.tuples(_keys, st.binary(max_size=40)), max_size=8))
def test_any_octets_grant_something_or_are_refused(pairs):
    try:
        found = grant(*pairs)
    except MalformedAttribute:
        return
    assert all(name.isprintable() for name in found.groups) and found.session_timeout >= 0

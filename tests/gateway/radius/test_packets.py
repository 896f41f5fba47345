"""Packets: what is sent is what the RFCs have, and nothing is believed that is not authentic."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ikeway.gateway.radius.attributes import MS_MPPE_RECV_KEY, Attr, Attributes, MalformedAttribute, split, text
from ikeway.gateway.radius.packets import Code, Dropped, Fault, Reply, Request, ServerRequest
from tests.gateway.radius.fake import (
    ACCEPT,
    ACCOUNTING_RESPONSE,
    CHALLENGE,
    EAP_MESSAGE,
    REJECT,
    SECRET,
    Got,
    answer,
    encoded,
    hidden_key,
    take_apart,
)


def access(*pairs, **options) -> tuple[Request, Got]:
    request = Request(Code.ACCESS_REQUEST, 42, SECRET, pairs, **options)
    return request, take_apart(request.octets)


def judged(request: Request, octets: bytes, *, protected: bool = True) -> Reply | Fault:
    try:
        return request.judge(octets, protected=protected)
    except Dropped as dropped:
        return dropped.fault


def test_an_access_request_begins_with_a_message_authenticator():
    _, got = access((Attr.USER_NAME, b"alice"), *split(Attr.EAP_MESSAGE, bytes(600)))
    assert got.octets[0:2] == bytes((1, 42)) and got.is_signed
    assert [len(value) for value in got.all(EAP_MESSAGE)] == [253, 253, 94]
    assert got.one(1) == b"alice"


def test_authenticators_never_come_again():
    assert len({access()[1].authenticator for _ in range(50)}) == 50


@pytest.mark.parametrize("password", [b"", b"secret", b"0x41", bytes(range(1, 17)), "pässwörd".encode(), b"x" * 128])
def test_a_password_is_hidden_and_the_server_finds_it(password):
    _, got = access(password=password)
    assert got.password() == password and (not password or password not in got.octets)
    assert got.is_signed


def test_values_are_sent_as_they_are():
    """A peer chooses what is in an EAP-Message; octets that look like hexadecimal are octets all the same."""
    _, got = access((Attr.EAP_MESSAGE, b"0x4142"), (Attr.STATE, b"12"))
    assert (got.one(EAP_MESSAGE), got.one(24)) == (b"0x4142", b"12")


def test_an_accounting_request_has_its_own_authenticator():
    request = Request(Code.ACCOUNTING_REQUEST, 1, SECRET, [(Attr.ACCT_SESSION_ID, b"7")])
    got = take_apart(request.octets)
    assert got.is_accounted
    reply = judged(request, answer(got, ACCOUNTING_RESPONSE, signed=False))
    assert isinstance(reply, Reply)


def test_a_request_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="4096"):
        access(*split(Attr.EAP_MESSAGE, bytes(4100)))


@pytest.mark.parametrize("code", [ACCEPT, REJECT, CHALLENGE])
def test_a_signed_answer_is_believed(code):
    request, got = access()
    reply = judged(request, answer(got, code, [(18, b"welcome"), (18, b" back"), (24, b"\0\1")]))
    assert isinstance(reply, Reply)
    assert reply.code == code
    assert reply.attributes.texts(Attr.REPLY_MESSAGE) == ("welcome", " back")
    assert reply.attributes.first(Attr.STATE) == b"\0\1"


def test_what_is_not_authentic_is_dropped_with_its_fault():
    request, got = access((Attr.EAP_MESSAGE, b"\2\1\0\5\1"))
    good = answer(got, ACCEPT)
    assert judged(request, answer(got, ACCEPT, secret=b"other")) is Fault.AUTHENTICATOR
    assert judged(request, answer(got, ACCEPT, id_=43)) is Fault.AUTHENTICATOR
    assert judged(request, good[:-1] + bytes([good[-1] ^ 1])) is Fault.AUTHENTICATOR
    assert judged(request, answer(got, ACCEPT, signed=False)) is Fault.UNPROTECTED
    assert judged(request, answer(got, ACCOUNTING_RESPONSE)) is Fault.CODE
    assert judged(request, got.octets) is Fault.CODE
    assert isinstance(judged(request, good + b"padding"), Reply)


def test_without_a_message_authenticator_only_by_wish_and_never_with_eap():
    """CVE-2024-3596, and RFC 3579 section 3.1."""
    request, got = access(password=b"x")
    assert isinstance(judged(request, answer(got, ACCEPT, signed=False), protected=False), Reply)
    request, got = access((Attr.EAP_MESSAGE, b"\2\1\0\5\1"))
    unsigned = answer(got, ACCEPT, [(EAP_MESSAGE, b"\3\1\0\4")], signed=False)
    assert judged(request, unsigned, protected=False) is Fault.UNPROTECTED
    # Nor may somebody between leave EAP out, and so the key of the method: anybody would be let in.
    assert judged(request, answer(got, ACCEPT, signed=False), protected=False) is Fault.UNPROTECTED


def test_a_wrong_message_authenticator_is_no_better_than_none():
    request, got = access(password=b"x")
    wrong = answer(got, ACCEPT, [(80, bytes(16))], signed=False)
    short = answer(got, ACCEPT, [(80, bytes(3))], signed=False)
    for protected in (True, False):
        assert judged(request, wrong, protected=protected) is Fault.AUTHENTICATOR
        assert judged(request, short, protected=protected) is Fault.AUTHENTICATOR


def test_proxy_state_that_nobody_sent_is_the_mark_of_the_attack():
    request, got = access(password=b"x")
    assert judged(request, answer(got, ACCEPT, [(33, b"x")]), protected=False) is Fault.AUTHENTICATOR


@pytest.mark.parametrize(
    "tail", [b"\x12", b"\x12\x00", b"\x12\x01", b"\x12\x05ab", b"\x12\xff" + bytes(20), b"\x1a\x02\x12"]
)
def test_lengths_have_to_add_up(tail):
    request, got = access()
    good = answer(got, ACCEPT)
    octets = good[:2] + (len(good) + len(tail)).to_bytes(2) + good[4:] + tail
    assert judged(request, octets) is Fault.MALFORMED


@given(st.binary(max_size=64), st.binary(max_size=80))
@example(b"", b"")
def test_octets_of_strangers_are_dropped_whatever_they_are(head, tail):
    request, got = access()
    for octets in (head + tail, answer(got, ACCEPT)[:20] + tail, bytes((2, 42)) + (20 + len(tail)).to_bytes(2) + tail):
        assert isinstance(judged(request, octets), Fault) or octets == answer(got, ACCEPT)
        with pytest.raises(Dropped):
            ServerRequest(octets, SECRET)


_pairs = st.lists(
    st.tuples(
        st.one_of(
            st.integers(1, 255).filter(lambda key: key not in (26, 33, 80)),
            st.tuples(st.just(311), st.integers(1, 255)),
        ),
        st.binary(max_size=247),
    ),
    max_size=8,
)


@given(_pairs)
def test_attributes_come_as_they_were_sent(pairs):
    request, got = access()
    reply = judged(request, answer(got, ACCEPT, pairs))
    assert isinstance(reply, Reply)
    for key in {key for key, _ in pairs}:
        assert reply.attributes.all(key) == tuple(value for other, value in pairs if other == key)


@given(st.binary(max_size=60))
def test_a_vendors_attribute_of_any_shape_harms_nothing(value):
    request, got = access()
    reply = judged(request, answer(got, ACCEPT, [(26, value)]))
    assert isinstance(reply, Reply)
    for read in (reply.attributes.integer, reply.attributes.address, reply.attributes.prefix):
        for key in (Attr.SESSION_TIMEOUT, Attr.FRAMED_IPV6_PREFIX, 26):
            try:
                read(key)
            except MalformedAttribute as error:
                assert error.remedy


@given(st.binary(min_size=1, max_size=200))
def test_keys_are_revealed(key):
    request, got = access()
    reply = judged(request, answer(got, ACCEPT, [(MS_MPPE_RECV_KEY, hidden_key(got, key))]))
    assert isinstance(reply, Reply)
    hidden = reply.attributes.first(MS_MPPE_RECV_KEY)
    assert hidden is not None and reply.reveal(hidden) == key


@pytest.mark.parametrize("hidden", [b"", b"\x80\x01", b"\x80\x01" + bytes(15), b"\x80\x01" + bytes(33)])
def test_a_key_of_another_length_is_none(hidden):
    request, got = access()
    reply = judged(request, answer(got, ACCEPT))
    assert isinstance(reply, Reply)
    with pytest.raises(ValueError):
        reply.reveal(hidden)


@given(st.binary(max_size=20))
def test_values_of_a_wrong_length_are_refused(value):
    attributes = Attributes({Attr.SESSION_TIMEOUT: (value,), Attr.FRAMED_IP_ADDRESS: (value,)})
    if len(value) == 4:
        assert attributes.integer(Attr.SESSION_TIMEOUT) == int.from_bytes(value)
        return
    with pytest.raises(MalformedAttribute):
        attributes.integer(Attr.SESSION_TIMEOUT)
    with pytest.raises(MalformedAttribute):
        attributes.address(Attr.FRAMED_IP_ADDRESS)


def test_texts_are_cut_between_characters():
    assert text("é" * 200) == ("é" * 126).encode()


def test_secrets_do_not_show():
    request, got = access(password=b"hunter2")
    reply = judged(request, answer(got, ACCEPT, [(24, b"hunter2")]))
    assert isinstance(reply, Reply)
    assert "hunter2" not in repr(request) + repr(reply) + repr(reply.attributes)
    assert encoded([(1, b"a")]) == b"\1\3a"

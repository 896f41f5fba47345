"""The message channel: windows, message ids, duplicates, retransmission and fragments, between two bare channels."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ikeway.address import Address
from ikeway.crypto import IkeKeys
from ikeway.ike.channel import LAST_MESSAGE_ID, MAX_REPEATS, Accepted, Channel, Datagram
from ikeway.ike.proposals import parse_proposal, select
from ikeway.ike.protection import Protection, key_octets
from ikeway.ike.settings import Retransmission
from ikeway.ike.timers import Timers
from ikeway.wire.message import Header
from ikeway.wire.payloads import Certificate, Nonce, Notify, Payload, UnknownPayload
from ikeway.wire.registry import CertificateEncoding, ExchangeType, NotifyType, PayloadType

INFORMATIONAL, IKE_AUTH = ExchangeType.INFORMATIONAL, ExchangeType.IKE_AUTH
HERE, THERE, ELSEWHERE = Address("192.0.2.1", 4500), Address("198.51.100.1", 4500), Address("203.0.113.7", 40000)


def suite():
    proposal = parse_proposal("aes128gcm16-prfsha256-x25519")
    found = select((proposal,), (proposal,))
    assert found is not None
    return found.suite


def keys(seed: int = 1) -> IkeKeys:
    encryption, integrity = key_octets(suite())
    octets = random.Random(seed).randbytes
    sizes = (32, integrity, integrity, encryption, encryption, 32, 32)
    return IkeKeys(*map(octets, sizes))


class End:
    """One channel and all that it sent."""

    def __init__(self, *, is_initiator: bool, protected: bool = True, **changes) -> None:
        self.sent: list[Datagram] = []
        self.noted: list[tuple[int, int]] = []  # message id, retransmission
        self.timers = Timers()
        local, remote = (HERE, THERE) if is_initiator else (THERE, HERE)
        self.channel = Channel(
            initiator_spi=b"initiate",
            responder_spi=b"responds",
            is_initiator=is_initiator,
            local=local,
            remote=remote,
            timers=self.timers,
            transmit=self.sent.append,
            on_sent=lambda message, here, there, again: self.noted.append((message.message_id, again)),
            protection=Protection(suite(), keys(), is_initiator=is_initiator) if protected else None,
            **changes,
        )

    def request(self, *payloads: Payload, now: float = 0.0) -> list[Datagram]:
        """Send a request; returns its datagrams."""
        before = len(self.sent)
        self.channel.request(INFORMATIONAL, payloads, now)
        return self.sent[before:]

    def take(self, datagram: Datagram | bytes, source: Address | None = None) -> Accepted | None:
        """Take in a datagram of the other end."""
        octets = datagram if isinstance(datagram, bytes) else datagram.octets
        return self.channel.accept(Header.decode(octets), octets, self.channel.local, source or self.channel.remote)

    def take_all(self, datagrams: list[Datagram]) -> list[Accepted]:
        """Take in several; returns what was delivered."""
        return [accepted for one in datagrams if (accepted := self.take(one)) is not None]

    def respond(self, accepted: Accepted, *payloads: Payload) -> list[Datagram]:
        """Answer; returns the datagrams."""
        before = len(self.sent)
        self.channel.respond(accepted.message.message_id, accepted.message.exchange_type, payloads)
        return self.sent[before:]

    def counted(self) -> tuple[int, ...]:
        """What must not change when strangers send."""
        channel = self.channel
        return channel.next_id, channel.expected_id, channel.outstanding, len(channel._answered), len(self.sent)


def ends(**changes) -> tuple[End, End]:
    return End(is_initiator=True, **changes), End(is_initiator=False, **changes)


def certificate(octets: int = 3000) -> Certificate:
    return Certificate(CertificateEncoding.X509_SIGNATURE, random.Random(7).randbytes(octets))


# --- windows and message ids ------------------------------------------------------------------------------------------


def test_a_request_and_its_answer():
    a, b = ends()
    (request,) = a.request(Nonce(bytes(16)))
    accepted = b.take(request)
    assert accepted is not None and accepted.message.payloads == (Nonce(bytes(16)),)
    assert not accepted.message.is_response and accepted.message.is_initiator
    (response,) = b.respond(accepted, Nonce(b"\1" * 16))
    assert (response.local, response.remote) == (THERE, HERE)
    answer = a.take(response)
    assert answer is not None and answer.message.payloads == (Nonce(b"\1" * 16),)
    assert a.channel.outstanding == 0 and a.timers.next() is None


def test_both_directions_count_for_themselves():
    a, b = ends()
    for expected in range(3):
        for one, other in ((a, b), (b, a)):
            (request,) = one.request()
            accepted = other.take(request)
            assert accepted is not None and accepted.message.message_id == expected
            (response,) = other.respond(accepted)
            assert one.take(response) is not None


def test_one_request_at_a_time():
    a, _ = ends()
    assert a.channel.can_request
    a.request()
    assert not a.channel.can_request and a.channel.outstanding == 1


def test_a_wider_window_is_used_and_not_passed():
    a, b = ends(window=3, peer_window=3)
    requests = [a.request()[0] for _ in range(3)]
    assert not a.channel.can_request
    third, first = b.take(requests[2]), b.take(requests[0])
    assert third is not None and first is not None  # out of order
    assert a.take(*b.respond(third)) is not None
    assert not a.channel.can_request  # the window begins with the oldest one
    assert a.take(*b.respond(first)) is not None
    assert a.channel.can_request
    assert b.take(requests[1]) is not None


def test_a_peer_that_passes_its_window_is_not_heard():
    a, b = ends(peer_window=9, window=2)
    requests = [a.request()[0] for _ in range(5)]
    assert len(b.take_all(requests)) == 2
    assert b.channel.counters.outside_window == 3
    # The window moves on with answers, not with requests.
    assert b.take(requests[2]) is None
    b.channel.respond(1, INFORMATIONAL, ())
    assert b.take(requests[2]) is None
    b.channel.respond(0, INFORMATIONAL, ())
    assert b.take(requests[2]) is not None


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**32))
def test_every_request_is_delivered_once_whatever_the_network_does(window, seed):
    source = random.Random(seed)
    a, b = ends(window=window, peer_window=window)
    delivered: list[int] = []
    flying: list[tuple[End, Datagram]] = []
    sent, answered = 0, 0
    while answered < 12:
        while a.channel.can_request and sent < 12:
            a.request(Nonce(bytes([sent]) * 16))
            sent += 1
        for message_id in list(a.channel._outstanding):
            if not a.channel.retransmit(message_id, 0.0):
                a.channel.resend_all(0.0)
        for one, other in ((a, b), (b, a)):
            flying += [(other, datagram) for datagram in one.sent for _ in range(source.randint(0, 2))]
            one.sent.clear()
        source.shuffle(flying)
        for end, datagram in flying[: len(flying) // 2 + 1]:
            accepted = end.take(datagram)
            if accepted is None:
                continue
            if end is b:
                delivered.append(accepted.message.message_id)
                b.respond(accepted, *accepted.message.payloads)
            else:
                assert accepted.message.payloads == (Nonce(bytes([accepted.message.message_id]) * 16),)
                answered += 1
        del flying[: len(flying) // 2 + 1]
    assert sorted(delivered) == list(range(12))


@pytest.mark.parametrize("message_id", [1, 2, 77, LAST_MESSAGE_ID])
def test_message_ids_from_the_future_are_dropped(message_id):
    a, b = ends()
    a.channel.next_id = message_id
    (request,) = a.request()
    before = b.counted()
    assert b.take(request) is None
    assert b.counted() == before and b.channel.counters.outside_window == 1


def test_message_ids_of_the_past_are_dropped():
    a, b = ends()
    old = a.request()
    for _ in range(3):
        a.take_all([one for accepted in b.take_all(a.sent) for one in b.respond(accepted)])
        a.sent.clear()
        a.request()
    before = b.counted()
    assert b.take(old[0]) is None and b.counted() == before


def test_responses_to_requests_never_sent_are_dropped():
    a, b = ends()
    other, _ = ends()
    (request,) = other.request()
    accepted = b.take(request)
    assert accepted is not None
    (response,) = b.respond(accepted)
    assert a.take(response) is None and a.channel.counters.duplicates == 1


def test_a_response_is_taken_once():
    a, b = ends()
    accepted = b.take(a.request()[0])
    assert accepted is not None
    (response,) = b.respond(accepted)
    assert a.take(response) is not None
    assert a.take(response) is None


def test_a_response_of_another_exchange_is_no_answer():
    a, b = ends()
    accepted = b.take(a.request()[0])
    assert accepted is not None
    b.channel.respond(0, IKE_AUTH, ())
    before = a.counted()
    assert a.take(b.sent[-1]) is None and a.counted() == before


def test_the_last_message_id_is_never_used_for_a_request():
    a, b = ends()
    a.channel.next_id = LAST_MESSAGE_ID - 1
    b.channel.expected_id = LAST_MESSAGE_ID - 1
    accepted = b.take(a.request()[0])
    assert accepted is not None
    assert a.take(*b.respond(accepted)) is not None
    assert a.channel.outstanding == 0 and not a.channel.can_request


def test_a_peer_at_the_end_of_its_message_ids_stays_there():
    a, b = ends()
    a.channel.next_id = b.channel.expected_id = LAST_MESSAGE_ID
    accepted = b.take(a.request()[0])
    assert accepted is not None
    b.respond(accepted)
    assert b.channel.expected_id == LAST_MESSAGE_ID + 1
    again, _ = ends()
    assert b.take(again.request()[0]) is None  # 0 does not come after it


def test_a_request_begun_anew_has_its_old_message_id():
    """IKE_SA_INIT with a cookie."""
    a, _ = ends(protected=False)
    for size in (16, 17):
        a.channel.request(ExchangeType.IKE_SA_INIT, (Nonce(bytes(size)),), 0.0, message_id=0)
    assert [Header.decode(one.octets).message_id for one in a.sent] == [0, 0]
    assert a.channel.outstanding == 1 and a.channel.next_id == 1
    assert a.channel.request_octets == a.sent[-1].octets


# --- duplicates -------------------------------------------------------------------------------------------------------


def test_a_duplicate_is_answered_octet_for_octet():
    a, b = ends()
    (request,) = a.request()
    accepted = b.take(request)
    assert accepted is not None
    (response,) = b.respond(accepted, Nonce(bytes(16)))
    for _ in range(3):
        assert b.take(request) is None
    assert [one.octets for one in b.sent] == [response.octets] * 4


def test_a_duplicate_is_answered_to_where_it_came_from():
    """The peer has moved, or its NAT has, since it asked first (RFC 7296 section 2.11)."""
    a, b = ends()
    (request,) = a.request()
    accepted = b.take(request)
    assert accepted is not None
    b.respond(accepted)
    b.take(request, ELSEWHERE)
    assert [one.remote for one in b.sent] == [HERE, ELSEWHERE]
    assert b.channel.remote == HERE  # where our own requests go is another matter


def test_while_the_answer_is_being_made_duplicates_are_dropped():
    a, b = ends()
    (request,) = a.request()
    accepted = b.take(request)
    assert accepted is not None
    assert b.take(request) is None and b.take(request, ELSEWHERE) is None and not b.sent
    (response,) = b.respond(accepted)
    assert response.remote == ELSEWHERE  # the latest place at which the peer waits


def test_the_same_message_id_with_other_octets_gets_nothing():
    a, b = ends()
    accepted = b.take(a.request()[0])
    assert accepted is not None
    b.respond(accepted)
    other, _ = ends()
    (changed,) = other.request(Notify(NotifyType.INITIAL_CONTACT))
    assert b.take(changed) is None and len(b.sent) == 1


def test_answers_are_kept_for_a_window_and_no_longer():
    a, b = ends(window=3, peer_window=3)
    for _ in range(50):
        accepted = b.take(a.request()[0])
        assert accepted is not None
        assert a.take(*b.respond(accepted)) is not None
        assert len(b.channel._answered) <= 3


# --- what is not authentic --------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 400), st.integers(1, 255), st.booleans())
def test_nothing_that_was_changed_on_the_way_changes_anything(position, change, is_response):
    a, b = ends(accept_fragments=True)
    accepted = b.take(a.request(Nonce(bytes(16)))[0])
    assert accepted is not None
    (response,) = b.respond(accepted, Nonce(bytes(16)))
    if is_response:
        end, octets = a, bytearray(response.octets)
    else:
        fresh, end = ends(accept_fragments=True)
        octets = bytearray(fresh.request(Nonce(bytes(16)))[0].octets)
    position %= len(octets)
    octets[position] ^= change
    if position in (16, 17, 19) or 24 <= position < 28:
        return  # next payload, version, flags, length: looked at before a channel gets it, or below
    before = end.counted()
    assert end.take(bytes(octets)) is None
    assert end.counted() == before


def test_our_own_messages_do_not_come_back_to_us():
    a, b = ends()
    (request,) = a.request()
    assert a.take(request) is None  # sealed with the keys of the other direction
    accepted = b.take(request)
    assert accepted is not None
    (response,) = b.respond(accepted)
    b.request()
    assert b.take(response) is None and b.channel.outstanding == 1


def test_messages_in_the_clear_are_nothing_once_there_are_keys():
    bare, _ = ends(protected=False)
    (request,) = bare.request(Notify(NotifyType.INVALID_IKE_SPI))
    _, b = ends()
    before = b.counted()
    assert b.take(request) is None and b.counted() == before and b.channel.counters.integrity == 1


def test_requests_in_the_clear_are_nothing_before_there_are_keys():
    bare, b = ends(protected=False)
    before = b.counted()
    assert b.take(bare.request()[0]) is None and b.counted() == before


# --- retransmission ---------------------------------------------------------------------------------------------------


def test_the_schedule_of_retransmissions():
    a, _ = ends(retransmission=Retransmission(first=1.0, factor=2.0, tries=3))
    a.request(now=100.0)
    moments = []
    while (at := a.timers.next()) is not None:
        assert a.timers.pop_due(at) == ("retransmit", 0)
        moments.append(at - 100.0)
        if not a.channel.retransmit(0, at):
            break
    assert moments == [1.0, 3.0, 7.0, 15.0]
    assert len({one.octets for one in a.sent}) == 1 and len(a.sent) == 4
    assert a.noted == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert a.channel.counters.retransmissions == 3


def test_an_answered_request_is_not_sent_again():
    a, b = ends()
    accepted = b.take(a.request()[0])
    assert accepted is not None
    a.take(*b.respond(accepted))
    assert a.channel.retransmit(0, 5.0) and len(a.sent) == 1
    assert a.timers.next() is None


def test_on_a_new_path_everything_goes_out_at_once_with_fresh_tries():
    a, _ = ends(peer_window=2, retransmission=Retransmission(first=1.0, factor=2.0, tries=1))
    a.request()
    a.request()
    assert a.channel.retransmit(0, 1.0) and not a.channel.retransmit(0, 3.0)
    a.channel.remote = ELSEWHERE
    a.sent.clear()
    a.channel.resend_all(3.0)
    assert [(Header.decode(one.octets).message_id, one.remote) for one in a.sent] == [(0, ELSEWHERE), (1, ELSEWHERE)]
    assert a.timers.get(("retransmit", 0)) == 4.0
    assert a.channel.retransmit(0, 4.0)


def test_what_is_given_up_leaves_no_timer():
    a, _ = ends(peer_window=2)
    a.request()
    a.request()
    a.channel.cancel_requests()
    assert a.timers.next() is None and a.channel.outstanding == 0


# --- fragments --------------------------------------------------------------------------------------------------------


def fragmented(**changes) -> tuple[End, End]:
    return ends(accept_fragments=True, fragment_octets=576, **changes)


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False))
def test_fragments_in_any_order_and_twice(source):
    a, b = fragmented()
    pieces = a.request(certificate()) * 2
    assert all(len(one.octets) + 28 + 4 <= 576 for one in pieces)
    source.shuffle(pieces)
    (accepted,) = b.take_all(pieces)
    assert accepted.message.payloads == (certificate(),)
    assert not b.channel._reassembly._partial


def test_only_the_first_fragment_asks_for_the_answer_again():
    a, b = fragmented()
    pieces = a.request(certificate())
    (accepted,) = b.take_all(pieces)
    answer = b.respond(accepted, certificate(2000))
    assert len(answer) > 2
    b.sent.clear()
    b.take_all(pieces[1:])
    assert not b.sent
    b.take(pieces[0], ELSEWHERE)
    assert [one.octets for one in b.sent] == [one.octets for one in answer]
    assert {one.remote for one in b.sent} == {ELSEWHERE}


def test_a_request_split_anew_after_it_was_answered_is_answered_again():
    """The answer was lost, and the peer thinks that its fragments were too large (RFC 7383 section 2.5.2)."""
    a, b = fragmented()
    (accepted,) = b.take_all(a.request(certificate()))
    answer = b.respond(accepted)
    message = a.channel._outstanding[0].message
    smaller = a.channel.protection.seal_fragments(message, 300, ipv6=False)
    b.sent.clear()
    for _ in range(2):
        assert [b.take(octets) for octets in smaller] == [None] * len(smaller)
    assert [one.octets for one in b.sent] == [answer[0].octets] * 2
    forged = smaller[0][:-1] + bytes([smaller[0][-1] ^ 1])
    assert b.take(forged) is None and len(b.sent) == 2


def test_a_whole_message_after_some_of_its_fragments():
    a, b = fragmented()
    pieces = a.request(certificate())
    assert b.take_all(pieces[:2]) == []
    whole = a.channel.protection.seal(a.channel._outstanding[0].message)
    accepted = b.take(whole)
    assert accepted is not None and not b.channel._reassembly._partial
    b.respond(accepted)
    b.sent.clear()
    b.take(whole)
    assert len(b.sent) == 1


def test_fragments_are_refused_where_they_were_not_agreed():
    a, _ = fragmented()
    _, b = ends()
    assert b.take_all(a.request(certificate())) == []
    assert b.channel.counters.integrity > 0 and b.channel._reassembly is None


def test_a_fragment_that_is_not_authentic_keeps_no_memory():
    a, b = fragmented()
    pieces = a.request(certificate())
    for one in pieces:
        b.take(one.octets[:-1] + bytes([one.octets[-1] ^ 1]))
    assert b.channel._reassembly is None or not b.channel._reassembly._partial
    assert not b.channel._first_fragments
    assert len(b.take_all(pieces)) == 1


def test_fragments_beyond_the_limit_are_given_up():
    a, b = fragmented(reassembly_limit=2000)
    assert b.take_all(a.request(certificate())) == []
    assert b.channel.counters.malformed == 1


def test_small_messages_are_not_split():
    a, _ = fragmented()
    assert len(a.request(Nonce(bytes(16)))) == 1


def test_octets_that_are_authentic_and_no_payloads_are_delivered_as_an_error():
    a, b = ends()
    (request,) = a.request(UnknownPayload(PayloadType.NONCE, False, b"short"))
    accepted = b.take(request)
    assert accepted is not None and accepted.error is not None and accepted.message.payloads == ()


def test_a_peer_that_is_not_authenticated_gets_an_answer_repeated_so_often_and_no_more():
    a, b = ends()
    (request,) = a.request()
    accepted = b.take(request)
    assert accepted is not None
    b.respond(accepted)
    for _ in range(3 * MAX_REPEATS):
        b.take(request)
    assert len(b.sent) == 1 + MAX_REPEATS
    b.channel.authenticated = True
    b.take(request)
    assert len(b.sent) == 2 + MAX_REPEATS

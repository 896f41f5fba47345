"""EAP-SIM, EAP-AKA and EAP-AKA' in memory: what works, from log-in to log-in."""

from __future__ import annotations

import pytest

from ikeway.eap.sim_attributes import Subtype
from ikeway.eap.sim_identities import MAX_COUNTER, PeerIdentities, TemporaryIdentities
from ikeway.eap.sim_questions import GsmTripletsQuestion, UmtsVectorQuestion
from ikeway.eap.usim import Usim
from tests.eap.conversations import Asker
from tests.eap.sim_sides import IMSI, KI, METHODS, OPC, REALM, Centre, Pair, card

every = pytest.mark.parametrize("method", list(METHODS))
with_umts = pytest.mark.parametrize("method", ["aka", "aka-prime"])
FULL = {"sim": [10, 11, 12], "aka": [1, 12], "aka-prime": [1, 12]}
ASK = {"sim": 10, "aka": 5, "aka-prime": 5}


@every
def test_full_authentication(method):
    pair = Pair(method)
    peer, authenticator = pair.log_in()
    assert pair.subtypes() == FULL[method]
    assert authenticator.identity == IMSI
    assert peer.method == authenticator.method == pair.family.name
    assert peer.mutual is (method != "sim")
    assert pair.packets[1][5:] == pair.family.permanent + IMSI + REALM
    asked = pair.ask_centre.questions[-1]
    assert isinstance(asked, GsmTripletsQuestion if method == "sim" else UmtsVectorQuestion)
    assert getattr(asked, "separation", None) == {"sim": None, "aka": False, "aka-prime": True}[method]


@every
def test_keys_differ_from_log_in_to_log_in_and_no_identity_is_told_twice(method):
    pair = Pair(method)
    keys, told = set(), set()
    for _ in range(8):
        keys.add(pair.log_in()[0].msk)
        told.add(pair.packets[1][5:])
    assert len(keys) == len(told) == 8
    assert sum(IMSI in identity for identity in told) == 1


@every
def test_fast_reauthentication_asks_for_no_vector(method):
    pair = Pair(method)
    pair.log_in()
    vectors, questions = pair.centre.vectors, len(pair.ask_card.questions)
    _, authenticator = pair.log_in()
    assert pair.subtypes() == [13, 12]
    assert (pair.centre.vectors, len(pair.ask_card.questions)) == (vectors, questions)
    assert authenticator.identity == IMSI


@every
def test_after_so_many_fast_ones_comes_a_full_one_under_the_pseudonym(method):
    pair = Pair(method)
    pair.log_in()
    for _ in range(MAX_COUNTER):
        pair.log_in()
        assert pair.subtypes()[0] == Subtype.REAUTHENTICATION
    pair.log_in()
    assert pair.subtypes() == FULL[method]
    told = pair.packets[1][5:]
    assert told.startswith(pair.family.pseudonym) and told.endswith(REALM) and IMSI not in told


@every
def test_a_gateway_that_forgot_asks_for_less_and_less(method):
    pair = Pair(method)
    pair.log_in()
    pair.given = TemporaryIdentities(pair.family)
    pair.log_in()
    # The fast identity is unknown, the pseudonym too, the permanent one is known.
    assert pair.subtypes() == [ASK[method], ASK[method], *FULL[method][-2:]]


@every
def test_a_gateway_that_forgot_only_the_fast_identity_takes_the_pseudonym(method):
    pair = Pair(method)
    pair.log_in()
    pair.given.remember(pair.family.permanent + IMSI + REALM, None, None)
    pair.log_in()
    assert pair.subtypes() == [ASK[method], *FULL[method][-2:]]
    assert not any(IMSI in packet for packet in pair.packets)


@every
def test_a_name_that_says_nothing_makes_the_gateway_ask(method):
    pair = Pair(method)
    pair.log_in(told=b"somebody@example.com")
    assert pair.subtypes() == [ASK[method], *FULL[method][-2:]]
    # and asked for any identity, the peer takes the fast one
    pair.log_in(told=b"somebody@example.com")
    assert pair.subtypes() == [ASK[method], 13, 12]


@every
def test_a_client_that_forgot_begins_anew(method):
    pair = Pair(method)
    pair.log_in()
    pair.identities = PeerIdentities(pair.family, IMSI + REALM)
    pair.log_in()
    assert pair.subtypes() == FULL[method]


@every
def test_a_counter_that_is_too_small_leads_to_a_full_authentication(method):
    pair = Pair(method)
    pair.log_in()
    following = pair.identities.next
    assert following is not None
    pair.identities.next = following.followed_by(following.identity, 5)
    pair.log_in()
    assert pair.subtypes() == [13, *FULL[method]]


@every
def test_who_was_removed_gets_no_fast_authentication_either(method):
    pair = Pair(method)
    pair.log_in()
    del pair.centre.milenage[IMSI]
    peer, authenticator = pair.begin()
    with pytest.raises(Exception, match="Ki and OPc"):
        log_in_until_failure(pair, peer, authenticator)
    assert authenticator.failed and "no subscriber" in authenticator.reason


def log_in_until_failure(pair, peer, authenticator):
    from tests.eap.conversations import log_in

    pair.packets = log_in(peer, authenticator)


@with_umts
def test_a_card_that_is_further_on_is_followed(method):
    usim = Usim(KI, OPC)
    usim._taken = [1 << 42] * 32
    usim._highest = (1 << 47) + 7
    pair = Pair(method, answers=lambda question: usim.authenticate(question.rand, question.autn))
    pair.log_in()
    assert pair.subtypes() == [1, 1, 12]
    for _ in range(MAX_COUNTER + 1):
        pair.log_in()
    assert pair.subtypes() == [1, 12]  # from then on without detours


@with_umts
def test_a_restarted_gateway_goes_on_with_later_numbers(method):
    usim = Usim(KI, OPC)
    answers = lambda question: usim.authenticate(question.rand, question.autn)  # noqa: E731
    before = Pair(method, answers=answers)
    before.log_in()
    after = Pair(method, answers=answers)
    after.centre.clock = before.centre.clock
    after.log_in()
    assert after.subtypes() == [1, 12]


@with_umts
def test_a_gateway_whose_clock_went_back_learns_it_from_the_card(method):
    usim = Usim(KI, OPC)
    answers = lambda question: usim.authenticate(question.rand, question.autn)  # noqa: E731
    Pair(method, answers=answers).log_in()
    after = Pair(method, answers=answers)
    after.centre.clock = iter(range(1_000_000_000, 1_000_000_100))
    for _ in range(3):
        after.identities = PeerIdentities(after.family, IMSI + REALM)
        after.log_in()
    assert after.subtypes() == [1, 12]


@every
def test_two_subscribers_do_not_get_in_each_others_way(method):
    one, other = Pair(method, name=IMSI), Pair(method, name=b"001010000000002")
    one.centre = other.centre = Centre(IMSI, b"001010000000002")
    one.ask_centre = other.ask_centre = Asker(one.centre)
    other.given = one.given
    for _ in range(3):
        assert one.log_in()[1].identity == IMSI
        assert other.log_in()[1].identity == b"001010000000002"


def test_the_bidding_attribute_does_no_harm_where_nothing_better_is_wanted():
    pair = Pair("aka")
    pair.authenticator_options = {"prefers_prime": True}
    pair.log_in()


def test_network_names_are_compared_field_by_field():
    pair = Pair("aka-prime")
    pair.authenticator_options = {"network_name": b"WLAN:vpn"}
    pair.peer_options = {"network_name": b"WLAN"}
    pair.log_in()


@every
def test_keys_are_in_no_representation(method):
    pair = Pair(method)
    peer, _ = pair.log_in()
    shown = repr(pair.identities.next) + repr(pair.ask_card.questions) + repr(card) + repr(peer)
    assert "k_encr" not in shown and "secret" not in shown and str(peer.msk) not in shown

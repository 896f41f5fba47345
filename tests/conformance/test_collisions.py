"""Collisions that no list of cases has: what RFC 7296 sections 1.4.1, 2.8.1 and 2.25 imply, played by hand."""

from __future__ import annotations

import dataclasses

from ikeway.crypto import initiate_key_exchange
from ikeway.ike import events
from ikeway.ike.child import ChildState
from ikeway.ike.sa import IkeState
from ikeway.ike.selectors import selector
from ikeway.wire.message import Message
from ikeway.wire.payloads import Delete, KeyExchange, Nonce, SecurityAssociation
from ikeway.wire.registry import KeyExchangeMethod, NotifyType, ProtocolId
from tests.conformance.ipv6ready import (
    TESTER_NONCE,
    TESTER_SPI,
    children_of,
    connected,
    esp_offer,
    granted,
    ike_offer,
    logged_in,
    pair_of,
    rekey_notify,
    settings,
)
from tests.ike.pair import Pair
from tests.ike.stranger import CREATE_CHILD_SA, INFORMATIONAL, Stranger, kinds

NEW_SPI = bytes.fromhex("abcd5678")
NODE = "SGW"


def rekey_request(tester: Stranger, spi: bytes = NEW_SPI, nonce: bytes = TESTER_NONCE) -> tuple:
    """The tester rekeys the child SA that both have."""
    old = tester.there.children[0]
    _, *rest = tester.child_offer()
    return (rekey_notify(old.spi_out), esp_offer("aes128gcm16", spi), Nonce(nonce), *rest)


def ike_rekey_request() -> tuple:
    key = initiate_key_exchange(KeyExchangeMethod.CURVE25519)
    return (
        ike_offer("aes128gcm16-prfsha256-x25519", b"TESTERSP"),
        Nonce(TESTER_NONCE),
        KeyExchange(key.method, key.public_value),
    )


def reply(tester: Stranger, request: Message, *payloads) -> list[Message]:
    tester.deliver(tester.seal(request.exchange_type, *payloads, message_id=request.message_id, is_response=True))
    return tester.answers()


def pending(pair: Pair) -> tuple[Stranger, Message]:
    """The initiator has asked to rekey its child SA and waits for the answer."""
    tester = connected(pair)
    tester.there.rekey_child(tester.there.children[0], pair.now)
    (request,) = tester.answers()
    return tester, request


def nothing_is_left(tester: Stranger) -> None:
    """No child SA in the data plane, and no SPI of one kept."""
    tester.pair.run(20)
    assert children_of(tester) == 0 and not tester.there.children
    assert not tester.host.engine._shared.esp_spis


# --- rekeyed by the peer ----------------------------------------------------------------------------------------------


def test_a_second_rekeying_before_the_first_is_over_has_to_wait():
    tester = logged_in(pair_of(NODE))
    tester.ask(CREATE_CHILD_SA, *rekey_request(tester), message_id=2)
    again = tester.ask(CREATE_CHILD_SA, *rekey_request(tester, b"\xab\xcd\x99\x99"), message_id=3)
    assert kinds(again) == ["TEMPORARY_FAILURE"]
    assert len(tester.there.children) == 2
    tester.ask(INFORMATIONAL, Delete(ProtocolId.ESP, (TESTER_SPI,)), message_id=4)
    tester.pair.run(10)
    assert children_of(tester) == 1


def test_a_peer_that_gives_up_its_new_child_sa_keeps_the_old_one():
    tester = logged_in(pair_of(NODE))
    (old,) = tester.there.children
    tester.ask(CREATE_CHILD_SA, *rekey_request(tester), message_id=2)
    answer = tester.ask(INFORMATIONAL, Delete(ProtocolId.ESP, (NEW_SPI,)), message_id=3)
    assert kinds(answer) == ["Delete"]
    assert old.state is ChildState.INSTALLED and set(tester.host.outbound) == {old.spi_out}
    assert not tester.host.happened(events.ChildDown)
    # It may rekey it anew, or delete it.
    tester.ask(CREATE_CHILD_SA, *rekey_request(tester, b"\xab\xcd\x99\x99"), message_id=4)
    tester.ask(INFORMATIONAL, Delete(ProtocolId.ESP, (TESTER_SPI, b"\xab\xcd\x99\x99")), message_id=5)
    assert len(tester.host.happened(events.ChildDown)) == 1
    nothing_is_left(tester)


def test_deleting_a_child_sa_that_the_peer_has_just_rekeyed_deletes_what_it_became():
    tester = logged_in(pair_of(NODE))
    (old,) = tester.there.children
    tester.ask(CREATE_CHILD_SA, *rekey_request(tester), message_id=2)
    new = next(child for child in tester.there.children if child is not old)
    tester.there.delete_child(old, tester.pair.now)
    (request,) = tester.answers()
    assert request.payloads == (Delete(ProtocolId.ESP, (new.spi_in_octets,)),)
    # The peer's delete of the old one crosses.
    answer = tester.ask(INFORMATIONAL, Delete(ProtocolId.ESP, (TESTER_SPI,)), message_id=3)
    assert answer.payloads == (Delete(ProtocolId.ESP, (old.spi_in_octets,)),)
    reply(tester, request, Delete(ProtocolId.ESP, (NEW_SPI,)))
    assert len(tester.host.happened(events.ChildDown)) == 1
    nothing_is_left(tester)


def test_a_child_sa_that_expires_while_the_peer_rekeys_it_is_replaced():
    tester = logged_in(pair_of(NODE))
    (old,) = tester.there.children
    tester.there.check_liveness(tester.pair.now)  # our window is full
    tester.there.expire_child(old, tester.pair.now)
    (probe,) = tester.answers()
    tester.ask(CREATE_CHILD_SA, *rekey_request(tester), message_id=2)
    assert reply(tester, probe) == []  # no delete: the peer sends one
    assert old not in tester.there.children and children_of(tester) == 1
    assert tester.ask(INFORMATIONAL, Delete(ProtocolId.ESP, (TESTER_SPI,)), message_id=3).payloads == ()
    assert not tester.host.happened(events.ChildDown)


# --- rekeyed by both --------------------------------------------------------------------------------------------------


def test_the_ike_sa_is_not_rekeyed_while_an_answer_for_a_child_sa_is_awaited():
    """Also when the peer's own rekeying of it is final, and the child SA looks settled (section 2.25.2)."""
    tester, request = pending(pair_of(NODE))
    (old,) = tester.there.children
    tester.ask(CREATE_CHILD_SA, *_theirs(tester, old.spi_out), message_id=0)
    tester.ask(INFORMATIONAL, Delete(ProtocolId.ESP, (old.spi_out_octets,)), message_id=1)
    assert old.state is ChildState.DELETED
    refused = tester.ask(CREATE_CHILD_SA, *ike_rekey_request(), message_id=2)
    assert kinds(refused) == ["TEMPORARY_FAILURE"]
    reply(tester, request, *_failure())
    answer = tester.ask(CREATE_CHILD_SA, *ike_rekey_request(), message_id=3)
    assert answer.find(SecurityAssociation) is not None and tester.there.state is IkeState.REKEYED
    tester.pair.run(10)
    assert children_of(tester) == 1 and len(tester.there.successor.children) == 1


def _theirs(tester: Stranger, spi_out: int, nonce: bytes = bytes(32)) -> tuple:
    _, *rest = tester.child_offer()
    selectors = rest[::-1]  # the tester is the other side now
    turned = [type(one)(other.selectors) for one, other in zip(rest, selectors, strict=True)]
    return (rekey_notify(spi_out), esp_offer("aes128gcm16", NEW_SPI), Nonce(nonce), *turned)


def _failure() -> tuple:
    from ikeway.wire.payloads import Notify

    return (Notify(NotifyType.TEMPORARY_FAILURE),)


def test_a_peer_that_takes_back_its_rekeying_and_refuses_ours_leaves_the_old_child_sa():
    tester, request = pending(pair_of(NODE))
    (old,) = tester.there.children
    tester.ask(CREATE_CHILD_SA, *_theirs(tester, old.spi_out), message_id=0)
    tester.ask(INFORMATIONAL, Delete(ProtocolId.ESP, (NEW_SPI,)), message_id=1)
    assert old.state is ChildState.REKEYING
    assert reply(tester, request, *_failure()) == []
    assert old.state is ChildState.INSTALLED and old.rekeyed_by_peer is None
    tester.pair.run(4)
    assert set(tester.host.outbound) == {old.spi_out} and not tester.host.happened(events.ChildDown)
    tester.pair.run(10)
    assert old.state is ChildState.REKEYING  # tried again
    assert set(tester.host.inbound) == {old.spi_in}


def test_both_new_child_sas_deleted_before_our_answer_is_here():
    tester, request = pending(pair_of(NODE))
    (old,) = tester.there.children
    tester.ask(CREATE_CHILD_SA, *_theirs(tester, old.spi_out), message_id=0)
    ours = Delete(ProtocolId.ESP, (NEW_SPI, TESTER_SPI, old.spi_out_octets))
    answer = tester.ask(INFORMATIONAL, ours, message_id=1)
    assert len(answer.payloads[0].spis) == 2  # of the third we know nothing yet
    assert reply(tester, request, *granted(request)) == []
    assert [event.child.spi_out_octets for event in tester.host.happened(events.ChildDown)] == [TESTER_SPI]
    nothing_is_left(tester)


# --- deletes that overtake --------------------------------------------------------------------------------------------


def test_a_new_child_sa_that_is_deleted_before_we_know_it():
    pair = pair_of(NODE)
    tester = connected(pair)
    other = settings(NODE, name="other", remote_selectors=(selector("10.3.0.0/16"),))
    tester.there.create_child(other, pair.now)
    (request,) = tester.answers()
    assert tester.ask(INFORMATIONAL, Delete(ProtocolId.ESP, (TESTER_SPI,)), message_id=0).payloads == ()
    assert reply(tester, request, *granted(request)) == []
    assert children_of(tester) == 1 and len(tester.there.children) == 1
    (down,) = tester.host.happened(events.ChildDown)
    assert down.child.settings is other


def test_deletes_of_the_unknown_are_remembered_only_while_it_matters_and_not_without_bound():
    pair = pair_of(NODE)
    tester = connected(pair)
    unknown = tuple(number.to_bytes(4, "big") for number in range(0x20000, 0x20000 + 200))
    tester.ask(INFORMATIONAL, Delete(ProtocolId.ESP, unknown), message_id=0)
    assert not tester.there.early_deletes
    tester.there.rekey_child(tester.there.children[0], pair.now)
    (request,) = tester.answers()
    tester.ask(INFORMATIONAL, Delete(ProtocolId.ESP, unknown), message_id=1)
    assert 0 < len(tester.there.early_deletes) <= 64
    (delete,) = reply(tester, request, *granted(request))
    reply(tester, delete)
    # What was said then does not hit an SA that has the same SPI by chance later.
    tester.there.rekey_child(tester.there.live_children[0], pair.now)
    (request,) = tester.answers()
    (delete,) = reply(tester, request, *granted(request, unknown[0]))
    assert kinds(delete) == ["Delete"] and int.from_bytes(unknown[0], "big") in tester.host.outbound


def test_the_peers_delete_of_a_child_sa_that_waits_for_our_delete():
    """Our delete waits in the queue, the peer's is here: ours is not sent any more."""
    tester = logged_in(pair_of(NODE))
    (old,) = tester.there.children
    tester.there.check_liveness(tester.pair.now)
    tester.there.delete_child(old, tester.pair.now)
    (probe,) = tester.answers()
    assert kinds(tester.ask(INFORMATIONAL, Delete(ProtocolId.ESP, (TESTER_SPI,)), message_id=2)) == ["Delete"]
    assert reply(tester, probe) == []
    assert len(tester.host.happened(events.ChildDown)) == 1
    nothing_is_left(tester)


# --- childless --------------------------------------------------------------------------------------------------------


def test_a_gateway_without_child_sas_in_ike_auth_refuses_one():
    pair = pair_of(NODE)
    pair.b.connection = dataclasses.replace(pair.b.connection, childless=True)
    pair.connect()
    assert not pair.a.engine.sas and not pair.b.engine.sas
    assert pair.a.errors[0].notify == NotifyType.INVALID_SYNTAX

"""EAP-SIM, EAP-AKA and EAP-AKA' in memory: what goes wrong, who says what about it, and that it ends."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ikeway.crypto.milenage import Milenage
from ikeway.eap.authentication_centre import gsm_triplets
from ikeway.eap.errors import AccountRestricted, EapFailed, MalformedEap, ServerNotAuthentic
from ikeway.eap.packet import EapCode, EapPacket, MethodType
from ikeway.eap.sim_attributes import Attribute, Subtype, decode_message, encode_message, flag, number
from ikeway.eap.sim_identities import Reauthentication, TemporaryIdentities, permanent_identity
from ikeway.eap.sim_keys import AKA, AKA_PRIME, SIM, sim_keys
from ikeway.eap.sim_protection import authenticated, encrypted
from ikeway.eap.sim_questions import OutOfSync, SubscriberTriplets
from ikeway.eap.usim import Usim
from ikeway.errors import IkewayError
from tests.eap.conversations import Asker, finish, log_in
from tests.eap.sim_sides import IMSI, KI, METHODS, OPC, REALM, Centre, Pair, card

A = Attribute
every = pytest.mark.parametrize("method", list(METHODS))
with_umts = pytest.mark.parametrize("method", ["aka", "aka-prime"])
OTHER_KI = bytes(16)
FAILURE = EapCode.FAILURE


def fail(pair: Pair, change=lambda packet: packet, told=None) -> tuple[IkewayError, IkewayError, list[EapPacket]]:
    """A log-in that fails; returns what both sides say of it, and the packets. `change` is who is between them."""
    peer, authenticator = pair.begin(told=told)
    packets = [finish(authenticator.start())]
    with pytest.raises(IkewayError) as raised:
        while True:
            response = finish(peer.receive(change(packets[-1])))
            assert response is not None, "it succeeded"
            packets.append(response)
            packets.append(finish(authenticator.receive(change(response))))
    assert peer.failed and not peer.succeeded and peer.msk is None
    error = authenticator.error or authenticator.abandon(EapFailed("the peer has gone"))
    assert not authenticator.succeeded and authenticator.msk is None
    return raised.value, error, [EapPacket.decode(packet) for packet in packets]


@every
def test_another_key_on_the_card(method):
    ours, theirs, packets = fail(Pair(method, answers=card(ki=OTHER_KI)))
    assert "Ki and OPc" in ours.remedy and "Ki and OPc" in theirs.remedy
    assert isinstance(ours, ServerNotAuthentic) is (method != "sim")
    last = decode_message(packets[-2].data)
    assert last.subtype is (Subtype.CLIENT_ERROR if method == "sim" else Subtype.AKA_AUTHENTICATION_REJECT)
    assert packets[-1].code is FAILURE


@every
def test_nobody_learns_who_is_known(method):
    """An unknown subscriber and a wrong key look alike from outside; only the log tells them apart."""
    _, _, wrong = fail(Pair(method, answers=card(ki=OTHER_KI)))
    _, theirs, unknown = fail(Pair(method, centre=Centre(b"001010000000009")))
    assert "no subscriber" in theirs.reason
    assert [(one.code, len(one.data)) for one in wrong] == [(one.code, len(one.data)) for one in unknown]
    shapes = [
        [[kind for kind, _ in decode_message(one.data).pairs] for one in packets[2:-1]] for packets in (wrong, unknown)
    ]
    assert shapes[0] == shapes[1]


@with_umts
def test_a_wrong_answer_is_notified_and_refused(method):
    def changed(octets):
        packet = EapPacket.decode(octets)
        if packet.code is EapCode.RESPONSE and packet.type != 1 and A.AT_RES in decode_message(packet.data):
            return octets[:13] + bytes((octets[13] ^ 1,)) + octets[14:]
        return octets

    ours, theirs, packets = fail(Pair(method), changed)
    assert "not authentic" in theirs.reason
    notification = decode_message(packets[-3].data)
    assert notification.pairs == (number(A.AT_NOTIFICATION, 16384),)
    assert packets[-1].code is FAILURE
    assert "cannot come at this time" in ours.reason  # this side had already proven the server


@every
def test_a_changed_octet_anywhere_ends_the_log_in_or_changes_nothing(method):
    """Flip a bit in each octet of each packet in turn: never do both sides succeed with different keys."""
    model = Pair(method)
    model.log_in(told=b"somebody")
    lengths = [len(packet) for packet in model.packets]
    outcomes = set()
    for number_, length in enumerate(lengths):
        for at in range(0, length, 3 if length > 60 else 1):
            pair, seen = Pair(method), iter(range(100))

            def change(packet, target=number_, at=at, seen=seen):
                if next(seen) == target and at < len(packet):
                    return packet[:at] + bytes((packet[at] ^ 0x10,)) + packet[at + 1 :]
                return packet

            peer, authenticator = pair.begin(told=b"somebody")
            packets = [finish(authenticator.start())]
            try:
                while (response := finish(peer.receive(change(packets[-1])))) is not None:
                    packets.append(response)
                    packets.append(finish(authenticator.receive(change(response))))
            except IkewayError:
                outcomes.add("refused")
                continue
            outcomes.add("succeeded")
            assert authenticator.succeeded and peer.msk == authenticator.msk
    assert outcomes == {"refused", "succeeded"}  # reserved octets may be anything


@every
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.binary(max_size=200), st.booleans(), st.integers(0, 14))
def test_octets_of_a_stranger_end_in_an_error_of_ours(method, octets, to_peer, subtype):
    pair = Pair(method)
    peer, authenticator = pair.begin()
    data = bytes((subtype, 0, 0)) + octets
    request = finish(authenticator.start())
    if to_peer:
        packet = EapPacket.of(EapCode.REQUEST, 1, pair.family.type, data).encode()
        answer = finish(peer.receive(packet))
        assert answer is not None
        with pytest.raises(IkewayError):
            finish(peer.receive(EapPacket(EapCode.SUCCESS, 1).encode()))
        return
    request = finish(authenticator.receive(finish(peer.receive(request))))
    answer = finish(authenticator.receive(EapPacket.of(EapCode.RESPONSE, request[1], pair.family.type, data).encode()))
    assert not authenticator.succeeded
    assert answer[0] == FAILURE or answer[5] in (1, 5, 10, 12)


def requests_of(pair: Pair, told: bytes | None = None):
    """A peer, and a function that gives it requests of a server that the test plays; returns the decoded answers."""
    peer, _ = pair.begin(told=told)
    identifier = iter(range(1, 200))

    def say(subtype, pairs, k_aut=None, extra=b""):
        number_ = next(identifier)
        if k_aut is None:
            data = encode_message(subtype, pairs)
        else:
            data = authenticated(pair.family, k_aut, EapCode.REQUEST, number_, subtype, pairs, extra)
        answer = finish(peer.receive(EapPacket.of(EapCode.REQUEST, number_, pair.family.type, data).encode()))
        return decode_message(EapPacket.decode(answer).data)

    return peer, say


def reason_of(peer) -> IkewayError:
    with pytest.raises(IkewayError) as raised:
        finish(peer.receive(EapPacket(FAILURE, 1).encode()))
    return raised.value


def client_error(message) -> int:
    assert message.subtype is Subtype.CLIENT_ERROR
    return message.number(A.AT_CLIENT_ERROR_CODE)


VERSIONS = (A.AT_VERSION_LIST, b"\0\1")


def test_a_version_that_we_have_not():
    peer, say = requests_of(Pair("sim"))
    assert client_error(say(Subtype.SIM_START, [(A.AT_VERSION_LIST, b"\0\2\0\3")])) == 1
    assert "no version" in reason_of(peer).reason


@pytest.mark.parametrize(
    ("rands", "code"), [([bytes(16)], 2), ([bytes(16), bytes(16)], 3), ([bytes(16), bytes(15) + b"\1"], 0)]
)
def test_too_few_challenges_and_stale_ones(rands, code):
    peer, say = requests_of(Pair("sim"))
    say(Subtype.SIM_START, [VERSIONS])
    assert client_error(say(Subtype.SIM_CHALLENGE, [(A.AT_RAND, b"".join(rands)), (A.AT_MAC, bytes(16))])) == code
    assert reason_of(peer).reason


def test_a_challenge_before_the_nonce():
    peer, say = requests_of(Pair("sim"))
    assert client_error(say(Subtype.SIM_CHALLENGE, [(A.AT_RAND, os.urandom(48)), (A.AT_MAC, bytes(16))])) == 0
    assert "before the nonce" in reason_of(peer).reason


@pytest.mark.parametrize(
    "order",
    [
        [A.AT_PERMANENT_ID_REQ, A.AT_FULLAUTH_ID_REQ],
        [A.AT_FULLAUTH_ID_REQ, A.AT_ANY_ID_REQ],
        [A.AT_ANY_ID_REQ, A.AT_ANY_ID_REQ],
    ],
)
def test_identities_are_asked_for_in_one_order(order):
    peer, say = requests_of(Pair("aka"))
    assert say(Subtype.AKA_IDENTITY, [flag(order[0])]).subtype is Subtype.AKA_IDENTITY
    assert client_error(say(Subtype.AKA_IDENTITY, [flag(order[1])])) == 0
    assert "order" in reason_of(peer).reason


@pytest.mark.parametrize("pairs", [[], [flag(A.AT_ANY_ID_REQ), flag(A.AT_PERMANENT_ID_REQ)], [flag(A.AT_RESULT_IND)]])
def test_an_identity_request_asks_for_one(pairs):
    peer, say = requests_of(Pair("aka"))
    assert client_error(say(Subtype.AKA_IDENTITY, pairs)) == 0
    assert isinstance(reason_of(peer), MalformedEap)


@every
def test_a_peer_without_keys_takes_no_fast_authentication(method):
    peer, say = requests_of(Pair(method))
    inside = encrypted(bytes(16), [number(A.AT_COUNTER, 1), (A.AT_NONCE_S, bytes(16))], os.urandom)
    assert client_error(say(Subtype.REAUTHENTICATION, inside, bytes(16))) == 0
    assert "not told" in reason_of(peer).reason


@pytest.mark.parametrize(
    ("code", "kind"), [(16384, EapFailed), (17000, EapFailed), (16384 + 1026, EapFailed)], ids=["general", "?", "??"]
)
@every
def test_a_notification_of_failure_is_acknowledged_and_told(method, code, kind):
    peer, say = requests_of(Pair(method))
    assert say(Subtype.NOTIFICATION, [number(A.AT_NOTIFICATION, code)]).pairs == ()
    error = reason_of(peer)
    assert isinstance(error, kind) and "the server refuses" in error.reason


@pytest.mark.parametrize("code", [0, 1026, 32768, 49152])
@every
def test_a_notification_that_cannot_come_before_the_authentication(method, code):
    peer, say = requests_of(Pair(method))
    assert client_error(say(Subtype.NOTIFICATION, [number(A.AT_NOTIFICATION, code)])) == 0
    assert "at this time" in reason_of(peer).reason


def proven_peer(indication: bool, following: bytes | None = None):
    """A peer of EAP-SIM that has proven itself, its server's next requests, and the keys."""
    pair = Pair("sim", name=IMSI)
    peer, say = requests_of(pair)
    start = say(Subtype.SIM_START, [VERSIONS])
    nonce = start.need(A.AT_NONCE_MT)
    triplets = gsm_triplets(Milenage(KI, OPC), 3, os.urandom)
    keys = sim_keys(b"1" + IMSI, [one.kc for one in triplets], nonce, VERSIONS[1], 1)
    pairs = [(A.AT_RAND, b"".join(one.rand for one in triplets))]
    pairs += [flag(A.AT_RESULT_IND)] if indication else []
    pairs += encrypted(keys.k_encr, [(A.AT_NEXT_REAUTH_ID, following)], os.urandom) if following else []
    answer = say(Subtype.SIM_CHALLENGE, pairs, keys.k_aut, nonce)
    assert answer.subtype is Subtype.SIM_CHALLENGE and (A.AT_RESULT_IND in answer) is indication
    return pair, peer, say, keys


def test_the_subscriber_may_be_denied_after_the_authentication():
    for code in (1026, 1031):
        _, peer, say, keys = proven_peer(indication=False)
        answer = say(Subtype.NOTIFICATION, [number(A.AT_NOTIFICATION, code)], keys.k_aut)
        assert answer.subtype is Subtype.NOTIFICATION and A.AT_MAC in answer
        with pytest.raises(EapFailed, match="before the method was at its end"):
            finish(peer.receive(EapPacket(EapCode.SUCCESS, 9).encode()))
    _, peer, say, keys = proven_peer(indication=False)
    say(Subtype.NOTIFICATION, [number(A.AT_NOTIFICATION, 1026)], keys.k_aut)
    assert isinstance(reason_of(peer), AccountRestricted)


def test_a_success_that_was_to_be_told_under_the_key_is_waited_for():
    _, peer, _, _ = proven_peer(indication=True)
    with pytest.raises(EapFailed, match="before the method was at its end"):
        finish(peer.receive(EapPacket(EapCode.SUCCESS, 9).encode()))
    _, peer, say, keys = proven_peer(indication=True)
    say(Subtype.NOTIFICATION, [number(A.AT_NOTIFICATION, 32768)], keys.k_aut)
    assert finish(peer.receive(EapPacket(EapCode.SUCCESS, 9).encode())) is None
    assert peer.msk == keys.msk


def test_a_success_under_another_key_is_none():
    _, peer, say, _ = proven_peer(indication=True)
    assert client_error(say(Subtype.NOTIFICATION, [number(A.AT_NOTIFICATION, 32768)], bytes(16))) == 0
    assert "not authentic" in reason_of(peer).reason


def test_nothing_but_a_notification_follows_the_answer():
    for subtype, pairs in ((Subtype.SIM_START, [VERSIONS]), (Subtype.SIM_CHALLENGE, [(A.AT_RAND, os.urandom(48))])):
        _, peer, say, _ = proven_peer(indication=False)
        assert client_error(say(subtype, pairs)) == 0
        assert "does not have here" in reason_of(peer).reason


def test_a_server_that_goes_on_after_the_end_is_left():
    _peer, say = requests_of(Pair("aka"))
    say(Subtype.NOTIFICATION, [number(A.AT_NOTIFICATION, 16384)])
    with pytest.raises(EapFailed, match="the server refuses"):
        say(Subtype.AKA_IDENTITY, [flag(A.AT_ANY_ID_REQ)])


@with_umts
def test_a_card_that_never_agrees_ends_after_three(method):
    milenage = Milenage(KI, OPC)
    pair = Pair(method, answers=lambda question: OutOfSync(milenage.auts(question.rand, bytes(6))))
    ours, _, packets = fail(pair)
    assert "stay stale" in ours.reason
    assert sum(len(one.data) > 3 and one.data[0] == 4 for one in packets if one.code is EapCode.RESPONSE) == 2


@with_umts
def test_an_authenticator_gives_up_on_such_a_card_too(method):
    pair = Pair(method)
    _, authenticator = pair.begin()
    packet = finish(authenticator.start())
    identity = pair.identities.permanent
    packet = finish(authenticator.receive(EapPacket(EapCode.RESPONSE, packet[1], 1, identity).encode()))
    for _ in range(3):
        rand = decode_message(packet[5:]).need(A.AT_RAND)
        data = encode_message(
            Subtype.AKA_SYNCHRONIZATION_FAILURE, [(A.AT_AUTS, Milenage(KI, OPC).auts(rand, bytes(6)))]
        )
        packet = finish(
            authenticator.receive(EapPacket.of(EapCode.RESPONSE, packet[1], pair.family.type, data).encode())
        )
    assert decode_message(packet[5:]).number(A.AT_NOTIFICATION) == 16384
    finish(authenticator.receive(EapPacket.of(EapCode.RESPONSE, packet[1], pair.family.type, b"\x0c\0\0").encode()))
    assert "sequence numbers" in authenticator.reason


@with_umts
def test_an_auts_that_is_not_the_cards(method):
    _, theirs, packets = fail(Pair(method, answers=lambda question: OutOfSync(bytes(14))))
    assert "AUTS" in theirs.reason and packets[-1].code is FAILURE


@with_umts
def test_a_challenge_that_was_recorded_is_stale(method):
    usim = Usim(KI, OPC)
    vector = Milenage(KI, OPC).vector(bytes(16), bytes(4) + b"\1\0", b"\x80\0")
    assert not isinstance(usim.authenticate(vector.rand, vector.autn), OutOfSync)
    stale = usim.authenticate(vector.rand, vector.autn)
    assert isinstance(stale, OutOfSync)
    assert Milenage(KI, OPC).open_auts(vector.rand, stale.auts) == bytes(4) + b"\1\0"


def test_a_bidding_down_is_noticed():
    pair = Pair("aka")
    pair.peer_options = pair.authenticator_options = {"prefers_prime": True}
    ours, theirs, _ = fail(pair)
    assert "EAP-AKA'" in ours.reason and "does not take this network" in theirs.reason


def test_a_network_of_another_name():
    pair = Pair("aka-prime")
    pair.peer_options = {"network_name": b"HRPD"}
    ours, _, _ = fail(pair)
    assert (ours.expected, ours.got) == ("HRPD", "WLAN")


def challenge_of(kdfs, *, amf: bytes = b"\x80\0", name: bytes = b"WLAN"):
    vector = Milenage(KI, OPC).vector(os.urandom(16), bytes(4) + b"\1\0", amf)
    pairs = [(A.AT_RAND, vector.rand), (A.AT_AUTN, vector.autn), (A.AT_KDF_INPUT, name)]
    return [*pairs, *(number(A.AT_KDF, kdf) for kdf in kdfs), (A.AT_MAC, bytes(16))]


def test_a_key_derivation_function_is_agreed_on():
    pair = Pair("aka-prime")
    peer, say = requests_of(pair)
    answer = say(Subtype.AKA_CHALLENGE, challenge_of([2, 1, 3]))
    assert answer.pairs == (number(A.AT_KDF, 1),)
    # the list comes again, the chosen one in front; this server knows no keys, which is noticed at AT_MAC
    assert client_error(say(Subtype.AKA_CHALLENGE, challenge_of([1, 2, 1, 3]))) == 0
    assert "not authentic" in reason_of(peer).reason


@pytest.mark.parametrize("again", [[1, 2, 3], [1, 2, 1], [2, 1, 3], [1, 1, 2, 3], []])
def test_the_list_of_functions_is_not_to_be_changed(again):
    peer, say = requests_of(Pair("aka-prime"))
    say(Subtype.AKA_CHALLENGE, challenge_of([2, 1, 3]))
    assert client_error(say(Subtype.AKA_CHALLENGE, challenge_of(again))) == 0
    assert "changed the list" in reason_of(peer).reason


@pytest.mark.parametrize(
    ("kdfs", "options", "why"),
    [
        ([2, 3], {}, "no key derivation function"),
        ([1], {"amf": bytes(2)}, "separation bit"),
    ],
)
def test_what_the_card_is_not_asked_for(kdfs, options, why):
    pair = Pair("aka-prime")
    peer, say = requests_of(pair)
    assert say(Subtype.AKA_CHALLENGE, challenge_of(kdfs, **options)).subtype is Subtype.AKA_AUTHENTICATION_REJECT
    assert why in str(reason_of(peer)) and not pair.ask_card.questions


@pytest.mark.parametrize("kdfs", [[], [1, 1]])
def test_a_list_that_breaks_the_rules(kdfs):
    peer, say = requests_of(Pair("aka-prime"))
    assert client_error(say(Subtype.AKA_CHALLENGE, challenge_of(kdfs))) == 0
    assert "wrong list" in reason_of(peer).reason


def test_a_peer_that_wants_another_function_is_refused():
    pair = Pair("aka-prime")
    _, authenticator = pair.begin()
    packet = finish(authenticator.start())
    packet = finish(authenticator.receive(EapPacket(EapCode.RESPONSE, packet[1], 1, pair.identities.full).encode()))
    data = encode_message(Subtype.AKA_CHALLENGE, [number(A.AT_KDF, 2)])
    packet = finish(authenticator.receive(EapPacket.of(EapCode.RESPONSE, packet[1], AKA_PRIME.type, data).encode()))
    assert decode_message(packet[5:]).subtype is Subtype.NOTIFICATION
    finish(authenticator.receive(EapPacket.of(EapCode.RESPONSE, packet[1], AKA_PRIME.type, b"\x0c\0\0").encode()))
    assert "another key derivation function" in authenticator.reason


@with_umts
def test_a_question_about_identities_that_somebody_changed(method):
    """AT_PERMANENT_ID_REQ in place of AT_ANY_ID_REQ would lay the subscriber bare; AT_CHECKCODE tells of it."""

    def between(octets):
        packet = EapPacket.decode(octets)
        if packet.code is EapCode.REQUEST and packet.type != 1 and packet.data[0] == Subtype.AKA_IDENTITY:
            data = encode_message(Subtype.AKA_IDENTITY, [flag(A.AT_PERMANENT_ID_REQ)])
            return EapPacket(packet.code, packet.identifier, packet.type, data).encode()
        return octets

    ours, theirs, _ = fail(Pair(method), between, told=b"somebody")
    assert "changed what was said about identities" in ours.reason
    assert "broke off" in theirs.reason


@pytest.mark.parametrize("code", [0, 1, 2, 3, 77])
def test_client_errors_in_words(code):
    pair = Pair("sim")
    _, authenticator = pair.begin()
    packet = finish(authenticator.start())
    packet = finish(authenticator.receive(EapPacket(EapCode.RESPONSE, packet[1], 1, pair.identities.full).encode()))
    data = encode_message(Subtype.CLIENT_ERROR, [number(A.AT_CLIENT_ERROR_CODE, code)])
    packet = finish(authenticator.receive(EapPacket.of(EapCode.RESPONSE, packet[1], SIM.type, data).encode()))
    assert packet[0] == FAILURE
    assert f"client error {code}" in authenticator.reason and "broke off EAP-SIM: " in authenticator.reason


def test_what_the_outside_refuses_to_answer_ends_the_log_in():
    for pair in (
        Pair("aka", centre=lambda question: EapFailed("the HSS is not there")),
        Pair("aka", answers=lambda question: EapFailed("no card in the reader")),
    ):
        ours, theirs, _ = fail(pair)
        assert "HSS" in theirs.reason or "card" in ours.reason


def test_a_sim_answer_under_wrong_triplets():
    """The authentication centre has other answers to the same RANDs: the client sees it first."""

    def wrong(question):
        if not hasattr(question, "count"):
            return IMSI
        return SubscriberTriplets(IMSI, gsm_triplets(Milenage(OTHER_KI, OPC), question.count, os.urandom))

    ours, theirs, _ = fail(Pair("sim", centre=wrong))
    assert "not authentic" in ours.reason and "broke off" in theirs.reason


def test_what_is_remembered_is_bounded():
    given = TemporaryIdentities(AKA, limit=3)
    known = []
    for number_ in range(20):
        subscriber = b"0%d" % number_
        pseudonym, following = given.new_pseudonym(os.urandom), given.new_reauthentication(subscriber, os.urandom)
        given.remember(subscriber, pseudonym, Reauthentication(following, subscriber, 1, b"", b"", b""))
        known.append((subscriber, pseudonym, following))
    assert [given.subscriber(one[1]) for one in known] == [None] * 17 + [one[0] for one in known[-3:]]
    assert [given.reauthentication(one[2]) is not None for one in known] == [False] * 17 + [True] * 3
    assert len(given._subscribers) == 6
    for _ in range(50):
        given.remember(b"019", given.new_pseudonym(os.urandom), None)
    assert len(given._subscribers) <= 6 + 1


def test_an_identity_of_one_kind_is_not_taken_for_another():
    given = TemporaryIdentities(AKA)
    pseudonym, following = given.new_pseudonym(os.urandom), given.new_reauthentication(b"01@r", os.urandom)
    given.remember(b"01@r", pseudonym, Reauthentication(following, b"01@r", 1, b"", b"", b""))
    assert given.subscriber(following) is None and given.reauthentication(pseudonym) is None
    assert given.subscriber(pseudonym + b"@elsewhere") == b"01@r"
    assert given.reauthentication(following.replace(b"@r", b"@x")) is None


@pytest.mark.parametrize(
    ("family", "name", "identity"),
    [
        (AKA, b"001010000000001", b"0001010000000001"),
        (SIM, b"00101000000001@r", b"100101000000001@r"),
        (AKA_PRIME, b"6001010000000001@r", b"6001010000000001@r"),
        (AKA, b"alice@example.com", b"alice@example.com"),
    ],
)
def test_permanent_identities(family, name, identity):
    assert permanent_identity(family, name) == identity


@every
def test_a_success_in_the_middle_is_refused(method):
    pair = Pair(method)
    peer, authenticator = pair.begin()
    finish(peer.receive(finish(authenticator.start())))
    with pytest.raises(EapFailed, match="before the method"):
        finish(peer.receive(EapPacket(EapCode.SUCCESS, 1).encode()))


@every
def test_another_method_wants_its_own_row(method):
    """A NAK of a peer that has only EAP-MD5."""
    pair = Pair(method)
    _, authenticator = pair.begin()
    packet = finish(authenticator.start())
    packet = finish(authenticator.receive(EapPacket(EapCode.RESPONSE, packet[1], 1, IMSI + REALM).encode()))
    assert EapPacket.decode(packet).method == MethodType(0, pair.family.type.type)
    packet = finish(authenticator.receive(EapPacket(EapCode.RESPONSE, packet[1], 3, b"\4").encode()))
    assert packet[0] == FAILURE and "no EAP method in common" in authenticator.reason


def test_the_asker_of_these_tests_says_what_it_was_asked():
    pair = Pair("aka")
    peer, authenticator = pair.begin()
    log_in(peer, authenticator)
    assert isinstance(pair.ask_card, Asker) and pair.ask_card.questions[0].subscriber == b"0" + IMSI + REALM

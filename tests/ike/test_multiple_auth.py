"""Several proofs of one side in IKE_AUTH (RFC 4739): both roles, over good and bad networks."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.auth.pki import NOW, new_key, root
from tests.ike.pair import IKE, Pair, connection, connection_b
from tests.ike.stranger import kinds
from tests.ike.test_eap import KeyedPeer, KeyedServer, KeylessPeer, KeylessServer, client, server
from tests.ike.test_lossy import QUICK

from ikeway.auth.certificate import CertificateCredential, TrustStore
from ikeway.auth.identity import Identity, IdentityPattern
from ikeway.auth.questions import PskQuestion
from ikeway.errors import AuthenticationFailed, ConfigError, NegotiationFailed
from ikeway.ike import events
from ikeway.ike.settings import (
    CertificateExpected,
    EapOnlyExpected,
    FurtherCredential,
    FurtherExpectation,
    PskCredential,
    PskExpected,
    ResponderSettings,
)
from ikeway.wire.message import Message
from ikeway.wire.payloads import Authentication, IdInitiator, IdResponder
from ikeway.wire.registry import ExchangeType, NotifyType

CA = root()
TRUST = TrustStore((CA.certificate,))
WAIT = PskQuestion(Identity.parse("nobody"), Identity.parse("nobody"))  # any question, held back
SEVERAL = ResponderSettings(ike_proposals=IKE, cookie_threshold=1000, multiple_auth=True)


def _certificate(name: str) -> CertificateCredential:
    node = CA.issue(name, key=new_key(), alternatives=(f"dns:{name}",))
    return CertificateCredential((node.certificate,), node.key)


CERTIFICATES = {name: _certificate(name) for name in ("a.example", "bob.example", "b.example", "b2.example")}


class KeyedServerOfBob(KeyedServer):
    """The user is the one that EAP-Identity said."""

    async def run(self, identity, ask):
        if (yield b"who?") != b"me":
            raise AuthenticationFailed("somebody else")
        from tests.ike.test_eap import MSK

        self.msk = MSK


# What a log-in is: our credential and the peer's expectation of it.
def by_certificate(name: str = "a.example"):
    return CERTIFICATES[name], CertificateExpected(TRUST)


def by_psk(secret: bytes = b"a secret", there: bytes = b"a secret"):
    return PskCredential(secret), PskExpected(there)


def by_eap():
    return client(KeyedPeer), server(KeyedServerOfBob)


def by_keyless_eap():
    return client(KeylessPeer), server(KeylessServer)


METHODS = {"certificate": by_certificate, "psk": by_psk, "eap": by_eap, "keyless": by_keyless_eap}
BY_PSK = (by_psk(),)
PAIRS = list(itertools.product(METHODS, METHODS))


def several(*of_client, of_gateway=BY_PSK, responder=SEVERAL, identities=(), login_seconds=150.0, **changes) -> Pair:
    """Two engines with these log-ins of the client and proofs of the gateway; `identities` of the client's further
    ones."""
    names = [*map(Identity.parse, identities), *[Identity.parse("a.example")] * 4]
    first, *others = of_client
    gateway_first, *gateway_others = of_gateway
    a = connection(
        local_credential=first[0],
        further_credentials=tuple(FurtherCredential(each[0], name) for each, name in zip(others, names, strict=False)),
        remote_expectation=gateway_first[1],
        further_expectations=tuple(FurtherExpectation(each[1]) for each in gateway_others),
        **changes,
    )
    b = connection_b(
        local_credential=gateway_first[0],
        further_credentials=tuple(FurtherCredential(each[0], Identity.parse("b2.example")) for each in gateway_others),
        remote_expectation=first[1],
        further_expectations=tuple(FurtherExpectation(each[1]) for each in others),
        **changes,
    )
    return Pair(a, b, responder=responder, epoch=NOW, login_seconds=login_seconds)


def conversation(pair: Pair) -> list[list[str]]:
    """The payloads of every message of IKE_AUTH, as the initiator sees them."""
    found: list[Message] = [
        event.message
        for event in pair.a.log
        if isinstance(event, events.MessageSent | events.MessageReceived)
        and event.message.exchange_type == ExchangeType.IKE_AUTH
    ]
    return [[kind for kind in kinds(message) if kind not in _BESIDE] for message in found]


_BESIDE = {"CertificateRequest", "INITIAL_CONTACT", "MOBIKE_SUPPORTED", "ADDITIONAL_IP4_ADDRESS"}
CHILD = ["SecurityAssociation", "TrafficSelectorsInitiator", "TrafficSelectorsResponder"]
AUTH, MORE, SUPPORTED = "Authentication", "ANOTHER_AUTH_FOLLOWS", "MULTIPLE_AUTH_SUPPORTED"
EAP = ["Eap"]


def proofs(sa) -> tuple[str, ...]:
    return tuple(map(str, sa.proofs))


def assert_up(pair: Pair) -> None:
    pair.agree()
    assert len(pair.a.inbound) == 1 == len(pair.b.inbound), pair.a.errors
    assert len(pair.a.happened(events.IkeEstablished)) == 1 == len(pair.b.happened(events.IkeEstablished))


def assert_down(pair: Pair) -> None:
    """Neither side took the other for authenticated, and nothing is left."""
    pair.run(15)  # a closed SA answers duplicates for ten seconds
    for host in (pair.a, pair.b):
        assert not host.happened(events.IkeEstablished) and not host.happened(events.ChildUp)
        assert not host.inbound and not host.outbound
        assert not host.engine.sas and not len(host.engine._half_open)


# --- as the RFC draws it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("methods", PAIRS, ids="+".join)
def test_any_two_log_ins_of_the_client(methods):
    pair = several(*(METHODS[name]() for name in methods))
    pair.connect()
    assert_up(pair)
    assert len(pair.b.sa.proofs) == 2
    assert conversation(pair)[-1][-3:] == CHILD  # the child SA comes with the last answer, and only there
    assert all("SecurityAssociation" not in message for message in conversation(pair)[1:-1])


def test_two_log_ins_by_eap():
    """RFC 4739 section 2.2."""
    pair = several(by_eap(), by_keyless_eap())
    pair.connect()
    assert_up(pair)
    assert conversation(pair) == [
        ["IdInitiator", "IdResponder", *CHILD, SUPPORTED],
        ["IdResponder", AUTH, "Eap"],
        EAP,
        EAP,
        EAP,
        EAP,
        [AUTH, MORE],
        [AUTH],
        ["IdInitiator"],
        EAP,
        EAP,
        EAP,
        EAP,
        EAP,
        [AUTH],
        [AUTH, *CHILD],
    ]
    assert pair.b.sa.eap_identity == b"bob"
    assert proofs(pair.b.sa) == ("bob by keyed", "bob by keyless")


def test_a_certificate_and_then_eap():
    """RFC 4739 section 2.3."""
    pair = several(by_certificate(), by_eap(), of_gateway=(by_certificate("b.example"),))
    pair.connect()
    assert_up(pair)
    sent = conversation(pair)
    assert sent[0] == ["IdInitiator", "Certificate", "IdResponder", AUTH, MORE, *CHILD, SUPPORTED]
    assert sent[1] == ["IdResponder", "Certificate", AUTH]
    assert sent[2:4] == [["IdInitiator"], EAP]
    assert sent[-2:] == [[AUTH], [AUTH, *CHILD]]
    assert proofs(pair.b.sa) == ("a.example by certificate", "bob by keyed")
    assert proofs(pair.a.sa) == ("b.example by certificate",)
    assert str(pair.b.sa.remote_identity) == "a.example" and pair.b.sa.eap_identity == b"bob"


def test_two_certificates_of_the_client():
    """RFC 4739 section 2.4."""
    pair = several(by_certificate(), by_certificate("bob.example"), identities=["bob.example"])
    pair.connect()
    assert_up(pair)
    assert conversation(pair) == [
        ["IdInitiator", "Certificate", "IdResponder", AUTH, MORE, *CHILD, SUPPORTED],
        ["IdResponder", AUTH],
        ["IdInitiator", "Certificate", AUTH],
        CHILD,
    ]
    assert proofs(pair.b.sa) == ("a.example by certificate", "bob.example by certificate")
    assert str(pair.b.sa.remote_identity) == "a.example"


def test_two_certificates_of_the_gateway():
    """RFC 4739 section 2.5."""
    pair = several(by_psk(), of_gateway=(by_certificate("b.example"), by_certificate("b2.example")))
    pair.connect()
    assert_up(pair)
    assert conversation(pair) == [
        ["IdInitiator", "IdResponder", AUTH, *CHILD, SUPPORTED],
        ["IdResponder", "Certificate", AUTH, MORE],
        [],
        ["IdResponder", "Certificate", AUTH, *CHILD],
    ]
    assert proofs(pair.a.sa) == ("b.example by certificate", "b2.example by certificate")
    assert str(pair.a.sa.remote_identity) == "b.example" and str(pair.b.sa.local_identity) == "b.example"


@pytest.mark.parametrize("methods", PAIRS, ids="+".join)
def test_both_sides_prove_themselves_twice(methods):
    pair = several(
        *(METHODS[name]() for name in methods), of_gateway=(by_certificate("b.example"), by_certificate("b2.example"))
    )
    pair.connect()
    assert_up(pair)
    assert len(pair.a.sa.proofs) == len(pair.b.sa.proofs) == 2


def test_the_gateways_second_proof_comes_beside_eap():
    pair = several(by_eap(), of_gateway=(by_certificate("b.example"), by_certificate("b2.example")))
    pair.connect()
    assert_up(pair)
    sent = conversation(pair)
    assert sent[1] == ["IdResponder", "Certificate", AUTH, MORE, "Eap"]
    assert sent[3] == ["IdResponder", "Certificate", AUTH, "Eap"]


def test_three_log_ins():
    pair = several(by_psk(), by_certificate(), by_eap())
    pair.connect()
    assert_up(pair)
    assert len(pair.b.sa.proofs) == 3


def test_the_secret_of_each_log_in_is_asked_for_with_its_identity():
    pair = several(by_psk(None, None), by_psk(None, None), identities=["bob.example"])
    asked = []

    def secret(question):
        asked.append((str(question.local_identity), str(question.remote_identity)))
        return str(question.remote_identity).encode()

    pair.b.answers[PskQuestion] = lambda question: secret(question)
    pair.a.answers[PskQuestion] = lambda question: str(question.local_identity).encode()
    pair.a.connection = replace(pair.a.connection, remote_expectation=PskExpected(b"a.example"))
    pair.b.connection = replace(pair.b.connection, local_credential=PskCredential(b"a.example"))
    pair.connect()
    assert_up(pair)
    assert asked == [("b.example", "a.example"), ("b.example", "bob.example")]


def test_eap_alone_and_then_a_key():
    """RFC 5998 in the first log-in: the gateway is proven by it."""
    pair = several(by_eap(), by_psk())
    pair.a.connection = replace(pair.a.connection, remote_expectation=EapOnlyExpected())
    pair.connect()
    assert_up(pair)
    assert conversation(pair)[1] == ["IdResponder", "Eap"]


def test_eap_alone_counts_only_in_the_first_log_in():
    """Before the second one our first proof would go to anybody."""
    pair = several(by_psk(), by_eap())
    pair.a.connection = replace(pair.a.connection, remote_expectation=EapOnlyExpected())
    pair.connect()
    assert isinstance(pair.a.errors[0], ConfigError)
    assert_down(pair)


def test_one_log_in_says_nothing_of_several():
    pair = Pair(responder=SEVERAL)
    pair.connect()
    assert_up(pair)
    assert SUPPORTED not in conversation(pair)[0] and len(conversation(pair)) == 2


@pytest.mark.parametrize(("seconds", "is_up"), [(70, True), (130, False)])
def test_each_log_in_has_its_time(seconds, is_up):
    """A person may have to type something for each."""

    class Slow(KeyedPeer):
        async def run(self, request, ask):
            await ask(WAIT)
            async for answer in super().run(request, ask):
                yield answer

    pair = several((client(Slow), by_eap()[1]), (client(Slow), by_eap()[1]), login_seconds=100.0)
    held = []
    pair.a.engine.answer, answer = lambda question, value, now: held.append(question), pair.a.engine.answer
    pair.a.answers[type(WAIT)] = True
    pair.connect()
    for _ in range(2):
        pair.run(seconds)
        for question in held[-1:]:
            answer(question, True, pair.now)
        pair.run(1)
    assert bool(pair.b.happened(events.IkeEstablished)) is is_up


def test_rekeying_keeps_what_was_proven():
    pair = several(by_certificate(), by_eap())
    pair.connect()
    pair.a.sa.rekey(pair.now)
    pair.run(2)
    assert proofs(pair.b.sa) == ("a.example by certificate", "bob by keyed")


def test_logging_in_anew_takes_all_log_ins_again():
    pair = several(by_certificate(), by_eap())
    pair.connect()
    KeyedPeer.ran = 0
    pair.a.sa.reauthenticate(pair.now)
    pair.run(5)
    pair.agree()
    assert len(pair.a.inbound) == 1 and KeyedPeer.ran == 1
    assert len(pair.b.sa.proofs) == 2


# --- what does not fit together ---------------------------------------------------------------------------------------


def test_a_gateway_that_takes_only_one():
    pair = several(by_certificate(), by_eap(), responder=replace(SEVERAL, multiple_auth=False))
    pair.connect()
    (error,) = pair.a.errors
    assert isinstance(error, NegotiationFailed) and "MULTIPLE_AUTH_SUPPORTED" in error.expected and error.remedy
    assert conversation(pair) == []  # nothing of ours was shown
    pair.b.engine.tick(pair.now + 100)
    assert not pair.b.happened(events.IkeEstablished)


def _refused(pair: Pair, words: str) -> AuthenticationFailed:
    """The gateway refused it, in these words, and the client learned no more than that."""
    pair.connect()
    errors = [event.error for event in pair.b.happened(events.Refused)]
    assert len(errors) == 1 and words in str(errors[0]), errors
    assert errors[0].remedy and pair.a.errors[0].notify == NotifyType.AUTHENTICATION_FAILED
    assert_down(pair)
    return errors[0]


def test_a_client_that_does_only_one():
    pair = several(by_certificate(), by_eap())
    pair.a.connection = replace(pair.a.connection, further_credentials=())
    error = _refused(pair, "does not do the 2 authentications")
    assert "second log-in" in error.remedy
    assert "further log-in" in pair.a.errors[0].remedy


def test_a_client_that_expects_one_proof_of_a_gateway_with_two():
    pair = several(by_psk(), of_gateway=(by_certificate("b.example"), by_certificate("b2.example")))
    pair.a.connection = replace(pair.a.connection, further_expectations=())
    _refused(pair, "does not do the 2 authentications of the gateway")


@pytest.mark.parametrize("first", METHODS)
def test_a_client_with_fewer_log_ins_than_are_due(first):
    pair = several(METHODS[first](), by_psk(), by_psk())
    pair.a.connection = replace(pair.a.connection, further_credentials=pair.a.connection.further_credentials[:1])
    _refused(pair, "stops before the further authentication")


@pytest.mark.parametrize("first", METHODS)
def test_a_client_with_more_log_ins_than_are_due(first):
    pair = several(METHODS[first](), by_psk(), by_psk())
    pair.b.connection = replace(pair.b.connection, further_expectations=pair.b.connection.further_expectations[:1])
    _refused(pair, "announces another authentication")


@pytest.mark.parametrize("second", METHODS)
def test_a_second_log_in_of_another_kind(second):
    pair = several(by_psk(), METHODS[second]())
    other = by_eap() if second in ("psk", "certificate") else by_psk()
    pair.b.connection = replace(pair.b.connection, further_expectations=(FurtherExpectation(other[1]),))
    pair.connect()
    assert pair.a.errors and pair.b.happened(events.Refused)
    assert_down(pair)


@pytest.mark.parametrize("first", METHODS)
def test_a_wrong_second_secret(first):
    pair = several(METHODS[first](), by_psk(b"a secret", b"another"))
    _refused(pair, "the pre-shared key of a.example is not")


@pytest.mark.parametrize("second", METHODS)
def test_a_wrong_first_secret(second):
    pair = several(by_psk(b"a secret", b"another"), METHODS[second]())
    _refused(pair, "the pre-shared key of a.example is not")
    assert len(conversation(pair)) == 2


def test_a_second_certificate_of_somebody_else():
    pair = several(by_certificate(), by_certificate("bob.example"), identities=["bob.example"])
    further = pair.b.connection.further_expectations[0]
    pattern = IdentityPattern.parse("alice.example")
    pair.b.connection = replace(pair.b.connection, further_expectations=(replace(further, identity=pattern),))
    assert "bob.example" in _refused(pair, "identity is not the expected one").got


def test_a_second_certificate_that_does_not_carry_its_identity():
    pair = several(by_certificate(), by_certificate("bob.example"), identities=["alice.example"])
    pair.connect()
    assert_down(pair)


def test_two_factors_of_two_people_make_no_log_in():
    """Somebody who has the password of one and the token of another."""

    class OfAlice(KeyedServer):
        async def run(self, identity, ask):
            yield b"who?"
            self.identity = b"alice"

    class Nothing(KeylessPeer):
        type = KeyedPeer.type

    pair = several(by_eap(), (client(Nothing), server(OfAlice)))
    error = _refused(pair, "another user")
    assert (error.expected, error.got) == ("bob", "alice")


def test_the_same_user_is_the_same_in_other_letters():
    class OfBob(KeyedServer):
        async def run(self, identity, ask):
            yield b"who?"
            self.identity = b"BOB"

    class Nothing(KeylessPeer):
        type = KeyedPeer.type

    pair = several(by_eap(), (client(Nothing), server(OfBob)))
    pair.connect()
    assert_up(pair)


def test_a_gateway_with_three_proofs_or_one_by_eap_is_a_mistake():
    for proofs in ((by_psk(),) * 3, (by_psk(), by_eap())):
        pair = several(by_psk(), of_gateway=proofs)
        pair.a.connection = replace(
            pair.a.connection, further_expectations=(FurtherExpectation(PskExpected(b"a secret")),)
        )
        pair.connect()
        (event,) = pair.b.happened(events.Refused)
        assert isinstance(event.error, ConfigError)
        assert_down(pair)


def test_a_gateway_that_proves_itself_less_often_than_it_should():
    pair = several(by_psk(), of_gateway=(by_certificate("b.example"), by_certificate("b2.example")))
    pair.b.connection = replace(pair.b.connection, further_credentials=())
    pair.connect()
    (error,) = pair.a.errors
    assert "does not go on" in str(error) and error.remedy
    assert not pair.a.happened(events.IkeEstablished) and not pair.a.inbound


def test_a_gateway_whose_second_proof_is_wrong():
    pair = several(by_psk(), of_gateway=(by_certificate("b.example"), by_psk(b"another")))
    pair.connect()
    assert "pre-shared key" in str(pair.a.errors[0])
    assert not pair.a.happened(events.IkeEstablished) and not pair.a.inbound


# --- over a bad network -----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.floats(0, 0.3),
    double=st.floats(0, 0.5),
    spread=st.floats(0.01, 1.0),
    methods=st.lists(st.sampled_from(sorted(METHODS)), min_size=2, max_size=3),
    twice=st.booleans(),
    wrong=st.booleans(),
)
def test_loss_and_duplicates_change_nothing(seed, loss, double, spread, methods, twice, wrong):
    log_ins = [METHODS[name]() for name in methods]
    if wrong:
        log_ins.append(by_psk(b"a secret", b"another"))
    proofs = (by_certificate("b.example"), by_certificate("b2.example")) if twice else (by_psk(),)
    pair = several(*log_ins, of_gateway=proofs, retransmission=QUICK)
    pair.source.seed(seed)

    def network(datagram):
        if pair.source.random() < loss:
            return []
        copies = 2 if pair.source.random() < double else 1
        return [pair.source.uniform(0.001, spread) for _ in range(copies)]

    pair.network = network
    pair.a.engine.connect(pair.a.connection, pair.a.address, pair.b.address, pair.now)
    pair.run(120)
    pair.network = lambda datagram: [0.01]
    pair.run(400)
    pair.agree()
    if wrong:
        assert not pair.b.happened(events.IkeEstablished) and not pair.a.happened(events.IkeEstablished)
        assert not pair.a.engine.sas and not pair.b.engine.sas
    elif pair.a.happened(events.IkeEstablished):
        assert len(pair.b.sa.proofs) == len(methods)
        assert len(pair.a.inbound) == 1
        assert sum(len(each) for each in _auths(pair)) >= len(methods)
    else:
        assert pair.a.errors


def _auths(pair: Pair) -> list[list[Authentication]]:
    sent = pair.a.happened(events.MessageSent)
    return [event.message.find_all(Authentication) for event in sent if event.retransmission == 0]


def test_identities_in_auth_are_those_sent_last():
    """RFC 4739 section 2.1: IDi' and IDr' are the latest ones; a first identity would not verify the second proof."""
    pair = several(by_psk(), by_eap(), identities=["other.example"])
    pair.connect()
    assert_up(pair)
    said = [
        payload.value
        for event in pair.a.happened(events.MessageSent)
        for payload in event.message.payloads
        if isinstance(payload, IdInitiator)
    ]
    assert said == [b"a.example", b"other.example"]
    assert not any(
        isinstance(payload, IdResponder)
        for event in pair.a.happened(events.MessageReceived)[2:]
        for payload in event.message.payloads
    )

"""The probe without real gateways: what it refuses, and gateways that are silent, tired or hostile."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ikeway.address import Address
from ikeway.cli import build
from ikeway.errors import ConfigError, PeerUnreachable, WireError
from ikeway.wire import (
    KeyExchange,
    KeyExchangeMethod,
    Message,
    Notify,
    NotifyType,
    Proposal,
    SecurityAssociation,
    Transform,
    TransformType,
    VendorId,
)
from ikeway.workbench.probe import ProbeSettings, State, offers, probe
from ikeway.workbench.probe.asking import Asker, Survey
from ikeway.workbench.probe.line import Heard
from ikeway.workbench.probe.settings import one_host
from tests.workbench.udp import QUICK, gateway, in_ikev2, reply

REFUSED = [
    "10.0.0.0/24", "2001:db8::/32", "10.0.0.1-20", "10.0.0.1-10.0.0.20", "10.0.0.*", "10.*", "fd00::1-5", "a.test,b.test",
    "a.test b.test", "", " ", "224.0.0.1", "0.0.0.0", "::", "255.255.255.255", "ff02::1", "::ffff:224.0.0.1",
    "10.0.0.1\u201320", "10.0.0.1..20", "10.0.0.1~5", "10.0.0.[1-5]", "vpn{1..3}.test", "vpn?.test", "*.test",
    "a.test;b.test",
    "10.0.0.1 - 10.0.0.9", "https://a.test", "a.test:500", "[fd00::1]:500", "10.0.0.1:500", "a.test\x1b[2J", "fe80::1",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_more_or_less_than_one_host_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        one_host(text)


@pytest.mark.parametrize(
    "text",
    [
        "vpn.example.com",
        "my-vpn",
        "192.0.2.1",
        "2001:db8::1",
        "[2001:db8::1]",
        "10-0-0-1.example",
        "b\u00fccher.example",
        "fe80::1%eth0",
        "_vpn.example",
    ],
)
def test_one_host_is_taken(text: str) -> None:
    assert one_host(text) == text.strip("[]")


def test_the_command_line_refuses_a_network_as_a_mistake_of_the_user() -> None:
    result = CliRunner().invoke(build("probe"), ["probe", "192.0.2.0/28"])
    assert result.exit_code == 2
    assert "does not scan" in result.output


@pytest.mark.parametrize("rate", [0, -1, 51, 1e9])
def test_a_flood_is_refused(rate: float) -> None:
    with pytest.raises(ConfigError):
        ProbeSettings(rate=rate)


Behaviour = Callable[[Message], Message | None]


class FakeLine:
    """Answers at once, as `behave` wants."""

    local, remote, malformed = Address("192.0.2.1", 500), Address("192.0.2.2", 500), 0

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.asked: list[Message] = []
        self.pauses: list[float] = []
        self.pace = self

    def slow_down(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def ask(self, question: Message, tries: int = 2) -> Heard[Message]:
        self.asked.append(question)
        return Heard(self.behave(Message.decode(question.encode())))


def takes(*keywords: str) -> Callable[[Message], bool]:
    """Whether a proposal of these keywords is somewhere in the offer."""
    from ikeway.ike.proposals import parse_proposals, select

    acceptable = parse_proposals(",".join(keywords))

    def judge(question: Message) -> bool:
        offered = question.find(SecurityAssociation)
        assert offered is not None
        return select(offered.proposals, acceptable) is not None

    return judge


def survey(behave: Behaviour) -> tuple[list[tuple[str, State]], FakeLine, Survey]:
    line = FakeLine(behave)
    made = Survey(Asker(line, lambda what: None))  # type: ignore[arg-type]
    return [(each.keyword, each.state) for each in made.run()], line, made


IKE = "aes128-sha256-modp2048"
TAKEN = {"aes128", "sha256", "prfsha256", "modp2048"}


def test_a_gateway_that_is_silent_about_what_it_refuses() -> None:
    good = takes(IKE)

    def behave(question: Message) -> Message | None:
        if not good(question):
            return None
        return reply(question, Notify(NotifyType.INVALID_KE_PAYLOAD, int(KeyExchangeMethod.MODP_2048).to_bytes(2)))

    answers, _, made = survey(behave)
    assert {keyword for keyword, state in answers if state is State.TAKEN} == TAKEN
    after = answers.index(("modp2048", State.TAKEN))
    assert {state for _, state in answers[after:]} == {State.TAKEN, State.REFUSED}
    assert not made.exhausted


def test_a_gateway_that_has_had_enough_is_left_alone() -> None:
    good, left = takes(IKE), 30

    def behave(question: Message) -> Message | None:
        nonlocal left
        left -= 1
        if left < 0:
            return None
        taken = Notify(NotifyType.INVALID_KE_PAYLOAD, int(KeyExchangeMethod.MODP_2048).to_bytes(2))
        return reply(question, taken if good(question) else Notify(NotifyType.NO_PROPOSAL_CHOSEN))

    answers, line, made = survey(behave)
    assert made.exhausted
    # The question that was not answered, one that had been taken before, and that one again after each pause.
    assert (len(line.asked), line.pauses) == (30 + 1 + 1 + 3, [1.0, 2.0, 4.0])
    assert answers[-1] == ("ML_KEM_512", State.UNCLEAR)


def test_a_gateway_with_a_limit_is_asked_more_slowly() -> None:
    """It answers twelve questions, and the next twelve after a pause: silence is not taken for a refusal."""
    good = takes(IKE)

    def behave(question: Message) -> Message | None:
        if len(line.asked) > 12 * (1 + len(line.pauses)):
            return None
        taken = Notify(NotifyType.INVALID_KE_PAYLOAD, int(KeyExchangeMethod.MODP_2048).to_bytes(2))
        return reply(question, taken if good(question) else Notify(NotifyType.NO_PROPOSAL_CHOSEN))

    line = FakeLine(behave)
    made = Survey(Asker(line, lambda what: None))  # type: ignore[arg-type]
    answers = made.run()
    assert {each.keyword for each in answers if each.state is State.TAKEN} == TAKEN
    assert {each.state for each in answers} == {State.TAKEN, State.REFUSED}
    assert made.slowed and not made.exhausted


def test_when_the_time_is_up_no_more_is_asked() -> None:
    line = FakeLine(lambda question: reply(question, Notify(NotifyType.NO_PROPOSAL_CHOSEN)))
    made = Survey(Asker(line, lambda what: None), until=0)  # type: ignore[arg-type]
    answers = made.run()
    assert not line.asked and {each.state for each in answers} == {State.UNCLEAR}
    assert made.exhausted == "the time was up"


def test_ml_kem_beside_another_method_is_found() -> None:
    good = takes(IKE.replace("modp2048", "modp2048-ke1_mlkem768"), IKE)

    def behave(question: Message) -> Message | None:
        taken = Notify(NotifyType.INVALID_KE_PAYLOAD, int(KeyExchangeMethod.MODP_2048).to_bytes(2))
        return reply(question, taken if good(question) else Notify(NotifyType.NO_PROPOSAL_CHOSEN))

    answers, line, _ = survey(behave)
    assert dict(answers[-3:]) == {
        "ke1_mlkem768": State.TAKEN,
        "ke1_mlkem1024": State.REFUSED,
        "ML_KEM_512": State.REFUSED,
    }
    last = line.asked[-1]
    assert last.notify(NotifyType.INTERMEDIATE_EXCHANGE_SUPPORTED) is not None  # RFC 9370 section 2.2.1 wants it


def test_a_cipher_that_goes_with_one_method_only_is_found() -> None:
    """Also where all cheap methods are taken: the one that is not offered must then be another."""
    good = takes("aes256gcm16-prfsha256-x25519", "aes128-sha256-ecp256-ecp384-x448-modp2048")

    def behave(question: Message) -> Message | None:
        taken = Notify(NotifyType.INVALID_KE_PAYLOAD, int(KeyExchangeMethod.CURVE25519).to_bytes(2))
        return reply(question, taken if good(question) else Notify(NotifyType.NO_PROPOSAL_CHOSEN))

    answers, line, _ = survey(behave)
    assert ("aes256gcm16", State.TAKEN) in answers and ("aes128", State.TAKEN) in answers
    keys = [question.find(KeyExchange) for question in line.asked]
    assert keys[-1] is not None and keys[-1].method == KeyExchangeMethod.ECP_521


def test_a_gateway_that_takes_every_group_is_asked_with_one_that_is_not_offered() -> None:
    def behave(question: Message) -> Message | None:
        return reply(question, Notify(NotifyType.INVALID_KE_PAYLOAD, int(KeyExchangeMethod.ECP_256).to_bytes(2)))

    answers, line, _ = survey(behave)
    assert {state for keyword, state in answers if "ml" not in keyword.lower()} == {State.TAKEN}
    # It also takes an additional key exchange that does not exist, so it has not understood any.
    assert [state for _, state in answers[-3:]] == [State.UNCLEAR] * 3
    for question in line.asked:
        security, key = question.find(SecurityAssociation), question.find(KeyExchange)
        assert security is not None and key is not None
        offered = {
            each.id for proposal in security.proposals for each in proposal.transforms if each.type == TransformType.KE
        }
        assert key.method not in offered


def test_a_cookie_is_returned_with_the_same_request() -> None:
    def behave(question: Message) -> Message | None:
        cookie = question.notify(NotifyType.COOKIE)
        if cookie is None:
            return reply(question, Notify(NotifyType.COOKIE, b"cookie"))
        assert question.payloads[0] == cookie
        return reply(question, Notify(NotifyType.NO_PROPOSAL_CHOSEN))

    line = FakeLine(behave)
    asker = Asker(line, lambda what: None)  # type: ignore[arg-type]
    asker.ask(offers.offer(offers.EVERYTHING), KeyExchangeMethod.CURVE25519)
    first, second = line.asked
    assert replace(second, payloads=second.payloads[1:]) == first
    assert (asker.tally.cookies, asker.tally.cookie_octets) == (1, 6)


def test_a_gateway_that_goes_on_changing_its_mind_is_not_followed_forever() -> None:
    methods = iter([KeyExchangeMethod.ECP_256, KeyExchangeMethod.ECP_384] * 50)
    line = FakeLine(
        lambda question: reply(question, Notify(NotifyType.INVALID_KE_PAYLOAD, int(next(methods)).to_bytes(2)))
    )
    Asker(line, lambda what: None).ask_until_chosen(offers.computable(offers.EVERYTHING))  # type: ignore[arg-type]
    assert len(line.asked) == 5


@given(garbage=st.lists(st.binary(max_size=80), max_size=4))
@settings(max_examples=10)
def test_garbage_is_no_answer(garbage: list[bytes]) -> None:
    with gateway(lambda octets: garbage) as port, pytest.raises(PeerUnreachable):
        probe("127.0.0.1", replace(QUICK, port=port, nat_port=1, patience=0.02))


def test_a_flood_of_answers_to_nothing_ends() -> None:
    flood = [os.urandom(8) + bytes(60)] * 200
    with gateway(lambda octets: flood) as port, pytest.raises(PeerUnreachable):
        probe("127.0.0.1", replace(QUICK, port=port, nat_port=1))


def test_what_is_no_message_is_counted_and_the_right_answer_found() -> None:
    def behave(octets: bytes) -> list[bytes]:
        octets = octets.removeprefix(bytes(4))
        try:
            question = Message.decode(octets)
        except WireError:  # the question of another version
            return []
        answer = reply(question, Notify(NotifyType.NO_PROPOSAL_CHOSEN), VendorId(b"OpenIKED-7.2"))
        cut = bytearray(answer.encode()[:-3])
        return [bytes(cut), answer.encode()]

    with gateway(behave) as port:
        report = probe("127.0.0.1", replace(QUICK, port=port, nat_port=1))
    assert report.product.name == "OpenIKED"
    assert any("no IKE messages" in remark for remark in report.remarks)
    assert [each.answers for each in report.ports] == [True, False]
    assert "closed" in report.ports[1].said
    assert report.to_json()["vendors"][0]["value"] == b"OpenIKED-7.2".hex()
    assert "OpenIKED" in report.to_text()


def test_the_next_address_of_a_host_is_asked_when_one_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = (
        "2001:db8::1",
        "127.0.0.9",
        "127.0.0.1",
        "127.0.0.8",
    )  # no route, a closed port, the gateway, not needed
    module = sys.modules[probe.__module__]
    monkeypatch.setattr(module, "resolve", lambda name: addresses)
    with gateway(in_ikev2(lambda question: [reply(question, Notify(NotifyType.NO_PROPOSAL_CHOSEN)).encode()])) as port:
        report = probe("vpn.test", replace(QUICK, port=port, nat_port=1))
    assert (report.host, report.address, report.other_addresses) == ("vpn.test", "127.0.0.1", ("127.0.0.8",))
    assert len(report.remarks) == 2 and "127.0.0.9" in report.remarks[1]
    monkeypatch.setattr(module, "resolve", lambda name: addresses[:2])
    with pytest.raises(PeerUnreachable, match=r"2001:db8::1.*; .*127\.0\.0\.9"):
        probe("vpn.test", replace(QUICK, port=port, nat_port=1))


def test_every_transform_can_be_asked_for() -> None:
    for transform in offers.EVERYTHING:
        method = Transform.of(TransformType.KE, KeyExchangeMethod.ECP_256)
        security = offers.alone(transform, (method,))
        assert all(isinstance(each, Proposal) for each in security.proposals)
        found = {each for proposal in security.proposals for each in proposal.transforms if each.type == transform.type}
        assert found == {transform}
        octets = offers.request(security, KeyExchangeMethod.CURVE25519, (FakeLine.local, FakeLine.remote)).encode()
        assert len(octets) < 1400  # no IP fragments

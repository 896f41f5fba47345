"""IPv6 Ready IKEv2 conformance: which cases are played, by hand-written messages, against the engine.

`covers` names them (IKEv2.EN.* and IKEv2.SGW.*). Where RFC 7296 has changed what RFC 4306 said, the RFC is right and the
test says so. "Use of an SA" is judged by what the data plane is told. The rest needs hosts and packets (Echo over ESP,
ICMP) or certificates, which tests/interop and tests/ike have.
"""

from __future__ import annotations

import pytest

from ikeway.esp.parameters import Mode
from ikeway.ike.proposals import parse_proposals
from ikeway.wire.message import Message
from ikeway.wire.payloads import SecurityAssociation
from ikeway.wire.registry import ExchangeType, ProtocolId, TransformType
from tests.conformance import test_ipv6ready_initiator as initiator
from tests.conformance import test_ipv6ready_login_initiator as login_initiator
from tests.conformance import test_ipv6ready_login_responder as login_responder
from tests.conformance import test_ipv6ready_responder as responder
from tests.conformance.ipv6ready import COVERED, chosen, covers, pair_of, settings, titles
from tests.ike.pair import mirrored


def test_the_cases_exist() -> None:
    assert all(module.covers for module in (initiator, login_initiator, login_responder, responder))
    assert set(titles()) >= COVERED, COVERED - set(titles())
    assert (len(COVERED), len(titles())) == (252, 294)


@covers("I.1.1.6.1", "R.1.1.6.1")
@pytest.mark.parametrize(
    "text",
    [
        "3des-sha1-modp1024",  # what the specification begins with
        "aes128-sha1-modp2048",
        "3des-aesxcbc-prfaesxcbc-modp2048",
        "3des-sha256-modp2048",
        "aes128-sha1-prfsha256-modp2048",
    ],
)
def test_algorithms_of_the_ike_sa(node: str, text: str) -> None:
    proposals = parse_proposals(text)
    pair = pair_of(node, {"ike_proposals": proposals}, {"ike_proposals": proposals})
    pair.connect()
    pair.agree()
    assert pair.a.sa.suite == pair.b.sa.suite and len(pair.a.inbound) == 1
    named = {(transform.type, transform.id) for transform in proposals[0].transforms}
    assert {(transform.type, transform.id) for transform in pair.a.sa.suite.transforms()} == named


@covers("I.1.1.6.2", "R.1.1.6.2")
@pytest.mark.parametrize(
    "text", ["3des-sha1", "aes128-sha1", "aes128ctr-sha1", "null-sha1", "3des-aesxcbc", "3des-sha256", "3des-sha1-esn"]
)
def test_algorithms_of_the_child_sa(node: str, text: str) -> None:
    one = settings(node, proposals=parse_proposals(text, ProtocolId.ESP))
    pair = pair_of(node, {"children": (one,)}, {"children": (mirrored(one),)})
    pair.connect()
    pair.agree()
    (inbound,) = pair.a.inbound.values()
    suite = pair.a.sa.children[0].suite
    named = {(transform.type, transform.id) for transform in one.proposals[0].transforms}
    assert {(transform.type, transform.id) for transform in suite.transforms()} == named
    assert (
        inbound.transforms.encryption == suite.encryption and inbound.transforms.extended_sequence_numbers is suite.esn
    )


def test_modes_are_those_of_the_nodes() -> None:
    assert settings("EN").mode is Mode.TRANSPORT and settings("SGW").mode is Mode.TUNNEL


def test_the_choice_is_one_of_what_was_offered() -> None:
    offer = SecurityAssociation(parse_proposals("aes128gcm16-aes256gcm16", ProtocolId.ESP))
    message = Message(bytes(8), bytes(8), ExchangeType.IKE_AUTH, True, False, 1, (offer,))
    (proposal,) = chosen(message).proposals
    assert [transform.type for transform in proposal.transforms] == [TransformType.ENCR, TransformType.ESN]
